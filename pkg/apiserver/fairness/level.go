package fairness

import (
	"context"
	"errors"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
)

// seats is the state of a level in one word, so that a request comes and goes
// with one comparison and swap: how many seats are used (32 bits), how many
// there are (31 bits), and whether somebody waits.
type seats uint64

const waitingBit = 1 << 63

func (s seats) used() int     { return int(uint32(s)) }
func (s seats) limit() int    { return int(uint64(s) >> 32 & (1<<31 - 1)) }
func (s seats) waiting() bool { return uint64(s)&waitingBit != 0 }

func (s seats) withLimit(n int) seats {
	return seats(uint64(s)&(waitingBit|(1<<32-1)) | uint64(min(max(n, 0), 1<<31-1))<<32)
}

// fit says whether n more seats may be taken. A request for more than there
// are is served alone.
func (s seats) fit(n int) bool {
	return s.used()+n <= s.limit() || s.used() == 0 && s.limit() > 0
}

// level is one priority level while it is in use. It outlives the
// configurations that name it.
type level struct {
	name   string
	exempt bool
	start  time.Time // times of the integral are since then

	state atomic.Uint64 // seats
	// widest is what one request may take; nominal, low and high are the bounds.
	widest atomic.Int64
	// peak is the most seats used or wanted since the last look, sum the integral
	// of the seats used, but for what used*now adds: in seat-microseconds.
	peak, sum atomic.Int64

	mu     sync.Mutex
	queue  *fairQueue // guarded by mu; nil where requests are refused
	wanted int        // guarded by mu; seats of all who wait
	after  retryAfter // guarded by mu

	// What follows is the Controller's, guarded by its mu.
	spec    flowcontrolv1.PriorityLevelConfigurationSpec
	bounds  bounds
	demand  demand
	target  float64
	sumThen int64     // the integral at the last look
	then    time.Time // of the last look
}

// take takes n seats, or none.
func (l *level) take(n int) (seats, bool) {
	for {
		s := seats(l.state.Load())
		if !s.fit(n) {
			return s, false
		}
		if l.state.CompareAndSwap(uint64(s), uint64(s)+uint64(n)) {
			return s, true
		}
	}
}

// enterAtOnce takes seats when nobody waits. An exempt level has no end.
func (l *level) enterAtOnce(n int, now time.Time) bool {
	if l.exempt {
		l.entered(seats(l.state.Add(uint64(n))).used(), n, now)
		return true
	}
	for {
		s := seats(l.state.Load())
		if s.waiting() || !s.fit(n) {
			return false
		}
		if l.state.CompareAndSwap(uint64(s), uint64(s)+uint64(n)) {
			l.entered(s.used()+n, n, now)
			return true
		}
	}
}

func (l *level) entered(used, n int, now time.Time) {
	l.sum.Add(-int64(n) * now.Sub(l.start).Microseconds())
	l.saw(used)
}

// saw notes a demand.
func (l *level) saw(demand int) {
	for {
		peak := l.peak.Load()
		if int64(demand) <= peak || l.peak.CompareAndSwap(peak, int64(demand)) {
			return
		}
	}
}

// leave gives seats back, to those who wait if there are any.
func (l *level) leave(n int, now time.Time) {
	l.sum.Add(int64(n) * now.Sub(l.start).Microseconds())
	if seats(l.state.Add(-uint64(n))).waiting() {
		l.mu.Lock()
		l.dispatch()
		l.mu.Unlock()
	}
}

// setLimit says how many seats there are from now on.
func (l *level) setLimit(n int) {
	for {
		s := seats(l.state.Load())
		if l.state.CompareAndSwap(uint64(s), uint64(s.withLimit(n))) {
			break
		}
	}
	l.mu.Lock()
	l.dispatch()
	l.mu.Unlock()
}

// configure sets how requests wait. Those that wait already stay where they
// are, unless there is no queue any more: then they are let in as seats become
// free, and nobody joins them.
func (l *level) configure(spec *flowcontrolv1.PriorityLevelConfigurationSpec) {
	var q *flowcontrolv1.QueuingConfiguration
	if spec.Limited != nil {
		q = spec.Limited.LimitResponse.Queuing
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case q == nil && l.queue != nil && l.queue.waiting > 0:
		l.queue.limit = 0
	case q == nil:
		l.queue = nil
	case l.queue == nil:
		l.queue = newFairQueue(int(q.Queues), int(q.HandSize), int(q.QueueLengthLimit))
	default:
		l.queue.resize(int(q.Queues), int(q.HandSize), int(q.QueueLengthLimit))
	}
}

// dispatch lets in whom there are seats for, in the order of the queue: one
// that needs more seats than are free is not overtaken. l.mu is held.
func (l *level) dispatch() {
	if l.queue == nil {
		return
	}
	for w := l.queue.next(); w != nil; w = l.queue.next() {
		if _, ok := l.take(w.seats); !ok {
			return
		}
		l.queue.serve()
		l.wanted -= w.seats
		close(w.granted)
	}
	l.state.And(^uint64(waitingBit))
}

// Reasons of refusals, as metrics name them.
const (
	reasonQueueFull   = "queue-full"
	reasonTimeOut     = "time-out"
	reasonConcurrency = "concurrency-limit"
	reasonCancelled   = "cancelled"
)

// wait queues a request until it has its seats, limit has passed or ctx ends.
// The reason is empty when it has them.
func (l *level) wait(ctx context.Context, w *waiter, hash uint64, limit time.Duration) (_ *waiter, reason string) {
	if reason := l.join(w.flow, hash, w); reason != "" {
		return nil, reason
	}
	defer w.flow.stats.unqueued(w.seats)
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-w.granted:
		return w, ""
	case <-timer.C:
		reason = reasonTimeOut
	case <-ctx.Done():
		if reason = reasonTimeOut; errors.Is(ctx.Err(), context.Canceled) {
			reason = reasonCancelled // the client has gone
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if w.taken {
		return w, "" // the seats came at the last moment
	}
	l.queue.drop(w)
	l.wanted -= w.seats
	l.dispatch() // who is next may need less
	return nil, reason
}

func (l *level) join(f *Flow, hash uint64, w *waiter) (reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.queue == nil {
		// Without a queue nobody waits, so that only the seats count.
		if _, ok := l.take(w.seats); !ok {
			return reasonConcurrency
		}
		w.taken = true
		close(w.granted)
		f.stats.queued(w.seats, 0)
		return ""
	}
	// From now on leavers come here, so that none is missed.
	l.state.Or(waitingBit)
	if !l.queue.push(hash, w) {
		l.dispatch()
		return reasonQueueFull
	}
	f.stats.queued(w.seats, w.line.length)
	l.wanted += w.seats
	l.saw(seats(l.state.Load()).used() + l.wanted)
	l.dispatch()
	return ""
}

// waiter is a request of the flow before it waits.
func (f *Flow) waiter(user, namespace string, work Work, now time.Time) *waiter {
	w := &waiter{seats: work.Seats, cost: work.cost(), granted: make(chan struct{}), flow: f, came: now, after: work.After}
	switch f.distinguisher {
	case flowcontrolv1.FlowDistinguisherMethodByUserType:
		w.distinguisher = user
	case flowcontrolv1.FlowDistinguisherMethodByNamespaceType:
		w.distinguisher = namespace
	}
	return w
}

// hash finds a flow's hand of lines; seed is the process's own, so that nobody
// can choose to share the lines of another.
func (f *Flow) hash(seed maphash.Seed, user, namespace string) uint64 {
	h := maphash.String(seed, f.Schema)
	switch f.distinguisher {
	case flowcontrolv1.FlowDistinguisherMethodByUserType:
		h ^= maphash.String(seed, user) * 3
	case flowcontrolv1.FlowDistinguisherMethodByNamespaceType:
		h ^= maphash.String(seed, namespace) * 5
	}
	return h
}
