package cache

import (
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"coracle/pkg/storage"
)

const (
	chunkEvents = 64
	// ringAge is how long events are kept when the bytes allow.
	ringAge = 6 * time.Minute
	// eventOverhead is what an event costs beside the values it holds.
	eventOverhead = 512
)

// event is one change of one object, shared by all watchers.
type event struct {
	key  string
	kind *kind
	rev  storage.Revision // of the change; orders the event in its ring
	obj  *Object          // nil for a deletion
	prev *Object          // nil when there was none

	lastOnce sync.Once
	lastObj  *Object
	lastErr  error
}

// last is the object as it was before the event, at the revision of the event:
// what a watcher gets as Deleted.
func (e *event) last() (*Object, error) {
	e.lastOnce.Do(func() {
		e.lastObj, e.lastErr = e.kind.revise(e.prev, e.rev)
	})
	return e.lastObj, e.lastErr
}

func (e *event) bytes() int {
	n := eventOverhead
	if e.obj != nil {
		n += len(e.obj.Value)
	} else if e.prev != nil {
		n += len(e.prev.Value)
	}
	return n
}

// ring keeps the newest events of one kind. One goroutine at a time writes it,
// under the cache's lock; any number read it without a lock.
type ring struct {
	view atomic.Pointer[ringView]
	// end is the revision up to which events are visible. It hides a revision
	// that is only half written.
	end   atomic.Int64
	width int          // events per chunk
	bytes atomic.Int64 // of all chunks; written under the cache's lock
}

// ringView is immutable except that its last chunk grows.
type ringView struct {
	// start is the revision after which every event is here.
	start  storage.Revision
	chunks []*chunk
}

type chunk struct {
	n      atomic.Int32 // events filled in; written after the event itself
	events []*event     // of fixed length
	bytes  int          // guarded by the cache's lock
	newest time.Time    // when the last event came; guarded by the cache's lock
}

func newRing(start storage.Revision, width int) *ring {
	r := &ring{width: width}
	r.reset(start)
	return r
}

// reset empties the ring; what happens after start will be in it.
func (r *ring) reset(start storage.Revision) {
	r.bytes.Store(0)
	r.view.Store(&ringView{start: start})
	r.end.Store(int64(start))
}

// raiseStart says that the ring knows nothing up to rev. It is empty.
func (r *ring) raiseStart(rev storage.Revision) {
	if rev > r.view.Load().start {
		r.reset(rev)
	}
}

// add appends an event that publish will show.
func (r *ring) add(e *event, now time.Time) {
	v := r.view.Load()
	var last *chunk
	if n := len(v.chunks); n > 0 {
		last = v.chunks[n-1]
	}
	if last == nil || int(last.n.Load()) == r.width {
		last = &chunk{events: make([]*event, r.width)}
		chunks := make([]*chunk, len(v.chunks), len(v.chunks)+1)
		copy(chunks, v.chunks)
		r.view.Store(&ringView{start: v.start, chunks: append(chunks, last)})
	}
	n := last.n.Load()
	last.events[n] = e
	last.n.Store(n + 1)
	last.newest = now
	size := e.bytes()
	last.bytes += size
	r.bytes.Add(int64(size))
}

// publish shows everything up to rev.
func (r *ring) publish(rev storage.Revision) { r.end.Store(int64(rev)) }

// trim drops the oldest events beyond the limit of bytes or of age.
func (r *ring) trim(limit int, now time.Time) {
	v := r.view.Load()
	drop, bytes, start := 0, int(r.bytes.Load()), v.start
	for drop < len(v.chunks) {
		c := v.chunks[drop]
		last := drop == len(v.chunks)-1
		if (bytes <= limit || last) && now.Sub(c.newest) <= ringAge {
			break
		}
		bytes -= c.bytes
		start = c.events[c.n.Load()-1].rev
		drop++
	}
	if drop == 0 {
		return
	}
	r.bytes.Store(int64(bytes))
	r.view.Store(&ringView{start: start, chunks: append([]*chunk(nil), v.chunks[drop:]...)})
}

// prepend puts older events, which reach up to the ring's start, before it.
func (r *ring) prepend(start storage.Revision, events []*event, now time.Time) {
	v := r.view.Load()
	next := &ringView{start: start}
	var c *chunk
	for _, e := range events {
		if e.rev > v.start {
			break
		}
		if c == nil || int(c.n.Load()) == r.width {
			c = &chunk{newest: now, events: make([]*event, r.width)}
			next.chunks = append(next.chunks, c)
		}
		c.events[c.n.Load()] = e
		c.n.Add(1)
		c.bytes += e.bytes()
		r.bytes.Add(int64(e.bytes()))
	}
	next.chunks = append(next.chunks, v.chunks...)
	r.view.Store(next)
}

// read appends to out, which is empty, visible events after pos: all, or with
// more true the first ones until there are most or they have limit bytes, and
// never a part of a revision. behind says that the ring does not reach back to
// pos; then there are none.
func (r *ring) read(out []*event, pos storage.Revision, most, limit int) (found []*event, more, behind bool) {
	end := storage.Revision(r.end.Load())
	v := r.view.Load()
	if pos < v.start {
		return out, false, true
	}
	first := sort.Search(len(v.chunks), func(i int) bool {
		c := v.chunks[i]
		n := c.n.Load()
		return n > 0 && c.events[n-1].rev > pos
	})
	size := 0
	for _, c := range v.chunks[first:] {
		for i, n := 0, int(c.n.Load()); i < n; i++ {
			e := c.events[i]
			switch {
			case e.rev <= pos:
				continue
			case e.rev > end:
				return out, false, false
			case (len(out) >= most || size >= limit) && e.rev != out[len(out)-1].rev:
				return out, true, false
			}
			out = append(out, e)
			size += e.bytes()
		}
	}
	return out, false, false
}

// find returns the event of a key at a revision, if the ring has it.
func (r *ring) find(key string, rev storage.Revision) *event {
	events, _, _ := r.read(nil, rev-1, 1, 1)
	for _, e := range events {
		if e.rev == rev && e.key == key {
			return e
		}
	}
	return nil
}

func (r *ring) len() int {
	n := 0
	for _, c := range r.view.Load().chunks {
		n += int(c.n.Load())
	}
	return n
}
