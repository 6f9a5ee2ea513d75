package custom

import (
	"math"
	"slices"
	"unicode/utf8"

	"k8s.io/kube-openapi/pkg/validation/strfmt"
)

// valid says that the library would find nothing wrong with a decoded JSON
// value.
func (n *shape) valid(v any) bool {
	if n.odd {
		return false
	}
	if v == nil {
		// The library applies nothing but types and enums to null.
		return (n.types == 0 || n.nullable) && len(n.enum) == 0
	}
	if len(n.enum) > 0 && !slices.ContainsFunc(n.enum, func(e any) bool { return sameScalar(v, e) }) {
		return false
	}
	if n.logic != nil && !n.logic.valid(v) {
		return false
	}
	switch v := v.(type) {
	case string:
		return n.allows(stringType) && (n.text == nil || n.text.valid(v))
	case bool:
		return n.allows(booleanType)
	case int64:
		return n.allows(integerType|numberType) && (n.number == nil || n.number.validInt(v))
	case float64:
		whole := v == math.Trunc(v) && math.Abs(v) < exactFloat
		return (n.allows(numberType) || whole && n.allows(integerType)) && (n.number == nil || n.number.validFloat(v))
	case []any:
		return n.allows(arrayType) && (n.list == nil || n.list.valid(v))
	case map[string]any:
		return n.allows(objectType) && (n.object == nil || n.object.valid(v))
	}
	return false
}

// allows says that a value may be of one of the types.
func (n *shape) allows(types typeSet) bool { return n.types == 0 || n.types&types != 0 }

// sameScalar compares a value with one of an enum. A number of the enum may be
// of either type.
func sameScalar(v, e any) bool {
	switch v := v.(type) {
	case string:
		s, ok := e.(string)
		return ok && s == v
	case bool:
		b, ok := e.(bool)
		return ok && b == v
	case int64:
		if i, ok := e.(int64); ok {
			return i == v
		}
		f, ok := e.(float64)
		return ok && f == float64(v) && math.Abs(f) < exactFloat
	case float64:
		f, ok := e.(float64)
		return ok && f == v
	}
	return false
}

func (t *textShape) valid(s string) bool {
	if t.max >= 0 && int64(len(s)) > t.max && int64(utf8.RuneCountInString(s)) > t.max {
		return false
	}
	if t.min > 0 && int64(utf8.RuneCountInString(s)) < t.min {
		return false
	}
	if t.pattern != nil && !t.pattern.MatchString(s) {
		return false
	}
	return t.format == "" || strfmt.Default.Validates(t.format, s)
}

func (t *numberShape) validInt(v int64) bool {
	if v >= exactFloat || v <= -exactFloat {
		return false // the library decides on what floats cannot tell
	}
	f := float64(v)
	if f < t.low || f > t.high || !t.min.below(f, t.min.whole) || !t.max.above(f, t.max.whole) {
		return false
	}
	if t.multipleOf == 0 {
		return true
	}
	factor := int64(t.multipleOf)
	return factor > 0 && v%factor == 0
}

func (t *numberShape) validFloat(f float64) bool {
	if f < t.low || f > t.high || !t.min.below(f, t.min.is) || !t.max.above(f, t.max.is) {
		return false
	}
	if t.multipleOf == 0 {
		return true
	}
	quotient := f / t.multipleOf
	if t.multipleOf < 1 {
		quotient = 1 / t.multipleOf * f
	}
	return quotient == math.Trunc(quotient) && math.Abs(quotient) < exactFloat
}

// below says that a number respects a lower limit.
func (b bound) below(f, limit float64) bool {
	return !b.set || f > limit || !b.exclusive && f == limit
}

// above says that a number respects an upper limit.
func (b bound) above(f, limit float64) bool {
	return !b.set || f < limit || !b.exclusive && f == limit
}

func (l *listShape) valid(list []any) bool {
	n := int64(len(list))
	if n < l.min || l.max >= 0 && n > l.max {
		return false
	}
	return l.item == nil || all(list, l.item.valid)
}

func (o *objectShape) valid(m map[string]any) bool {
	n := int64(len(m))
	if n < o.min || o.max >= 0 && n > o.max {
		return false
	}
	for _, name := range o.required {
		if _, ok := m[name]; !ok {
			return false
		}
	}
	if o.fields == nil && o.other == nil && !o.closed {
		return true
	}
	for name, v := range m {
		child, ok := o.fields[name]
		switch {
		case ok:
		case o.closed:
			return false
		default:
			child = o.other
		}
		if child != nil && !child.valid(v) {
			return false
		}
	}
	return true
}

func (l *logicShape) valid(v any) bool {
	valid := func(branch *shape) bool { return branch.valid(v) }
	if !all(l.all, valid) || len(l.any) > 0 && !slices.ContainsFunc(l.any, valid) {
		return false
	}
	if len(l.one) > 0 {
		matches := 0
		for _, n := range l.one {
			if n.valid(v) {
				matches++
			} else if !n.refuses(v) {
				return false
			}
		}
		if matches != 1 {
			return false
		}
	}
	return l.not == nil || l.not.refuses(v)
}

// refuses says that the library would find something wrong with a value. Like
// valid it may say no where it cannot tell: then neither says yes.
func (n *shape) refuses(v any) bool {
	return n.certain(v) && !n.valid(v)
}

// certain says that valid decides on v as the library does, in both directions.
func (n *shape) certain(v any) bool {
	if n.odd || n.formatted || n.number != nil {
		return false
	}
	switch v := v.(type) {
	case nil, string, bool:
	case int64:
		if len(n.enum) > 0 {
			return false // numbers are compared in more ways than one
		}
	case float64:
		if len(n.enum) > 0 || v == math.Trunc(v) {
			return false
		}
	case map[string]any:
		if len(n.enum) > 0 || !n.object.certain(v) {
			return false
		}
	case []any:
		if len(n.enum) > 0 || n.list != nil && n.list.item != nil && !all(v, n.list.item.certain) {
			return false
		}
	default:
		return false
	}
	l := n.logic
	certain := func(branch *shape) bool { return branch.certain(v) }
	return l == nil || all(l.all, certain) && all(l.any, certain) && all(l.one, certain) && (l.not == nil || l.not.certain(v))
}

func (o *objectShape) certain(m map[string]any) bool {
	if o == nil {
		return true
	}
	for name, v := range m {
		child, ok := o.fields[name]
		if !ok {
			child = o.other
		}
		if child != nil && !child.certain(v) {
			return false
		}
	}
	return true
}

func all[T any](list []T, ok func(T) bool) bool {
	for _, v := range list {
		if !ok(v) {
			return false
		}
	}
	return true
}
