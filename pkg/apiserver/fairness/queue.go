package fairness

import (
	"container/heap"
	"time"
)

// fairQueue orders the requests that wait at one level. Each flow is dealt a
// hand of lines and joins the shortest of them; lines are served by start-time
// fair queuing: a line that was served pays for it in virtual time, which is
// seat-seconds, and the line that paid least is next. It knows neither locks
// nor clocks.
//
// Lines exist while they are needed, since a level may have ten million.
type fairQueue struct {
	lines, hand, limit int // how many there are, are dealt to a flow, and fit in one

	used    map[int]*line
	heads   lineHeap // the used lines with waiters
	virtual float64  // the tag of the line served last
	pushed  uint64   // how many have ever waited
	waiting int
	sweepAt int // used lines at which those without meaning are dropped
}

// line is one queue. tag is the virtual time at which its first waiter is due.
type line struct {
	tag         float64
	first, last *waiter
	length      int
	work        float64 // of all waiters, in seat-seconds
	running     int     // served and not finished
	seats       int     // of those
	at          int     // in heads, -1 when there are no waiters
}

// waiter is one request in a line.
type waiter struct {
	line       *line
	prev, next *waiter
	order      uint64 // of arrival
	seats      int
	cost       float64       // estimated, in seat-seconds
	granted    chan struct{} // closed as the seats are its own
	taken      bool          // out of the line, served or not; guarded as the queue is

	// For who looks at the queue: what waits, of whom, since when, and how long
	// its seats stay taken after it was served.
	flow          *Flow
	distinguisher string
	came          time.Time
	after         time.Duration
}

func newFairQueue(lines, hand, limit int) *fairQueue {
	return &fairQueue{lines: max(lines, 1), hand: max(min(hand, lines), 1), limit: max(limit, 1), used: map[int]*line{}, sweepAt: 64}
}

// resize changes the numbers for those that come.
func (q *fairQueue) resize(lines, hand, limit int) {
	q.lines, q.hand, q.limit = max(lines, 1), max(min(hand, lines), 1), max(limit, 1)
}

// maxHand is the largest hand that validation lets pass: 60 bits of a hash are
// dealt from, of which a hand of n takes at least n.
const maxHand = 60

// deal takes a hand of distinct lines out of a flow's hash: all hands are
// equally likely. The result is in hand.
func deal(hash uint64, lines, size int, hand []int) []int {
	hand = hand[:0]
	for i := range size {
		left := uint64(lines - i)
		card := int(hash % left)
		hash /= left
		// The cards dealt are no longer in the deck: count past them, in
		// ascending order.
		at := 0
		for at < len(hand) && hand[at] <= card {
			card++
			at++
		}
		hand = append(hand, 0)
		copy(hand[at+1:], hand[at:])
		hand[at] = card
	}
	return hand
}

// push lets a request wait; false means that the line is full.
func (q *fairQueue) push(hash uint64, w *waiter) bool {
	l := q.choose(hash)
	if l.length >= q.limit {
		return false
	}
	w.line, w.prev, w.order = l, l.last, q.pushed
	q.pushed++
	if l.last != nil {
		l.last.next = w
	} else {
		l.first = w
	}
	l.last = w
	l.length++
	l.work += w.cost
	q.waiting++
	if l.at < 0 {
		l.tag = max(l.tag, q.virtual) // who did not wait has saved nothing up
		heap.Push(&q.heads, l)
	}
	return true
}

// choose is the line of a flow's hand with the least work, the first of them in
// turns.
func (q *fairQueue) choose(hash uint64) *line {
	var room [maxHand]int
	hand := deal(hash, q.lines, min(q.hand, maxHand), room[:0])
	best, least := -1, 0.0
	for i := range hand {
		index := hand[(i+int(q.pushed%uint64(len(hand))))%len(hand)]
		work := 0.0
		if l := q.used[index]; l != nil {
			work = l.work
		}
		if best < 0 || work < least {
			best, least = index, work
		}
	}
	l := q.used[best]
	if l == nil {
		q.sweep()
		l = &line{at: -1}
		q.used[best] = l
	}
	return l
}

// sweep drops the lines that are as good as new.
func (q *fairQueue) sweep() {
	if len(q.used) < q.sweepAt {
		return
	}
	for i, l := range q.used {
		if l.length == 0 && l.running == 0 && l.tag <= q.virtual {
			delete(q.used, i)
		}
	}
	q.sweepAt = max(64, 2*len(q.used))
}

// next is who is served next, nil when nobody waits.
func (q *fairQueue) next() *waiter {
	if len(q.heads) == 0 {
		return nil
	}
	return q.heads[0].first
}

// serve takes the next one out of its line, which pays.
func (q *fairQueue) serve() {
	l := q.heads[0]
	w := l.first
	q.virtual = max(q.virtual, l.tag)
	l.running++
	l.seats += w.seats
	l.tag += w.cost
	q.drop(w)
}

// drop takes a request out of its line.
func (q *fairQueue) drop(w *waiter) {
	l := w.line
	w.taken = true
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		l.first = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		l.last = w.prev
	}
	w.prev, w.next = nil, nil
	l.length--
	l.work -= w.cost
	q.waiting--
	if l.length > 0 {
		heap.Fix(&q.heads, l.at)
		return
	}
	l.work = 0
	heap.Remove(&q.heads, l.at)
	if q.waiting == 0 {
		q.rest()
	}
}

// rest forgets what lines have paid: nobody waits, so nobody is owed anything.
func (q *fairQueue) rest() {
	clear(q.used)
	q.virtual, q.sweepAt = 0, 64
}

// finish corrects what a line paid for a request as its true cost is known.
func (q *fairQueue) finish(l *line, seats int, estimated, actual float64) {
	l.running--
	l.seats -= seats
	l.tag += actual - estimated
	if l.at >= 0 {
		heap.Fix(&q.heads, l.at)
	}
}

// lineHeap has the line with the least tag first; among equals the one whose
// first waiter came first.
type lineHeap []*line

func (h lineHeap) Len() int { return len(h) }

func (h lineHeap) Less(i, j int) bool {
	if h[i].tag != h[j].tag {
		return h[i].tag < h[j].tag
	}
	return h[i].first != nil && h[j].first != nil && h[i].first.order < h[j].first.order
}

func (h lineHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

func (h *lineHeap) Push(x any) {
	l := x.(*line)
	l.at = len(*h)
	*h = append(*h, l)
}

func (h *lineHeap) Pop() any {
	old := *h
	l := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	l.at = -1
	return l
}
