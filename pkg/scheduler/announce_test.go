package scheduler

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	dto "github.com/prometheus/client_model/go"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"coracle/pkg/scheduler/plugin"
)

// TestAnnouncements: what was placed in a burst is told afterwards, all of it, in
// order where one worker writes; a little of it before.
func TestAnnouncements(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var busy atomic.Bool
		var told atomic.Int64
		busy.Store(true)
		a := newAnnouncer(clock.RealClock{}, busy.Load, func(context.Context, announcement) { told.Add(1) })
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- a.run(ctx) }()
		const burst = 5000
		for range burst {
			a.put(announcement{pod: &plugin.Pod{}})
		}
		time.Sleep(10*announcePause + announcePause/2) // virtual
		if n := told.Load(); n < 1 || n > 11*announceWorkers {
			t.Errorf("%d were told while bindings were under way", n)
		}
		busy.Store(false)
		time.Sleep(2 * announcePause)
		if n := told.Load(); n != burst {
			t.Errorf("%d of %d were told in the end", n, burst)
		}
		a.put(announcement{pod: &plugin.Pod{}})
		synctest.Wait()
		if n := told.Load(); n != burst+1 {
			t.Errorf("one more was told %d times", n-burst)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestAnnouncementsAreBounded: the oldest go, and are counted.
func TestAnnouncementsAreBounded(t *testing.T) {
	a := newAnnouncer(clock.RealClock{}, func() bool { return false }, nil)
	const over = 1000
	pods := []*plugin.Pod{{UID: "old"}, {UID: "new"}}
	for i := range maxAnnounced + over {
		a.put(announcement{pod: pods[min(1, i/over)]})
		if i%3 == 0 && i < over { // some were told meanwhile
			a.put(announcement{pod: pods[0]})
			a.take()
		}
	}
	var m dto.Metric
	if err := a.dropped.Write(&m); err != nil || m.Counter.GetValue() != over {
		t.Errorf("%v were dropped, want %d (%v)", m.Counter.GetValue(), over, err)
	}
	seen := map[types.UID]int{}
	for n, ok := a.take(); ok; n, ok = a.take() {
		seen[n.pod.UID]++
	}
	if seen["new"] != maxAnnounced || seen["old"] != 0 {
		t.Errorf("%v wait, want the newest %d", seen, maxAnnounced)
	}
	if a.waits != nil {
		t.Error("the room of what waited is kept")
	}
}
