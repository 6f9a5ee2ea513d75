package ownership

import (
	"cmp"
	"strings"
)

// Kinds of path elements, in the order in which they sort.
const (
	fieldElement uint8 = iota // a field of a struct or an entry of a map
	keyElement                // an item of a list with keys
	valueElement              // an item of a set
)

// element is one step of a path and what a set holds at and below it.
type element struct {
	kind uint8
	// member says that the path that ends here is in the set.
	member bool
	// name is the field's name; empty for the other kinds.
	name string
	// key is the item's key fields, sorted by name, or its one value.
	key []scalar
	// below holds the longer paths; nil when there are none.
	below set
}

// set is a set of paths as a tree: the elements of one level, sorted, without
// repetition and without elements that hold nothing. Sets are never changed
// once they are built, so that they may share their parts.
type set []element

// Types of scalars, in the order in which the library sorts values.
const (
	intScalar uint8 = iota
	stringScalar
	boolScalar
)

// scalar is a key field of a list's item, or the value of a set's.
type scalar struct {
	name string // "" for a set's value
	kind uint8
	num  int64 // an integer, or 1 for true
	text string
}

func (a *scalar) compare(b *scalar) int {
	if c := strings.Compare(a.name, b.name); c != 0 {
		return c
	}
	if a.kind != b.kind {
		return cmp.Compare(a.kind, b.kind)
	}
	if a.kind == stringScalar {
		return strings.Compare(a.text, b.text)
	}
	return cmp.Compare(a.num, b.num)
}

func compareKeys(a, b []scalar) int {
	for i := range a {
		if i >= len(b) {
			return 1
		}
		if c := a[i].compare(&b[i]); c != 0 {
			return c
		}
	}
	return cmp.Compare(len(a), len(b))
}

func (e *element) compare(o *element) int {
	if e.kind != o.kind {
		return cmp.Compare(e.kind, o.kind)
	}
	if e.kind == fieldElement {
		return strings.Compare(e.name, o.name)
	}
	return compareKeys(e.key, o.key)
}

// builder makes sets out of memory that is given back as a whole.
type builder struct {
	chunk []element // the free rest is beyond its length
}

const chunkSize = 512

// make returns n elements of zero length.
func (b *builder) make(n int) set {
	if cap(b.chunk)-len(b.chunk) < n {
		b.chunk = make([]element, 0, max(n, chunkSize)) // sets hold the last one
	}
	start := len(b.chunk)
	b.chunk = b.chunk[:start+n]
	return b.chunk[start : start : start+n]
}

// reset gives the memory back: no set that was made is used any more.
func (b *builder) reset() { b.chunk = b.chunk[:0] }

// keep returns a copy of elements, or nil for none.
func (b *builder) keep(elements []element) set {
	if len(elements) == 0 {
		return nil
	}
	return append(b.make(len(elements)), elements...)
}

// overlaps says that s and o have a path in common.
func (s set) overlaps(o set) bool {
	for i, j := 0, 0; i < len(s) && j < len(o); {
		switch c := s[i].compare(&o[j]); {
		case c < 0:
			i++
		case c > 0:
			j++
		default:
			if s[i].member && o[j].member || s[i].below.overlaps(o[j].below) {
				return true
			}
			i++
			j++
		}
	}
	return false
}

// contains says that all paths of o are in s.
func (s set) contains(o set) bool {
	i := 0
	for j := range o {
		for i < len(s) && s[i].compare(&o[j]) < 0 {
			i++
		}
		if i == len(s) || s[i].compare(&o[j]) != 0 || o[j].member && !s[i].member || !s[i].below.contains(o[j].below) {
			return false
		}
	}
	return true
}

// minus returns the paths of s that are not in o.
func (b *builder) minus(s, o set) set {
	if !s.overlaps(o) {
		return s
	}
	out := b.make(len(s))
	j := 0
	for i := range s {
		e := s[i]
		for j < len(o) && o[j].compare(&e) < 0 {
			j++
		}
		if j < len(o) && o[j].compare(&e) == 0 {
			e.member = e.member && !o[j].member
			e.below = b.minus(e.below, o[j].below)
		}
		if e.member || len(e.below) > 0 {
			out = append(out, e)
		}
	}
	return out
}

// without returns the paths of s that neither are in o nor begin with a path
// that is.
func (b *builder) without(s, o set) set {
	if len(s) == 0 || len(o) == 0 {
		return s
	}
	out := b.make(len(s))
	j := 0
	for i := range s {
		e := s[i]
		for j < len(o) && o[j].compare(&e) < 0 {
			j++
		}
		if j < len(o) && o[j].compare(&e) == 0 {
			if o[j].member {
				continue
			}
			e.below = b.without(e.below, o[j].below)
		}
		if e.member || len(e.below) > 0 {
			out = append(out, e)
		}
	}
	return out
}

// union returns the paths of both.
func (b *builder) union(s, o set) set {
	if len(s) == 0 {
		return o
	}
	if len(o) == 0 {
		return s
	}
	out := b.make(len(s) + len(o))
	i, j := 0, 0
	for i < len(s) && j < len(o) {
		switch c := s[i].compare(&o[j]); {
		case c < 0:
			out = append(out, s[i])
			i++
		case c > 0:
			out = append(out, o[j])
			j++
		default:
			e := s[i]
			e.member = e.member || o[j].member
			e.below = b.union(e.below, o[j].below)
			out = append(out, e)
			i++
			j++
		}
	}
	out = append(out, s[i:]...)
	return append(out, o[j:]...)
}

// fields makes a set of paths of field names.
func fields(paths ...[]string) set {
	var b builder
	var out set
	for _, p := range paths {
		var s set
		for i := len(p) - 1; i >= 0; i-- {
			s = set{{name: p[i], member: i == len(p)-1, below: s}}
		}
		out = b.union(out, s)
	}
	return out.compact()
}

// compact is a copy of s that holds no memory but its own.
func (s set) compact() set {
	if len(s) == 0 {
		return nil
	}
	out := make(set, len(s))
	for i := range s {
		out[i] = s[i]
		out[i].below = s[i].below.compact()
	}
	return out
}
