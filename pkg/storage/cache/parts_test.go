package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"coracle/pkg/storage"
	"coracle/pkg/storage/memory"
)

// TestCorrupt keeps what cannot be read from looking deleted.
func TestCorrupt(t *testing.T) {
	b := newMemory(t)
	atStart := put(t, b, pods+"default/broken", "corrupt", 0)
	c := start(t, b, nil)
	w := c.mustWatch(t, pods, WatchOptions{})
	a := c.mustCreate(t, pods+"default/a", "in;1")
	c.mustCreate(t, pods+"other/b", "in;1")
	broke := put(t, b, a.Key, "corrupt", a.Revision)
	for key, rev := range map[string]storage.Revision{a.Key: broke, pods + "default/broken": atStart} {
		_, err := c.Get(bounded(t), key, Read{})
		if bad, ok := errors.AsType[*CorruptError](err); !ok || bad.Key != key || bad.Revision != rev {
			t.Errorf("Get(%s): %v", key, err)
		}
	}
	for _, prefix := range []string{pods, pods + "default/"} {
		if _, err := c.List(bounded(t), prefix, ListOptions{}); err == nil {
			t.Errorf("List(%s) is silent about an object it cannot read", prefix)
		}
	}
	if l := c.mustList(t, pods+"other/", ListOptions{}); len(l.Items) != 1 {
		t.Errorf("List of another namespace = %q", values(l))
	}
	if _, err := c.Create(bounded(t), pods+"default/c", []byte("corrupt"), 0); err == nil {
		t.Error("a write that cannot be read back succeeded")
	}
	gone, err := c.Delete(bounded(t), a.Key, broke)
	if err != nil || gone.Revision <= broke {
		t.Errorf("Delete of what cannot be read: %v, %v", gone, err)
	}
	fixed := put(t, b, pods+"default/broken", "in;fixed", atStart)
	want := []string{
		fmt.Sprintf("ADDED a @%d in;1", a.Revision),
		fmt.Sprintf("ADDED b @%d in;1", a.Revision+1),
		fmt.Sprintf("DELETED a @%d in;1", gone.Revision),
		fmt.Sprintf("ADDED broken @%d in;fixed", fixed),
	}
	if diff := cmp.Diff(want, w.take(t, len(want))); diff != "" {
		t.Error(diff)
	}
}

func TestMemo(t *testing.T) {
	budget := newMemoBudget(10_000)
	object := func() *Object {
		o := &Object{Value: make([]byte, 100)}
		o.memo.budget = budget
		o.memo.kept.Store(true)
		return o
	}
	o := object()
	var made atomic.Int64
	slow := func() ([]byte, error) {
		made.Add(1)
		time.Sleep(time.Millisecond)
		return []byte("json"), nil
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if got, err := o.Encoding("json/v1", slow); err != nil || string(got) != "json" {
				t.Errorf("Encoding = %s, %v", got, err)
			}
		})
	}
	wg.Wait()
	if made.Load() != 1 {
		t.Errorf("the encoding was made %d times", made.Load())
	}
	if got, _ := o.Encoding("json/v2", func() ([]byte, error) { return []byte("other"), nil }); string(got) != "other" {
		t.Errorf("another id gave %s", got)
	}
	fail := errors.New("no")
	if _, err := o.Decoded(func() (any, error) { return nil, fail }); !errors.Is(err, fail) {
		t.Errorf("Decoded = %v", err)
	}
	if got, err := o.Decoded(func() (any, error) { return 7, nil }); err != nil || got != 7 {
		t.Errorf("after an error, Decoded = %v, %v", got, err)
	}
	if got, _ := o.Decoded(func() (any, error) { return 8, nil }); got != 7 {
		t.Errorf("Decoded again = %v", got)
	}

	// Memory stays within the bound, and some of the newest are still there.
	objects := make([]*Object, 200)
	for i := range objects {
		objects[i] = object()
		_, _ = objects[i].Encoding("x", func() ([]byte, error) { return make([]byte, 300), nil })
	}
	kept := 0
	for _, o := range objects {
		if o.memo.list.Load() != nil {
			kept++
		}
	}
	if budget.used > budget.limit || kept == 0 || kept > 10_000/300 {
		t.Errorf("%d of %d bytes used, %d objects remember", budget.used, budget.limit, kept)
	}
	if got, err := (&Object{}).Encoding("x", func() ([]byte, error) { return []byte("y"), nil }); err != nil || string(got) != "y" {
		t.Errorf("an object of no cache: %s, %v", got, err)
	}
}

func TestRing(t *testing.T) {
	k := &kind{}
	r := newRing(10, chunkEvents)
	now := time.Unix(0, 0)
	for rev := storage.Revision(11); rev <= 1010; rev++ {
		// Each revision has two events.
		for range 2 {
			r.add(&event{kind: k, rev: rev, obj: &Object{Value: make([]byte, 488)}}, now.Add(time.Duration(rev)*time.Second))
		}
	}
	if got, _, _ := r.read(nil, 10, 100, 1<<20); len(got) != 0 {
		t.Errorf("%d events before they were published", len(got))
	}
	r.publish(1010)
	for pos, n := storage.Revision(10), 0; pos < 1010; {
		got, more, behind := r.read(nil, pos, 7, 1<<20)
		if behind || len(got) != 8 && pos < 1006 || more != (pos < 1006) {
			t.Fatalf("at %d: %d events, %v, %v", pos, len(got), more, behind)
		}
		for i, e := range got {
			if want := pos + 1 + storage.Revision(i/2); e.rev != want {
				t.Fatalf("at %d: event %d is at %d, want %d", pos, i, e.rev, want)
			}
		}
		pos, n = got[len(got)-1].rev, n+len(got)
	}
	// A revision is not split for the bytes either.
	if got, more, _ := r.read(nil, 10, 100, 2500); len(got) != 4 || !more {
		t.Errorf("%d events of 1000 bytes within 2500, %v", len(got), more)
	}
	r.trim(100_000, now)
	if r.bytes.Load() > 100_000 || r.bytes.Load() < 30_000 {
		t.Errorf("trimmed to %d bytes", r.bytes.Load())
	}
	start := r.view.Load().start
	if _, _, behind := r.read(nil, start-1, 1, 1); !behind {
		t.Errorf("before the start: %v", behind)
	}
	if got, _, behind := r.read(nil, start, 1, 1); behind || got[0].rev > start+1 {
		t.Errorf("at the start %d: %v, %v", start, got[0].rev, behind)
	}
	r.trim(100_000, now.Add(time.Hour))
	if n := r.len(); n > chunkEvents {
		t.Errorf("%d events are an hour old", n)
	}
}

// TestPending lets answers come late and in any order: nothing is applied
// before its predecessors, and more than fits is left to the watch.
func TestPending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New(memory.Config{})
		defer store.Close()
		b := newChaos(store, 1)
		c := start(t, b, nil)
		b.freeze()
		first := put(t, store, pods+"default/foreign", "in;1", 0)
		done := make(chan *Object)
		go func() { done <- c.mustCreate(t, pods+"default/own", "in;2") }()
		time.Sleep(time.Second)
		if _, err := c.Get(t.Context(), pods+"default/own", Read{Any: true}); !errors.Is(err, storage.ErrNotFound) || c.Revision() >= first {
			t.Errorf("a write is seen at %d before its predecessor %d: %v", c.Revision(), first, err)
		}
		select {
		case <-done:
			t.Error("a write returned before the cache shows it")
		default:
		}
		b.thaw()
		if own := <-done; c.Revision() < own.Revision {
			t.Errorf("a write at %d returned when the cache was at %d", own.Revision, c.Revision())
		}

		// With the watch silent for good, the write is answered all the same,
		// and a consistent read shows it.
		b.freeze()
		put(t, store, pods+"default/foreign2", "in;1", 0)
		began := time.Now()
		own := c.mustCreate(t, pods+"default/own2", "in;2")
		if waited := time.Since(began); waited != ownWait {
			t.Errorf("the write waited %v", waited)
		}
		if got, err := c.Get(t.Context(), own.Key, Read{}); err != nil || got.Revision != own.Revision {
			t.Errorf("a consistent read: %v, %v", got, err)
		}
		b.thaw()
	})
}

// TestParkedWatcher leaves a watcher unread: writes go on at their pace, and it
// reads on later from the store's history without a loss.
func TestParkedWatcher(t *testing.T) {
	b := newMemory(t)
	c := start(t, b, func(cfg *Config) { cfg.RingBytes = 50_000 })
	parked := c.mustWatch(t, pods, WatchOptions{})
	from := c.Revision()
	o := c.mustCreate(t, pods+"default/a", "in;0")
	for i := range 2000 {
		o = c.mustUpdate(t, o, fmt.Sprintf("in;%d", i))
	}
	if stats := c.Stats(); stats[1].RingBytes > 100_000 || stats[1].Watchers != 1 {
		t.Errorf("Stats = %+v", stats)
	}
	want := replay(t, history(t, b), pods, from, nil)
	if diff := cmp.Diff(want, parked.take(t, len(want))); diff != "" {
		t.Error(diff)
	}
	left := c.mustWatch(t, pods, WatchOptions{From: from})
	if err := b.Compact(bounded(t), o.Revision); err != nil {
		t.Fatal(err)
	}
	if _, err := left.Next(bounded(t)); !isExpired(err) {
		t.Errorf("a watcher that history has passed: %v", err)
	}
}

// TestBeforeReady blocks calls until the cache has been filled.
func TestBeforeReady(t *testing.T) {
	c := New(Config{Backend: newMemory(t), Kinds: testKinds()})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, getErr := c.Get(ctx, pods+"default/a", Read{Any: true})
	_, listErr := c.List(ctx, pods, ListOptions{})
	_, watchErr := c.Watch(ctx, pods, WatchOptions{})
	_, createErr := c.Create(ctx, pods+"default/a", nil, 0)
	for i, err := range []error{getErr, listErr, watchErr, createErr} {
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("call %d: %v", i, err)
		}
	}
}

// TestTimeToLive shows expired objects to watchers as deleted.
func TestTimeToLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New(memory.Config{})
		defer store.Close()
		c := start(t, store, nil)
		w := c.mustWatch(t, pods, WatchOptions{})
		if _, err := c.Create(t.Context(), pods+"default/a", []byte("in;1"), time.Hour); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		w.take(t, 1)
		if events, err := w.Next(t.Context()); err != nil || events[0].Type != Deleted || time.Since(began) < time.Hour {
			t.Errorf("%q, %v after %v", show(events), err, time.Since(began))
		}
	})
}

// TestListKey: a list of one key is at a revision like any other list, also
// of a state that has passed, and knows no other key.
func TestListKey(t *testing.T) {
	b := newMemory(t)
	c := start(t, b, nil)
	ctx := bounded(t)
	key := pods + "ns1/a"
	made, err := c.Create(ctx, key, []byte("in;1"), 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Create(ctx, key+"b", []byte("in;2"), 0); err != nil {
		t.Fatal(err)
	}
	gone, err := c.Delete(ctx, key, made.Revision)
	if err != nil {
		t.Fatal(err)
	}
	fresh := start(t, b, nil) // it has to ask the store for what has passed
	for name, c := range map[string]*Cache{"the cache": c, "another": fresh} {
		for _, test := range []struct {
			read  Read
			match Predicate
			at    storage.Revision
			items int
		}{
			{Read{}, nil, gone.Revision, 0},
			{Read{Any: true}, nil, gone.Revision, 0},
			{Read{Exact: made.Revision}, nil, made.Revision, 1},
			{Read{Exact: made.Revision}, labelled("out"), made.Revision, 0},
		} {
			list := c.mustList(t, pods+"ns1/", ListOptions{Read: test.read, Key: key, Match: test.match})
			if list.Revision != test.at || len(list.Items) != test.items || list.Remaining != -1 || list.Next != "" {
				t.Errorf("%s, %+v: %d items at %d, %d remain; want %d at %d", name, test.read, len(list.Items), list.Revision, list.Remaining, test.items, test.at)
			}
		}
	}
}
