// Package metrics has what keeps metrics cheap: series are resolved once, and
// found again without a lock and without an allocation.
package metrics

import (
	"iter"
	"maps"
	"sync"
	"sync/atomic"
)

// Handles finds what was made for a key, such as the counters of one set of
// labels. The zero value is ready to use, by any number of goroutines. Nothing
// is ever dropped, so keys must be few: names of the server's, never those that
// clients make up.
type Handles[K comparable, V any] struct {
	mu  sync.Mutex               // serializes additions
	all atomic.Pointer[map[K]*V] // replaced, never changed
}

// All are the values made so far, in no order.
func (h *Handles[K, V]) All() iter.Seq[*V] {
	all := h.all.Load()
	if all == nil {
		return func(func(*V) bool) {}
	}
	return maps.Values(*all)
}

// Get returns what make returned for key the first time. make is called once
// for a key, under a lock: it must not call Get.
func (h *Handles[K, V]) Get(key K, make func(K) *V) *V {
	if all := h.all.Load(); all != nil {
		if v, ok := (*all)[key]; ok {
			return v
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	next := map[K]*V{}
	if all := h.all.Load(); all != nil {
		if v, ok := (*all)[key]; ok {
			return v
		}
		maps.Copy(next, *all)
	}
	v := make(key)
	next[key] = v
	h.all.Store(&next)
	return v
}
