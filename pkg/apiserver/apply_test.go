package apiserver_test

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// checkApplyOwnership: SSA-1, SSA-2.
func checkApplyOwnership(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		apply := func(manager, data string, force bool) (*corev1.ConfigMap, error) {
			body := fmt.Sprintf(`{"kind":"ConfigMap","apiVersion":"v1","data":{%s}}`, data)
			return s.Client.CoreV1().ConfigMaps("default").Patch(t.Context(), "a", types.ApplyPatchType, []byte(body),
				metav1.PatchOptions{FieldManager: manager, Force: &force})
		}
		must := func(cm *corev1.ConfigMap, err error) map[string]string {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			return cm.Data
		}
		must(apply("one", `"x":"1","y":"1","z":"1"`, false))
		must(apply("one", `"x":"2","y":"1","z":"1"`, false)) // no conflict with oneself
		must(apply("two", `"y":"1"`, false))                 // the same value is shared
		_, err := apply("two", `"x":"3"`, false)
		refused(t, err, 409, metav1.StatusReasonConflict, `conflict with "one": .data.x`)
		if data := must(apply("one", `"x":"2"`, false)); data["y"] != "1" || len(data) != 2 {
			t.Errorf("dropped by one owner: %v, want y kept for the other and z gone", data)
		}
		if data := must(apply("two", `"x":"3"`, true)); data["x"] != "3" || len(data) != 1 {
			t.Errorf("forced: %v, want x taken and y gone", data)
		}
		_, err = apply("one", `"x":"2"`, false)
		refused(t, err, 409, metav1.StatusReasonConflict, `conflict with "two"`)
		if _, err := apply("", `"x":"2"`, false); err == nil {
			t.Error("an apply without a manager was taken")
		}
	})
}

// checkApplyOfStatus: SSA-3. Nobody comes to own what their write cannot set.
func checkApplyOfStatus(t *testing.T) {
	s := newServer(t)
	const body = `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"},"spec":{"containers":[{"name":"c","image":"i"}]},"status":{"message":"mine"}}`
	a := s.must(t, 201, "PATCH", "/api/v1/namespaces/default/pods/a?fieldManager=m", body, contentType(applyBody))
	if strings.Contains(string(a.body), "mine") || strings.Contains(string(a.body), "f:message") {
		t.Errorf("the status of an apply arrived: %s", a.body)
	}
	b := s.must(t, 200, "PATCH", "/api/v1/namespaces/default/pods/a/status?fieldManager=n",
		`{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"},"spec":{"hostname":"other"},"status":{"message":"mine"}}`, contentType(applyBody))
	if !strings.Contains(string(b.body), `"message":"mine"`) || strings.Contains(string(b.body), "hostname") {
		t.Errorf("an apply of the status gave %s", b.body)
	}
}

// checkManagedFields: SSA-3. Bad entries are refused or reset, never a 500; an
// empty list resets them.
func checkManagedFields(t *testing.T) {
	s := newServer(t)
	s.makeConfigMap(t, configMap("a", "k", "v"))
	for _, fields := range []string{
		`[{"manager":"m","operation":"Update","apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{"f:data":3}}]`,
		`[{"manager":"m","operation":"Update","apiVersion":"no/such/version","fieldsType":"FieldsV1","fieldsV1":{}}]`,
		`[{"manager":"m","operation":"Update","apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{"x:y":{}}}]`,
	} {
		a := s.do(t, "PATCH", configMaps("/a"), `{"metadata":{"managedFields":`+fields+`},"data":{"k":"w"}}`, contentType("application/merge-patch+json"))
		if a.code >= 500 || a.code < 200 {
			t.Errorf("managedFields %s: %d %s", fields, a.code, a.body)
		}
	}
	got := &corev1.ConfigMap{}
	s.must(t, 200, "PATCH", configMaps("/a"), `{"metadata":{"managedFields":[{}]}}`, contentType("application/merge-patch+json")).decode(t, got)
	if len(got.ManagedFields) != 0 {
		t.Errorf("a reset leaves %v", got.ManagedFields)
	}
	a := s.do(t, "PATCH", configMaps("/b?fieldManager=m"), `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"managedFields":[{"manager":"x"}]}}`, contentType(applyBody))
	if a.code != 400 || !strings.Contains(string(a.body), "metadata.managedFields must be nil") {
		t.Errorf("an apply with managedFields: %d %s", a.code, a.body)
	}
}

// checkPatches: PT-1. What each patch type does to the same object.
func checkPatches(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		s.makePod(t, pod("a", ""))
		const path = "/api/v1/namespaces/default/pods/a"
		for _, c := range []struct {
			kind, body string
			code       int
			want       string
		}{
			{"application/strategic-merge-patch+json", `{"spec":{"containers":[{"name":"c","image":"j"}]}}`, 200, `"image":"j"`},
			{"application/merge-patch+json", `{"metadata":{"labels":{"app":null,"x":"1"}}}`, 200, `"labels":{"x":"1"}`},
			{"application/json-patch+json", `[{"op":"test","path":"/metadata/labels/x","value":"1"},{"op":"add","path":"/metadata/labels/y","value":"2"}]`, 200, `"labels":{"x":"1","y":"2"}`},
			{"application/json-patch+json", `[{"op":"test","path":"/metadata/labels/x","value":"9"}]`, 422, "x"},
			{"application/json-patch+json", `[{"op":"remove","path":"/metadata/labels/none"}]`, 422, ""},
			{"application/json-patch+json", `{"op":"remove"}`, 400, ""},
			{"application/merge-patch+json", `[1]`, 400, ""},
			{"application/strategic-merge-patch+json", `{"metadata":{"labels":"x"}}`, 422, "cannot restore map from string"},
			{"application/merge-patch+json", `{"metadata":{"labels":"x"}}`, 422, "json: cannot unmarshal string into Go struct field"},
			{"application/json-patch+json", `[{"op":"replace","path":"/metadata/labels","value":"x"}]`, 422, "json: cannot unmarshal string into Go struct field"},
			{"application/strategic-merge-patch+json", `7`, 400, ""},
			{"application/merge-patch+json", `{"spec":{"containers":[{"name":"c"}]}}`, 422, "spec.containers[0].image"},
			{"application/strategic-merge-patch+json; charset=utf-8", `{"metadata":{"labels":{"z":"3"}}}`, 200, `"z":"3"`},
			{"application/json-patch+json", `[{"op":"replace","path":"/metadata/name","value":"b"}]`, 400, "name"},
		} {
			a := s.do(t, "PATCH", path, c.body, contentType(c.kind))
			if a.code != c.code || !strings.Contains(string(a.body), c.want) {
				t.Errorf("%s %s: %d %s", c.kind, c.body, a.code, a.body)
			}
		}
		s.must(t, 404, "PATCH", path+"b", `{}`, contentType("application/merge-patch+json")).status(t)
	})
}

// checkStatus: ST-1.
func checkStatus(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		const path = "/apis/apps/v1/namespaces/default/deployments"
		made := plain(t, s.must(t, 201, "POST", path, `{"metadata":{"name":"a"},"spec":{"replicas":1,"selector":{"matchLabels":{"a":"b"}},
			"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}},"status":{"replicas":7}}`, contentType(jsonBody)).body)
		part := func(doc map[string]any, keys ...string) any {
			var v any = doc
			for _, k := range keys {
				m, _ := v.(map[string]any)
				v = m[k]
			}
			return v
		}
		if part(made, "status", "replicas") != nil || part(made, "metadata", "generation") != 1.0 {
			t.Errorf("created with status %v, generation %v", made["status"], part(made, "metadata", "generation"))
		}
		merge := contentType("application/merge-patch+json")
		for _, c := range []struct {
			path, body                 string
			replicas, seen, generation any
		}{
			{"/a/status", `{"spec":{"replicas":5},"status":{"replicas":3}}`, 1.0, 3.0, 1.0},
			{"/a", `{"spec":{"replicas":5},"status":{"replicas":9}}`, 5.0, 3.0, 2.0},
			{"/a", `{"metadata":{"labels":{"x":"y"}}}`, 5.0, 3.0, 2.0},
			{"/a", `{"metadata":{"generation":44}}`, 5.0, 3.0, 2.0},
		} {
			got := plain(t, s.must(t, 200, "PATCH", path+c.path, c.body, merge).body)
			if part(got, "spec", "replicas") != c.replicas || part(got, "status", "replicas") != c.seen || part(got, "metadata", "generation") != c.generation {
				t.Errorf("%s %s gave spec %v, status %v, generation %v", c.path, c.body, part(got, "spec", "replicas"), got["status"], part(got, "metadata", "generation"))
			}
		}
		scale := plain(t, s.must(t, 200, "PATCH", path+"/a/scale", `{"spec":{"replicas":2}}`, merge).body)
		if scale["kind"] != "Scale" || part(scale, "spec", "replicas") != 2.0 || part(scale, "status", "selector") != "a=b" {
			t.Errorf("scale: %v", scale)
		}
		s.must(t, 422, "PATCH", path+"/a/scale", `{"spec":{"replicas":-1}}`, merge).status(t)
		got := plain(t, s.must(t, 200, "GET", path+"/a", "").body)
		if part(got, "spec", "replicas") != 2.0 || part(got, "metadata", "generation") != 3.0 {
			t.Errorf("after scaling: replicas %v, generation %v", part(got, "spec", "replicas"), part(got, "metadata", "generation"))
		}
	})
}

// checkDryRun: DR-1. A dry run answers as the request would and leaves nothing,
// not even an address taken.
func checkDryRun(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		cm := s.makeConfigMap(t, configMap("a", "k", "v"))
		w := s.watch(t, configMaps("?watch=1&resourceVersion=%s", cm.ResourceVersion))
		s.must(t, 201, "POST", configMaps("?dryRun=All"), `{"metadata":{"name":"b"}}`, contentType(jsonBody))
		// It is the store that refuses a version on a new object, and it is not asked.
		copied := s.must(t, 201, "POST", configMaps("?dryRun=All"), `{"metadata":{"name":"b","resourceVersion":"`+cm.ResourceVersion+`"}}`, contentType(jsonBody))
		if !strings.Contains(string(copied.body), `"resourceVersion":"`+cm.ResourceVersion+`"`) {
			t.Errorf("a dry run of a copy shows %s", copied.body)
		}
		if fresh := s.must(t, 201, "POST", configMaps("?dryRun=All"), `{"metadata":{"name":"b"}}`, contentType(jsonBody)); strings.Contains(string(fresh.body), "resourceVersion") {
			t.Errorf("what is not stored has a version: %s", fresh.body)
		}
		s.must(t, 409, "POST", configMaps("?dryRun=All"), `{"metadata":{"name":"a"}}`, contentType(jsonBody))
		s.must(t, 422, "POST", configMaps("?dryRun=All"), `{"metadata":{"name":"B"}}`, contentType(jsonBody))
		s.must(t, 404, "POST", "/api/v1/namespaces/none/configmaps?dryRun=All", `{"metadata":{"name":"b"}}`, contentType(jsonBody))
		a := s.must(t, 200, "PATCH", configMaps("/a?dryRun=All"), `{"data":{"k":"w"}}`, contentType("application/merge-patch+json"))
		if !strings.Contains(string(a.body), `"k":"w"`) {
			t.Errorf("a dry run shows %s", a.body)
		}
		s.must(t, 201, "PATCH", configMaps("/c?dryRun=All&fieldManager=m"), `{"kind":"ConfigMap","apiVersion":"v1"}`, contentType(applyBody))
		s.must(t, 200, "DELETE", configMaps("/a?dryRun=All"), "")
		svc := `{"metadata":{"name":"s"},"spec":{"clusterIP":"10.96.7.7","ports":[{"port":1}]}}`
		s.must(t, 201, "POST", "/api/v1/namespaces/default/services?dryRun=All", svc, contentType(jsonBody))
		s.must(t, 201, "POST", "/api/v1/namespaces/default/services", svc, contentType(jsonBody))
		s.makeConfigMap(t, configMap("end"))
		w.want("ADDED", "end")
		got, err := s.Client.CoreV1().ConfigMaps("default").Get(t.Context(), "a", metav1.GetOptions{})
		if err != nil || got.ResourceVersion != cm.ResourceVersion {
			t.Errorf("dry runs left %v (%v)", got, err)
		}
	})
}

// checkFieldValidation: FV-1, with APIM-053 and APIM-055.
func checkFieldValidation(t *testing.T) {
	s := newServer(t)
	const path = "/apis/apps/v1/namespaces/default/deployments?dryRun=All"
	body := `{"metadata":{"name":"a","unknownMeta":1},"spec":{"unknownField":"x","replicas":1,"replicas":2,"selector":{"matchLabels":{"a":"b"}},
		"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}`
	yamlText := "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec:\n  unknownField: x\n  replicas: 1\n  replicas: 2\n  selector: {matchLabels: {a: b}}\n" +
		"  template:\n    metadata: {labels: {a: b}}\n    spec: {containers: [{name: c, image: i}]}\n"
	for _, c := range []struct{ kind, body string }{{jsonBody, body}, {yamlBody, yamlText}} {
		strict := s.must(t, 400, "POST", path+"&fieldValidation=Strict", c.body, contentType(c.kind)).status(t)
		if !strings.Contains(strict.Message, "strict decoding error: ") || !strings.Contains(strict.Message, `unknown field "spec.unknownField"`) || !strings.Contains(strict.Message, "replicas") {
			t.Errorf("%s, Strict: %s", c.kind, strict.Message)
		}
		for _, level := range []string{"", "&fieldValidation=Warn"} {
			warn := s.must(t, 201, "POST", path+level, c.body, contentType(c.kind)).header.Values("Warning")
			if len(warn) < 2 || !strings.Contains(strings.Join(warn, "\n"), `299 - "unknown field \"spec.unknownField\""`) {
				t.Errorf("%s, Warn%s: %q", c.kind, level, warn)
			}
		}
		if warn := s.must(t, 201, "POST", path+"&fieldValidation=Ignore", c.body, contentType(c.kind)).header.Values("Warning"); len(warn) != 0 {
			t.Errorf("%s, Ignore: %q", c.kind, warn)
		}
	}
	want := `unknown field "metadata.unknownMeta"`
	if got := s.must(t, 400, "POST", path+"&fieldValidation=Strict", body, contentType(jsonBody)).status(t); !strings.Contains(got.Message, want) {
		t.Errorf("%s lacks %s", got.Message, want)
	}
	s.makeConfigMap(t, configMap("a"))
	for _, kind := range []string{"application/merge-patch+json", "application/strategic-merge-patch+json", applyBody} {
		patch := `{"kind":"ConfigMap","apiVersion":"v1","unknown":1}`
		if got := s.do(t, "PATCH", configMaps("/a?fieldManager=m&fieldValidation=Strict"), patch, contentType(kind)); got.code != 400 && got.code != 422 {
			t.Errorf("%s of an unknown field: %d %s", kind, got.code, got.body)
		}
	}
}
