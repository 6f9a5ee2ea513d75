package apiserver_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"coracle/pkg/controlplane"
	"coracle/pkg/storage"
	"coracle/pkg/testcluster"
)

// valve is a backend whose feed can be stopped, while its other calls go on,
// and whose writes can be made to end in the dark.
type valve struct {
	storage.Backend
	mu     sync.Mutex
	closed chan struct{} // guarded by mu; nil while the feed runs, else closed when it goes on
	dark   int           // guarded by mu; writes that reach the store and report nothing
	puts   int           // guarded by mu
}

// stop holds all events back until the function returned is called.
func (v *valve) stop() (resume func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	c := make(chan struct{})
	v.closed = c
	return sync.OnceFunc(func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.closed = nil
		close(c)
	})
}

// passed waits until the feed runs.
func (v *valve) passed(ctx context.Context) error {
	v.mu.Lock()
	c := v.closed
	v.mu.Unlock()
	if c == nil {
		return nil
	}
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Put implements storage.Backend.
func (v *valve) Put(ctx context.Context, key string, value []byte, expect storage.Revision, ttl time.Duration) (storage.Revision, error) {
	v.mu.Lock()
	v.puts++
	dark := v.dark > 0
	if dark {
		v.dark--
	}
	v.mu.Unlock()
	rev, err := v.Backend.Put(ctx, key, value, expect, ttl)
	if dark {
		return 0, &storage.OutcomeUnknownError{Err: context.DeadlineExceeded}
	}
	return rev, err
}

// Watch implements storage.Backend.
func (v *valve) Watch(ctx context.Context, prefix string, opts storage.WatchOptions) (storage.Watch, error) {
	w, err := v.Backend.Watch(ctx, prefix, opts)
	if err != nil {
		return nil, err
	}
	return &valveWatch{Watch: w, valve: v}, nil
}

type valveWatch struct {
	storage.Watch
	valve *valve
	held  *storage.Batch // taken from the store and not yet delivered
}

// Next implements storage.Watch.
func (w *valveWatch) Next(ctx context.Context) (storage.Batch, error) {
	if w.held == nil {
		b, err := w.Watch.Next(ctx)
		if err != nil {
			return b, err
		}
		w.held = &b
	}
	if err := w.valve.passed(ctx); err != nil {
		return storage.Batch{}, err
	}
	b := *w.held
	w.held = nil
	return b, nil
}

// soleWriter says whether others write to a server's backend.
func soleWriter(sole bool) testcluster.Option {
	return testcluster.WithConfig(func(c *controlplane.Config) { c.SoleWriter = sole })
}

// onReplica runs a test against two servers on one backend; the feed of the
// second can be stopped.
func onReplica(t *testing.T, test func(t *testing.T, a, replica *server, feed *valve)) {
	pair := func(t *testing.T, backend storage.Backend) {
		feed := &valve{Backend: backend}
		test(t, newServer(t, testcluster.WithBackend(backend), soleWriter(false)), newServer(t, testcluster.WithBackend(feed), soleWriter(false)), feed)
	}
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		pair(t, newMemory(t))
	})
	t.Run("etcd", func(t *testing.T) {
		t.Parallel()
		pair(t, startEtcd(t))
	})
}
