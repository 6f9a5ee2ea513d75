package cache

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"coracle/pkg/storage"
)

// hooked calls afterRange between the reading of a page and its delivery.
type hooked struct {
	storage.Backend
	afterRange func(prefix string)
}

func (b *hooked) Range(ctx context.Context, prefix string, opts storage.RangeOptions) (*storage.Page, error) {
	page, err := b.Backend.Range(ctx, prefix, opts)
	b.afterRange(prefix)
	return page, err
}

// TestAddKindAcrossRepair loses history while a new kind is being read: its
// objects are read once more.
func TestAddKindAcrossRepair(t *testing.T) {
	store := newMemory(t)
	feed := newChaos(store, 1)
	var c *Cache
	calls := 0
	b := &hooked{Backend: feed, afterRange: func(string) {}}
	c = start(t, b, func(cfg *Config) { cfg.Kinds = testKinds()[:1] })
	put(t, store, nodes+"n1", "in;1", 0)
	b.afterRange = func(prefix string) {
		if prefix != nodes {
			return
		}
		if calls++; calls > 1 {
			return
		}
		feed.freeze()
		put(t, store, nodes+"n2", "in;1", 0)
		last := put(t, store, pods+"default/a", "in;1", 0)
		if err := store.Compact(bounded(t), last); err != nil {
			t.Error(err)
		}
		feed.thaw()
		if err := c.waitApplied(bounded(t), last, time.Minute); err != nil {
			t.Error(err)
		}
	}
	if err := c.AddKind(bounded(t), testKinds()[1]); err != nil {
		t.Fatal(err)
	}
	b.afterRange = func(string) {}
	sameState(t, store, c)
	if calls < 3 {
		t.Errorf("the new kind was read %d times, want once, by the repair, and again", calls)
	}
}

// TestReadAheadOfTheFeed reads a kind at a newer revision than what has been
// applied: the feed that follows does not turn it back.
func TestReadAheadOfTheFeed(t *testing.T) {
	c := New(Config{Backend: newMemory(t), Kinds: testKinds()})
	k := c.table().find(pods)
	got := &contents{revision: 10}
	edit := got.objects.Edit()
	newest, err := k.index(pods+"default/a", []byte("in;new"), 9, 5)
	if err != nil {
		t.Fatal(err)
	}
	edit.Set(newest.Key, newest)
	got.objects = edit.Map()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.install(k, got)
	c.applied.Store(4)
	c.applyLocked([]change{
		{key: newest.Key, rev: 5, kind: k, stored: []byte("in;old"), created: 5},
		{key: newest.Key, rev: 7, kind: k},
		{key: newest.Key, rev: 8, kind: k, stored: []byte("in;older"), created: 8},
	}, 8)
	if o, ok := k.state.Load().objects.Get(newest.Key); !ok || o != newest || k.state.Load().revision != 10 {
		t.Errorf("the feed turned the object back to %+v", o)
	}
	if events, _, _ := k.ring.read(nil, 10, 10, 1<<20); len(events) != 0 || k.ring.len() != 0 {
		t.Errorf("the feed told %d events again", k.ring.len())
	}
	c.applyLocked([]change{{key: newest.Key, rev: 11, kind: k}}, 11)
	if _, ok := k.state.Load().objects.Get(newest.Key); ok {
		t.Error("the feed after the revision read is not applied")
	}
}

// TestReadBesideASilentFeed: a kind was read anew and the feed does not come
// after it. A consistent read goes to the store, others say when to come back.
func TestReadBesideASilentFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newChaos(newMemory(t), 1)
		c := start(t, b, nil)
		o := c.mustCreate(t, pods+"default/a", "in;a")
		b.freeze()
		defer b.thaw()
		k := c.table().find(pods)
		c.mu.Lock()
		st := *k.state.Load()
		st.revision += 5
		k.state.Store(&st)
		c.mu.Unlock()
		if got, err := c.Get(t.Context(), o.Key, Read{}); err != nil || got.Revision != o.Revision {
			t.Errorf("a consistent get: %v, %v", got, err)
		}
		if l, err := c.List(t.Context(), pods, ListOptions{}); err != nil || len(l.Items) != 1 {
			t.Errorf("a consistent list: %v, %v", l, err)
		}
		for _, read := range []Read{{Any: true}, {AtLeast: o.Revision}} {
			_, err := c.Get(t.Context(), o.Key, read)
			if tooLarge, ok := errors.AsType[*TooLargeError](err); !ok || tooLarge.RetryAfter <= 0 {
				t.Errorf("%+v: %v", read, err)
			}
		}
	})
}

// scripted delivers what each of its watches is told to.
type scripted struct {
	storage.Backend
	opened  []storage.Revision
	batches []func() (storage.Batch, error)
}

func (b *scripted) Watch(_ context.Context, _ string, opts storage.WatchOptions) (storage.Watch, error) {
	b.opened = append(b.opened, opts.From)
	return b, nil
}

func (b *scripted) Next(context.Context) (storage.Batch, error) {
	next := b.batches[0]
	b.batches = b.batches[1:]
	return next()
}

func (b *scripted) Close() {}

// closer joins the two Close methods that a backend and a watch differ in.
type closer struct{ *scripted }

func (closer) Close() error { return nil }

// TestHistoryWithAHole never goes on after a compaction in the middle.
func TestHistoryWithAHole(t *testing.T) {
	event := storage.Event{Type: storage.Put, KV: storage.KV{Key: pods + "a", ModRevision: 3}}
	gone := func(at storage.Revision) func() (storage.Batch, error) {
		return func() (storage.Batch, error) { return storage.Batch{}, &storage.CompactedError{Compacted: at} }
	}
	b := &scripted{batches: []func() (storage.Batch, error){
		gone(2),
		func() (storage.Batch, error) {
			return storage.Batch{Events: []storage.Event{event}, Progress: 3}, nil
		},
		gone(5),
	}}
	c := New(Config{Backend: closer{b}})
	told := 0
	from, err := c.history(t.Context(), pods, 0, 10, func(*storage.Event) error {
		told++
		return nil
	})
	if !errors.Is(err, storage.ErrCompacted) || told != 1 || from != 2 {
		t.Errorf("history after %d told %d events and ended with %v", from, told, err)
	}
	if diff := cmp.Diff([]storage.Revision{1, 3}, b.opened); diff != "" {
		t.Errorf("watches: %s", diff)
	}
}

// TestExactBeforeTheFirstPage does not take a kept state for an older one.
func TestExactBeforeTheFirstPage(t *testing.T) {
	c := start(t, newMemory(t), nil)
	for i := range 10 {
		c.mustCreate(t, fmt.Sprintf("%sdefault/%d", pods, i), "in;1")
	}
	page := c.mustList(t, pods, ListOptions{Limit: 5})
	c.mustCreate(t, pods+"default/later", "in;1")
	for back := range storage.Revision(10) {
		l := c.mustList(t, pods, ListOptions{Read: Read{Exact: page.Revision - back}})
		if len(l.Items) != 10-int(back) || l.Revision != page.Revision-back {
			t.Errorf("at %d there are %d objects, want %d", l.Revision, len(l.Items), 10-back)
		}
	}
}

// TestBackfillOfNothing leaves a ring alone when the history before it is gone.
func TestBackfillOfNothing(t *testing.T) {
	b := &scripted{batches: []func() (storage.Batch, error){
		func() (storage.Batch, error) { return storage.Batch{}, &storage.CompactedError{Compacted: 50} },
	}}
	c := New(Config{Backend: closer{b}, Kinds: testKinds()})
	for _, k := range c.table() {
		k.ring.reset(10)
	}
	c.backfill(t.Context(), c.table())
	for _, k := range c.table() {
		if start := k.ring.view.Load().start; start != 10 {
			t.Errorf("the ring of %s begins after %d, want 10", k.Prefix, start)
		}
	}
}
