package storagetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"coracle/pkg/storage"
)

func testPrefixes(t *testing.T, b storage.Backend) {
	for _, key := range []string{
		"/registry/pods/ns1/a", "/registry/pods/ns1/b", "/registry/pods/ns10/a", "/registry/pods/ns2/a",
		"/registry/podsx/ns1/a", "/registry/pods", "/registry/pods0",
	} {
		mustPut(t, b, key, "x", 0)
	}
	for _, test := range []struct {
		prefix, after string
		want          []string
	}{
		{"/registry/pods/ns1/", "", []string{"/registry/pods/ns1/a", "/registry/pods/ns1/b"}},
		{"/registry/pods/ns1/", "/registry/pods/ns1/a", []string{"/registry/pods/ns1/b"}},
		{"/registry/pods/ns1/", "/registry/pods/ns1/b", nil},
		{"/registry/pods/", "/registry/pods/ns1/zz", []string{"/registry/pods/ns10/a", "/registry/pods/ns2/a"}},
		{"/registry/podsx/", "", []string{"/registry/podsx/ns1/a"}},
		{"/registry/none/", "", nil},
	} {
		page := mustRange(t, b, test.prefix, storage.RangeOptions{StartAfter: test.after})
		var got []string
		for _, kv := range page.Items {
			got = append(got, kv.Key)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("Range(%s after %s): %s", test.prefix, test.after, diff)
		}
		if page.Count != int64(len(test.want)) || page.More {
			t.Errorf("Range(%s after %s): count %d, more %t", test.prefix, test.after, page.Count, page.More)
		}
		counted := mustRange(t, b, test.prefix, storage.RangeOptions{StartAfter: test.after, CountOnly: true})
		if counted.Count != int64(len(test.want)) || len(counted.Items) != 0 {
			t.Errorf("counting %s after %s: %+v", test.prefix, test.after, counted)
		}
	}
}

// testPages reads pages of one revision while writers change everything, and
// compares them with the state of that revision.
func testPages(t *testing.T, b storage.Backend) {
	ctx, stop := context.WithCancel(testContext(t))
	const n = 100
	want := map[string]string{}
	for i := range n {
		key := fmt.Sprintf("/registry/pods/default/%03d", i)
		mustPut(t, b, key, key, 0)
		want[key] = key
	}
	at := current(t, b)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				key := fmt.Sprintf("/registry/pods/default/%03d", (w*25+i%25)%n)
				if kv, _, err := b.Get(ctx, key); err == nil && i%3 == 0 {
					_, _ = b.Delete(ctx, key, kv.ModRevision)
				} else if err == nil {
					_, _ = b.Put(ctx, key, fmt.Append(nil, i), kv.ModRevision, 0)
				}
				_, _ = b.Put(ctx, fmt.Sprintf("/registry/pods/default/%03d-%d", i%n, w), nil, 0, 0)
			}
		})
	}
	got := map[string]string{}
	opts := storage.RangeOptions{Limit: 7, Revision: at}
	for {
		page := mustRange(t, b, "/registry/pods/", opts)
		if page.Count != int64(n-len(got)) {
			t.Errorf("count %d after %d keys", page.Count, len(got))
		}
		for _, kv := range page.Items {
			got[kv.Key] = string(kv.Value)
		}
		if !page.More {
			break
		}
		if len(page.Items) != opts.Limit {
			t.Fatalf("a page of %d items, want %d", len(page.Items), opts.Limit)
		}
		opts.StartAfter = page.Items[len(page.Items)-1].Key
	}
	stop()
	wg.Wait()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the pages are not the state at %d: %s", at, diff)
	}
}

func testRangeRevisions(t *testing.T, b storage.Backend) {
	const key = "/registry/pods/default/a"
	first := mustPut(t, b, key, "1", 0)
	second := mustPut(t, b, key, "2", first)
	third := mustDelete(t, b, key, second)
	last := mustPut(t, b, "/registry/pods/default/b", "b", 0)
	for rev, want := range map[storage.Revision]string{first: "1", second: "2", third: ""} {
		page := mustRange(t, b, "/registry/pods/", storage.RangeOptions{Revision: rev})
		got := ""
		for _, kv := range page.Items {
			got += string(kv.Value)
		}
		if got != want {
			t.Errorf("at %d: %q, want %q", rev, got, want)
		}
		if page.Revision != last {
			t.Errorf("at %d: the header says %d, want the present %d", rev, page.Revision, last)
		}
	}
	_, err := b.Range(testContext(t), "/registry/pods/", storage.RangeOptions{Revision: last + 100})
	future, ok := errors.AsType[*storage.FutureRevisionError](err)
	if !ok || future.Asked != last+100 {
		t.Errorf("a range in the future: %v", err)
	}
}

func testCompaction(t *testing.T, b storage.Backend) {
	ctx := testContext(t)
	const key = "/registry/pods/default/a"
	first := mustPut(t, b, key, "1", 0)
	second := mustPut(t, b, key, "2", first)
	gone := mustPut(t, b, "/registry/pods/default/gone", "x", 0)
	deleted := mustDelete(t, b, "/registry/pods/default/gone", gone)
	last := mustPut(t, b, key, "3", second)

	if err := b.Compact(ctx, last+100); err == nil {
		t.Error("a compaction in the future succeeded")
	}
	if err := b.Compact(ctx, gone); err != nil {
		t.Fatal(err)
	}
	if err := b.Compact(ctx, second); err != nil {
		t.Errorf("compacting to an older revision: %v", err)
	}
	if now := current(t, b); now != last {
		t.Errorf("compaction moved the revision from %d to %d", last, now)
	}
	_, err := b.Range(ctx, "/registry/pods/", storage.RangeOptions{Revision: second})
	if !errors.Is(err, storage.ErrCompacted) {
		t.Errorf("a range before the compaction: %v", err)
	}
	if page := mustRange(t, b, "/registry/pods/", storage.RangeOptions{Revision: gone}); len(page.Items) != 2 {
		t.Errorf("a range at the compacted revision: %d items, want 2", len(page.Items))
	}
	if page := mustRange(t, b, "/registry/pods/", storage.RangeOptions{}); len(page.Items) != 1 || string(page.Items[0].Value) != "3" {
		t.Errorf("a range of now: %+v", page.Items)
	}
	events := collect(t, b, openWatch(t, b, "/registry/pods/", gone+1), last)
	want := []string{
		fmt.Sprintf("DELETE /registry/pods/default/gone@%d was /registry/pods/default/gone@%d(%d)=x", deleted, gone, gone),
		fmt.Sprintf("PUT %s@%d(%d)=3 was %s@%d(%d)=2", key, last, first, key, second, first),
	}
	if diff := cmp.Diff(want, describe(events)); diff != "" {
		t.Errorf("watch after the compaction: %s", diff)
	}
	wantCompactedWatch(t, b, first, gone)

	// The deletion itself is compacted: the key stays away.
	if err := b.Compact(ctx, last); err != nil {
		t.Fatal(err)
	}
	wantCompactedWatch(t, b, deleted, last)
	if page := mustRange(t, b, "/registry/pods/", storage.RangeOptions{}); len(page.Items) != 1 {
		t.Errorf("after compaction of a deletion: %+v", page.Items)
	}
}

func wantCompactedWatch(t *testing.T, b storage.Backend, from, compacted storage.Revision) {
	t.Helper()
	ctx := testContext(t)
	w, err := b.Watch(ctx, "/registry/pods/", storage.WatchOptions{From: from})
	if err == nil {
		defer w.Close()
		_, err = w.Next(ctx)
	}
	gone, ok := errors.AsType[*storage.CompactedError](err)
	if !ok || gone.Compacted != compacted {
		t.Errorf("a watch from %d: %v, want a CompactedError with %d", from, err, compacted)
	}
}
