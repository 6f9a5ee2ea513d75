package ownership

import (
	"slices"

	"sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// The forms that a schema type may take.
const (
	scalarBit = 1 << iota
	listBit
	fieldsBit
)

func (n *node) forms() (bits int) {
	if n.scalar != "" {
		bits |= scalarBit
	}
	if n.list != nil {
		bits |= listBit
	}
	if n.fields != nil {
		bits |= fieldsBit
	}
	return bits
}

// formOf is which of the type's forms a decoded JSON value has. Null and what
// fits none has them all.
func (n *node) formOf(v any) int {
	bits := n.forms()
	bit := 0
	switch v.(type) {
	case nil:
	case map[string]any:
		bit = fieldsBit
	case []any:
		bit = listBit
	default:
		bit = scalarBit
	}
	if bits&bit != 0 {
		return bit
	}
	return bits
}

// dynamic compares two decoded JSON values of a type; nil that is not gone is
// null. The values are valid.
func (w *walker) dynamic(n *node, l, r any, lgone, rgone bool) (d difference) {
	lform, rform := n.forms(), n.forms()
	if !lgone {
		lform = n.formOf(l)
	}
	if !rgone {
		rform = n.formOf(r)
	}
	switch {
	case rgone:
		return w.dynamicAs(n, lform, l, r, lgone, rgone)
	case lgone || lform == rform:
		return w.dynamicAs(n, rform, l, r, lgone, rgone)
	}
	d = w.dynamicAs(n, lform, l, r, false, false)
	o := w.dynamicAs(n, rform, l, r, false, false)
	d.changed, d.removed = d.changed || o.changed, d.removed || o.removed
	d.changedBelow, d.removedBelow = w.union(d.changedBelow, o.changedBelow), w.union(d.removedBelow, o.removedBelow)
	return d
}

// dynamicAs compares two values by one form of their type; what does not have
// it counts as null.
func (w *walker) dynamicAs(n *node, form int, l, r any, lgone, rgone bool) (d difference) {
	equal := func() bool { return equalDynamic(l, r) }
	switch {
	case form&fieldsBit != 0:
		lm, _ := l.(map[string]any)
		rm, _ := r.(map[string]any)
		if n.fields.atomic || len(lm) == 0 && len(rm) == 0 {
			return leaf(lgone, rgone, equal)
		}
		d = w.dynamicFields(n.fields, lm, rm)
	case form&scalarBit != 0:
		return leaf(lgone, rgone, equal)
	default:
		ll, _ := l.([]any)
		rl, _ := r.([]any)
		if n.list.atomic || len(ll) == 0 && len(rl) == 0 {
			return leaf(lgone, rgone, equal)
		}
		d = w.dynamicList(n.list, ll, rl)
	}
	d.changed, d.removed = lgone, rgone
	return d
}

func (w *walker) dynamicFields(m *mapNode, l, r map[string]any) (d difference) {
	changed, removed := len(w.changed), len(w.removed)
	for k, rv := range r {
		lv, ok := l[k]
		sub := w.dynamic(m.field(k), lv, rv, !ok, false)
		w.failed = w.failed || !plainName(k)
		w.push(element{name: k}, &sub)
	}
	for k, lv := range l {
		if _, ok := r[k]; !ok {
			sub := w.dynamic(m.field(k), lv, nil, false, true)
			w.failed = w.failed || !plainName(k)
			w.push(element{name: k}, &sub)
		}
	}
	sortByName(w.changed[changed:])
	sortByName(w.removed[removed:])
	w.pop(changed, removed, &d)
	return d
}

func (w *walker) dynamicList(list *listNode, l, r []any) difference {
	start := len(w.items)
	w.dynamicItems(list, l)
	middle := len(w.items)
	w.dynamicItems(list, r)
	if w.failed {
		return difference{}
	}
	d := w.compareItems(start, middle, func(l, r *item) difference {
		var lv, rv any
		if l != nil {
			lv = l.value
		}
		if r != nil {
			rv = r.value
		}
		return w.dynamic(list.item, lv, rv, l == nil, r == nil)
	}, func(l, r *item) bool {
		return equalDynamic(l.value, r.value)
	})
	w.items = w.items[:start]
	return d
}

func (w *walker) dynamicItems(list *listNode, s []any) {
	for _, v := range s {
		first := len(w.scalars)
		var ok bool
		w.scalars, ok = list.key(w.scalars, v)
		w.failed = w.failed || !ok
		w.items = append(w.items, item{key: w.scalars[first:len(w.scalars):len(w.scalars)], value: v})
	}
}

// key appends what identifies an item. ok is false when nothing does that a
// set could name plainly.
func (list *listNode) key(to []scalar, v any) (out []scalar, ok bool) {
	if len(list.keys) == 0 {
		s, ok := scalarOf(v)
		return append(to, s), ok
	}
	m, isMap := v.(map[string]any)
	if !isMap {
		return to, false
	}
	n := len(to)
	for _, k := range list.keys {
		if f, found := m[k.name]; found {
			s, ok := scalarOf(f)
			if !ok {
				return to, false
			}
			s.name = k.name
			to = append(to, s)
		} else if k.def != nil {
			to = append(to, *k.def)
		}
	}
	return to, len(to) > n
}

// valid says that a decoded JSON value is one of the type, and that its lists
// have keys that sets name plainly.
func valid(n *node, v any) bool {
	if n == nil {
		return false
	}
	switch form := n.formOf(v); {
	case form&fieldsBit != 0:
		m, ok := v.(map[string]any)
		if !ok {
			return v == nil
		}
		for k, e := range m {
			if !valid(n.fields.field(k), e) {
				return false
			}
		}
		return true
	case form&scalarBit != 0:
		return v == nil || validScalar(n.scalar, v)
	case form&listBit != 0:
		s, ok := v.([]any)
		if !ok {
			return v == nil
		}
		return !slices.ContainsFunc(s, func(e any) bool {
			if !n.list.atomic {
				if _, ok := n.list.key(nil, e); !ok {
					return true
				}
			}
			return !valid(n.list.item, e)
		})
	}
	return false
}

func validScalar(s schema.Scalar, v any) bool {
	var is schema.Scalar
	switch v.(type) {
	case string:
		is = schema.String
	case bool:
		is = schema.Boolean
	case int64, float64:
		is = schema.Numeric
	default:
		return false
	}
	return s == is || s == schema.Untyped
}

// equalDynamic says that two decoded JSON values are the same; numbers are
// compared as numbers.
func equalDynamic(l, r any) bool {
	switch a := l.(type) {
	case nil:
		return r == nil
	case string:
		b, ok := r.(string)
		return ok && a == b
	case bool:
		b, ok := r.(bool)
		return ok && a == b
	case int64:
		if b, ok := r.(int64); ok {
			return a == b
		}
	case map[string]any:
		b, ok := r.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for k, v := range a {
			if o, ok := b[k]; !ok || !equalDynamic(v, o) {
				return false
			}
		}
		return true
	case []any:
		b, ok := r.([]any)
		return ok && slices.EqualFunc(a, b, equalDynamic)
	}
	return value.Equals(value.NewValueInterface(l), value.NewValueInterface(r))
}
