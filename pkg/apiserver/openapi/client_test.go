package openapi_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	cliresource "k8s.io/cli-runtime/pkg/resource"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/openapi3"
	"k8s.io/client-go/rest"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/util/proto"
	"k8s.io/kube-openapi/pkg/util/proto/validation"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"sigs.k8s.io/yaml"

	"coracle/pkg/resource"
	"coracle/pkg/testcluster"
)

// kinds lists the kinds of the table with whether they can be patched.
func kinds() map[schema.GroupVersionKind]bool {
	out := map[schema.GroupVersionKind]bool{}
	for _, r := range resource.Builtin().All() {
		out[r.GVK()] = r.HasVerb("patch")
		for _, v := range r.Views {
			out[schema.GroupVersionKind{Group: v.Group, Version: v.Version, Kind: v.Kind}] = r.HasVerb("patch")
		}
	}
	return out
}

func hasKind(ext spec.Extensions, gvk schema.GroupVersionKind) bool {
	list, _ := ext["x-kubernetes-group-version-kind"].([]any)
	for _, item := range list {
		m, _ := item.(map[string]any)
		if m["group"] == gvk.Group && m["version"] == gvk.Version && m["kind"] == gvk.Kind {
			return true
		}
	}
	return false
}

func TestV3HasEveryKind(t *testing.T) {
	c := testcluster.Start(t)
	root := openapi3.NewRoot(c.Client.Discovery().OpenAPIV3())
	docs := map[schema.GroupVersion]*spec3.OpenAPI{}
	served, err := root.GroupVersions()
	if err != nil {
		t.Fatal(err)
	}
	for _, gv := range served {
		if docs[gv], err = root.GVSpec(gv); err != nil {
			t.Fatalf("%s: %v", gv, err)
		}
		// Server-side apply by clients, and kubectl's three-way merge, read
		// list types and merge keys from here.
		if _, err := managedfields.NewTypeConverter(docs[gv].Components.Schemas, false); err != nil {
			t.Errorf("the schemas of %s make no type converter: %v", gv, err)
		}
	}
	for gvk := range kinds() {
		doc := docs[gvk.GroupVersion()]
		if doc == nil {
			t.Errorf("%s has no document", gvk.GroupVersion())
			continue
		}
		found := false
		for _, s := range doc.Components.Schemas {
			found = found || hasKind(s.Extensions, gvk)
		}
		if !found {
			t.Errorf("%s has no schema in OpenAPI v3", gvk)
		}
	}
}

// v2 reads the v2 document as client-go does, in protobuf.
func v2(t *testing.T, c *testcluster.Cluster) proto.Models {
	t.Helper()
	doc, err := c.Client.Discovery().OpenAPISchema()
	if err != nil {
		t.Fatal(err)
	}
	models, err := proto.NewOpenAPIData(doc)
	if err != nil {
		t.Fatal(err)
	}
	return models
}

func model(models proto.Models, gvk schema.GroupVersionKind) proto.Schema {
	for _, name := range models.ListModels() {
		s := models.LookupModel(name)
		list, _ := s.GetExtensions()["x-kubernetes-group-version-kind"].([]any)
		for _, item := range list {
			m, _ := item.(map[any]any)
			if m["group"] == gvk.Group && m["version"] == gvk.Version && m["kind"] == gvk.Kind {
				return s
			}
		}
	}
	return nil
}

func TestV2HasEveryKind(t *testing.T) {
	c := testcluster.Start(t)
	models := v2(t, c)
	for gvk := range kinds() {
		if model(models, gvk) == nil {
			t.Errorf("%s has no schema in OpenAPI v2", gvk)
		}
	}
}

// fetched is a v2 document that was read once.
type fetched struct{ doc *openapi_v2.Document }

func (f fetched) OpenAPISchema() (*openapi_v2.Document, error) { return f.doc, nil }

// TestServerSideValidation asks what kubectl asks before it leaves the
// validation of fields to the server.
func TestServerSideValidation(t *testing.T) {
	c := testcluster.Start(t)
	dyn, err := dynamic.NewForConfig(c.Admin())
	if err != nil {
		t.Fatal(err)
	}
	discovery := c.Client.Discovery()
	doc, err := discovery.OpenAPISchema()
	if err != nil {
		t.Fatal(err)
	}
	verifiers := map[string]cliresource.Verifier{
		"v2": cliresource.NewQueryParamVerifier(dyn, fetched{doc}, cliresource.QueryParamFieldValidation),
		"v3": cliresource.NewQueryParamVerifierV3(dyn, discovery.OpenAPIV3(), cliresource.QueryParamFieldValidation),
	}
	for gvk, patch := range kinds() {
		if !patch {
			continue
		}
		for version, v := range verifiers {
			if err := v.HasSupport(gvk); err != nil {
				t.Errorf("by OpenAPI %s: %v", version, err)
			}
		}
	}
}

const deployment = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  strategy: {rollingUpdate: {maxSurge: 25%, maxUnavailable: 1}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: example.com/web
        ports: [{containerPort: 80}]
        resources: {limits: {cpu: 1, memory: 64Mi}}
`

// TestClientSideValidation validates as clients do that read OpenAPI v2.
func TestClientSideValidation(t *testing.T) {
	c := testcluster.Start(t)
	s := model(v2(t, c), schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"})
	if s == nil {
		t.Fatal("a Deployment has no schema")
	}
	for _, x := range []struct{ old, new, want string }{
		{"", "", ""},
		{"replicas: 2", "replica: 2", `unknown field "replica"`},
		{"replicas: 2", "replicas: two", "invalid type"},
		{"containerPort: 80", "name: http", `missing required field "containerPort"`},
	} {
		var obj map[string]any
		if err := yaml.Unmarshal([]byte(strings.Replace(deployment, x.old, x.new, 1)), &obj); err != nil {
			t.Fatal(err)
		}
		errs := validation.ValidateModel(obj, s, "Deployment")
		text := ""
		for _, err := range errs {
			text += err.Error() + "\n"
		}
		if x.want == "" && text != "" || !strings.Contains(text, x.want) {
			t.Errorf("with %q instead of %q: %q, want %q", x.new, x.old, text, x.want)
		}
	}
}

// TestApplyByOpenAPI merges by the types that a client reads from OpenAPI v3.
func TestApplyByOpenAPI(t *testing.T) {
	c := testcluster.Start(t)
	doc, err := openapi3.NewRoot(c.Client.Discovery().OpenAPIV3()).GVSpec(schema.GroupVersion{Group: "apps", Version: "v1"})
	if err != nil {
		t.Fatal(err)
	}
	types, err := managedfields.NewTypeConverter(doc.Components.Schemas, false)
	if err != nil {
		t.Fatal(err)
	}
	parse := func(text string) *unstructured.Unstructured {
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
			t.Fatal(err)
		}
		return u
	}
	one, err := types.ObjectToTyped(parse(deployment))
	if err != nil {
		t.Fatal(err)
	}
	two, err := types.ObjectToTyped(parse(`
apiVersion: apps/v1
kind: Deployment
spec: {template: {spec: {containers: [{name: web, image: example.com/web:2}, {name: side, image: example.com/side}]}}}
`))
	if err != nil {
		t.Fatal(err)
	}
	merged, err := one.Merge(two)
	if err != nil {
		t.Fatal(err)
	}
	obj, err := types.TypedToObject(merged)
	if err != nil {
		t.Fatal(err)
	}
	containers, _, err := unstructured.NestedSlice(obj.(*unstructured.Unstructured).Object, "spec", "template", "spec", "containers")
	if err != nil {
		t.Fatal(err)
	}
	if len(containers) != 2 {
		t.Fatalf("containers are no list with keys: %v", containers)
	}
	first := containers[0].(map[string]any)
	if first["name"] != "web" || first["image"] != "example.com/web:2" || first["ports"] == nil {
		t.Errorf("the container was not merged: %v", first)
	}
}

// TestDescribedPathsAreServed sends each list and each document of discovery
// that OpenAPI speaks of, and each write without a body: the first are
// answered, the latter fail for another reason than that there is no such
// path or method.
func TestDescribedPathsAreServed(t *testing.T) {
	c := testcluster.Start(t)
	client, err := rest.HTTPClientFor(c.Admin())
	if err != nil {
		t.Fatal(err)
	}
	doc, err := c.Client.Discovery().OpenAPISchema()
	if err != nil {
		t.Fatal(err)
	}
	send := func(method, path string) int {
		req, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), method, "http://coracle.invalid"+path+"?dryRun=All", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode
	}
	fill := strings.NewReplacer("{namespace}", "default", "{name}", "nobody")
	for _, p := range doc.GetPaths().GetPath() {
		path, item := fill.Replace(p.GetName()), p.GetValue()
		if strings.Contains(path, "/watch/") || needsMore(path) {
			continue
		}
		if item.GetGet() != nil && !strings.Contains(p.GetName(), "{name}") {
			if code := send(http.MethodGet, path); code != http.StatusOK {
				t.Errorf("GET %s is answered with %d", path, code)
			}
		}
		for method, described := range map[string]bool{
			http.MethodPost: item.GetPost() != nil, http.MethodPut: item.GetPut() != nil, http.MethodPatch: item.GetPatch() != nil,
		} {
			if !described {
				continue
			}
			if code := send(method, path); code == http.StatusMethodNotAllowed {
				t.Errorf("%s %s is answered with %d", method, path, code)
			}
		}
	}
}

// needsMore says that a path is served by what a control plane in a test does
// not have: nodes, or keys for tokens.
func needsMore(path string) bool {
	for _, sub := range []string{"/proxy", "/attach", "/exec", "/portforward", "/token"} {
		if strings.Contains(path, sub) {
			return true
		}
	}
	return false
}
