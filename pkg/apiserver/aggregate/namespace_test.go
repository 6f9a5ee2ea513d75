package aggregate_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"coracle/pkg/testcluster"
)

// TestNamespaceDeletion: objects of an aggregated kind go with their namespace;
// while the backend does not answer, those of all other groups go, and the
// namespace says what it waits for.
func TestNamespaceDeletion(t *testing.T) {
	s := newSite(t, testcluster.WithRoles())
	var deleted atomic.Bool
	s.serve(func(w http.ResponseWriter, r *http.Request) {
		items := `{"metadata":{"name":"f","namespace":"doomed"}}`
		switch {
		case r.Method == http.MethodDelete:
			deleted.Store(true)
			write(t, w, `{"kind":"Status","apiVersion":"v1","status":"Success"}`)
			return
		case deleted.Load() || !strings.Contains(r.URL.Path, "/namespaces/doomed/"):
			items = ""
		}
		write(t, w, `{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"1"},"items":[`+items+`]}`)
	})
	s.must(201, "POST", "/api/v1/namespaces", `{"metadata":{"name":"doomed"}}`)
	s.must(201, "POST", "/api/v1/namespaces/doomed/configmaps", `{"metadata":{"name":"c"}}`)
	s.dead.Store(true)
	s.backend.CloseClientConnections()
	s.must(200, "PATCH", "/api/v1/namespaces/default/services/wardle", `{"metadata":{"labels":{"look":"now"}}}`, "Content-Type", "application/merge-patch+json")
	s.untilCondition("FailedDiscoveryCheck")
	s.must(200, "DELETE", "/api/v1/namespaces/doomed", "")
	var last string
	s.until(func() bool {
		resp, _, err := s.do("GET", "/api/v1/namespaces/doomed/configmaps/c", "")
		last = s.must(200, "GET", "/api/v1/namespaces/doomed", "")
		return err == nil && resp.StatusCode == 404 && strings.Contains(last, `"reason":"DiscoveryFailed"`)
	}, func() string { return "the namespace does not say what it waits for: " + last })
	s.dead.Store(false)
	s.untilCondition("Passed")
	s.until(func() bool {
		resp, _, err := s.do("GET", "/api/v1/namespaces/doomed", "")
		return err == nil && resp.StatusCode == 404
	},
		func() string { return "the namespace is still there" })
	if !deleted.Load() {
		t.Error("the aggregated object was not deleted")
	}
}
