package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"time"
)

const (
	// DefaultCALifetime is that of an authority.
	DefaultCALifetime = 10 * 365 * 24 * time.Hour
	// DefaultLifetime is that of a certificate whose request says none.
	DefaultLifetime = 365 * 24 * time.Hour
	// backdate is how long before its issue a certificate is already valid, so
	// that machines whose clocks are behind accept it.
	backdate = 5 * time.Minute
)

// CA is a certificate authority with its key. It is immutable.
type CA struct {
	// Cert is the authority's own certificate.
	Cert *x509.Certificate
	// Key signs for it.
	Key crypto.Signer
}

// NewCA makes a self-signed authority that is valid for the lifetime, or
// DefaultCALifetime when that is zero.
func NewCA(commonName string, lifetime time.Duration, now time.Time, rand io.Reader) (*CA, error) {
	if lifetime == 0 {
		lifetime = DefaultCALifetime
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand)
	if err != nil {
		return nil, fmt.Errorf("making the key of authority %q: %w", commonName, err)
	}
	serial, err := newSerial(rand)
	if err != nil {
		return nil, err
	}
	id, err := keyID(key.Public())
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: commonName},
		NotBefore:             now.Add(-backdate).UTC(),
		NotAfter:              now.Add(lifetime).UTC(),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		SubjectKeyId:          id,
	}
	der, err := x509.CreateCertificate(rand, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("signing authority %q: %w", commonName, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &CA{Cert: cert, Key: key}, nil
}

// ParseCA reads an authority. It fails when the certificate is no authority's
// or the key is not its own.
func ParseCA(certPEM, keyPEM []byte) (*CA, error) {
	certs, err := ParseCertificates(certPEM)
	if err != nil {
		return nil, err
	}
	key, err := ParsePrivateKey(keyPEM)
	if err != nil {
		return nil, err
	}
	if !certs[0].IsCA {
		return nil, fmt.Errorf("certificate %q is not that of an authority", certs[0].Subject.CommonName)
	}
	if !samePublic(certs[0].PublicKey, key.Public()) {
		return nil, fmt.Errorf("the key does not belong to the certificate of authority %q", certs[0].Subject.CommonName)
	}
	return &CA{Cert: certs[0], Key: key}, nil
}

// CertPEM returns the authority's certificate.
func (c *CA) CertPEM() []byte { return encodeCert(c.Cert.Raw) }

// KeyPEM returns the authority's key: a secret.
func (c *CA) KeyPEM() ([]byte, error) { return EncodePrivateKey(c.Key) }

// Pool returns a pool with the authority alone.
func (c *CA) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(c.Cert)
	return p
}

func newSerial(rand io.Reader) (*big.Int, error) {
	// 127 bits: positive, and at most 20 bytes with its sign.
	b := make([]byte, 16)
	if _, err := io.ReadFull(rand, b); err != nil {
		return nil, fmt.Errorf("reading randomness for a serial number: %w", err)
	}
	b[0] &= 0x7f
	b[15] |= 1
	return new(big.Int).SetBytes(b), nil
}

func keyID(public crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("encoding a public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return sum[:20], nil
}

func samePublic(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

var errNoPEM = errors.New("no PEM block of the wanted kind")
