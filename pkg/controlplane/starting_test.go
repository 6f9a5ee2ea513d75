package controlplane_test

import (
	"net/http"
	"testing"

	"k8s.io/client-go/rest"

	"coracle/pkg/auth"
	"coracle/pkg/controlplane"
	"coracle/pkg/storage/memory"
)

// TestHealthBeforeTheRoles: a control plane that has not read a single role yet
// tells strangers of its health and version, and nothing else.
func TestHealthBeforeTheRoles(t *testing.T) {
	cp, err := controlplane.New(controlplane.Config{Backend: memory.New(memory.Config{}), SoleWriter: true})
	if err != nil {
		t.Fatal(err)
	}
	config := cp.RESTConfig(&auth.User{Name: auth.UserAnonymous, Groups: []string{auth.GroupUnauthenticated}})
	for _, c := range []struct {
		method, path string
		code         int
	}{
		{"GET", "/version", 200}, {"GET", "/livez", 200}, {"GET", "/readyz", 500}, {"GET", "/healthz", 500},
		{"GET", "/api", 403}, {"GET", "/metrics", 403}, {"GET", "/readyz/etcd", 403}, {"POST", "/version", 403},
		{"GET", "/api/v1/namespaces/default", 403},
	} {
		if code := statusOf(t, config, c.method, c.path); code != c.code {
			t.Errorf("%s %s: %d, want %d", c.method, c.path, code, c.code)
		}
	}
}

// statusOf is how a request is answered.
func statusOf(t *testing.T, config *rest.Config, method, path string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, config.Host+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := config.Transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
	return resp.StatusCode
}
