package metrics_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"coracle/pkg/metrics"
)

// TestHandles: whoever asks for a key gets the same value, made once.
func TestHandles(t *testing.T) {
	var h metrics.Handles[int, int]
	var made [8]atomic.Int32
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for key := range len(made) {
				if v := h.Get(key, func(k int) *int { made[k].Add(1); return new(k * k) }); *v != key*key {
					t.Errorf("Get(%d) is %d", key, *v)
				}
			}
		})
	}
	wg.Wait()
	for key := range made {
		if n := made[key].Load(); n != 1 {
			t.Errorf("the value of %d was made %d times", key, n)
		}
	}
	if n := testing.AllocsPerRun(100, func() { h.Get(3, nil) }); n != 0 {
		t.Errorf("finding a value allocates %v times", n)
	}
}
