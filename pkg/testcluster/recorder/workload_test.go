package recorder

import (
	"context"
	"flag"
	"math/rand/v2"
	"testing"
	"time"

	"coracle/pkg/storage"
	"coracle/pkg/storage/etcd"
	"coracle/pkg/storage/memory"
	"coracle/pkg/testcluster/history"
)

var (
	seed = flag.Uint64("seed", 0, "the seed of the workloads; 0 draws one")
	long = flag.Duration("long", 0, "run workloads one after another for so long")
)

func newSeed() uint64 {
	if *seed != 0 {
		return *seed
	}
	return rand.Uint64()
}

func newMemory(t *testing.T) storage.Backend { return closing(t, memory.New(memory.Config{})) }

func newEtcd(t *testing.T) storage.Backend {
	t.Helper()
	b, err := etcd.StartEmbedded(t.Context(), etcd.Config{DataDir: t.TempDir(), UnsafeNoFsync: true})
	if err != nil {
		t.Fatal(err)
	}
	return closing(t, b)
}

func closing(t *testing.T, b storage.Backend) storage.Backend {
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("close the store: %v", err)
		}
	})
	return b
}

// report fails the test with each violation.
func report(t *testing.T, h *history.History) {
	t.Helper()
	events := 0
	for _, w := range h.Watches {
		events += len(w.Events)
	}
	begin := time.Now()
	found := history.Check(h)
	t.Logf("%d changes, %d requests, %d lists, %d watches with %d events, %d compactions; checked in %s",
		len(h.Changes), len(h.Requests), len(h.Lists), len(h.Watches), events, len(h.Compactions), time.Since(begin).Round(time.Millisecond))
	for i, v := range found {
		if i == 20 {
			t.Errorf("and %d more", len(found)-i)
			break
		}
		t.Error(v)
	}
}

// covered fails the test when the workload did not do something of everything:
// a check of what never happens passes.
func covered(t *testing.T, h *history.History) {
	t.Helper()
	done := map[string]int{}
	for _, r := range h.Requests {
		done[string(r.Op)+" "+string(r.Outcome)]++
	}
	for _, l := range h.Lists {
		if l.Before != nil && l.Outcome == history.OK && len(l.Items) > 0 {
			done["page"]++
		}
		if l.Read.Exact && l.Outcome == history.OK {
			done["exact list"]++
		}
	}
	for _, w := range h.Watches {
		done["watch "+string(w.Origin)] += len(w.Events)
		for _, e := range w.Events {
			done[string(e.Type)]++
		}
	}
	for _, what := range []string{
		"create ok", "create already exists", "update ok", "update conflict", "patch ok", "patch not found", "apply ok",
		"delete ok", "delete conflict", "get ok", "get not found", "page", "exact list",
		"watch list", "watch initial", "ADDED", "MODIFIED", "DELETED", "BOOKMARK",
	} {
		if done[what] == 0 {
			t.Errorf("the workload did not do everything: no %q", what)
		}
	}
}

// lossy is a store that does every write and does not always get round to
// saying so.
func lossy(_ string, below storage.Backend) storage.Backend {
	ctx, when := context.Background(), &every{n: 25}
	answer := func(rev storage.Revision, err error) (storage.Revision, error) {
		if err == nil && when.now() {
			return 0, &storage.OutcomeUnknownError{Err: context.DeadlineExceeded}
		}
		return rev, err
	}
	return &stores{
		Backend: below,
		put: func(b storage.Backend, key string, value []byte, expect storage.Revision) (storage.Revision, error) {
			return answer(b.Put(ctx, key, value, expect, 0))
		},
		delete: func(b storage.Backend, key string, expect storage.Revision) (storage.Revision, error) {
			return answer(b.Delete(ctx, key, expect))
		},
	}
}

// TestWorkload runs the same random work over each kind of store and each kind
// of trouble; nothing that any client was told may break a rule.
func TestWorkload(t *testing.T) {
	for _, c := range []struct {
		name    string
		backend func(*testing.T) storage.Backend
		cfg     Config
	}{
		{"memory", newMemory, Config{}},
		{"memory, compacted and restarted", newMemory, Config{CompactEvery: 40, Restarts: 2}},
		{"two servers on memory", newMemory, Config{Servers: 2, Restarts: 1, CompactEvery: 60}},
		{"etcd", newEtcd, Config{Restarts: 1, CompactEvery: 100}},
		{"two servers on etcd", newEtcd, Config{Servers: 2, Restarts: 1}},
		{"two servers on memory, answers get lost", newMemory, Config{Servers: 2, Plants: Plants{Backend: lossy}}},
		{"two servers on etcd, compacted", newEtcd, Config{Servers: 2, Restarts: 1, CompactEvery: 40}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for begin := time.Now(); ; {
				c.cfg.Seed = newSeed()
				t.Logf("again with: go test ./pkg/testcluster/recorder -run '%s' -seed %d", t.Name(), c.cfg.Seed)
				c.cfg.Backend = c.backend(t)
				h := Run(t, c.cfg)
				report(t, h)
				covered(t, h)
				if time.Since(begin) >= *long || t.Failed() {
					return
				}
			}
		})
	}
}
