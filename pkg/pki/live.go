package pki

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Live is a certificate that can be replaced while TLS connections are made
// with it. Its zero value holds none. All methods are safe for concurrent use.
type Live struct {
	cert atomic.Pointer[tls.Certificate]
}

// Set replaces the certificate. A pair that does not fit together is an error
// and changes nothing.
func (l *Live) Set(certPEM, keyPEM []byte) error {
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return err
	}
	l.cert.Store(&cert)
	return nil
}

// Leaf returns the certificate itself, nil when there is none yet.
func (l *Live) Leaf() *x509.Certificate {
	if cert := l.cert.Load(); cert != nil {
		return cert.Leaf
	}
	return nil
}

// GetCertificate is for tls.Config of a server.
func (l *Live) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if cert := l.cert.Load(); cert != nil {
		return cert, nil
	}
	return nil, errors.New("there is no serving certificate yet")
}

// GetClientCertificate is for tls.Config of a client.
func (l *Live) GetClientCertificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	if cert := l.cert.Load(); cert != nil {
		return cert, nil
	}
	return new(tls.Certificate), nil
}

// LivePool is a set of authorities that can be replaced. Its zero value holds
// none, which trusts nobody. All methods are safe for concurrent use.
type LivePool struct {
	pool atomic.Pointer[x509.CertPool]
}

// Set replaces the authorities by those of a PEM bundle, at least one.
func (p *LivePool) Set(bundlePEM []byte) error {
	certs, err := ParseCertificates(bundlePEM)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	for _, c := range certs {
		pool.AddCert(c)
	}
	p.pool.Store(pool)
	return nil
}

// SetChanged is Set, but keeps the pool when it has these authorities already.
func (p *LivePool) SetChanged(bundlePEM []byte) error {
	certs, err := ParseCertificates(bundlePEM)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	for _, c := range certs {
		pool.AddCert(c)
	}
	if old := p.pool.Load(); old == nil || !old.Equal(pool) {
		p.pool.Store(pool)
	}
	return nil
}

// Pool returns the authorities, nil when there are none yet. The same pool is
// returned until the next Set.
func (p *LivePool) Pool() *x509.CertPool { return p.pool.Load() }

// ServerConfig returns the TLS configuration of a server that shows the
// certificate and asks clients for one of the authorities in clients (nil:
// does not ask). Client certificates are asked for, not checked: who shows
// none may have a token, and authentication checks those that are shown.
// Replaced certificates and authorities count from the next connection on.
func ServerConfig(cert *Live, clients *LivePool) *tls.Config {
	base := &tls.Config{
		MinVersion:     tls.VersionTLS12,
		CipherSuites:   aeadSuites(),
		GetCertificate: cert.GetCertificate,
		NextProtos:     []string{"h2", "http/1.1"},
	}
	if clients == nil {
		return base
	}
	base.ClientAuth = tls.RequestClientCert
	outer := base.Clone()
	outer.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		c := base.Clone()
		c.ClientCAs = clients.Pool()
		return c, nil
	}
	return outer
}

// aeadSuites are the TLS 1.2 suites with forward secrecy and authenticated
// encryption; those of TLS 1.3 all are.
func aeadSuites() []uint16 {
	return []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
		tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	}
}

// Keeper keeps a pair of files fresh and a Live up to date.
type Keeper struct {
	// Dir and Name say where the pair lies.
	Dir, Name string
	// CA issues it, Request says what for. Request is called at each check, so
	// that new names and addresses get into the certificate.
	CA      *LiveCA
	Request func() Request
	// Live receives each new pair, with what makes it known to those who only know
	// the authority that is being replaced.
	Live *Live
	// Renewed is called with each new pair, and when the authorities have changed,
	// before Live has it; one that it fails for is tried again at the next check.
	// May be nil.
	Renewed func(*Pair) error
	// Every is the time between checks, default one hour.
	Every time.Duration
	// Now defaults to time.Now.
	Now  func() time.Time
	Rand io.Reader
	// Log may be nil.
	Log *slog.Logger

	mu sync.Mutex
	// seen are the authorities of the last refresh; guarded by mu.
	seen *Authorities
}

// Refresh issues the pair if that is needed and puts it into Live. It is safe for
// concurrent use.
func (k *Keeper) Refresh() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now
	if k.Now != nil {
		now = k.Now
	}
	by := k.CA.Authorities()
	pair, err := LoadOrCreate(k.Dir, k.Name, by.Signer, k.Request(), now(), k.Rand)
	if err != nil {
		return err
	}
	if leaf := k.Live.Leaf(); leaf != nil && leaf.Equal(pair.Cert) && k.seen == by {
		return nil
	}
	pair.CertPEM = slices.Concat(pair.CertPEM, by.Cross)
	if k.Renewed != nil {
		if err := k.Renewed(pair); err != nil {
			return fmt.Errorf("certificate %s: %w", CertFile(k.Dir, k.Name), err)
		}
	}
	if err := k.Live.Set(pair.CertPEM, pair.KeyPEM); err != nil {
		return err
	}
	k.seen = by
	return nil
}

// Run refreshes until ctx ends. The first refresh is the caller's, since a
// server does not start without a certificate.
func (k *Keeper) Run(ctx context.Context) error {
	every := k.Every
	if every == 0 {
		every = time.Hour
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := k.Refresh(); err != nil && k.Log != nil {
				k.Log.Error("certificate not renewed", "name", k.Name, "err", err)
			}
		}
	}
}
