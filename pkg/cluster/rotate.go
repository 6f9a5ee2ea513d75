package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"coracle/pkg/pki"
)

// rotateTimeout is how long the API server may take to rewrite all Secrets.
const rotateTimeout = 5 * time.Minute

// RotateKey gives a cluster a new key for what is encrypted at rest. When the
// control plane runs, it returns as all stored values are encrypted with it;
// else that is done at the next start. One that was interrupted is finished.
func (m *Machine) RotateKey(ctx context.Context, name string) error {
	b, unlock, err := m.open(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	running, err := b.controlPlaneRuns(ctx)
	if err != nil {
		return err
	}
	return b.rotateKey(ctx, m, running)
}

func (b *boot) rotateKey(ctx context.Context, m *Machine, running bool) error {
	file := b.f.control("pki", pki.EncryptionFile)
	begun, err := pki.RotateEncryption(file, rand.Reader)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cluster %s has no key yet: start it once with this version (%w)", b.s.Name, err)
	}
	if err != nil {
		return err
	}
	if !begun {
		fmt.Fprintf(m.out(), "A rotation of cluster %s is under way already and is finished first\n", b.s.Name)
	}
	if !running {
		fmt.Fprintf(m.out(), "Cluster %s is stopped: its Secrets are encrypted with the new key when it starts\n", b.s.Name)
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, rotateTimeout)
	defer cancel()
	if err := poll(ctx, func() (bool, error) { return pki.EncryptionDone(file) }); err != nil {
		return fmt.Errorf("the API server has not encrypted all Secrets with the new key yet: its log says why, and the command can be repeated (%w); the end of the log: %s",
			err, lastLines(b.f.apiserverLog(), 3))
	}
	fmt.Fprintf(m.out(), "The Secrets of cluster %s are encrypted with the new key\n", b.s.Name)
	return nil
}
