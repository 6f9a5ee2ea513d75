// Package ordered is an ordered map from strings to values that is immutable
// once published. Changes are made in an Editor, which copies the nodes it
// touches and shares all others with the maps before it. So a reader needs no
// lock, and keeping the state of an earlier moment costs only what has changed
// since.
package ordered

import (
	"iter"
	"slices"
	"strings"
)

// A node holds at most maxWidth entries and is merged with a neighbour below
// minWidth.
const (
	maxWidth = 64
	minWidth = 16
)

// Map is one immutable state. The zero Map is empty. Copying it is cheap.
type Map[V any] struct {
	root *node[V]
}

// node is a leaf when kids is nil. In an inner node keys[i] is a lower bound
// of the keys under kids[i], and keys[i+1] is greater than all of them.
type node[V any] struct {
	owner *owner // the editor that may change the node in place
	keys  []string
	vals  []V        // leaf: one per key
	kids  []*node[V] // inner: one per key
	count int        // entries in the whole subtree
}

// owner is an identity; it has a size so that each has its own address.
type owner struct{ _ byte }

// Len is the number of entries.
func (m Map[V]) Len() int {
	if m.root == nil {
		return 0
	}
	return m.root.count
}

// Get returns the value of key.
func (m Map[V]) Get(key string) (V, bool) {
	var zero V
	n := m.root
	if n == nil {
		return zero, false
	}
	for n.kids != nil {
		n = n.kids[n.kidFor(key)]
	}
	i, found := slices.BinarySearch(n.keys, key)
	if !found {
		return zero, false
	}
	return n.vals[i], true
}

// From yields the entries with keys at or after start, in order.
func (m Map[V]) From(start string) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		if m.root != nil {
			m.root.ascend(start, yield)
		}
	}
}

// Prefix yields the entries whose key has the prefix, in order, beginning
// after the key after unless that is empty.
func (m Map[V]) Prefix(prefix, after string) iter.Seq2[string, V] {
	start := prefix
	if after != "" {
		start = max(start, after+"\x00")
	}
	return func(yield func(string, V) bool) {
		for k, v := range m.From(start) {
			if !strings.HasPrefix(k, prefix) || !yield(k, v) {
				return
			}
		}
	}
}

// PrefixLen is the number of entries that Prefix yields. It does not walk them.
func (m Map[V]) PrefixLen(prefix, after string) int {
	start := prefix
	if after != "" {
		start = max(start, after+"\x00")
	}
	end := m.Len()
	if e := PrefixEnd(prefix); e != "" {
		end = m.rank(e)
	}
	return max(0, end-m.rank(start))
}

// PrefixEnd is the least string greater than every string with the prefix,
// empty when there is none.
func PrefixEnd(prefix string) string {
	b := []byte(prefix)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] < 0xff {
			b[i]++
			return string(b[:i+1])
		}
	}
	return ""
}

// rank is the number of keys less than key.
func (m Map[V]) rank(key string) int {
	n, sum := m.root, 0
	if n == nil {
		return 0
	}
	for n.kids != nil {
		i := n.kidFor(key)
		for _, kid := range n.kids[:i] {
			sum += kid.count
		}
		n = n.kids[i]
	}
	i, _ := slices.BinarySearch(n.keys, key)
	return sum + i
}

// kidFor is the index of the only kid that can hold key.
func (n *node[V]) kidFor(key string) int {
	i, found := slices.BinarySearch(n.keys, key)
	if !found && i > 0 {
		i--
	}
	return i
}

func (n *node[V]) ascend(start string, yield func(string, V) bool) bool {
	if n.kids == nil {
		i, _ := slices.BinarySearch(n.keys, start)
		for ; i < len(n.keys); i++ {
			if !yield(n.keys[i], n.vals[i]) {
				return false
			}
		}
		return true
	}
	for _, kid := range n.kids[n.kidFor(start):] {
		if !kid.ascend(start, yield) {
			return false
		}
	}
	return true
}
