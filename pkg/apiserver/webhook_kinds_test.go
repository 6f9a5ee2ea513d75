package apiserver_test

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"coracle/pkg/controlplane"
	"coracle/pkg/testcluster"
)

// TestWebhooksOfCustomResources: pruned, defaulted, in the version of the rule.
func TestWebhooksOfCustomResources(t *testing.T) {
	s := newServer(t)
	s.define(t, widgetDefinition)
	h := newHook(t, func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		if r.Operation == admissionv1.Delete {
			return denied("kept")
		}
		return patched(`[{"op":"add","path":"/spec/tags","value":["made"]},{"op":"add","path":"/spec/unknown","value":1},{"op":"remove","path":"/spec/replicas"}]`)
	})
	s.configure(t, mutatingPath, "widgets", webhookEntry("widgets", h.Server, rule("*", "example.com", "*", "widgets")))
	u := s.must(t, http.StatusCreated, "POST", widgetsPath, widget("a", `{"color":"red","replicas":3}`)).object(t)
	spec, _, _ := unstructured.NestedMap(u.Object, "spec")
	if tags, _, _ := unstructured.NestedStringSlice(spec, "tags"); len(tags) != 1 || tags[0] != "made" {
		t.Errorf("tags %v", tags)
	}
	if _, has := spec["unknown"]; has || spec["replicas"] != int64(1) {
		t.Errorf("the spec was not pruned and defaulted: %v", spec)
	}
	if got := h.last(t); got.Kind.Kind != "Widget" || !strings.Contains(string(got.Object.Raw), `"apiVersion":"example.com/v1"`) {
		t.Errorf("asked about %v: %s", got.Kind, got.Object.Raw)
	}
	s.must(t, http.StatusOK, "PATCH", widgetsPath+"/a", `{"spec":{"color":"blue"}}`, contentType("application/merge-patch+json"))
	a := s.must(t, http.StatusBadRequest, "DELETE", widgetsPath+"/a", "")
	if !strings.Contains(string(a.body), "denied the request: kept") {
		t.Errorf("the deletion: %s", a.body)
	}
	s.must(t, http.StatusOK, "GET", widgetsPath+"/a", "")
}

// TestEquivalentVersions: a rule for one version is asked about all of them, in
// its own.
func TestEquivalentVersions(t *testing.T) {
	s := newServer(t)
	s.define(t, gadgets(converter(t, func(*apiextensionsv1.ConversionResponse) {}), "v1beta1"))
	exact, any := newHook(t, nil), newHook(t, func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		return patched(`[{"op":"replace","path":"/spec/size","value":"changed"}]`)
	})
	s.configure(t, mutatingPath, "a",
		webhookEntry("exact", exact.Server, rule("CREATE", "example.com", "v1", "gadgets"), `"matchPolicy":"Exact"`),
		webhookEntry("any", any.Server, rule("CREATE", "example.com", "v1", "gadgets")))
	u := s.must(t, http.StatusCreated, "POST", gadgetPath("v1beta1"), `{"apiVersion":"example.com/v1beta1","kind":"Gadget","metadata":{"name":"a"},"spec":{"width":"w"}}`).object(t)
	if width, _, _ := unstructured.NestedString(u.Object, "spec", "width"); width != "changed" || u.GetAPIVersion() != "example.com/v1beta1" {
		t.Errorf("the object %v", u.Object)
	}
	if n := len(exact.requests()); n != 0 {
		t.Errorf("the exact one was asked %d times", n)
	}
	got := any.last(t)
	if got.Kind.Version != "v1" || got.RequestKind.Version != "v1beta1" || got.Resource.Version != "v1" || got.RequestResource.Version != "v1beta1" ||
		!strings.Contains(string(got.Object.Raw), `"size":"w"`) {
		t.Errorf("asked %+v about %s", got, got.Object.Raw)
	}
}

func TestDefinitionsCanBeRefused(t *testing.T) {
	s := newServer(t)
	h := newHook(t, func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse { return denied("no kinds") })
	s.configure(t, validatingPath, "crds", webhookEntry("crds", h.Server, rule("CREATE", "apiextensions.k8s.io", "*", "customresourcedefinitions")))
	a := s.must(t, http.StatusBadRequest, "POST", definitionsPath, widgetDefinition)
	if !strings.Contains(string(a.body), "no kinds") {
		t.Errorf("%s", a.body)
	}
}

// TestConfigurationsAreExempt: whatever webhooks say, they can be taken away.
func TestConfigurationsAreExempt(t *testing.T) {
	s := newServer(t)
	no := func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse { return denied("no") }
	h := newHook(t, no)
	s.configure(t, mutatingPath, "a", webhookEntry("a", h.Server, rule("*", "*", "*", "*/*")))
	s.configure(t, validatingPath, "a", webhookEntry("a", h.Server, rule("*", "*", "*", "*/*")))
	s.must(t, http.StatusBadRequest, "POST", configMapsPath, configMapOf("m", nil))
	before := len(h.requests())
	s.configure(t, validatingPath, "b", webhookEntry("b", h.Server, rule("*", "*", "*", "*/*")))
	s.must(t, http.StatusOK, "DELETE", validatingPath, "")
	s.must(t, http.StatusOK, "DELETE", mutatingPath+"/a", "")
	// Nor are those asked who may do what.
	s.must(t, http.StatusCreated, "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
		`{"apiVersion":"authorization.k8s.io/v1","kind":"SelfSubjectAccessReview","spec":{"resourceAttributes":{"verb":"get","resource":"pods"}}}`)
	if n := len(h.requests()); n != before {
		t.Errorf("they were asked %d times", n-before)
	}
	s.must(t, http.StatusCreated, "POST", configMapsPath, configMapOf("m", nil))
}

func TestMatchConditions(t *testing.T) {
	s := newServer(t)
	h := newHook(t, func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse { return denied("asked") })
	configMaps := rule("*", "", "v1", "configmaps")
	condition := func(expression string) string {
		return `"matchConditions":[{"name":"c","expression":` + jsonText(expression) + `}]`
	}
	for _, path := range []string{mutatingPath, validatingPath} {
		for _, bad := range []string{"object.", "1 + 1", "object.metadata.name == 3 + ''"} {
			body := fmt.Sprintf(`{"apiVersion":"admissionregistration.k8s.io/v1","kind":%q,"metadata":{"name":"bad"},"webhooks":[%s]}`,
				map[string]string{mutatingPath: "MutatingWebhookConfiguration", validatingPath: "ValidatingWebhookConfiguration"}[path],
				webhookEntry("bad", h.Server, configMaps, condition(bad)))
			got := s.must(t, http.StatusUnprocessableEntity, "POST", path, body).status(t)
			if !strings.Contains(got.Message, "webhooks[0].matchConditions[0].expression") {
				t.Errorf("%s: %s", bad, got.Message)
			}
			if bad == "object." && !strings.Contains(got.Message, "compilation failed") {
				t.Errorf("%s: %s", bad, got.Message)
			}
		}
	}
	s.configure(t, validatingPath, "v", webhookEntry("v", h.Server, configMaps, condition("object.metadata.name != 'skip-me' && request.userInfo.username == 'admin'")))
	s.must(t, http.StatusCreated, "POST", configMapsPath, configMapOf("skip-me", nil))
	s.must(t, http.StatusBadRequest, "POST", configMapsPath, configMapOf("ask-me", nil))
	s.must(t, http.StatusOK, "DELETE", validatingPath+"/v", "")
	// What cannot be evaluated is for the failurePolicy; the webhook is not asked.
	before := len(h.requests())
	s.configure(t, validatingPath, "v", webhookEntry("v", h.Server, configMaps, condition("object.data.missing == 'x'")))
	got := s.must(t, http.StatusForbidden, "POST", configMapsPath, configMapOf("m", nil)).status(t)
	if !strings.Contains(got.Message, "no such key: data") {
		t.Errorf("refused: %s", got.Message)
	}
	s.must(t, http.StatusOK, "PATCH", validatingPath+"/v", `[{"op":"replace","path":"/webhooks/0/failurePolicy","value":"Ignore"}]`, contentType("application/json-patch+json"))
	s.must(t, http.StatusCreated, "POST", configMapsPath, configMapOf("m", nil))
	if n := len(h.requests()); n != before {
		t.Errorf("asked %d times", n-before)
	}
}

func TestSelectorsOfWebhooks(t *testing.T) {
	s := newServer(t)
	h := newHook(t, func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse { return denied("asked") })
	s.must(t, http.StatusCreated, "POST", "/api/v1/namespaces", `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"free","labels":{"hooks":"off"}}}`)
	s.configure(t, validatingPath, "v", webhookEntry("v", h.Server, rule("*", "", "v1", "configmaps"),
		`"namespaceSelector":{"matchExpressions":[{"key":"hooks","operator":"NotIn","values":["off"]}]}`,
		`"objectSelector":{"matchLabels":{"checked":"yes"}}`))
	labelled := `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"m","labels":{"checked":"yes"}}}`
	s.must(t, http.StatusCreated, "POST", configMapsPath, configMapOf("unlabelled", nil))
	s.must(t, http.StatusBadRequest, "POST", configMapsPath, labelled)
	s.must(t, http.StatusCreated, "POST", "/api/v1/namespaces/free/configmaps", labelled)
}

// TestConnect: exec, attach and port-forward, before anything is dialled.
func TestConnect(t *testing.T) {
	s := newServer(t, testcluster.WithConfig(func(c *controlplane.Config) { c.Identity = &controlplane.Identity{Kubelet: &tls.Config{}} }))
	s.must(t, http.StatusCreated, "POST", "/api/v1/nodes", `{"apiVersion":"v1","kind":"Node","metadata":{"name":"n"},"status":{"addresses":[{"type":"InternalIP","address":"192.0.2.1"}]}}`)
	s.must(t, http.StatusCreated, "POST", "/api/v1/namespaces/default/pods", `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"nodeName":"n","containers":[{"name":"c","image":"x"}]}}`)
	s.must(t, http.StatusOK, "PATCH", "/api/v1/namespaces/default/pods/p/status", `{"status":{"podIP":"192.0.2.2","podIPs":[{"ip":"192.0.2.2"}]}}`, contentType("application/merge-patch+json"))
	h := newHook(t, func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse { return denied("not in here") })
	s.configure(t, validatingPath, "connect", webhookEntry("connect", h.Server, rule("CONNECT", "", "v1", "pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "nodes/proxy")))
	for _, c := range []struct{ sub, query, kind, object string }{
		{"exec", "?command=sh&command=-c&stdout=true&container=c", "PodExecOptions", `"command":["sh","-c"]`},
		{"attach", "?stdout=true", "PodAttachOptions", `"stdout":true`},
		{"portforward", "?ports=80", "PodPortForwardOptions", ""},
		{"proxy", "", "PodProxyOptions", ""},
	} {
		a := s.must(t, http.StatusBadRequest, "POST", "/api/v1/namespaces/default/pods/p/"+c.sub+c.query, "")
		if !strings.Contains(string(a.body), `admission webhook \"connect.example.com\" denied the request: not in here`) {
			t.Errorf("%s: %s", c.sub, a.body)
		}
		got := h.last(t)
		if got.Operation != admissionv1.Connect || got.SubResource != c.sub || got.Kind.Kind != c.kind || got.Name != "p" || got.Namespace != "default" ||
			!strings.Contains(string(got.Object.Raw), c.object) || !strings.Contains(string(got.Object.Raw), c.kind) {
			t.Errorf("%s: asked %+v about %s", c.sub, got, got.Object.Raw)
		}
	}
	s.must(t, http.StatusBadRequest, "GET", "/api/v1/nodes/n/proxy/metrics", "")
	if got := h.last(t); got.Kind.Kind != "NodeProxyOptions" || got.Namespace != "" {
		t.Errorf("asked %+v", got)
	}
}

// TestWebhooksOfUnstoredObjects: what a webhook makes of a Binding
// counts, and is validated.
func TestWebhooksOfUnstoredObjects(t *testing.T) {
	s := newServer(t)
	kind := "Cat"
	h := newHook(t, func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		return patched(`[{"op":"replace","path":"/target/name","value":"elsewhere"},{"op":"replace","path":"/target/kind","value":"` + kind + `"}]`)
	})
	s.configure(t, mutatingPath, "m", webhookEntry("m", h.Server, rule("CREATE", "", "v1", "pods/binding")))
	s.must(t, http.StatusCreated, "POST", "/api/v1/namespaces/default/pods", `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"x"}]}}`)
	binding := `{"apiVersion":"v1","kind":"Binding","metadata":{"name":"p"},"target":{"kind":"Node","name":"asked"}}`
	s.must(t, http.StatusUnprocessableEntity, "POST", "/api/v1/namespaces/default/pods/p/binding", binding)
	kind = "Node"
	s.must(t, http.StatusCreated, "POST", "/api/v1/namespaces/default/pods/p/binding", binding)
	a := s.must(t, http.StatusOK, "GET", "/api/v1/namespaces/default/pods/p", "")
	if !strings.Contains(string(a.body), `"nodeName":"elsewhere"`) {
		t.Errorf("the pod %s", a.body)
	}
}
