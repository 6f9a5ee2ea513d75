package apiserver_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"coracle/pkg/admission"
	"coracle/pkg/apiserver"
	"coracle/pkg/auth"
	"coracle/pkg/registry"
)

// TestHealth: the three endpoints, single checks, verbose and exclude.
func TestHealth(t *testing.T) {
	s := newServer(t)
	broken := apiServer(t, s, nil, func(c *apiserver.Config) {
		c.Checks = []apiserver.Check{{Name: "fine", Live: true}, {Name: "broken", Check: func(context.Context) error { return errors.New("a secret reason") }}}
	})
	b := &server{Cluster: s.Cluster, http: broken.Transport(&auth.User{Name: "anyone"})}
	for _, c := range []struct {
		path string
		code int
		want string
	}{
		{"/livez", 200, "ok"}, {"/readyz/fine", 200, "ok"}, {"/livez/ping", 200, "ok"},
		{"/livez?verbose", 200, "[+]ping ok\n[+]fine ok\nlivez check passed\n"},
		{"/readyz", 500, "[+]ping ok\n[+]fine ok\n[-]broken failed: reason withheld\nreadyz check failed\n"},
		{"/healthz", 500, "[+]ping ok\n[+]fine ok\n[-]broken failed: reason withheld\nhealthz check failed\n"},
		{"/readyz/broken", 500, "[-]broken failed: reason withheld\nreadyz check failed\n"},
		{"/readyz?exclude=broken", 200, "ok"},
		{"/readyz?exclude=broken&verbose", 200, "[+]ping ok\n[+]fine ok\n[+]broken excluded: ok\nreadyz check passed\n"},
		{"/livez?exclude=none&verbose", 200, "[+]ping ok\n[+]fine ok\nwarn: some health checks cannot be excluded: no matches for \"none\"\nlivez check passed\n"},
	} {
		a := b.must(t, c.code, "GET", c.path, "")
		if string(a.body) != c.want || !strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") {
			t.Errorf("%s: %s of %s, want %s", c.path, a.body, a.header.Get("Content-Type"), c.want)
		}
	}
	b.must(t, 404, "GET", "/readyz/none", "")
	for _, path := range []string{"/livez/etcd", "/readyz/etcd", "/readyz/watch-cache"} {
		s.must(t, 200, "GET", path, "")
	}
}

// TestMethods: what is not served is a Status, whatever the path.
func TestMethods(t *testing.T) {
	s := newServer(t)
	s.makeConfigMap(t, configMap("a"))
	for _, path := range []string{"/api", "/apis", "/api/v1", "/apis/apps", "/version", configMaps(""), configMaps("/a")} {
		for _, method := range []string{"OPTIONS", "TRACE", "CONNECT", "BREW"} {
			a := s.must(t, 405, method, path, "")
			if status := a.status(t); status.Reason != metav1.StatusReasonMethodNotAllowed {
				t.Errorf("%s %s: %v", method, path, status)
			}
		}
		if a := s.must(t, 200, "HEAD", path, ""); len(a.body) > 0 {
			t.Errorf("HEAD %s: %s", path, a.body)
		}
	}
	s.must(t, 405, "POST", "/version", "{}").status(t)
	for _, path := range []string{"/api//v1/namespaces", "//api/v1", "/api/v1/namespaces/default/../../nodes", configMaps("/a%%2Fb"), "/api/v1/namespaces//configmaps"} {
		if a := s.do(t, "GET", path, ""); a.code != 404 && a.code != 400 {
			t.Errorf("GET %s: %d %s", path, a.code, a.body)
		}
	}
}

// TestDiscoveryForms: every document in JSON, YAML and protobuf, 406 else.
func TestDiscoveryForms(t *testing.T) {
	s := newServer(t)
	for path, into := range map[string]interface{ Unmarshal([]byte) error }{
		"/api": &metav1.APIVersions{}, "/apis": &metav1.APIGroupList{}, "/apis/apps": &metav1.APIGroup{}, "/apis/apps/v1": &metav1.APIResourceList{}, "/api/v1": &metav1.APIResourceList{},
	} {
		doc := plain(t, s.must(t, 200, "GET", path, "").body)
		fromYAML := map[string]any{}
		if err := yaml.Unmarshal(s.must(t, 200, "GET", path, "", accept(yamlBody)).body, &fromYAML); err != nil || string(mustJSON(t, fromYAML)) != string(mustJSON(t, doc)) {
			t.Errorf("%s in YAML is %v (%v)", path, fromYAML, err)
		}
		a := s.must(t, 200, "GET", path, "", accept("application/vnd.kubernetes.protobuf"))
		raw, err := registry.Raw(a.body)
		if err == nil {
			err = into.Unmarshal(raw)
		}
		if err != nil || a.header.Get("Content-Type") != "application/vnd.kubernetes.protobuf" {
			t.Errorf("%s in protobuf (%s): %v", path, a.header.Get("Content-Type"), err)
		}
		s.must(t, 406, "GET", path, "", accept("text/html")).status(t)
		s.must(t, 200, "GET", path, "", accept("text/html,*/*;q=0.8"))
	}
	first := s.must(t, 200, "GET", "/apis", "", accept(aggregatedForm))
	if first.header.Get("Vary") != "Accept" || first.header.Get("ETag") == "" {
		t.Errorf("the aggregated document has headers %v", first.header)
	}
	s.must(t, 200, "GET", "/apis", "", accept(aggregatedForm), header{"If-None-Match", `"other"`})
	if again := s.must(t, 304, "GET", "/apis", "", accept(aggregatedForm), header{"If-None-Match", first.header.Get("ETag")}); len(again.body) > 0 {
		t.Errorf("unchanged: %s", again.body)
	}
}

// TestTimeout: a request may ask for less time than it has, and ends in 504.
func TestTimeout(t *testing.T) {
	s := newServer(t)
	gate := slowGate{make(chan struct{}, 1), make(chan struct{})}
	chain, err := admission.NewChain(gate)
	if err != nil {
		t.Fatal(err)
	}
	slow := &server{Cluster: s.Cluster, http: apiServer(t, s, chain, func(c *apiserver.Config) { c.RequestTimeout = time.Minute }).Transport(&auth.User{Name: "u"})}
	began := time.Now()
	a := slow.must(t, 504, "POST", configMaps("?timeout=50ms"), `{"metadata":{"name":"late"}}`, contentType(jsonBody))
	if status := a.status(t); status.Reason != metav1.StatusReasonTimeout || a.header.Get("Retry-After") == "" || time.Since(began) > patience/2 {
		t.Errorf("%v after %s", status, time.Since(began))
	}
	s.must(t, 404, "GET", configMaps("/late"), "")
	for _, timeout := range []string{"banana", "1", "-"} {
		if status := s.must(t, 400, "GET", configMaps("?timeout=%s", timeout), "").status(t); !strings.Contains(status.Message, "invalid timeout specified in the request URL") {
			t.Errorf("timeout=%s: %v", timeout, status)
		}
	}
	for _, timeout := range []string{"0s", "5s", "24h"} {
		s.must(t, 200, "GET", configMaps("?timeout=%s", timeout), "")
	}
}

// asked is an authorizer that writes down what it was asked and allows all
// but creating.
type asked struct{ verbs []string }

func (a *asked) Authorize(_ context.Context, attrs auth.Attributes) (auth.Decision, string, error) {
	a.verbs = append(a.verbs, attrs.Verb)
	if attrs.Verb == "create" {
		return auth.NoOpinion, "", nil
	}
	return auth.Allow, "", nil
}

// TestStreamsTakeCreate: who may only read runs nothing in a container, neither
// by an upgrade of a GET nor by a path of the node's agent.
func TestStreamsTakeCreate(t *testing.T) {
	s := newServer(t)
	reader := &asked{}
	r := &server{Cluster: s.Cluster, http: apiServer(t, s, nil, func(c *apiserver.Config) { c.Authorizer = reader }).Transport(&auth.User{Name: "reader"})}
	const pods, node = "/api/v1/namespaces/default/pods/a", "/api/v1/nodes/n/proxy"
	for path, refused := range map[string]bool{
		pods + "/exec?command=ls": true, pods + "/attach": true, pods + "/portforward": true, pods + "/log": false, pods: false,
		node + "/exec/default/a/c": true, node + "/run/default/a/c": true, node + "/attach/default/a/c": true, node + "/portForward/default/a": true,
		node + "/x/../exec/default/a/c": true, node + "//exec/a": true, node + "/%65xec/default/a/c": true, node + "/metrics": false, node + "/pods": false, node + "/executions": false,
	} {
		for _, upgrade := range []string{"", "websocket"} {
			headers := []header{}
			if upgrade != "" {
				headers = append(headers, header{"Connection", "Upgrade"}, header{"Upgrade", upgrade})
			}
			a := r.do(t, http.MethodGet, path, "", headers...)
			if (a.code == 403) != refused {
				t.Errorf("GET %s (%s): %d %s", path, upgrade, a.code, a.body)
			}
		}
	}
	if len(reader.verbs) == 0 || fmt.Sprint(reader.verbs[0]) != "get" {
		t.Errorf("the authorizer was asked about %q", reader.verbs)
	}
}
