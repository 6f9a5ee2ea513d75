package pki

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// EncryptionFile is the name of the file in a folder of keys that says how
// values are encrypted at rest: an EncryptionConfiguration, as kube-apiserver
// reads it.
const EncryptionFile = "encryption.yaml"

// EncryptionConfiguration is apiserver.config.k8s.io/v1's.
type EncryptionConfiguration struct {
	APIVersion string               `json:"apiVersion"`
	Kind       string               `json:"kind"`
	Resources  []EncryptedResources `json:"resources"`
}

// EncryptedResources are resources that are kept alike: RESOURCE,
// RESOURCE.GROUP, *.GROUP or *.*.
type EncryptedResources struct {
	Resources []string             `json:"resources"`
	Providers []EncryptionProvider `json:"providers"`
}

// EncryptionProvider is one way to keep a value; exactly one field is set.
type EncryptionProvider struct {
	AESGCM    *EncryptionKeys `json:"aesgcm,omitempty"`
	Secretbox *EncryptionKeys `json:"secretbox,omitempty"`
	Identity  *struct{}       `json:"identity,omitempty"`
}

// EncryptionKeys are the keys of one provider, of which the first one writes.
type EncryptionKeys struct {
	Keys []EncryptionKey `json:"keys"`
}

// EncryptionKey is one key. Secret is encoded in base64.
type EncryptionKey struct {
	Name   string `json:"name"`
	Secret []byte `json:"secret"`
}

const (
	encryptionAPIVersion = "apiserver.config.k8s.io/v1"
	encryptionKind       = "EncryptionConfiguration"
	// maxEncryptionBytes bounds what is read of a configuration.
	maxEncryptionBytes = 1 << 20
	// keptKeys is how many keys a rotation leaves in the file: the present one,
	// the one before, with which backups and the store's history are read, and
	// one more for what was being written when that one came.
	keptKeys = 3
	// secretBytes is the size of a key of AES-256.
	secretBytes = 32
)

// ParseEncryption reads an EncryptionConfiguration. Unknown fields, which may
// be providers that are not offered, are errors.
func ParseEncryption(data []byte) (*EncryptionConfiguration, error) {
	if len(data) > maxEncryptionBytes {
		return nil, fmt.Errorf("the encryption configuration is larger than %d bytes", maxEncryptionBytes)
	}
	cfg := &EncryptionConfiguration{}
	if err := yaml.UnmarshalStrict(data, cfg); err != nil {
		return nil, fmt.Errorf("the encryption configuration cannot be read (providers are aesgcm, secretbox and identity, secrets are base64): %s", withoutSecrets(err))
	}
	if cfg.Kind != encryptionKind || cfg.APIVersion != encryptionAPIVersion {
		return nil, fmt.Errorf("the encryption configuration is %q %q, want apiVersion %s and kind %s", cfg.APIVersion, cfg.Kind, encryptionAPIVersion, encryptionKind)
	}
	for i, r := range cfg.Resources {
		if len(r.Resources) == 0 || len(r.Providers) == 0 {
			return nil, fmt.Errorf("resources[%d] of the encryption configuration needs resources and providers", i)
		}
		for j, p := range r.Providers {
			if set := p.set(); set != 1 {
				return nil, fmt.Errorf("resources[%d].providers[%d] of the encryption configuration has %d providers, want one of aesgcm, secretbox and identity", i, j, set)
			}
			if p.Identity == nil && p.keys() == 0 {
				return nil, fmt.Errorf("resources[%d].providers[%d] of the encryption configuration has no key", i, j)
			}
		}
	}
	return cfg, nil
}

func (p *EncryptionProvider) set() int {
	n := 0
	for _, is := range []bool{p.AESGCM != nil, p.Secretbox != nil, p.Identity != nil} {
		if is {
			n++
		}
	}
	return n
}

func (p *EncryptionProvider) keys() int {
	n := 0
	for _, k := range []*EncryptionKeys{p.AESGCM, p.Secretbox} {
		if k != nil {
			n += len(k.Keys)
		}
	}
	return n
}

// withoutSecrets is the kind of mistake without the text around it, which may
// be a key.
func withoutSecrets(err error) string {
	var corrupt base64.CorruptInputError
	if errors.As(err, &corrupt) {
		return "a secret is not base64"
	}
	if _, field, ok := strings.Cut(err.Error(), "unknown field "); ok {
		return "unknown field " + field
	}
	return "it is not YAML of the right form"
}

// LoadOrCreateEncryption returns the content of the file, which is made for
// Secrets with a fresh key when it does not exist.
func LoadOrCreateEncryption(path string, rand io.Reader) ([]byte, error) {
	var data []byte
	err := locked(filepath.Dir(path), func() error {
		var err error
		if data, err = readKey(path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		cfg := &EncryptionConfiguration{APIVersion: encryptionAPIVersion, Kind: encryptionKind, Resources: []EncryptedResources{{
			Resources: []string{"secrets"}, Providers: []EncryptionProvider{{AESGCM: &EncryptionKeys{}}, {Identity: &struct{}{}}},
		}}}
		if err := cfg.addKey(rand); err != nil {
			return err
		}
		if data, err = yaml.Marshal(cfg); err != nil {
			return err
		}
		return WriteFile(path, data, 0o600)
	})
	if err != nil {
		return nil, fmt.Errorf("encryption configuration %s: %w", path, err)
	}
	return data, nil
}

// RotateEncryption puts a fresh key in front of those in the file, unless the
// rotation before is still under way: then there is nothing to add, and begun
// is false. A rotation is under way until EncryptionDone says otherwise.
func RotateEncryption(path string, rand io.Reader) (begun bool, err error) {
	err = locked(filepath.Dir(path), func() error {
		data, err := readKey(path)
		if err != nil {
			return err
		}
		if done, err := encryptionDone(path, data); err != nil || !done {
			return err
		}
		cfg, err := ParseEncryption(data)
		if err != nil {
			return err
		}
		if err := cfg.addKey(rand); err != nil {
			return err
		}
		if data, err = yaml.Marshal(cfg); err != nil {
			return err
		}
		begun = true
		return WriteFile(path, data, 0o600)
	})
	if err != nil {
		return false, fmt.Errorf("encryption configuration %s: %w", path, err)
	}
	return begun, nil
}

// addKey puts a fresh key in front of the first provider of each entry, which
// must be aesgcm.
func (c *EncryptionConfiguration) addKey(rand io.Reader) error {
	for i := range c.Resources {
		keys := c.Resources[i].Providers[0].AESGCM
		if keys == nil {
			return fmt.Errorf("the first provider of resources[%d] is not aesgcm: rotate its keys by hand", i)
		}
		number := 0
		for _, k := range keys.Keys {
			if n, err := strconv.Atoi(strings.TrimPrefix(k.Name, "key")); err == nil {
				number = max(number, n)
			}
		}
		secret := make([]byte, secretBytes)
		if _, err := io.ReadFull(rand, secret); err != nil {
			return err
		}
		fresh := EncryptionKey{Name: "key" + strconv.Itoa(number+1), Secret: secret}
		keys.Keys = append([]EncryptionKey{fresh}, keys.Keys[:min(len(keys.Keys), keptKeys-1)]...)
	}
	return nil
}

// doneFile is beside the configuration and says for which one all values have
// been rewritten.
func doneFile(path string) string { return path + ".done" }

func encryptionDigest(data []byte) []byte {
	sum := sha256.Sum256(data)
	return []byte(hex.EncodeToString(sum[:]) + "\n")
}

// MarkEncryptionDone notes that all values are as this content of the file says.
func MarkEncryptionDone(path string, data []byte) error {
	if done, err := encryptionDone(path, data); err == nil && done {
		return nil
	}
	return WriteFile(doneFile(path), encryptionDigest(data), 0o600)
}

// EncryptionDone says whether all values are as the file says now.
func EncryptionDone(path string) (bool, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return false, err
	}
	return encryptionDone(path, data)
}

func encryptionDone(path string, data []byte) (bool, error) {
	done, err := os.ReadFile(doneFile(path))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && bytes.Equal(done, encryptionDigest(data)), err
}
