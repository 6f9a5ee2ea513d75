package fieldtypes

import (
	"bytes"
	"encoding/json"
	"fmt"

	"sigs.k8s.io/structured-merge-diff/v6/schema"
)

// The forms of schema.Atom and its parts in types.txt. Unions are left out, which
// nothing reads, and of defaults all but scalars: they stand in for a key that an
// item of a list omits.
type (
	atom struct {
		Scalar string  `json:"s,omitempty"`
		List   *list   `json:"l,omitempty"`
		Map    *fields `json:"m,omitempty"`
	}
	ref struct {
		Named    string  `json:"n,omitempty"`
		Relation *string `json:"r,omitempty"`
		Nullable bool    `json:"null,omitempty"`
		atom
	}
	list struct {
		Item     ref      `json:"i"`
		Relation string   `json:"r,omitempty"`
		Keys     []string `json:"k,omitempty"`
	}
	fields struct {
		Fields   []field `json:"f,omitempty"`
		Element  *ref    `json:"e,omitempty"`
		Relation string  `json:"r,omitempty"`
	}
	field struct {
		Name    string `json:"n"`
		Type    ref    `json:"t"`
		Default any    `json:"d,omitempty"`
	}
)

// decodeType reads one type of types.txt.
func decodeType(name, text string) (schema.TypeDef, error) {
	var a atom
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.UseNumber()
	if err := d.Decode(&a); err != nil {
		return schema.TypeDef{}, fmt.Errorf("the type %s in types.txt: %w", name, err)
	}
	out, err := a.schema()
	if err != nil {
		return schema.TypeDef{}, fmt.Errorf("the type %s in types.txt: %w", name, err)
	}
	return schema.TypeDef{Name: name, Atom: out}, nil
}

func (a *atom) schema() (out schema.Atom, err error) {
	if a.Scalar != "" {
		s := schema.Scalar(a.Scalar)
		out.Scalar = &s
	}
	if a.List != nil {
		out.List = &schema.List{ElementRelationship: schema.ElementRelationship(a.List.Relation), Keys: a.List.Keys}
		if out.List.ElementType, err = a.List.Item.schema(); err != nil {
			return out, err
		}
	}
	if a.Map == nil {
		return out, nil
	}
	out.Map = &schema.Map{ElementRelationship: schema.ElementRelationship(a.Map.Relation)}
	if a.Map.Element != nil {
		if out.Map.ElementType, err = a.Map.Element.schema(); err != nil {
			return out, err
		}
	}
	for i := range a.Map.Fields {
		f := &a.Map.Fields[i]
		sf := schema.StructField{Name: f.Name, Default: f.Default}
		if n, ok := f.Default.(json.Number); ok {
			whole, err := n.Int64()
			if err != nil {
				return out, fmt.Errorf("the default of field %s is no whole number: %w", f.Name, err)
			}
			sf.Default = int(whole)
		}
		if sf.Type, err = f.Type.schema(); err != nil {
			return out, err
		}
		out.Map.Fields = append(out.Map.Fields, sf)
	}
	return out, nil
}

func (r *ref) schema() (out schema.TypeRef, err error) {
	if r.Named != "" {
		out.NamedType = &r.Named
	}
	if r.Relation != nil {
		relation := schema.ElementRelationship(*r.Relation)
		out.ElementRelationship = &relation
	}
	out.Nullable = r.Nullable
	out.Inlined, err = r.atom.schema()
	return out, err
}

// eachRef calls f with every reference to a named type within a.
func eachRef(a *schema.Atom, f func(name string)) {
	in := func(r *schema.TypeRef) {
		if r.NamedType != nil {
			f(*r.NamedType)
		}
		eachRef(&r.Inlined, f)
	}
	if a.List != nil {
		in(&a.List.ElementType)
	}
	if a.Map != nil {
		in(&a.Map.ElementType)
		for i := range a.Map.Fields {
			in(&a.Map.Fields[i].Type)
		}
	}
}
