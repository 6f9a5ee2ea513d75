package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/reconcile"
)

// start runs a loop inside a synctest bubble and ends it with the test.
func start(t *testing.T, l *reconcile.Loop) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	synctest.Wait()
}

// calls records the times of a loop's reconciles.
type calls struct {
	mu sync.Mutex
	at []time.Duration // guarded by mu
}

func (c *calls) note(since time.Time) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = append(c.at, time.Since(since))
	return len(c.at)
}

func (c *calls) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.at)
}

func TestLoopResults(t *testing.T) {
	boom := errors.New("boom")
	for _, tc := range []struct {
		name string
		fn   func(n int) (reconcile.Result, error)
		want int // calls within one minute
	}{
		{"done once", func(int) (reconcile.Result, error) { return reconcile.Result{}, nil }, 1},
		{"requeued until done", func(n int) (reconcile.Result, error) {
			if n < 4 {
				return reconcile.Result{RequeueAfter: 10 * time.Second}, nil
			}
			return reconcile.Result{}, nil
		}, 4},
		{"retried until it works", func(n int) (reconcile.Result, error) {
			if n < 6 {
				return reconcile.Result{}, boom
			}
			return reconcile.Result{}, nil
		}, 6},
		{"terminal is not retried", func(int) (reconcile.Result, error) {
			return reconcile.Result{}, reconcile.Terminal(boom)
		}, 1},
		{"panic is retried", func(n int) (reconcile.Result, error) {
			if n == 1 {
				panic("boom")
			}
			return reconcile.Result{}, nil
		}, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var c calls
				begin := time.Now()
				l := reconcile.New(reconcile.Config{Name: "test", Reconcile: func(context.Context, *reconcile.Request) (reconcile.Result, error) {
					return tc.fn(c.note(begin))
				}})
				start(t, l)
				l.Add(reconcile.Key{Name: "a"})
				time.Sleep(time.Minute)
				synctest.Wait()
				if got := c.count(); got != tc.want {
					t.Errorf("reconciled %d times at %v, want %d", got, c.at, tc.want)
				}
			})
		})
	}
}

func TestLoopBackOffGrowsAndIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c calls
		begin := time.Now()
		l := reconcile.New(reconcile.Config{
			Name: "test", BaseDelay: time.Second, MaxDelay: 8 * time.Second,
			Reconcile: func(context.Context, *reconcile.Request) (reconcile.Result, error) {
				c.note(begin)
				return reconcile.Result{}, errors.New("boom")
			},
		})
		start(t, l)
		l.Add(reconcile.Key{Name: "a"})
		time.Sleep(40 * time.Second)
		synctest.Wait()
		want := []time.Duration{0, 1, 3, 7, 15, 23, 31, 39}
		if len(c.at) != len(want) {
			t.Fatalf("reconciled at %v, want seconds %v", c.at, want)
		}
		for i, w := range want {
			if c.at[i].Round(time.Second) != w*time.Second {
				t.Errorf("call %d at %v, want %v", i, c.at[i], w*time.Second)
			}
		}
	})
}

func TestLoopOneWorkerPerKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		running := map[reconcile.Key]int{}
		total := 0
		l := reconcile.New(reconcile.Config{Name: "test", Workers: 8, Reconcile: func(_ context.Context, req *reconcile.Request) (reconcile.Result, error) {
			mu.Lock()
			running[req.Key]++
			if running[req.Key] > 1 {
				t.Errorf("key %s reconciled twice at once", req.Key)
			}
			total++
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			running[req.Key]--
			mu.Unlock()
			return reconcile.Result{}, nil
		}})
		start(t, l)
		for range 5 {
			l.Add(reconcile.Key{Name: "a"})
			l.Add(reconcile.Key{Name: "b"})
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(10 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		if total != 4 {
			t.Errorf("reconciled %d times, want 2 per key: now and once for all adds meanwhile", total)
		}
	})
}

// slowInformer is an informer whose cache the test moves by hand.
type slowInformer struct {
	cache.SharedIndexInformer
	store cache.Store
}

func newSlowInformer() *slowInformer {
	return &slowInformer{store: cache.NewStore(cache.MetaNamespaceKeyFunc)}
}

func (s *slowInformer) GetStore() cache.Store           { return s.store }
func (s *slowInformer) LastSyncResourceVersion() string { return "" }

func object(name, uid, version string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
		Namespace: "ns", Name: name, UID: types.UID(uid), ResourceVersion: version,
	}}
}

func TestReadYourWrites(t *testing.T) {
	key := reconcile.Key{Namespace: "ns", Name: "owner"}
	for _, tc := range []struct {
		name  string
		first func(r *reconcile.Request, inf *slowInformer) // what the first reconcile reports
		show  func(store cache.Store) error                 // the informer catches up
	}{
		{
			"write is awaited by version",
			func(r *reconcile.Request, inf *slowInformer) { r.Wrote(inf, object("a", "1", "100")) },
			func(s cache.Store) error { return s.Add(object("a", "1", "100")) },
		},
		{
			"highest of several writes counts",
			func(r *reconcile.Request, inf *slowInformer) {
				r.Wrote(inf, object("a", "1", "100"))
				r.Wrote(inf, object("b", "2", "99"))
			},
			func(s cache.Store) error { return s.Add(object("c", "3", "101")) },
		},
		{
			"delete is awaited by UID",
			func(r *reconcile.Request, inf *slowInformer) { r.Deleted(inf, object("old", "0", "1")) },
			func(s cache.Store) error { return s.Delete(object("old", "0", "50")) },
		},
		{
			"replacement shows the delete",
			func(r *reconcile.Request, inf *slowInformer) { r.Deleted(inf, object("old", "0", "1")) },
			func(s cache.Store) error { return s.Update(object("old", "9", "60")) },
		},
		{
			"deletion mark shows the delete",
			func(r *reconcile.Request, inf *slowInformer) { r.Deleted(inf, object("old", "0", "1")) },
			func(s cache.Store) error {
				o := object("old", "0", "60")
				o.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
				return s.Update(o)
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inf := newSlowInformer()
				if err := inf.store.Add(object("old", "0", "40")); err != nil {
					t.Fatal(err)
				}
				var c calls
				begin := time.Now()
				l := reconcile.New(reconcile.Config{Name: "test", Reconcile: func(_ context.Context, r *reconcile.Request) (reconcile.Result, error) {
					if c.note(begin) == 1 {
						tc.first(r, inf)
					}
					return reconcile.Result{}, nil
				}})
				start(t, l)
				l.Add(key)
				synctest.Wait()
				l.Add(key)
				time.Sleep(30 * time.Second)
				synctest.Wait()
				if got := c.count(); got != 1 {
					t.Fatalf("reconciled %d times before the cache showed the write, want 1", got)
				}
				if err := tc.show(inf.store); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				synctest.Wait()
				if got := c.count(); got != 2 {
					t.Errorf("reconciled %d times after the cache caught up, want 2", got)
				}
			})
		})
	}
}

func TestReadYourWritesDelaysNoOtherKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inf := newSlowInformer()
		if err := inf.store.Add(object("old", "0", "40")); err != nil {
			t.Fatal(err)
		}
		var c calls
		begin := time.Now()
		l := reconcile.New(reconcile.Config{Name: "test", Workers: 1, Reconcile: func(_ context.Context, r *reconcile.Request) (reconcile.Result, error) {
			c.note(begin)
			if r.Name == "a" {
				r.Wrote(inf, object("x", "1", "100"))
			}
			return reconcile.Result{}, nil
		}})
		start(t, l)
		l.Add(reconcile.Key{Name: "a"})
		synctest.Wait()
		l.Add(reconcile.Key{Name: "a"})
		l.Add(reconcile.Key{Name: "b"})
		synctest.Wait()
		if got := c.count(); got != 2 {
			t.Errorf("reconciled %d times, want a once and b once", got)
		}
	})
}

// TestLostAnswerIsClearedUpFirst: after a write whose answer was lost, the key
// is not reconciled before the server has said what came of it, and the cache
// shows that.
func TestLostAnswerIsClearedUpFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inf := newSlowInformer()
		if err := inf.store.Add(object("old", "0", "40")); err != nil {
			t.Fatal(err)
		}
		var c, looks calls
		begin := time.Now()
		l := reconcile.New(reconcile.Config{Name: "test", Reconcile: func(_ context.Context, r *reconcile.Request) (reconcile.Result, error) {
			if c.note(begin) > 1 {
				return reconcile.Result{}, nil
			}
			r.Unsure(func(_ context.Context, r *reconcile.Request) error {
				if looks.note(begin) < 3 {
					return errors.New("the server does not answer")
				}
				r.Wrote(inf, object("made", "1", "100"))
				return nil
			})
			return reconcile.Result{}, errors.New("the answer was lost")
		}})
		start(t, l)
		l.Add(reconcile.Key{Namespace: "ns", Name: "owner"})
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if got, asked := c.count(), looks.count(); got != 1 || asked != 3 {
			t.Fatalf("reconciled %d times with %d looks before the cache showed the write, want 1 and 3", got, asked)
		}
		if err := inf.store.Add(object("made", "1", "100")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got, asked := c.count(), looks.count(); got != 2 || asked != 3 {
			t.Errorf("reconciled %d times with %d looks afterwards, want 2 and 3", got, asked)
		}
	})
}

func TestLost(t *testing.T) {
	gr := schema.GroupResource{Resource: "pods"}
	for _, tc := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{apierrors.NewConflict(gr, "p", nil), false},
		{apierrors.NewForbidden(gr, "p", nil), false},
		{fmt.Errorf("create: %w", apierrors.NewTooManyRequestsError("later")), false},
		{io.ErrUnexpectedEOF, true},
		{context.DeadlineExceeded, true},
		{fmt.Errorf("create: %w", apierrors.NewTimeoutError("too slow", 1)), true},
		{apierrors.NewInternalError(io.EOF), true},
	} {
		if got := reconcile.Lost(tc.err); got != tc.want {
			t.Errorf("Lost(%v) is %v, want %v", tc.err, got, tc.want)
		}
	}
}
