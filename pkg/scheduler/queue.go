package scheduler

import (
	"container/heap"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/scheduler/plugin"
)

// How long a pod that could not be placed waits before it is tried again,
// when something happened that may help it.
const (
	firstBackoff = time.Second
	lastBackoff  = 10 * time.Second
)

// entry is a pod that waits for a node.
type entry struct {
	pod      *plugin.Pod
	added    time.Time // when it was first seen; older goes first
	attempts int
	ready    time.Time // not before, while it backs off
	state    state
	index    int // in the heap of its state
}

type state int

const (
	active   state = iota // to be tried now
	backoff               // to be tried at entry.ready
	hopeless              // to be tried when something changes
	trying                // taken by pop
)

// queue orders the pods that wait. It is pure: time is passed in. It is not
// safe for concurrent use.
type queue struct {
	entries map[types.UID]*entry
	active  activeHeap
	backoff backoffHeap
	// moves counts calls of wake: an entry whose attempt began before the
	// last one may have missed what helps it.
	moves int
}

func newQueue() *queue { return &queue{entries: map[types.UID]*entry{}} }

// add puts a new pod in, or replaces what is known of it.
func (q *queue) add(p *plugin.Pod, now time.Time) {
	if e, ok := q.entries[p.UID]; ok {
		e.pod = p
		if e.state == hopeless {
			q.activate(e, now)
		}
		return
	}
	e := &entry{pod: p, added: now, state: active}
	q.entries[p.UID] = e
	heap.Push(&q.active, e)
}

// remove takes a pod out that is bound or gone.
func (q *queue) remove(uid types.UID) {
	e, ok := q.entries[uid]
	if !ok {
		return
	}
	delete(q.entries, uid)
	switch e.state {
	case active:
		heap.Remove(&q.active, e.index)
	case backoff:
		heap.Remove(&q.backoff, e.index)
	}
}

// pop takes the next pod, or returns nil.
func (q *queue) pop(now time.Time) *entry {
	for len(q.backoff) > 0 && !q.backoff[0].ready.After(now) {
		e := heap.Pop(&q.backoff).(*entry)
		e.state = active
		heap.Push(&q.active, e)
	}
	if len(q.active) == 0 {
		return nil
	}
	e := heap.Pop(&q.active).(*entry)
	e.state = trying
	e.attempts++
	return e
}

// next is when pop may return something although nothing happens; zero when
// never.
func (q *queue) next() time.Time {
	if len(q.backoff) == 0 {
		return time.Time{}
	}
	return q.backoff[0].ready
}

// fail gives a pod back that was popped when moves was at began. It waits for
// a change, or backs off when one came meanwhile or retry is set.
func (q *queue) fail(e *entry, began int, retry bool, now time.Time) {
	if q.entries[e.pod.UID] != e || e.state != trying {
		return // gone or bound meanwhile
	}
	e.ready = now.Add(backoffOf(e.attempts))
	e.state = hopeless
	if retry || q.moves != began {
		q.activate(e, now)
	}
}

// wake tries all hopeless pods again, after their back-off.
func (q *queue) wake(now time.Time) { q.wakeIf(now, func(*plugin.Pod) bool { return true }) }

// wakeIf tries again those hopeless pods that helped says yes to, and reports
// whether there are any.
func (q *queue) wakeIf(now time.Time, helped func(*plugin.Pod) bool) bool {
	q.moves++
	any := false
	for _, e := range q.entries {
		if e.state == hopeless && helped(e.pod) {
			any = true
			q.activate(e, now)
		}
	}
	return any
}

func (q *queue) activate(e *entry, now time.Time) {
	if e.ready.After(now) {
		e.state = backoff
		heap.Push(&q.backoff, e)
		return
	}
	e.state = active
	heap.Push(&q.active, e)
}

func backoffOf(attempts int) time.Duration {
	d := firstBackoff
	for range attempts - 1 {
		if d *= 2; d >= lastBackoff {
			return lastBackoff
		}
	}
	return d
}

// activeHeap orders by priority, then age.
type activeHeap []*entry

func (h activeHeap) Len() int { return len(h) }
func (h activeHeap) Less(i, j int) bool {
	if h[i].pod.Priority != h[j].pod.Priority {
		return h[i].pod.Priority > h[j].pod.Priority
	}
	return h[i].added.Before(h[j].added)
}
func (h activeHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i]; h[i].index, h[j].index = i, j }
func (h *activeHeap) Push(x any)   { e := x.(*entry); e.index = len(*h); *h = append(*h, e) }
func (h *activeHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return e
}

// backoffHeap orders by when the wait ends.
type backoffHeap []*entry

func (h backoffHeap) Len() int           { return len(h) }
func (h backoffHeap) Less(i, j int) bool { return h[i].ready.Before(h[j].ready) }
func (h backoffHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i]; h[i].index, h[j].index = i, j }
func (h *backoffHeap) Push(x any)        { e := x.(*entry); e.index = len(*h); *h = append(*h, e) }
func (h *backoffHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return e
}
