package pki

import (
	"crypto/x509"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// Bundle is a bundle of authorities in PEM that may be replaced, of which those
// that follow it are told. Its methods are safe for concurrent use.
type Bundle struct {
	mu        sync.Mutex
	data      []byte   // guarded by mu, never changed in place
	followers []func() // guarded by mu
}

// NewBundle returns one that holds data.
func NewBundle(data []byte) *Bundle { return &Bundle{data: data} }

// Bytes is what it holds. It must not be changed.
func (b *Bundle) Bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data
}

// Set replaces what it holds.
func (b *Bundle) Set(data []byte) {
	b.mu.Lock()
	if string(b.data) == string(data) {
		b.mu.Unlock()
		return
	}
	b.data = data
	followers := b.followers
	b.mu.Unlock()
	for _, f := range followers {
		f()
	}
}

// Follow has f called after each change, by whoever makes it: f must not block.
func (b *Bundle) Follow(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.followers = append(b.followers[:len(b.followers):len(b.followers)], f)
}

// LiveCA is an authority that can be replaced while it signs. Make it with
// NewLiveCA. Its methods are safe for concurrent use.
type LiveCA struct {
	now  atomic.Pointer[Authorities]
	pool LivePool
}

// NewLiveCA returns one that begins with a.
func NewLiveCA(a *Authorities) *LiveCA {
	l := &LiveCA{}
	l.Set(a)
	return l
}

// FixedCA is an authority that is not replaced.
func FixedCA(ca *CA) *LiveCA {
	return NewLiveCA(&Authorities{Signer: ca, Trusted: []*x509.Certificate{ca.Cert}})
}

// Set replaces the authorities.
func (l *LiveCA) Set(a *Authorities) {
	pool := x509.NewCertPool()
	for _, c := range a.Trusted {
		pool.AddCert(c)
	}
	l.pool.pool.Store(pool)
	l.now.Store(a)
}

// Authorities are those of the moment.
func (l *LiveCA) Authorities() *Authorities { return l.now.Load() }

// Pool follows those that are trusted.
func (l *LiveCA) Pool() *LivePool { return &l.pool }

// SignCSR is that of the authority that signs.
func (l *LiveCA) SignCSR(signer string, csr *x509.CertificateRequest, usages []string, lifetime time.Duration, now time.Time, rand io.Reader) ([]byte, error) {
	return l.Authorities().Signer.SignCSR(signer, csr, usages, lifetime, now, rand)
}
