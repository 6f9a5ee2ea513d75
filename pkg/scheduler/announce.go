package scheduler

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"

	"coracle/pkg/reconcile"
	"coracle/pkg/scheduler/plugin"
)

// An Event costs about as much as a binding. So that a burst of pods is not
// placed at half the speed, the news that they were placed waits, as a record of
// 56 bytes, until there is less to bind; it bears the time of the binding.
const (
	// maxAnnounced bounds the news that wait; the oldest is dropped for one more.
	maxAnnounced = 1 << 16
	// announceWorkers is how many are written at a time.
	announceWorkers = 4
	// announcePause is how long a worker waits after each while many bindings are
	// under way, so that news go out even then.
	announcePause = 100 * time.Millisecond
)

// announcement says that a pod was placed.
type announcement struct {
	pod  *plugin.Pod
	node string
	at   time.Time
}

// announcer writes announcements as Events when there is time.
type announcer struct {
	write   func(context.Context, announcement)
	busy    func() bool // says that there are many bindings under way
	clock   clock.WithTicker
	dropped prometheus.Counter

	mu    sync.Mutex
	waits []announcement // oldest first, from next on; guarded by mu, like next
	next  int
	wake  chan struct{} // has room for one for each worker
}

func newAnnouncer(c clock.WithTicker, busy func() bool, write func(context.Context, announcement)) *announcer {
	return &announcer{
		write: write, busy: busy, clock: c, wake: make(chan struct{}, announceWorkers),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "scheduler_dropped_events_total", Help: "Events about pods that were placed that were not written, for too many waited.",
		}),
	}
}

// put takes an announcement. It never blocks.
func (a *announcer) put(n announcement) {
	a.mu.Lock()
	if len(a.waits)-a.next >= maxAnnounced {
		a.waits[a.next] = announcement{}
		a.next++
		a.dropped.Inc()
	}
	if a.next > len(a.waits)/2 && len(a.waits) == cap(a.waits) {
		a.waits = append(a.waits[:0], a.waits[a.next:]...)
		clear(a.waits[len(a.waits):cap(a.waits)])
		a.next = 0
	}
	a.waits = append(a.waits, n)
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default: // all workers will look
	}
}

// take is the oldest announcement, false when there is none.
func (a *announcer) take() (announcement, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.next == len(a.waits) {
		a.waits, a.next = nil, 0
		return announcement{}, false
	}
	n := a.waits[a.next]
	a.waits[a.next] = announcement{}
	a.next++
	return n, true
}

// run writes until ctx ends. What waits then is lost: it is news, not state.
func (a *announcer) run(ctx context.Context) error {
	var g errgroup.Group
	for range announceWorkers {
		g.Go(func() error {
			a.work(ctx)
			return nil
		})
	}
	return g.Wait()
}

func (a *announcer) work(ctx context.Context) {
	for ctx.Err() == nil {
		if a.busy() && !a.pause(ctx) {
			return
		}
		if n, ok := a.take(); ok {
			a.write(ctx, n)
			continue
		}
		select {
		case <-a.wake:
		case <-ctx.Done():
		}
	}
}

// pause waits a while; it is false when ctx ended.
func (a *announcer) pause(ctx context.Context) bool {
	timer := a.clock.NewTimer(announcePause)
	defer timer.Stop()
	select {
	case <-timer.C():
		return true
	case <-ctx.Done():
		return false
	}
}

// announce writes that a pod was placed.
func (s *Scheduler) announce(ctx context.Context, n announcement) {
	deed := reconcile.Deed{Type: corev1.EventTypeNormal, Reason: "Scheduled", Action: "Binding"}
	recorder := s.events[n.pod.Shape.Scheduler]
	err := recorder.Write(ctx, reference(n.pod), deed, n.at, "Successfully assigned "+n.pod.Key()+" to "+n.node)
	if err != nil && ctx.Err() == nil {
		s.cfg.Log.Debug("event not written", "reason", deed.Reason, "error", err)
	}
}
