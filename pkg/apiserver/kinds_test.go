package apiserver_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"sigs.k8s.io/yaml"

	"coracle/pkg/resource"
)

// examples are the table's own valid objects, one for each kind.
const examples = "../resource/testdata/kinds"

func example(t *testing.T, res *resource.Resource) *unstructured.Unstructured {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(examples, res.GroupResource().String()+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	obj := res.New()
	if err := yaml.Unmarshal(data, obj); err != nil {
		t.Fatal(err)
	}
	obj.GetObjectKind().SetGroupVersionKind(res.GVK())
	u := &unstructured.Unstructured{}
	if u.Object, err = runtime.DefaultUnstructuredConverter.ToUnstructured(obj); err != nil {
		t.Fatal(err)
	}
	switch {
	case u.GetName() == "", res.Kind == "Namespace", res.Kind == "ServiceAccount", res.Kind == "PriorityLevelConfiguration":
		u.SetName("example")
	}
	return u
}

// kindPath is where objects of a kind are.
func kindPath(res *resource.Resource, version, namespace string) string {
	path := "/apis/" + res.Group + "/" + version
	if res.Group == "" {
		path = "/api/" + version
	}
	if res.Namespaced {
		path += "/namespaces/" + namespace
	}
	return path + "/" + res.Plural
}

// checkEveryKind: NG-1 and the eight verbs of every stored kind of the table,
// through the API.
func checkEveryKind(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		s.prepareExamples(t)
		for _, res := range s.Registry().Table().All() {
			if res.Stored() {
				t.Run(res.GroupResource().String(), func(t *testing.T) { testKind(t, s, res) })
			}
		}
	})
}

// prepareExamples makes what the examples need to be created.
func (s *server) prepareExamples(t *testing.T) {
	t.Helper()
	s.must(t, 201, "POST", "/api/v1/namespaces", `{"metadata":{"name":"kinds"}}`, contentType("application/json"))
	for _, ns := range exampleNamespaces(t, s) {
		s.do(t, "POST", "/api/v1/namespaces", fmt.Sprintf(`{"metadata":{"name":%q}}`, ns), contentType("application/json"))
	}
	// The example of a Pod runs under this account.
	s.must(t, 201, "POST", "/api/v1/namespaces/shop/serviceaccounts", `{"metadata":{"name":"robot"}}`, contentType("application/json"))
}

func exampleNamespaces(t *testing.T, s *server) (out []string) {
	seen := map[string]bool{"": true, "default": true, "kube-system": true}
	for _, res := range s.Registry().Table().All() {
		if ns := example(t, res).GetNamespace(); res.Stored() && !seen[ns] {
			seen[ns] = true
			out = append(out, ns)
		}
	}
	return out
}

// untilSettled waits until the server has decided on a new object, of the kinds
// where it does so at once: false means that it does not.
func (s *server) untilSettled(t *testing.T, res *resource.Resource, name string) bool {
	t.Helper()
	switch res.Kind {
	case "CustomResourceDefinition":
		s.untilEstablished(t, name)
		_, group, _ := strings.Cut(name, ".")
		s.untilAvailable(t, "v1."+group, "Local")
	case "APIService":
		s.untilAvailable(t, name, "ServiceNotFound")
	case "FlowSchema":
		s.untilBound(t, name)
	default:
		return false
	}
	return true
}

// untilBound waits until a flow schema's condition says that its level is
// there.
func (s *server) untilBound(t *testing.T, name string) {
	t.Helper()
	s.until(t, "the flow schema "+name+" has its level", func() bool {
		f, err := s.Client.FlowcontrolV1().FlowSchemas().Get(t.Context(), name, metav1.GetOptions{})
		return err == nil && len(f.Status.Conditions) == 1 && f.Status.Conditions[0].Status == flowcontrolv1.ConditionFalse
	})
}

func testKind(t *testing.T, s *server, res *resource.Resource) {
	u := example(t, res)
	ns := u.GetNamespace()
	if res.Namespaced && ns == "" {
		ns = "kinds"
	}
	path := kindPath(res, res.Version, ns)
	before := &metav1.PartialObjectMetadataList{}
	s.must(t, 200, "GET", path, "").decode(t, before)
	w := s.watch(t, path+"?watch=1&resourceVersion="+before.ResourceVersion)
	body := mustJSON(t, u.Object)
	if dry := s.do(t, "POST", path+"?dryRun=All", string(body), contentType("application/json")); dry.code != 201 {
		t.Fatalf("dry run: %d %s", dry.code, dry.body)
	}
	s.must(t, 404, "GET", path+"/"+u.GetName(), "")
	made := s.must(t, 201, "POST", path+"?fieldManager=maker", string(body), contentType("application/json"))
	one := path + "/" + u.GetName()
	change := "ADDED"
	if s.untilSettled(t, res, u.GetName()) {
		made, change = s.must(t, 200, "GET", one, ""), "MODIFIED"
		w.want("ADDED", u.GetName())
	}
	got := s.must(t, 200, "GET", one, "")
	if diff := cmp.Diff(plain(t, made.body), plain(t, got.body)); diff != "" {
		t.Errorf("created and read differ (-created +read):\n%s", diff)
	}
	added := w.want(change, u.GetName())
	if diff := cmp.Diff(plain(t, got.body), plain(t, added.Object)); diff != "" {
		t.Errorf("read and watched differ (-read +watched):\n%s", diff)
	}
	compareForms(t, s, res, path, one)
	patched := s.must(t, 200, "PATCH", one, `{"metadata":{"labels":{"touched":"yes"}}}`, contentType("application/merge-patch+json"))
	s.must(t, 200, "PATCH", one, `{"metadata":{"labels":{"touched":"again"}}}`, contentType("application/strategic-merge-patch+json"))
	s.must(t, 200, "PATCH", one, `[{"op":"replace","path":"/metadata/labels/touched","value":"thrice"}]`, contentType("application/json-patch+json"))
	testApply(t, s, res, one)
	stale := s.must(t, 409, "PUT", one, string(patched.body), contentType("application/json"))
	stale.status(t)
	fresh := s.must(t, 200, "GET", one, "")
	if again := s.must(t, 200, "PUT", one, string(fresh.body), contentType("application/json")); !bytes.Equal(again.body, fresh.body) {
		t.Errorf("an update of nothing changed the object:\n%s", cmp.Diff(plain(t, fresh.body), plain(t, again.body)))
	}
	if res.HasStatus {
		s.must(t, 200, "GET", one+"/status", "")
		s.must(t, 200, "PATCH", one+"/status", `{"metadata":{"annotations":{"seen":"yes"}}}`, contentType("application/merge-patch+json"))
	}
	s.must(t, 409, "POST", path, string(body), contentType("application/json")).status(t)
	for _, view := range res.Views {
		s.must(t, 200, "GET", strings.Replace(one, kindPrefix(res.Group, res.Version), kindPrefix(view.Group, view.Version), 1), "")
	}
	s.must(t, 200, "DELETE", one+"?gracePeriodSeconds=0", "")
	if res.Held != nil || len(u.GetFinalizers()) > 0 {
		return
	}
	if left := s.do(t, "GET", one, ""); left.code == 200 && !bytes.Contains(left.body, []byte(`"finalizers"`)) {
		t.Errorf("the deleted object is still there: %s", left.body)
	}
}

func kindPrefix(group, version string) string {
	if group == "" {
		return "/api/" + version
	}
	return "/apis/" + group + "/" + version
}

func testApply(t *testing.T, s *server, res *resource.Resource, one string) {
	t.Helper()
	body := fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata: {labels: {applied: \"yes\"}}\n", res.GVK().GroupVersion(), res.Kind)
	first := s.must(t, 200, "PATCH", one+"?fieldManager=applier", body, contentType("application/apply-patch+yaml"))
	second := s.must(t, 200, "PATCH", one+"?fieldManager=applier", body, contentType("application/apply-patch+yaml"))
	if !bytes.Equal(first.body, second.body) {
		t.Errorf("applying twice changed the object:\n%s", cmp.Diff(plain(t, first.body), plain(t, second.body)))
	}
	conflict := s.must(t, 409, "PATCH", one+"?fieldManager=other", strings.Replace(body, "yes", "no", 1), contentType("application/apply-patch+yaml"))
	if status := conflict.status(t); len(status.Details.Causes) != 1 || status.Details.Causes[0].Field != ".metadata.labels.applied" ||
		!strings.Contains(status.Details.Causes[0].Message, `conflict with "applier"`) {
		t.Errorf("the conflict says %v", status)
	}
}

// plain is a JSON document as a map.
func plain(t *testing.T, doc []byte) map[string]any {
	t.Helper()
	out := map[string]any{}
	if err := json.Unmarshal(doc, &out); err != nil {
		t.Fatalf("%v: %s", err, doc)
	}
	return out
}

// compareForms reads one object in all representations and compares them.
func compareForms(t *testing.T, s *server, res *resource.Resource, path, one string) {
	t.Helper()
	want := plain(t, s.must(t, 200, "GET", one, "").body)
	asYAML := map[string]any{}
	if err := yaml.Unmarshal(s.must(t, 200, "GET", one, "", accept("application/yaml")).body, &asYAML); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, asYAML); diff != "" {
		t.Errorf("JSON and YAML differ:\n%s", diff)
	}
	decode := protobuf.NewSerializer(s.Registry().Table().Scheme(), s.Registry().Table().Scheme())
	fromProto := func(body []byte) map[string]any {
		obj, gvk, err := decode.Decode(body, nil, nil)
		if err != nil {
			t.Fatalf("decode protobuf: %v", err)
		}
		obj.GetObjectKind().SetGroupVersionKind(*gvk)
		return plain(t, mustJSON(t, obj))
	}
	if diff := cmp.Diff(want, fromProto(s.must(t, 200, "GET", one, "", accept("application/vnd.kubernetes.protobuf")).body)); diff != "" {
		t.Errorf("JSON and protobuf differ:\n%s", diff)
	}
	meta := plain(t, s.must(t, 200, "GET", one, "", accept("application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io")).body)
	if diff := cmp.Diff(map[string]any{"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": want["metadata"]}, meta); diff != "" {
		t.Errorf("object and metadata differ:\n%s", diff)
	}
	compareLists(t, s, res, path, want, fromProto)
}

func compareLists(t *testing.T, s *server, res *resource.Resource, path string, want map[string]any, fromProto func([]byte) map[string]any) {
	t.Helper()
	name := want["metadata"].(map[string]any)["name"].(string)
	path += "?fieldSelector=metadata.name%3D" + name
	list := plain(t, s.must(t, 200, "GET", path, "").body)
	if diff := cmp.Diff(list, fromProto(s.must(t, 200, "GET", path, "", accept("application/vnd.kubernetes.protobuf")).body)); diff != "" {
		t.Errorf("lists in JSON and protobuf differ:\n%s", diff)
	}
	asYAML := map[string]any{}
	if err := yaml.Unmarshal(s.must(t, 200, "GET", path, "", accept("application/yaml")).body, &asYAML); err != nil {
		t.Errorf("a list in YAML: %v", err)
	} else if diff := cmp.Diff(list, asYAML); diff != "" {
		t.Errorf("lists in JSON and YAML differ:\n%s", diff)
	}
	items := list["items"].([]any)
	if len(items) != 1 || list["kind"] != res.Kind+"List" {
		t.Fatalf("a list of one name is a %s with %d items", list["kind"], len(items))
	}
	item := items[0].(map[string]any)
	item["kind"], item["apiVersion"] = want["kind"], want["apiVersion"]
	if diff := cmp.Diff(want, item); diff != "" {
		t.Errorf("object and list item differ:\n%s", diff)
	}
	metas := &metav1.PartialObjectMetadataList{}
	s.must(t, 200, "GET", path, "", accept("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io")).decode(t, metas)
	if len(metas.Items) != 1 || metas.Items[0].Name != name || metas.Kind != "PartialObjectMetadataList" {
		t.Errorf("the list as metadata is %v", metas)
	}
	compareTables(t, s, path, want)
}

func compareTables(t *testing.T, s *server, path string, want map[string]any) {
	t.Helper()
	tables := []*metav1.Table{}
	for _, include := range []string{"", "&includeObject=None", "&includeObject=Object"} {
		table := &metav1.Table{}
		s.must(t, 200, "GET", path+include, "", accept("application/json;as=Table;v=v1;g=meta.k8s.io,application/json")).decode(t, table)
		if table.Kind != "Table" || len(table.Rows) != 1 || len(table.Rows[0].Cells) != len(table.ColumnDefinitions) || table.ResourceVersion == "" {
			t.Fatalf("table%s: %+v", include, table)
		}
		tables = append(tables, table)
	}
	if len(tables[1].Rows[0].Object.Raw) > 0 && string(tables[1].Rows[0].Object.Raw) != "null" {
		t.Errorf("includeObject=None has %s", tables[1].Rows[0].Object.Raw)
	}
	if diff := cmp.Diff(want, plain(t, tables[2].Rows[0].Object.Raw)); diff != "" {
		t.Errorf("object and table row differ:\n%s", diff)
	}
	if got := plain(t, tables[0].Rows[0].Object.Raw); got["kind"] != "PartialObjectMetadata" || !cmp.Equal(got["metadata"], want["metadata"]) {
		t.Errorf("metadata in a table row: %v", got)
	}
}
