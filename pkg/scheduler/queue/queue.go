// Package queue orders the pods that wait for a node and says which to try
// next.
//
// Contract: the queue is pure: time and events are passed in, and it is not
// safe for concurrent use. Pods go by priority, then age. A pod that was
// refused waits for an event that one of the plugins that refused it says may
// help, then for its back-off; the back-off is cut short when nothing else is
// to be tried. Pods of one class are refused alike, so they wait together and
// an event wakes one of them: when it finds a place the next one is woken, and
// when it does not, the others would not either. So an event costs by the
// number of classes that wait, not by that of pods. A pod that nothing woke for
// FlushAfter is tried all the same.
package queue

import (
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// FlushAfter is how long a refused pod waits when no event wakes it.
const FlushAfter = 5 * time.Minute

// Item is a pod that waits, as P.
type Item[P any] struct {
	UID      types.UID
	Priority int32
	// Class is comparable; pods of one class and priority are refused alike.
	// When it changes, the pod is tried again.
	Class any
	// Gated pods are kept but never tried.
	Gated bool
	Pod   P
}

// Config is the queue's. All fields are required.
type Config[P, E any] struct {
	// InitialBackoff doubles with each failed attempt up to MaxBackoff.
	InitialBackoff, MaxBackoff time.Duration
	// MayHelp says that an event may help a pod that the plugin refused.
	MayHelp func(plugin string, pod P, event *E) bool
	// Concerns says that a plugin could be helped by such an event at all,
	// whatever the pod; it is asked first and often.
	Concerns func(plugin string, event *E) bool
}

// Entry is a pod in the queue. Its fields are the queue's; between Pop and
// Fail, Done or Remove its Item is the caller's to read.
type Entry[P any] struct {
	Item[P]
	// Added is when the pod was first seen, Ready when it was first to be tried
	// (zero while it is gated), Attempts how often it was popped.
	Added, Ready time.Time
	Attempts     int

	seq   uint64 // ties of Added
	ready time.Time
	since time.Time // when it began to wait, for the flush
	state state
	index int // in the heap of its state
	// bucket is where it waits, or that it was woken from as its probe.
	bucket     *bucket[P]
	prev, next *Entry[P] // in the list of waiting pods
	began      int       // the events before its attempt
	changed    bool      // its item was replaced by another class during the attempt
}

type state uint8

const (
	active    state = iota // to be tried now
	backoff                // to be tried when ready, or when nothing else is
	penalised              // to be tried when ready, not before: the attempt ended in an error
	waiting                // to be tried when an event may help
	gated                  // not to be tried
	trying                 // taken by Pop
)

// Refusal is why an attempt failed.
type Refusal struct {
	// Plugins are the names of those that refused, sorted; none means that any
	// event may help.
	Plugins []string
	// Alone says that the outcome is the pod's own: it was nominated.
	Alone bool
	// Error says that nothing refused the pod: it is tried again after its
	// back-off.
	Error bool
}

// Queue holds the pods that wait.
type Queue[P, E any] struct {
	cfg     Config[P, E]
	entries map[types.UID]*Entry[P]
	active  indexed[P]
	backoff indexed[P]
	errors  indexed[P] // those penalised
	buckets map[key]*bucket[P]
	groups  map[string]*group[P]
	// oldest and newest are the ends of the list of waiting pods, by since.
	oldest, newest *Entry[P]
	seq            uint64
	attempts       int // under way
	// recent are the events since the eldest attempt under way began, from the
	// one numbered first.
	recent []E
	first  int
}

// New makes an empty queue.
func New[P, E any](cfg Config[P, E]) *Queue[P, E] {
	q := &Queue[P, E]{cfg: cfg, entries: map[types.UID]*Entry[P]{}, buckets: map[key]*bucket[P]{}, groups: map[string]*group[P]{}}
	q.active.less = byImportance[P]
	q.backoff.less = byReady[P]
	q.errors.less = byReady[P]
	return q
}

// Len is how many pods are known.
func (q *Queue[P, E]) Len() int { return len(q.entries) }

// Counts are how many pods are in which state.
type Counts struct {
	// Active are to be tried now, Backoff later, Waiting when something changes,
	// Gated not at all.
	Active, Backoff, Waiting, Gated int
}

// Counts says how many pods wait for what. Those being tried are not counted.
func (q *Queue[P, E]) Counts() Counts {
	c := Counts{Active: q.active.Len(), Backoff: q.backoff.Len() + q.errors.Len()}
	for _, b := range q.buckets {
		c.Waiting += b.members.Len()
	}
	c.Gated = len(q.entries) - q.attempts - c.Active - c.Backoff - c.Waiting
	return c
}

// Get returns a pod's entry, or nil.
func (q *Queue[P, E]) Get(uid types.UID) *Entry[P] { return q.entries[uid] }

// Add puts a pod in, or replaces what is known of it. A pod that waits is
// tried again when its class, its priority or its gates have changed.
func (q *Queue[P, E]) Add(item Item[P], now time.Time) {
	e, known := q.entries[item.UID]
	if !known {
		q.seq++
		e = &Entry[P]{Item: item, Added: now, seq: q.seq}
		q.entries[item.UID] = e
		q.enter(e, now)
		return
	}
	same := e.Class == item.Class && e.Priority == item.Priority && e.Gated == item.Gated
	if same {
		e.Item = item
		return
	}
	if e.state == trying {
		q.leave(e, now) // of its class no more
		e.Item, e.changed = item, true
		return
	}
	q.leave(e, now)
	e.Item = item
	q.enter(e, now)
}

// enter puts an entry where a new or changed pod belongs.
func (q *Queue[P, E]) enter(e *Entry[P], now time.Time) {
	if e.Gated {
		e.state = gated
		return
	}
	if e.Ready.IsZero() {
		e.Ready = now
	}
	q.activate(e, now)
}

// leave takes an entry out of where it is. When it was the probe of its class,
// another takes its place.
func (q *Queue[P, E]) leave(e *Entry[P], now time.Time) {
	q.withdraw(e)
	if b := e.bucket; b != nil {
		e.bucket = nil
		b.probe = nil
		q.probe(b, now)
	}
}

// withdraw takes an entry off the list of those that are to be tried; false
// when it is on none.
func (q *Queue[P, E]) withdraw(e *Entry[P]) bool {
	switch e.state {
	case active:
		q.active.remove(e)
	case backoff:
		q.backoff.remove(e)
	case penalised:
		q.errors.remove(e)
	case waiting:
		q.unlist(e)
		e.bucket.members.remove(e)
		q.tidy(e.bucket)
		e.bucket = nil
	default:
		return false
	}
	return true
}

// Remove forgets a pod that is bound or gone.
func (q *Queue[P, E]) Remove(uid types.UID, now time.Time) {
	e, ok := q.entries[uid]
	if !ok {
		return
	}
	q.leave(e, now)
	delete(q.entries, uid)
	if e.state == trying {
		q.ended()
	}
}

// Pop takes the next pod to try, or returns nil.
func (q *Queue[P, E]) Pop(now time.Time) *Entry[P] {
	q.flush(now)
	for _, h := range []*indexed[P]{&q.backoff, &q.errors} {
		for h.Len() > 0 && !h.list[0].ready.After(now) {
			e := h.pop()
			e.state = active
			q.active.push(e)
		}
	}
	var e *Entry[P]
	switch {
	case q.active.Len() > 0:
		e = q.active.pop()
	case q.backoff.Len() > 0:
		e = q.backoff.pop() // nobody else needs the time
	default:
		return nil
	}
	q.try(e)
	return e
}

// Take takes a certain pod to try now, as Pop would, whatever it waits for;
// nil when it is gated, tried already or not known.
func (q *Queue[P, E]) Take(uid types.UID) *Entry[P] {
	e := q.entries[uid]
	if e == nil {
		return nil
	}
	if !q.withdraw(e) {
		return nil
	}
	q.try(e)
	return e
}

// try begins an attempt of an entry that is nowhere else.
func (q *Queue[P, E]) try(e *Entry[P]) {
	e.state, e.began, e.changed = trying, q.first+len(q.recent), false
	e.Attempts++
	q.attempts++
}

// Before is the order in which pods are tried.
func Before[P any](a, b *Entry[P]) bool { return byImportance(a, b) }

// Next is when Pop may return a pod although nothing happens; zero when never.
func (q *Queue[P, E]) Next() time.Time {
	var next time.Time
	sooner := func(t time.Time) {
		if next.IsZero() || t.Before(next) {
			next = t
		}
	}
	for _, h := range []*indexed[P]{&q.active, &q.backoff, &q.errors} {
		if h.Len() > 0 {
			sooner(h.list[0].ready)
		}
	}
	if q.oldest != nil {
		sooner(q.oldest.since.Add(FlushAfter))
	}
	return next
}

// Done says that a place was found for a popped pod: the next of its class is
// tried. The pod stays until Fail or Remove.
func (q *Queue[P, E]) Done(e *Entry[P], now time.Time) {
	if q.entries[e.UID] != e || e.state != trying {
		return
	}
	if b := q.release(e); b != nil {
		q.probe(b, now)
	} else if b := q.buckets[keyOf(e, false)]; b != nil {
		q.probe(b, now)
	}
}

// Fail gives a popped pod back. It waits for an event, or backs off when one
// that may help came during the attempt.
func (q *Queue[P, E]) Fail(e *Entry[P], r Refusal, now time.Time) {
	if q.entries[e.UID] != e || e.state != trying {
		return // gone or bound meanwhile
	}
	helped := e.changed || q.helpedSince(e, r)
	q.ended()
	e.ready = now.Add(q.backoffOf(e.Attempts))
	switch {
	case e.Gated:
		q.leave(e, now)
		e.state = gated
	case r.Error:
		e.state = penalised
		q.errors.push(e)
	case helped:
		q.activate(e, now)
	default:
		q.wait(e, r, now)
	}
}

// wait lets a refused pod wait with those of its class.
func (q *Queue[P, E]) wait(e *Entry[P], r Refusal, now time.Time) {
	woken := q.release(e)
	k := keyOf(e, r.Alone)
	b := q.buckets[k]
	if b == nil {
		b = newBucket[P](k)
		q.buckets[k] = b
	}
	q.regroup(b, r.Plugins)
	e.state, e.bucket, e.since = waiting, b, now
	b.members.push(e)
	q.list(e)
	if woken != nil && woken != b {
		// It goes its own way, nominated: the others may find as much.
		q.probe(woken, now)
	}
}

// flush tries pods that have waited for long.
func (q *Queue[P, E]) flush(now time.Time) {
	for q.oldest != nil && !q.oldest.since.Add(FlushAfter).After(now) {
		q.wakeAlone(q.oldest, now)
	}
}

// wakeAlone wakes a pod without making it the probe of its class.
func (q *Queue[P, E]) wakeAlone(e *Entry[P], now time.Time) {
	q.leave(e, now)
	q.activate(e, now)
}

// probe wakes the pod of a class that has waited longest since its last
// attempt, unless one is under way.
func (q *Queue[P, E]) probe(b *bucket[P], now time.Time) {
	if b.probe != nil {
		return
	}
	if b.members.Len() == 0 {
		q.tidy(b)
		return
	}
	e := b.members.pop()
	q.unlist(e)
	b.probe = e
	q.activate(e, now)
}

// release ends an entry's part as the probe of a class, which it returns.
func (q *Queue[P, E]) release(e *Entry[P]) *bucket[P] {
	b := e.bucket
	if b == nil {
		return nil
	}
	e.bucket, b.probe = nil, nil
	q.tidy(b)
	return b
}

func (q *Queue[P, E]) activate(e *Entry[P], now time.Time) {
	if e.ready.After(now) {
		e.state = backoff
		q.backoff.push(e)
		return
	}
	e.state = active
	q.active.push(e)
}

func (q *Queue[P, E]) backoffOf(attempts int) time.Duration {
	d := q.cfg.InitialBackoff
	for range attempts - 1 {
		if d >= q.cfg.MaxBackoff/2 {
			return q.cfg.MaxBackoff
		}
		d *= 2
	}
	return min(d, q.cfg.MaxBackoff)
}
