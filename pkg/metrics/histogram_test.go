package metrics_test

import (
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"coracle/pkg/metrics"
)

func TestHistogram(t *testing.T) {
	h := metrics.NewHistogram([]float64{1, 2, 5})
	for _, v := range []float64{0, 1, 1.5, 2, 3, 7} {
		h.Observe(v)
	}
	count, sum, upTo := h.Read(0)
	if count != 6 || sum != 14.5 || h.Count() != 6 {
		t.Errorf("%d values with the sum %v", count, sum)
	}
	if diff := cmp.Diff(map[float64]uint64{1: 2, 2: 4, 5: 5}, upTo); diff != "" {
		t.Error(diff)
	}
	if _, _, upTo = h.Read(2); len(upTo) != 1 || upTo[5] != 5 {
		t.Errorf("without the first bounds: %v", upTo)
	}
	if n := testing.AllocsPerRun(100, func() { h.Observe(3) }); n != 0 {
		t.Errorf("counting allocates %v times", n)
	}
}

// TestHistogramAtOnce: nothing is lost between goroutines.
func TestHistogramAtOnce(t *testing.T) {
	h := metrics.NewHistogram([]float64{1})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				h.Observe(0.5)
			}
		})
	}
	wg.Wait()
	if count, sum, _ := h.Read(0); count != 8000 || sum != 4000 {
		t.Errorf("%d values with the sum %v", count, sum)
	}
}
