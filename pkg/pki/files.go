package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// CertFile and KeyFile are where a pair of this name lies in a directory.
func CertFile(dir, name string) string { return filepath.Join(dir, name+".crt") }

// KeyFile is where the key of a pair lies.
func KeyFile(dir, name string) string { return filepath.Join(dir, name+".key") }

// LoadOrCreateCA returns the authority <dir>/<name>.{crt,key} and makes it
// when its certificate does not exist. It never replaces an authority: a
// damaged or lost key is an error, since everything it has issued would be
// void with a new one.
func LoadOrCreateCA(dir, name, commonName string, now time.Time, rand io.Reader) (*CA, error) {
	var ca *CA
	err := locked(dir, func() error {
		var err error
		ca, err = loadOrCreateCA(dir, name, commonName, now, rand)
		return err
	})
	return ca, err
}

func loadOrCreateCA(dir, name, commonName string, now time.Time, rand io.Reader) (*CA, error) {
	ca, err := loadCA(dir, name)
	if errors.Is(err, errNoCA) {
		return createCA(dir, name, commonName, now, rand)
	}
	return ca, err
}

// errNoCA says that there is no certificate of an authority.
var errNoCA = errors.New("there is no such authority")

func loadCA(dir, name string) (*CA, error) {
	certPEM, err := os.ReadFile(CertFile(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", CertFile(dir, name), errNoCA)
	}
	if err != nil {
		return nil, err
	}
	keyPEM, err := readKey(KeyFile(dir, name))
	if err != nil {
		return nil, fmt.Errorf("the key of authority %s: %w", CertFile(dir, name), err)
	}
	ca, err := ParseCA(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("authority %s: %w", CertFile(dir, name), err)
	}
	return ca, nil
}

// createCA writes the key first: without a certificate beside it, it is
// nobody's and may be overwritten.
func createCA(dir, name, commonName string, now time.Time, rand io.Reader) (*CA, error) {
	ca, err := NewCA(commonName, 0, now, rand)
	if err != nil {
		return nil, err
	}
	keyPEM, err := ca.KeyPEM()
	if err != nil {
		return nil, err
	}
	if err := WriteFile(KeyFile(dir, name), keyPEM, 0o600); err != nil {
		return nil, err
	}
	return ca, WriteFile(CertFile(dir, name), ca.CertPEM(), 0o644)
}

// LoadOrCreate returns the pair <dir>/<name>.{crt,key} and issues it anew when
// it does not exist, is damaged, or is Outdated.
func LoadOrCreate(dir, name string, ca *CA, r Request, now time.Time, rand io.Reader) (*Pair, error) {
	var pair *Pair
	err := locked(dir, func() error {
		var err error
		if pair, err = loadPair(dir, name); err == nil && Outdated(now, pair.Cert, r, ca) == "" {
			return nil
		}
		if pair, err = ca.Issue(r, now, rand); err != nil {
			return err
		}
		if err := WriteFile(KeyFile(dir, name), pair.KeyPEM, 0o600); err != nil {
			return err
		}
		return WriteFile(CertFile(dir, name), pair.CertPEM, 0o644)
	})
	if err != nil {
		return nil, fmt.Errorf("certificate %s: %w", CertFile(dir, name), err)
	}
	return pair, nil
}

// loadPair fails when the two files are not of one pair, which a crash between
// their writes leaves behind.
func loadPair(dir, name string) (*Pair, error) {
	certPEM, err := os.ReadFile(CertFile(dir, name))
	if err != nil {
		return nil, err
	}
	keyPEM, err := readKey(KeyFile(dir, name))
	if err != nil {
		return nil, err
	}
	return ParsePair(certPEM, keyPEM)
}

// ParsePair reads a certificate, the first of the chain that it comes with, and its
// key. Both may be in the same data.
func ParsePair(certPEM, keyPEM []byte) (*Pair, error) {
	if _, err := tls.X509KeyPair(certPEM, keyPEM); err != nil {
		return nil, err
	}
	certs, err := ParseCertificates(certPEM)
	if err != nil {
		return nil, err
	}
	return &Pair{CertPEM: certPEM, KeyPEM: keyPEM, Cert: certs[0]}, nil
}

// LoadOrCreateKey returns the private key in the file and makes one when the
// file does not exist.
func LoadOrCreateKey(path string, rand io.Reader) (crypto.Signer, error) {
	var key crypto.Signer
	err := locked(filepath.Dir(path), func() error {
		data, err := readKey(path)
		if err == nil {
			key, err = ParsePrivateKey(data)
			return err
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand); err != nil {
			return err
		}
		if data, err = EncodePrivateKey(key); err != nil {
			return err
		}
		return WriteFile(path, data, 0o600)
	})
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", path, err)
	}
	return key, nil
}

// readKey reads a key and takes it away from everybody but its owner.
func readKey(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(path, 0o600); err != nil {
			return nil, fmt.Errorf("the key is readable by others and that cannot be changed: %w", err)
		}
	}
	return os.ReadFile(path)
}

// WriteFile replaces the file's content so that after a crash it is either the
// old or the new one, with the mode given from the first moment on.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if tmp != nil {
			_ = tmp.Close()
			_ = os.Remove(tmp.Name())
		}
	}()
	if err := tmp.Chmod(mode); err != nil {
		return err
	}
	if _, err := tmp.Write(data); err != nil {
		return err
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	err = tmp.Close()
	tmp = nil
	if err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// locked runs f with the directory, made if need be, locked against others
// that do the same, in this process or another.
func locked(dir string, f func() error) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("locking %s: %w", dir, err)
	}
	return f()
}
