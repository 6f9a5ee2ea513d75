package fairness

import (
	"sync/atomic"
	"time"
)

// flowKey names a flow in metrics.
type flowKey struct{ level, schema string }

// stats are the counts of one flow. They outlive configurations.
type stats struct {
	dispatches                            atomic.Int64 // that did not wait; waited counts the others
	executing, executingSeats             atomic.Int64
	inQueue, inQueueSeats                 atomic.Int64
	queueFull, timeOut, concurrency       atomic.Int64
	cancelled                             atomic.Int64
	waited, gaveUp, executed, queueLength histogram
}

var (
	durationBounds = []float64{0, .005, .02, .05, .1, .2, .5, 1, 2, 5, 10, 15, 30}
	lengthBounds   = []float64{0, 10, 25, 50, 100, 250, 500, 1000}
)

func newStats() *stats {
	s := &stats{}
	for _, h := range []*histogram{&s.waited, &s.gaveUp, &s.executed} {
		h.bounds = durationBounds
	}
	s.queueLength.bounds = lengthBounds
	return s
}

func (s *stats) busy() bool { return s.executing.Load() != 0 || s.inQueue.Load() != 0 }

// dispatched counts a request that was let in at once.
func (s *stats) dispatched(seats int) {
	s.dispatches.Add(1)
	s.began(seats)
}

func (s *stats) began(seats int) {
	s.executing.Add(1)
	s.executingSeats.Add(int64(seats))
}

func (s *stats) ended(seats int, took time.Duration) {
	s.executing.Add(-1)
	s.executingSeats.Add(-int64(seats))
	s.executed.observe(took)
}

func (s *stats) queued(seats, length int) {
	s.inQueue.Add(1)
	s.inQueueSeats.Add(int64(seats))
	s.queueLength.add(float64(length))
}

func (s *stats) unqueued(seats int) {
	s.inQueue.Add(-1)
	s.inQueueSeats.Add(-int64(seats))
}

func (s *stats) refused(reason string) {
	switch reason {
	case reasonQueueFull:
		s.queueFull.Add(1)
	case reasonTimeOut:
		s.timeOut.Add(1)
	case reasonCancelled:
		s.cancelled.Add(1)
	default:
		s.concurrency.Add(1)
	}
}

// histogram counts values below bounds. Most values are small, so that they are
// looked for from below; that is cheaper than a general one.
type histogram struct {
	bounds []float64 // read-only
	counts [maxBuckets]atomic.Uint64
	sum    atomic.Int64 // in billionths
}

const maxBuckets = 14

func (h *histogram) observe(d time.Duration) { h.add(d.Seconds()) }

func (h *histogram) add(v float64) {
	i := 0
	for i < len(h.bounds) && v > h.bounds[i] {
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(int64(v * 1e9))
}

// read returns what Prometheus wants: counts up to each bound.
func (h *histogram) read() (count uint64, sum float64, upTo map[float64]uint64) {
	upTo = make(map[float64]uint64, len(h.bounds))
	for i, b := range h.bounds {
		count += h.counts[i].Load()
		upTo[b] = count
	}
	return count + h.counts[len(h.bounds)].Load(), float64(h.sum.Load()) / 1e9, upTo
}
