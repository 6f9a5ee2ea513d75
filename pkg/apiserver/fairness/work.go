package fairness

import (
	"math"
	"time"
)

// Work is what a request costs. Seats are taken for as long as it is served,
// and for After more, while the watchers are told of what it wrote.
type Work struct {
	Seats int
	After time.Duration
}

const (
	// objectsPerSeat is how much of a list one seat is for.
	objectsPerSeat = 100
	// watchersPerSeat is for how many watchers of an object a write pays one seat,
	// for perWatchers. They share the bytes of an event, so that telling one costs
	// some 5 us: a tenth of what kube-apiserver reckons with.
	watchersPerSeat = 100
	perWatchers     = 5 * time.Millisecond
	// maxSeats bounds what one request takes.
	maxSeats = 10
	// serviceTime is how long a request is thought to take before that is known.
	serviceTime = 3 * time.Millisecond
)

// listWork is the cost of going through so many objects.
func listWork(objects, most int) Work {
	return Work{Seats: min(max(1, (objects+objectsPerSeat-1)/objectsPerSeat), max(1, most))}
}

// writeWork is the cost of a write of which so many watchers are told. A cost
// of more seats than one request takes is spread over more time.
func writeWork(watchers, most int) Work {
	if watchers < watchersPerSeat {
		return Work{Seats: 1}
	}
	seats := (watchers + watchersPerSeat - 1) / watchersPerSeat
	wide := min(seats, max(1, most))
	return Work{Seats: wide, After: time.Duration(float64(perWatchers) * float64(seats) / float64(wide))}
}

// widest bounds the seats of one request of a level, so that a level with few
// is not filled by one. queues is false for levels without any.
func widest(nominal, hand int, queues bool) int {
	if !queues || hand == 0 {
		return maxSeats
	}
	return min(maxSeats, max(1, min(int(math.Ceil(0.15*float64(nominal))), nominal/hand)))
}

// cost is the estimated work in seat-seconds.
func (w Work) cost() float64 { return float64(w.Seats) * (serviceTime + w.After).Seconds() }

// retryAfter is when clients whom a level refuses are to come again: later the
// more of them there are. The zero value is a level that refused nobody.
type retryAfter struct {
	seconds int64 // what is told; 0 stands for 1
	raised  int64 // second of the last rise
	second  int64 // the one counted in recent's last element
	recent  [maxRetryAfter + 1]int64
}

// maxRetryAfter is the longest time told, in seconds.
const maxRetryAfter = 32

// refused counts a refusal in the second now and returns the seconds to tell.
func (r *retryAfter) refused(now int64) int64 {
	r.seconds = max(r.seconds, 1)
	if passed := now - r.second; passed > 0 {
		r.turn(passed)
		r.second = now
		r.adjust(now)
	}
	r.recent[0]++
	return r.seconds
}

// turn moves the counts of past seconds on.
func (r *retryAfter) turn(passed int64) {
	n := min(passed, int64(len(r.recent)))
	copy(r.recent[n:], r.recent[:int64(len(r.recent))-n])
	clear(r.recent[:n])
}

// adjust doubles the time when there were many refusals within it, and shortens
// it by a second when there were few.
func (r *retryAfter) adjust(now int64) {
	var lately int64
	for _, n := range r.recent[1 : 1+r.seconds] {
		lately += n
	}
	switch {
	case now-r.raised >= r.seconds && lately >= 3*r.seconds:
		r.seconds, r.raised = min(2*r.seconds, maxRetryAfter), now
	case lately < r.seconds && r.seconds > 1:
		r.seconds--
	}
}
