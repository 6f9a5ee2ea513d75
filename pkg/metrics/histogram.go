package metrics

import (
	"math"
	"sync/atomic"
)

// Histogram counts values between bounds, for any number of goroutines. It has
// neither labels nor a description: who shows it makes them then, so that
// thousands of series cost little more than their counts.
type Histogram struct {
	bounds []float64 // ascending; shared, never changed
	counts []atomic.Uint64
	sum    atomic.Uint64 // the bits of a float64
}

// NewHistogram counts values up to each of the bounds, which are ascending, and
// above the last. bounds must not be changed.
func NewHistogram(bounds []float64) *Histogram {
	return &Histogram{bounds: bounds, counts: make([]atomic.Uint64, len(bounds)+1)}
}

// Observe counts a value. Most values are small, so that its place is looked
// for from below.
func (h *Histogram) Observe(v float64) {
	i := 0
	for i < len(h.bounds) && v > h.bounds[i] {
		i++
	}
	h.counts[i].Add(1)
	for {
		old := h.sum.Load()
		if h.sum.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+v)) {
			return
		}
	}
}

// Count is how many values were counted.
func (h *Histogram) Count() (n uint64) {
	for i := range h.counts {
		n += h.counts[i].Load()
	}
	return n
}

// Read returns what Prometheus wants: how many values there were, their sum, and
// how many were at most as large as each bound. Bounds before the first given are
// left out.
func (h *Histogram) Read(first int) (count uint64, sum float64, upTo map[float64]uint64) {
	upTo = make(map[float64]uint64, len(h.bounds))
	for i, b := range h.bounds {
		count += h.counts[i].Load()
		if i >= first {
			upTo[b] = count
		}
	}
	return count + h.counts[len(h.bounds)].Load(), math.Float64frombits(h.sum.Load()), upTo
}
