package csr

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"slices"
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
	for _, tc := range []struct {
		name string
		r    *certificatesv1.CertificateSigningRequest
		want step
		wait time.Duration
	}{
		{"a node's", request(node, 0), approve, 24 * time.Hour},
		{"a human decides about others", request(pki.SignerAPIServerClient, time.Hour), rest, 23 * time.Hour},
		{"approved", request(other, time.Minute, certificatesv1.CertificateApproved), sign, 59 * time.Minute},
		{"denied wins over approved", request(node, time.Minute, certificatesv1.CertificateApproved, certificatesv1.CertificateDenied), rest, 59 * time.Minute},
		{"failed", request(node, time.Minute, certificatesv1.CertificateApproved, certificatesv1.CertificateFailed), rest, 59 * time.Minute},
		{"issued", issued, rest, 50 * time.Minute},
		{"decided long ago", request(node, time.Hour, certificatesv1.CertificateDenied), remove, 0},
		{"pending for a day", request(other, 24*time.Hour), remove, 0},
	} {
		if got, wait := next(tc.r, now); got != tc.want || wait != tc.wait {
			t.Errorf("%s: step %v in %v, want %v in %v", tc.name, got, wait, tc.want, tc.wait)
		}
	}
}

func TestPermission(t *testing.T) {
	csr := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:a"}}
	r := request(pki.SignerAPIServerClientKubelet, 0)
	r.Spec.Username = "system:node:a"
	if got := permission(r, csr); !slices.Contains(got, "selfnodeclient") {
		t.Errorf("a node asking for itself needs one of %v", got)
	}
	r.Spec.Username = "system:node:b"
	if got := permission(r, csr); !slices.Equal(got, []string{"nodeclient"}) {
		t.Errorf("somebody else needs one of %v, want nodeclient", got)
	}
}
