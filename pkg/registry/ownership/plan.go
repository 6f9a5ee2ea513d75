package ownership

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unsafe"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// form is how a plan reads values of a Go type.
type form uint8

const (
	badForm form = iota // a value that is there cannot be followed
	stringForm
	boolForm
	int32Form
	int64Form
	numberForm // all other numbers, through reflection
	bytesForm
	timeForm
	microTimeForm
	quantityForm
	intOrStringForm
	structForm
	listForm
	stringMapForm
	quantityMapForm
	mapForm
	// entriesForm is managedFields itself: a set that is no part of what is
	// compared.
	entriesForm
	// convertedForm is a type that marshals itself; what it marshals to is
	// walked as decoded JSON.
	convertedForm
)

// plan is a Go type together with its schema: how the walker goes over values
// of that type. A value is given by the address of the variable that has it.
type plan struct {
	form    form
	pointer bool // the variable is a pointer to the value
	typ     reflect.Type
	node    *node
	atomic  bool
	// canFail says that values of the type may be invalid by the schema.
	canFail bool
	fields  []planField // structForm, sorted by name
	elem    *plan       // listForm and mapForm
	size    uintptr     // of an item of a listForm
	maps    mapAccess   // mapForm
	keys    []planKey   // listForm with keys
}

// planField is a field of a struct as JSON sees it.
type planField struct {
	name   string
	offset uintptr
	plan   *plan
	omit   func(p unsafe.Pointer) bool // nil for a field that is always there
}

// planKey is one field of the key of a list's items.
type planKey struct {
	name  string
	field *planField // nil when the Go type has no such field
	def   *scalar
}

// compiler makes plans. Types may refer to themselves.
type compiler struct {
	plans map[planID]*plan
}

type planID struct {
	typ  reflect.Type
	node *node
}

var (
	timeType        = reflect.TypeFor[metav1.Time]()
	microTimeType   = reflect.TypeFor[metav1.MicroTime]()
	quantityType    = reflect.TypeFor[resource.Quantity]()
	intOrStringType = reflect.TypeFor[intstr.IntOrString]()
)

// compile makes the plan of t, or an error for a type that JSON objects are
// not decoded into.
func (c *compiler) compile(t reflect.Type, n *node) (*plan, error) {
	id := planID{t, n}
	if p, ok := c.plans[id]; ok {
		return p, nil
	}
	p := &plan{node: n, typ: t}
	c.plans[id] = p
	converts := value.TypeReflectEntryOf(t).CanConvertToUnstructured()
	if t.Kind() == reflect.Pointer {
		p.pointer, p.typ = true, t.Elem()
	}
	switch {
	case n == nil:
		p.canFail = true
		return p, nil
	case p.typ == timeType:
		p.form = scalarForm(n, timeForm)
	case p.typ == microTimeType:
		p.form = scalarForm(n, microTimeForm)
	case p.typ == quantityType:
		p.form = scalarForm(n, quantityForm)
	case t == reflect.TypeFor[[]metav1.ManagedFieldsEntry]():
		p.form = entriesForm
	case p.typ == intOrStringType:
		p.form = scalarForm(n, intOrStringForm)
	case converts:
		p.form, p.canFail = convertedForm, !n.anything
		p.pointer, p.typ = false, t
		return p, nil
	default:
		if err := c.structure(p); err != nil {
			return nil, fmt.Errorf("%s: %w", t, err)
		}
	}
	p.canFail = p.form == badForm
	return p, nil
}

// scalarForm is f for a type that the schema takes for a scalar of any type.
func scalarForm(n *node, f form) form {
	if n.scalar == schema.Untyped && n.list == nil && n.fields == nil {
		return f
	}
	return badForm
}

func (c *compiler) structure(p *plan) error {
	scalars := func(f form, types ...schema.Scalar) {
		if slices.Contains(types, p.node.scalar) {
			p.form = f
		}
	}
	switch t := p.typ; t.Kind() {
	case reflect.String:
		scalars(stringForm, schema.String, schema.Untyped)
	case reflect.Bool:
		scalars(boolForm, schema.Boolean, schema.Untyped)
	case reflect.Int32:
		scalars(int32Form, schema.Numeric, schema.Untyped)
	case reflect.Int64, reflect.Int:
		scalars(int64Form, schema.Numeric, schema.Untyped)
	case reflect.Int8, reflect.Int16, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Float32, reflect.Float64:
		scalars(numberForm, schema.Numeric, schema.Untyped)
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			scalars(bytesForm, schema.String, schema.Untyped)
			return nil
		}
		return c.list(p)
	case reflect.Struct:
		return c.fields(p)
	case reflect.Map:
		return c.mapOf(p)
	}
	return nil
}

func (c *compiler) list(p *plan) error {
	l := p.node.list
	if l == nil || p.node.fields != nil || p.node.scalar != "" {
		return nil
	}
	elem, err := c.compile(p.typ.Elem(), l.item)
	if err != nil {
		return err
	}
	p.form, p.elem, p.atomic, p.size = listForm, elem, l.atomic, p.typ.Elem().Size()
	return nil
}

// finish completes what needs all plans: the keys of lists, and canFail,
// which spreads from types to those that contain them.
func (c *compiler) finish() {
	for _, p := range c.plans {
		if p.form == listForm && !p.atomic {
			p.finishList()
		}
	}
	for again := true; again; {
		again = false
		for _, p := range c.plans {
			if !p.canFail && p.partFails() {
				p.canFail, again = true, true
			}
		}
	}
}

func (p *plan) finishList() {
	keys := p.node.list.keys
	if len(keys) == 0 && (p.elem.form != stringForm || p.elem.pointer) || len(keys) > 0 && p.elem.form != structForm {
		p.form, p.canFail = badForm, true // sets hold strings, lists with keys structs
		return
	}
	for _, k := range keys {
		pk := planKey{name: k.name, def: k.def}
		i := slices.IndexFunc(p.elem.fields, func(f planField) bool { return f.name == k.name })
		if i >= 0 {
			pk.field = &p.elem.fields[i]
		}
		p.keys = append(p.keys, pk)
	}
}

func (c *compiler) mapOf(p *plan) error {
	m := p.node.fields
	if m == nil || len(m.named) > 0 || p.node.list != nil || p.node.scalar != "" || p.typ.Key().Kind() != reflect.String {
		return nil
	}
	elem, err := c.compile(p.typ.Elem(), m.other)
	if err != nil {
		return err
	}
	p.form, p.elem, p.atomic = mapForm, elem, m.atomic
	if p.typ == reflect.TypeFor[map[string]string]() && elem.form == stringForm {
		p.form = stringMapForm
		return nil
	}
	if p.typ == reflect.TypeFor[corev1.ResourceList]() && elem.form == quantityForm {
		p.form = quantityMapForm
		return nil
	}
	p.maps = accessMap(p.typ)
	return nil
}

func (c *compiler) fields(p *plan) error {
	m := p.node.fields
	if m == nil || p.node.list != nil || p.node.scalar != "" {
		return nil
	}
	p.form, p.atomic = structForm, m.atomic
	found := map[string]planField{}
	if err := c.collect(p.typ, 0, m, found); err != nil {
		return err
	}
	for _, f := range found {
		p.fields = append(p.fields, f)
	}
	slices.SortFunc(p.fields, func(a, b planField) int { return strings.Compare(a.name, b.name) })
	return nil
}

// collect finds the fields of t, which begins at offset, and of the structs
// embedded in it.
func (c *compiler) collect(t reflect.Type, offset uintptr, m *mapNode, found map[string]planField) error {
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("json")
		name, options, _ := strings.Cut(tag, ",")
		if tag == "-" || f.PkgPath != "" && !f.Anonymous {
			continue
		}
		if f.Anonymous && name == "" {
			if f.Type.Kind() != reflect.Struct {
				return fmt.Errorf("embedded field %s is not a struct", f.Name)
			}
			if err := c.collect(f.Type, offset+f.Offset, m, found); err != nil {
				return err
			}
			continue
		}
		if name == "" {
			name = f.Name
		}
		p, err := c.compile(f.Type, m.field(name))
		if err != nil {
			return err
		}
		pf := planField{name: name, offset: offset + f.Offset, plan: p}
		for o := range strings.SplitSeq(options, ",") {
			switch o {
			case "omitempty":
				pf.omit = either(pf.omit, omitEmpty(f.Type))
			case "omitzero":
				pf.omit = either(pf.omit, omitZero(f.Type))
			}
		}
		found[name] = pf
	}
	return nil
}

func (p *plan) partFails() bool {
	if p.form == listForm && !p.atomic && len(p.keys) > 0 {
		sure := slices.ContainsFunc(p.keys, func(k planKey) bool {
			return k.def != nil || k.field != nil && k.field.omit == nil
		})
		if !sure || p.elem.pointer {
			return true
		}
	}
	return p.elem != nil && p.elem.canFail || slices.ContainsFunc(p.fields, func(f planField) bool { return f.plan.canFail })
}
