package certificate

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"net"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"

	"coracle/pkg/pki"
)

// renewAt is when a certificate is to be replaced: after 70 to 90 % of its life.
// Where in between follows from the certificate itself, so that the nodes of a
// cluster that were made together do not ask together, and a restart changes
// nothing.
func renewAt(cert *x509.Certificate) time.Time {
	sum := sha256.Sum256(cert.Raw)
	spread := float64(binary.BigEndian.Uint64(sum[:])) / math.MaxUint64
	life := cert.NotAfter.Sub(cert.NotBefore)
	return cert.NotBefore.Add(time.Duration(float64(life) * (0.7 + 0.2*spread)))
}

// unfit says why a certificate does not do for what is wanted, or "". One that is
// to be renewed does until it ends.
func unfit(cert *x509.Certificate, want *x509.CertificateRequest, now time.Time) string {
	switch {
	case cert == nil:
		return "there is none"
	case !now.Before(cert.NotAfter):
		return "it has expired"
	case want == nil:
		return ""
	case cert.Subject.CommonName != want.Subject.CommonName:
		return "it is another's"
	}
	for _, group := range want.Subject.Organization {
		if !slices.Contains(cert.Subject.Organization, group) {
			return "it lacks the group " + group
		}
	}
	for _, name := range want.DNSNames {
		if !slices.Contains(cert.DNSNames, name) {
			return "it lacks the name " + name
		}
	}
	for _, ip := range want.IPAddresses {
		if !slices.ContainsFunc(cert.IPAddresses, func(have net.IP) bool { return have.Equal(ip) }) {
			return "it lacks the address " + ip.String()
		}
	}
	return ""
}

// due says why a certificate is to be asked for, "" when it is not, and then how
// long the present one rests.
func due(cert *x509.Certificate, want *x509.CertificateRequest, now time.Time) (why string, rest time.Duration) {
	if why := unfit(cert, want, now); why != "" {
		return why, 0
	}
	if rest := renewAt(cert).Sub(now); rest > 0 {
		return "", rest
	}
	return "it is due for renewal", 0
}

// outmoded says whether a certificate is of one of the authorities, but not of the
// first, which signs now.
func outmoded(cert *x509.Certificate, authorities []*x509.Certificate) bool {
	if cert == nil || len(authorities) < 2 || cert.CheckSignatureFrom(authorities[0]) == nil {
		return false
	}
	return slices.ContainsFunc(authorities[1:], func(a *x509.Certificate) bool { return cert.CheckSignatureFrom(a) == nil })
}

// better is which of two certificates to begin with: one that does, and of two
// that do the one of the authority that signs now, which is the first of
// authorities, or the one that ends last. Either may be nil.
func better(a, b *pki.Pair, want *x509.CertificateRequest, authorities []*x509.Certificate, now time.Time) *pki.Pair {
	fits := func(p *pki.Pair) bool { return p != nil && unfit(p.Cert, want, now) == "" }
	switch {
	case !fits(b):
		if fits(a) {
			return a
		}
		return nil
	case !fits(a):
		return b
	}
	if len(authorities) > 0 {
		ofA, ofB := a.Cert.CheckSignatureFrom(authorities[0]) == nil, b.Cert.CheckSignatureFrom(authorities[0]) == nil
		if ofA != ofB {
			if ofA {
				return a
			}
			return b
		}
	}
	if a.Cert.NotAfter.Before(b.Cert.NotAfter) {
		return b
	}
	return a
}

// requestName follows from what is asked for with which key, so that an agent
// that was restarted while it waited finds its request again.
func requestName(signer string, csr *x509.CertificateRequest) string {
	sum := sha256.Sum256(append([]byte(signer+"\n"), csr.RawTBSCertificateRequest...))
	return "node-csr-" + hex.EncodeToString(sum[:16])
}

// outcome reads what became of a request: its certificate, or the error with
// which it ended; neither while it waits.
func outcome(r *certificatesv1.CertificateSigningRequest) ([]byte, error) {
	for _, c := range r.Status.Conditions {
		if c.Status == corev1.ConditionTrue && (c.Type == certificatesv1.CertificateDenied || c.Type == certificatesv1.CertificateFailed) {
			return nil, fmt.Errorf("%w: CertificateSigningRequest %s is %s: %s: %s", errRefused, r.Name, c.Type, c.Reason, c.Message)
		}
	}
	return r.Status.Certificate, nil
}
