package apiserver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/apiserver"
	"coracle/pkg/auth"
	"coracle/pkg/registry"
	"coracle/pkg/storage"
	"coracle/pkg/storage/memory"
	"coracle/pkg/testcluster"
)

// TestWrongScope: whoever has all rights in one namespace reaches nothing that is
// not in one by a URL of that namespace, and nothing that is in one by a URL
// without (CVE-2019-11247).
func TestWrongScope(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.prepareExamples(t)
	s.define(t, widgetDefinition)
	s.define(t, strings.NewReplacer("Namespaced", "Cluster", "widget", "gadget", "Widget", "Gadget", `["wd"]`, `["gd"]`).Replace(widgetDefinition))
	all := []string{"*"}
	if _, err := s.Client.RbacV1().Roles("kinds").Create(t.Context(), &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "all"},
		Rules: []rbacv1.PolicyRule{{Verbs: all, APIGroups: all, Resources: all}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Client.RbacV1().RoleBindings("kinds").Create(t.Context(), &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "all"},
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "all"}, Subjects: []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: "tenant"}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	tenant := &server{Cluster: s.Cluster, http: s.As("tenant").Transport}
	eventually(t, "the tenant has rights", func(context.Context) (bool, error) {
		return tenant.do(t, "GET", "/api/v1/namespaces/kinds/pods", "").code == 200, nil
	})
	before, tried := s.revisionNow(t), 0
	for _, res := range s.Registry().Table().All() {
		path := kindPath(res, res.Version, "kinds")
		wrong := strings.Replace(path, kindPrefix(res.Group, res.Version), kindPrefix(res.Group, res.Version)+"/namespaces/kinds", 1)
		who := tenant
		if res.Namespaced {
			wrong = strings.Replace(path, "/namespaces/kinds", "", 1)
			// A tenant may not even ask: an administrator is told that there is nothing.
			who = s
		}
		body := ""
		if res.Stored() && res.Group != "example.com" {
			body = string(mustJSON(t, example(t, res).Object))
		}
		for _, d := range []door{
			{"GET", wrong + "/a", "", jsonBody}, {"PUT", wrong + "/a", body, jsonBody}, {"DELETE", wrong + "/a", "", jsonBody}, {"PATCH", wrong + "/a", "{}", "application/merge-patch+json"},
			{"PATCH", wrong + "/a?fieldManager=m", "{}", applyBody}, {"POST", wrong, body, jsonBody}, {"GET", wrong + "/a/status", "", jsonBody}, {"PATCH", wrong + "/a/scale", "{}", "application/merge-patch+json"},
			{"GET", wrong, "", jsonBody}, {"GET", wrong + "?watch=1", "", jsonBody}, {"DELETE", wrong, "", jsonBody}, {"GET", wrong + "/a/proxy/x", "", jsonBody},
		} {
			if res.Namespaced && !strings.HasPrefix(d.path, wrong+"/a") && d.method != http.MethodPost {
				continue // all namespaces at once, which is no wrong URL
			}
			tried++
			if a := who.do(t, d.method, d.path, d.body, contentType(d.content)); a.code != 404 {
				t.Errorf("%s %s (%s): %d %s", d.method, d.path, res.Kind, a.code, a.body)
			}
		}
	}
	for _, path := range []string{"/api/v1/namespaces/kinds/namespaces", "/api/v1/namespaces/kinds/namespaces/default", "/api/v1/namespaces/kinds/namespaces/kinds", "/api/v1/namespaces/kinds/namespaces/default/finalize", "/api/v1/namespaces/kinds/namespaces/default/status", "/api/v1/namespaces/kinds/nodes/n/proxy/exec"} {
		if a := tenant.do(t, "GET", path, ""); a.code != 404 {
			t.Errorf("GET %s: %d", path, a.code)
		}
	}
	if tried < 500 {
		t.Errorf("only %d URLs were tried", tried)
	}
	if now := s.revisionNow(t); now != before {
		t.Errorf("something was written: the store went from %d to %d", before, now)
	}
}

// watched is a store that remembers which keys it was asked for.
type watched struct {
	storage.Backend
	mu   sync.Mutex
	keys []string // guarded by mu
}

func (w *watched) note(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.keys = append(w.keys, key)
}

// taken are the keys since the last call.
func (w *watched) taken() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.keys
	w.keys = nil
	return out
}

func (w *watched) Get(ctx context.Context, key string) (*storage.KV, storage.Revision, error) {
	w.note(key)
	return w.Backend.Get(ctx, key)
}

func (w *watched) Range(ctx context.Context, prefix string, opts storage.RangeOptions) (*storage.Page, error) {
	w.note(prefix)
	return w.Backend.Range(ctx, prefix, opts)
}

func (w *watched) Put(ctx context.Context, key string, value []byte, expect storage.Revision, ttl time.Duration) (storage.Revision, error) {
	w.note(key)
	return w.Backend.Put(ctx, key, value, expect, ttl)
}

func (w *watched) Delete(ctx context.Context, key string, expect storage.Revision) (storage.Revision, error) {
	w.note(key)
	return w.Backend.Delete(ctx, key, expect)
}

// overheard allows everything and remembers what it was asked about last.
type overheard struct{ asked auth.Attributes }

func (o *overheard) Authorize(_ context.Context, a auth.Attributes) (auth.Decision, string, error) {
	o.asked = a
	return auth.Allow, "", nil
}

// FuzzPaths: whatever is in the place of a namespace, a name or a token, the
// store is asked for keys below what authorization was asked about, and nothing
// else comes back (CVE-2022-3162, CVE-2015-5305).
func FuzzPaths(f *testing.F) {
	for _, seed := range [][3]string{
		{"default", "s", ""}, {"..", "secrets", "x"}, {"default", "../../secrets/default/s", ""}, {"default", "..%2f..%2fsecrets%2fdefault%2fs", ""},
		{"default%2f..%2f..%2fsecrets", "s", ""}, {"default", "%2e%2e", ""}, {"default", "a%00b", ""}, {"default", ".", ""}, {"", "s", ""}, {"default/../../secrets", "s", ""},
		{"default", "", "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiIuLi9zZWNyZXRzL2RlZmF1bHQvcyJ9"}, {"default%00", "a", ""}, {"default", "s%2F", ""}, {"kube-system", "s/", ""},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	backend := &watched{Backend: memory.New(memory.Config{})}
	f.Cleanup(func() {
		if err := backend.Close(); err != nil {
			f.Error(err)
		}
	})
	s := newServer(f, testcluster.WithBackend(backend))
	for _, kind := range []string{"secrets", "configmaps"} {
		for _, namespace := range []string{"default", "kube-system"} {
			if a := s.do(f, "POST", "/api/v1/namespaces/"+namespace+"/"+kind, `{"metadata":{"name":"s"}}`, contentType(jsonBody)); a.code != 201 {
				f.Fatalf("%d %s", a.code, a.body)
			}
		}
	}
	authz := &overheard{}
	open := &server{Cluster: s.Cluster, http: apiServer(f, s, nil, func(c *apiserver.Config) { c.Authorizer = authz }).Transport(&auth.User{Name: "anyone"})}
	f.Fuzz(func(t *testing.T, namespace, name, token string) {
		collection := "/api/v1/namespaces/" + namespace + "/configmaps"
		metadata := string(mustJSON(t, map[string]any{"metadata": map[string]any{"name": name, "namespace": namespace}}))
		for _, d := range []door{
			{"GET", collection + "/" + name, "", jsonBody}, {"GET", collection + "?limit=1&continue=" + token, "", jsonBody},
			{"GET", collection + "?resourceVersionMatch=Exact&resourceVersion=1&fieldSelector=metadata.name%3D" + name, "", jsonBody},
			{"POST", collection, metadata, jsonBody}, {"PUT", collection + "/" + name, metadata, jsonBody}, {"DELETE", collection + "/" + name, "", jsonBody},
		} {
			r, err := http.NewRequestWithContext(t.Context(), d.method, "http://coracle.invalid"+d.path, strings.NewReader(d.body))
			if err != nil || strings.Contains(d.path, "watch") {
				continue // no URL, or one whose answer has no end
			}
			r.Header.Set("Content-Type", d.content)
			backend.taken()
			authz.asked = auth.Attributes{}
			resp, err := open.http.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			closeIt(t, resp.Body)
			checkReach(t, d, authz.asked, backend.taken(), resp.StatusCode, body)
		}
	})
}

// checkReach wants that a request reached what authorization was asked about and
// nothing else.
func checkReach(t *testing.T, d door, asked auth.Attributes, keys []string, code int, body []byte) {
	t.Helper()
	below := "/registry/" + asked.Resource + "/"
	if asked.Namespace != "" && asked.Resource != "namespaces" {
		below += asked.Namespace + "/"
	}
	for _, key := range keys {
		if !strings.HasPrefix(key, below) || strings.Contains(key, "/../") || strings.HasSuffix(key, "/..") || strings.ContainsRune(key, 0) {
			t.Errorf("%s %q, which is about %q: the store was asked for %q", d.method, d.path, below, key)
		}
	}
	if code != 200 || d.method != "GET" || !asked.ResourceRequest {
		return
	}
	var found struct {
		Kind     string
		Metadata metav1.ObjectMeta
		Items    []struct{ Metadata metav1.ObjectMeta }
	}
	if err := json.Unmarshal(body, &found); err != nil {
		t.Fatalf("%s %q: %v", d.method, d.path, err)
	}
	for _, m := range append(found.Items, struct{ Metadata metav1.ObjectMeta }{found.Metadata}) {
		if m.Metadata.Name == "" {
			continue // a list's own
		}
		if !strings.EqualFold(strings.TrimSuffix(found.Kind, "List")+"s", asked.Resource) || asked.Namespace != "" && asked.Resource != "namespaces" && m.Metadata.Namespace != asked.Namespace ||
			asked.Name != "" && m.Metadata.Name != asked.Name {
			t.Errorf("%s %q, which is about %s %s/%s, shows the %s %s/%s", d.method, d.path, asked.Resource, asked.Namespace, asked.Name, found.Kind, m.Metadata.Namespace, m.Metadata.Name)
		}
	}
}

// TestSeriesAreBounded: thousands of made-up paths, verbs, agents, users and
// resources add no series to the metrics after the first few (CVE-2020-8552).
func TestSeriesAreBounded(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	flood := func(from, to int) int {
		for i := from; i < to; i++ {
			s.do(t, "GET", fmt.Sprintf("/apis/g%d/v%d/r%d/n/s%d", i, i, i, i), "", header{"User-Agent", fmt.Sprintf("agent%d", i)})
			s.do(t, fmt.Sprintf("VERB%d", i), fmt.Sprintf("/path%d", i), "", contentType(fmt.Sprintf("x/%d", i)), accept(fmt.Sprintf("y/%d", i)))
			s.do(t, "GET", fmt.Sprintf("/api/v1/namespaces/n%d/pods/p%d/sub%d", i, i, i), "")
			s.do(t, "GET", fmt.Sprintf("/api/v1/namespaces/n%d/configmaps?fieldManager=%d&dryRun=%d&fieldSelector=metadata.name%%3D%d", i, i, i, i), "")
			user := s.As(fmt.Sprintf("user%d", i), fmt.Sprintf("group%d", i)).Transport
			resp, err := user.RoundTrip(request(t.Context(), t, "GET", "/api/v1/nodes", nil))
			if err != nil {
				t.Fatal(err)
			}
			closeIt(t, resp.Body)
		}
		return bytes.Count(s.must(t, 200, "GET", "/metrics", "").body, []byte("\n"))
	}
	few := flood(0, 20)
	if many := flood(20, 2000); many > few+60 { // the buckets of what took longer are there from the start
		t.Errorf("%d lines of metrics after 20 rounds, %d after 2000", few, many)
	}
}

// TestPanics: who makes a handler panic learns nothing of the program, and what
// the log keeps has neither the request's credentials nor its body.
func TestPanics(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.must(t, 201, "POST", "/api/v1/namespaces/default/serviceaccounts", `{"metadata":{"name":"a"}}`, contentType(jsonBody))
	var log bytes.Buffer
	broken := apiServer(t, s, nil, func(c *apiserver.Config) {
		c.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		c.Handlers = map[string]apiserver.Handler{"serviceaccounts/token": func(_ http.ResponseWriter, r *http.Request, _ registry.Request, _ string) {
			body := make([]byte, 100)
			n, _ := r.Body.Read(body)
			panic(errors.New("a reason with " + strings.Repeat("x", n)))
		}}
	})
	b := &server{Cluster: s.Cluster, http: broken.Transport(&auth.User{Name: "anyone"})}
	a := b.must(t, 500, "POST", "/api/v1/namespaces/default/serviceaccounts/a/token", `{"canary":"in-the-body"}`, contentType(jsonBody), header{"Authorization", "Bearer canary-token"})
	status := a.status(t)
	for _, part := range []string{"goroutine", ".go:", "a reason", "canary", "panic"} {
		if strings.Contains(string(a.body), part) {
			t.Errorf("the client sees %q: %s", part, a.body)
		}
	}
	if status.Reason != metav1.StatusReasonInternalError || !strings.Contains(status.Message, "the server's log says why") {
		t.Errorf("%+v", status)
	}
	if !strings.Contains(log.String(), "a reason") || !strings.Contains(log.String(), "goroutine") {
		t.Errorf("the log does not say why: %s", log.String())
	}
	if strings.Contains(log.String(), "canary") {
		t.Errorf("the log has credentials or the body: %s", log.String())
	}
}
