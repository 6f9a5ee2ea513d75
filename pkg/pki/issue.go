package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"
)

// Request says what a certificate is for.
type Request struct {
	// CommonName and Organization are the user and its groups in a client
	// certificate.
	CommonName   string
	Organization []string
	// DNSNames and IPs are what a server is reached by.
	DNSNames []string
	IPs      []net.IP
	// ClientAuth and ServerAuth are what the certificate may be used for; at
	// least one.
	ClientAuth, ServerAuth bool
	// Lifetime defaults to DefaultLifetime; the authority's own end cuts it.
	Lifetime time.Duration
}

// Pair is a certificate with its key, as PEM. KeyPEM is a secret.
type Pair struct {
	CertPEM, KeyPEM []byte
	// Cert is what CertPEM holds.
	Cert *x509.Certificate
}

// Issue makes a key and a certificate for it.
func (c *CA) Issue(r Request, now time.Time, rand io.Reader) (*Pair, error) {
	if err := r.validate(); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand)
	if err != nil {
		return nil, fmt.Errorf("making a key for %q: %w", r.CommonName, err)
	}
	cert, err := c.sign(r.template(), key.Public(), r.Lifetime, now, rand)
	if err != nil {
		return nil, err
	}
	keyPEM, err := EncodePrivateKey(key)
	if err != nil {
		return nil, err
	}
	return &Pair{CertPEM: encodeCert(cert.Raw), KeyPEM: keyPEM, Cert: cert}, nil
}

func (r *Request) validate() error {
	if r.CommonName == "" {
		return errors.New("a certificate needs a common name")
	}
	if !r.ClientAuth && !r.ServerAuth {
		return fmt.Errorf("certificate %q is for neither clients nor servers: say which", r.CommonName)
	}
	if r.ServerAuth && len(r.DNSNames) == 0 && len(r.IPs) == 0 {
		return fmt.Errorf("serving certificate %q needs a DNS name or an address", r.CommonName)
	}
	return nil
}

func (r *Request) template() *x509.Certificate {
	t := &x509.Certificate{
		Subject:     pkix.Name{CommonName: r.CommonName, Organization: slices.Clone(r.Organization)},
		DNSNames:    slices.Clone(r.DNSNames),
		IPAddresses: slices.Clone(r.IPs),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: r.extUsages(),
	}
	return t
}

func (r *Request) extUsages() []x509.ExtKeyUsage {
	var u []x509.ExtKeyUsage
	if r.ServerAuth {
		u = append(u, x509.ExtKeyUsageServerAuth)
	}
	if r.ClientAuth {
		u = append(u, x509.ExtKeyUsageClientAuth)
	}
	return u
}

// sign completes the template with serial, validity and authority and signs
// it.
func (c *CA) sign(t *x509.Certificate, public crypto.PublicKey, lifetime time.Duration, now time.Time, rand io.Reader) (*x509.Certificate, error) {
	if now.After(c.Cert.NotAfter) {
		return nil, fmt.Errorf("authority %q ended at %s: renew it first", c.Cert.Subject.CommonName, c.Cert.NotAfter.Format(time.RFC3339))
	}
	if lifetime <= 0 {
		lifetime = DefaultLifetime
	}
	serial, err := newSerial(rand)
	if err != nil {
		return nil, err
	}
	t.SerialNumber = serial
	t.NotBefore = latest(now.Add(-backdate).UTC(), c.Cert.NotBefore)
	t.NotAfter = now.Add(lifetime).UTC()
	if t.NotAfter.After(c.Cert.NotAfter) {
		t.NotAfter = c.Cert.NotAfter
	}
	t.BasicConstraintsValid = true
	t.IsCA = false
	der, err := x509.CreateCertificate(rand, t, c.Cert, public, c.Key)
	if err != nil {
		return nil, fmt.Errorf("signing the certificate of %q: %w", t.Subject.CommonName, err)
	}
	return x509.ParseCertificate(der)
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
