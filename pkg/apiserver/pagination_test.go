package apiserver_test

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/storage"
	"coracle/pkg/testcluster"
)

// checkPages: PG-1, PG-4. The pages of a chain are one snapshot, whatever is
// written meanwhile.
func checkPages(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		ctx := t.Context()
		s.makeNamespace(t, "ns1")
		s.makeNamespace(t, "ns10")
		mine := s.Client.CoreV1().ConfigMaps("ns1")
		for i := range 40 {
			if _, err := mine.Create(ctx, configMap(fmt.Sprintf("c%02d", i)), metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Client.CoreV1().ConfigMaps("ns10").Create(ctx, configMap(fmt.Sprintf("d%02d", i)), metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		var names []string
		version, token := "", ""
		for page := 0; ; page++ {
			list, err := mine.List(ctx, metav1.ListOptions{Limit: 7, Continue: token})
			if err != nil {
				t.Fatal(err)
			}
			for _, cm := range list.Items {
				if cm.Namespace != "ns1" {
					t.Fatalf("a list of ns1 has %s/%s", cm.Namespace, cm.Name)
				}
				names = append(names, cm.Name)
			}
			if page == 0 {
				version = list.ResourceVersion
			}
			if list.ResourceVersion != version {
				t.Fatalf("page %d is at %s, the first at %s", page, list.ResourceVersion, version)
			}
			if list.Continue == "" {
				if list.RemainingItemCount != nil {
					t.Errorf("the last page has %d items left", *list.RemainingItemCount)
				}
				break
			}
			if list.RemainingItemCount == nil || *list.RemainingItemCount != int64(40-len(names)) {
				t.Errorf("after %d items remainingItemCount is %v", len(names), list.RemainingItemCount)
			}
			token = list.Continue
			// The world goes on: an item still to come goes, another comes.
			if err := mine.Delete(ctx, fmt.Sprintf("c%02d", 39-page), metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			if _, err := mine.Create(ctx, configMap(fmt.Sprintf("c%02dx", 20+page)), metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if len(names) != 40 {
			t.Fatalf("the pages have %d items, want 40: %v", len(names), names)
		}
		for i, name := range names {
			if name != fmt.Sprintf("c%02d", i) {
				t.Fatalf("item %d is %s", i, name)
			}
		}
	})
}

// checkPagesWithSelector: PG-4. The rest of a selection is not counted, and a
// page is full although others lie between.
func checkPagesWithSelector(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		for i := range 12 {
			cm := configMap(fmt.Sprintf("c%02d", i))
			cm.Labels = map[string]string{"third": fmt.Sprint(i % 3)}
			s.makeConfigMap(t, cm)
		}
		cms := s.Client.CoreV1().ConfigMaps("default")
		list, err := cms.List(t.Context(), metav1.ListOptions{LabelSelector: "third=1", Limit: 3})
		if err != nil {
			t.Fatal(err)
		}
		if len(list.Items) != 3 || list.RemainingItemCount != nil || list.Continue == "" {
			t.Fatalf("first page: %d items, %v remaining, token %q", len(list.Items), list.RemainingItemCount, list.Continue)
		}
		list, err = cms.List(t.Context(), metav1.ListOptions{LabelSelector: "third=1", Limit: 3, Continue: list.Continue})
		if err != nil || len(list.Items) != 1 || list.Items[0].Name != "c10" || list.Continue != "" {
			t.Fatalf("second page: %v %v", list, err)
		}
		all, err := s.Client.CoreV1().ConfigMaps("").List(t.Context(), metav1.ListOptions{FieldSelector: "metadata.namespace=default,metadata.name!=c03"})
		if err != nil || len(all.Items) != 11 {
			t.Fatalf("field selector: %d items (%v), want 11", len(all.Items), err)
		}
	})
}

// checkTokens: PG-3. No token reads outside of its list.
func checkTokens(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		s.makeNamespace(t, "aaa")
		for _, ns := range []string{"aaa", "default"} {
			for i := range 3 {
				if _, err := s.Client.CoreV1().ConfigMaps(ns).Create(t.Context(), configMap(fmt.Sprintf("c%d", i)), metav1.CreateOptions{}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if _, err := s.Client.CoreV1().Secrets("default").Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		list, err := s.Client.CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		forge := func(version, start string) string {
			return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"v":%q,"rv":%s,"start":%q}`, version, list.ResourceVersion, start))
		}
		const v1 = "meta.k8s.io/v1"
		for _, token := range []string{"x", "%%", forge("v2", "c0\x00"), forge(v1, ""), forge(v1, "../secrets/default/\x00"), forge(v1, "../../secrets/"),
			forge(v1, "./c0"), forge(v1, "a/b/c"), forge(v1, "/registry/secrets/default"), forge(v1, "c0\x00\x00x"), strings.Repeat("A", 100_000)} {
			a := s.do(t, "GET", configMaps("?limit=1&continue=")+url.QueryEscape(token), "")
			if a.code != 400 {
				t.Errorf("token %.60q: %d %.200s", token, a.code, a.body)
				continue
			}
			a.status(t)
		}
		for _, query := range []string{"&resourceVersion=" + list.ResourceVersion, "&resourceVersionMatch=NotOlderThan",
			"&resourceVersionMatch=Exact&resourceVersion=" + list.ResourceVersion, "&resourceVersionMatch=NotOlderThan&resourceVersion=0"} {
			s.must(t, 400, "GET", configMaps("?limit=1&continue=")+list.Continue+query, "").status(t)
		}
		s.must(t, 200, "GET", configMaps("?limit=1&resourceVersion=0&continue=")+list.Continue, "")
		// A token of another list may be taken, but never leads out of this one.
		other, err := s.Client.CoreV1().ConfigMaps("").List(t.Context(), metav1.ListOptions{Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Client.CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{Continue: other.Continue})
		if err != nil && !apierrors.IsBadRequest(err) {
			t.Fatal(err)
		}
		for _, cm := range got.Items {
			if cm.Namespace != "default" {
				t.Errorf("the list of default has %s/%s", cm.Namespace, cm.Name)
			}
		}
	})
}

// checkPagesUnderLoad: PG-1. Pages stay one snapshot while writers on both
// servers change everything, and are read from both in turn.
func checkPagesUnderLoad(t *testing.T) {
	onTwoServers(t, func(t *testing.T, a, b *server) {
		const objects, pages = 60, 12
		for i := range objects {
			a.makeConfigMap(t, configMap(fmt.Sprintf("c%02d", i), "n", "0"))
		}
		stop := make(chan struct{})
		var writers sync.WaitGroup
		defer func() { close(stop); writers.Wait() }()
		for id, s := range []*server{a, b, a, b} {
			writers.Go(func() { churn(t, s, id, objects, stop) })
		}
		for range 5 {
			whole := &corev1.ConfigMapList{}
			token, version := "", ""
			for page := range pages {
				list := &corev1.ConfigMapList{}
				[]*server{a, b}[page%2].must(t, 200, "GET", configMaps("?limit=%d&continue=%s", objects/pages, token), "").decode(t, list)
				if version == "" {
					version = list.ResourceVersion
				}
				if list.ResourceVersion != version || len(list.Items) != objects/pages {
					t.Fatalf("page %d has %d items at %s, the first is at %s", page, len(list.Items), list.ResourceVersion, version)
				}
				whole.Items = append(whole.Items, list.Items...)
				token = list.Continue
			}
			snapshot := &corev1.ConfigMapList{}
			a.must(t, 200, "GET", configMaps("?resourceVersionMatch=Exact&resourceVersion=%s", version), "").decode(t, snapshot)
			if token != "" || !cmp.Equal(snapshot.Items, whole.Items) {
				t.Fatalf("the pages differ from the snapshot at %s: %s", version, cmp.Diff(snapshot.Items, whole.Items))
			}
		}
	})
}

// churn changes objects, and replaces some, until stop.
func churn(t *testing.T, s *server, id, objects int, stop chan struct{}) {
	for n := 1; ; n++ {
		select {
		case <-stop:
			return
		default:
		}
		i := (n*7+id)%(objects/4)*4 + id // each writer has its own objects
		name := fmt.Sprintf("/c%02d", i)
		if a := s.do(t, "PATCH", configMaps("")+name, fmt.Sprintf(`{"data":{"n":"%d"}}`, n), contentType("application/merge-patch+json")); a.code != 200 {
			t.Errorf("writer %d: %d %s", id, a.code, a.body)
			return
		}
	}
}

// checkExpiredToken: PG-2, APIM-082. A chain whose snapshot is gone goes on
// after the last key, at one newer version.
func checkExpiredToken(t *testing.T) {
	t.Run("memory", func(t *testing.T) { testExpiredToken(t, newMemory(t)) })
	t.Run("etcd", func(t *testing.T) { testExpiredToken(t, startEtcd(t)) })
}

func testExpiredToken(t *testing.T, backend storage.Backend) {
	s := newServer(t, testcluster.WithBackend(backend))
	for i := range 9 {
		s.makeConfigMap(t, configMap(fmt.Sprintf("c%d", i)))
	}
	first := &corev1.ConfigMapList{}
	s.must(t, 200, "GET", configMaps("?limit=3"), "").decode(t, first)
	s.remove(t, "c0")
	s.remove(t, "c5")
	s.makeConfigMap(t, configMap("c4x"))
	last := s.makeConfigMap(t, configMap("c2"+"x"))
	if err := backend.Compact(t.Context(), storage.Revision(revision(t, last))); err != nil {
		t.Fatal(err)
	}
	s = newServer(t, testcluster.WithBackend(backend))
	gone := s.must(t, 410, "GET", configMaps("?limit=3&continue=%s", first.Continue), "").status(t)
	if gone.Reason != metav1.StatusReasonExpired || gone.Continue == "" || gone.Continue == first.Continue {
		t.Fatalf("an expired token: %v", gone)
	}
	var names []string
	version, token := "", gone.Continue
	for token != "" {
		list := &corev1.ConfigMapList{}
		s.must(t, 200, "GET", configMaps("?limit=3&continue=%s", token), "").decode(t, list)
		if version == "" {
			version = list.ResourceVersion
			s.makeConfigMap(t, configMap("c9")) // after the new snapshot
		}
		for _, cm := range list.Items {
			names = append(names, cm.Name)
		}
		if list.ResourceVersion != version || version == first.ResourceVersion {
			t.Errorf("a page at %s in a chain at %s, which began anew at %s", list.ResourceVersion, first.ResourceVersion, version)
		}
		if rest := 7 - len(names); list.RemainingItemCount != nil && *list.RemainingItemCount != int64(rest) || rest > 0 && list.RemainingItemCount == nil {
			t.Errorf("after %v %v are left", names, list.RemainingItemCount)
		}
		token = list.Continue
	}
	if got := strings.Join(names, " "); got != "c2x c3 c4 c4x c6 c7 c8" {
		t.Errorf("the chain went on with %s", got)
	}
}
