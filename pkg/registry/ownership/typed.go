package ownership

import (
	"bytes"
	"maps"
	"reflect"
	"slices"
	"strings"
	"unsafe"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// walker compares two objects. It collects, as sets, the paths that the new
// object adds or changes, and those that it no longer has.
type walker struct {
	builder
	changed, removed []element // stacks: the levels that are being walked
	items            []item    // stack: the lists that are being walked
	scalars          []scalar  // keys of the items, until reset
	text             []byte    // the set that is being written
	// failed says that an object is not valid by the schema, or holds what
	// sets cannot name plainly: the sets mean nothing then.
	failed bool
}

// difference is what a walk found at one path and below.
type difference struct {
	changed, removed           bool
	changedBelow, removedBelow set
}

// leaf is the difference at a path that has no parts.
func leaf(lgone, rgone bool, equal func() bool) (d difference) {
	switch {
	case lgone:
		d.changed = true
	case rgone:
		d.removed = true
	default:
		d.changed = !equal()
	}
	return d
}

// push notes what the walk found at a step.
func (w *walker) push(step element, d *difference) {
	if d.changed || len(d.changedBelow) > 0 {
		step.member, step.below = d.changed, d.changedBelow
		w.changed = append(w.changed, step)
	}
	if d.removed || len(d.removedBelow) > 0 {
		step.member, step.below = d.removed, d.removedBelow
		w.removed = append(w.removed, step)
	}
}

// pop takes what was pushed since the stacks had these lengths.
func (w *walker) pop(changed, removed int, d *difference) {
	d.changedBelow, d.removedBelow = w.keep(w.changed[changed:]), w.keep(w.removed[removed:])
	w.changed, w.removed = w.changed[:changed], w.removed[:removed]
}

// deref follows a pointer that p's variables are. nil stays nil.
func (p *plan) deref(v unsafe.Pointer) unsafe.Pointer {
	if p.pointer && v != nil {
		return at[unsafe.Pointer](v)
	}
	return v
}

// typed compares two variables of p's type; nil is one that is not there. One
// of them is.
func (w *walker) typed(p *plan, l, r unsafe.Pointer) (d difference) {
	lgone, rgone := l == nil, r == nil
	switch p.form {
	case badForm:
		w.failed = true
	case entriesForm:
		// Only the live object has entries.
		w.failed = w.failed || !rgone
		d.removed = true
	case structForm:
		return w.typedStruct(p, p.deref(l), p.deref(r), lgone, rgone)
	case listForm:
		return w.typedList(p, p.deref(l), p.deref(r), lgone, rgone)
	case stringMapForm:
		return plainMap(w, p, mapAt[map[string]string](p, l), mapAt[map[string]string](p, r), lgone, rgone, sameString)
	case quantityMapForm:
		return plainMap(w, p, mapAt[corev1.ResourceList](p, l), mapAt[corev1.ResourceList](p, r), lgone, rgone, sameQuantity)
	case mapForm:
		return w.typedMap(p, p.deref(l), p.deref(r), lgone, rgone)
	case convertedForm:
		return w.converted(p, l, r)
	default:
		switch {
		case lgone:
			d.changed = true
		case rgone:
			d.removed = true
		default:
			d.changed = !p.equal(l, r)
		}
	}
	return d
}

func (w *walker) typedStruct(p *plan, l, r unsafe.Pointer, lgone, rgone bool) (d difference) {
	if p.atomic {
		if p.canFail {
			w.validate(p, l)
			w.validate(p, r)
		}
		return leaf(lgone, rgone, func() bool { return p.equalValues(l, r) })
	}
	changed, removed := len(w.changed), len(w.removed)
	empty := true
	for i := range p.fields {
		f := &p.fields[i]
		fl, fr := f.of(l), f.of(r)
		if fl == nil && fr == nil {
			continue
		}
		empty = false
		if sub := w.typed(f.plan, fl, fr); sub.changed || sub.removed || sub.changedBelow != nil || sub.removedBelow != nil {
			w.push(element{name: f.name}, &sub)
		}
	}
	if empty {
		return leaf(lgone, rgone, func() bool { return (l == nil) == (r == nil) })
	}
	w.pop(changed, removed, &d)
	d.changed, d.removed = lgone, rgone
	return d
}

// of returns the field's variable in the struct at p, nil when JSON leaves it
// out.
func (f *planField) of(p unsafe.Pointer) unsafe.Pointer {
	if p == nil {
		return nil
	}
	v := unsafe.Add(p, f.offset)
	if f.omit != nil && f.omit(v) {
		return nil
	}
	return v
}

// slice returns the slice at v; without data it is null.
func slice(v unsafe.Pointer) sliceHeader {
	if v == nil {
		return sliceHeader{}
	}
	return at[sliceHeader](v)
}

func (w *walker) typedList(p *plan, lv, rv unsafe.Pointer, lgone, rgone bool) (d difference) {
	l, r := slice(lv), slice(rv)
	if p.atomic || l.len == 0 && r.len == 0 {
		if p.canFail {
			w.validate(p, lv)
			w.validate(p, rv)
		}
		return leaf(lgone, rgone, func() bool { return p.equalValues(lv, rv) })
	}
	start := len(w.items)
	w.typedItems(p, l)
	middle := len(w.items)
	w.typedItems(p, r)
	if w.failed {
		return d
	}
	d = w.compareItems(start, middle, func(l, r *item) difference {
		var lp, rp unsafe.Pointer
		if l != nil {
			lp = l.typed
		}
		if r != nil {
			rp = r.typed
		}
		return w.typed(p.elem, lp, rp)
	}, func(l, r *item) bool {
		return p.elem.equal(l.typed, r.typed)
	})
	w.items = w.items[:start]
	d.changed, d.removed = lgone, rgone
	return d
}

// typedItems puts the items of a list on the stack, with their keys.
func (w *walker) typedItems(p *plan, s sliceHeader) {
	for i := range s.len {
		it := item{typed: unsafe.Add(s.data, uintptr(i)*p.size)}
		first := len(w.scalars)
		if len(p.keys) == 0 {
			text := at[string](it.typed)
			w.failed = w.failed || !plain(text)
			w.scalars = append(w.scalars, scalar{kind: stringScalar, text: text})
		} else {
			w.typedKey(p, p.elem.deref(it.typed))
			w.validate(p.elem, p.elem.deref(it.typed))
		}
		it.key = w.scalars[first:len(w.scalars):len(w.scalars)]
		w.failed = w.failed || len(it.key) == 0
		w.items = append(w.items, it)
	}
}

// typedKey appends the key fields of the struct at v to w.scalars.
func (w *walker) typedKey(p *plan, v unsafe.Pointer) {
	if v == nil {
		w.failed = true // null is no item
		return
	}
	for i := range p.keys {
		k := &p.keys[i]
		var f unsafe.Pointer
		if k.field != nil {
			f = k.field.of(v)
		}
		switch {
		case f != nil:
			s, ok := k.field.plan.scalar(f)
			s.name = k.name
			w.failed = w.failed || !ok
			w.scalars = append(w.scalars, s)
		case k.def != nil:
			w.scalars = append(w.scalars, *k.def)
		}
	}
}

// scalar returns the value of the variable at v as part of a key.
func (p *plan) scalar(v unsafe.Pointer) (s scalar, ok bool) {
	if v = p.deref(v); v == nil {
		return s, false
	}
	switch p.form {
	case stringForm:
		s.kind, s.text = stringScalar, at[string](v)
		return s, plain(s.text)
	case int32Form:
		s.num = int64(at[int32](v))
		return s, true
	case int64Form:
		return scalarOf(at[int64](v))
	case boolForm:
		return scalarOf(at[bool](v))
	}
	return s, false
}

func sameString(a, b string) bool { return a == b }

// mapAt returns the map of p's variable at v.
func mapAt[M any](p *plan, v unsafe.Pointer) (m M) {
	if v = p.deref(v); v != nil {
		m = at[M](v)
	}
	return m
}

// plainMap compares maps whose values have no parts.
func plainMap[K ~string, V any](w *walker, p *plan, l, r map[K]V, lgone, rgone bool, same func(a, b V) bool) (d difference) {
	if p.atomic || len(l) == 0 && len(r) == 0 {
		return leaf(lgone, rgone, func() bool { return (l == nil) == (r == nil) && maps.EqualFunc(l, r, same) })
	}
	changed, removed := len(w.changed), len(w.removed)
	for k, v := range r {
		if old, ok := l[k]; !ok || !same(old, v) {
			w.failed = w.failed || !plainName(string(k))
			w.changed = append(w.changed, element{name: string(k), member: true})
		}
	}
	for k := range l {
		if _, ok := r[k]; !ok {
			w.failed = w.failed || !plainName(string(k))
			w.removed = append(w.removed, element{name: string(k), member: true})
		}
	}
	sortByName(w.changed[changed:])
	sortByName(w.removed[removed:])
	w.pop(changed, removed, &d)
	d.changed, d.removed = lgone, rgone
	return d
}

func sortByName(e []element) {
	if len(e) > 1 {
		slices.SortFunc(e, func(a, b element) int { return strings.Compare(a.name, b.name) })
	}
}

func (w *walker) typedMap(p *plan, l, r unsafe.Pointer, lgone, rgone bool) (d difference) {
	llen, rlen := 0, 0
	if l != nil {
		llen = p.maps.len(l)
	}
	if r != nil {
		rlen = p.maps.len(r)
	}
	if p.atomic || llen == 0 && rlen == 0 {
		if p.canFail {
			w.validate(p, l)
			w.validate(p, r)
		}
		return leaf(lgone, rgone, func() bool { return p.equalValues(l, r) })
	}
	changed, removed := len(w.changed), len(w.removed)
	step := func(key string, el, er unsafe.Pointer) {
		sub := w.typed(p.elem, el, er)
		w.failed = w.failed || !plainName(key)
		w.push(element{name: key}, &sub)
	}
	if rlen > 0 {
		p.maps.each(r, func(key string, er unsafe.Pointer) {
			var el unsafe.Pointer
			if llen > 0 {
				el = p.maps.get(l, key)
			}
			step(key, el, er)
		})
	}
	if llen > 0 {
		p.maps.each(l, func(key string, el unsafe.Pointer) {
			if rlen == 0 || p.maps.get(r, key) == nil {
				step(key, el, nil)
			}
		})
	}
	sortByName(w.changed[changed:])
	sortByName(w.removed[removed:])
	w.pop(changed, removed, &d)
	d.changed, d.removed = lgone, rgone
	return d
}

// converted compares values that marshal themselves.
func (w *walker) converted(p *plan, l, r unsafe.Pointer) difference {
	var lv, rv any
	if l != nil {
		lv = w.convert(p, l)
	}
	if r != nil {
		rv = w.convert(p, r)
	}
	if w.failed {
		return difference{}
	}
	return w.dynamic(p.node, lv, rv, l == nil, r == nil)
}

// convert returns what a value marshals to, decoded.
func (w *walker) convert(p *plan, v unsafe.Pointer) any {
	out, err := unmarshaled(p, v)
	if err != nil || !valid(p.node, out) {
		w.failed = true
		return nil
	}
	return out
}

func unmarshaled(p *plan, v unsafe.Pointer) (any, error) {
	return value.TypeReflectEntryOf(p.typ).ToUnstructured(reflected(p.typ, v))
}

// equal says that two variables of p's type hold the same JSON value. Lists
// are compared as Go values, as the library does.
func (p *plan) equal(l, r unsafe.Pointer) bool {
	return p.equalValues(p.deref(l), p.deref(r))
}

// equalValues is equal for values; nil is null.
func (p *plan) equalValues(l, r unsafe.Pointer) bool {
	if l == nil || r == nil {
		return p.null(l) && p.null(r)
	}
	switch p.form {
	case stringForm:
		return at[string](l) == at[string](r)
	case boolForm:
		return at[bool](l) == at[bool](r)
	case int32Form:
		return at[int32](l) == at[int32](r)
	case int64Form:
		return at[int64](l) == at[int64](r)
	case bytesForm:
		a, b := at[[]byte](l), at[[]byte](r)
		return (a == nil) == (b == nil) && bytes.Equal(a, b)
	case timeForm:
		return sameTime((*metav1.Time)(l).Time, (*metav1.Time)(r).Time)
	case microTimeForm:
		a, b := (*metav1.MicroTime)(l), (*metav1.MicroTime)(r)
		return a.IsZero() == b.IsZero() && (a.IsZero() || a.UnixMicro() == b.UnixMicro())
	case quantityForm:
		return sameQuantity(at[resource.Quantity](l), at[resource.Quantity](r))
	case intOrStringForm:
		return sameIntOrString((*intstr.IntOrString)(l), (*intstr.IntOrString)(r))
	case structForm:
		for i := range p.fields {
			f := &p.fields[i]
			fl, fr := f.of(l), f.of(r)
			if (fl == nil) != (fr == nil) || fl != nil && !f.plan.equal(fl, fr) {
				return false
			}
		}
		return true
	case stringMapForm:
		a, b := at[map[string]string](l), at[map[string]string](r)
		return (a == nil) == (b == nil) && maps.Equal(a, b)
	case quantityMapForm:
		a, b := at[corev1.ResourceList](l), at[corev1.ResourceList](r)
		return (a == nil) == (b == nil) && maps.EqualFunc(a, b, sameQuantity)
	case listForm:
		if p.elem.form == stringForm && !p.elem.pointer && p.typ.Elem().Kind() == reflect.String {
			a, b := at[[]string](l), at[[]string](r)
			return (a == nil) == (b == nil) && slices.Equal(a, b)
		}
		return reflect.DeepEqual(reflect.NewAt(p.typ, l).Interface(), reflect.NewAt(p.typ, r).Interface())
	case mapForm:
		return p.equalMaps(l, r)
	case convertedForm:
		a, aerr := unmarshaled(p, l)
		b, berr := unmarshaled(p, r)
		return aerr == nil && berr == nil && equalDynamic(a, b)
	}
	a, b := reflected(p.typ, l), reflected(p.typ, r)
	return a.Interface() == b.Interface()
}

// null says that JSON shows the value at v as null.
func (p *plan) null(v unsafe.Pointer) bool {
	if v == nil {
		return true
	}
	switch p.form {
	case timeForm:
		return (*metav1.Time)(v).IsZero()
	case microTimeForm:
		return (*metav1.MicroTime)(v).IsZero()
	case listForm, bytesForm, mapForm, stringMapForm, quantityMapForm, entriesForm:
		return at[unsafe.Pointer](v) == nil
	}
	return false
}

func (p *plan) equalMaps(l, r unsafe.Pointer) bool {
	if p.null(l) != p.null(r) || p.maps.len(l) != p.maps.len(r) {
		return false
	}
	same := true
	p.maps.each(r, func(key string, er unsafe.Pointer) {
		if same {
			el := p.maps.get(l, key)
			same = el != nil && p.elem.equal(el, er)
		}
	})
	return same
}

// validate notes whether the value at v, nil for none, is valid by the schema.
// The walk itself does so for all it visits; this is for the inside of leaves.
func (w *walker) validate(p *plan, v unsafe.Pointer) {
	if v == nil || !p.canFail {
		return
	}
	switch p.form {
	case badForm:
		w.failed = true
	case convertedForm:
		w.convert(p, v)
	case structForm:
		for i := range p.fields {
			w.validateField(&p.fields[i], p.fields[i].of(v))
		}
	case listForm:
		s := slice(v)
		for i := range s.len {
			item := unsafe.Add(s.data, uintptr(i)*p.size)
			w.validate(p.elem, p.elem.deref(item))
			if len(p.keys) > 0 {
				first := len(w.scalars)
				w.typedKey(p, p.elem.deref(item))
				w.failed = w.failed || len(w.scalars) == first
			}
		}
	case mapForm:
		p.maps.each(v, func(_ string, e unsafe.Pointer) { w.validate(p.elem, p.elem.deref(e)) })
	}
}

// validateField is validate for a field's variable.
func (w *walker) validateField(f *planField, v unsafe.Pointer) {
	if v != nil {
		w.failed = w.failed || f.plan.form == badForm
		w.validate(f.plan, f.plan.deref(v))
	}
}
