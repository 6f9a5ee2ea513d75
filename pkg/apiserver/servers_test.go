package apiserver_test

import (
	"fmt"
	"strconv"
	"sync"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/controlplane"
	"coracle/pkg/storage"
	"coracle/pkg/storage/memory"
	"coracle/pkg/testcluster"
)

func newMemory(t *testing.T) storage.Backend {
	t.Helper()
	backend := memory.New(memory.Config{})
	t.Cleanup(func() { closeIt(t, backend) })
	return backend
}

// onTwoServers runs a test against two API servers that share a backend.
func onTwoServers(t *testing.T, test func(t *testing.T, a, b *server)) {
	pair := func(t *testing.T, backend storage.Backend) {
		shared := []testcluster.Option{testcluster.WithBackend(backend),
			testcluster.WithConfig(func(c *controlplane.Config) { c.SoleWriter = false })}
		test(t, newServer(t, shared...), newServer(t, shared...))
	}
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		pair(t, newMemory(t))
	})
	t.Run("etcd", func(t *testing.T) {
		t.Parallel()
		pair(t, startEtcd(t))
	})
}

// checkReadAfterWriteElsewhere: RV-6. What one server acknowledged, the other
// shows to every consistent read.
func checkReadAfterWriteElsewhere(t *testing.T) {
	onTwoServers(t, func(t *testing.T, a, b *server) {
		ctx := t.Context()
		here, there := a.Client.CoreV1().ConfigMaps("default"), b.Client.CoreV1().ConfigMaps("default")
		for i := range 30 {
			cm := a.makeConfigMap(t, configMap(fmt.Sprintf("a%02d", i), "n", strconv.Itoa(i)))
			got, err := there.Get(ctx, cm.Name, metav1.GetOptions{})
			if err != nil || got.ResourceVersion != cm.ResourceVersion {
				t.Fatalf("get %d: %v %v", i, got, err)
			}
			list, err := there.List(ctx, metav1.ListOptions{})
			if err != nil || len(list.Items) != i+1 || revision(t, list) < revision(t, cm) {
				t.Fatalf("list after write %d: %d items at %s (%v)", i, len(list.Items), list.ResourceVersion, err)
			}
			if i%10 == 9 {
				seen := 0
				w := b.watch(t, configMaps("?watch=1&sendInitialEvents=true&allowWatchBookmarks=1&resourceVersionMatch=NotOlderThan"))
				for e := w.next(); e.Type != "BOOKMARK"; e = w.next() {
					seen++
				}
				if seen != i+1 {
					t.Fatalf("WatchList after write %d: %d items", i, seen)
				}
			}
			if i%3 == 0 {
				cm.Data["n"] = "x"
				if cm, err = there.Update(ctx, cm, metav1.UpdateOptions{}); err != nil {
					t.Fatal(err)
				}
				if got, err := here.Get(ctx, cm.Name, metav1.GetOptions{}); err != nil || got.Data["n"] != "x" {
					t.Fatalf("get after update: %v %v", got, err)
				}
			}
		}
		for i := range 30 {
			name := fmt.Sprintf("a%02d", i)
			if err := there.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			if _, err := here.Get(ctx, name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				t.Fatalf("get after delete: %v", err)
			}
		}
	})
}

// checkReplay: W-1, W-9, W-2. Watches on both servers, opened at different
// times, are the same exact history while many write.
func checkReplay(t *testing.T) {
	onTwoServers(t, func(t *testing.T, a, b *server) {
		begin := a.makeConfigMap(t, configMap("begin"))
		writers := []*server{a, b, a, b}
		early := []*stream{
			a.watch(t, configMaps("?watch=1&resourceVersion=%s", begin.ResourceVersion)),
			b.watch(t, configMaps("?watch=1&resourceVersion=%s", begin.ResourceVersion)),
		}
		var wg sync.WaitGroup
		for i, s := range writers {
			wg.Go(func() { writeMany(t, s, i) })
		}
		wg.Wait()
		a.makeConfigMap(t, configMap("end"))
		streams := append(early,
			a.watch(t, configMaps("?watch=1&resourceVersion=%s", begin.ResourceVersion)),
			b.watch(t, configMaps("?watch=1&resourceVersion=%s", begin.ResourceVersion)))
		var first []string
		for n, w := range streams {
			got := replay(t, w, revision(t, begin))
			if n == 0 {
				first = got
				continue
			}
			if len(got) != len(first) {
				t.Fatalf("watch %d has %d events, the first %d", n, len(got), len(first))
			}
			for i := range got {
				if got[i] != first[i] {
					t.Fatalf("event %d of watch %d is\n%s\nand of the first\n%s", i, n, got[i], first[i])
				}
			}
		}
	})
}

// writesOf is how many events writeMany makes.
const writesOf = 4 * 20

func writeMany(t *testing.T, s *server, id int) {
	ctx, cms := t.Context(), s.Client.CoreV1().ConfigMaps("default")
	for i := range 20 {
		name := fmt.Sprintf("w%d-%d", id, i%3)
		cm, err := cms.Create(ctx, configMap(name, "n", strconv.Itoa(i)), metav1.CreateOptions{})
		for n := 0; n < 2 && err == nil; n++ {
			cm.Data["n"] += "+"
			cm, err = cms.Update(ctx, cm, metav1.UpdateOptions{})
		}
		if err == nil {
			err = cms.Delete(ctx, name, metav1.DeleteOptions{})
		}
		if err != nil {
			t.Errorf("writer %d: %v", id, err)
			return
		}
	}
}

// replay reads a watch to the end mark and checks it against a model.
func replay(t *testing.T, w *stream, last int64) []string {
	t.Helper()
	var out []string
	state := map[string]texts{}
	for {
		e := w.next()
		if n := e.revision(t); n <= last {
			t.Fatalf("event %s %s is at %d, after one at %d", e.Type, e.Metadata.Name, n, last)
		} else {
			last = n
		}
		name := e.Metadata.Name
		before, there := state[name]
		legal := map[string]bool{"ADDED": !there, "MODIFIED": there && e.Data["n"] == before["n"]+"+", "DELETED": there && e.Data["n"] == before["n"]}
		if !legal[e.Type] {
			t.Fatalf("event %s %s with %v follows %v", e.Type, name, e.Data, before)
		}
		state[name] = e.Data
		if e.Type == "DELETED" {
			delete(state, name)
		}
		out = append(out, e.Type+" "+string(e.Object))
		if name == "end" {
			if len(out) != 4*writesOf+1 {
				t.Fatalf("%d events, want %d", len(out), 4*writesOf+1)
			}
			return out
		}
	}
}
