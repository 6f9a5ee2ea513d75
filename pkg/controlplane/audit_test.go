package controlplane_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"coracle/pkg/audit"
	"coracle/pkg/controlplane"
	"coracle/pkg/testcluster"
)

// audited runs f on a cluster with an audit log and returns the events.
func audited(t *testing.T, policy *audit.Policy, f func(c *testcluster.Cluster)) (events []auditv1.Event, text []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "audit.log")
	log, err := audit.New(audit.Config{Path: path, Policy: policy})
	if err != nil {
		t.Fatal(err)
	}
	c := testcluster.Start(t, testcluster.WithConfig(func(cfg *controlplane.Config) { cfg.Audit = log }))
	f(c)
	c.Stop()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := log.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if text, err = os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		var e auditv1.Event
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		events = append(events, e)
	}
	return events, text
}

func find(t *testing.T, events []auditv1.Event, stage auditv1.Stage, verb, resource, name string) auditv1.Event {
	t.Helper()
	for _, e := range events {
		if e.Stage == stage && e.Verb == verb && e.ObjectRef != nil && e.ObjectRef.Resource == resource && e.ObjectRef.Name == name {
			return e
		}
	}
	t.Fatalf("no event %s of %s %s %s in %d", stage, verb, resource, name, len(events))
	return auditv1.Event{}
}

// TestAuditDefault: by default a change is recorded with who, what, as whom and
// how it ended, reads of Secrets are, and no value of a Secret is in the log.
func TestAuditDefault(t *testing.T) {
	events, text := audited(t, nil, func(c *testcluster.Cluster) {
		createSecret(t, c, "kube-system", "s")
		wantSecret(t, c, "kube-system", "s")
		as := c.Admin()
		as.Impersonate = rest.ImpersonationConfig{UserName: "jane", Groups: []string{"devs"}}
		as.UserAgent = "tester/1"
		jane := kubernetes.NewForConfigOrDie(as)
		if _, err := jane.CoreV1().Pods("default").Get(t.Context(), "p", metav1.GetOptions{}); err == nil {
			t.Error("jane may read pods")
		}
		if err := c.Client.CoreV1().Pods("default").Delete(t.Context(), "gone", metav1.DeleteOptions{}); err == nil {
			t.Error("a pod that is not there was deleted")
		}
		metrics, err := c.Client.CoreV1().RESTClient().Get().AbsPath("/metrics").DoRaw(t.Context())
		if err != nil || !regexp.MustCompile(`(?m)^apiserver_audit_event_total [1-9]`).Match(metrics) || !bytes.Contains(metrics, []byte("\napiserver_audit_error_total 0")) {
			t.Errorf("the metrics do not count events: %v", err)
		}
	})
	if bytes.Contains(text, []byte(canary)) {
		t.Error("the value of a Secret is in the audit log")
	}
	find(t, events, "ResponseComplete", "get", "secrets", "s")
	e := find(t, events, "ResponseComplete", "get", "pods", "p")
	if e.User.Username != "admin" || e.ImpersonatedUser == nil || e.ImpersonatedUser.Username != "jane" || e.ImpersonatedUser.Groups[0] != "devs" || e.UserAgent != "tester/1" {
		t.Errorf("who: %+v, %+v, %s", e.User, e.ImpersonatedUser, e.UserAgent)
	}
	if e.ResponseStatus.Code != 403 || e.ResponseStatus.Reason != metav1.StatusReasonForbidden || e.Annotations["authorization.k8s.io/decision"] != "forbid" {
		t.Errorf("how it ended: %+v, %v", e.ResponseStatus, e.Annotations)
	}
	if e := find(t, events, "ResponseComplete", "delete", "pods", "gone"); e.ResponseStatus.Code != 404 || e.Annotations["authorization.k8s.io/decision"] != "allow" || e.AuditID == "" || e.SourceIPs[0] != "127.0.0.1" {
		t.Errorf("a failed change: %+v", e)
	}
	for _, e := range events {
		if e.Stage == auditv1.StageRequestReceived || e.Level != auditv1.LevelMetadata {
			t.Errorf("unexpected: %+v", e)
		}
	}
}

// TestAuditForms: bodies that are not JSON are recorded as JSON.
func TestAuditForms(t *testing.T) {
	policy, err := audit.ParsePolicy([]byte(`{apiVersion: audit.k8s.io/v1, kind: Policy, omitManagedFields: true, rules: [
		{level: RequestResponse, resources: [{resources: [configmaps]}], users: [admin]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	events, _ := audited(t, policy, func(c *testcluster.Cluster) {
		maps := c.Client.CoreV1().ConfigMaps("default") // speaks protobuf
		if _, err := maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Data: map[string]string{"k": "v"}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := maps.Patch(t.Context(), "b", types.ApplyYAMLPatchType, []byte("apiVersion: v1\nkind: ConfigMap\ndata: {k: w}\n"), metav1.PatchOptions{FieldManager: "test"}); err != nil {
			t.Fatal(err)
		}
		if _, err := maps.List(t.Context(), metav1.ListOptions{}); err != nil {
			t.Fatal(err)
		}
	})
	for _, want := range []struct{ verb, name, request, response string }{
		{"create", "a", `"data":{"k":"v"}`, `"data":{"k":"v"}`}, {"patch", "b", `"data":{"k":"w"}`, `"data":{"k":"w"}`}, {"list", "", "", `"kind":"ConfigMapList"`},
	} {
		e := find(t, events, "ResponseComplete", want.verb, "configmaps", want.name)
		var request []byte
		if e.RequestObject != nil {
			request = e.RequestObject.Raw
		}
		if e.ResponseObject == nil || !bytes.Contains(e.ResponseObject.Raw, []byte(want.response)) || !bytes.Contains(request, []byte(want.request)) {
			t.Errorf("%s: the request is %s, the answer %v", want.verb, request, e.ResponseObject)
		}
	}
}

// TestAuditOfPolicies: what admission policies have to say of a request is in
// its event.
func TestAuditOfPolicies(t *testing.T) {
	events, _ := audited(t, nil, func(c *testcluster.Cluster) {
		policies := c.Client.AdmissionregistrationV1()
		if _, err := policies.ValidatingAdmissionPolicies().Create(t.Context(), &admissionv1.ValidatingAdmissionPolicy{
			ObjectMeta: metav1.ObjectMeta{Name: "noted"},
			Spec: admissionv1.ValidatingAdmissionPolicySpec{
				MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
					Operations: []admissionv1.OperationType{admissionv1.Create},
					Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}},
				}}}},
				Validations:      []admissionv1.Validation{{Expression: "object.metadata.name != 'odd'", Message: "an odd name"}},
				AuditAnnotations: []admissionv1.AuditAnnotation{{Key: "name", ValueExpression: "'it is ' + object.metadata.name"}},
			},
		}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := policies.ValidatingAdmissionPolicyBindings().Create(t.Context(), &admissionv1.ValidatingAdmissionPolicyBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "noted"},
			Spec:       admissionv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: "noted", ValidationActions: []admissionv1.ValidationAction{admissionv1.Audit}},
		}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Client.CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "odd"}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	})
	e := find(t, events, "ResponseComplete", "create", "configmaps", "odd")
	if e.Annotations["noted/name"] != "it is odd" || !strings.Contains(e.Annotations["validation.policy.admission.k8s.io/validation_failure"], "an odd name") {
		t.Errorf("annotations %v", e.Annotations)
	}
}

// TestAuditBodies: a policy that asks for them gets bodies that are JSON, and
// the beginning of watches.
func TestAuditBodies(t *testing.T) {
	policy, err := audit.ParsePolicy([]byte(`{apiVersion: audit.k8s.io/v1, kind: Policy, omitManagedFields: true, rules: [
		{level: RequestResponse, resources: [{resources: [configmaps]}], users: [admin]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	events, _ := audited(t, policy, func(c *testcluster.Cluster) {
		cfg := c.Admin()
		cfg.ContentType, cfg.AcceptContentTypes = "application/json", "application/json"
		client := kubernetes.NewForConfigOrDie(cfg).CoreV1().ConfigMaps("default")
		if _, err := client.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Data: map[string]string{"k": "v"}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		w, err := client.Watch(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		w.Stop()
		if _, err := c.Client.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "r"}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	})
	e := find(t, events, "ResponseComplete", "create", "configmaps", "a")
	if e.ObjectRef.UID == "" {
		t.Error("the object made has no UID")
	}
	if e.RequestObject == nil || !strings.Contains(string(e.RequestObject.Raw), `"k":"v"`) {
		t.Errorf("request: %v", e.RequestObject)
	}
	if e.ResponseObject == nil || !strings.Contains(string(e.ResponseObject.Raw), `"resourceVersion"`) || strings.Contains(string(e.ResponseObject.Raw), "managedFields") {
		t.Errorf("response: %v", e.ResponseObject)
	}
	find(t, events, "RequestReceived", "create", "configmaps", "")
	if e := find(t, events, "ResponseStarted", "watch", "configmaps", ""); e.ResponseStatus.Code != 200 {
		t.Errorf("watch: %+v", e.ResponseStatus)
	}
	for _, e := range events {
		if e.ObjectRef.Resource != "configmaps" {
			t.Errorf("the policy says nothing of %+v", e.ObjectRef)
		}
	}
}
