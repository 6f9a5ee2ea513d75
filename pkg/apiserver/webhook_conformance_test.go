package apiserver_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// webhookChecks are those of admission webhooks.
func webhookChecks() map[string]check {
	here := func(test string) check { return elsewhere(".", test) }
	return map[string]check{
		"APIM-003": onWebhooks(checkWebhookCollection),
		"APIM-004": onWebhooks(checkWebhookCollection),
		"APIM-005": onWebhooks(checkWebhookEdits),
		"APIM-006": onWebhooks(checkWebhookEdits),
		"APIM-007": onWebhooks(checkConditionsAreKept),
		"APIM-008": onWebhooks(checkConditionsAreKept),
		"APIM-009": here("TestConnect"),
		"APIM-010": checkCustomObjectsAreKept,
		"APIM-011": all(here("TestRefusedUpdateIsAskedOnce"), here("TestWebhooksThatFail"), here("TestSelectorsOfWebhooks")),
		"APIM-012": here("TestDefinitionsCanBeRefused"),
		"APIM-013": checkWebhookTimeouts,
		"APIM-015": here("TestMutatingWebhooksRunInOrder"),
		"APIM-016": here("TestWebhooksOfCustomResources"),
		"APIM-017": checkStorageVersionChanges,
		"APIM-018": here("TestWebhooksOfCustomResources"),
		"APIM-019": here("TestMatchConditions"),
		"APIM-020": here("TestReinvocation"),
		"APIM-021": here("TestConfigurationsAreExempt"),
		"APIM-022": here("TestMatchConditions"),
		"APIM-023": here("TestMatchConditions"),
		"APIM-024": checkUntrustedWebhook,
	}
}

// onWebhooks runs a check for both kinds of webhook. Its webhook changes, or
// denies, config maps; asked says of an answer which of both it shows.
func onWebhooks(f func(t *testing.T, s *server, path, entry string, asked func(*answer) bool)) check {
	return func(t *testing.T) {
		configMaps := rule("CREATE", "", "v1", "configmaps")
		t.Run("mutating", func(t *testing.T) {
			h := newHook(t, func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
				return patched(`[{"op":"add","path":"/data","value":{"made":"yes"}}]`)
			})
			f(t, newServer(t), mutatingPath, webhookEntry("m", h.Server, configMaps), func(a *answer) bool {
				return a.code == http.StatusCreated && strings.Contains(string(a.body), `"made":"yes"`)
			})
		})
		t.Run("validating", func(t *testing.T) {
			h := newHook(t, func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse { return denied("no") })
			f(t, newServer(t), validatingPath, webhookEntry("v", h.Server, configMaps), func(a *answer) bool {
				return a.code == http.StatusBadRequest && strings.Contains(string(a.body), "denied the request: no")
			})
		})
	}
}

// tries creates config maps and compares whether the webhook was asked.
func tries(t *testing.T, s *server, asked func(*answer) bool) func(name string, want bool) {
	return func(name string, want bool) {
		t.Helper()
		if a := s.do(t, "POST", configMapsPath, configMapOf(name, nil)); asked(a) != want || !want && a.code != http.StatusCreated {
			t.Errorf("%s: want the webhook asked: %t; answered %d %s", name, want, a.code, a.body)
		}
	}
}

func checkWebhookCollection(t *testing.T, s *server, path, entry string, asked func(*answer) bool) {
	try := tries(t, s, asked)
	for i := range 10 {
		name := fmt.Sprint("w", i)
		s.configure(t, path, name, entry)
		s.must(t, http.StatusOK, "PATCH", path+"/"+name, `{"metadata":{"labels":{"set":"mine"}}}`, contentType("application/merge-patch+json"))
	}
	var list unstructured.UnstructuredList
	if err := list.UnmarshalJSON(s.must(t, http.StatusOK, "GET", path+"?labelSelector=set%3Dmine", "").body); err != nil || len(list.Items) != 10 {
		t.Errorf("%d configurations: %v", len(list.Items), err)
	}
	try("before", true)
	s.must(t, http.StatusOK, "DELETE", path+"?labelSelector=set%3Dmine", "")
	try("after", false)
}

func checkWebhookEdits(t *testing.T, s *server, path, entry string, asked func(*answer) bool) {
	try := tries(t, s, asked)
	s.configure(t, path, "w", entry)
	try("at-first", true)
	stored := s.must(t, http.StatusOK, "GET", path+"/w", "").body
	s.must(t, http.StatusOK, "PUT", path+"/w", strings.Replace(string(stored), `["CREATE"]`, `["UPDATE"]`, 1))
	try("without-create", false)
	s.must(t, http.StatusOK, "PATCH", path+"/w", `[{"op":"add","path":"/webhooks/0/rules/0/operations/-","value":"CREATE"}]`, contentType("application/json-patch+json"))
	try("with-create", true)
}

func checkConditionsAreKept(t *testing.T, s *server, path, entry string, _ func(*answer) bool) {
	want := []admissionregistrationv1.MatchCondition{{Name: "one", Expression: "true"}, {Name: "two", Expression: "request.operation != 'DELETE'"}}
	s.configure(t, path, "w", strings.TrimSuffix(entry, "}")+`,"matchConditions":`+jsonText(want)+"}")
	kept := func() (out []admissionregistrationv1.MatchCondition) {
		var c admissionregistrationv1.ValidatingWebhookConfiguration // whose fields both kinds have
		s.must(t, http.StatusOK, "GET", path+"/w", "").decode(t, &c)
		return c.Webhooks[0].MatchConditions
	}
	if diff := cmp.Diff(want, kept()); diff != "" {
		t.Errorf("created (-want +got):\n%s", diff)
	}
	want = want[1:]
	s.must(t, http.StatusOK, "PATCH", path+"/w", `[{"op":"replace","path":"/webhooks/0/matchConditions","value":`+jsonText(want)+`}]`, contentType("application/json-patch+json"))
	if diff := cmp.Diff(want, kept()); diff != "" {
		t.Errorf("updated (-want +got):\n%s", diff)
	}
}

func checkCustomObjectsAreKept(t *testing.T) {
	s := newServer(t)
	s.define(t, widgetDefinition)
	s.must(t, http.StatusCreated, "POST", widgetsPath, widget("a", `{"color":"red"}`))
	h := newHook(t, func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse { return denied("no") })
	s.configure(t, validatingPath, "v", webhookEntry("v", h.Server, rule("CREATE,UPDATE,DELETE", "example.com", "v1", "widgets")))
	before := string(s.must(t, http.StatusOK, "GET", widgetsPath+"/a", "").body)
	s.must(t, http.StatusBadRequest, "POST", widgetsPath, widget("b", `{"color":"red"}`))
	s.must(t, http.StatusBadRequest, "PATCH", widgetsPath+"/a", `{"spec":{"color":"blue"}}`, contentType("application/merge-patch+json"))
	s.must(t, http.StatusBadRequest, "DELETE", widgetsPath+"/a", "")
	if after := string(s.must(t, http.StatusOK, "GET", widgetsPath+"/a", "").body); after != before {
		t.Errorf("the object changed:\n%s\n%s", before, after)
	}
}

// checkWebhookTimeouts: a webhook that answers when it is told to, once it has
// been asked by a request that gives it time.
func checkWebhookTimeouts(t *testing.T) {
	s := newServer(t)
	configMaps := rule("CREATE", "", "v1", "configmaps")
	entry := func(policy string) string {
		return webhookEntry("w", hanging(t), configMaps, `"timeoutSeconds":1`, `"failurePolicy":"`+policy+`"`)
	}
	s.configure(t, validatingPath, "w", entry("Fail"))
	a := s.must(t, http.StatusInternalServerError, "POST", configMapsPath, configMapOf("m", nil))
	if !strings.Contains(string(a.body), "deadline") || !strings.Contains(string(a.body), "timeout=1s") {
		t.Errorf("answered %s", a.body)
	}
	s.must(t, http.StatusOK, "DELETE", validatingPath+"/w", "")
	s.configure(t, validatingPath, "w", entry("Ignore"))
	s.must(t, http.StatusCreated, "POST", configMapsPath, configMapOf("m", nil))
	s.must(t, http.StatusOK, "DELETE", validatingPath+"/w", "")
	// Without one it has ten seconds, as it is told.
	told := make(chan string, 1)
	s.configure(t, validatingPath, "w", webhookEntry("w", rawHook(t, func(w http.ResponseWriter, r *http.Request) {
		told <- r.URL.Query().Get("timeout")
		said(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"UID","allowed":true}}`)(w, r)
	}), configMaps))
	s.must(t, http.StatusCreated, "POST", configMapsPath, configMapOf("n", nil))
	if got := <-told; got != "10s" {
		t.Errorf("told it has %s", got)
	}
}

// checkStorageVersionChanges: a webhook is shown old and new object in one
// version, whatever version the old one is stored in.
func checkStorageVersionChanges(t *testing.T) {
	s := newServer(t)
	name := s.define(t, gadgets(converter(t, func(*apiextensionsv1.ConversionResponse) {}), "v1"))
	h := newHook(t, func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		for _, raw := range [][]byte{r.Object.Raw, r.OldObject.Raw} {
			if len(raw) > 0 && !strings.Contains(string(raw), `"apiVersion":"example.com/`+r.Kind.Version+`"`) && string(raw) != "null" {
				return denied("mixed versions: " + string(raw))
			}
		}
		return patched(`[{"op":"add","path":"/metadata/annotations","value":{"seen":"` + strings.ToLower(string(r.Operation)) + `"}}]`)
	})
	s.configure(t, mutatingPath, "m", webhookEntry("m", h.Server, rule("CREATE,UPDATE", "example.com", "*", "gadgets")))
	s.must(t, http.StatusCreated, "POST", gadgetPath("v1"), `{"apiVersion":"example.com/v1","kind":"Gadget","metadata":{"name":"a"},"spec":{"size":"s"}}`)
	var crd apiextensionsv1.CustomResourceDefinition
	s.must(t, http.StatusOK, "GET", definitionsPath+"/"+name, "").decode(t, &crd)
	crd.Spec.Versions[0].Storage, crd.Spec.Versions[1].Storage = false, true
	s.must(t, http.StatusOK, "PUT", definitionsPath+"/"+name, jsonText(&crd))
	u := s.must(t, http.StatusOK, "PATCH", gadgetPath("v1")+"/a", `{"spec":{"size":"new"}}`, contentType("application/merge-patch+json")).object(t)
	if size, _, _ := unstructured.NestedString(u.Object, "spec", "size"); size != "new" || u.GetAnnotations()["seen"] != "update" {
		t.Errorf("the object %v", u.Object)
	}
}

func checkUntrustedWebhook(t *testing.T) {
	s := newServer(t)
	h, other := newHook(t, nil), newHook(t, nil)
	entry := webhookEntry("w", h.Server, rule("CREATE", "", "v1", "configmaps"))
	without := strings.Replace(entry, clientOf(h.Server), fmt.Sprintf(`{"url":%q}`, other.URL), 1)
	s.configure(t, validatingPath, "w", without)
	a := s.must(t, http.StatusInternalServerError, "POST", configMapsPath, configMapOf("m", nil))
	if !strings.Contains(string(a.body), "certificate") {
		t.Errorf("answered %s", a.body)
	}
	if n := len(other.requests()); n != 0 {
		t.Errorf("it was asked %d times", n)
	}
}
