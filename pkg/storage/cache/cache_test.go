package cache

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"coracle/pkg/storage"
)

func TestReadAfterWrite(t *testing.T) {
	c := start(t, newMemory(t), nil)
	o := c.mustCreate(t, pods+"default/a", "x;1")
	if string(o.Value) != fmt.Sprintf("@%d x;1", o.Revision) || o.CreateRevision != o.Revision {
		t.Errorf("created %+v", o)
	}
	for _, read := range []Read{{}, {Any: true}, {AtLeast: o.Revision}} {
		if got, err := c.Get(bounded(t), o.Key, read); err != nil || got != o {
			t.Errorf("Get(%+v) = %v, %v", read, got, err)
		}
	}
	updated := c.mustUpdate(t, o, "x;2")
	if updated.CreateRevision != o.Revision {
		t.Errorf("updated object was created at %d, want %d", updated.CreateRevision, o.Revision)
	}
	if _, err := c.Update(bounded(t), o.Key, []byte("x;3"), o.Revision, 0); !errors.Is(err, storage.ErrConflict) {
		t.Errorf("stale update: %v", err)
	} else {
		conflict, _ := errors.AsType[*storage.ConflictError](err)
		if now, err := c.Object(conflict.Current); err != nil || cmp.Diff(string(updated.Value), string(now.Value)) != "" {
			t.Errorf("the conflict carries %v, %v", now, err)
		}
	}
	deleted := c.mustDelete(t, updated)
	if want := fmt.Sprintf("@%d x;2", deleted.Revision); string(deleted.Value) != want || deleted.Revision <= updated.Revision {
		t.Errorf("deleted %s, want %s", deleted.Value, want)
	}
	if _, err := c.Get(bounded(t), o.Key, Read{}); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("Get after Delete: %v", err)
	}
	if again := c.mustCreate(t, o.Key, "x;4"); again.CreateRevision != again.Revision {
		t.Errorf("made again: %+v", again)
	}
}

func TestWatchBasics(t *testing.T) {
	c := start(t, newMemory(t), nil)
	a := c.mustCreate(t, pods+"default/a", "x;1")
	w := c.mustWatch(t, pods, WatchOptions{From: a.Revision})
	other := c.mustWatch(t, pods+"default/", WatchOptions{Initial: true, Consistent: true})
	c.mustCreate(t, pods+"default2/c", "x;other namespace")
	a2 := c.mustUpdate(t, a, "x;2")
	c.mustCreate(t, nodes+"n", "x;not a pod")
	a3 := c.mustDelete(t, a2)
	want := []string{
		fmt.Sprintf("ADDED c @%d x;other namespace", a.Revision+1),
		fmt.Sprintf("MODIFIED a @%d x;2", a2.Revision),
		fmt.Sprintf("DELETED a @%d x;2", a3.Revision),
	}
	if diff := cmp.Diff(want, w.take(t, 3)); diff != "" {
		t.Error(diff)
	}
	want = []string{
		fmt.Sprintf("ADDED a @%d x;1", a.Revision),
		fmt.Sprintf("INITIAL END %d", a.Revision),
		fmt.Sprintf("MODIFIED a @%d x;2", a2.Revision),
		fmt.Sprintf("DELETED a @%d x;2", a3.Revision),
	}
	if diff := cmp.Diff(want, other.take(t, 4)); diff != "" {
		t.Error(diff)
	}
	w.Close()
	if _, err := w.Next(bounded(t)); !errors.Is(err, storage.ErrClosed) {
		t.Errorf("Next after Close: %v", err)
	}
}

func TestWatchSelector(t *testing.T) {
	c := start(t, newMemory(t), nil)
	w := c.mustWatch(t, pods, WatchOptions{Match: labelled("in")})
	a := c.mustCreate(t, pods+"default/a", "out;1")
	in := c.mustUpdate(t, a, "in;2")
	in2 := c.mustUpdate(t, in, "in;3")
	out := c.mustUpdate(t, in2, "out;4")
	back := c.mustUpdate(t, out, "in;5")
	gone := c.mustDelete(t, back)
	want := []string{
		fmt.Sprintf("ADDED a @%d in;2", in.Revision),
		fmt.Sprintf("MODIFIED a @%d in;3", in2.Revision),
		fmt.Sprintf("DELETED a @%d in;3", out.Revision),
		fmt.Sprintf("ADDED a @%d in;5", back.Revision),
		fmt.Sprintf("DELETED a @%d in;5", gone.Revision),
	}
	if diff := cmp.Diff(want, w.take(t, 5)); diff != "" {
		t.Error(diff)
	}
}

func TestList(t *testing.T) {
	c := start(t, newMemory(t), nil)
	for i := range 10 {
		c.mustCreate(t, fmt.Sprintf("%sns1/%d", pods, i), map[bool]string{true: "even;", false: "odd;"}[i%2 == 0])
	}
	c.mustCreate(t, pods+"ns10/x", "even;")
	if l := c.mustList(t, pods+"ns1/", ListOptions{}); len(l.Items) != 10 || l.Remaining != 0 || l.Next != "" || l.Revision != c.Revision() {
		t.Errorf("List = %d items at %d, next %q, remaining %d", len(l.Items), l.Revision, l.Next, l.Remaining)
	}
	if l := c.mustList(t, pods, ListOptions{Match: labelled("even"), Limit: 4}); len(l.Items) != 4 || l.Remaining != -1 || l.Next != pods+"ns1/6" {
		t.Errorf("List = %q, next %q, remaining %d", values(l), l.Next, l.Remaining)
	}
	if l := c.mustList(t, pods+"none/", ListOptions{Read: Read{Any: true}}); l.Items == nil || len(l.Items) != 0 {
		t.Errorf("an empty list is %#v", l.Items)
	}
	if _, err := c.List(bounded(t), "/registry/unknown/", ListOptions{}); !errors.Is(err, ErrNoKind) {
		t.Errorf("List of no kind: %v", err)
	}
	for _, after := range []string{nodes + "a", pods + "ns1/../x", pods + "ns1"} {
		if _, err := c.List(bounded(t), pods+"ns1/", ListOptions{After: after}); !errors.Is(err, storage.ErrInvalidKey) {
			t.Errorf("List after %s: %v", after, err)
		}
	}
}
