package storagetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"coracle/pkg/storage"
)

func testWatchEvents(t *testing.T, b storage.Backend) {
	const key = "/registry/pods/default/a"
	w := openWatch(t, b, "/registry/", 0)
	r1 := mustPut(t, b, key, "1", 0)
	r2 := mustPut(t, b, key, "2", r1)
	r3 := mustDelete(t, b, key, r2)
	r4 := mustPut(t, b, key, "4", 0)
	want := []string{
		fmt.Sprintf("PUT %s@%d(%d)=1", key, r1, r1),
		fmt.Sprintf("PUT %s@%d(%d)=2 was %s@%d(%d)=1", key, r2, r1, key, r1, r1),
		fmt.Sprintf("DELETE %s@%d was %s@%d(%d)=2", key, r3, key, r2, r1),
		fmt.Sprintf("PUT %s@%d(%d)=4", key, r4, r4),
	}
	if diff := cmp.Diff(want, describe(collect(t, b, w, r4))); diff != "" {
		t.Error(diff)
	}
}

func testWatchWithoutPrev(t *testing.T, b storage.Backend) {
	const key = "/registry/pods/default/a"
	w, err := b.Watch(testContext(t), "/registry/", storage.WatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	r1 := mustPut(t, b, key, "1", 0)
	r2 := mustDelete(t, b, key, r1)
	want := []string{fmt.Sprintf("PUT %s@%d(%d)=1", key, r1, r1), fmt.Sprintf("DELETE %s@%d", key, r2)}
	if diff := cmp.Diff(want, describe(collect(t, b, w, r2))); diff != "" {
		t.Error(diff)
	}
}

func testWatchFromNow(t *testing.T, b storage.Backend) {
	before := mustPut(t, b, "/registry/pods/default/a", "1", 0)
	w := openWatch(t, b, "/registry/", 0)
	after := mustPut(t, b, "/registry/pods/default/a", "2", before)
	events := collect(t, b, w, after)
	if len(events) != 1 || events[0].KV.ModRevision != after {
		t.Errorf("got %v, want only the write at %d", describe(events), after)
	}
}

func testWatchFuture(t *testing.T, b storage.Backend) {
	now := current(t, b)
	w := openWatch(t, b, "/registry/", now+3)
	var last storage.Revision
	for i := range 4 {
		last = mustPut(t, b, fmt.Sprintf("/registry/pods/default/%d", i), "x", 0)
	}
	events := collect(t, b, w, last)
	if len(events) != 2 || events[0].KV.ModRevision != now+3 {
		t.Errorf("a watch from %d told %v", now+3, describe(events))
	}
}

func testWatchPrefix(t *testing.T, b storage.Backend) {
	start := current(t, b)
	mustPut(t, b, "/registry/pods/ns1/a", "x", 0)
	mustPut(t, b, "/registry/pods/ns10/a", "x", 0)
	mustPut(t, b, "/registry/podsx/ns1/a", "x", 0)
	last := mustPut(t, b, "/registry/pods/ns1/b", "x", 0)
	for prefix, want := range map[string]int{"/registry/pods/ns1/": 2, "/registry/pods/": 3, "/registry/": 4, "/registry/none/": 0} {
		if events := collect(t, b, openWatch(t, b, prefix, start+1), last); len(events) != want {
			t.Errorf("under %s: %v, want %d events", prefix, describe(events), want)
		}
	}
}

// testWatchReplay opens a watch at every revision of a history.
func testWatchReplay(t *testing.T, b storage.Backend) {
	start := current(t, b)
	last := randomWrites(t, b, 60, 1)
	all := collect(t, b, openWatch(t, b, "/registry/", start+1), last)
	if len(all) != 60 {
		t.Fatalf("the history has %d events, want 60", len(all))
	}
	for i := 0; i < len(all); i += 1 + i%4 {
		from := all[i].KV.ModRevision
		got := describe(collect(t, b, openWatch(t, b, "/registry/", from), last))
		if diff := cmp.Diff(describe(all[i:]), got); diff != "" {
			t.Fatalf("from %d: %s", from, diff)
		}
	}
}

func testWatchCloses(t *testing.T, b storage.Backend) {
	ctx := testContext(t)
	w := openWatch(t, b, "/registry/", 0)
	short, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := w.Next(short); !errors.Is(err, context.Canceled) {
		t.Errorf("Next with an ended context: %v", err)
	}
	rev := mustPut(t, b, "/registry/pods/default/a", "1", 0)
	if events := collect(t, b, w, rev); len(events) != 1 {
		t.Errorf("after an ended Next the watch told %v", describe(events))
	}
	failed := make(chan error, 1)
	go func() {
		for {
			if _, err := w.Next(ctx); err != nil {
				failed <- err
				return
			}
		}
	}()
	w.Close()
	if err := <-failed; !errors.Is(err, storage.ErrClosed) {
		t.Errorf("the watch ended with %v, want ErrClosed", err)
	}
}

// testProgress shows that a watch of a quiet prefix learns of the revisions of
// others.
func testProgress(t *testing.T, b storage.Backend) {
	w := openWatch(t, b, "/registry/quiet/", 0)
	last := randomWrites(t, b, 20, 2)
	if events := collect(t, b, w, last); len(events) != 0 {
		t.Errorf("a quiet prefix told %v", describe(events))
	}
}

// testModel makes a random history and compares the watch of it, and the state
// at every revision, with a model.
func testModel(t *testing.T, b storage.Backend) {
	start := current(t, b)
	live := openWatch(t, b, "/registry/", 0)
	last := randomWrites(t, b, 200, 3)
	events := collect(t, b, openWatch(t, b, "/registry/", start+1), last)
	if diff := cmp.Diff(describe(events), describe(collect(t, b, live, last))); diff != "" {
		t.Errorf("the live watch and the replay differ: %s", diff)
	}
	model := map[string]storage.KV{}
	for i, ev := range events {
		if want := start + 1 + storage.Revision(i); ev.KV.ModRevision != want {
			t.Fatalf("event %d is at revision %d, want %d", i, ev.KV.ModRevision, want)
		}
		var prev *storage.KV
		if kv, ok := model[ev.KV.Key]; ok {
			prev = &kv
		}
		if diff := cmp.Diff(prev, ev.Prev); diff != "" {
			t.Fatalf("event at %d carries another previous value: %s", ev.KV.ModRevision, diff)
		}
		if ev.Type == storage.Delete {
			delete(model, ev.KV.Key)
		} else {
			model[ev.KV.Key] = ev.KV
		}
		if i%10 == 0 {
			checkState(t, b, ev.KV.ModRevision, model)
		}
	}
	checkState(t, b, 0, model)
}

func checkState(t *testing.T, b storage.Backend, rev storage.Revision, model map[string]storage.KV) {
	t.Helper()
	page := mustRange(t, b, "/registry/", storage.RangeOptions{Revision: rev})
	want := slices.SortedFunc(maps.Values(model), func(a, b storage.KV) int { return strings.Compare(a.Key, b.Key) })
	if diff := cmp.Diff(want, page.Items); diff != "" {
		t.Fatalf("the state at %d is not the model's: %s", rev, diff)
	}
}

// randomWrites makes n changes of a few keys and returns the last revision.
func randomWrites(t *testing.T, b storage.Backend, n int, seed uint64) storage.Revision {
	t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 0))
	at := map[string]storage.Revision{}
	var last storage.Revision
	for i := range n {
		key := fmt.Sprintf("/registry/pods/ns%d/%d", rnd.IntN(3), rnd.IntN(6))
		if at[key] != 0 && rnd.IntN(3) == 0 {
			last = mustDelete(t, b, key, at[key])
			delete(at, key)
			continue
		}
		last = mustPut(t, b, key, fmt.Sprint("value ", i), at[key])
		at[key] = last
	}
	return last
}
