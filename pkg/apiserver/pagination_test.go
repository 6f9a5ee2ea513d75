package apiserver_test

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestPages: PG-1, PG-4. The pages of a chain are one snapshot, whatever is
// written meanwhile.
func TestPages(t *testing.T) {
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

// TestPagesWithSelector: PG-4. The rest of a selection is not counted, and a
// page is full although others lie between.
func TestPagesWithSelector(t *testing.T) {
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

// TestTokens: PG-3. No token reads outside of its list.
func TestTokens(t *testing.T) {
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
