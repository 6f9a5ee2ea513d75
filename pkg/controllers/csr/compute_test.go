package csr

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/pki"
)

var now = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func request(signer string, age time.Duration, conditions ...certificatesv1.RequestConditionType) *certificatesv1.CertificateSigningRequest {
	r := &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.Time{Time: now.Add(-age)}},
		Spec:       certificatesv1.CertificateSigningRequestSpec{SignerName: signer},
	}
	for _, c := range conditions {
		r.Status.Conditions = append(r.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
			Type: c, Status: corev1.ConditionTrue, LastUpdateTime: metav1.Time{Time: now.Add(-age)},
		})
	}
	return r
}

func TestNext(t *testing.T) {
	node, other := pki.SignerAPIServerClientKubelet, "example.org/signer"
	issued := request(node, 10*time.Minute, certificatesv1.CertificateApproved)
	issued.Status.Certificate = []byte("a certificate")
	expired := request(node, 10*time.Minute, certificatesv1.CertificateApproved)
	expired.Status.Certificate = certificate(t, now)
	for _, tc := range []struct {
		name string
		r    *certificatesv1.CertificateSigningRequest
		want step
		wait time.Duration
	}{
		{"a node's", request(node, 0), approve, 2 * time.Second},
		{"a node's that nobody may approve", request(node, 40*time.Minute), approve, 10 * time.Minute},
		{"a node's server's", request(pki.SignerKubeletServing, 0), approve, 2 * time.Second},
		{"a node's that ends before the next look", request(node, 24*time.Hour-time.Second), approve, time.Second},
		{"a human decides about others", request(pki.SignerAPIServerClient, time.Hour), rest, 23 * time.Hour},
		{"approved", request(other, time.Minute, certificatesv1.CertificateApproved), sign, 24*time.Hour - time.Minute},
		{"denied wins over approved", request(node, time.Minute, certificatesv1.CertificateApproved, certificatesv1.CertificateDenied), rest, 59 * time.Minute},
		{"failed", request(node, time.Minute, certificatesv1.CertificateApproved, certificatesv1.CertificateFailed), rest, 59 * time.Minute},
		{"issued", issued, rest, 50 * time.Minute},
		{"approved and not issued for a day", request(other, 24*time.Hour, certificatesv1.CertificateApproved), remove, 0},
		{"expired", expired, remove, 0},
		{"decided long ago", request(node, time.Hour, certificatesv1.CertificateDenied), remove, 0},
		{"pending for a day", request(other, 24*time.Hour), remove, 0},
	} {
		if got, wait := next(tc.r, now); got != tc.want || wait != tc.wait {
			t.Errorf("%s: step %v in %v, want %v in %v", tc.name, got, wait, tc.want, tc.wait)
		}
	}
}

// certificate is one that ends at a time.
func certificate(t *testing.T, end time.Time) []byte {
	t.Helper()
	ca, err := pki.NewCA("test", 0, end.Add(-time.Hour), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.Issue(pki.Request{CommonName: "x", ClientAuth: true, Lifetime: time.Hour}, end.Add(-time.Hour), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return pair.CertPEM
}

// TestPosing: with a token nobody becomes a node that is there.
func TestPosing(t *testing.T) {
	for status, want := range map[corev1.ConditionStatus]bool{corev1.ConditionTrue: true, corev1.ConditionFalse: false, corev1.ConditionUnknown: false, "": false} {
		n := node("a")
		if status != "" {
			n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeMemoryPressure, Status: corev1.ConditionTrue}, {Type: corev1.NodeReady, Status: status}}
		}
		if got := posing(n) != ""; got != want {
			t.Errorf("ready is %q: refused %v, want %v", status, got, want)
		}
	}
}

func TestPermissions(t *testing.T) {
	csr := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:a"}}
	r := request(pki.SignerAPIServerClientKubelet, 0)
	r.Spec.Username = "system:node:a"
	if got := permissions(r, csr); len(got) != 2 || got[0].subresource != "selfnodeclient" {
		t.Errorf("a node asking for itself needs one of %v", got)
	}
	r.Spec.Username = "system:node:b"
	if got := permissions(r, csr); len(got) != 1 || got[0].subresource != "nodeclient" {
		t.Errorf("somebody else needs one of %v, want nodeclient", got)
	}
}
