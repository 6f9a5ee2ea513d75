package apiserver_test

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/storage"
	"coracle/pkg/testcluster"
)

// checkVersionsGrow: RV-1, RV-3.
func checkVersionsGrow(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		form := regexp.MustCompile(`^[1-9][0-9]{0,38}$`)
		last := int64(0)
		grown := func(what, version string) {
			t.Helper()
			cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{ResourceVersion: version}}
			if n := revision(t, cm); !form.MatchString(version) || n <= last {
				t.Fatalf("%s: resourceVersion %s does not follow %d", what, version, last)
			} else {
				last = n
			}
		}
		cms := s.Client.CoreV1().ConfigMaps("default")
		w := s.watch(t, configMaps("?watch=1&resourceVersion=1&fieldSelector=metadata.name%%3Da"))
		cm := s.makeConfigMap(t, configMap("a", "n", "0"))
		grown("create", cm.ResourceVersion)
		cm.Data["n"] = "1"
		cm, err := cms.Update(t.Context(), cm, metav1.UpdateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		grown("update", cm.ResourceVersion)
		if cm, err = cms.Patch(t.Context(), "a", types.MergePatchType, []byte(`{"data":{"n":"2"}}`), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		grown("patch", cm.ResourceVersion)
		if err := cms.Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		w.want("ADDED", "a")
		w.want("MODIFIED", "a")
		w.want("MODIFIED", "a")
		gone := w.want("DELETED", "a")
		grown("delete", gone.Metadata.ResourceVersion)
		if gone.Data["n"] != "2" {
			t.Errorf("DELETED carries %v, want the last state", gone.Data)
		}
	})
}

// checkNothingChanged: RV-2, SSA-2. A write that changes nothing keeps the
// resourceVersion and sends no event.
func checkNothingChanged(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		cms := s.Client.CoreV1().ConfigMaps("default")
		ctx := t.Context()
		body := []byte(`{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","labels":{"l":"1"}},"data":{"k":"v"}}`)
		apply := func() *corev1.ConfigMap {
			cm, err := cms.Patch(ctx, "a", types.ApplyPatchType, body, metav1.PatchOptions{FieldManager: "m"})
			if err != nil {
				t.Fatal(err)
			}
			return cm
		}
		cm := apply()
		w := s.watch(t, configMaps("?watch=1&resourceVersion=%s", cm.ResourceVersion))
		nextSecond(t)
		writes := map[string]func() (*corev1.ConfigMap, error){
			"update": func() (*corev1.ConfigMap, error) { return cms.Update(ctx, cm, metav1.UpdateOptions{}) },
			"merge": func() (*corev1.ConfigMap, error) {
				return cms.Patch(ctx, "a", types.MergePatchType, []byte(`{"data":{"k":"v"}}`), metav1.PatchOptions{})
			},
			"strategic": func() (*corev1.ConfigMap, error) {
				return cms.Patch(ctx, "a", types.StrategicMergePatchType, []byte(`{"data":{"k":"v"}}`), metav1.PatchOptions{})
			},
			"json": func() (*corev1.ConfigMap, error) {
				return cms.Patch(ctx, "a", types.JSONPatchType, []byte(`[{"op":"replace","path":"/data/k","value":"v"}]`), metav1.PatchOptions{})
			},
			"apply": func() (*corev1.ConfigMap, error) { return apply(), nil },
		}
		for name, write := range writes {
			got, err := write()
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if got.ResourceVersion != cm.ResourceVersion {
				t.Errorf("%s of nothing changed resourceVersion %s to %s", name, cm.ResourceVersion, got.ResourceVersion)
			}
			if string(mustJSON(t, got.ManagedFields)) != string(mustJSON(t, cm.ManagedFields)) {
				t.Errorf("%s of nothing changed managedFields", name)
			}
		}
		s.makeConfigMap(t, configMap("b"))
		w.want("ADDED", "b") // and nothing before it

		// A new value of a field that its writer owned already moves the time
		// of the entry, and nothing else of it.
		changed, err := cms.Patch(ctx, "a", types.ApplyPatchType, []byte(strings.Replace(string(body), `"v"}`, `"w"}`, 1)), metav1.PatchOptions{FieldManager: "m"})
		if err != nil {
			t.Fatal(err)
		}
		before, after := cm.ManagedFields[0], changed.ManagedFields[0]
		if !before.Time.Before(after.Time) {
			t.Errorf("the entry's time stays at %s though its manager changed a value", after.Time)
		}
		after.Time = before.Time
		if string(mustJSON(t, before)) != string(mustJSON(t, after)) {
			t.Errorf("the entry was %+v and is %+v", before, after)
		}
	})
}

// nextSecond lets a second pass, so that timestamps written now would differ
// from those written before.
func nextSecond(t *testing.T) {
	t.Helper()
	at := time.Now().Truncate(time.Second)
	eventually(t, "a second passes", func(context.Context) (bool, error) { return time.Now().Truncate(time.Second).After(at), nil })
}

func mustJSON(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// checkListVersions: RV-4, RV-5. The published table of match, resourceVersion,
// limit and continue.
func checkListVersions(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		for i := range 3 {
			s.makeConfigMap(t, configMap(fmt.Sprintf("a%d", i)))
		}
		first := &corev1.ConfigMapList{}
		s.must(t, 200, "GET", configMaps("?limit=1"), "").decode(t, first)
		s.makeConfigMap(t, configMap("b"))
		for _, match := range []string{"", "Exact", "NotOlderThan", "Other"} {
			for _, version := range []string{"", "0", first.ResourceVersion, "x", "-1"} {
				for _, limit := range []string{"", "1"} {
					for _, token := range []string{"", first.Continue} {
						checkListCell(t, s, match, version, limit, token, first.ResourceVersion)
					}
				}
			}
		}
	})
}

func checkListCell(t *testing.T, s *server, match, version, limit, token, old string) {
	t.Helper()
	query := "?x="
	for name, v := range map[string]string{"resourceVersionMatch": match, "resourceVersion": version, "limit": limit, "continue": token} {
		if v != "" {
			query += "&" + name + "=" + v
		}
	}
	a := s.do(t, "GET", configMaps("")+query, "")
	bad := match == "Other" || match != "" && (version == "" || token != "") || match == "Exact" && version == "0" ||
		version == "x" || version == "-1" || token != "" && version != "" && version != "0"
	if bad {
		if a.code != 400 && a.code != 422 {
			t.Errorf("list%s: %d, want a refusal: %s", query, a.code, a.body)
		}
		a.status(t)
		return
	}
	list := &corev1.ConfigMapList{}
	a.decode(t, list)
	if a.code != 200 {
		t.Errorf("list%s: %d: %s", query, a.code, a.body)
		return
	}
	snapshot := match == "Exact" || token != ""
	if (list.ResourceVersion == old) != snapshot {
		t.Errorf("list%s is at %s, the first page was at %s", query, list.ResourceVersion, old)
	}
	want := 4
	if snapshot {
		want--
	}
	if token != "" {
		want--
	}
	if limit != "" {
		want = 1
	}
	if len(list.Items) != want {
		t.Errorf("list%s has %d items, want %d", query, len(list.Items), want)
	}
}

// checkVersionAhead: RV-8.
func checkVersionAhead(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		cm := s.makeConfigMap(t, configMap("a"))
		ahead := revision(t, cm) + 1000
		for _, path := range []string{configMaps("/a?resourceVersion=%d", ahead), configMaps("?resourceVersion=%d", ahead),
			configMaps("?resourceVersion=%d&resourceVersionMatch=Exact", ahead)} {
			began := time.Now()
			a := s.do(t, "GET", path, "")
			status := a.status(t)
			if took := time.Since(began); took > 6*time.Second {
				t.Errorf("%s took %s", path, took)
			}
			if a.code != 504 || status.Reason != metav1.StatusReasonTimeout || a.header.Get("Retry-After") == "" ||
				!apierrors.HasStatusCause(&apierrors.StatusError{ErrStatus: *status}, metav1.CauseTypeResourceVersionTooLarge) ||
				!strings.Contains(status.Message, "Too large resource version") {
				t.Errorf("%s: %d %v", path, a.code, status)
			}
		}
		// A watch waits for its revision.
		w := s.watch(t, configMaps("?watch=1&resourceVersion=%d", revision(t, cm)+2))
		s.makeConfigMap(t, configMap("b"))
		s.makeConfigMap(t, configMap("c"))
		s.makeConfigMap(t, configMap("d"))
		w.want("ADDED", "d")
	})
}

// checkVersionMalformed: RV-9.
func checkVersionMalformed(t *testing.T) {
	s := newServer(t)
	s.makeConfigMap(t, configMap("a"))
	for _, version := range []string{"x", "-1", "1.5", "99999999999999999999999", "%20", "0x1", "1%00"} {
		for _, path := range []string{"/a?", "?", "?watch=1&"} {
			a := s.do(t, "GET", configMaps("")+path+"resourceVersion="+version, "")
			if a.code != 400 {
				t.Errorf("GET %sresourceVersion=%s: %d", path, version, a.code)
			}
			a.status(t)
		}
	}
}

// checkVersionGone: RV-9, PG-2, W-6. A second server that began after a
// compaction has no history from before it.
func checkVersionGone(t *testing.T) {
	t.Run("memory", func(t *testing.T) { testVersionGone(t, newMemory(t)) })
	t.Run("etcd", func(t *testing.T) { testVersionGone(t, startEtcd(t)) })
}

func testVersionGone(t *testing.T, backend storage.Backend) {
	s := newServer(t, testcluster.WithBackend(backend))
	var old *corev1.ConfigMap
	for i := range 5 {
		cm := s.makeConfigMap(t, configMap(fmt.Sprintf("a%d", i)))
		if i == 0 {
			old = cm
		}
	}
	page := &corev1.ConfigMapList{}
	s.must(t, 200, "GET", configMaps("?limit=2"), "").decode(t, page)
	last := s.makeConfigMap(t, configMap("b"))
	if err := backend.Compact(t.Context(), storage.Revision(revision(t, last))); err != nil {
		t.Fatal(err)
	}
	s = newServer(t, testcluster.WithBackend(backend))
	gone := func(path string) *metav1.Status {
		a := s.do(t, "GET", path, "")
		status := a.status(t)
		if a.code != 410 || status.Reason != metav1.StatusReasonExpired {
			t.Errorf("GET %s: %d %v", path, a.code, status)
		}
		return status
	}
	gone(configMaps("?resourceVersionMatch=Exact&resourceVersion=%s", old.ResourceVersion))
	status := gone(configMaps("?limit=2&continue=%s", page.Continue))
	rest := &corev1.ConfigMapList{}
	s.must(t, 200, "GET", configMaps("?continue=%s", status.Continue), "").decode(t, rest)
	if len(rest.Items) != 4 || rest.Items[0].Name != "a2" || rest.ResourceVersion == page.ResourceVersion {
		t.Errorf("the offered token lists %d items at %s, want those after a1", len(rest.Items), rest.ResourceVersion)
	}
	w := s.watch(t, configMaps("?watch=1&resourceVersion=%s", old.ResourceVersion))
	e := w.next()
	if e.Type != "ERROR" || e.Kind != "Status" || e.Code != 410 || e.Reason != metav1.StatusReasonExpired {
		t.Errorf("a watch from a revision that is gone begins with %s %s", e.Type, e.Object)
	}
	w.wantEnd()
	s.watch(t, configMaps("?watch=1&resourceVersion=%s", last.ResourceVersion))
}
