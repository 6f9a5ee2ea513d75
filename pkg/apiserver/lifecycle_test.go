package apiserver_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"coracle/pkg/resource"
)

// lifecycle is the check that every verb of some kinds ("pods",
// "jobs.batch") does what it says, that discovery tells of it, and that status
// is written apart.
func lifecycle(kinds ...string) func(t *testing.T, s *server) {
	return func(t *testing.T, s *server) {
		for _, kind := range kinds {
			found := false
			for _, res := range s.Registry().Table().All() {
				if res.GroupResource().String() == kind {
					found = true
					testDiscovered(t, s, res)
					testLifecycle(t, s, res)
				}
			}
			if !found {
				t.Errorf("no kind is called %s", kind)
			}
		}
	}
}

// testDiscovered: both forms of discovery have the resource and its status.
func testDiscovered(t *testing.T, s *server, res *resource.Resource) {
	t.Helper()
	list := &metav1.APIResourceList{}
	s.must(t, 200, "GET", discoveryPath(res), "").decode(t, list)
	verbs := map[string][]string{}
	for _, r := range list.APIResources {
		verbs[r.Name] = r.Verbs
	}
	root := "/apis"
	if res.Group == "" {
		root = "/api"
	}
	groups := &apidiscoveryv2.APIGroupDiscoveryList{}
	s.must(t, 200, "GET", root, "", accept(aggregatedForm)).decode(t, groups)
	aggregated := map[string][]string{}
	for _, g := range groups.Items {
		for _, v := range g.Versions {
			if g.Name != res.Group || v.Version != res.Version {
				continue
			}
			for _, r := range v.Resources {
				aggregated[r.Resource] = r.Verbs
				for _, sub := range r.Subresources {
					aggregated[r.Resource+"/"+sub.Subresource] = sub.Verbs
				}
			}
		}
	}
	for name, want := range map[string][]string{
		res.Plural: resource.AllVerbs(), res.Plural + "/status": {"get", "patch", "update"},
	} {
		if strings.HasSuffix(name, "/status") && !res.HasStatus || res.Plural == "namespaces" {
			continue
		}
		for form, got := range map[string][]string{"plain": verbs[name], "aggregated": aggregated[name]} {
			if got = slices.Sorted(slices.Values(got)); !slices.Equal(got, want) {
				t.Errorf("%s discovery of %s has verbs %q, want %q", form, name, got, want)
			}
		}
	}
}

const mergeBody = "application/merge-patch+json"

func testLifecycle(t *testing.T, s *server, res *resource.Resource) {
	t.Helper()
	u := example(t, res)
	ns := u.GetNamespace()
	if res.Namespaced && ns == "" {
		ns = "kinds"
	}
	path := kindPath(res, res.Version, ns)
	everywhere := kindPath(res, res.Version, "")
	if res.Namespaced {
		everywhere = strings.Replace(path, "/namespaces/"+ns, "", 1)
	}
	const mine = "labelSelector=life%3Dyes"
	start := &metav1.PartialObjectMetadataList{}
	s.must(t, 200, "GET", path, "").decode(t, start)
	w := s.watch(t, path+"?watch=1&"+mine+"&resourceVersion="+start.ResourceVersion)
	var names []string
	for i := range 3 {
		one := u.DeepCopy()
		one.SetName(fmt.Sprintf("%s-%d", u.GetName(), i))
		unique(one, i)
		if i < 2 {
			one.SetLabels(map[string]string{"life": "yes"})
		}
		s.must(t, 201, "POST", path, string(mustJSON(t, one.Object)), contentType(jsonBody))
		names = append(names, one.GetName())
		if res.Kind == "FlowSchema" {
			s.untilBound(t, one.GetName())
		}
	}
	listed(t, s, path+"?"+mine, names[0], names[1])
	listed(t, s, everywhere+"?"+mine, names[0], names[1])
	first := path + "/" + names[0]
	s.must(t, 200, "PATCH", first, `{"metadata":{"labels":{"step":"patched"}}}`, contentType(mergeBody))
	got := plain(t, s.must(t, 200, "GET", first, "").body)
	labels := got["metadata"].(map[string]any)["labels"].(map[string]any)
	if labels["step"] != "patched" || labels["life"] != "yes" {
		t.Errorf("after the patch the labels are %v", labels)
	}
	labels["step"] = "updated"
	s.must(t, 200, "PUT", first, string(mustJSON(t, got)), contentType(jsonBody))
	if again := s.must(t, 200, "GET", first, ""); !strings.Contains(string(again.body), `"step":"updated"`) {
		t.Errorf("after the update: %s", again.body)
	}
	if res.HasStatus {
		testStatusOf(t, s, res, first)
	}
	s.must(t, 200, "DELETE", path+"?gracePeriodSeconds=0&"+mine, "")
	for _, name := range names[:2] {
		released(t, s, path+"/"+name)
	}
	listed(t, s, path+"?"+mine)
	s.must(t, 200, "GET", path+"/"+names[2], "")
	s.must(t, 200, "DELETE", path+"/"+names[2]+"?gracePeriodSeconds=0", "")
	released(t, s, path+"/"+names[2])
	want := map[string]string{names[0]: "ADDED MODIFIED DELETED", names[1]: "ADDED DELETED"}
	for seen := map[string]string{}; !strings.HasSuffix(seen[names[0]], "DELETED") || !strings.HasSuffix(seen[names[1]], "DELETED"); {
		e := w.next()
		name := e.Metadata.Name
		if !strings.HasSuffix(seen[name], e.Type) {
			seen[name] = strings.TrimSpace(seen[name] + " " + e.Type)
		}
		// A finalizer of the kind may add a change before the end.
		if !strings.HasPrefix(want[name], seen[name]) && seen[name] != "ADDED MODIFIED DELETED" && seen[name] != "ADDED MODIFIED" {
			t.Fatalf("the watch of %s shows %s", name, seen[name])
		}
	}
}

// unique gives copies of an example what no two objects share.
func unique(u *unstructured.Unstructured, i int) {
	if ip, ok, err := unstructured.NestedString(u.Object, "spec", "clusterIP"); err == nil && ok && ip != "None" {
		unstructured.RemoveNestedField(u.Object, "spec", "clusterIP")
		unstructured.RemoveNestedField(u.Object, "spec", "clusterIPs")
	}
	ports, ok, err := unstructured.NestedSlice(u.Object, "spec", "ports")
	if err != nil || !ok || u.GetKind() != "Service" {
		return
	}
	for _, p := range ports {
		delete(p.(map[string]any), "nodePort")
	}
	if err := unstructured.SetNestedSlice(u.Object, ports, "spec", "ports"); err != nil {
		panic(fmt.Sprintf("set the ports of copy %d: %v", i, err)) // they were read from there
	}
}

// listed checks the names of a list.
func listed(t *testing.T, s *server, path string, want ...string) {
	t.Helper()
	list := &metav1.PartialObjectMetadataList{}
	s.must(t, 200, "GET", path, "").decode(t, list)
	var got []string
	for _, item := range list.Items {
		got = append(got, item.Name)
	}
	if !slices.Equal(got, want) {
		t.Errorf("GET %s lists %q, want %q", path, got, want)
	}
}

// released takes the finalizers off an object that was deleted, as its
// controllers would, and checks that it has gone then.
func released(t *testing.T, s *server, one string) {
	t.Helper()
	a := s.do(t, "GET", one, "")
	if a.code == 200 {
		if !strings.Contains(string(a.body), `"deletionTimestamp"`) {
			t.Fatalf("deleted, and still there: %s", a.body)
		}
		s.must(t, 200, "PATCH", one, `{"metadata":{"finalizers":null}}`, contentType(mergeBody))
	}
	s.must(t, 404, "GET", one, "")
}

// testStatusOf writes the status of an object by PATCH and PUT and checks that
// it is read back and that the spec stays.
func testStatusOf(t *testing.T, s *server, res *resource.Resource, one string) {
	t.Helper()
	before := plain(t, s.must(t, 200, "GET", one+"/status", "").body)
	spec := string(mustJSON(t, before["spec"]))
	body := `{"metadata":{"annotations":{"seen":"patched"}}}`
	status, ok := reflect.TypeOf(res.New()).Elem().FieldByName("Status")
	conditions := ok
	if ok {
		_, conditions = status.Type.FieldByName("Conditions")
	}
	if conditions {
		body = `{"metadata":{"annotations":{"seen":"patched"}},"status":{"conditions":[{"type":"StatusPatched","status":"True","reason":"Test",
			"message":"set by a test","lastTransitionTime":"2026-01-02T03:04:05Z"}]}}`
	}
	patched := s.must(t, 200, "PATCH", one+"/status", body, contentType(mergeBody))
	for _, a := range []*answer{patched, s.must(t, 200, "GET", one, "")} {
		if text := string(a.body); conditions && !strings.Contains(text, `"StatusPatched"`) || !strings.Contains(text, `"seen":"patched"`) {
			t.Errorf("after a patch of the status: %s", text)
		}
	}
	put := strings.ReplaceAll(strings.Replace(string(patched.body), `"seen":"patched"`, `"seen":"updated"`, 1), "StatusPatched", "StatusUpdated")
	if res.Kind == "FlowSchema" {
		// The server adds its own condition as soon as it is missing.
		put = regexp.MustCompile(`"resourceVersion":"[0-9]+",?`).ReplaceAllString(put, "")
	}
	updated := s.must(t, 200, "PUT", one+"/status", put, contentType(jsonBody))
	if text := string(updated.body); conditions && !strings.Contains(text, `"StatusUpdated"`) || !strings.Contains(text, `"seen":"updated"`) {
		t.Errorf("after an update of the status: %s", text)
	}
	after, err := json.Marshal(plain(t, s.must(t, 200, "GET", one, "").body)["spec"])
	if err != nil || string(after) != spec {
		t.Errorf("writes of the status changed the spec from %s to %s (%v)", spec, after, err)
	}
}

// scales is the check of a /scale: get, update and patch.
func scales(kind string) func(t *testing.T, s *server) {
	return func(t *testing.T, s *server) {
		for _, res := range s.Registry().Table().All() {
			if res.GroupResource().String() != kind {
				continue
			}
			u := example(t, res)
			u.SetName("scaled")
			ns := u.GetNamespace()
			if err := unstructured.SetNestedField(u.Object, int64(1), "spec", "replicas"); err != nil {
				t.Fatal(err)
			}
			path := kindPath(res, res.Version, ns)
			s.must(t, 201, "POST", path, string(mustJSON(t, u.Object)), contentType(jsonBody))
			replicas := func(a *answer) any {
				t.Helper()
				doc := plain(t, a.body)
				return doc["spec"].(map[string]any)["replicas"]
			}
			scale := s.must(t, 200, "GET", path+"/scaled/scale", "")
			if doc := plain(t, scale.body); doc["kind"] != "Scale" || doc["apiVersion"] != "autoscaling/v1" || replicas(scale) != 1.0 {
				t.Errorf("the scale is %s", scale.body)
			}
			put := strings.Replace(string(scale.body), `"replicas":1`, `"replicas":2`, 1)
			if got := replicas(s.must(t, 200, "PUT", path+"/scaled/scale", put, contentType(jsonBody))); got != 2.0 {
				t.Errorf("updated to 2, it says %v", got)
			}
			s.must(t, 409, "PUT", path+"/scaled/scale", put, contentType(jsonBody)).status(t)
			if got := replicas(s.must(t, 200, "PATCH", path+"/scaled/scale", `{"spec":{"replicas":4}}`, contentType(mergeBody))); got != 4.0 {
				t.Errorf("patched to 4, it says %v", got)
			}
			if got := replicas(s.must(t, 200, "GET", path+"/scaled", "")); got != 4.0 {
				t.Errorf("the object itself has %v replicas", got)
			}
			s.must(t, 200, "DELETE", path+"/scaled", "")
		}
	}
}
