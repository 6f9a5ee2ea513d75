package apiserver_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"

	"coracle/pkg/registry"
)

const (
	definitionsPath = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
	widgetsPath     = "/apis/example.com/v1/namespaces/default/widgets"
)

// widgetDefinition declares a kind with about everything in its schema.
const widgetDefinition = `{
"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
"metadata": {"name": "widgets.example.com"},
"spec": {
  "group": "example.com", "scope": "Namespaced",
  "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"], "categories": ["all", "toys"]},
  "versions": [{
    "name": "v1", "served": true, "storage": true,
    "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}},
    "selectableFields": [{"jsonPath": ".spec.color"}],
    "additionalPrinterColumns": [
      {"name": "Color", "type": "string", "jsonPath": ".spec.color"},
      {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
      {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}],
    "schema": {"openAPIV3Schema": {"type": "object", "properties": {
      "spec": {"type": "object", "required": ["color"], "properties": {
        "color": {"type": "string", "enum": ["red", "green", "blue"]},
        "replicas": {"type": "integer", "minimum": 0, "maximum": 10, "default": 1},
        "limit": {"x-kubernetes-int-or-string": true},
        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
          "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "port": {"type": "integer"}}}},
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}},
      "status": {"type": "object", "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}, "phase": {"type": "string", "maxLength": 8}}}
    }}}
  }]
}}`

// define creates a definition and waits until it is served.
func (s *server) define(t *testing.T, definition string) string {
	t.Helper()
	var crd apiextensionsv1.CustomResourceDefinition
	s.must(t, http.StatusCreated, "POST", definitionsPath, definition).decode(t, &crd)
	s.untilEstablished(t, crd.Name)
	return crd.Name
}

func (s *server) untilEstablished(t *testing.T, name string) {
	t.Helper()
	s.untilDefinition(t, name, func(crd *apiextensionsv1.CustomResourceDefinition) bool {
		return conditionIs(crd, apiextensionsv1.Established, apiextensionsv1.ConditionTrue) &&
			conditionIs(crd, apiextensionsv1.NamesAccepted, apiextensionsv1.ConditionTrue)
	})
}

func conditionIs(crd *apiextensionsv1.CustomResourceDefinition, typ apiextensionsv1.CustomResourceDefinitionConditionType, status apiextensionsv1.ConditionStatus) bool {
	return slices.ContainsFunc(crd.Status.Conditions, func(c apiextensionsv1.CustomResourceDefinitionCondition) bool {
		return c.Type == typ && c.Status == status
	})
}

// untilDefinition polls a definition until done, and returns it.
func (s *server) untilDefinition(t *testing.T, name string, done func(*apiextensionsv1.CustomResourceDefinition) bool) *apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	var crd *apiextensionsv1.CustomResourceDefinition
	err := wait.PollUntilContextTimeout(t.Context(), poll, patience, true, func(context.Context) (bool, error) {
		crd = &apiextensionsv1.CustomResourceDefinition{}
		s.must(t, http.StatusOK, "GET", definitionsPath+"/"+name, "").decode(t, crd)
		return done(crd), nil
	})
	if err != nil {
		t.Fatalf("%s did not come to the state that was waited for: %+v", name, crd.Status)
	}
	return crd
}

func widget(name, spec string) string {
	return fmt.Sprintf(`{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":%q},"spec":%s}`, name, spec)
}

func (a *answer) object(t *testing.T) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(a.body); err != nil {
		t.Fatalf("the answer is no object: %v\n%s", err, a.body)
	}
	return u
}

func TestCustomResourceIsServed(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		s.define(t, widgetDefinition)
		made := s.must(t, http.StatusCreated, "POST", widgetsPath, widget("a", `{"color":"red","unknown":1,"limit":"50%"}`))
		if w := made.header.Values("Warning"); len(w) != 1 || !strings.Contains(w[0], `unknown field \"spec.unknown\"`) {
			t.Errorf("warnings %q", w)
		}
		u := made.object(t)
		if n, _, _ := unstructured.NestedInt64(u.Object, "spec", "replicas"); n != 1 {
			t.Errorf("the default was not set: %v", u.Object["spec"])
		}
		if _, found, _ := unstructured.NestedFieldNoCopy(u.Object, "spec", "unknown"); found {
			t.Error("an unknown field was kept")
		}
		if u.GetGeneration() != 1 || u.GetUID() == "" || u.GetResourceVersion() == "" || len(u.GetManagedFields()) != 1 {
			t.Errorf("metadata %v", u.Object["metadata"])
		}
		got := s.must(t, http.StatusOK, "GET", widgetsPath+"/a", "")
		if string(got.body) != string(made.body) {
			t.Errorf("created\n%s\nread\n%s", made.body, got.body)
		}
		var list unstructured.UnstructuredList
		if err := list.UnmarshalJSON(s.must(t, http.StatusOK, "GET", widgetsPath, "").body); err != nil {
			t.Fatal(err)
		}
		if len(list.Items) != 1 || list.GetKind() != "WidgetList" || list.Items[0].GetKind() != "Widget" || list.Items[0].GetAPIVersion() != "example.com/v1" {
			t.Errorf("list %+v", list)
		}
		s.must(t, http.StatusConflict, "POST", widgetsPath, widget("a", `{"color":"red"}`))
		s.must(t, http.StatusUnprocessableEntity, "POST", widgetsPath, widget("b", `{"color":"pink"}`))
		s.must(t, http.StatusUnprocessableEntity, "POST", widgetsPath, widget("b", `{}`))
		s.must(t, http.StatusUnprocessableEntity, "POST", widgetsPath, widget("b", `{"color":"red","replicas":11}`))
		s.must(t, http.StatusBadRequest, "POST", widgetsPath+"?fieldValidation=Strict", widget("b", `{"color":"red","x":1}`))
		s.must(t, http.StatusBadRequest, "POST", widgetsPath+"?fieldValidation=Strict", widget("b", `{"color":"red","color":"blue"}`))
		if w := s.must(t, http.StatusCreated, "POST", widgetsPath+"?fieldValidation=Ignore", widget("b", `{"color":"red","x":1}`)).header.Values("Warning"); len(w) > 0 {
			t.Errorf("warnings %q", w)
		}
		s.must(t, http.StatusBadRequest, "POST", widgetsPath, `{"metadata":{"name":"c"},"spec":{"color":"red"}}`)
		wide := s.do(t, "POST", widgetsPath, widget("w", `{"color":"red","free":{"a":[`+strings.Repeat("[],", 1<<19)+`[]]}}`))
		if wide.code < 400 || wide.code >= 500 || !strings.Contains(string(wide.body), "use fewer fields") {
			t.Errorf("a body of half a million values: %d %.200s", wide.code, wide.body)
		}
		s.must(t, http.StatusNotFound, "GET", "/apis/example.com/v1/namespaces/default/gadgets", "")
		s.must(t, http.StatusNotFound, "GET", "/apis/example.com/v2/namespaces/default/widgets", "")
	})
}

func TestCustomResourceWrites(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		s.define(t, widgetDefinition)
		u := s.must(t, http.StatusCreated, "POST", widgetsPath, widget("a", `{"color":"red"}`)).object(t)
		put := func(code int, path string, change func(*unstructured.Unstructured)) *unstructured.Unstructured {
			t.Helper()
			next := u.DeepCopy()
			change(next)
			text, err := next.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			a := s.must(t, code, "PUT", path, string(text))
			if code != http.StatusOK {
				return nil
			}
			return a.object(t)
		}
		set := func(value any, path ...string) func(*unstructured.Unstructured) {
			return func(u *unstructured.Unstructured) {
				if err := unstructured.SetNestedField(u.Object, value, path...); err != nil {
					t.Fatal(err)
				}
			}
		}
		same := put(http.StatusOK, widgetsPath+"/a", func(*unstructured.Unstructured) {})
		if same.GetResourceVersion() != u.GetResourceVersion() {
			t.Error("an update that changes nothing was written")
		}
		put(http.StatusUnprocessableEntity, widgetsPath+"/a", func(u *unstructured.Unstructured) { u.SetResourceVersion("") })
		labelled := put(http.StatusOK, widgetsPath+"/a", func(u *unstructured.Unstructured) { u.SetLabels(map[string]string{"x": "y"}) })
		if labelled.GetGeneration() != 1 {
			t.Errorf("a label made generation %d", labelled.GetGeneration())
		}
		put(http.StatusConflict, widgetsPath+"/a", set("blue", "spec", "color"))
		u = labelled
		u = put(http.StatusOK, widgetsPath+"/a", func(u *unstructured.Unstructured) {
			set("blue", "spec", "color")(u)
			set("x", "status", "phase")(u)
		})
		if _, found := u.Object["status"]; found || u.GetGeneration() != 2 {
			t.Errorf("generation %d, status %v", u.GetGeneration(), u.Object["status"])
		}
		put(http.StatusUnprocessableEntity, widgetsPath+"/a/status", set("far too long", "status", "phase"))
		u = put(http.StatusOK, widgetsPath+"/a/status", func(u *unstructured.Unstructured) {
			set("ready", "status", "phase")(u)
			set("green", "spec", "color")(u)
			u.SetLabels(nil)
		})
		color, _, _ := unstructured.NestedString(u.Object, "spec", "color")
		phase, _, _ := unstructured.NestedString(u.Object, "status", "phase")
		if color != "blue" || phase != "ready" || u.GetGeneration() != 2 || u.GetLabels()["x"] != "y" {
			t.Errorf("after a status update: %v", u.Object)
		}
		if entries := u.GetManagedFields(); len(entries) != 2 || entries[1].Subresource != "status" {
			t.Errorf("managed fields %+v", entries)
		}
	})
}

func TestCustomResourcePatches(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		s.define(t, widgetDefinition)
		s.must(t, http.StatusCreated, "POST", widgetsPath, widget("a", `{"color":"red"}`))
		patch := func(code int, typ, body, query string) *answer {
			t.Helper()
			return s.must(t, code, "PATCH", widgetsPath+"/a"+query, body, contentType(typ))
		}
		patch(http.StatusUnsupportedMediaType, "application/strategic-merge-patch+json", `{}`, "")
		patch(http.StatusOK, "application/merge-patch+json", `{"spec":{"replicas":3}}`, "")
		// What the server adds to the object before it is patched is no fault of the patch.
		for _, typ := range []string{"application/merge-patch+json", "application/json-patch+json"} {
			body := map[string]string{"application/merge-patch+json": `{}`, "application/json-patch+json": `[]`}[typ]
			if w := patch(http.StatusOK, typ, body, "?fieldValidation=Strict").header.Values("Warning"); len(w) > 0 {
				t.Errorf("%s: warnings %q", typ, w)
			}
		}
		patch(http.StatusUnprocessableEntity, "application/merge-patch+json", `{"spec":{"replicas":30}}`, "")
		patch(http.StatusOK, "application/json-patch+json", `[{"op":"replace","path":"/spec/color","value":"green"}]`, "")
		apply := func(ports string) string {
			return `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"a"},"spec":{"ports":` + ports + `}}`
		}
		const applyType = "application/apply-patch+yaml"
		patch(http.StatusOK, applyType, apply(`[{"name":"http","port":80}]`), "?fieldManager=one")
		u := patch(http.StatusOK, applyType, apply(`[{"name":"dns","port":53}]`), "?fieldManager=two").object(t)
		if ports, _, _ := unstructured.NestedSlice(u.Object, "spec", "ports"); len(ports) != 2 {
			t.Errorf("ports %v: the list is not merged by its key", ports)
		}
		patch(http.StatusConflict, applyType, apply(`[{"name":"http","port":81}]`), "?fieldManager=two")
		patch(http.StatusOK, applyType, apply(`[{"name":"http","port":81}]`), "?fieldManager=two&force=true")
		u = patch(http.StatusOK, applyType, apply(`[]`), "?fieldManager=one").object(t)
		if ports, _, _ := unstructured.NestedSlice(u.Object, "spec", "ports"); len(ports) != 1 {
			t.Errorf("ports %v", ports)
		}
		if n, _, _ := unstructured.NestedInt64(u.Object, "spec", "replicas"); n != 3 {
			t.Errorf("replicas %d", n)
		}
		s.must(t, http.StatusCreated, "PATCH", widgetsPath+"/new?fieldManager=one",
			`{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"new"},"spec":{"color":"red"}}`, contentType(applyType))
	})
}

func TestCustomResourceScale(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		s.define(t, widgetDefinition)
		s.must(t, http.StatusCreated, "POST", widgetsPath, widget("a", `{"color":"red","replicas":2}`))
		s.must(t, http.StatusOK, "PATCH", widgetsPath+"/a/status", `{"status":{"replicas":1,"selector":"app=a"}}`, contentType("application/merge-patch+json"))
		scale := s.must(t, http.StatusOK, "GET", widgetsPath+"/a/scale", "").object(t)
		replicas, _, _ := unstructured.NestedInt64(scale.Object, "spec", "replicas")
		actual, _, _ := unstructured.NestedInt64(scale.Object, "status", "replicas")
		selector, _, _ := unstructured.NestedString(scale.Object, "status", "selector")
		if scale.GetKind() != "Scale" || replicas != 2 || actual != 1 || selector != "app=a" {
			t.Errorf("scale %v", scale.Object)
		}
		s.must(t, http.StatusOK, "PATCH", widgetsPath+"/a/scale", `{"spec":{"replicas":5}}`, contentType("application/merge-patch+json"))
		u := s.must(t, http.StatusOK, "GET", widgetsPath+"/a", "").object(t)
		if n, _, _ := unstructured.NestedInt64(u.Object, "spec", "replicas"); n != 5 || u.GetGeneration() != 2 {
			t.Errorf("after scaling: %v", u.Object)
		}
		s.must(t, http.StatusUnprocessableEntity, "PATCH", widgetsPath+"/a/scale", `{"spec":{"replicas":50}}`, contentType("application/merge-patch+json"))
	})
}

func TestCustomResourceReads(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		s.define(t, widgetDefinition)
		for name, color := range map[string]string{"a": "red", "b": "blue", "c": "red"} {
			s.must(t, http.StatusCreated, "POST", widgetsPath, widget(name, `{"color":"`+color+`"}`))
		}
		var list unstructured.UnstructuredList
		if err := list.UnmarshalJSON(s.must(t, http.StatusOK, "GET", widgetsPath+"?fieldSelector=spec.color%3Dred", "").body); err != nil {
			t.Fatal(err)
		}
		if len(list.Items) != 2 {
			t.Errorf("%d red widgets", len(list.Items))
		}
		s.must(t, http.StatusBadRequest, "GET", widgetsPath+"?fieldSelector=spec.replicas%3D1", "")
		var table metav1.Table
		s.must(t, http.StatusOK, "GET", widgetsPath, "", accept("application/json;as=Table;g=meta.k8s.io;v=v1")).decode(t, &table)
		if len(table.Rows) != 3 || len(table.ColumnDefinitions) != 4 || fmt.Sprint(table.Rows[1].Cells[:3]) != "[b blue 1]" {
			t.Errorf("table %+v", table)
		}
		var metas metav1.PartialObjectMetadataList
		a := s.must(t, http.StatusOK, "GET", widgetsPath, "", accept("application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"))
		raw, err := registry.Raw(a.body)
		if err != nil {
			t.Fatal(err)
		}
		if err := metas.Unmarshal(raw); err != nil || len(metas.Items) != 3 || metas.Items[0].Name != "a" {
			t.Errorf("metadata as protobuf: %v, %+v", err, metas)
		}
		s.must(t, http.StatusNotAcceptable, "GET", widgetsPath, "", accept("application/vnd.kubernetes.protobuf"))
		s.must(t, http.StatusOK, "GET", widgetsPath, "", accept("application/vnd.kubernetes.protobuf,application/json"))
		if y := s.must(t, http.StatusOK, "GET", widgetsPath+"/a", "", accept("application/yaml")); !strings.Contains(string(y.body), "color: red") {
			t.Errorf("YAML: %s", y.body)
		}
	})
}

func TestCustomResourceWatchAndDelete(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		s.define(t, widgetDefinition)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		resp, err := s.http.RoundTrip(request(ctx, t, "GET", widgetsPath+"?watch=1", nil))
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("watch: %v", err)
		}
		defer closeIt(t, resp.Body)
		events := bufio.NewScanner(resp.Body)
		next := func(typ, name string) {
			t.Helper()
			var e struct {
				Type   string
				Object unstructured.Unstructured
			}
			if !events.Scan() {
				t.Fatalf("the watch ended: %v", events.Err())
			}
			if err := json.Unmarshal(events.Bytes(), &e); err != nil || e.Type != typ || e.Object.GetName() != name {
				t.Fatalf("event %s: %v, want %s of %s", events.Text(), err, typ, name)
			}
		}
		s.must(t, http.StatusCreated, "POST", widgetsPath, `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"held","finalizers":["example.com/hold"]},"spec":{"color":"red"}}`)
		next("ADDED", "held")
		s.must(t, http.StatusOK, "DELETE", widgetsPath+"/held", "")
		next("MODIFIED", "held")
		s.must(t, http.StatusOK, "PATCH", widgetsPath+"/held", `{"metadata":{"finalizers":null}}`, contentType("application/merge-patch+json"))
		next("DELETED", "held")
		made := s.must(t, http.StatusCreated, "POST", widgetsPath, `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"generateName":"gen-"},"spec":{"color":"red"}}`).object(t)
		next("ADDED", made.GetName())
		s.must(t, http.StatusOK, "DELETE", widgetsPath, "")
		next("DELETED", made.GetName())
		// With the definition, the watch ends and the resource is gone.
		s.must(t, http.StatusOK, "DELETE", definitionsPath+"/widgets.example.com", "")
		if events.Scan() {
			t.Errorf("after the definition went: %s", events.Text())
		}
	})
}

func TestCustomResourceDiscovery(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		name := s.define(t, widgetDefinition)
		var list metav1.APIResourceList
		s.must(t, http.StatusOK, "GET", "/apis/example.com/v1", "").decode(t, &list)
		var names []string
		for _, r := range list.APIResources {
			names = append(names, r.Name)
			if r.Name == "widgets" && (r.Kind != "Widget" || r.SingularName != "widget" || !slices.Equal(r.ShortNames, []string{"wd"}) || len(r.Categories) != 2 || len(r.Verbs) != 8) {
				t.Errorf("discovery of widgets: %+v", r)
			}
		}
		if !slices.Equal(names, []string{"widgets", "widgets/scale", "widgets/status"}) {
			t.Errorf("resources %v", names)
		}
		doc := s.must(t, http.StatusOK, "GET", "/openapi/v3/apis/example.com/v1", "")
		for _, want := range []string{`"com.example.v1.Widget"`, `"com.example.v1.WidgetList"`, `"x-kubernetes-group-version-kind":[{"group":"example.com","kind":"Widget","version":"v1"}]`, `"/apis/example.com/v1/namespaces/{namespace}/widgets/{name}/status"`} {
			if !strings.Contains(string(doc.body), want) {
				t.Errorf("the OpenAPI document lacks %s", want)
			}
		}
		s.must(t, http.StatusOK, "GET", "/openapi/v3/apis/example.com/v1", "", accept("application/com.github.proto-openapi.spec.v3.v1.0+protobuf"))
		if v2 := s.must(t, http.StatusOK, "GET", "/openapi/v2", ""); !strings.Contains(string(v2.body), `"com.example.v1.Widget"`) {
			t.Error("OpenAPI v2 lacks the kind")
		}
		s.must(t, http.StatusOK, "GET", "/openapi/v2", "", accept("application/com.github.proto-openapi.spec.v2.v1.0+protobuf"))
		if agg := s.must(t, http.StatusOK, "GET", "/apis", "", accept("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")); !strings.Contains(string(agg.body), `"widgets"`) {
			t.Error("aggregated discovery lacks the kind")
		}
		s.must(t, http.StatusCreated, "POST", widgetsPath, widget("a", `{"color":"red"}`))
		s.must(t, http.StatusOK, "DELETE", definitionsPath+"/"+name, "")
		err := wait.PollUntilContextTimeout(t.Context(), poll, patience, true, func(context.Context) (bool, error) {
			return s.do(t, "GET", definitionsPath+"/"+name, "").code == http.StatusNotFound && s.do(t, "GET", "/apis/example.com/v1", "").code == http.StatusNotFound &&
				s.do(t, "GET", widgetsPath, "").code == http.StatusNotFound && s.do(t, "GET", "/openapi/v3/apis/example.com/v1", "").code == http.StatusNotFound, nil
		})
		if err != nil {
			t.Fatal("the definition or its resource is still there")
		}
		// A new definition of the name has none of the old one's objects.
		s.define(t, widgetDefinition)
		if u := s.must(t, http.StatusOK, "GET", widgetsPath, "").body; strings.Contains(string(u), `"name":"a"`) {
			t.Errorf("objects of the old definition: %s", u)
		}
	})
}

// poll is how often a test looks for something that has to come.
const poll = 5e6 // 5 ms
