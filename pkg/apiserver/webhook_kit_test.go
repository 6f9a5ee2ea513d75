package apiserver_test

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	mutatingPath   = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
	validatingPath = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
	configMapsPath = "/api/v1/namespaces/default/configmaps"
)

// hook is an admission webhook of a test.
type hook struct {
	*httptest.Server
	mu    sync.Mutex
	asked []*admissionv1.AdmissionRequest
}

// answers is what a webhook says to a request; nil allows it.
type answers func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse

func newHook(t *testing.T, answer answers) *hook {
	t.Helper()
	h := &hook{}
	h.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review admissionv1.AdmissionReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil || review.Request == nil {
			http.Error(w, "no review", http.StatusBadRequest)
			return
		}
		h.mu.Lock()
		h.asked = append(h.asked, review.Request)
		h.mu.Unlock()
		response := &admissionv1.AdmissionResponse{Allowed: true}
		if answer != nil {
			if said := answer(review.Request); said != nil {
				response = said
			}
		}
		if response.UID == "" {
			response.UID = review.Request.UID
		}
		review.Request, review.Response = nil, response
		if err := json.NewEncoder(w).Encode(&review); err != nil {
			return // the caller has gone
		}
	}))
	t.Cleanup(h.Close)
	return h
}

// requests are those that the webhook was asked about so far.
func (h *hook) requests() []*admissionv1.AdmissionRequest {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]*admissionv1.AdmissionRequest(nil), h.asked...)
}

// last is the one that it was asked about last.
func (h *hook) last(t *testing.T) *admissionv1.AdmissionRequest {
	t.Helper()
	all := h.requests()
	if len(all) == 0 {
		t.Fatal("the webhook was not asked")
	}
	return all[len(all)-1]
}

// client is the JSON of a clientConfig that leads to a server.
func clientOf(s *httptest.Server) string {
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	return fmt.Sprintf(`{"url":%q,"caBundle":%q}`, s.URL+"/ask", base64.StdEncoding.EncodeToString(ca))
}

// rule is the JSON of a rule: "CREATE,UPDATE group version resources...".
func rule(operations, group, version string, resources ...string) string {
	return fmt.Sprintf(`{"operations":%s,"apiGroups":[%q],"apiVersions":[%q],"resources":%s}`,
		jsonText(strings.Split(operations, ",")), group, version, jsonText(resources))
}

func jsonText(v any) string {
	out, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(out)
}

// configure makes a configuration of one webhook for each of hooks.
func (s *server) configure(t *testing.T, path, name string, hooks ...string) {
	t.Helper()
	kind := "ValidatingWebhookConfiguration"
	if path == mutatingPath {
		kind = "MutatingWebhookConfiguration"
	}
	s.must(t, http.StatusCreated, "POST", path, fmt.Sprintf(`{"apiVersion":"admissionregistration.k8s.io/v1","kind":%q,"metadata":{"name":%q},"webhooks":[%s]}`,
		kind, name, strings.Join(hooks, ",")))
}

// webhookEntry is one entry of a configuration. more is JSON that is added.
func webhookEntry(name string, to *httptest.Server, rules string, more ...string) string {
	return fmt.Sprintf(`{"name":%q,"clientConfig":%s,"rules":[%s],"sideEffects":"None","admissionReviewVersions":["v1"]%s}`,
		name+".example.com", clientOf(to), rules, strings.Join(append([]string{""}, more...), ","))
}

func patched(patch string) *admissionv1.AdmissionResponse {
	return &admissionv1.AdmissionResponse{Allowed: true, Patch: []byte(patch), PatchType: new(admissionv1.PatchTypeJSONPatch)}
}

func denied(message string) *admissionv1.AdmissionResponse {
	return &admissionv1.AdmissionResponse{Result: &metav1.Status{Message: message}}
}

func configMapOf(name string, data map[string]string) string {
	return jsonText(map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": name}, "data": data})
}

// dataOf is that of a config map that was answered.
func dataOf(t *testing.T, a *answer) map[string]string {
	t.Helper()
	var cm struct{ Data map[string]string }
	a.decode(t, &cm)
	return cm.Data
}
