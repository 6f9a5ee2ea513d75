package controlplane_test

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	admission "k8s.io/api/admission/v1"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/audit"
	"coracle/pkg/testcluster"
)

// notingWebhook adds an annotation to the audit log of each request, and the
// patch to the object.
func notingWebhook(t *testing.T, patch string) *httptest.Server {
	t.Helper()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review admission.AdmissionReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil || review.Request == nil {
			t.Errorf("no review: %v", err)
			return
		}
		review.Response = &admission.AdmissionResponse{UID: review.Request.UID, Allowed: true, AuditAnnotations: map[string]string{"saw": review.Request.Name}}
		if patch != "" {
			review.Response.Patch, review.Response.PatchType = []byte(patch), new(admission.PatchTypeJSONPatch)
		}
		if err := json.NewEncoder(w).Encode(&review); err != nil {
			t.Errorf("answer: %v", err)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func configOf(s *httptest.Server) admissionv1.WebhookClientConfig {
	return admissionv1.WebhookClientConfig{URL: &s.URL, CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})}
}

// TestAuditOfWebhooks: what webhooks have to say of a request, and what they did
// and failed to do, is in its event; their patches are where bodies are, since a
// patch of a Secret has its values.
func TestAuditOfWebhooks(t *testing.T) {
	policy, err := audit.ParsePolicy([]byte(`{apiVersion: audit.k8s.io/v1, kind: Policy, omitStages: [RequestReceived], rules: [
		{level: Metadata, resources: [{resources: [secrets]}]}, {level: Request, resources: [{resources: [configmaps]}]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	mutating := notingWebhook(t, `[{"op":"add","path":"/metadata/annotations","value":{"injected":"`+canary+`"}}]`)
	validating, gone := notingWebhook(t, ""), notingWebhook(t, "")
	gone.Close()
	rules := []admissionv1.RuleWithOperations{{Operations: []admissionv1.OperationType{admissionv1.Create},
		Rule: admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"secrets", "configmaps"}}}}
	events, text := audited(t, policy, func(c *testcluster.Cluster) {
		hooks := c.Client.AdmissionregistrationV1()
		if _, err := hooks.MutatingWebhookConfigurations().Create(t.Context(), &admissionv1.MutatingWebhookConfiguration{
			ObjectMeta: metav1.ObjectMeta{Name: "mutates"}, Webhooks: []admissionv1.MutatingWebhook{{Name: "mutate.example.com", ClientConfig: configOf(mutating), Rules: rules,
				SideEffects: new(admissionv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"}}},
		}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := hooks.ValidatingWebhookConfigurations().Create(t.Context(), &admissionv1.ValidatingWebhookConfiguration{
			ObjectMeta: metav1.ObjectMeta{Name: "validates"}, Webhooks: []admissionv1.ValidatingWebhook{
				{Name: "validate.example.com", ClientConfig: configOf(validating), Rules: rules, SideEffects: new(admissionv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"}},
				{Name: "gone.example.com", ClientConfig: configOf(gone), Rules: rules, FailurePolicy: new(admissionv1.Ignore), SideEffects: new(admissionv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"}},
			},
		}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Client.CoreV1().Secrets("default").Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Client.CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "m"}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	})
	for resource, name := range map[string]string{"secrets": "s", "configmaps": "m"} {
		notes := find(t, events, "ResponseComplete", "create", resource, name).Annotations
		if notes["mutate.example.com/saw"] != name || notes["validate.example.com/saw"] != name {
			t.Errorf("%s: what the webhooks say: %v", resource, notes)
		}
		if got := notes["mutation.webhook.admission.k8s.io/round_0_index_0"]; got != `{"configuration":"mutates","webhook":"mutate.example.com","mutated":true}` {
			t.Errorf("%s: what was changed: %s", resource, got)
		}
		if got := notes["failed-open.validating.webhook.admission.k8s.io/round_0_index_1"]; got != "gone.example.com" {
			t.Errorf("%s: who was passed over: %q in %v", resource, got, notes)
		}
		patch := notes["patch.webhook.admission.k8s.io/round_0_index_0"]
		if kept := strings.Contains(patch, canary); kept != (resource == "configmaps") {
			t.Errorf("%s: the patch is %q", resource, patch)
		}
	}
	for line := range bytes.Lines(text) {
		if bytes.Contains(line, []byte(`"resource":"secrets"`)) && bytes.Contains(line, []byte(canary)) {
			t.Errorf("a Secret's patch is in the log: %s", line)
		}
	}
}
