package apiserver_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
)

func (s *server) label(t *testing.T, name, value string) *corev1.ConfigMap {
	t.Helper()
	cm, err := s.Client.CoreV1().ConfigMaps("default").Patch(t.Context(), name, types.MergePatchType,
		fmt.Appendf(nil, `{"metadata":{"labels":{"l":%s}}}`, value), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return cm
}

func (s *server) remove(t *testing.T, name string) {
	t.Helper()
	if err := s.Client.CoreV1().ConfigMaps("default").Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// checkWatchSelector: W-3.
func checkWatchSelector(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		begin := s.makeConfigMap(t, configMap("a"))
		w := s.watch(t, configMaps("?watch=1&labelSelector=l%%3D1&resourceVersion=%s", begin.ResourceVersion))
		in := s.label(t, "a", `"1"`)
		out := s.label(t, "a", `"2"`)
		s.label(t, "a", `"3"`)
		again := s.label(t, "a", `"1"`)
		s.remove(t, "a")
		if e := w.want("ADDED", "a"); e.Metadata.ResourceVersion != in.ResourceVersion {
			t.Errorf("entering: ADDED at %s, want %s", e.Metadata.ResourceVersion, in.ResourceVersion)
		}
		if e := w.want("DELETED", "a"); e.Metadata.ResourceVersion != out.ResourceVersion || e.Metadata.Labels["l"] != "1" {
			t.Errorf("leaving: DELETED at %s with %v, want the last state that matched at %s", e.Metadata.ResourceVersion, e.Metadata.Labels, out.ResourceVersion)
		}
		if e := w.want("ADDED", "a"); e.Metadata.ResourceVersion != again.ResourceVersion {
			t.Errorf("entering again: ADDED at %s, want %s", e.Metadata.ResourceVersion, again.ResourceVersion)
		}
		w.want("DELETED", "a")
	})
}

// TestWatchForms: the old form without a version, at version 0, from now, by
// name, and through /watch/.
func TestWatchForms(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		s.makeConfigMap(t, configMap("a"))
		b := s.makeConfigMap(t, configMap("b"))
		for _, path := range []string{configMaps("?watch=1"), configMaps("?watch=true&resourceVersion=0"), "/api/v1/watch/namespaces/default/configmaps",
			configMaps("?watch=1&fieldSelector=metadata.namespace%%3Ddefault"), "/api/v1/configmaps?watch=1&fieldSelector=metadata.namespace%3Ddefault"} {
			w := s.watch(t, path)
			w.want("ADDED", "a")
			w.want("ADDED", "b")
		}
		one := s.watch(t, "/api/v1/watch/namespaces/default/configmaps/b?resourceVersion="+b.ResourceVersion)
		field := s.watch(t, configMaps("?watch=1&resourceVersion=%s&fieldSelector=metadata.name%%3Db", b.ResourceVersion))
		s.label(t, "a", `"1"`)
		s.label(t, "b", `"1"`)
		one.want("MODIFIED", "b")
		field.want("MODIFIED", "b")
	})
}

// checkWatchEnds: timeoutSeconds is a clean end, with a bookmark where one was
// asked for; HEAD and YAML have no stream.
func checkWatchEnds(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		cm := s.makeConfigMap(t, configMap("a"))
		began := time.Now()
		w := s.watch(t, configMaps("?watch=1&timeoutSeconds=1&resourceVersion=%s", cm.ResourceVersion))
		w.wantEnd()
		if took := time.Since(began); took < 900*time.Millisecond || took > 5*time.Second {
			t.Errorf("a watch of one second took %s", took)
		}
		w = s.watch(t, configMaps("?watch=1&timeoutSeconds=1&allowWatchBookmarks=true&resourceVersion=%s", cm.ResourceVersion))
		s.makeConfigMap(t, configMap("b"))
		last := w.want("ADDED", "b")
		e := w.want("BOOKMARK", "")
		if e.revision(t) < last.revision(t) || e.Kind != "ConfigMap" || e.APIVersion != "v1" || e.Metadata.UID != "" || e.Metadata.Annotations != nil {
			t.Errorf("the last bookmark is %s", e.Object)
		}
		w.wantEnd()
		s.must(t, 406, "GET", configMaps("?watch=1"), "", accept("application/yaml"))
	})
}

// checkInitialEvents: W-5. The state first, then always the mark.
func checkInitialEvents(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		const list = "?watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
		mark := func(w *stream, at int64) {
			t.Helper()
			e := w.want("BOOKMARK", "")
			if e.Metadata.Annotations["k8s.io/initial-events-end"] != "true" || e.revision(t) < at || len(e.Metadata.Annotations) != 1 {
				t.Fatalf("the mark is %s, want one at %d or later", e.Object, at)
			}
		}
		mark(s.watch(t, configMaps(list)), 1)
		s.makeConfigMap(t, configMap("a"))
		b := s.makeConfigMap(t, configMap("b"))
		for _, version := range []string{"", "&resourceVersion=0", "&resourceVersion=" + b.ResourceVersion} {
			w := s.watch(t, configMaps(list)+version)
			w.want("ADDED", "a")
			w.want("ADDED", "b")
			mark(w, revision(t, b))
		}
		// A selector that matches nothing has its mark too.
		mark(s.watch(t, configMaps(list)+"&labelSelector=none"), revision(t, b))
		w := s.watch(t, configMaps("?watch=1&sendInitialEvents=false&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"))
		s.makeConfigMap(t, configMap("c"))
		w.want("ADDED", "c")
		for _, bad := range []string{
			"?watch=1&sendInitialEvents=true", "?watch=1&sendInitialEvents=true&allowWatchBookmarks=true",
			"?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan", "?watch=1&resourceVersionMatch=NotOlderThan&resourceVersion=1",
			"?watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=Exact&resourceVersion=1",
			"?sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=1",
		} {
			a := s.must(t, 422, "GET", configMaps("")+bad, "")
			if status := a.status(t); status.Reason != metav1.StatusReasonInvalid {
				t.Errorf("%s: %v", bad, status)
			}
		}
		s.must(t, 422, "GET", configMaps("?watch=1&sendInitialEvents=maybe"), "") // that is a yes
	})
}

// checkInitialEventsForms: W-5 as Table and as metadata.
func checkInitialEventsForms(t *testing.T) {
	s := newServer(t)
	s.makeConfigMap(t, configMap("a"))
	const list = "?watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
	type table struct {
		Kind              string
		Metadata          metav1.ListMeta
		ColumnDefinitions []metav1.TableColumnDefinition
		Rows              []struct{ Object object }
	}
	w := s.watch(t, configMaps(list), accept("application/json;as=Table;v=v1;g=meta.k8s.io"))
	for i, name := range []string{"a", "", "b"} {
		if i == 2 {
			s.makeConfigMap(t, configMap("b"))
		}
		got := table{}
		(&answer{body: w.next().Object}).decode(t, &got)
		if got.Kind != "Table" || len(got.Rows) != 1 || got.Rows[0].Object.Metadata.Name != name || (i == 0) != (len(got.ColumnDefinitions) > 0) {
			t.Fatalf("event %d is %+v", i, got)
		}
		if mark := got.Rows[0].Object.Metadata.Annotations["k8s.io/initial-events-end"]; (mark == "true") != (i == 1) {
			t.Fatalf("event %d: mark %q", i, mark)
		}
	}
	w = s.watch(t, configMaps(list), accept("application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"))
	for _, name := range []string{"a", "b", ""} {
		e := w.next()
		if e.Metadata.Name != name || e.Kind != "PartialObjectMetadata" || e.Data != nil {
			t.Fatalf("event %s, want the metadata of %q", e.Object, name)
		}
	}
}

// TestWatchProtobuf: frames are what client-go's decoder reads, and a bookmark
// is one too.
func TestWatchProtobuf(t *testing.T) {
	s := newServer(t)
	s.makeConfigMap(t, configMap("a"))
	resp, err := s.http.RoundTrip(request(t.Context(), t, http.MethodGet, configMaps("?watch=1"), nil, accept("application/vnd.kubernetes.protobuf;stream=watch")))
	if err != nil {
		t.Fatal(err)
	}
	defer closeIt(t, resp.Body)
	if ct := resp.Header.Get("Content-Type"); ct != "application/vnd.kubernetes.protobuf;stream=watch" {
		t.Errorf("content type %s", ct)
	}
	var size uint32
	if err := binary.Read(resp.Body, binary.BigEndian, &size); err != nil || size > 10_000 {
		t.Fatalf("frame of %d bytes (%v)", size, err)
	}
	frame := make([]byte, size)
	if _, err := io.ReadFull(resp.Body, frame); err != nil {
		t.Fatal(err)
	}
	e := &metav1.WatchEvent{}
	if err := e.Unmarshal(frame); err != nil || e.Type != "ADDED" {
		t.Fatalf("frame %q: %v", frame, err)
	}
	watching, err := s.Client.CoreV1().ConfigMaps("default").Watch(t.Context(), metav1.ListOptions{
		SendInitialEvents: new(true), AllowWatchBookmarks: true, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan})
	if err != nil {
		t.Fatal(err)
	}
	defer watching.Stop()
	for _, want := range []string{"ADDED a", "BOOKMARK "} {
		e := <-watching.ResultChan()
		cm, ok := e.Object.(*corev1.ConfigMap)
		if !ok || string(e.Type)+" "+cm.Name != want {
			t.Fatalf("event %s %v, want %s", e.Type, e.Object, want)
		}
	}
}

// checkResume: W-2, W-6. A watch goes on after the last version it saw.
func checkResume(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		cm := s.makeConfigMap(t, configMap("a"))
		version := cm.ResourceVersion
		for i := range 12 {
			w := s.watch(t, configMaps("?watch=1&resourceVersion=%s", version))
			if i%2 == 0 {
				s.label(t, "a", fmt.Sprintf(`"%d"`, i))
				version = w.want("MODIFIED", "a").Metadata.ResourceVersion
			} else {
				s.remove(t, "a")
				s.makeConfigMap(t, configMap("a"))
				w.want("DELETED", "a")
				version = w.want("ADDED", "a").Metadata.ResourceVersion
			}
		}
	})
}

// TestInformer: client-go's informers with WatchList follow everything.
func TestInformer(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		factory := informers.NewSharedInformerFactory(s.Client, 0)
		informer := factory.Core().V1().ConfigMaps()
		synced := informer.Informer().HasSynced
		factory.StartWithContext(t.Context())
		if !cache.WaitForCacheSync(t.Context().Done(), synced) {
			t.Fatal("the informer did not sync")
		}
		for i := range 20 {
			s.makeConfigMap(t, configMap(fmt.Sprintf("a%d", i)))
		}
		last := s.label(t, "a0", `"x"`)
		s.remove(t, "a1")
		lister := informer.Lister().ConfigMaps("default")
		for name, want := range map[string]string{"a0": last.ResourceVersion, "a1": ""} {
			deadline := time.Now().Add(patience)
			for {
				got := ""
				if cm, err := lister.Get(name); err == nil {
					got = cm.ResourceVersion
				}
				if got == want {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("the informer has %s at %q, want %q", name, got, want)
				}
				<-time.After(5 * time.Millisecond)
			}
		}
	})
}
