package ownership

import (
	"fmt"

	"sigs.k8s.io/structured-merge-diff/v6/schema"
)

// node is a type of the schema, its references resolved. A type may allow
// several forms (a field without a schema allows all three).
type node struct {
	scalar   schema.Scalar // "" for none
	list     *listNode
	fields   *mapNode
	anything bool // no value can fail it
}

// listNode is a list type.
type listNode struct {
	atomic bool
	// keys are the fields that identify an item, sorted; none for a set.
	keys []keyField
	item *node
}

// keyField is one field of a list's key.
type keyField struct {
	name string
	// def stands in for an item that omits the field; nil when there is none.
	def *scalar
}

// mapNode is a map or struct type.
type mapNode struct {
	atomic bool
	named  map[string]*node
	other  *node // the type of all other entries; nil when there may be none
	// deduced says that nothing is known of the entries.
	deduced bool
}

// field returns the type of an entry, nil for one that may not be.
func (m *mapNode) field(name string) *node {
	if n, ok := m.named[name]; ok {
		return n
	}
	return m.other
}

// resolver compiles a schema. Named types may refer to themselves.
type resolver struct {
	schema *schema.Schema
	named  map[string]*node
}

func (r *resolver) resolve(ref schema.TypeRef) (*node, error) {
	name := ""
	if ref.NamedType != nil {
		name = *ref.NamedType
		if ref.ElementRelationship != nil {
			name += " " + string(*ref.ElementRelationship)
		}
		if n, ok := r.named[name]; ok {
			return n, nil
		}
	}
	atom, ok := r.schema.Resolve(ref)
	if !ok {
		return nil, fmt.Errorf("the schema has no type %q", name)
	}
	n := &node{}
	if name != "" {
		r.named[name] = n
	}
	if atom.Scalar != nil {
		n.scalar = *atom.Scalar
	}
	var err error
	if atom.List != nil {
		if n.list, err = r.list(atom.List); err != nil {
			return nil, fmt.Errorf("list %s: %w", name, err)
		}
	}
	if atom.Map != nil {
		if n.fields, err = r.fields(atom.Map); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	// Of such a type all values are valid, and so are their parts.
	n.anything = n.scalar == schema.Untyped && n.list != nil && n.list.atomic && n.fields != nil && len(n.fields.named) == 0
	return n, nil
}

func (r *resolver) list(l *schema.List) (*listNode, error) {
	item, err := r.resolve(l.ElementType)
	if err != nil {
		return nil, err
	}
	out := &listNode{atomic: l.ElementRelationship != schema.Associative, item: item}
	if out.atomic {
		return out, nil
	}
	atom, _ := r.schema.Resolve(l.ElementType)
	for _, name := range l.Keys {
		k := keyField{name: name}
		if atom.Map != nil {
			if f, _ := atom.Map.FindField(name); f.Default != nil {
				v, ok := scalarOf(f.Default)
				if !ok {
					return nil, fmt.Errorf("the default of key %s is not a plain scalar", name)
				}
				v.name = name
				k.def = &v
			}
		}
		if !plain(name) {
			return nil, fmt.Errorf("key %q is not a plain name", name)
		}
		i := len(out.keys)
		for i > 0 && out.keys[i-1].name > name {
			i--
		}
		out.keys = append(out.keys[:i], append([]keyField{k}, out.keys[i:]...)...)
	}
	return out, nil
}

func (r *resolver) fields(m *schema.Map) (*mapNode, error) {
	out := &mapNode{atomic: m.ElementRelationship == schema.Atomic, named: make(map[string]*node, len(m.Fields))}
	for _, f := range m.Fields {
		n, err := r.resolve(f.Type)
		if err != nil {
			return nil, fmt.Errorf("field %s: %w", f.Name, err)
		}
		out.named[f.Name] = n
	}
	if m.ElementType != (schema.TypeRef{}) {
		n, err := r.resolve(m.ElementType)
		if err != nil {
			return nil, err
		}
		out.other = n
	}
	if ref := m.ElementType; m.Fields == nil {
		if ref.NamedType != nil {
			out.deduced = *ref.NamedType == "__untyped_deduced_"
		} else {
			out.deduced = ref.Inlined.Scalar != nil && *ref.Inlined.Scalar == schema.Untyped
		}
	}
	return out, nil
}

// fits says that a set of fields was made by this schema: it names no part
// of what is atomic, and nothing atomic but whole. whole says that the path to
// the node is a member and nothing below it is.
func (n *node) fits(s set, whole bool) bool {
	switch {
	case n.fields != nil:
		m := n.fields
		if m.deduced {
			return true
		}
		if m.atomic {
			return whole || len(s) == 0
		}
		for i := range s {
			e := &s[i]
			child := m.other
			if e.kind == fieldElement {
				child = m.field(e.name)
			}
			if child != nil && !child.fits(e.below, e.member && len(e.below) == 0) {
				return false
			}
		}
	case n.scalar != "":
	case n.list != nil:
		if n.list.atomic {
			return whole
		}
		for i := range s {
			e := &s[i]
			if !n.list.item.fits(e.below, e.member && len(e.below) == 0) {
				return false
			}
		}
	}
	return true
}

// scalarOf returns a decoded JSON value as part of a key. ok is false for
// values that keys have only by mistake, or that are not written plainly.
func scalarOf(v any) (s scalar, ok bool) {
	switch v := v.(type) {
	case string:
		return scalar{kind: stringScalar, text: v}, plain(v)
	case bool:
		if v {
			return scalar{kind: boolScalar, num: 1}, true
		}
		return scalar{kind: boolScalar}, true
	case int64:
		return scalar{kind: intScalar, num: v}, v <= maxNumber && v >= -maxNumber
	case int:
		return scalarOf(int64(v))
	case int32:
		return scalarOf(int64(v))
	}
	return scalar{}, false
}
