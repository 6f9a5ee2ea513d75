package apiserver

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"coracle/pkg/registry"
	"coracle/pkg/resource"
	"coracle/pkg/storage/cache"
	"coracle/pkg/storage/memory"
)

func countingServer(t testing.TB) *Server {
	table := resource.Builtin()
	c := cache.New(cache.Config{Backend: memory.New(memory.Config{})})
	s := &Server{cfg: Config{Registry: registry.New(registry.Config{Table: table, Cache: c})}, inflight: newInflight(0, 0)}
	var err error
	if s.metrics, err = newMetrics(&s.cfg, s.inflight); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestReportedVerbs: the words and scopes under which requests count.
func TestReportedVerbs(t *testing.T) {
	s := countingServer(t)
	for _, c := range []struct{ method, path, contentType, verb, scope, subresource string }{
		{"GET", "/api/v1/namespaces/a/pods/b", "", "GET", "resource", ""},
		{"HEAD", "/api/v1/namespaces/a/pods/b", "", "GET", "resource", ""},
		{"GET", "/api/v1/namespaces/a/pods", "", "LIST", "namespace", ""},
		{"GET", "/api/v1/pods", "", "LIST", "cluster", ""},
		{"GET", "/api/v1/pods?watch=true", "", "WATCH", "cluster", ""},
		{"GET", "/api/v1/watch/pods", "", "WATCH", "cluster", ""},
		{"POST", "/api/v1/namespaces/a/pods", "", "POST", "resource", ""},
		{"PUT", "/api/v1/namespaces/a/pods/b/status", "", "PUT", "resource", "status"},
		{"PATCH", "/api/v1/namespaces/a/pods/b", "application/json-patch+json", "PATCH", "resource", ""},
		{"PATCH", "/api/v1/namespaces/a/pods/b", "application/apply-patch+yaml", "APPLY", "resource", ""},
		{"DELETE", "/api/v1/namespaces/a/pods", "", "DELETE", "namespace", ""},
		{"POST", "/api/v1/namespaces/a/pods/b/exec", "", "CONNECT", "resource", "exec"},
		{"GET", "/api/v1/namespaces/a/pods/b/log", "", "CONNECT", "resource", "log"},
		{"GET", "/api/v1/nodes/n/proxy/metrics", "", "CONNECT", "resource", "proxy"},
		{"BREW", "/api/v1/nodes/n/pot", "", "other", "resource", ""},
		{"GET", "/healthz", "", "GET", "", "/healthz"},
		{"GET", "/healthz/etcd", "", "GET", "", ""},
	} {
		r := httptest.NewRequest(c.method, c.path, nil)
		r.Header.Set("Content-Type", c.contentType)
		info := parseRequest(r)
		k := s.seriesOf(r, &info).key
		if verbNames[k.verb] != c.verb || k.scope != c.scope || k.subresource != c.subresource {
			t.Errorf("%s %s counts as %s, scope %q, subresource %q; want %s, %q, %q", c.method, c.path,
				verbNames[k.verb], k.scope, k.subresource, c.verb, c.scope, c.subresource)
		}
	}
}

// count is what the server does for the metrics of one request.
func count(s *Server, r *http.Request, info *requestInfo) {
	s.seriesOf(r, info).done(http.StatusOK, 1400, 300*time.Microsecond, false)
}

// TestCountingAllocatesNothing guards the hot path.
func TestCountingAllocatesNothing(t *testing.T) {
	s := countingServer(t)
	r := httptest.NewRequest("GET", "/api/v1/namespaces/a/pods/b", nil)
	info := parseRequest(r)
	if n := testing.AllocsPerRun(100, func() { count(s, r, &info) }); n != 0 {
		t.Errorf("counting a request allocates %v times", n)
	}
}

func BenchmarkCount(b *testing.B) {
	s := countingServer(b)
	r := httptest.NewRequest("GET", "/api/v1/namespaces/a/pods/b", nil)
	info := parseRequest(r)
	b.ReportAllocs()
	for b.Loop() {
		count(s, r, &info)
	}
}

func BenchmarkCountWatchEvent(b *testing.B) {
	s := countingServer(b)
	pods, _ := s.cfg.Registry.Table().ByGVK(resource.Builtin().All()[0].GVK())
	w := s.metrics.watched(served{res: pods})
	b.ReportAllocs()
	for b.Loop() {
		w.sent(1400)
	}
}
