package cache

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"coracle/pkg/storage"
	"coracle/pkg/storage/etcd"
)

// backends are what the property tests run on.
func backends(t *testing.T, test func(t *testing.T, b storage.Backend)) {
	t.Run("memory", func(t *testing.T) { test(t, newMemory(t)) })
	t.Run("chaos", func(t *testing.T) {
		b := newChaos(newMemory(t), 1)
		b.answerDelay, b.watchDelay, b.breakOneIn = time.Millisecond, time.Millisecond, 50
		test(t, b)
	})
	t.Run("slow answers", func(t *testing.T) {
		b := newChaos(newMemory(t), 2)
		b.answerDelay = 2 * time.Millisecond
		test(t, b)
	})
	t.Run("slow watch", func(t *testing.T) {
		b := newChaos(newMemory(t), 3)
		b.watchDelay = 5 * time.Millisecond
		test(t, b)
	})
	t.Run("etcd", func(t *testing.T) {
		b, err := etcd.StartEmbedded(bounded(t), etcd.Config{DataDir: t.TempDir(), UnsafeNoFsync: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = b.Close() })
		test(t, b)
	})
}

// history reads what the store remembers, all of it.
func history(t *testing.T, b storage.Backend) []storage.Event {
	t.Helper()
	if below, ok := b.(*chaos); ok {
		b = below.Backend
	}
	ctx := bounded(t)
	upTo, err := b.Current(ctx)
	if err != nil {
		t.Fatal(err)
	}
	c := New(Config{Backend: b})
	var out []storage.Event
	if _, err := c.history(ctx, storage.Root, 0, upTo, func(ev *storage.Event) error {
		out = append(out, *ev)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// replay is what a watch must tell of a history: the model for W-1 and W-3.
func replay(t *testing.T, events []storage.Event, prefix string, from storage.Revision, match Predicate) []string {
	t.Helper()
	object := func(kv *storage.KV, rev storage.Revision) *Object {
		o, err := indexTest(kv.Key, kv.Value, rev)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	var out []string
	for _, ev := range events {
		if ev.KV.ModRevision <= from || !strings.HasPrefix(ev.KV.Key, prefix) {
			continue
		}
		var now, before *Object
		if ev.Type == storage.Put {
			now = object(&ev.KV, ev.KV.ModRevision)
		}
		if ev.Prev != nil {
			before = object(ev.Prev, ev.KV.ModRevision)
		}
		isNow := now != nil && (match == nil || match(now))
		was := before != nil && (match == nil || match(before))
		switch {
		case isNow && was:
			out = append(out, fmt.Sprintf("MODIFIED %s %s", now.Name, now.Value))
		case isNow:
			out = append(out, fmt.Sprintf("ADDED %s %s", now.Name, now.Value))
		case was:
			out = append(out, fmt.Sprintf("DELETED %s %s", before.Name, before.Value))
		}
	}
	return out
}

// storm makes concurrent random writes through the given caches and directly,
// and checks after each that the cache used shows it.
func storm(t *testing.T, b storage.Backend, caches []*Cache, writers, each int) {
	var wg sync.WaitGroup
	ctx := bounded(t)
	for n := range writers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(n), 7))
			for i := range each {
				prefix := []string{pods + "ns1/", pods + "ns10/", nodes}[rnd.IntN(3)]
				key := fmt.Sprintf("%s%d", prefix, rnd.IntN(8))
				value := fmt.Sprintf("%s;%d-%d", []string{"in", "out", "in,out"}[rnd.IntN(3)], n, i)
				if rnd.IntN(8) == 0 {
					direct(ctx, b, key, value)
					continue
				}
				if err := change1(ctx, caches[rnd.IntN(len(caches))], rnd, key, value); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// direct writes around the caches, and outside their prefix, too.
func direct(ctx context.Context, b storage.Backend, key, value string) {
	if kv, _, err := b.Get(ctx, key); err == nil {
		_, _ = b.Put(ctx, key, []byte(value), kv.ModRevision, 0)
	} else {
		_, _ = b.Put(ctx, key, []byte(value), 0, 0)
		_, _ = b.Put(ctx, "/elsewhere"+key, []byte(value), 0, 0)
	}
}

func change1(ctx context.Context, c *Cache, rnd *rand.Rand, key, value string) error {
	old, err := c.Get(ctx, key, Read{Any: rnd.IntN(2) == 0})
	var now *Object
	gone := false
	switch {
	case errors.Is(err, storage.ErrNotFound):
		now, err = c.Create(ctx, key, []byte(value), 0)
	case err != nil:
		return err
	case rnd.IntN(3) == 0:
		now, err = c.Delete(ctx, key, old.Revision)
		gone = true
	default:
		now, err = c.Update(ctx, key, []byte(value), old.Revision, 0)
	}
	if errors.Is(err, storage.ErrConflict) || errors.Is(err, storage.ErrExists) || errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	seen, err := c.Get(ctx, key, Read{Any: true})
	switch {
	case c.Revision() < now.Revision:
		return fmt.Errorf("after a write at %d the cache is at %d", now.Revision, c.Revision())
	case err == nil && seen.Revision < now.Revision:
		return fmt.Errorf("after a write at %d a read shows %d", now.Revision, seen.Revision)
	case !gone && err == nil && seen.Revision == now.Revision && string(seen.Value) != string(now.Value):
		return fmt.Errorf("a write returned %s, a read shows %s", now.Value, seen.Value)
	case err != nil && !errors.Is(err, storage.ErrNotFound):
		return err
	}
	return nil
}

type observer struct {
	prefix string
	match  Predicate
	from   storage.Revision
	got    []string
}

// observe runs a watch until it has passed a revision, checking its bookmarks.
func (o *observer) observe(ctx context.Context, w *Watcher, pause time.Duration, upTo func() storage.Revision) error {
	var last storage.Revision
	for {
		short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		events, err := w.Next(short)
		cancel()
		if err != nil && (!errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil) {
			return err
		}
		for _, ev := range events {
			if ev.Revision < last {
				return fmt.Errorf("%s at %d after %d", ev.Type, ev.Revision, last)
			}
			last = ev.Revision
		}
		o.got = append(o.got, show(events)...)
		if end := upTo(); end > 0 && w.Bookmark().Revision >= end {
			return nil
		}
		time.Sleep(pause)
	}
}

// TestExactReplay lets watches of all kinds run beside random writers on two
// caches of one store; each must tell exactly the history.
func TestExactReplay(t *testing.T) {
	backends(t, func(t *testing.T, b storage.Backend) {
		small := func(cfg *Config) { cfg.RingBytes = 20_000 }
		caches := []*Cache{start(t, b, small), start(t, b, nil)}
		var mu sync.Mutex
		var end storage.Revision
		upTo := func() storage.Revision {
			mu.Lock()
			defer mu.Unlock()
			return end
		}
		var observers []*observer
		var wg sync.WaitGroup
		ctx := bounded(t)
		watch := func(i int) {
			o := &observer{
				prefix: []string{pods, pods + "ns1/", nodes}[i%3],
				match:  []Predicate{nil, labelled("in")}[i%2],
				from:   caches[i%2].Revision(),
			}
			opts := WatchOptions{From: o.from}
			if i%4 == 3 {
				opts.Field, opts.Value = "labels", "in"
				o.match = fieldIs("in")
			}
			opts.Match = o.match
			observers = append(observers, o)
			w := caches[i/2%2].mustWatch(t, o.prefix, opts)
			pause := time.Duration(i%4) * 5 * time.Millisecond
			wg.Go(func() {
				if err := o.observe(ctx, w, pause, upTo); err != nil {
					t.Errorf("observer %d: %v", i, err)
				}
			})
		}
		for i := range 12 {
			watch(i)
		}
		storm(t, b, caches, 6, 60)
		for i := range 12 {
			watch(12 + i)
		}
		storm(t, b, caches, 6, 60)
		now, err := b.Current(ctx)
		if err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		end = now
		mu.Unlock()
		wg.Wait()
		events := history(t, b)
		for i, o := range observers {
			if diff := cmp.Diff(replay(t, events, o.prefix, o.from, o.match), o.got); diff != "" {
				t.Errorf("observer %d of %s from %d: %s", i, o.prefix, o.from, diff)
			}
		}
		sameState(t, b, caches...)
	})
}

// sameState compares consistent lists with the store itself.
func sameState(t *testing.T, b storage.Backend, caches ...*Cache) {
	t.Helper()
	for _, prefix := range []string{pods, nodes} {
		page, err := b.Range(bounded(t), prefix, storage.RangeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		want := []string{}
		for _, kv := range page.Items {
			o, err := indexTest(kv.Key, kv.Value, kv.ModRevision)
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, fmt.Sprintf("%s %s created %d", o.Name, o.Value, kv.CreateRevision))
		}
		for i, c := range caches {
			got := []string{}
			for _, o := range c.mustList(t, prefix, ListOptions{}).Items {
				got = append(got, fmt.Sprintf("%s %s created %d", o.Name, o.Value, o.CreateRevision))
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("cache %d, %s: %s", i, prefix, diff)
			}
		}
	}
}
