package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
)

// Key names the object that a reconcile is about. Namespace is empty for
// cluster-scoped kinds.
type Key = types.NamespacedName

// Result says when a successful reconcile wants to run again.
type Result struct {
	// RequeueAfter, when positive, runs the key again after this time.
	RequeueAfter time.Duration
}

// Func reconciles one key. See the package comment for what its results mean.
type Func func(ctx context.Context, req *Request) (Result, error)

// Request is one reconcile of one key. It must not outlive the call.
type Request struct {
	Key
	guard *guard
}

// terminalError marks an error that a retry cannot cure.
type terminalError struct{ error }

func (t terminalError) Unwrap() error { return t.error }

// Terminal wraps err so that the key is not retried until an event names it.
func Terminal(err error) error {
	if err == nil {
		return nil
	}
	return terminalError{err}
}

// Config describes a Loop. Name and Reconcile are required.
type Config struct {
	// Name appears in logs.
	Name string
	// Reconcile is called for each key; never twice at once for one key.
	Reconcile Func
	// Workers is how many keys are reconciled at once; default 4.
	Workers int
	// BaseDelay and MaxDelay bound the back-off of a failing key; it doubles
	// from the first to the second. Default 10 ms and 1 min.
	BaseDelay, MaxDelay time.Duration
	// Timeout ends the context of one reconcile; default 1 min.
	Timeout time.Duration
	// Clock is the source of all delays; default the real clock.
	Clock clock.WithTicker
	// Log receives errors; nil discards.
	Log *slog.Logger
}

func (c *Config) setDefaults() {
	if c.Workers <= 0 {
		c.Workers = 4
	}
	if c.BaseDelay <= 0 {
		c.BaseDelay = 10 * time.Millisecond
	}
	if c.MaxDelay <= 0 {
		c.MaxDelay = time.Minute
	}
	if c.Timeout <= 0 {
		c.Timeout = time.Minute
	}
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Log = c.Log.With("controller", c.Name)
}

// Loop runs Config.Reconcile for the keys that events and timers name.
type Loop struct {
	cfg     Config
	queue   workqueue.TypedRateLimitingInterface[Key]
	guard   *guard
	watches []watch // appended before Run only
}

// watch is one event handler that Run removes at its end.
type watch struct {
	informer cache.SharedIndexInformer
	handle   cache.ResourceEventHandlerRegistration
}

// New makes a Loop. Watch its informers before they start, then Run it.
func New(cfg Config) *Loop {
	cfg.setDefaults()
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[Key](cfg.BaseDelay, cfg.MaxDelay)
	return &Loop{
		cfg: cfg,
		queue: workqueue.NewTypedRateLimitingQueueWithConfig(limiter,
			workqueue.TypedRateLimitingQueueConfig[Key]{Clock: cfg.Clock}),
		guard: newGuard(),
	}
}

// Add queues key now. Adding a queued key again changes nothing.
func (l *Loop) Add(key Key) { l.queue.Add(key) }

// AddAfter queues key once d has passed.
func (l *Loop) AddAfter(key Key, d time.Duration) { l.queue.AddAfter(key, d) }

// Run waits until the watched informers have delivered their first list, then
// reconciles until ctx ends. It returns nil on cancellation, when all workers
// have returned. A Loop runs once.
func (l *Loop) Run(ctx context.Context) error {
	var workers sync.WaitGroup
	defer workers.Wait()
	defer l.queue.ShutDown()
	defer func() {
		for _, w := range l.watches {
			// The only error is that the handle belongs to another informer.
			_ = w.informer.RemoveEventHandler(w.handle)
		}
	}()
	synced := make([]cache.DoneChecker, 0, len(l.watches))
	for _, w := range l.watches {
		synced = append(synced, w.handle.HasSyncedChecker())
	}
	if !cache.WaitFor(ctx, "", synced...) {
		return nil
	}
	for range l.cfg.Workers {
		workers.Go(func() {
			for l.next(ctx) {
			}
		})
	}
	<-ctx.Done()
	return nil
}

// next reconciles one key and reports whether the queue is still open.
func (l *Loop) next(ctx context.Context) bool {
	key, shutdown := l.queue.Get()
	if shutdown {
		return false
	}
	defer l.queue.Done(key)
	if ctx.Err() != nil {
		return true
	}
	if err := l.resolve(ctx, key); err != nil {
		l.retry(ctx, key, err)
		return true
	}
	if wait := l.guard.wait(key); wait > 0 {
		// The echo of the write usually queues the key itself; this timer is
		// for writes whose kind no handler maps back to the key.
		l.queue.AddAfter(key, wait)
		return true
	}
	res, err := l.reconcile(ctx, key)
	var terminal terminalError
	switch {
	case err == nil:
		l.queue.Forget(key)
		if res.RequeueAfter > 0 {
			l.queue.AddAfter(key, res.RequeueAfter)
		}
	case ctx.Err() != nil:
	case errors.As(err, &terminal):
		l.queue.Forget(key)
		l.cfg.Log.Error("reconcile failed for good", "key", key.String(), "err", err)
	default:
		l.retry(ctx, key, err)
	}
	return true
}

// retry queues key after its back-off.
func (l *Loop) retry(ctx context.Context, key Key, err error) {
	if ctx.Err() != nil {
		return
	}
	level := slog.LevelWarn
	if Transient(err) {
		level = slog.LevelDebug
	}
	l.cfg.Log.Log(ctx, level, "reconcile failed, will retry", "key", key.String(), "err", err)
	l.queue.AddRateLimited(key)
}

// resolve clears up lost answers within the deadline of a reconcile.
func (l *Loop) resolve(ctx context.Context, key Key) error {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
	defer cancel()
	return l.guard.resolve(ctx, key)
}

// reconcile calls the Func with its deadline and turns a panic into an error.
func (l *Loop) reconcile(ctx context.Context, key Key) (res Result, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("reconcile of %s panicked: %v", key, p)
			l.cfg.Log.Error("reconcile panicked", "key", key.String(), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
	}()
	return l.cfg.Reconcile(ctx, &Request{Key: key, guard: l.guard})
}
