package apiserver_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestMutatingWebhooksRunInOrder(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		adds := func(key, needs string) *hook {
			return newHook(t, func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
				var cm corev1.ConfigMap
				if err := json.Unmarshal(r.Object.Raw, &cm); err != nil || cm.Data[needs] == "" || cm.Data[key] != "" {
					return nil
				}
				return patched(fmt.Sprintf(`[{"op":"add","path":"/data/%s","value":"yes"}]`, key))
			})
		}
		one, two := adds("one", "start"), adds("two", "one")
		configMaps := rule("CREATE", "", "v1", "configmaps")
		// By name, whenever they were made.
		s.configure(t, mutatingPath, "b", webhookEntry("two", two.Server, configMaps))
		s.configure(t, mutatingPath, "a", webhookEntry("one", one.Server, configMaps))
		got := dataOf(t, s.must(t, http.StatusCreated, "POST", configMapsPath, configMapOf("m", map[string]string{"start": "yes"})))
		if diff := cmp.Diff(map[string]string{"start": "yes", "one": "yes", "two": "yes"}, got); diff != "" {
			t.Errorf("data (-want +got):\n%s", diff)
		}
		// None is asked again without reinvocationPolicy.
		if len(one.requests()) != 1 || len(two.requests()) != 1 {
			t.Errorf("asked %d and %d times", len(one.requests()), len(two.requests()))
		}
		stored := dataOf(t, s.must(t, http.StatusOK, "GET", configMapsPath+"/m", ""))
		if stored["two"] != "yes" {
			t.Errorf("stored %v", stored)
		}
		// An edit and a deletion are in force at once.
		s.must(t, http.StatusOK, "PATCH", mutatingPath+"/a", `[{"op":"replace","path":"/webhooks/0/rules/0/operations","value":["UPDATE"]}]`, contentType("application/json-patch+json"))
		if got := dataOf(t, s.must(t, http.StatusCreated, "POST", configMapsPath, configMapOf("n", map[string]string{"start": "yes"}))); got["one"] != "" {
			t.Errorf("after the edit: %v", got)
		}
		s.must(t, http.StatusOK, "DELETE", mutatingPath, "")
		if got := dataOf(t, s.must(t, http.StatusCreated, "POST", configMapsPath, configMapOf("o", map[string]string{"one": "yes"}))); got["two"] != "" {
			t.Errorf("after the deletion: %v", got)
		}
	})
}

func TestReinvocation(t *testing.T) {
	s := newServer(t)
	pods := rule("CREATE", "", "v1", "pods")
	// The first wants to see every container, the second adds one.
	labels := newHook(t, func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		var pod corev1.Pod
		if err := json.Unmarshal(r.Object.Raw, &pod); err != nil {
			return denied(err.Error())
		}
		return patched(fmt.Sprintf(`[{"op":"add","path":"/metadata/labels","value":{"containers":"%d"}}]`, len(pod.Spec.Containers)+len(pod.Spec.InitContainers)))
	})
	injects := newHook(t, func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		if strings.Contains(string(r.Object.Raw), "injected") {
			return nil
		}
		return patched(`[{"op":"add","path":"/spec/initContainers","value":[{"name":"injected","image":"x"}]}]`)
	})
	never := newHook(t, nil)
	s.configure(t, mutatingPath, "a",
		webhookEntry("labels", labels.Server, pods, `"reinvocationPolicy":"IfNeeded"`),
		webhookEntry("never", never.Server, pods),
		webhookEntry("injects", injects.Server, pods, `"reinvocationPolicy":"IfNeeded"`))
	var pod corev1.Pod
	s.must(t, http.StatusCreated, "POST", "/api/v1/namespaces/default/pods",
		`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"x"}]}}`).decode(t, &pod)
	if pod.Labels["containers"] != "2" {
		t.Errorf("labels %v: the first webhook did not see what the second made", pod.Labels)
	}
	// The server's own plugins change what the last one made, which it wants to
	// see; none is asked a third time.
	if n := []int{len(labels.requests()), len(never.requests()), len(injects.requests())}; !slices.Equal(n, []int{2, 1, 2}) {
		t.Errorf("asked %v times", n)
	}
	// What a webhook made is defaulted, and completed by the server's own plugins.
	if len(pod.Spec.InitContainers) != 1 {
		t.Fatalf("init containers %v", pod.Spec.InitContainers)
	}
	c := pod.Spec.InitContainers[0]
	if c.TerminationMessagePolicy != corev1.TerminationMessageReadFile || len(c.VolumeMounts) != 1 {
		t.Errorf("the injected container %+v", c)
	}
}

func TestReview(t *testing.T) {
	s := newServer(t)
	h := newHook(t, nil)
	s.configure(t, validatingPath, "all", webhookEntry("all", h.Server, rule("*", "*", "*", "*/*")))

	s.must(t, http.StatusCreated, "POST", configMapsPath+"?fieldManager=me&fieldValidation=Strict", configMapOf("m", map[string]string{"a": "1"}))
	got := h.last(t)
	want := &admissionv1.AdmissionRequest{
		UID: got.UID, Kind: metav1.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}, RequestKind: &metav1.GroupVersionKind{Version: "v1", Kind: "ConfigMap"},
		Resource:        metav1.GroupVersionResource{Version: "v1", Resource: "configmaps"},
		RequestResource: &metav1.GroupVersionResource{Version: "v1", Resource: "configmaps"},
		Name:            "m", Namespace: "default", Operation: admissionv1.Create, UserInfo: got.UserInfo, Object: got.Object,
		DryRun: new(false),
	}
	want.Options.Raw = []byte(`{"kind":"CreateOptions","apiVersion":"meta.k8s.io/v1","fieldManager":"me","fieldValidation":"Strict"}`)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the question (-want +got):\n%s", diff)
	}
	var cm corev1.ConfigMap
	if err := json.Unmarshal(got.Object.Raw, &cm); err != nil || cm.Kind != "ConfigMap" || cm.APIVersion != "v1" || cm.UID == "" || cm.Data["a"] != "1" {
		t.Errorf("the object %s: %v", got.Object.Raw, err)
	}
	if got.UserInfo.Username != "admin" || !slices.Contains(got.UserInfo.Groups, "system:masters") || got.UID == "" {
		t.Errorf("asked by %+v about %q", got.UserInfo, got.UID)
	}

	for _, c := range []struct {
		name, method, path, body, media string
		code                            int
		check                           func(r *admissionv1.AdmissionRequest) string
	}{
		{"a patch is an update", "PATCH", configMapsPath + "/m", `{"data":{"a":"2"}}`, "application/merge-patch+json", 200, func(r *admissionv1.AdmissionRequest) string {
			return expect(r, admissionv1.Update, "", `"a":"2"`, `"a":"1"`, "UpdateOptions")
		}},
		{"an apply that creates", "PATCH", configMapsPath + "/applied?fieldManager=me", configMapOf("applied", nil), "application/apply-patch+yaml", 201, func(r *admissionv1.AdmissionRequest) string {
			return expect(r, admissionv1.Create, "", "applied", "", "CreateOptions")
		}},
		{"a namespace is in itself", "POST", "/api/v1/namespaces", `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"mine"}}`, "", 201, func(r *admissionv1.AdmissionRequest) string {
			if r.Namespace != "mine" || r.Name != "mine" {
				return "namespace " + r.Namespace + " name " + r.Name
			}
			return ""
		}},
		{"a deletion", "DELETE", configMapsPath + "/m", `{"kind":"DeleteOptions","apiVersion":"v1","propagationPolicy":"Background"}`, "", 200, func(r *admissionv1.AdmissionRequest) string {
			if len(r.Object.Raw) > 0 && string(r.Object.Raw) != "null" {
				return "there is a new object: " + string(r.Object.Raw)
			}
			return expect(r, admissionv1.Delete, "", "", `"a":"2"`, `"propagationPolicy":"Background"`)
		}},
		{"a collection, object by object", "DELETE", configMapsPath + "?labelSelector=x", "", "", 200, nil},
		{"a view", "POST", "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers",
			`{"apiVersion":"autoscaling/v1","kind":"HorizontalPodAutoscaler","metadata":{"name":"h"},"spec":{"maxReplicas":2,"targetCPUUtilizationPercentage":50,"scaleTargetRef":{"kind":"Deployment","name":"d","apiVersion":"apps/v1"}}}`, "", 201,
			func(r *admissionv1.AdmissionRequest) string {
				if r.Kind.Version != "v1" {
					return "kind " + r.Kind.String()
				}
				return expect(r, admissionv1.Create, "", `"targetCPUUtilizationPercentage":50`, "", "CreateOptions")
			}},
		{"a deployment", "POST", "/apis/apps/v1/namespaces/default/deployments",
			`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"x"}]}}}}`, "", 201, nil},
		{"its scale", "PATCH", "/apis/apps/v1/namespaces/default/deployments/d/scale", `{"spec":{"replicas":3}}`, "application/merge-patch+json", 200, func(r *admissionv1.AdmissionRequest) string {
			if r.Kind.Kind != "Scale" || r.Kind.Group != "autoscaling" || r.Resource.Group != "apps" {
				return "kind " + r.Kind.String()
			}
			return expect(r, admissionv1.Update, "scale", `"replicas":3`, `"replicas":1`, "UpdateOptions")
		}},
		{"its status", "PATCH", "/apis/apps/v1/namespaces/default/deployments/d/status", `{"status":{"replicas":3}}`, "application/merge-patch+json", 200, func(r *admissionv1.AdmissionRequest) string {
			return expect(r, admissionv1.Update, "status", `"replicas":3`, "", "UpdateOptions")
		}},
		{"a pod", "POST", "/api/v1/namespaces/default/pods", `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"x"}]}}`, "", 201, nil},
		{"ephemeral containers", "PATCH", "/api/v1/namespaces/default/pods/p/ephemeralcontainers", `{"spec":{"ephemeralContainers":[{"name":"debug","image":"x"}]}}`, "application/strategic-merge-patch+json", 200, func(r *admissionv1.AdmissionRequest) string {
			return expect(r, admissionv1.Update, "ephemeralcontainers", "debug", `"name":"p"`, "UpdateOptions")
		}},
		{"a binding, once", "POST", "/api/v1/namespaces/default/pods/p/binding", `{"apiVersion":"v1","kind":"Binding","metadata":{"name":"p"},"target":{"kind":"Node","name":"n"}}`, "", 201, func(r *admissionv1.AdmissionRequest) string {
			if r.Kind.Kind != "Binding" {
				return "kind " + r.Kind.String()
			}
			return expect(r, admissionv1.Create, "binding", `"target"`, "", "CreateOptions")
		}},
		{"an eviction, and not the deletion that it is", "POST", "/api/v1/namespaces/default/pods/p/eviction", `{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"p"}}`, "", 201, func(r *admissionv1.AdmissionRequest) string {
			if r.Kind.Kind != "Eviction" || r.Kind.Group != "policy" {
				return "kind " + r.Kind.String()
			}
			return expect(r, admissionv1.Create, "eviction", "Eviction", "", "CreateOptions")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := len(h.requests())
			var headers []header
			if c.media != "" {
				headers = append(headers, contentType(c.media))
			}
			s.must(t, c.code, c.method, c.path, c.body, headers...)
			if c.check == nil {
				return
			}
			asked := h.requests()[before:]
			if len(asked) != 1 {
				t.Fatalf("asked %d times", len(asked))
			}
			if problem := c.check(asked[0]); problem != "" {
				t.Errorf("%s", problem)
			}
		})
	}
}

// expect compares a question with the words that its parts must have.
func expect(r *admissionv1.AdmissionRequest, op admissionv1.Operation, sub, object, old, options string) string {
	switch {
	case r.Operation != op:
		return "operation " + string(r.Operation)
	case r.SubResource != sub || r.RequestSubResource != sub:
		return "subresource " + r.SubResource
	case !strings.Contains(string(r.Object.Raw), object):
		return "object " + string(r.Object.Raw)
	case !strings.Contains(string(r.OldObject.Raw), old):
		return "old object " + string(r.OldObject.Raw)
	case !strings.Contains(string(r.Options.Raw), options):
		return "options " + string(r.Options.Raw)
	}
	return ""
}

func TestRefusal(t *testing.T) {
	s := newServer(t)
	var result *metav1.Status
	h := newHook(t, func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		return &admissionv1.AdmissionResponse{Result: result}
	})
	s.configure(t, validatingPath, "no", webhookEntry("no", h.Server, rule("*", "", "v1", "configmaps")))
	for _, c := range []struct {
		result  *metav1.Status
		code    int
		reason  metav1.StatusReason
		message string
	}{
		{nil, 400, "", `admission webhook "no.example.com" denied the request without explanation`},
		{&metav1.Status{Message: "because"}, 400, "", `admission webhook "no.example.com" denied the request: because`},
		{&metav1.Status{Reason: metav1.StatusReasonForbidden, Code: 403}, 403, "Forbidden", `admission webhook "no.example.com" denied the request: Forbidden`},
		{&metav1.Status{Message: "m", Code: 200, Status: "Success"}, 400, "", `admission webhook "no.example.com" denied the request: m`},
		{&metav1.Status{Message: "m", Code: 99999}, 500, "", `admission webhook "no.example.com" denied the request: m`},
		{&metav1.Status{Message: "m", Code: -1}, 400, "", `admission webhook "no.example.com" denied the request: m`},
	} {
		result = c.result
		got := s.must(t, c.code, "POST", configMapsPath, configMapOf("m", nil)).status(t)
		if got.Message != c.message || got.Reason != c.reason || got.Status != metav1.StatusFailure {
			t.Errorf("%+v: %+v", c.result, got)
		}
	}
	if n := len(h.requests()); n != 6 {
		t.Errorf("asked %d times about 6 requests", n)
	}
}

func TestRefusedUpdateIsAskedOnce(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		s.must(t, http.StatusCreated, "POST", configMapsPath, configMapOf("m", map[string]string{"a": "1"}))
		h := newHook(t, func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse { return denied("no") })
		s.configure(t, validatingPath, "no", webhookEntry("no", h.Server, rule("*", "", "v1", "configmaps")))
		s.must(t, http.StatusBadRequest, "PUT", configMapsPath+"/m", configMapOf("m", map[string]string{"a": "2"}))
		s.must(t, http.StatusBadRequest, "PATCH", configMapsPath+"/m", `{"data":{"a":"2"}}`, contentType("application/merge-patch+json"))
		s.must(t, http.StatusBadRequest, "DELETE", configMapsPath+"/m", "")
		s.must(t, http.StatusBadRequest, "DELETE", configMapsPath, "")
		var asked []string
		for _, r := range h.requests() {
			asked = append(asked, string(r.Operation)+" "+r.Name)
		}
		if diff := cmp.Diff([]string{"UPDATE m", "UPDATE m", "DELETE m", "DELETE m"}, asked); diff != "" {
			t.Errorf("asked (-want +got):\n%s", diff)
		}
		if got := dataOf(t, s.must(t, http.StatusOK, "GET", configMapsPath+"/m", "")); got["a"] != "1" {
			t.Errorf("the object is now %v", got)
		}
	})
}
