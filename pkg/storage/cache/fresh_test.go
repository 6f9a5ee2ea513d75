package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"coracle/pkg/storage"
)

// TestFrozenReplica reads from a cache whose feed stands still while another
// one writes: what is asked for as fresh is fresh or refused.
func TestFrozenReplica(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemory(t)
		b := newChaos(store, 1)
		frozen, other := start(t, b, nil), start(t, store, nil)
		old := frozen.mustCreate(t, pods+"default/a", "in;old")
		if err := other.waitApplied(t.Context(), old.Revision, time.Second); err != nil {
			t.Fatal(err)
		}
		b.freeze()
		now := other.mustUpdate(t, old, "in;new")
		ctx := t.Context()

		if got, err := frozen.Get(ctx, old.Key, Read{Any: true}); err != nil || got != old {
			t.Errorf("any: %v, %v", got, err)
		}
		if got, err := frozen.Get(ctx, old.Key, Read{AtLeast: old.Revision}); err != nil || got != old {
			t.Errorf("at least the old: %v, %v", got, err)
		}
		if got, err := frozen.Get(ctx, old.Key, Read{}); err != nil || string(got.Value) != string(now.Value) {
			t.Errorf("consistent: %v, %v", got, err)
		}
		if l := frozen.mustList(t, pods, ListOptions{}); l.Revision != now.Revision || string(l.Items[0].Value) != string(now.Value) {
			t.Errorf("consistent list at %d: %q", l.Revision, values(l))
		}
		began := time.Now()
		_, err := frozen.Get(ctx, old.Key, Read{AtLeast: now.Revision})
		tooLarge, ok := errors.AsType[*TooLargeError](err)
		if !ok || tooLarge.Asked != now.Revision || tooLarge.Current != old.Revision || tooLarge.RetryAfter <= 0 {
			t.Errorf("at least the new: %v", err)
		}
		if waited := time.Since(began); waited != 3*time.Second {
			t.Errorf("a revision ahead was waited for %v", waited)
		}
		if _, err := frozen.List(ctx, pods, ListOptions{Read: Read{Exact: now.Revision + 100}}); err == nil {
			t.Error("a list at a revision that does not exist succeeded")
		}
		w := frozen.mustWatch(t, pods, WatchOptions{From: now.Revision})
		b.thaw()
		if got, err := frozen.Get(ctx, old.Key, Read{AtLeast: now.Revision}); err != nil || got.Revision != now.Revision {
			t.Errorf("after the thaw: %v, %v", got, err)
		}
		next := other.mustUpdate(t, now, "in;next")
		if got := w.take(t, 1); got[0] != fmt.Sprintf("MODIFIED a @%d in;next", next.Revision) {
			t.Errorf("a watch from the future began with %q", got)
		}
	})
}

// TestLag shows that a silent watch is noticed, told, and replaced.
func TestLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemory(t)
		b := newChaos(store, 1)
		c := start(t, b, nil)
		time.Sleep(time.Hour)
		if lag := c.Lag(); lag > 3*time.Second {
			t.Errorf("an idle cache lags %v", lag)
		}
		b.mu.Lock()
		before := b.watches
		b.mu.Unlock()
		b.freeze()
		put(t, store, pods+"default/a", "in;1", 0)
		time.Sleep(10 * time.Second)
		if lag := c.Lag(); lag < 8*time.Second || lag > 13*time.Second {
			t.Errorf("after ten seconds of silence the lag is %v", lag)
		}
		time.Sleep(10 * time.Second)
		b.mu.Lock()
		opened := b.watches - before
		b.frozen = nil
		b.mu.Unlock()
		if opened < 1 {
			t.Error("a silent watch was not replaced after 20 seconds")
		}
		time.Sleep(40 * time.Second)
		if lag := c.Lag(); lag > 3*time.Second {
			t.Errorf("with a new watch the cache still lags %v", lag)
		}
		if _, err := c.Get(t.Context(), pods+"default/a", Read{Any: true}); err != nil {
			t.Errorf("the missed write is not there: %v", err)
		}
	})
}

// TestRelist shows that watches which open and stay silent are made up for by
// reading everything, again and again: watchers are told to list again.
func TestRelist(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemory(t)
		b := newChaos(store, 1)
		c := start(t, b, nil)
		b.freeze()
		for _, name := range []string{"a", "b", "c"} {
			w := c.mustWatch(t, pods, WatchOptions{From: c.Revision()})
			put(t, store, pods+"default/"+name, "in;1", 0)
			time.Sleep(40 * time.Second)
			if _, err := c.Get(t.Context(), pods+"default/"+name, Read{Any: true}); err != nil {
				t.Errorf("a write that no watch brought is not there after 40 seconds: %v", err)
			}
			if got, err := w.Next(bounded(t)); !isExpired(err) {
				t.Errorf("the watcher got %q, %v", show(got), err)
			}
		}
		b.thaw()
	})
}

// names are shown events without revision and content.
func names(shown []string) []string {
	for i, s := range shown {
		shown[i], _, _ = strings.Cut(s, " @")
	}
	return shown
}

// TestSharedQuestion shows that reads that come together share a question to
// the store, and never one that was sent before them.
func TestSharedQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &slowCurrent{Backend: newMemory(t)}
		c := New(Config{Backend: b})
		var wg sync.WaitGroup
		ask := func(want int) {
			wg.Go(func() {
				rev, err := c.Current(t.Context())
				if err != nil || rev != storage.Revision(want) {
					t.Errorf("Current = %d, %v, want question %d", rev, err, want)
				}
			})
		}
		ask(1)
		synctest.Wait()
		for range 10 {
			ask(2) // question 1 is on its way already
		}
		time.Sleep(1500 * time.Millisecond)
		for range 10 {
			ask(3) // question 2 is on its way
		}
		wg.Wait()
		if b.asked != 3 {
			t.Errorf("the store was asked %d times, want 3", b.asked)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := c.Current(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Current with a short deadline: %v", err)
		}
		time.Sleep(time.Minute)
	})
}

// slowCurrent takes a second and tells how many times it was asked.
type slowCurrent struct {
	storage.Backend
	asked int
}

func (b *slowCurrent) Current(context.Context) (storage.Revision, error) {
	b.asked++
	rev := storage.Revision(b.asked)
	time.Sleep(time.Second)
	return rev, nil
}

// TestSoleWriter reads consistently without asking the store.
func TestSoleWriter(t *testing.T) {
	b := newChaos(newMemory(t), 1)
	c := start(t, b, func(cfg *Config) { cfg.SoleWriter = true })
	b.mu.Lock()
	before := b.refreshed
	b.mu.Unlock()
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			o := c.mustCreate(t, fmt.Sprintf("%sdefault/%d", pods, n), "in;0")
			for i := range 200 {
				o = c.mustUpdate(t, o, fmt.Sprintf("in;%d", i))
				if got, err := c.Get(bounded(t), o.Key, Read{}); err != nil || got != o {
					t.Errorf("after %s: %v, %v", o.Value, got, err)
				}
			}
		})
	}
	wg.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	if asked := b.refreshed - before; asked > 2 {
		t.Errorf("the store was asked %d times", asked)
	}
}

// TestPages reads pages of one list while writers change everything, in the
// same cache and in another one that never saw the first page.
func TestPages(t *testing.T) {
	backends(t, func(t *testing.T, b storage.Backend) {
		c, other := start(t, b, nil), start(t, b, nil)
		for i := range 60 {
			c.mustCreate(t, fmt.Sprintf("%sns%d/%02d", pods, i%2, i), "in;first")
		}
		whole := c.mustList(t, pods, ListOptions{})
		want := values(whole)
		first := c.mustList(t, pods, ListOptions{Limit: 7})
		ctx, stop := context.WithCancel(bounded(t))
		var writers sync.WaitGroup
		for n := range 3 {
			writers.Go(func() {
				for i := n; ctx.Err() == nil; i++ {
					key := fmt.Sprintf("%sns%d/%02d", pods, i%2, i%80)
					if o, err := c.Get(ctx, key, Read{Any: true}); err == nil && i%3 == 0 {
						_, _ = c.Delete(ctx, key, o.Revision)
					} else if err == nil {
						_, _ = c.Update(ctx, key, []byte("out;later"), o.Revision, 0)
					} else {
						_, _ = c.Create(ctx, key, []byte("out;later"), 0)
					}
				}
			})
		}
		for _, c := range []*Cache{c, other} {
			if err := c.waitApplied(ctx, first.Revision+50, time.Minute); err != nil {
				t.Fatal(err)
			}
		}
		for who, from := range map[string]*Cache{"same": c, "other": other} {
			got := values(first)
			left := int64(len(want) - len(got))
			for page := first; page.Next != ""; {
				if page.Remaining != left {
					t.Errorf("%s cache: %d remain, want %d", who, page.Remaining, left)
				}
				page = from.mustList(t, pods, ListOptions{Limit: 7, After: page.Next, Read: Read{Exact: first.Revision}})
				if page.Revision != first.Revision {
					t.Fatalf("%s cache: a page is at %d, the first at %d", who, page.Revision, first.Revision)
				}
				got = append(got, values(page)...)
				left -= int64(len(page.Items))
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s cache: the pages are not the first page's state: %s", who, diff)
			}
		}
		in := other.mustList(t, pods, ListOptions{Read: Read{Exact: first.Revision}, Match: labelled("in"), Limit: 50})
		if len(in.Items) != 50 || in.Next != want50(whole) || in.Remaining != -1 {
			t.Errorf("%d selected items, next %s, remaining %d", len(in.Items), in.Next, in.Remaining)
		}
		stop()
		writers.Wait()
		now, err := b.Current(bounded(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Compact(bounded(t), now); err != nil {
			t.Fatal(err)
		}
		exact := ListOptions{Limit: 7, After: first.Next, Read: Read{Exact: first.Revision}}
		if got := c.mustList(t, pods, exact); len(got.Items) != 7 {
			t.Errorf("the kept state served %d items", len(got.Items))
		}
		if _, err := start(t, b, nil).List(bounded(t), pods, exact); !isExpired(err) {
			t.Errorf("a page of a compacted revision: %v", err)
		}
		c.Compacted(now)
		if _, err := c.List(bounded(t), pods, exact); !isExpired(err) {
			t.Errorf("a page of a revision that is known to be compacted: %v", err)
		}
		exact.Read.Exact = now
		if got := c.mustList(t, pods, exact); got.Revision != now {
			t.Errorf("the list at what was compacted to is of %d", got.Revision)
		}
		// The inconsistent continuation goes on after the last key.
		on := other.mustList(t, pods, ListOptions{After: first.Next, Limit: 1})
		if len(on.Items) == 1 && on.Items[0].Key <= first.Next {
			t.Errorf("the list goes on at %s after %s", on.Items[0].Key, first.Next)
		}
	})
}

func want50(l *List) string { return l.Items[49].Key }

// TestBookmarks waits virtual hours: bookmarks come at least once a minute to
// those who asked, and follow the revisions of other kinds.
func TestBookmarks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, newMemory(t), nil)
		asked := c.mustWatch(t, pods, WatchOptions{Bookmarks: true})
		silent := c.mustWatch(t, pods, WatchOptions{})
		future := c.mustWatch(t, pods, WatchOptions{Bookmarks: true, From: 1000})
		n := c.mustCreate(t, nodes+"n", "in;0")
		last := time.Now()
		for i := range 100 {
			n = c.mustUpdate(t, n, fmt.Sprintf("in;%d", i))
			events, err := asked.Next(t.Context())
			if err != nil || len(events) != 1 || events[0].Type != Bookmark || events[0].Object != nil || events[0].InitialEnd {
				t.Fatalf("%q, %v, want one bookmark", show(events), err)
			}
			if events[0].Revision != n.Revision {
				t.Errorf("bookmark at %d, want %d", events[0].Revision, n.Revision)
			}
			if gap := time.Since(last); gap > time.Minute {
				t.Errorf("no bookmark for %v", gap)
			}
			last = time.Now()
		}
		if got := future.take(t, 1); got[0] != "BOOKMARK 1000" {
			t.Errorf("a watch from the future got %q", got)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if events, err := silent.Next(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a watch that asked for no bookmarks got %q, %v", show(events), err)
		}
		// A busy watch gets them, too.
		a := c.mustCreate(t, pods+"default/a", "in;0")
		marks := 0
		for range 20 {
			time.Sleep(10 * time.Second)
			a = c.mustUpdate(t, a, "in;1")
			events, err := asked.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, ev := range events {
				if ev.Type == Bookmark {
					marks++
				}
			}
		}
		if marks < 3 {
			t.Errorf("%d bookmarks in 200 busy seconds", marks)
		}
	})
}

// TestInitial sends the state before the events, always with an end.
func TestInitial(t *testing.T) {
	c := start(t, newMemory(t), nil)
	empty := c.Revision()
	if got := c.mustWatch(t, pods, WatchOptions{Initial: true}).take(t, 1); got[0] != fmt.Sprintf("INITIAL END %d", empty) {
		t.Errorf("an empty state was sent as %q", got)
	}
	for i := range 3 * batchEvents {
		c.mustCreate(t, fmt.Sprintf("%sdefault/%05d", pods, i), []string{"in;", "out;"}[i%2])
	}
	at := c.Revision()
	w := c.mustWatch(t, pods, WatchOptions{Initial: true, Consistent: true, Match: labelled("in")})
	more := c.mustCreate(t, pods+"default/00000-more", "in;") // sorts into what has not been sent
	got := w.take(t, 3*batchEvents/2+2)
	if end := got[len(got)-2]; end != fmt.Sprintf("INITIAL END %d", at) {
		t.Errorf("the state ends with %q", end)
	}
	if last := got[len(got)-1]; last != fmt.Sprintf("ADDED 00000-more @%d in;", more.Revision) {
		t.Errorf("after the state comes %q", last)
	}
	if _, err := c.Watch(bounded(t), pods, WatchOptions{Initial: true, From: at + 100}); err == nil {
		t.Error("an initial state of the future was accepted")
	}
}

// TestReadAfterRefusal: who was refused because of a commit that the cache has
// not seen yet, finds it when reading.
func TestReadAfterRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemory(t)
		b := newChaos(store, 1)
		c := start(t, b, func(cfg *Config) { cfg.SoleWriter = true })
		ctx := t.Context()
		gone := c.mustCreate(t, pods+"default/gone", "in;1")
		b.freeze()
		// Two own commits whose answers are still on their way.
		rev, err := store.Put(ctx, pods+"default/a", []byte("in;1"), 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Create(ctx, pods+"default/a", []byte("in;2"), 0); !errors.Is(err, storage.ErrExists) {
			t.Fatalf("create: %v", err)
		}
		if got, err := c.Get(ctx, pods+"default/a", Read{}); err != nil || got.Revision != rev {
			t.Errorf("after the refusal of a create: %v, %v", got, err)
		}
		if _, err := store.Delete(ctx, gone.Key, gone.Revision); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Update(ctx, gone.Key, []byte("in;3"), gone.Revision, 0); !errors.Is(err, storage.ErrNotFound) {
			t.Fatalf("update: %v", err)
		}
		if got, err := c.Get(ctx, gone.Key, Read{}); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("after the refusal of an update: %v, %v", got, err)
		}
		b.thaw()
	})
}
