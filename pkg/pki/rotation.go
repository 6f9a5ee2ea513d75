package pki

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Phase is how far the replacement of an authority has come.
type Phase string

// The phases, in their order. Each is reached from the one before by one step,
// which replaces one small file, so that a crash leaves one or the other.
const (
	// Steady is that of an authority that is not being replaced.
	Steady Phase = ""
	// Trusting has made the new authority: both are trusted, the old one signs.
	Trusting Phase = "trust"
	// Issuing has both trusted, and the new one sign.
	Issuing Phase = "issue"
	// finishing is Issuing with the old authority given up, until the files of
	// the new one have taken their places.
	finishing Phase = "finish"
)

// Authorities are the authority of a name, and during its replacement both. They
// are immutable.
type Authorities struct {
	// Signer signs.
	Signer *CA
	// Trusted are all that are to be trusted, Signer's first.
	Trusted []*x509.Certificate
	// Cross is the new authority's certificate as the old one signs it, in PEM,
	// while the new one signs: who shows it after a certificate of the new one is
	// known to those who only know the old. Nil otherwise.
	Cross []byte
	Phase Phase
}

// Names of the authorities in a cluster's folder of keys.
const (
	// ClusterCA is that of clients and of what they reach.
	ClusterCA = "ca"
	// FrontProxyCA is that of servers that vouch for users.
	FrontProxyCA = "front-proxy-ca"
)

// Bundle is all that are to be trusted, in PEM, the one that signs first.
func (a *Authorities) Bundle() []byte {
	var out bytes.Buffer
	for _, c := range a.Trusted {
		out.Write(encodeCert(c.Raw))
	}
	return out.Bytes()
}

// nextName is that of the new authority's files, phaseFile where the phase is,
// crossFile the certificate of Cross.
func nextName(name string) string { return name + "-next" }

func phaseFile(dir, name string) string { return filepath.Join(dir, name+"-rotation") }

func crossFile(dir, name string) string { return CertFile(dir, nextName(name)+"-cross") }

// AuthorityFiles are all files that LoadAuthorities reads, of which only the first
// two are always there.
func AuthorityFiles(dir, name string) []string {
	return []string{CertFile(dir, name), KeyFile(dir, name), CertFile(dir, nextName(name)), KeyFile(dir, nextName(name)), crossFile(dir, name), phaseFile(dir, name)}
}

// LoadAuthorities is LoadOrCreateCA for an authority that may be being replaced.
func LoadAuthorities(dir, name, commonName string, now time.Time, rand io.Reader) (*Authorities, error) {
	var out *Authorities
	err := locked(dir, func() error {
		var err error
		out, err = loadAuthorities(dir, name, commonName, now, rand)
		return err
	})
	return out, err
}

func loadAuthorities(dir, name, commonName string, now time.Time, rand io.Reader) (*Authorities, error) {
	phase, err := readPhase(dir, name)
	if err != nil {
		return nil, err
	}
	if phase == finishing {
		if err := finish(dir, name); err != nil {
			return nil, err
		}
		phase = Steady
	}
	old, err := loadOrCreateCA(dir, name, commonName, now, rand)
	if err != nil {
		return nil, err
	}
	if phase == Steady {
		return &Authorities{Signer: old, Trusted: []*x509.Certificate{old.Cert}}, nil
	}
	next, err := loadCA(dir, nextName(name))
	if err != nil {
		return nil, err
	}
	if phase == Trusting {
		return &Authorities{Signer: old, Trusted: []*x509.Certificate{old.Cert, next.Cert}, Phase: phase}, nil
	}
	cross, err := os.ReadFile(crossFile(dir, name))
	if err != nil {
		return nil, err
	}
	return &Authorities{Signer: next, Trusted: []*x509.Certificate{next.Cert, old.Cert}, Cross: cross, Phase: phase}, nil
}

func readPhase(dir, name string) (Phase, error) {
	data, err := os.ReadFile(phaseFile(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return Steady, nil
	}
	if err != nil {
		return "", err
	}
	switch p := Phase(strings.TrimSpace(string(data))); p {
	case Trusting, Issuing, finishing:
		return p, nil
	}
	return "", fmt.Errorf("%s does not say how far the replacement of the authority is: it must be %s, %s or %s", phaseFile(dir, name), Trusting, Issuing, finishing)
}

// Rotate takes the replacement of an authority to a phase: from Steady to
// Trusting, from there to Issuing, and from there to Steady again, and does nothing
// when it is there. Any other step is an error.
func Rotate(dir, name string, to Phase, now time.Time, rand io.Reader) error {
	return locked(dir, func() error {
		at, err := loadAuthorities(dir, name, name, now, rand)
		if err != nil {
			return err
		}
		switch {
		case at.Phase == to:
			return nil
		case at.Phase == Steady && to == Trusting:
			return begin(dir, name, at.Signer, now, rand)
		case at.Phase == Trusting && to == Issuing:
			return writePhase(dir, name, Issuing)
		case at.Phase == Issuing && to == Steady:
			if err := writePhase(dir, name, finishing); err != nil {
				return err
			}
			return finish(dir, name)
		}
		return fmt.Errorf("the authority %s cannot go from phase %q to %q", CertFile(dir, name), at.Phase, to)
	})
}

func writePhase(dir, name string, p Phase) error {
	return WriteFile(phaseFile(dir, name), []byte(p+"\n"), 0o600)
}

// begin makes the new authority. What an attempt before has left is nobody's.
func begin(dir, name string, old *CA, now time.Time, rand io.Reader) error {
	// Another name, so that the two are told apart wherever only names are shown.
	base, _, _ := strings.Cut(old.Cert.Subject.CommonName, "@")
	next, err := createCA(dir, nextName(name), base+"@"+now.UTC().Format("2006-01-02T15:04:05Z"), now, rand)
	if err != nil {
		return err
	}
	cross, err := old.crossSign(next, now, rand)
	if err != nil {
		return err
	}
	if err := WriteFile(crossFile(dir, name), encodeCert(cross), 0o644); err != nil {
		return err
	}
	return writePhase(dir, name, Trusting)
}

// crossSign is the certificate of another authority that this one vouches for, as
// long as both last.
func (c *CA) crossSign(other *CA, now time.Time, rand io.Reader) ([]byte, error) {
	serial, err := newSerial(rand)
	if err != nil {
		return nil, err
	}
	template := *other.Cert
	template.SerialNumber = serial
	template.NotBefore = latest(now.Add(-backdate).UTC(), c.Cert.NotBefore)
	if c.Cert.NotAfter.Before(template.NotAfter) {
		template.NotAfter = c.Cert.NotAfter
	}
	template.AuthorityKeyId = nil // of this one's key
	der, err := x509.CreateCertificate(rand, &template, c.Cert, other.Key.Public(), c.Key)
	if err != nil {
		return nil, fmt.Errorf("signing the new authority with the old: %w", err)
	}
	return der, nil
}

// finish puts the new authority into the place of the old one, again if it was
// interrupted.
func finish(dir, name string) error {
	next := nextName(name)
	certPEM, err := os.ReadFile(CertFile(dir, next))
	if err == nil {
		var keyPEM []byte
		if keyPEM, err = os.ReadFile(KeyFile(dir, next)); err == nil {
			if _, err := ParseCA(certPEM, keyPEM); err != nil {
				return fmt.Errorf("authority %s: %w", CertFile(dir, next), err)
			}
			if err := WriteFile(KeyFile(dir, name), keyPEM, 0o600); err != nil {
				return err
			}
			if err := WriteFile(CertFile(dir, name), certPEM, 0o644); err != nil {
				return err
			}
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Both were there until they had been copied.
	for _, file := range []string{CertFile(dir, next), KeyFile(dir, next), crossFile(dir, name), phaseFile(dir, name)} {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return syncDir(dir)
}
