package apiserver_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/admission"
	"coracle/pkg/apiserver"
	"coracle/pkg/auth"
)

const (
	jsonBody  = "application/json"
	yamlBody  = "application/yaml"
	applyBody = "application/apply-patch+yaml"
)

// checkErrors: ER-1. Every refusal is a Status with the code and reason that
// clients test for.
func checkErrors(t *testing.T) {
	s := newServer(t)
	s.makeConfigMap(t, configMap("a"))
	cases := []struct {
		name, method, path, body string
		headers                  []header
		code                     int
		reason                   metav1.StatusReason
		message                  string
	}{
		{"no object", "GET", configMaps("/none"), "", nil, 404, metav1.StatusReasonNotFound, `configmaps "none" not found`},
		{"no resource", "GET", "/api/v1/namespaces/default/nothings", "", nil, 404, metav1.StatusReasonNotFound, "the server could not find the requested resource"},
		{"no group", "GET", "/apis/none/v1/things", "", nil, 404, metav1.StatusReasonNotFound, "the server could not find the requested resource"},
		{"no version", "GET", "/apis/apps/v9/deployments", "", nil, 404, metav1.StatusReasonNotFound, ""},
		{"no path", "GET", "/nowhere", "", nil, 404, metav1.StatusReasonNotFound, ""},
		{"no subresource", "GET", configMaps("/a/scale"), "", nil, 404, metav1.StatusReasonNotFound, ""},
		{"below an object", "GET", configMaps("/a/b/c"), "", nil, 404, metav1.StatusReasonNotFound, ""},
		{"cluster scope in a namespace", "GET", "/api/v1/namespaces/default/nodes", "", nil, 404, metav1.StatusReasonNotFound, ""},
		{"cluster scope object in a namespace", "GET", "/apis/rbac.authorization.k8s.io/v1/namespaces/default/clusterroles/admin", "", nil, 404, metav1.StatusReasonNotFound, ""},
		{"namespaced object without one", "GET", "/api/v1/configmaps/a", "", nil, 404, metav1.StatusReasonNotFound, ""},
		{"create without a namespace", "POST", "/api/v1/configmaps", "{}", nil, 404, metav1.StatusReasonNotFound, ""},
		{"create at a name", "POST", configMaps("/a"), "{}", nil, 405, metav1.StatusReasonMethodNotAllowed, ""},
		{"update of a collection", "PUT", configMaps(""), "{}", nil, 405, metav1.StatusReasonMethodNotAllowed, ""},
		{"patch of a collection", "PATCH", configMaps(""), "{}", nil, 405, metav1.StatusReasonMethodNotAllowed, ""},
		{"a strange method", "BREW", configMaps(""), "", nil, 405, metav1.StatusReasonMethodNotAllowed, ""},
		{"a review is only created", "GET", "/apis/authorization.k8s.io/v1/subjectaccessreviews", "", nil, 405, metav1.StatusReasonMethodNotAllowed, ""},
		{"discovery is only read", "POST", "/apis", "{}", nil, 405, metav1.StatusReasonMethodNotAllowed, ""},
		{"no such form", "GET", configMaps(""), "", []header{accept("text/html")}, 406, metav1.StatusReasonNotAcceptable, "application/json"},
		{"no such transformation", "GET", configMaps(""), "", []header{accept("application/json;as=Cake;v=v1;g=meta.k8s.io")}, 406, metav1.StatusReasonNotAcceptable, ""},
		{"a review is no table", "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", `{"spec":{"nonResourceAttributes":{"path":"/","verb":"get"}}}`,
			[]header{accept("application/json;as=Table;v=v1;g=meta.k8s.io")}, 406, metav1.StatusReasonNotAcceptable, ""},
		{"too large", "POST", configMaps(""), `{"x":"` + strings.Repeat("x", 3<<20) + `"}`, []header{contentType(jsonBody)}, 413, metav1.StatusReasonRequestEntityTooLarge, "limit"},
		{"a patch too large", "PATCH", configMaps("/a"), `{"x":"` + strings.Repeat("x", 3<<20) + `"}`, []header{contentType("application/merge-patch+json")}, 413, metav1.StatusReasonRequestEntityTooLarge, ""},
		{"no such body", "POST", configMaps(""), "<xml/>", []header{contentType("text/xml")}, 415, metav1.StatusReasonUnsupportedMediaType, "application/json"},
		{"no such patch", "PATCH", configMaps("/a"), "{}", []header{contentType("application/json")}, 415, metav1.StatusReasonUnsupportedMediaType, "application/apply-patch+yaml"},
		{"not JSON", "POST", configMaps(""), `{"metadata":`, []header{contentType(jsonBody)}, 400, metav1.StatusReasonBadRequest, ""},
		{"not an object", "POST", configMaps(""), `[]`, []header{contentType(jsonBody)}, 400, metav1.StatusReasonBadRequest, ""},
		{"nothing", "POST", configMaps(""), ``, []header{contentType(jsonBody)}, 400, metav1.StatusReasonBadRequest, ""},
		{"YAML that is said to be JSON", "POST", configMaps(""), "kind: Pod", []header{contentType(jsonBody)}, 400, metav1.StatusReasonBadRequest, "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: "},
		{"not YAML", "POST", configMaps(""), "a: [", []header{contentType(yamlBody)}, 400, metav1.StatusReasonBadRequest, ""},
		{"not protobuf", "POST", configMaps(""), "k8s\x00\xff\xff", []header{contentType("application/vnd.kubernetes.protobuf")}, 400, metav1.StatusReasonBadRequest, ""},
		{"a field of another type", "POST", configMaps(""), `{"metadata":{"name":"b"},"data":{"k":1}}`, []header{contentType(jsonBody)}, 400, metav1.StatusReasonBadRequest, "ConfigMap"},
		{"another kind", "POST", configMaps(""), `{"kind":"Secret","apiVersion":"v1","metadata":{"name":"b"}}`, []header{contentType(jsonBody)}, 400, metav1.StatusReasonBadRequest, "does not match the expected"},
		{"another namespace", "POST", configMaps(""), `{"metadata":{"name":"b","namespace":"other"}}`, []header{contentType(jsonBody)}, 400, metav1.StatusReasonBadRequest, "namespace"},
		{"another name", "PUT", configMaps("/a"), `{"metadata":{"name":"b"}}`, []header{contentType(jsonBody)}, 400, metav1.StatusReasonBadRequest, "does not match the name on the URL"},
		{"a version on create", "POST", configMaps(""), `{"metadata":{"name":"b","resourceVersion":"1"}}`, []header{contentType(jsonBody)}, 400, metav1.StatusReasonBadRequest, "resourceVersion should not be set on objects to be created"},
		{"no name", "POST", configMaps(""), `{}`, []header{contentType(jsonBody)}, 422, metav1.StatusReasonInvalid, "name or generateName is required"},
		{"an invalid name", "POST", configMaps(""), `{"metadata":{"name":"A_b"}}`, []header{contentType(jsonBody)}, 422, metav1.StatusReasonInvalid, "metadata.name: Invalid value"},
		{"a label selector", "GET", configMaps("?labelSelector=%%3D%%3D"), "", nil, 400, metav1.StatusReasonBadRequest, "labelSelector"},
		{"a field selector", "GET", configMaps("?fieldSelector=x"), "", nil, 400, metav1.StatusReasonBadRequest, "fieldSelector"},
		{"no such field", "GET", configMaps("?fieldSelector=data%%3Dx"), "", nil, 400, metav1.StatusReasonBadRequest, "field label not supported"},
		{"a limit", "GET", configMaps("?limit=-1"), "", nil, 400, metav1.StatusReasonBadRequest, "limit"},
		{"a dry run", "POST", configMaps("?dryRun=Some"), `{"metadata":{"name":"b"}}`, []header{contentType(jsonBody)}, 400, metav1.StatusReasonBadRequest, "dryRun"},
		{"a validation", "POST", configMaps("?fieldValidation=Lax"), `{"metadata":{"name":"b"}}`, []header{contentType(jsonBody)}, 400, metav1.StatusReasonBadRequest, "fieldValidation"},
		{"no way to nodes", "GET", "/api/v1/namespaces/default/pods/a/log", "", nil, 503, metav1.StatusReasonServiceUnavailable, "pods/log is not served by this API server"},
		{"no way to pods", "GET", "/api/v1/namespaces/default/services/a/proxy/x", "", nil, 503, metav1.StatusReasonServiceUnavailable, "services/proxy is not served"},
		{"dots for a name", "GET", configMaps("/.."), "", nil, 400, metav1.StatusReasonBadRequest, ""},
		{"a name with a zero", "GET", configMaps("/a%%00b"), "", nil, 400, metav1.StatusReasonBadRequest, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			a := s.do(t, c.method, c.path, c.body, c.headers...)
			status := a.status(t)
			if a.code != c.code || status.Reason != c.reason || int(status.Code) != a.code || !strings.Contains(status.Message, c.message) || status.Status != metav1.StatusFailure {
				t.Errorf("got %d %s %q, want %d %s %q", a.code, status.Reason, status.Message, c.code, c.reason, c.message)
			}
			if a.header.Get("Content-Type") != "application/json" || a.header.Get("Audit-Id") == "" {
				t.Errorf("headers %v", a.header)
			}
		})
	}
}

// TestPaths: trailing slashes, HEAD and ?pretty.
func TestPaths(t *testing.T) {
	s := newServer(t)
	s.makeConfigMap(t, configMap("a"))
	for _, path := range []string{"/api/", "/apis/", "/api/v1/", "/version/", "/healthz/", configMaps("/"), "/apis/apps/v1/"} {
		s.must(t, 200, "GET", path, "")
	}
	head := s.must(t, 200, "HEAD", configMaps("/a"), "")
	if len(head.body) > 0 || head.header.Get("Content-Length") == "" {
		t.Errorf("HEAD: %v %s", head.header, head.body)
	}
	flat := s.must(t, 200, "GET", configMaps("/a"), "")
	pretty := s.must(t, 200, "GET", configMaps("/a?pretty=true"), "")
	if bytes.Count(flat.body, []byte("\n")) != 1 || bytes.Count(pretty.body, []byte("\n")) < 5 {
		t.Errorf("flat %s\npretty %s", flat.body, pretty.body)
	}
	if diff := string(mustJSON(t, plain(t, flat.body))); diff != string(mustJSON(t, plain(t, pretty.body))) {
		t.Error("?pretty changes the content")
	}
}

// checkBombs: documents that are small on the wire and large or deep inside
// are refused quickly, at every door (CVE-2019-11253, CVE-2019-1002100).
func checkBombs(t *testing.T) {
	s := newServer(t)
	s.makeConfigMap(t, configMap("a"))
	alias := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'k'; c++ {
		p := string(c - 1)
		alias += fmt.Sprintf("%c: &%c [*%s,*%s,*%s,*%s,*%s,*%s,*%s,*%s,*%s]\n", c, c, p, p, p, p, p, p, p, p, p)
	}
	operations := "[" + strings.Repeat(`{"op":"add","path":"/data/x","value":"1"},`, 10_001) + `{"op":"remove","path":"/data/x"}]`
	doubling := `[{"op":"add","path":"/metadata/annotations","value":{"a":"` + strings.Repeat("x", 1000) + `"}}`
	for i := range 40 {
		doubling += fmt.Sprintf(`,{"op":"copy","from":"/metadata/annotations","path":"/metadata/annotations/c%d"}`, i)
	}
	doors := []struct{ name, method, path, content, body string }{
		{"aliases", "POST", configMaps(""), yamlBody, alias},
		{"aliases applied", "PATCH", configMaps("/a?fieldManager=m"), applyBody, alias},
		{"deep YAML", "POST", configMaps(""), yamlBody, strings.Repeat("[", 1<<20)},
		{"deep YAML applied", "PATCH", configMaps("/a?fieldManager=m"), applyBody, strings.Repeat("{a: ", 1<<18)},
		{"deep JSON", "POST", configMaps(""), jsonBody, `{"data":` + strings.Repeat(`{"a":`, 1<<18)},
		{"deep lists in JSON", "POST", configMaps(""), jsonBody, `{"data":` + strings.Repeat(`[`, 1<<20)},
		{"deep merge patch", "PATCH", configMaps("/a"), "application/merge-patch+json", strings.Repeat(`{"a":`, 1<<18)},
		{"deep strategic patch", "PATCH", configMaps("/a"), "application/strategic-merge-patch+json", strings.Repeat(`{"a":`, 1<<18)},
		{"many operations", "PATCH", configMaps("/a"), "application/json-patch+json", operations},
		{"doubling copies", "PATCH", configMaps("/a"), "application/json-patch+json", doubling + "]"},
		{"wide YAML", "POST", configMaps(""), yamlBody, "data: [" + strings.Repeat("a,", 3<<19-8) + "]"},
		{"wide YAML applied", "PATCH", configMaps("/a?fieldManager=m"), applyBody, "{" + strings.Repeat("a,", 3<<19-8) + "}"},
		{"many documents in YAML", "POST", configMaps(""), yamlBody, strings.Repeat("- - -\n", 3<<18)[:3<<20-8]},
		{"wide JSON", "POST", configMaps(""), jsonBody, `{"data":[` + strings.Repeat("[],", 1<<20-8) + `[]]}`},
		{"wide merge patch", "PATCH", configMaps("/a"), "application/merge-patch+json", `{"data":[` + strings.Repeat("{},", 1<<20-8) + `{}]}`},
		{"wide delete options", "DELETE", configMaps("/a"), yamlBody, "{" + strings.Repeat("a,", 3<<19-8) + "}"},
		{"delete options", "DELETE", configMaps("/a"), yamlBody, alias},
	}
	for _, d := range doors {
		t.Run(d.name, func(t *testing.T) {
			before, after := runtime.MemStats{}, runtime.MemStats{}
			runtime.ReadMemStats(&before)
			began := time.Now()
			a := s.do(t, d.method, d.path, d.body, contentType(d.content))
			runtime.ReadMemStats(&after)
			made := after.TotalAlloc - before.TotalAlloc
			t.Logf("%d after %s and %d KiB: %.200s", a.code, time.Since(began), made>>10, a.body)
			if made > 64<<20 {
				t.Errorf("the refusal took %d MiB", made>>20)
			}
			if took := time.Since(began); a.code < 400 || a.code >= 500 || took > 5*time.Second {
				t.Errorf("%d after %s: %.300s", a.code, took, a.body)
			}
			a.status(t)
		})
	}
}

// slowGate holds creates of ConfigMaps until it is opened.
type slowGate struct{ entered, open chan struct{} }

func (slowGate) Name() string { return "SlowGate" }

// Admit implements admission.Mutator.
func (g slowGate) Admit(ctx context.Context, a *admission.Attributes) error {
	if a.Operation != admission.Create || a.Resource.Kind != "ConfigMap" {
		return nil
	}
	g.entered <- struct{}{}
	select {
	case <-g.open:
	case <-ctx.Done():
	}
	return nil
}

// TestInflight: requests beyond the bound are answered 429 at once;
// reads, streams, health and administrators still get through.
func TestInflight(t *testing.T) {
	gate := slowGate{make(chan struct{}), make(chan struct{})}
	s := newServer(t)
	chain, err := admission.NewChain(gate)
	if err != nil {
		t.Fatal(err)
	}
	small := apiServer(t, s, chain, func(c *apiserver.Config) { c.MaxMutating = 2 })
	as := func(name string, groups ...string) *server {
		return &server{Cluster: s.Cluster, http: small.Transport(&auth.User{Name: name, Groups: groups})}
	}
	user, admin := as("user"), as("admin", auth.GroupMasters)
	answers := make(chan int, 3)
	for i := range 2 {
		go func() {
			answers <- user.do(t, "POST", configMaps(""), fmt.Sprintf(`{"metadata":{"name":"a%d"}}`, i), contentType(jsonBody)).code
		}()
		<-gate.entered
	}
	a := user.do(t, "POST", configMaps(""), `{"metadata":{"name":"b"}}`, contentType(jsonBody))
	if status := a.status(t); a.code != http.StatusTooManyRequests || status.Reason != metav1.StatusReasonTooManyRequests || a.header.Get("Retry-After") == "" {
		t.Errorf("the third create: %d %v %v", a.code, status, a.header)
	}
	user.must(t, 200, "GET", configMaps(""), "")
	user.must(t, 200, "GET", "/livez", "")
	go func() {
		answers <- admin.do(t, "POST", configMaps(""), `{"metadata":{"name":"c"}}`, contentType(jsonBody)).code
	}()
	<-gate.entered
	close(gate.open)
	for range 3 {
		if code := <-answers; code != 201 {
			t.Errorf("a create that was let in: %d", code)
		}
	}
}
