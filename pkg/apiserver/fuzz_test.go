package apiserver

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// FuzzParseRequest: any request line is parsed, into names without slashes; a
// resource request always has a resource and a verb that RBAC knows.
func FuzzParseRequest(f *testing.F) {
	for _, seed := range []string{"/", "/api/v1/pods", "/api/v1/namespaces/a/pods/b/log", "/api/v1/namespaces/a/status", "/apis/apps/v1/namespaces/a/deployments/b/scale",
		"/api/v1/watch/namespaces/a/pods", "/api/v1/namespaces/a/pods/b/proxy/x/y", "/api/v1//pods", "/apis///", "/api/v1/namespaces//pods", "/api/v1/pods/..", "/api/v1/pods/%2e%2e/x"} {
		f.Add("GET", seed, "watch=1")
	}
	f.Fuzz(func(t *testing.T, method, path, query string) {
		r := &http.Request{Method: method, URL: &url.URL{Path: path, RawQuery: query}, Header: http.Header{}}
		info := parseRequest(r)
		if !info.resource {
			if info.gvr.Resource != "" || info.subresource != "" {
				t.Fatalf("%s is no resource, but %+v", path, info)
			}
			return
		}
		for _, part := range []string{info.gvr.Group, info.gvr.Version, info.gvr.Resource, info.namespace, info.name, info.subresource} {
			if strings.Contains(part, "/") {
				t.Fatalf("%s has a part %q: %+v", path, part, info)
			}
		}
		if info.gvr.Resource == "" || info.gvr.Version == "" && strings.HasPrefix(path, "/api/v") {
			t.Fatalf("%s: %+v", path, info)
		}
		if r.Method == http.MethodGet && info.verb != "get" && info.verb != "list" && info.verb != "watch" {
			t.Fatalf("GET %s is %s", path, info.verb)
		}
		a := info.attributes(nil, r)
		if a.Resource != info.gvr.Resource || a.Namespace != info.namespace || a.Subresource != info.subresource {
			t.Fatalf("the authorizer is asked about %+v, not %+v", a, info)
		}
	})
}

// FuzzNegotiateForms: any Accept header gives a representation that the server
// has, or none.
func FuzzNegotiateForms(f *testing.F) {
	for _, seed := range []string{"", "*/*", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json", "application/json;q=0.5, application/yaml;q=x", ";;;", "a/b;q=1;q=2", "application/json;q=NaN", "application/json;q=Inf"} {
		f.Add(seed, "gzip", "pretty=1")
	}
	f.Fuzz(func(t *testing.T, accept, encoding, query string) {
		r := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/", RawQuery: query}, Header: http.Header{"Accept": {accept}, "Accept-Encoding": {encoding}}}
		for _, transforms := range []bool{true, false} {
			rep, err := negotiate(r, transforms)
			if err != nil {
				continue
			}
			switch rep.media {
			case "application/json", "application/yaml", "application/vnd.kubernetes.protobuf":
			default:
				t.Fatalf("Accept %q gives %+v", accept, rep)
			}
			if rep.as != "" && !transforms || rep.as == asTable && rep.media == "application/vnd.kubernetes.protobuf" {
				t.Fatalf("Accept %q gives %+v", accept, rep)
			}
		}
	})
}
