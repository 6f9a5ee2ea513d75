package cache

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"k8s.io/utils/clock"

	"coracle/pkg/storage"
)

// brokenClock panics once it is told to.
type brokenClock struct {
	clock.WithTicker
	broken bool
}

func (c *brokenClock) Now() time.Time {
	if c.broken {
		panic("no time")
	}
	return c.WithTicker.Now()
}

const brokenEnv = "CORACLE_TEST_BROKEN_CACHE"

// TestPanicEndsProcess breaks a cache in the middle of a change, in a process
// of its own that recovers the panics of its writers, as an HTTP server does:
// the process must end and say why, and not go on with a lock that is held.
func TestPanicEndsProcess(t *testing.T) {
	if os.Getenv(brokenEnv) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestPanicEndsProcess$", "-test.timeout=20s")
		cmd.Env = append(os.Environ(), brokenEnv+"=1")
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 2 || !bytes.Contains(out, []byte("the watch cache broke while it was being changed: no time")) {
			t.Fatalf("the process ended with %v:\n%s", err, out)
		}
		return
	}
	clk := &brokenClock{WithTicker: clock.RealClock{}}
	c := New(Config{Backend: newMemory(t), Kinds: testKinds(), Clock: clk})
	k := c.table().find(pods)
	defer func() { t.Errorf("the writer went on after %v", recover()) }()
	clk.broken = true
	c.exclusive(func() {
		c.applyLocked([]change{{key: pods + "default/a", rev: 1, kind: k, stored: []byte("in;1"), created: 1}}, 1)
	})
}

// TestPanicInIndex: a value that a kind panics at is corrupt, like any that
// cannot be read.
func TestPanicInIndex(t *testing.T) {
	c := start(t, newMemory(t), func(cfg *Config) {
		cfg.Kinds = []Kind{{Prefix: pods, Index: func(key string, stored []byte, rev storage.Revision) (*Object, error) {
			if string(stored) == "poison" {
				panic("an index out of range")
			}
			return indexTest(key, stored, rev)
		}}}
	})
	var corrupt *CorruptError
	if _, err := c.Create(bounded(t), pods+"default/a", []byte("poison"), 0); !errors.As(err, &corrupt) {
		t.Fatalf("create: %v", err)
	}
	if _, err := c.Get(bounded(t), pods+"default/a", Read{}); !errors.As(err, &corrupt) {
		t.Errorf("get: %v", err)
	}
	if _, err := c.Delete(bounded(t), pods+"default/a", corrupt.Revision); err != nil {
		t.Errorf("delete: %v", err)
	}
	c.mustCreate(t, pods+"default/a", "in;1")
}

// TestWatchKey: a watch of one object is woken by that object's events alone,
// and told all of them.
func TestWatchKey(t *testing.T) {
	c := start(t, newMemory(t), nil)
	o := c.mustCreate(t, pods+"ns/a", "in;1")
	only := func(o *Object) bool { return o.Name == "a" }
	w := c.mustWatch(t, pods+"ns/", WatchOptions{From: o.Revision, Key: o.Key, Match: only})
	same := c.mustWatch(t, pods+"ns/", WatchOptions{From: o.Revision, Key: o.Key, Match: only})
	if w.group != same.group {
		t.Error("two watches of one object are in two groups")
	}
	for i := range 100 {
		c.mustCreate(t, fmt.Sprintf("%sns/other%d", pods, i), "in;1")
	}
	c.mustUpdate(t, o, "in;2")
	for _, w := range []*Watcher{w, same} {
		if got := names(w.take(t, 1)); got[0] != "MODIFIED a" {
			t.Errorf("got %q", got)
		}
	}
	if n := w.group.ring.len(); n != 1 {
		t.Errorf("the ring of a watch of one object has %d events, want 1", n)
	}
}

// TestReplacedMemos: what replaced objects remember is bounded by its own
// share, and what present ones remember is not pushed out by it.
func TestReplacedMemos(t *testing.T) {
	c := start(t, newMemory(t), func(cfg *Config) { cfg.MemoBytes = 80_000 })
	encode := func(o *Object) {
		if _, err := o.Encoding("x", func() ([]byte, error) { return make([]byte, 1000), nil }); err != nil {
			t.Fatal(err)
		}
	}
	still := c.mustCreate(t, pods+"default/still", "in;1")
	encode(still)
	o := c.mustCreate(t, pods+"default/busy", "in;1")
	var old []*Object
	for range 500 {
		encode(o)
		old = append(old, o)
		o = c.mustUpdate(t, o, "in;1")
	}
	encode(old[0]) // a slow watcher comes last
	kept := 0
	for _, o := range old {
		if o.memo.list.Load() != nil {
			kept++
		}
	}
	b := c.memos
	if b.pastUsed > 10_000 || kept == 0 || kept > 10_000/1000 || len(b.entries) != 1 || b.used != b.entries[0].size {
		t.Errorf("%d replaced objects remember %d bytes, %d present ones %d", kept, b.pastUsed, len(b.entries), b.used)
	}
	if still.memo.list.Load() == nil || old[0].memo.list.Load() == nil || old[1].memo.list.Load() != nil {
		t.Error("the wrong ones have been forgotten")
	}
}
