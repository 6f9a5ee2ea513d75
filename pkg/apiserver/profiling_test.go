package apiserver_test

import (
	"net/http"
	"testing"

	"coracle/pkg/controlplane"
	"coracle/pkg/testcluster"
)

// TestProfiling: profiles are for administrators, and can be left out.
func TestProfiling(t *testing.T) {
	with := newServer(t, testcluster.WithConfig(func(c *controlplane.Config) { c.Profiling = true }))
	without := newServer(t)
	someone := &server{Cluster: with.Cluster, http: with.As("someone", "system:authenticated").Transport}
	for _, c := range []struct {
		who  *server
		path string
		code int
	}{
		{with, "/debug/pprof/", http.StatusOK},
		{with, "/debug/pprof/goroutine", http.StatusOK},
		{with, "/debug/pprof/cmdline", http.StatusOK},
		{with, "/debug/pprof/none", http.StatusNotFound},
		{with, "/debug/other", http.StatusNotFound},
		{someone, "/debug/pprof/", http.StatusForbidden},
		{someone, "/debug/pprof/heap", http.StatusForbidden},
		{without, "/debug/pprof/", http.StatusNotFound},
		{without, "/debug/api_priority_and_fairness/dump_priority_levels", http.StatusOK},
		{without, "/debug/api_priority_and_fairness/dump_queues", http.StatusOK},
		{without, "/debug/api_priority_and_fairness/dump_requests", http.StatusOK},
		{without, "/debug/api_priority_and_fairness/dump_secrets", http.StatusNotFound},
		{someone, "/debug/api_priority_and_fairness/dump_requests", http.StatusForbidden},
	} {
		if a := c.who.do(t, "GET", c.path, ""); a.code != c.code {
			t.Errorf("%s: %d, want %d: %.200s", c.path, a.code, c.code, a.body)
		}
	}
}
