package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/storage"
	"coracle/pkg/storage/memory"
)

// Test values are "label,label;content"; served with "@<revision> " in front.
// The value "corrupt" cannot be read.
func indexTest(key string, stored []byte, rev storage.Revision) (*Object, error) {
	s := string(stored)
	if s == "corrupt" {
		return nil, errors.New("not a value")
	}
	if strings.HasPrefix(s, "@") {
		_, s, _ = strings.Cut(s, " ")
	}
	labels, content, _ := strings.Cut(s, ";")
	parts := strings.Split(key, "/")
	o := &Object{
		Namespace: parts[len(parts)-2], Name: parts[len(parts)-1], UID: types.UID(content),
		Value: fmt.Appendf(nil, "@%d %s", rev, s), Labels: map[string]string{}, Fields: map[string]string{"labels": labels},
	}
	for label := range strings.SplitSeq(labels, ",") {
		o.Labels[label] = "true"
	}
	return o, nil
}

func labelled(label string) Predicate {
	return func(o *Object) bool { return o.Labels[label] != "" }
}

func fieldIs(value string) Predicate {
	return func(o *Object) bool { return o.Fields["labels"] == value }
}

const (
	pods  = "/registry/pods/"
	nodes = "/registry/nodes/"
)

func testKinds() []Kind {
	return []Kind{{Prefix: pods, Index: indexTest}, {Prefix: nodes, Index: indexTest}}
}

// start runs a cache over b until the test ends.
func start(t *testing.T, b storage.Backend, change func(*Config)) *Cache {
	t.Helper()
	c, stop := startStop(t, b, change)
	t.Cleanup(stop)
	return c
}

func startStop(t *testing.T, b storage.Backend, change func(*Config)) (*Cache, func()) {
	t.Helper()
	cfg := Config{Backend: b, Kinds: testKinds(), Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	if change != nil {
		change(&cfg)
	}
	c := New(cfg)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	if err := c.WaitReady(bounded(t)); err != nil {
		t.Fatal(err)
	}
	return c, func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

func newMemory(t *testing.T) *memory.Store {
	s := memory.New(memory.Config{})
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func (c *Cache) mustCreate(t *testing.T, key, value string) *Object {
	t.Helper()
	o, err := c.Create(bounded(t), key, []byte(value), 0)
	if err != nil {
		t.Fatalf("Create(%s): %v", key, err)
	}
	return o
}

func (c *Cache) mustUpdate(t *testing.T, o *Object, value string) *Object {
	t.Helper()
	o, err := c.Update(bounded(t), o.Key, []byte(value), o.Revision, 0)
	if err != nil {
		t.Fatalf("Update: %v", err)
	}
	return o
}

func (c *Cache) mustDelete(t *testing.T, o *Object) *Object {
	t.Helper()
	o, err := c.Delete(bounded(t), o.Key, o.Revision)
	if err != nil {
		t.Fatalf("Delete: %v", err)
	}
	return o
}

func (c *Cache) mustWatch(t *testing.T, prefix string, opts WatchOptions) *Watcher {
	t.Helper()
	w, err := c.Watch(bounded(t), prefix, opts)
	if err != nil {
		t.Fatalf("Watch(%s, %+v): %v", prefix, opts, err)
	}
	t.Cleanup(w.Close)
	return w
}

func (c *Cache) mustList(t *testing.T, prefix string, opts ListOptions) *List {
	t.Helper()
	l, err := c.List(bounded(t), prefix, opts)
	if err != nil {
		t.Fatalf("List(%s, %+v): %v", prefix, opts, err)
	}
	return l
}

// take reads n events, bookmarks included.
func (w *Watcher) take(t *testing.T, n int) []string {
	t.Helper()
	var out []string
	for len(out) < n {
		events, err := w.Next(bounded(t))
		if err != nil {
			t.Fatalf("after %q: %v", out, err)
		}
		out = append(out, show(events)...)
	}
	return out
}

// until reads events up to a revision.

func show(events []WatchEvent) []string {
	var out []string
	for _, ev := range events {
		switch {
		case ev.InitialEnd:
			out = append(out, fmt.Sprintf("INITIAL END %d", ev.Revision))
		case ev.Type == Bookmark:
			out = append(out, fmt.Sprintf("BOOKMARK %d", ev.Revision))
		default:
			out = append(out, fmt.Sprintf("%s %s %s", ev.Type, ev.Object.Name, ev.Object.Value))
		}
	}
	return out
}

func values(l *List) []string {
	out := []string{}
	for _, o := range l.Items {
		out = append(out, o.Name+" "+string(o.Value))
	}
	return out
}
