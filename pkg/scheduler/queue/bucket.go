package queue

import (
	"container/heap"
	"strings"
)

// key names a bucket.
type key struct {
	class    any
	priority int32
	alone    string // the UID of a pod that waits by itself
}

func keyOf[P any](e *Entry[P], alone bool) key {
	k := key{class: e.Class, priority: e.Priority}
	if alone {
		k.alone = string(e.UID)
	}
	return k
}

// bucket is the waiting pods of one class and priority.
type bucket[P any] struct {
	key     key
	members indexed[P] // by ready
	// probe is the one that was woken and whose outcome holds for all.
	probe *Entry[P]
	group *group[P]
}

// group is the buckets that the same plugins refused.
type group[P any] struct {
	name    string
	plugins []string
	buckets map[*bucket[P]]struct{}
}

func newBucket[P any](k key) *bucket[P] {
	b := &bucket[P]{key: k}
	b.members.less = byReady[P]
	return b
}

// regroup notes who refused the pods of a bucket last.
func (q *Queue[P, E]) regroup(b *bucket[P], plugins []string) {
	name := strings.Join(plugins, ",")
	if b.group != nil {
		if b.group.name == name {
			return
		}
		q.ungroup(b)
	}
	g := q.groups[name]
	if g == nil {
		g = &group[P]{name: name, plugins: plugins, buckets: map[*bucket[P]]struct{}{}}
		q.groups[name] = g
	}
	g.buckets[b], b.group = struct{}{}, g
}

func (q *Queue[P, E]) ungroup(b *bucket[P]) {
	delete(b.group.buckets, b)
	if len(b.group.buckets) == 0 {
		delete(q.groups, b.group.name)
	}
	b.group = nil
}

// tidy drops a bucket that nobody is in.
func (q *Queue[P, E]) tidy(b *bucket[P]) {
	if b.members.Len() > 0 || b.probe != nil || b.group == nil {
		return
	}
	q.ungroup(b)
	delete(q.buckets, b.key)
}

// list appends to the waiting pods; their since never decreases.
func (q *Queue[P, E]) list(e *Entry[P]) {
	e.prev, e.next = q.newest, nil
	if q.newest == nil {
		q.oldest = e
	} else {
		q.newest.next = e
	}
	q.newest = e
}

func (q *Queue[P, E]) unlist(e *Entry[P]) {
	if e.prev == nil {
		q.oldest = e.next
	} else {
		e.prev.next = e.next
	}
	if e.next == nil {
		q.newest = e.prev
	} else {
		e.next.prev = e.prev
	}
	e.prev, e.next = nil, nil
}

// byImportance is the order of trying.
func byImportance[P any](a, b *Entry[P]) bool {
	if a.Priority != b.Priority {
		return a.Priority > b.Priority
	}
	if !a.Added.Equal(b.Added) {
		return a.Added.Before(b.Added)
	}
	return a.seq < b.seq
}

// byReady orders by when the back-off ends.
func byReady[P any](a, b *Entry[P]) bool {
	if !a.ready.Equal(b.ready) {
		return a.ready.Before(b.ready)
	}
	return byImportance(a, b)
}

// indexed is a heap whose entries know where they are.
type indexed[P any] struct {
	list []*Entry[P]
	less func(a, b *Entry[P]) bool
}

func (h *indexed[P]) push(e *Entry[P])   { heap.Push((*byIndex[P])(h), e) }
func (h *indexed[P]) pop() *Entry[P]     { return heap.Pop((*byIndex[P])(h)).(*Entry[P]) }
func (h *indexed[P]) remove(e *Entry[P]) { heap.Remove((*byIndex[P])(h), e.index) }

// Len is how many entries there are.
func (h *indexed[P]) Len() int { return len(h.list) }

// byIndex is what container/heap needs.
type byIndex[P any] indexed[P]

func (h *byIndex[P]) Len() int           { return len(h.list) }
func (h *byIndex[P]) Less(i, j int) bool { return h.less(h.list[i], h.list[j]) }
func (h *byIndex[P]) Swap(i, j int) {
	h.list[i], h.list[j] = h.list[j], h.list[i]
	h.list[i].index, h.list[j].index = i, j
}
func (h *byIndex[P]) Push(x any) {
	e := x.(*Entry[P])
	e.index = len(h.list)
	h.list = append(h.list, e)
}
func (h *byIndex[P]) Pop() any {
	e := h.list[len(h.list)-1]
	h.list[len(h.list)-1] = nil
	h.list = h.list[:len(h.list)-1]
	return e
}
