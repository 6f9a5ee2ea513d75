package certificate

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"coracle/pkg/pki"
)

// maxFile bounds what is read of a file.
const maxFile = 1 << 20

// store is the files of one certificate.
type store struct{ dir, name string }

// File is where the current certificate and its key are kept by a Manager of this
// directory and name.
func File(dir, name string) string { return filepath.Join(dir, name+"-current.pem") }

// pending is the key of the certificate that is being waited for.
func (s store) pending() string { return filepath.Join(s.dir, s.name+"-pending.key") }

// load reads the current pair, nil when there is none.
func (s store) load() (*pki.Pair, error) {
	data, err := read(File(s.dir, s.name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	pair, err := pki.ParsePair(data, data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", File(s.dir, s.name), err)
	}
	return pair, nil
}

// save replaces the current pair. The key is not used for another certificate.
func (s store) save(pair *pki.Pair) error {
	data := bytes.Join([][]byte{pair.CertPEM, pair.KeyPEM}, nil)
	if err := pki.WriteFile(File(s.dir, s.name), data, 0o600); err != nil {
		return err
	}
	return s.forget()
}

// forget drops the key of a request that has ended.
func (s store) forget() error {
	if err := os.Remove(s.pending()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// pendingKey returns the key of the request that is under way, or a new one. A
// key that has its certificate already, after a crash in save, is not taken.
func (s store) pendingKey(rand io.Reader) (crypto.Signer, []byte, error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, nil, err
	}
	if data, err := read(s.pending()); err == nil && !s.used(data) {
		if key, err := pki.ParsePrivateKey(data); err == nil {
			return key, data, nil
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand)
	if err != nil {
		return nil, nil, err
	}
	data, err := pki.EncodePrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return key, data, pki.WriteFile(s.pending(), data, 0o600)
}

// used says that a key is that of the current certificate.
func (s store) used(keyPEM []byte) bool {
	pair, err := s.load()
	if err != nil || pair == nil {
		return false
	}
	_, err = pki.ParsePair(pair.CertPEM, keyPEM)
	return err == nil
}

func read(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes", name, maxFile)
	}
	return data, err
}
