package apiserver_test

import (
	"fmt"
	"strconv"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/resource"
	"coracle/pkg/testcluster"
)

// eachKind runs a test for every stored kind of the table, with the path of
// its objects and an example that can be created there.
func eachKind(t *testing.T, s *server, test func(t *testing.T, res *resource.Resource, path, name, body string)) {
	t.Helper()
	s.prepareExamples(t)
	for _, res := range s.Registry().Table().All() {
		if !res.Stored() {
			continue
		}
		u := example(t, res)
		ns := u.GetNamespace()
		if res.Namespaced && ns == "" {
			ns = "kinds"
		}
		t.Run(res.GroupResource().String(), func(t *testing.T) {
			test(t, res, kindPath(res, res.Version, ns), u.GetName(), string(mustJSON(t, u.Object)))
		})
	}
}

// checkVersionsOfEveryKind: RV-1, RV-3 for each kind of the table.
func checkVersionsOfEveryKind(t *testing.T) {
	s := newServer(t)
	eachKind(t, s, func(t *testing.T, res *resource.Resource, path, name, body string) {
		merge := contentType("application/merge-patch+json")
		var last int64
		grown := func(what string, a *answer) {
			t.Helper()
			got := &metav1.PartialObjectMetadata{}
			a.decode(t, got)
			if n := revision(t, got); n <= last {
				t.Errorf("%s is at %d, after %d", what, n, last)
			} else {
				last = n
			}
		}
		grown("the created object", s.must(t, 201, "POST", path, body, contentType(jsonBody)))
		w := s.watch(t, fmt.Sprintf("%s?watch=1&resourceVersion=%d&fieldSelector=metadata.name%%3D%s", path, last, name))
		seen := last
		grown("the changed object", s.must(t, 200, "PATCH", path+"/"+name, `{"metadata":{"labels":{"x":"1"}}}`, merge))
		s.must(t, 200, "DELETE", path+"/"+name+"?gracePeriodSeconds=0", "")
		// The server itself may write too, such as a definition's conditions.
		for changed := false; ; {
			e := w.next()
			if e.revision(t) <= seen {
				t.Errorf("%s is at %d, after %d", e.Type, e.revision(t), seen)
			}
			seen = e.revision(t)
			changed = changed || seen == last
			if e.Type == "DELETED" || e.Metadata.DeletionTimestamp != nil {
				if !changed || e.Metadata.Labels["x"] != "1" {
					t.Errorf("%s at %d with %v follows a change at %d (seen: %t)", e.Type, seen, e.Metadata.Labels, last, changed)
				}
				break
			}
		}
	})
}

// checkVersionOfDeletion: RV-3.
func checkVersionOfDeletion(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		cm := s.makeConfigMap(t, configMap("a", "k", "v"))
		w := s.watch(t, configMaps("?watch=1&resourceVersion=%s", cm.ResourceVersion))
		s.remove(t, "a")
		next := s.makeConfigMap(t, configMap("b"))
		e := w.want("DELETED", "a")
		if n := e.revision(t); n <= revision(t, cm) || n >= revision(t, next) {
			t.Errorf("the deletion is at %d, between %s and %s", n, cm.ResourceVersion, next.ResourceVersion)
		}
		if e.Data["k"] != "v" || e.Metadata.UID != cm.UID {
			t.Errorf("DELETED carries %s", e.Object)
		}
	})
}

// checkFrozenReplica: RV-4 and RV-6 on a server whose feed stands still.
func checkFrozenReplica(t *testing.T) {
	onReplica(t, func(t *testing.T, a, replica *server, feed *valve) {
		old := a.makeConfigMap(t, configMap("a", "k", "old"))
		replica.must(t, 200, "GET", configMaps("/a?resourceVersion=%s", old.ResourceVersion), "")
		resume := feed.stop()
		t.Cleanup(resume)
		now := old.DeepCopy()
		now.Data["k"] = "new"
		now, err := a.Client.CoreV1().ConfigMaps("default").Update(t.Context(), now, metav1.UpdateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for query, want := range map[string]string{"": "new", "?resourceVersion=0": "old", "?resourceVersion=" + old.ResourceVersion: "old"} {
			got := &corev1.ConfigMap{}
			replica.must(t, 200, "GET", configMaps("/a")+query, "").decode(t, got)
			if got.Data["k"] != want {
				t.Errorf("get%s: %s, want the %s state", query, got.Data["k"], want)
			}
			list := &corev1.ConfigMapList{}
			replica.must(t, 200, "GET", configMaps("")+query, "").decode(t, list)
			if len(list.Items) != 1 || list.Items[0].Data["k"] != want {
				t.Errorf("list%s: %v, want the %s state", query, list.Items, want)
			}
		}
		replica.must(t, 504, "GET", configMaps("/a?resourceVersion=%s", now.ResourceVersion), "").status(t)
		resume()
		got := &corev1.ConfigMap{}
		replica.must(t, 200, "GET", configMaps("/a?resourceVersion=%s", now.ResourceVersion), "").decode(t, got)
		if got.Data["k"] != "new" {
			t.Errorf("not older than the change: %v", got.Data)
		}
	})
}

// checkReadsNeverGoBack: RV-7. Readers go from server to server, of which one
// is behind, while others write; one server starts anew meanwhile.
func checkReadsNeverGoBack(t *testing.T) {
	onReplica(t, func(t *testing.T, a, replica *server, feed *valve) {
		var writer sync.WaitGroup
		a.makeConfigMap(t, configMap("a", "n", "0"))
		stop := make(chan struct{})
		writer.Go(func() {
			for n := 1; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				body := fmt.Sprintf(`{"data":{"n":%q}}`, strconv.Itoa(n))
				a.must(t, 200, "PATCH", configMaps("/a"), body, contentType("application/merge-patch+json"))
			}
		})
		defer func() { close(stop); writer.Wait() }()
		resume := func() {}
		defer func() { resume() }()
		var version int64
		n := -1
		for i := range 60 {
			switch i {
			case 20:
				resume = feed.stop()
			case 26:
				resume()
				replica = newServer(t, testcluster.WithBackend(feed), soleWriter(false))
			}
			s := []*server{a, replica}[i%2]
			list := &corev1.ConfigMapList{}
			s.must(t, 200, "GET", configMaps(""), "").decode(t, list)
			got := &corev1.ConfigMap{}
			s.must(t, 200, "GET", configMaps("/a"), "").decode(t, got)
			first, then := number(t, list.Items[0].Data["n"]), number(t, got.Data["n"])
			if first < n || then < first || revision(t, list) < version {
				t.Fatalf("read %d: a list with %d at %s and a get of %d, after %d at %d", i, first, list.ResourceVersion, then, n, version)
			}
			n, version = then, max(revision(t, list), revision(t, got))
		}
	})
}

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// checkUnknownOutcome: OC-5.
func checkUnknownOutcome(t *testing.T) {
	onReplica(t, func(t *testing.T, _, s *server, feed *valve) {
		s.makeConfigMap(t, configMap("a"))
		for _, write := range []struct{ method, path, body, kind string }{
			{"POST", configMaps(""), `{"metadata":{"name":"b"}}`, jsonBody},
			{"POST", configMaps(""), `{"metadata":{"generateName":"c"}}`, jsonBody},
			{"PATCH", configMaps("/a"), `{"data":{"k":"v"}}`, "application/merge-patch+json"},
			{"PATCH", configMaps("/d?fieldManager=m"), `{"kind":"ConfigMap","apiVersion":"v1"}`, applyBody},
		} {
			feed.mu.Lock()
			feed.dark, feed.puts = 1, 0
			feed.mu.Unlock()
			a := s.must(t, 504, write.method, write.path, write.body, contentType(write.kind))
			if status := a.status(t); status.Reason != metav1.StatusReasonTimeout {
				t.Errorf("%s: %v", write.method, status)
			}
			feed.mu.Lock()
			if feed.puts != 1 {
				t.Errorf("%s %s was sent to the store %d times", write.method, write.path, feed.puts)
			}
			feed.mu.Unlock()
		}
		list := &corev1.ConfigMapList{}
		s.must(t, 200, "GET", configMaps(""), "").decode(t, list)
		if len(list.Items) != 4 {
			t.Errorf("%d objects, want each write done once", len(list.Items))
		}
	})
}
