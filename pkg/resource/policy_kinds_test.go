package resource

import (
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestWebhooks(t *testing.T) {
	type config = admissionv1.ValidatingWebhookConfiguration
	r := validatingWebhookConfigurations()
	testCreate(t, r, []change[*config]{
		{"name", func(c *config) { c.Webhooks[0].Name = "guard" }, errs("Invalid webhooks[0].name")},
		{"name twice", func(c *config) { c.Webhooks = append(c.Webhooks, c.Webhooks[0]) }, errs("Duplicate webhooks[1].name")},
		{"no side effects", func(c *config) { c.Webhooks[0].SideEffects = nil }, errs("Required webhooks[0].sideEffects")},
		{"side effects", func(c *config) { c.Webhooks[0].SideEffects = new(admissionv1.SideEffectClassSome) }, errs("NotSupported webhooks[0].sideEffects")},
		{"no versions", func(c *config) { c.Webhooks[0].AdmissionReviewVersions = nil }, errs("Required webhooks[0].admissionReviewVersions")},
		{"unknown versions", func(c *config) { c.Webhooks[0].AdmissionReviewVersions = []string{"v9"} }, errs("Invalid webhooks[0].admissionReviewVersions")},
		{"both ways", func(c *config) { c.Webhooks[0].ClientConfig.URL = new("https://x") }, errs("Required webhooks[0].clientConfig")},
		{"plain http", func(c *config) {
			c.Webhooks[0].ClientConfig = admissionv1.WebhookClientConfig{URL: new("http://x")}
		}, errs("Invalid webhooks[0].clientConfig.url")},
		{"timeout", func(c *config) { c.Webhooks[0].TimeoutSeconds = new(int32(31)) }, errs("Invalid webhooks[0].timeoutSeconds")},
		{"operations", func(c *config) { c.Webhooks[0].Rules[0].Operations = nil }, errs("Required webhooks[0].rules[0].operations")},
		{"operation", func(c *config) { c.Webhooks[0].Rules[0].Operations[0] = "READ" }, errs("NotSupported webhooks[0].rules[0].operations[0]")},
		{"star and more", func(c *config) { c.Webhooks[0].Rules[0].APIGroups = []string{"*", "apps"} }, errs("Invalid webhooks[0].rules[0].apiGroups")},
		{"condition", func(c *config) { c.Webhooks[0].MatchConditions[0].Expression = " " }, errs("Required webhooks[0].matchConditions[0].expression")},
	})
	testCreate(t, mutatingWebhookConfigurations(), []change[*admissionv1.MutatingWebhookConfiguration]{
		{"reinvocation", func(c *admissionv1.MutatingWebhookConfiguration) {
			c.Webhooks[0].ReinvocationPolicy = new(admissionv1.ReinvocationPolicyType("Often"))
		}, errs("NotSupported webhooks[0].reinvocationPolicy")},
	})
	old := created(t, r).(*config)
	c := old.DeepCopy()
	c.Webhooks[0].FailurePolicy = new(admissionv1.Ignore)
	r.Prepare(c, old)
	if old.Generation != 1 || c.Generation != 2 {
		t.Errorf("generations %d and %d, want 1 and 2", old.Generation, c.Generation)
	}
}

func TestAdmissionPolicies(t *testing.T) {
	type policy = admissionv1.ValidatingAdmissionPolicy
	testCreate(t, validatingAdmissionPolicies(), []change[*policy]{
		{"no match", func(p *policy) { p.Spec.MatchConstraints = nil }, errs("Required spec.matchConstraints")},
		{"no rules", func(p *policy) { p.Spec.MatchConstraints.ResourceRules = nil }, errs("Required spec.matchConstraints.resourceRules")},
		{"nothing to do", func(p *policy) { p.Spec.Validations = nil }, errs("Required spec.validations")},
		{"reason", func(p *policy) { p.Spec.Validations[0].Reason = new(metav1.StatusReasonConflict) }, errs("NotSupported spec.validations[0].reason")},
		{"param kind", func(p *policy) { p.Spec.ParamKind.Kind = "" }, errs("Required spec.paramKind.kind")},
		{"variable twice", func(p *policy) { p.Spec.Variables = append(p.Spec.Variables, p.Spec.Variables[0]) }, errs("Duplicate spec.variables[1].name")},
	})
	type binding = admissionv1.ValidatingAdmissionPolicyBinding
	testCreate(t, validatingAdmissionPolicyBindings(), []change[*binding]{
		{"no policy", func(b *binding) { b.Spec.PolicyName = "" }, errs("Required spec.policyName")},
		{"no actions", func(b *binding) { b.Spec.ValidationActions = nil }, errs("Required spec.validationActions")},
		{"deny and warn", func(b *binding) { b.Spec.ValidationActions[1] = admissionv1.Warn }, errs("Invalid spec.validationActions")},
		{"no param name", func(b *binding) { b.Spec.ParamRef.Name = "" }, errs("Required spec.paramRef")},
	})
	type mutating = admissionv1.MutatingAdmissionPolicy
	testCreate(t, mutatingAdmissionPolicies(), []change[*mutating]{
		{"no mutations", func(p *mutating) { p.Spec.Mutations = nil }, errs("Required spec.mutations")},
		{"other patch", func(p *mutating) { p.Spec.Mutations[0].PatchType = "JSONPatch" },
			errs("Required spec.mutations[0].jsonPatch.expression", "Forbidden spec.mutations[0].applyConfiguration")},
	})
}

func TestTrust(t *testing.T) {
	type bundle = certificatesv1.ClusterTrustBundle
	testCreate(t, clusterTrustBundles(), []change[*bundle]{
		{"other name", func(b *bundle) { b.Name = "main" }, errs("Invalid metadata.name")},
		{"no anchor", func(b *bundle) { b.Spec.TrustBundle = "x" }, errs("Invalid spec.trustBundle")},
		{"anchor twice", func(b *bundle) { b.Spec.TrustBundle += b.Spec.TrustBundle }, errs("Invalid spec.trustBundle")},
	})
	type request = certificatesv1.PodCertificateRequest
	testCreate(t, podCertificateRequests(), []change[*request]{
		{"no pod", func(r *request) { r.Spec.PodName = "" }, errs("Invalid spec.podName")},
		{"time", func(r *request) { r.Spec.MaxExpirationSeconds = new(int32(60)) }, errs("Invalid spec.maxExpirationSeconds")},
		{"stub", func(r *request) { r.Spec.StubPKCS10Request[20] ^= 1 }, errs("Invalid spec.stubPKCS10Request")},
	})
}
