package cache

import (
	"container/heap"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"coracle/pkg/storage"
	"coracle/pkg/storage/ordered"
)

// change is one change of one key on its way into the cache.
type change struct {
	key  string
	rev  storage.Revision
	kind *kind // nil when no kind had the key when the change was read
	// stored is the value as stored; nil for a deletion.
	stored []byte
	own    bool // this server has written it
	// Exactly one of obj and corrupt is set for a write that has been indexed.
	obj     *Object
	corrupt *CorruptError
	// created is the CreateRevision, 0 when the writer does not know it: then
	// the object before tells.
	created storage.Revision
}

// index reads the value of a write, unless that has been done.
func (ch *change) index() {
	if ch.stored == nil || ch.kind == nil || ch.obj != nil || ch.corrupt != nil {
		return
	}
	read := ch.kind.index
	if ch.own {
		read = ch.kind.indexOwn
	}
	obj, err := read(ch.key, ch.stored, ch.rev, ch.created)
	if err != nil {
		ch.corrupt, _ = errors.AsType[*CorruptError](err)
		return
	}
	ch.obj = obj
}

// kindEdit collects what a run of changes does to one kind.
type kindEdit struct {
	kind    *kind
	objects *ordered.Editor[*Object]
	corrupt *ordered.Editor[*CorruptError]
	last    storage.Revision
}

func edit(k *kind) *kindEdit {
	st := k.state.Load()
	return &kindEdit{kind: k, objects: st.objects.Edit(), corrupt: st.corrupt.Edit()}
}

// apply takes one change, which must have been indexed, and returns the event
// that it makes, or nil.
func (e *kindEdit) apply(ch *change) *event {
	prev, _ := e.objects.Get(ch.key)
	if bad, was := e.corrupt.Get(ch.key); was {
		prev = bad.last
		e.corrupt.Delete(ch.key)
	}
	if prev != nil {
		prev.retire()
	}
	e.last = ch.rev
	ev := &event{key: ch.key, kind: e.kind, rev: ch.rev, obj: ch.obj, prev: prev}
	switch {
	case ch.obj != nil:
		if ch.obj.CreateRevision == 0 {
			ch.obj.CreateRevision = ch.rev
			if prev != nil {
				ch.obj.CreateRevision = prev.CreateRevision
			}
		}
		ch.obj.memo.kept.Store(true)
		e.objects.Set(ch.key, ch.obj)
		return ev
	case ch.corrupt != nil:
		// Watchers keep what they saw last; the next readable value or the
		// deletion goes on from there.
		ch.corrupt.last = prev
		e.objects.Delete(ch.key)
		e.corrupt.Set(ch.key, ch.corrupt)
		return nil
	}
	e.objects.Delete(ch.key)
	if prev == nil {
		return nil
	}
	return ev
}

// applyLocked applies changes that are in order and, with what has been applied
// before, complete up to upTo. Readers see objects first, then the revision,
// then events: so a client that saw an event finds everything before it in any
// read, and a bookmark promises nothing too early. c.mu is held.
func (c *Cache) applyLocked(changes []change, upTo storage.Revision) {
	before := c.Revision()
	if upTo <= before {
		return
	}
	now := c.cfg.Clock.Now()
	var edits []*kindEdit
	for i := range changes {
		ch := &changes[i]
		if ch.kind == nil {
			ch.kind = c.table().find(ch.key)
		}
		if ch.rev <= before || ch.kind == nil || ch.rev <= ch.kind.base {
			continue
		}
		if ch.kind.loading != nil {
			*ch.kind.loading = append(*ch.kind.loading, *ch)
			continue
		}
		ch.index()
		if ch.corrupt != nil {
			c.log.Error("A stored value cannot be read", "key", ch.key, "revision", ch.rev, "error", ch.corrupt.Err)
		}
		edits = c.collect(edits, ch, now)
	}
	for _, e := range edits {
		e.kind.state.Store(&kindState{objects: e.objects.Map(), corrupt: e.corrupt.Map(), revision: e.last})
	}
	c.applied.Store(int64(upTo))
	for _, e := range edits {
		e.kind.show(e.last, now)
	}
	c.shown.Store(int64(upTo))
	c.notifyLocked()
}

// collect applies one change to the edit of its kind.
func (c *Cache) collect(edits []*kindEdit, ch *change, now time.Time) []*kindEdit {
	var e *kindEdit
	for _, have := range edits {
		if have.kind == ch.kind {
			e = have
		}
	}
	if e == nil {
		e = edit(ch.kind)
		edits = append(edits, e)
	}
	if ev := e.apply(ch); ev != nil {
		ch.kind.add(ev, now)
	}
	return edits
}

// notifyLocked wakes who waits for the applied revision and lets the notifier
// wake the watchers. c.mu is held.
func (c *Cache) notifyLocked() {
	applied := c.Revision()
	for len(c.waiters) > 0 && c.waiters[0].rev <= applied {
		close(heap.Pop(&c.waiters).(*waiter).done)
	}
	c.awake.ring()
}

// wakeList is the groups whose watchers are to be woken.
type wakeList struct {
	bell   chan struct{} // holds at most one
	mu     sync.Mutex    // guards groups
	groups []*group
}

func (l *wakeList) add(g *group) {
	l.mu.Lock()
	l.groups = append(l.groups, g)
	l.mu.Unlock()
}

func (l *wakeList) ring() {
	select {
	case l.bell <- struct{}{}:
	default:
	}
}

func (l *wakeList) take() []*group {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.groups
	l.groups = nil
	return out
}

const (
	// manyWatchers is from when a group rests after it has been woken, restEach
	// for how long for each of its watchers, restMost for how long at most. What
	// comes meanwhile then goes out in one write to each, and to wake watchers
	// never takes more than a part of the processors.
	manyWatchers = 32
	restEach     = 20 * time.Microsecond
	restMost     = 5 * time.Millisecond
)

// notifier wakes the watchers of groups with new events. It does so in its own
// goroutine so that a write costs the same however many watch.
func (c *Cache) notifier(ctx context.Context) {
	var resting []*group
	var rested <-chan time.Time
	for {
		select {
		case <-c.awake.bell:
		case <-rested:
		case <-ctx.Done():
			return
		}
		now := c.cfg.Clock.Now()
		due := append(resting, c.awake.take()...)
		resting, rested = nil, nil
		wait := restMost
		for _, g := range due {
			if left := g.rest.Sub(now); left > 0 {
				resting = append(resting, g)
				wait = min(wait, left)
				continue
			}
			if n := g.watchers.Load(); n >= manyWatchers {
				g.rest = now.Add(min(time.Duration(n)*restEach, restMost))
			}
			g.dirty.Store(false)
			next := make(chan struct{})
			close(*g.wake.Swap(&next))
		}
		if len(resting) > 0 {
			rested = c.cfg.Clock.After(wait)
		}
	}
}

// drainLocked applies own commits whose predecessors are there now. c.mu is held.
func (c *Cache) drainLocked() {
	if len(c.pending) == 0 {
		return
	}
	applied := c.Revision()
	for rev := range c.pending {
		if rev <= applied {
			delete(c.pending, rev)
		}
	}
	var run []change
	for {
		next := applied + storage.Revision(len(run)) + 1
		ch, ok := c.pending[next]
		if !ok {
			break
		}
		delete(c.pending, next)
		run = append(run, ch)
	}
	if len(run) > 0 {
		c.applyLocked(run, applied+storage.Revision(len(run)))
	}
}

// waiter is a read or a write that waits for a revision to be applied.
type waiter struct {
	rev  storage.Revision
	done chan struct{}
	slot int // in the heap, -1 when out of it
}

// waiters is a heap, the lowest revision first.
type waiters []*waiter

func (h waiters) Len() int           { return len(h) }
func (h waiters) Less(i, j int) bool { return h[i].rev < h[j].rev }
func (h waiters) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].slot, h[j].slot = i, j
}
func (h *waiters) Push(x any) {
	w := x.(*waiter)
	w.slot = len(*h)
	*h = append(*h, w)
}
func (h *waiters) Pop() any {
	last := len(*h) - 1
	w := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	w.slot = -1
	return w
}

// ErrNotReached says that the cache did not apply a revision within the time
// given: its feed is behind the store, and the caller may try again.
var ErrNotReached = errors.New("the revision has not been reached in time")

// waitApplied blocks until rev has been applied: nil, or ErrNotReached after
// the limit, or the error of ctx. While it waits it asks the store for progress
// marks, since a revision of a key outside the prefix shows itself only there.
func (c *Cache) waitApplied(ctx context.Context, rev storage.Revision, limit time.Duration) error {
	if c.Revision() >= rev {
		return nil
	}
	c.mu.Lock()
	if c.Revision() >= rev {
		c.mu.Unlock()
		return nil
	}
	w := &waiter{rev: rev, done: make(chan struct{})}
	heap.Push(&c.waiters, w)
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		if w.slot >= 0 {
			heap.Remove(&c.waiters, w.slot)
		}
		c.mu.Unlock()
	}()
	deadline := c.cfg.Clock.Now().Add(limit)
	for pause := firstNudge; ; pause = nudgeEvery {
		left := deadline.Sub(c.cfg.Clock.Now())
		if left <= 0 {
			return ErrNotReached
		}
		timer := c.cfg.Clock.NewTimer(min(pause, left))
		select {
		case <-w.done:
			timer.Stop()
			return nil
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C():
			c.nudge(ctx)
		}
	}
}

const (
	firstNudge = 10 * time.Millisecond
	nudgeEvery = 100 * time.Millisecond
)

// nudge asks the store for progress marks, at most once in half of nudgeEvery.
func (c *Cache) nudge(ctx context.Context) {
	now := c.cfg.Clock.Now().UnixNano()
	last := c.nudged.Load()
	if now-last < int64(nudgeEvery/2) || !c.nudged.CompareAndSwap(last, now) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if err := c.cfg.Backend.RequestProgress(ctx); err != nil {
		c.log.Debug("The store did not take a request for progress", "error", err)
	}
}

// raise sets v to rev unless it is higher.
func raise(v *atomic.Int64, rev storage.Revision) {
	for {
		old := v.Load()
		if old >= int64(rev) || v.CompareAndSwap(old, int64(rev)) {
			return
		}
	}
}
