package csr

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"

	"coracle/pkg/pki"
)

// How long requests stay after they have been dealt with, or not.
const (
	keepDecided = time.Hour
	keepPending = 24 * time.Hour
)

// step is what happens to a request next.
type step int

const (
	rest    step = iota // nothing, until wait has passed
	approve             // ask whether its sender may have it, then approve
	sign
	remove
)

// next decides the step for r.
func next(r *certificatesv1.CertificateSigningRequest, now time.Time) (step, time.Duration) {
	if left := lifetime(r, now); left <= 0 {
		return remove, 0
	} else if s := decide(r); s != rest {
		return s, left
	} else {
		return rest, left
	}
}

func decide(r *certificatesv1.CertificateSigningRequest) step {
	switch {
	case has(r, certificatesv1.CertificateDenied), has(r, certificatesv1.CertificateFailed), len(r.Status.Certificate) > 0:
		return rest
	case has(r, certificatesv1.CertificateApproved):
		return sign
	case r.Spec.SignerName == pki.SignerAPIServerClientKubelet:
		return approve
	}
	return rest
}

// lifetime is how much longer r is kept.
func lifetime(r *certificatesv1.CertificateSigningRequest, now time.Time) time.Duration {
	end := r.CreationTimestamp.Add(keepPending)
	for _, c := range r.Status.Conditions {
		if t := c.LastUpdateTime.Add(keepDecided); !c.LastUpdateTime.IsZero() && t.Before(end) {
			end = t
		}
	}
	if expires, ok := expiry(r.Status.Certificate); ok && expires.Before(end) {
		end = expires
	}
	return end.Sub(now)
}

// expiry reads when the issued certificate ends.
func expiry(data []byte) (time.Time, bool) {
	block, _ := pem.Decode(data)
	if block == nil {
		return time.Time{}, false
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return time.Time{}, false
	}
	return cert.NotAfter, true
}

func has(r *certificatesv1.CertificateSigningRequest, t certificatesv1.RequestConditionType) bool {
	return slices.ContainsFunc(r.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool {
		return c.Type == t && c.Status == corev1.ConditionTrue
	})
}

// permission is the subresource of certificatesigningrequests that a sender
// must be allowed to create for a node's certificate: its own, when it is that
// node, else any node's.
func permission(r *certificatesv1.CertificateSigningRequest, csr *x509.CertificateRequest) []string {
	if csr.Subject.CommonName == r.Spec.Username {
		return []string{"selfnodeclient", "nodeclient"}
	}
	return []string{"nodeclient"}
}

// parse reads r's request and says why it cannot be signed, if so.
func parse(r *certificatesv1.CertificateSigningRequest) (*x509.CertificateRequest, error) {
	csr, err := pki.ParseCSR(r.Spec.Request)
	if err != nil {
		return nil, err
	}
	if err := pki.CheckCSR(r.Spec.SignerName, csr, usages(r)); err != nil {
		return nil, err
	}
	return csr, nil
}

func usages(r *certificatesv1.CertificateSigningRequest) []string {
	out := make([]string, len(r.Spec.Usages))
	for i, u := range r.Spec.Usages {
		out[i] = string(u)
	}
	return out
}

// signed reports whether this cluster signs for the signer at all.
func signed(signer string) bool { return strings.HasPrefix(signer, "kubernetes.io/") }

func failure(err error) certificatesv1.CertificateSigningRequestCondition {
	return certificatesv1.CertificateSigningRequestCondition{
		Type: certificatesv1.CertificateFailed, Status: corev1.ConditionTrue,
		Reason: "SignerValidationFailure", Message: fmt.Sprintf("The request cannot be signed: %v", err),
	}
}
