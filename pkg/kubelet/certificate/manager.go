// Package certificate gets the certificates of a node's agent and renews them
// while the agent runs: a Manager asks the API server for one by a
// CertificateSigningRequest, keeps it in a file and in a pki.Live, from which TLS
// takes it at the next handshake; a Transport goes over to a new client
// certificate without cutting off what is under way.
//
// Guarantees:
//
//   - A certificate and its key are one file, readable by its owner only and
//     replaced whole: after a crash it is the old one or the new one.
//   - The one in force stays in force until the next is written, whatever the API
//     server answers.
//   - A new key for each certificate. While one is waited for, its key is in a
//     file, so that an agent that is restarted goes on waiting for the same.
package certificate

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"

	"coracle/pkg/pki"
)

const (
	// lookEvery is the time between two looks at what is wanted, which may change,
	// and at the clock, which may be set.
	lookEvery = time.Minute
	// waitFor bounds one wait for a certificate; the request itself stays, and the
	// next wait is for the same.
	waitFor = 15 * time.Minute
	// A failed attempt is repeated after firstRetry, the next after twice that, and
	// so on up to lastRetry.
	firstRetry = 2 * time.Second
	lastRetry  = 5 * time.Minute
	// askAgain is the least time between two renewals because of the authority.
	askAgain = 5 * time.Minute
)

// Config says which certificate is wanted, and where it is kept.
type Config struct {
	// Dir and Name give the file, DIR/NAME-current.pem.
	Dir, Name string
	// Signer and Usages are those of the request.
	Signer string
	Usages []certificatesv1.KeyUsage
	// Want is the subject and the names; nil as long as they are not known.
	// Required.
	Want func() *x509.CertificateRequest
	// Lifetime asks for a shorter life than the signer's own; 0 does not.
	Lifetime time.Duration
	// Client speaks to the API server as somebody who may ask. It is called for
	// each attempt, with the certificate in force, nil when that is none or has
	// expired. Required.
	Client func(current *x509.Certificate) (kubernetes.Interface, error)
	// Seed is a certificate that came from elsewhere; it is used, and renewed, as
	// long as no better one is in the file. May be nil.
	Seed *pki.Pair
	// Live receives each certificate. Required.
	Live *pki.Live
	// Authorities are those of the cluster, the one that signs first: a certificate
	// of another of them, which is being replaced, is renewed. Nil knows none.
	Authorities func() []*x509.Certificate

	Clock clock.WithTicker // the real clock if nil
	Rand  io.Reader        // crypto/rand if nil
	Log   *slog.Logger     // nil discards
}

// Manager keeps one certificate. Make it with New.
type Manager struct {
	cfg   Config
	store store
	ready chan struct{} // closed when Live holds a certificate
	once  sync.Once     // closes ready
	look  chan struct{} // has one when somebody wants the next step now
	// asked is when a certificate was last renewed because of its authority; of Run.
	asked time.Time
}

// New reads the certificate that is there, if one is, and puts it into Live. It
// makes no request.
func New(cfg Config) (*Manager, error) {
	if cfg.Dir == "" || cfg.Name == "" || cfg.Want == nil || cfg.Client == nil || cfg.Live == nil {
		return nil, errors.New("certificate: Dir, Name, Want, Client and Live are required")
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Log = cfg.Log.With("certificate", cfg.Name)
	m := &Manager{cfg: cfg, store: store{cfg.Dir, cfg.Name}, ready: make(chan struct{}), look: make(chan struct{}, 1)}
	stored, err := m.store.load()
	if err != nil {
		// A new one takes the place of a damaged one.
		cfg.Log.Error("the stored certificate cannot be used", "error", err)
	}
	var authorities []*x509.Certificate
	if cfg.Authorities != nil {
		authorities = cfg.Authorities()
	}
	if p := better(stored, cfg.Seed, cfg.Want(), authorities, cfg.Clock.Now()); p != nil {
		if err := cfg.Live.Set(p.CertPEM, p.KeyPEM); err != nil {
			return nil, err
		}
		m.once.Do(func() { close(m.ready) })
	}
	return m, nil
}

// Ready is closed as soon as there is a certificate.
func (m *Manager) Ready() <-chan struct{} { return m.ready }

// Look has Run see at once whether a certificate is due.
func (m *Manager) Look() {
	select {
	case m.look <- struct{}{}:
	default:
	}
}

// Run gets and renews the certificate until ctx ends. An API server that does not
// answer, or refuses, is asked again.
func (m *Manager) Run(ctx context.Context) error {
	failures := 0
	for ctx.Err() == nil {
		wait, err := m.step(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			m.cfg.Log.Error("no new certificate yet", "error", err)
			wait = min(firstRetry<<min(failures, 10), lastRetry)
			failures++
		default:
			failures = 0
		}
		t := m.cfg.Clock.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-t.C():
		case <-m.look:
		}
		t.Stop()
	}
	return nil
}

// step gets a certificate if one is due and says when to look again.
func (m *Manager) step(ctx context.Context) (time.Duration, error) {
	want := m.cfg.Want()
	if want == nil {
		return firstRetry, nil
	}
	now := m.cfg.Clock.Now()
	why, rest := due(m.cfg.Live.Leaf(), want, now)
	if why == "" && m.replaced(now) {
		why = "its authority is being replaced"
	}
	if why == "" {
		return min(rest, lookEvery), nil
	}
	m.cfg.Log.Info("asking for a certificate", "reason", why)
	if err := m.renew(ctx, want); err != nil {
		return 0, err
	}
	m.once.Do(func() { close(m.ready) })
	m.cfg.Log.Info("a new certificate is in force", "until", m.cfg.Live.Leaf().NotAfter)
	return 0, nil
}

// replaced says whether the certificate is of an authority that signs no more. An
// API server that goes on signing with it is not asked again at once.
func (m *Manager) replaced(now time.Time) bool {
	if m.cfg.Authorities == nil || now.Sub(m.asked) < askAgain || !outmoded(m.cfg.Live.Leaf(), m.cfg.Authorities()) {
		return false
	}
	m.asked = now
	return true
}
