package resource

import (
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
)

func TestWebhookGenerations(t *testing.T) {
	type config = admissionv1.ValidatingWebhookConfiguration
	r := validatingWebhookConfigurations()
	old := created(t, r).(*config)
	c := old.DeepCopy()
	c.Webhooks[0].FailurePolicy = new(admissionv1.Ignore)
	r.Prepare(c, old)
	if old.Generation != 1 || c.Generation != 2 {
		t.Errorf("generations %d and %d, want 1 and 2", old.Generation, c.Generation)
	}
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
