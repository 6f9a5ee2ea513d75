// Package storagetest holds every storage.Backend to the one contract. A
// backend's own test is one call of Run.
package storagetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"coracle/pkg/storage"
)

// Options say what a backend needs to be tested.
type Options struct {
	// Open makes an empty backend and closes it when the test ends.
	Open func(t *testing.T) storage.Backend
	// ShortTTL is a time to live that the test can wait for, and MaxTTL how
	// long a key with it may live at most.
	ShortTTL, MaxTTL time.Duration
}

// wait bounds everything that must happen.
const wait = 20 * time.Second

// Run runs the whole suite.
func Run(t *testing.T, opts Options) {
	tests := []struct {
		name string
		test func(t *testing.T, b storage.Backend)
	}{
		{"CreateGetUpdateDelete", testLife},
		{"Conflicts", testConflicts},
		{"WritersRace", testWritersRace},
		{"RevisionsAreDense", testDense},
		{"RangePrefixes", testPrefixes},
		{"RangePages", testPages},
		{"RangeRevisions", testRangeRevisions},
		{"WatchEvents", testWatchEvents},
		{"WatchWithoutPrev", testWatchWithoutPrev},
		{"WatchFromNow", testWatchFromNow},
		{"WatchFuture", testWatchFuture},
		{"WatchPrefix", testWatchPrefix},
		{"WatchReplay", testWatchReplay},
		{"WatchCloses", testWatchCloses},
		{"Progress", testProgress},
		{"Compaction", testCompaction},
		{"Limits", testLimits},
		{"Contexts", testContexts},
		{"HistoryEqualsModel", testModel},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.test(t, opts.Open(t)) })
	}
	t.Run("TimeToLive", func(t *testing.T) { testTTL(t, opts.Open(t), opts.ShortTTL, opts.MaxTTL) })
	t.Run("Close", func(t *testing.T) { testClose(t, opts.Open(t)) })
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	t.Cleanup(cancel)
	return ctx
}

func mustPut(t *testing.T, b storage.Backend, key, value string, expect storage.Revision) storage.Revision {
	t.Helper()
	rev, err := b.Put(testContext(t), key, []byte(value), expect, 0)
	if err != nil {
		t.Fatalf("Put(%s): %v", key, err)
	}
	return rev
}

func mustDelete(t *testing.T, b storage.Backend, key string, expect storage.Revision) storage.Revision {
	t.Helper()
	rev, err := b.Delete(testContext(t), key, expect)
	if err != nil {
		t.Fatalf("Delete(%s): %v", key, err)
	}
	return rev
}

func mustRange(t *testing.T, b storage.Backend, prefix string, opts storage.RangeOptions) *storage.Page {
	t.Helper()
	page, err := b.Range(testContext(t), prefix, opts)
	if err != nil {
		t.Fatalf("Range(%s, %+v): %v", prefix, opts, err)
	}
	return page
}

func current(t *testing.T, b storage.Backend) storage.Revision {
	t.Helper()
	rev, err := b.Current(testContext(t))
	if err != nil {
		t.Fatalf("Current: %v", err)
	}
	return rev
}

func openWatch(t *testing.T, b storage.Backend, prefix string, from storage.Revision) storage.Watch {
	t.Helper()
	w, err := b.Watch(t.Context(), prefix, storage.WatchOptions{From: from, Prev: true})
	if err != nil {
		t.Fatalf("Watch(%s, %d): %v", prefix, from, err)
	}
	t.Cleanup(w.Close)
	return w
}

// collect reads a watch until it has told everything up to a revision, asking
// for progress when nothing comes.
func collect(t *testing.T, b storage.Backend, w storage.Watch, upTo storage.Revision) []storage.Event {
	t.Helper()
	ctx := testContext(t)
	var events []storage.Event
	var last, progress storage.Revision
	for progress < upTo {
		short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		batch, err := w.Next(short)
		expired := short.Err() != nil
		cancel()
		if err != nil && expired && ctx.Err() == nil {
			if err := b.RequestProgress(ctx); err != nil {
				t.Fatalf("RequestProgress: %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("the watch ended at %d of %d: %v", progress, upTo, err)
		}
		for i, ev := range batch.Events {
			rev := ev.KV.ModRevision
			if rev < last || rev == last && i == 0 {
				t.Fatalf("event of %s at %d comes after %d in another batch", ev.KV.Key, rev, last)
			}
			if rev <= progress {
				t.Fatalf("event of %s at %d comes after the progress mark %d", ev.KV.Key, rev, progress)
			}
			last = rev
		}
		if batch.Progress < progress || batch.Progress < last {
			t.Fatalf("progress %d after progress %d and event %d", batch.Progress, progress, last)
		}
		progress = batch.Progress
		events = append(events, batch.Events...)
	}
	return events
}

// describe renders events for comparison.
func describe(events []storage.Event) []string {
	out := make([]string, 0, len(events))
	for _, ev := range events {
		s := fmt.Sprintf("%s %s@%d", ev.Type, ev.KV.Key, ev.KV.ModRevision)
		if ev.Type == storage.Put {
			s += fmt.Sprintf("(%d)=%s", ev.KV.CreateRevision, ev.KV.Value)
		}
		if ev.Prev != nil {
			s += fmt.Sprintf(" was %s@%d(%d)=%s", ev.Prev.Key, ev.Prev.ModRevision, ev.Prev.CreateRevision, ev.Prev.Value)
		}
		out = append(out, s)
	}
	return out
}

func wantConflict(t *testing.T, err, is error, current string) {
	t.Helper()
	conflict, ok := errors.AsType[*storage.ConflictError](err)
	if !ok || !errors.Is(err, is) {
		t.Fatalf("error %v, want a conflict that is %q", err, is)
	}
	for _, other := range []error{storage.ErrExists, storage.ErrNotFound, storage.ErrConflict} {
		if other != is && errors.Is(err, other) {
			t.Errorf("error %v is also %q", err, other)
		}
	}
	switch {
	case current == "" && conflict.Current != nil:
		t.Errorf("conflict carries %s, want nothing", conflict.Current.Value)
	case current != "" && (conflict.Current == nil || string(conflict.Current.Value) != current):
		t.Errorf("conflict carries %+v, want %s", conflict.Current, current)
	}
	if conflict.Revision == 0 {
		t.Error("conflict carries no revision")
	}
}
