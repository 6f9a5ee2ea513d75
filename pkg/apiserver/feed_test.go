package apiserver_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	testingclock "k8s.io/utils/clock/testing"

	"coracle/pkg/storage"
	"coracle/pkg/testcluster"
)

// checkListThenWatch: W-2. A watch from a list's version, begun while others
// write, has every later change once.
func checkListThenWatch(t *testing.T) {
	onTwoServers(t, func(t *testing.T, a, b *server) {
		const objects = 8
		for i := range objects {
			a.makeConfigMap(t, configMap(fmt.Sprintf("c%02d", i), "n", "0"))
		}
		stop := make(chan struct{})
		var writers sync.WaitGroup
		defer func() { close(stop); writers.Wait() }()
		for id, s := range []*server{a, b} {
			writers.Go(func() { churn(t, s, id, objects, stop) })
		}
		for i := range 10 {
			s := []*server{a, b}[i%2]
			list := &corev1.ConfigMapList{}
			s.must(t, 200, "GET", configMaps(""), "").decode(t, list)
			state := map[string]int{}
			for _, cm := range list.Items {
				state[cm.Name] = number(t, cm.Data["n"])
			}
			w := s.watch(t, configMaps("?watch=1&resourceVersion=%s", list.ResourceVersion))
			for range 20 {
				e := w.next()
				if n := number(t, e.Data["n"]); e.Type != "MODIFIED" || e.revision(t) <= revision(t, list) || n <= state[e.Metadata.Name] {
					t.Fatalf("%s %s with %d at %d follows %d, the list was at %s", e.Type, e.Metadata.Name, n, e.revision(t), state[e.Metadata.Name], list.ResourceVersion)
				} else {
					state[e.Metadata.Name] = n
				}
			}
		}
	})
}

// checkBookmarks: W-4.
func checkBookmarks(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		cm := s.makeConfigMap(t, configMap("a"))
		silent := s.watch(t, configMaps("?watch=1&timeoutSeconds=1&resourceVersion=%s", cm.ResourceVersion))
		asked := s.watch(t, configMaps("?watch=1&timeoutSeconds=1&allowWatchBookmarks=true&resourceVersion=%s", cm.ResourceVersion))
		silent.wantEnd()
		e := asked.want("BOOKMARK", "")
		want := fmt.Sprintf(`{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":%q}}`, e.Metadata.ResourceVersion)
		if string(e.Object) != want {
			t.Errorf("a bookmark is %s, want %s", e.Object, want)
		}
		asked.wantEnd()
		s.makeConfigMap(t, configMap("b"))
		s.watch(t, configMaps("?watch=1&resourceVersion=%s", e.Metadata.ResourceVersion)).want("ADDED", "b")
	})
}

// checkSlowWatcher: W-7. A watcher that does not read loses nothing, and others
// do not wait for it.
func checkSlowWatcher(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		begin := s.makeConfigMap(t, configMap("begin"))
		slow := s.watch(t, configMaps("?watch=1&resourceVersion=%s", begin.ResourceVersion))
		quick := s.watch(t, configMaps("?watch=1&resourceVersion=%s", begin.ResourceVersion))
		large := strings.Repeat("x", 64<<10)
		const writes = 40 // ten times what the transport holds for a reader
		for i := range writes {
			name := fmt.Sprintf("c%d", i)
			s.makeConfigMap(t, configMap(name, "k", large))
			quick.want("ADDED", name)
		}
		for i := range writes {
			if e := slow.want("ADDED", fmt.Sprintf("c%d", i)); len(e.Data["k"]) != len(large) {
				t.Fatalf("event %d carries %d bytes", i, len(e.Data["k"]))
			}
		}
	})
}

// checkSilentFeed: W-8 as seen from outside.
func checkSilentFeed(t *testing.T) {
	store := newMemory(t)
	feed := &valve{Backend: store}
	clock := testingclock.NewFakeClock(time.Now())
	a := newServer(t, testcluster.WithBackend(store), soleWriter(false))
	s := newServer(t, testcluster.WithBackend(feed), testcluster.WithClock(clock), soleWriter(false))
	s.must(t, 200, "GET", "/readyz", "")
	resume := feed.stop()
	defer resume()
	a.makeConfigMap(t, configMap("a"))
	await := func(code int, step time.Duration) {
		t.Helper()
		deadline := time.Now().Add(patience)
		for got := 0; got != code; {
			clock.Step(step)
			answer := s.do(t, "GET", "/readyz/watch-cache", "")
			if got = answer.code; time.Now().After(deadline) {
				t.Fatalf("/readyz/watch-cache stays %d: %s", got, answer.body)
			}
		}
	}
	await(500, time.Second)
	s.must(t, 500, "GET", "/readyz", "")
	s.must(t, 200, "GET", "/livez", "")
	resume()
	await(200, 100*time.Millisecond)
	list := &corev1.ConfigMapList{}
	s.must(t, 200, "GET", configMaps("?resourceVersion=0"), "").decode(t, list)
	if len(list.Items) != 1 {
		t.Errorf("the cache healed with %d objects", len(list.Items))
	}
}

// checkCompaction: W-10. History is compacted all the time while objects come
// and go; every watcher that follows ends with what is there.
func checkCompaction(t *testing.T) {
	onReplica(t, func(t *testing.T, a, b *server, feed *valve) {
		begin := a.makeConfigMap(t, configMap("begin"))
		streams := []*stream{
			a.watch(t, configMaps("?watch=1&resourceVersion=%s", begin.ResourceVersion)),
			b.watch(t, configMaps("?watch=1&resourceVersion=%s", begin.ResourceVersion)),
		}
		var writers sync.WaitGroup
		done := make(chan struct{})
		for i, s := range []*server{a, b} {
			writers.Go(func() { writeMany(t, s, i) })
		}
		go func() { writers.Wait(); close(done) }()
		for compacting := true; compacting; {
			select {
			case <-done:
				compacting = false
			default:
				rev, err := feed.Current(t.Context())
				if err == nil {
					err = feed.Compact(t.Context(), rev)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		a.makeConfigMap(t, configMap("end"))
		for n, s := range []*server{a, b} {
			list := &corev1.ConfigMapList{}
			s.must(t, 200, "GET", configMaps(""), "").decode(t, list)
			if len(list.Items) != 2 {
				t.Errorf("server %d lists %d objects, want the first and the last", n, len(list.Items))
			}
		}
		for n, w := range streams {
			// Where the feed was overtaken, the watch ends with 410 and the list
			// tells.
			present := map[string]bool{}
			e := w.next()
			for ; e.Metadata.Name != "end" && e.Type != "ERROR"; e = w.next() {
				present[e.Metadata.Name] = e.Type != "DELETED"
			}
			if e.Type == "ERROR" {
				if e.Code != 410 {
					t.Errorf("watch %d ended with %d", n, e.Code)
				}
				continue
			}
			for name, there := range present {
				if there {
					t.Errorf("watch %d never heard that %s was deleted", n, name)
				}
			}
		}
	})
}

// checkRestart: W-11.
func checkRestart(t *testing.T) {
	restart := func(t *testing.T, backend storage.Backend) {
		s := newServer(t, testcluster.WithBackend(backend))
		begin := s.makeConfigMap(t, configMap("begin"))
		s.makeConfigMap(t, configMap("a"))
		s.remove(t, "a")
		s = newServer(t, testcluster.WithBackend(backend))
		w := s.watch(t, configMaps("?watch=1&resourceVersion=%s", begin.ResourceVersion))
		w.want("ADDED", "a")
		w.want("DELETED", "a")
		s.makeConfigMap(t, configMap("b"))
		w.want("ADDED", "b")
	}
	t.Run("memory", func(t *testing.T) { restart(t, newMemory(t)) })
	t.Run("etcd", func(t *testing.T) { restart(t, startEtcd(t)) })
}
