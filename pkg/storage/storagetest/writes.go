package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"coracle/pkg/storage"
)

func testLife(t *testing.T, b storage.Backend) {
	ctx := testContext(t)
	const key = "/registry/pods/default/a"
	_, before, err := b.Get(ctx, key)
	if !errors.Is(err, storage.ErrNotFound) || before == 0 {
		t.Fatalf("Get of a missing key: revision %d, error %v", before, err)
	}
	created := mustPut(t, b, key, "1", 0)
	if created != before+1 {
		t.Errorf("the first write is revision %d, want %d", created, before+1)
	}
	updated := mustPut(t, b, key, "2", created)
	kv, rev, err := b.Get(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	want := &storage.KV{Key: key, Value: []byte("2"), ModRevision: updated, CreateRevision: created}
	if diff := cmp.Diff(want, kv); diff != "" || rev != updated {
		t.Errorf("Get at %d, want %d: %s", rev, updated, diff)
	}
	deleted := mustDelete(t, b, key, updated)
	if deleted != updated+1 {
		t.Errorf("the deletion is revision %d, want %d", deleted, updated+1)
	}
	if _, rev, err := b.Get(ctx, key); !errors.Is(err, storage.ErrNotFound) || rev != deleted {
		t.Errorf("Get after the deletion: revision %d, error %v", rev, err)
	}
	again := mustPut(t, b, key, "3", 0)
	if kv, _, err := b.Get(ctx, key); err != nil || kv.CreateRevision != again {
		t.Errorf("the key made again is %+v, error %v, want CreateRevision %d", kv, err, again)
	}
}

func testConflicts(t *testing.T, b storage.Backend) {
	ctx := testContext(t)
	const key = "/registry/pods/default/a"
	first := mustPut(t, b, key, "1", 0)
	second := mustPut(t, b, key, "2", first)

	_, err := b.Put(ctx, key, []byte("x"), 0, 0)
	wantConflict(t, err, storage.ErrExists, "2")
	_, err = b.Put(ctx, key, []byte("x"), first, 0)
	wantConflict(t, err, storage.ErrConflict, "2")
	_, err = b.Delete(ctx, key, first)
	wantConflict(t, err, storage.ErrConflict, "2")
	_, err = b.Put(ctx, key+"b", []byte("x"), first, 0)
	wantConflict(t, err, storage.ErrNotFound, "")
	_, err = b.Delete(ctx, key+"b", first)
	wantConflict(t, err, storage.ErrNotFound, "")
	if _, err := b.Delete(ctx, key, 0); err == nil {
		t.Error("a deletion without a revision was accepted")
	}
	if rev := current(t, b); rev != second {
		t.Errorf("refused writes moved the revision from %d to %d", second, rev)
	}
}

// testWritersRace lets many writers increment one counter; each success must
// have seen the one before it.
func testWritersRace(t *testing.T, b storage.Backend) {
	ctx := testContext(t)
	const key, writers, each = "/registry/counters/a", 8, 25
	mustPut(t, b, key, "0", 0)
	var wg sync.WaitGroup
	var mu sync.Mutex
	wins := map[storage.Revision]int{} // expected revision -> how many won on it
	for range writers {
		wg.Go(func() {
			for done := 0; done < each; {
				kv, _, err := b.Get(ctx, key)
				if err != nil {
					t.Error(err)
					return
				}
				var n int
				fmt.Sscan(string(kv.Value), &n)
				_, err = b.Put(ctx, key, fmt.Append(nil, n+1), kv.ModRevision, 0)
				if errors.Is(err, storage.ErrConflict) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				wins[kv.ModRevision]++
				mu.Unlock()
				done++
			}
		})
	}
	wg.Wait()
	kv, _, err := b.Get(ctx, key)
	if err != nil || string(kv.Value) != fmt.Sprint(writers*each) {
		t.Errorf("the counter is %s, error %v, want %d", kv.Value, err, writers*each)
	}
	for rev, n := range wins {
		if n != 1 {
			t.Errorf("%d writers won on revision %d", n, rev)
		}
	}
}

// testDense shows that successful writes take consecutive revisions, each its
// own, and failed ones none.
func testDense(t *testing.T, b storage.Backend) {
	ctx := testContext(t)
	before := current(t, b)
	const writers, each = 8, 25
	seen := make([][]storage.Revision, writers)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				key := fmt.Sprintf("/registry/dense/%d/%d", w, i)
				rev, err := b.Put(ctx, key, []byte("x"), 0, 0)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := b.Put(ctx, key, []byte("y"), 0, 0); !errors.Is(err, storage.ErrExists) {
					t.Errorf("second create: %v", err)
				}
				seen[w] = append(seen[w], rev)
			}
		})
	}
	wg.Wait()
	all := map[storage.Revision]bool{}
	for _, revs := range seen {
		for i, rev := range revs {
			all[rev] = true
			if i > 0 && rev <= revs[i-1] {
				t.Errorf("revision %d after %d in one writer", rev, revs[i-1])
			}
		}
	}
	for i := range storage.Revision(writers * each) {
		if !all[before+1+i] {
			t.Errorf("revision %d was given to nobody", before+1+i)
		}
	}
	if rev := current(t, b); rev != before+writers*each {
		t.Errorf("the revision is %d, want %d", rev, before+writers*each)
	}
}

func testTTL(t *testing.T, b storage.Backend, ttl, longest time.Duration) {
	ctx, cancel := context.WithTimeout(t.Context(), longest+wait)
	defer cancel()
	put := func(key, value string, expect storage.Revision, ttl time.Duration) storage.Revision {
		rev, err := b.Put(ctx, key, []byte(value), expect, ttl)
		if err != nil {
			t.Fatal(err)
		}
		return rev
	}
	start := time.Now()
	w := openWatch(t, b, "/registry/events/", 0)
	put("/registry/events/stays", "1", 0, 0)
	short := put("/registry/events/goes", "1", 0, ttl)
	freed := put("/registry/events/freed", "1", 0, ttl)
	put("/registry/events/freed", "2", freed, 0)
	put("/registry/events/also", "1", 0, ttl)
	put("/registry/events/long", "1", 0, time.Hour)

	gone := map[string]*storage.KV{}
	for len(gone) < 2 {
		batch, err := w.Next(ctx)
		if err != nil {
			t.Fatalf("after %v only %v had expired: %v", time.Since(start), gone, err)
		}
		for _, ev := range batch.Events {
			if ev.Type == storage.Delete {
				gone[ev.KV.Key] = ev.Prev
			}
		}
	}
	if age := time.Since(start); age < ttl || age > longest {
		t.Errorf("keys expired after %v, want %v to %v", age, ttl, longest)
	}
	if prev := gone["/registry/events/goes"]; prev == nil || prev.ModRevision != short {
		t.Errorf("the deletion of goes carries %+v, want the value at %d", prev, short)
	}
	var left []string
	for _, kv := range mustRange(t, b, "/registry/events/", storage.RangeOptions{}).Items {
		left = append(left, kv.Key)
	}
	if diff := cmp.Diff([]string{"/registry/events/freed", "/registry/events/long", "/registry/events/stays"}, left); diff != "" {
		t.Errorf("left over: %s", diff)
	}
}

func testLimits(t *testing.T, b storage.Backend) {
	ctx := testContext(t)
	big := bytes.Repeat([]byte("x"), 1<<20)
	rev, err := b.Put(ctx, "/registry/big/a", big, 0, 0)
	if err != nil {
		t.Fatalf("a value of 1 MiB: %v", err)
	}
	if _, err := b.Put(ctx, "/registry/big/b", bytes.Repeat(big, 20), 0, 0); !errors.Is(err, storage.ErrTooLarge) {
		t.Errorf("a value of 20 MiB: %v, want ErrTooLarge", err)
	}
	if kv, _, err := b.Get(ctx, "/registry/big/a"); err != nil || !bytes.Equal(kv.Value, big) {
		t.Errorf("the big value did not come back: %v", err)
	}
	if now := current(t, b); now != rev {
		t.Errorf("the refused value moved the revision from %d to %d", rev, now)
	}
}

func testContexts(t *testing.T, b storage.Backend) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	before := current(t, b)
	_, _, getErr := b.Get(ended, "/registry/a/a")
	_, rangeErr := b.Range(ended, "/registry/a/", storage.RangeOptions{})
	_, putErr := b.Put(ended, "/registry/a/a", nil, 0, 0)
	_, deleteErr := b.Delete(ended, "/registry/a/a", 1)
	_, currentErr := b.Current(ended)
	for i, err := range []error{getErr, rangeErr, putErr, deleteErr, currentErr} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("call %d with an ended context: %v", i, err)
		}
	}
	if unknown, ok := errors.AsType[*storage.OutcomeUnknownError](putErr); ok {
		t.Errorf("a write that was never sent has an unknown outcome: %v", unknown)
	}
	if now := current(t, b); now != before {
		t.Errorf("calls with an ended context moved the revision from %d to %d", before, now)
	}
}

func testClose(t *testing.T, b storage.Backend) {
	ctx := testContext(t)
	w := openWatch(t, b, "/registry/", 0)
	failed := make(chan error, 1)
	go func() {
		_, err := w.Next(ctx)
		failed <- err
	}()
	if err := b.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	if err := <-failed; !errors.Is(err, storage.ErrClosed) {
		t.Errorf("the watch ended with %v, want ErrClosed", err)
	}
	if _, err := b.Put(ctx, "/registry/a/a", nil, 0, 0); !errors.Is(err, storage.ErrClosed) {
		t.Errorf("a write after Close: %v, want ErrClosed", err)
	}
	if _, _, err := b.Get(ctx, "/registry/a/a"); !errors.Is(err, storage.ErrClosed) {
		t.Errorf("a read after Close: %v, want ErrClosed", err)
	}
	if err := b.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}
