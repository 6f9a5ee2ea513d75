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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
	approve             // see whether its sender may have it, then approve
	sign
	remove
)

// forever is the wait of a request that nothing is going to happen to.
const forever = time.Duration(1<<63 - 1)

// next decides the step for r, and when to look at it again at the latest.
func next(r *certificatesv1.CertificateSigningRequest, now time.Time) (step, time.Duration) {
	left := lifetime(r, now)
	if left <= 0 {
		return remove, 0
	}
	what := decide(r)
	if what == approve {
		return what, min(left, patience(now.Sub(r.CreationTimestamp.Time)))
	}
	return what, left
}

// patience is how long a request that nobody may have approved yet rests before
// it is looked at again: its node may get its addresses, its sender a role. The
// older, the longer.
func patience(age time.Duration) time.Duration {
	return min(max(age/4, 2*time.Second), 15*time.Minute)
}

func decide(r *certificatesv1.CertificateSigningRequest) step {
	switch {
	case has(r, certificatesv1.CertificateDenied), has(r, certificatesv1.CertificateFailed), len(r.Status.Certificate) > 0:
		return rest
	case has(r, certificatesv1.CertificateApproved):
		return sign
	case r.Spec.SignerName == pki.SignerAPIServerClientKubelet, r.Spec.SignerName == pki.SignerKubeletServing:
		return approve
	}
	return rest
}

// lifetime is how much longer r is kept. What was approved and waits for its
// certificate gets as long as what nobody has looked at.
func lifetime(r *certificatesv1.CertificateSigningRequest, now time.Time) time.Duration {
	left := forever
	until := func(from metav1.Time, keep time.Duration) {
		if !from.IsZero() {
			left = min(left, from.Add(keep).Sub(now))
		}
	}
	if len(r.Status.Conditions) == 0 {
		until(r.CreationTimestamp, keepPending)
	}
	issued := len(r.Status.Certificate) > 0
	for _, c := range r.Status.Conditions {
		if c.Type == certificatesv1.CertificateApproved && !issued {
			until(c.LastUpdateTime, keepPending)
			continue
		}
		until(c.LastUpdateTime, keepDecided)
		if end, ok := expiry(r.Status.Certificate); ok && c.Type == certificatesv1.CertificateApproved {
			until(metav1.Time{Time: end}, 0)
		}
	}
	return left
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

// permission is a subresource of certificatesigningrequests that a sender may be
// allowed to create for a node's client certificate, and what the approval says.
type permission struct{ subresource, message string }

// permissions are those of which r's sender needs one: that for its own
// certificate, when it is that node, else that for any node's.
func permissions(r *certificatesv1.CertificateSigningRequest, csr *x509.CertificateRequest) []permission {
	any := permission{"nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview."}
	if csr.Subject.CommonName == r.Spec.Username {
		return []permission{{"selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview."}, any}
	}
	return []permission{any}
}

// posing says why nobody with a bootstrap token becomes this node, or "". A node
// that is there renews its certificate under the one that it has; whoever comes
// with a token and asks for its name is another machine. One that has lost its
// certificate is not ready for long, and can join again.
func posing(n *corev1.Node) string {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
			return "there is such a node, and it is ready: delete its Node object, or approve the request by hand, if this is the machine"
		}
	}
	return ""
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
