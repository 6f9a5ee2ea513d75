package apiserver_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"coracle/pkg/admission"
	"coracle/pkg/apiserver"
	"coracle/pkg/auth"
	"coracle/pkg/auth/token"
	"coracle/pkg/resource"
)

// doorkeeper is a plugin that refuses everything. It keeps the old object that
// it was shown last.
type doorkeeper struct {
	table *resource.Table
	old   map[string]any
}

func (*doorkeeper) Name() string { return "Doorkeeper" }

const keptOut = "nobody goes through this door"

func (d *doorkeeper) Validate(_ context.Context, a *admission.Attributes) error {
	d.old = nil
	if a.Old() != nil {
		u, err := runtime.DefaultUnstructuredConverter.ToUnstructured(a.Old())
		if err != nil {
			return err
		}
		text, err := json.Marshal(u)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(text, &d.old); err != nil {
			return err
		}
	}
	return errors.New(keptOut)
}

// noTokens issues none: who gets this far has been admitted.
type noTokens struct{}

func (noTokens) AuthenticateToken(context.Context, string, []string) (*auth.TokenInfo, bool, error) {
	return nil, false, nil
}
func (noTokens) Issue(token.Request, time.Time) (*token.Issued, error) {
	return nil, errors.New("a token would have been issued")
}
func (noTokens) Audiences() []string { return []string{"here"} }

// door is one way to change something.
type door struct{ method, path, body, content string }

// TestDoors: every way to write every kind has admission behind it, and what
// admission refuses leaves the store as it was (CVE-2016-1905). The old object
// that admission sees is what is stored (CVE-2021-25735).
func TestDoors(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.prepareExamples(t)
	keeper := &doorkeeper{table: s.Registry().Table()}
	chain, err := admission.NewChain(keeper)
	if err != nil {
		t.Fatal(err)
	}
	kept := &server{Cluster: s.Cluster, http: apiServer(t, s, chain, func(c *apiserver.Config) { c.Tokens = noTokens{} }).Transport(&auth.User{Name: "anyone"})}
	tried := 0
	for _, res := range s.Registry().Table().All() {
		if !res.Stored() {
			continue
		}
		t.Run(res.GroupResource().String(), func(t *testing.T) {
			u := example(t, res)
			if res.Namespaced && u.GetNamespace() == "" {
				u.SetNamespace("kinds")
			}
			path := kindPath(res, res.Version, u.GetNamespace())
			s.must(t, 201, "POST", path, string(mustJSON(t, u.Object)), contentType(jsonBody))
			s.untilSettled(t, res, u.GetName())
			stored := s.must(t, 200, "GET", path+"/"+u.GetName(), "")
			before := s.revisionNow(t)
			for _, d := range doorsOf(t, res, u, path, string(stored.body)) {
				tried++
				keeper.old = nil
				a := kept.do(t, d.method, d.path, d.body, contentType(d.content))
				if a.code != http.StatusInternalServerError && a.code != http.StatusForbidden || !strings.Contains(string(a.body), keptOut) {
					t.Errorf("%s %s (%s) went through: %d %s", d.method, d.path, d.content, a.code, a.body)
				}
				if keeper.old != nil {
					want := plain(t, stored.body)
					delete(want, "kind")
					delete(want, "apiVersion")
					delete(keeper.old, "kind")
					delete(keeper.old, "apiVersion")
					if string(mustJSON(t, want)) != string(mustJSON(t, keeper.old)) {
						t.Errorf("%s %s: admission saw another old object than is stored", d.method, d.path)
					}
				} else if d.method != http.MethodPost {
					t.Errorf("%s %s (%s): admission saw no old object", d.method, d.path, d.content)
				}
			}
			if now := s.revisionNow(t); now != before {
				t.Errorf("something was written: the store went from %d to %d", before, now)
			}
			s.must(t, 200, "DELETE", path+"/"+u.GetName()+"?gracePeriodSeconds=0", "")
		})
	}
	if tried < 600 {
		t.Errorf("only %d doors were tried", tried)
	}
}

// revisionNow is the store's revision.
func (s *server) revisionNow(t *testing.T) int64 {
	t.Helper()
	rev, err := s.Registry().Cache().Current(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return int64(rev)
}

// doorsOf are all ways to write an object of a kind.
func doorsOf(t *testing.T, res *resource.Resource, u *unstructured.Unstructured, path, stored string) (out []door) {
	t.Helper()
	const merge, strategic, operations = "application/merge-patch+json", "application/strategic-merge-patch+json", "application/json-patch+json"
	one := path + "/" + u.GetName()
	add := func(method, path, body, content string) {
		out = append(out, door{method, path, body, content})
		q := "?"
		if strings.Contains(path, "?") {
			q = "&"
		}
		out = append(out, door{method, path + q + "dryRun=All", body, content})
	}
	other := u.DeepCopy()
	other.SetName("new-" + u.GetName())
	if at := strings.LastIndex(u.GetName(), ":"); at >= 0 { // the name begins with a signer's
		other.SetName(u.GetName() + "-new")
	}
	if res.Kind != "CustomResourceDefinition" && res.Kind != "APIService" && res.Kind != "IPAddress" { // whose names say what they are
		add("POST", path, string(mustJSON(t, other.Object)), jsonBody)
	}
	head := fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata: {labels: {door: \"open\"}", res.GVK().GroupVersion(), res.Kind)
	parts := []string{""}
	if res.HasStatus {
		parts = append(parts, "/status")
	}
	for _, sub := range res.Subresources {
		if sub.Prepare != nil {
			parts = append(parts, "/"+sub.Name)
		}
	}
	changed := plain(t, []byte(stored))
	changed["metadata"].(map[string]any)["annotations"] = map[string]any{"door": "open"}
	for _, part := range parts {
		allowed := func(verb string) bool {
			sub, ok := res.Subresource(strings.TrimPrefix(part, "/"))
			return part == "" || ok && slices.Contains(sub.Verbs, verb)
		}
		if allowed("update") {
			add("PUT", one+part, string(mustJSON(t, changed)), jsonBody)
		}
		if allowed("patch") {
			add("PATCH", one+part, `{"metadata":{"annotations":{"door":"open"}}}`, merge)
			add("PATCH", one+part, `{"metadata":{"annotations":{"door":"open"}}}`, strategic)
			add("PATCH", one+part, `[{"op":"add","path":"/metadata/annotations","value":{"door":"open"}}]`, operations)
			add("PATCH", one+part+"?fieldManager=m", head+"}\n", applyBody)
		}
	}
	if res.Scale != nil {
		add("PATCH", one+"/scale", `{"spec":{"replicas":7}}`, merge)
		add("PUT", one+"/scale", fmt.Sprintf(`{"kind":"Scale","apiVersion":"autoscaling/v1","metadata":{"name":%q,"namespace":%q},"spec":{"replicas":7}}`, u.GetName(), u.GetNamespace()), jsonBody)
		add("PATCH", one+"/scale?fieldManager=m&force=true", "kind: Scale\napiVersion: autoscaling/v1\nspec: {replicas: 7}\n", applyBody)
	}
	switch res.GroupResource().String() {
	case "pods":
		meta := fmt.Sprintf(`"metadata":{"name":%q,"namespace":%q}`, u.GetName(), u.GetNamespace())
		add("POST", one+"/binding", `{"kind":"Binding","apiVersion":"v1",`+meta+`,"target":{"kind":"Node","name":"n"}}`, jsonBody)
		add("POST", strings.TrimSuffix(path, "pods")+"bindings", `{"kind":"Binding","apiVersion":"v1",`+meta+`,"target":{"kind":"Node","name":"n"}}`, jsonBody)
		add("POST", one+"/eviction", `{"kind":"Eviction","apiVersion":"policy/v1",`+meta+`}`, jsonBody)
	case "serviceaccounts":
		add("POST", one+"/token", `{"kind":"TokenRequest","apiVersion":"authentication.k8s.io/v1"}`, jsonBody)
	}
	add("DELETE", one, "", jsonBody)
	if res.HasVerb("deletecollection") {
		add("DELETE", path+"?fieldSelector=metadata.name%3D"+u.GetName(), "", jsonBody)
	}
	return out
}
