package auth

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"k8s.io/utils/clock"
)

// maxVerified bounds the memory of verified certificates; past it the memory
// starts anew.
const maxVerified = 4096

// uidOID is the subject attribute by which a certificate names its user's UID.
var uidOID = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57683, 2}

// ClientCertificates knows users by the client certificate of their TLS
// connection: the common name is the user, the organizations are the groups.
// Its zero value is unusable: Roots must be set.
type ClientCertificates struct {
	// Roots returns the authorities whose certificates are believed. It is
	// called for each request; a new pool drops all that was verified with the
	// old one. Nil means that nobody is believed.
	Roots func() *x509.CertPool
	// Clock defaults to the system's.
	Clock clock.PassiveClock

	mu sync.Mutex
	// pool is what verified was made with; both guarded by mu.
	pool     *x509.CertPool
	verified map[string]verifiedCert // by the certificate's bytes
}

// verifiedCert is the user of a certificate that chained up to a root, until
// the first certificate of that chain expires.
type verifiedCert struct {
	user     *User
	from, to time.Time
}

// Authenticate implements Authenticator. A certificate that verifies but has
// no common name is nobody's.
func (c *ClientCertificates) Authenticate(_ context.Context, r *http.Request) (*User, bool, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return nil, false, nil
	}
	leaf := r.TLS.PeerCertificates[0]
	u, err := c.user(leaf, r.TLS.PeerCertificates[1:])
	if err != nil {
		return nil, false, err
	}
	return u, u != nil, nil
}

func (c *ClientCertificates) user(leaf *x509.Certificate, rest []*x509.Certificate) (*User, error) {
	pool := c.Roots()
	if pool == nil {
		return nil, nil
	}
	now := c.now()
	// The bytes themselves are the key: to look them up costs a fraction of a
	// cryptographic hash on each request.
	if v, ok := c.known(pool, leaf.Raw); ok && !now.Before(v.from) && !now.After(v.to) {
		return v.user, nil
	}
	v, err := verifyClient(leaf, rest, pool, now)
	if err != nil {
		return nil, err
	}
	if leaf.Subject.CommonName != "" {
		v.user = certificateUser(leaf)
	}
	c.remember(pool, leaf.Raw, v)
	return v.user, nil
}

func (c *ClientCertificates) now() time.Time {
	if c.Clock == nil {
		return clock.RealClock{}.Now()
	}
	return c.Clock.Now()
}

func (c *ClientCertificates) known(pool *x509.CertPool, raw []byte) (verifiedCert, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pool != pool {
		return verifiedCert{}, false
	}
	v, ok := c.verified[string(raw)]
	return v, ok
}

func (c *ClientCertificates) remember(pool *x509.CertPool, raw []byte, v verifiedCert) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pool != pool || c.verified == nil || len(c.verified) >= maxVerified {
		c.pool, c.verified = pool, map[string]verifiedCert{}
	}
	c.verified[string(raw)] = v
}

// verifyClient checks that the leaf was issued for client authentication by
// one of the roots, and returns the span of time in which that stays true.
func verifyClient(leaf *x509.Certificate, rest []*x509.Certificate, roots *x509.CertPool, now time.Time) (verifiedCert, error) {
	opts := x509.VerifyOptions{
		Roots:         roots,
		Intermediates: x509.NewCertPool(),
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		CurrentTime:   now,
	}
	for _, cert := range rest {
		opts.Intermediates.AddCert(cert)
	}
	chains, err := leaf.Verify(opts)
	if err != nil {
		return verifiedCert{}, fmt.Errorf("verifying client certificate %q with serial number %v: %w", leaf.Subject.CommonName, leaf.SerialNumber, err)
	}
	v := verifiedCert{from: leaf.NotBefore, to: leaf.NotAfter}
	for _, cert := range chains[0] {
		if cert.NotBefore.After(v.from) {
			v.from = cert.NotBefore
		}
		if cert.NotAfter.Before(v.to) {
			v.to = cert.NotAfter
		}
	}
	return v, nil
}

func certificateUser(leaf *x509.Certificate) *User {
	sum := sha256.Sum256(leaf.Raw)
	u := &User{
		Name:   leaf.Subject.CommonName,
		Groups: slices.Clone(leaf.Subject.Organization),
		Extra:  map[string][]string{ExtraCredentialID: {"X509SHA256=" + hex.EncodeToString(sum[:])}},
	}
	for _, name := range leaf.Subject.Names {
		if uid, ok := name.Value.(string); ok && name.Type.Equal(uidOID) {
			u.UID = uid
		}
	}
	return u
}
