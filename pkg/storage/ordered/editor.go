package ordered

import "slices"

// Edit begins a change of the map; the map itself stays as it is.
func (m Map[V]) Edit() *Editor[V] {
	return &Editor[V]{root: m.root, owner: new(owner)}
}

// Editor makes a new Map out of an old one. It is used by one goroutine.
type Editor[V any] struct {
	root  *node[V]
	owner *owner
}

// Map publishes the state so far. The editor can be used further; it copies
// from then on what the published map holds.
func (e *Editor[V]) Map() Map[V] {
	e.owner = new(owner)
	return Map[V]{root: e.root}
}

// Get returns the value of key in the state so far.
func (e *Editor[V]) Get(key string) (V, bool) { return Map[V]{root: e.root}.Get(key) }

// Set stores the value and returns the one before.
func (e *Editor[V]) Set(key string, v V) (old V, had bool) {
	if e.root == nil {
		e.root = &node[V]{owner: e.owner, keys: []string{key}, vals: []V{v}, count: 1}
		return old, false
	}
	e.root = e.mutable(e.root)
	old, had, right := e.set(e.root, key, v)
	if right != nil {
		left := e.root
		e.root = &node[V]{
			owner: e.owner,
			keys:  []string{left.keys[0], right.keys[0]},
			kids:  []*node[V]{left, right},
			count: left.count + right.count,
		}
	}
	return old, had
}

// Delete removes the key and returns its value.
func (e *Editor[V]) Delete(key string) (old V, had bool) {
	if _, found := e.Get(key); !found {
		return old, false
	}
	e.root = e.mutable(e.root)
	old = e.remove(e.root, key)
	for e.root != nil && e.root.kids != nil && len(e.root.kids) == 1 {
		e.root = e.root.kids[0]
	}
	if e.root.count == 0 {
		e.root = nil
	}
	return old, true
}

// mutable is n itself when this editor made it, else a copy.
func (e *Editor[V]) mutable(n *node[V]) *node[V] {
	if n.owner == e.owner {
		return n
	}
	c := &node[V]{owner: e.owner, count: n.count}
	c.keys = append(make([]string, 0, len(n.keys)+1), n.keys...)
	if n.kids == nil {
		c.vals = append(make([]V, 0, len(n.vals)+1), n.vals...)
	} else {
		c.kids = append(make([]*node[V], 0, len(n.kids)+1), n.kids...)
	}
	return c
}

// set stores into a mutable node. When the node had to be split, right is the
// new neighbour after it.
func (e *Editor[V]) set(n *node[V], key string, v V) (old V, had bool, right *node[V]) {
	if n.kids == nil {
		i, found := slices.BinarySearch(n.keys, key)
		if found {
			old, n.vals[i] = n.vals[i], v
			return old, true, nil
		}
		n.keys = slices.Insert(n.keys, i, key)
		n.vals = slices.Insert(n.vals, i, v)
		n.count++
		return old, false, e.split(n)
	}
	i := n.kidFor(key)
	n.keys[i] = min(n.keys[i], key)
	n.kids[i] = e.mutable(n.kids[i])
	old, had, split := e.set(n.kids[i], key, v)
	if !had {
		n.count++
	}
	if split != nil {
		n.keys = slices.Insert(n.keys, i+1, split.keys[0])
		n.kids = slices.Insert(n.kids, i+1, split)
	}
	return old, had, e.split(n)
}

// split moves the upper half of a node that is too wide into a new one.
func (e *Editor[V]) split(n *node[V]) *node[V] {
	if len(n.keys) <= maxWidth {
		return nil
	}
	at := len(n.keys) / 2
	r := &node[V]{owner: e.owner, keys: slices.Clone(n.keys[at:])}
	if n.kids == nil {
		r.vals = slices.Clone(n.vals[at:])
		clear(n.vals[at:])
		n.vals = n.vals[:at]
		r.count = len(r.keys)
	} else {
		r.kids = slices.Clone(n.kids[at:])
		clear(n.kids[at:])
		n.kids = n.kids[:at]
		for _, kid := range r.kids {
			r.count += kid.count
		}
	}
	clear(n.keys[at:])
	n.keys = n.keys[:at]
	n.count -= r.count
	return r
}

// remove deletes a key that exists from a mutable node.
func (e *Editor[V]) remove(n *node[V], key string) (old V) {
	n.count--
	if n.kids == nil {
		i, _ := slices.BinarySearch(n.keys, key)
		old = n.vals[i]
		n.keys = slices.Delete(n.keys, i, i+1)
		n.vals = slices.Delete(n.vals, i, i+1)
		return old
	}
	i := n.kidFor(key)
	n.kids[i] = e.mutable(n.kids[i])
	old = e.remove(n.kids[i], key)
	switch kid := n.kids[i]; {
	case len(kid.keys) == 0:
		n.dropKid(i)
	case len(kid.keys) >= minWidth:
	case i > 0 && len(n.kids[i-1].keys)+len(kid.keys) <= maxWidth*3/4:
		e.merge(n, i-1)
	case i+1 < len(n.kids) && len(n.kids[i+1].keys)+len(kid.keys) <= maxWidth*3/4:
		e.merge(n, i)
	}
	return old
}

// merge moves everything of kid i+1 into kid i.
func (e *Editor[V]) merge(n *node[V], i int) {
	left, right := e.mutable(n.kids[i]), n.kids[i+1]
	left.keys = append(left.keys, right.keys...)
	left.vals = append(left.vals, right.vals...)
	left.kids = append(left.kids, right.kids...)
	left.count += right.count
	n.kids[i] = left
	n.dropKid(i + 1)
}

func (n *node[V]) dropKid(i int) {
	n.keys = slices.Delete(n.keys, i, i+1)
	n.kids = slices.Delete(n.kids, i, i+1)
}
