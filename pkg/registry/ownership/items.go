package ownership

import (
	"slices"
	"unsafe"
)

// item is an item of a list with keys or of a set.
type item struct {
	key   []scalar
	typed unsafe.Pointer // of a Go list
	value any            // of a decoded JSON list
}

// compareItems compares two lists whose items are on the stack, the old ones
// from start, the new ones from middle. Items of one key belong together. A
// key that a list repeats is followed as a whole, as if it were atomic.
func (w *walker) compareItems(start, middle int, compare func(l, r *item) difference, equal func(l, r *item) bool) (d difference) {
	l, r := w.items[start:middle], w.items[middle:]
	sortItems(l)
	sortItems(r)
	changed, removed := len(w.changed), len(w.removed)
	for len(l) > 0 || len(r) > 0 {
		lnum, rnum := run(l), run(r)
		if lnum > 0 && rnum > 0 {
			switch c := compareKeys(l[0].key, r[0].key); {
			case c < 0:
				rnum = 0
			case c > 0:
				lnum = 0
			}
		}
		step := element{kind: keyElement}
		if lnum > 0 {
			step.key = l[0].key
		} else {
			step.key = r[0].key
		}
		if step.key[0].name == "" {
			step.kind = valueElement
		}
		sub := compareRuns(l[:lnum], r[:rnum], compare, equal)
		w.push(step, &sub)
		l, r = l[lnum:], r[rnum:]
	}
	w.pop(changed, removed, &d)
	return d
}

// compareRuns compares the items of one key.
func compareRuns(l, r []item, compare func(l, r *item) difference, equal func(l, r *item) bool) (d difference) {
	switch {
	case len(l) <= 1 && len(r) <= 1:
		return compare(first(l), first(r))
	case len(l) >= 2 && len(r) >= 2:
		d.changed = !slices.EqualFunc(l, r, func(a, b item) bool { return equal(&a, &b) })
	case len(l) >= 2:
		if len(r) > 0 {
			d = compare(nil, &r[0])
		}
		d.removed = true
	default:
		if len(l) > 0 {
			d = compare(&l[0], nil)
		}
		d.changed = true
	}
	return d
}

func first(s []item) *item {
	if len(s) == 0 {
		return nil
	}
	return &s[0]
}

// run is how many items at the front of a sorted list share a key.
func run(s []item) int {
	if len(s) == 0 {
		return 0
	}
	n := 1
	for n < len(s) && compareKeys(s[0].key, s[n].key) == 0 {
		n++
	}
	return n
}

func sortItems(s []item) {
	byKey := func(a, b item) int { return compareKeys(a.key, b.key) }
	for i := 1; i < len(s); i++ {
		if byKey(s[i-1], s[i]) > 0 {
			slices.SortStableFunc(s, byKey)
			return
		}
	}
}
