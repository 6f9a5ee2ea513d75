package cache

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"coracle/pkg/storage"
)

func put(t *testing.T, b storage.Backend, key, value string, expect storage.Revision) storage.Revision {
	t.Helper()
	rev, err := b.Put(bounded(t), key, []byte(value), expect, 0)
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func remove(t *testing.T, b storage.Backend, key string, expect storage.Revision) storage.Revision {
	t.Helper()
	rev, err := b.Delete(bounded(t), key, expect)
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

// TestRepair compacts history that the cache has not seen: it shows the new
// state, and no watcher that has missed something is told anything else than
// that.
func TestRepair(t *testing.T) {
	b := newChaos(newMemory(t), 1)
	c := start(t, b, func(cfg *Config) { cfg.SoleWriter = true })
	at := map[string]storage.Revision{}
	for _, name := range []string{"deleted", "remade", "changed", "same", "twice"} {
		at[name] = c.mustCreate(t, pods+"default/"+name, "in;1").Revision
	}
	seen := c.Revision()
	missing := []*Watcher{
		c.mustWatch(t, pods, WatchOptions{From: seen}),
		c.mustWatch(t, pods+"default/", WatchOptions{From: seen}),
		c.mustWatch(t, pods, WatchOptions{From: seen, Match: labelled("in"), Field: "labels", Value: "in"}),
		c.mustWatch(t, pods, WatchOptions{From: at["changed"]}), // has an event waiting
		c.mustWatch(t, pods, WatchOptions{From: seen + 2}),      // and this one nothing yet
		c.mustWatch(t, nodes, WatchOptions{From: seen}),         // whose kind is as before
	}
	b.freeze()
	remove(t, b, pods+"default/deleted", at["deleted"])
	remove(t, b, pods+"default/remade", at["remade"])
	put(t, b, pods+"default/new", "in;1", 0)
	inGap := put(t, b, pods+"default/remade", "in;2", 0)
	changed := put(t, b, pods+"default/changed", "out;2", at["changed"])
	gone := put(t, b, pods+"default/never", "in;1", 0)
	remove(t, b, pods+"default/never", gone)
	twice := put(t, b, pods+"default/twice", "in;2", at["twice"])
	twice = put(t, b, pods+"default/twice", "in;3", twice)
	if err := b.Compact(bounded(t), changed); err != nil {
		t.Fatal(err)
	}
	ahead := []*Watcher{c.mustWatch(t, pods, WatchOptions{From: changed}), c.mustWatch(t, pods+"default/", WatchOptions{From: changed})}
	b.thaw()

	if err := c.waitApplied(bounded(t), twice, time.Minute); err != nil {
		t.Fatal(err)
	}
	sameState(t, b, c)
	for i, w := range missing {
		if events, err := w.Next(bounded(t)); !isExpired(err) {
			t.Errorf("watcher %d, which missed the gap: %v, %v", i, show(events), err)
		}
	}
	want := replay(t, history(t, b), pods, changed, nil)
	for _, w := range append(ahead, c.mustWatch(t, pods, WatchOptions{From: changed})) {
		if diff := cmp.Diff(want, w.take(t, len(want))); diff != "" {
			t.Errorf("from where the history begins: %s", diff)
		}
	}
	for _, prefix := range []string{pods, nodes} {
		for _, from := range []storage.Revision{seen, inGap - 1} {
			_, err := c.mustWatch(t, prefix, WatchOptions{From: from}).Next(bounded(t))
			if expired, ok := errors.AsType[*ExpiredError](err); !ok || expired.Revision != from {
				t.Errorf("a watch of %s from %d: %v", prefix, from, err)
			}
		}
	}
	after := []*Watcher{c.mustWatch(t, pods, WatchOptions{From: twice}), c.mustWatch(t, pods+"default/", WatchOptions{From: twice})}
	more := c.mustCreate(t, pods+"default/more", "in;1")
	for _, w := range after {
		if got := w.take(t, 1); got[0] != fmt.Sprintf("ADDED more @%d in;1", more.Revision) {
			t.Errorf("a watch from after the gap begins with %q", got)
		}
	}
}

// informer is what client-go does: list, watch, list again when told to. It
// counts what must never happen.
type informer struct {
	cache   *Cache
	objects map[string]string
	relists int
}

func (i *informer) run(ctx context.Context, done func() storage.Revision) error {
	for {
		l, err := i.cache.List(ctx, pods, ListOptions{})
		if err != nil {
			return err
		}
		i.relists++
		i.objects = map[string]string{}
		for _, o := range l.Items {
			i.objects[o.Key] = string(o.Value)
		}
		err = i.watch(ctx, l.Revision, done)
		if _, expired := errors.AsType[*ExpiredError](err); !expired {
			return err
		}
	}
}

func (i *informer) watch(ctx context.Context, from storage.Revision, done func() storage.Revision) error {
	w, err := i.cache.Watch(ctx, pods, WatchOptions{From: from})
	if err != nil {
		return err
	}
	defer w.Close()
	for {
		short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
		events, err := w.Next(short)
		cancel()
		if err != nil && (!errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil) {
			return err
		}
		for _, ev := range events {
			_, known := i.objects[ev.Object.Key]
			if known == (ev.Type == Added) {
				return fmt.Errorf("%s of %s at %d, known before: %t", ev.Type, ev.Object.Key, ev.Revision, known)
			}
			if ev.Type == Deleted {
				delete(i.objects, ev.Object.Key)
			} else {
				i.objects[ev.Object.Key] = string(ev.Object.Value)
			}
		}
		if end := done(); end > 0 && w.Bookmark().Revision >= end {
			return nil
		}
	}
}

// TestCompactionStorm compacts to the head all the time while watches break and
// writers write; every informer ends with exactly the stored state.
func TestCompactionStorm(t *testing.T) {
	b := newChaos(newMemory(t), 5)
	b.answerDelay, b.watchDelay, b.breakOneIn = time.Millisecond, 3*time.Millisecond, 20
	small := func(cfg *Config) { cfg.RingBytes = 10_000 }
	caches := []*Cache{start(t, b, small), start(t, b, nil)}
	ctx, stop := context.WithCancel(bounded(t))
	var compactor, clients sync.WaitGroup
	compactor.Go(func() {
		for ctx.Err() == nil {
			if rev, err := b.Current(ctx); err == nil {
				_ = b.Compact(ctx, rev)
			}
			time.Sleep(2 * time.Millisecond)
		}
	})
	var mu sync.Mutex
	var end storage.Revision
	done := func() storage.Revision {
		mu.Lock()
		defer mu.Unlock()
		return end
	}
	informers := make([]*informer, 6)
	for n := range informers {
		informers[n] = &informer{cache: caches[n%2]}
		clients.Go(func() {
			if err := informers[n].run(bounded(t), done); err != nil {
				t.Errorf("informer %d: %v", n, err)
			}
		})
	}
	storm(t, b, caches, 6, 150)
	now, err := b.Current(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	end = now
	mu.Unlock()
	clients.Wait()
	stop()
	compactor.Wait()
	sameState(t, b, caches...)
	want := map[string]string{}
	for _, o := range caches[0].mustList(t, pods, ListOptions{}).Items {
		want[o.Key] = string(o.Value)
	}
	for n, i := range informers {
		if !maps.Equal(want, i.objects) {
			t.Errorf("informer %d after %d lists: %s", n, i.relists, cmp.Diff(want, i.objects))
		}
	}
}

// TestImpatientWatcher: who gives up waiting for the store's history, any number
// of times, does not use up the patience that the watcher has with the store.
func TestImpatientWatcher(t *testing.T) {
	b := newChaos(newMemory(t), 1)
	c := start(t, b, func(cfg *Config) { cfg.RingBytes = 1000 })
	o := c.mustCreate(t, pods+"default/a", "in;0")
	from := o.Revision
	for i := range 4 * chunkEvents {
		o = c.mustUpdate(t, o, fmt.Sprintf("in;%d", i))
	}
	k := c.table().find(pods)
	<-k.filled
	c.exclusive(func() { k.trim(time.Now()) })
	w, err := c.Watch(bounded(t), pods, WatchOptions{From: from})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range maxFailures + 2 {
		if _, err := w.Next(gone); !errors.Is(err, context.Canceled) {
			t.Fatalf("who has given up is told %v", err)
		}
	}
	breaks := func(oneIn int) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.breakOneIn = oneIn
	}
	breaks(1)
	short, cancel := context.WithTimeout(t.Context(), firstBackoff)
	defer cancel()
	if _, err := w.Next(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("after one failure of the store: %v", err)
	}
	breaks(0)
	if events, err := w.Next(bounded(t)); err != nil || len(events) == 0 {
		t.Fatalf("when the store is well again: %d events, %v", len(events), err)
	}
}

// TestRestart resumes watches on a new cache over the same store.
func TestRestart(t *testing.T) {
	for _, ringBytes := range []int{1 << 20, 1000} {
		t.Run(fmt.Sprint(ringBytes), func(t *testing.T) {
			backends(t, func(t *testing.T, b storage.Backend) {
				first, stop := startStop(t, b, nil)
				var revisions []storage.Revision
				o := first.mustCreate(t, pods+"default/a", "in;0")
				for i := range 100 {
					o = first.mustUpdate(t, o, fmt.Sprintf("in;%d", i))
					revisions = append(revisions, o.Revision)
				}
				first.mustDelete(t, o)
				stop()
				second := start(t, b, func(cfg *Config) { cfg.RingBytes = ringBytes })
				last := second.mustCreate(t, pods+"default/b", "in;new").Revision
				events := history(t, b)
				for _, from := range append([]storage.Revision{1}, revisions...) {
					if from%7 != 1 {
						continue
					}
					want := replay(t, events, pods, from, nil)
					got := second.mustWatch(t, pods, WatchOptions{From: from}).take(t, len(want))
					if diff := cmp.Diff(want, got); diff != "" {
						t.Fatalf("from %d to %d: %s", from, last, diff)
					}
				}
			})
		})
	}
}

// TestRestartAfterCompaction refuses what the new cache cannot know.
func TestRestartAfterCompaction(t *testing.T) {
	b := newMemory(t)
	first, stop := startStop(t, b, nil)
	a := first.mustCreate(t, pods+"default/a", "in;1")
	a2 := first.mustUpdate(t, a, "in;2")
	a3 := first.mustUpdate(t, a2, "in;3")
	if err := b.Compact(bounded(t), a2.Revision); err != nil {
		t.Fatal(err)
	}
	stop()
	c := start(t, b, nil)
	if _, err := c.mustWatch(t, pods, WatchOptions{From: a.Revision - 1}).Next(bounded(t)); !isExpired(err) {
		t.Errorf("a watch from before the compaction: %v", err)
	}
	want := []string{fmt.Sprintf("MODIFIED a @%d in;3", a3.Revision)}
	if diff := cmp.Diff(want, c.mustWatch(t, pods, WatchOptions{From: a2.Revision}).take(t, 1)); diff != "" {
		t.Error(diff)
	}
}

func isExpired(err error) bool {
	_, ok := errors.AsType[*ExpiredError](err)
	return ok
}

// TestAddKind adds and removes kinds while writers write to them.
func TestAddKind(t *testing.T) {
	backends(t, func(t *testing.T, b storage.Backend) {
		c := start(t, b, func(cfg *Config) { cfg.Kinds = testKinds()[:1] })
		if _, err := c.Get(bounded(t), nodes+"a", Read{}); !errors.Is(err, ErrNoKind) {
			t.Errorf("Get before AddKind: %v", err)
		}
		ctx, stop := context.WithCancel(bounded(t))
		var writers sync.WaitGroup
		for n := range 3 {
			writers.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					direct(ctx, b, fmt.Sprintf("%s%d-%d", nodes, n, i%20), fmt.Sprintf("in;%d", i))
				}
			})
		}
		node := testKinds()[1]
		for range 5 {
			if err := c.AddKind(bounded(t), node); err != nil {
				t.Fatal(err)
			}
			if err := c.AddKind(bounded(t), node); err == nil {
				t.Error("a kind was added twice")
			}
			w := c.mustWatch(t, nodes, WatchOptions{})
			w.take(t, 5)
			c.RemoveKind(nodes)
			for {
				if _, err := w.Next(bounded(t)); errors.Is(err, ErrKindRemoved) {
					break
				} else if err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := c.AddKind(bounded(t), node); err != nil {
			t.Fatal(err)
		}
		stop()
		writers.Wait()
		sameState(t, b, c)
		n := c.mustCreate(t, nodes+"last", "in;1")
		if got := c.Stats(); !slices.ContainsFunc(got, func(s KindStats) bool { return s.Prefix == nodes && s.Revision == n.Revision }) {
			t.Errorf("Stats = %+v", got)
		}
	})
	for _, prefix := range []string{"/registry/pods/x/", "/registry/", "/registry/nodes", "/other/"} {
		c := New(Config{Backend: newMemory(t), Kinds: testKinds()})
		if err := c.AddKind(bounded(t), Kind{Prefix: prefix, Index: indexTest}); err == nil {
			t.Errorf("kind %q was accepted", prefix)
		}
	}
}
