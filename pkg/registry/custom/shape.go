package custom

import (
	"math"
	"regexp"
	"slices"

	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"k8s.io/kube-openapi/pkg/validation/strfmt"
)

// shape is a schema compiled for the objects that have nothing wrong with them,
// which are nearly all: it says yes without allocating. What it says yes to,
// the library calls valid and complete as well; it says no to all else and to
// what it cannot decide, and then the library is asked, which explains. Shapes
// are not changed once they are made.
type shape struct {
	types    typeSet // 0 for any
	nullable bool
	// odd says that the schema demands what only the library can check.
	odd bool
	// formatted says that there is a format, with which the library is less
	// strict about types.
	formatted bool
	// preserve and embedded are x-kubernetes-preserve-unknown-fields and
	// x-kubernetes-embedded-resource; keeps the latter for the root as well.
	preserve, embedded bool
	// fills says that the value or something in it has a default.
	fills bool
	// listed says that the value or something in it is a set or a map of items.
	listed bool

	def    any // default; nil for none
	enum   []any
	text   *textShape   // nil where strings are free
	number *numberShape // nil where numbers are free
	list   *listShape   // nil where lists are free
	object *objectShape // nil where objects are free
	logic  *logicShape  // nil without junctors
}

// typeSet is a set of JSON types.
type typeSet uint8

const (
	stringType typeSet = 1 << iota
	integerType
	numberType
	booleanType
	arrayType
	objectType
)

var typeNames = map[string]typeSet{
	"string": stringType, "integer": integerType, "number": numberType,
	"boolean": booleanType, "array": arrayType, "object": objectType,
}

// textShape restricts strings. A bound below 0 is none.
type textShape struct {
	min, max int64
	pattern  *regexp.Regexp // nil for none
	format   string         // "" for none that is checked
}

// numberShape restricts numbers.
type numberShape struct {
	low, high  float64 // of the format
	min, max   bound
	multipleOf float64 // 0 for none
}

// bound is a limit that may be exclusive.
type bound struct {
	set, exclusive bool
	is             float64
	whole          float64 // what integers are compared with
}

// listShape restricts lists. A bound below 0 is none.
type listShape struct {
	item     *shape // nil for any
	min, max int64
	set      bool     // no item twice
	keys     []string // of a map, in which no item has those of another
}

// objectShape restricts objects. A bound below 0 is none.
type objectShape struct {
	fields   map[string]*shape
	required []string
	min, max int64
	// other is the shape of fields without one of their own; nil for any.
	other *shape
	// others says that there may be such fields, pruned by other.
	others bool
	// closed says that validation refuses them.
	closed bool
	// defaults are the names of fields that have one.
	defaults []string
}

// logicShape holds the junctors.
type logicShape struct {
	all, any, one []*shape
	not           *shape
}

// exactFloat bounds the numbers that are the same as float and as integer.
const exactFloat = 1 << 53

// shaper compiles a schema.
type shaper struct {
	patterns map[string]*regexp.Regexp // that were compiled
	// embeds says that something other than the root is an embedded resource.
	embeds bool
	// deep says that a oneOf or a not looks into the value. An update does not
	// count what was wrong in it before, and so may match more of a oneOf.
	deep bool
}

// root compiles the schema of an object, in both of the library's forms.
func (b *shaper) root(s *spec.Schema, st *structuralschema.Structural) *shape {
	n := b.shape(s, st)
	n.embedded = true
	return n
}

// shape compiles one schema; st is nil below a junctor.
func (b *shaper) shape(s *spec.Schema, st *structuralschema.Structural) *shape {
	n := &shape{nullable: s.Nullable, enum: s.Enum, formatted: s.Format != ""}
	for _, name := range s.Type {
		bit, ok := typeNames[name]
		n.types, n.odd = n.types|bit, n.odd || !ok
	}
	n.odd = n.odd || len(s.Type) == 0 && s.Format != "" ||
		len(s.PatternProperties) > 0 || len(s.Dependencies) > 0 || s.AdditionalItems != nil || s.UniqueItems ||
		s.Items != nil && len(s.Items.Schemas) > 0
	if st != nil {
		n.preserve, n.embedded, n.def = st.XPreserveUnknownFields, st.XEmbeddedResource, st.Default.Object
		b.embeds = b.embeds || n.embedded
	}
	n.text, n.number = b.text(n, s), b.number(n, s)
	n.list, n.object = b.list(s, st), b.object(s, st)
	n.logic = b.logic(s)
	n.fills, n.listed = n.def != nil, n.list != nil && (n.list.set || n.list.keys != nil)
	n.each(func(child *shape) {
		n.fills, n.listed = n.fills || child.fills, n.listed || child.listed
	})
	return n
}

// each calls f with the shapes of what is in the value.
func (n *shape) each(f func(*shape)) {
	if n.list != nil && n.list.item != nil {
		f(n.list.item)
	}
	if n.object != nil {
		for _, child := range n.object.fields {
			f(child)
		}
		if n.object.other != nil {
			f(n.object.other)
		}
	}
}

func (b *shaper) text(n *shape, s *spec.Schema) *textShape {
	t := textShape{min: atMost(s.MinLength), max: atMost(s.MaxLength)}
	if strfmt.Default.ContainsName(s.Format) {
		t.format = s.Format
	}
	if s.Pattern != "" {
		if t.pattern = b.patterns[s.Pattern]; t.pattern == nil {
			var err error
			if t.pattern, err = regexp.Compile(s.Pattern); err != nil {
				n.odd = true
				return nil
			}
			b.patterns[s.Pattern] = t.pattern
		}
	}
	if t == (textShape{min: -1, max: -1}) {
		return nil
	}
	return &t
}

// atMost is a bound of which nil means none.
func atMost(n *int64) int64 {
	if n == nil {
		return -1
	}
	return max(*n, -1)
}

func (b *shaper) number(n *shape, s *spec.Schema) *numberShape {
	t := numberShape{low: -math.MaxFloat64, high: math.MaxFloat64}
	if len(s.Type) == 1 {
		switch {
		case s.Type[0] == "integer" && s.Format == "int32":
			t.low, t.high = math.MinInt32, math.MaxInt32
		case s.Type[0] == "number" && s.Format == "float":
			t.low, t.high = -math.MaxFloat32, math.MaxFloat32
		}
	}
	for _, limit := range []struct {
		is        *float64
		exclusive bool
		to        *bound
	}{{s.Minimum, s.ExclusiveMinimum, &t.min}, {s.Maximum, s.ExclusiveMaximum, &t.max}, {s.MultipleOf, false, nil}} {
		if limit.is == nil {
			continue
		}
		// The library has errors for limits that their type cannot hold.
		v := *limit.is
		if v < t.low || v > t.high || math.Abs(v) >= exactFloat || v != math.Trunc(v) && slices.Contains(s.Type, "integer") {
			n.odd = true
		}
		if limit.to == nil {
			t.multipleOf = v
			n.odd = n.odd || v <= 0
		} else {
			*limit.to = bound{set: true, exclusive: limit.exclusive, is: v, whole: math.Trunc(v)}
		}
	}
	if t == (numberShape{low: -math.MaxFloat64, high: math.MaxFloat64}) {
		return nil
	}
	return &t
}

func (b *shaper) list(s *spec.Schema, st *structuralschema.Structural) *listShape {
	l := &listShape{min: atMost(s.MinItems), max: atMost(s.MaxItems)}
	var item *structuralschema.Structural
	if st != nil {
		item = st.Items
		if st.XListType != nil {
			l.set = *st.XListType == "set"
			if *st.XListType == "map" {
				l.keys = slices.Clone(st.XListMapKeys)
				if l.keys == nil {
					l.keys = []string{}
				}
			}
		}
	}
	if s.Items != nil && s.Items.Schema != nil {
		l.item = b.shape(s.Items.Schema, item)
	}
	if l.item == nil && l.min < 0 && l.max < 0 && !l.set && l.keys == nil {
		return nil
	}
	return l
}

func (b *shaper) object(s *spec.Schema, st *structuralschema.Structural) *objectShape {
	o := &objectShape{required: slices.Clone(s.Required), min: atMost(s.MinProperties), max: atMost(s.MaxProperties)}
	if len(s.Properties) > 0 {
		o.fields = make(map[string]*shape, len(s.Properties))
	}
	for name := range s.Properties {
		field := s.Properties[name]
		var below *structuralschema.Structural
		if st != nil {
			if f, ok := st.Properties[name]; ok {
				below = &f
			}
		}
		child := b.shape(&field, below)
		o.fields[name] = child
		if child.def != nil {
			o.defaults = append(o.defaults, name)
		}
	}
	slices.Sort(o.defaults)
	if a := s.AdditionalProperties; a != nil {
		o.closed = !a.Allows
		var below *structuralschema.Structural
		if st != nil && st.AdditionalProperties != nil {
			o.others, below = true, st.AdditionalProperties.Structural
		}
		if a.Schema != nil {
			o.other = b.shape(a.Schema, below)
		}
	}
	if o.fields == nil && o.other == nil && len(o.required) == 0 && o.min < 0 && o.max < 0 && !o.others && !o.closed {
		return nil
	}
	return o
}

func (b *shaper) logic(s *spec.Schema) *logicShape {
	if len(s.AllOf) == 0 && len(s.AnyOf) == 0 && len(s.OneOf) == 0 && s.Not == nil {
		return nil
	}
	branches := func(in []spec.Schema) (out []*shape) {
		for i := range in {
			out = append(out, b.shape(&in[i], nil))
		}
		return out
	}
	l := &logicShape{all: branches(s.AllOf), any: branches(s.AnyOf), one: branches(s.OneOf)}
	if s.Not != nil {
		l.not = b.shape(s.Not, nil)
		b.deep = b.deep || l.not.looksIn()
	}
	b.deep = b.deep || slices.ContainsFunc(l.one, (*shape).looksIn)
	return l
}

// looksIn says that a shape judges what is in the value.
func (n *shape) looksIn() bool {
	found := false
	n.each(func(*shape) { found = true })
	if l := n.logic; l != nil {
		found = found || slices.ContainsFunc(slices.Concat(l.all, l.any, l.one), (*shape).looksIn) || l.not != nil && l.not.looksIn()
	}
	return found
}
