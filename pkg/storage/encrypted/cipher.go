package encrypted

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/nacl/secretbox"
)

// Cipher is how values are encrypted.
type Cipher string

// The ciphers, by their names in stored values.
const (
	// AESGCM is AES in Galois counter mode with a random nonce; the storage key
	// is authenticated. Keys have 16, 24 or 32 bytes.
	AESGCM Cipher = "aesgcm"
	// Secretbox is XSalsa20 with Poly1305. Keys have 32 bytes.
	Secretbox Cipher = "secretbox"
)

// box encrypts and decrypts with one key.
type box interface {
	// seal appends the nonce, which it takes from rand, and the ciphertext.
	seal(dst, plain []byte, key string, rand io.Reader) ([]byte, error)
	open(sealed []byte, key string) ([]byte, error)
	// overhead is by how much a sealed value is longer.
	overhead() int
}

var errForged = errors.New("it has been damaged, was stored for another object, or was encrypted with another key of this name")

func newBox(c Cipher, secret []byte) (box, error) {
	switch c {
	case AESGCM:
		block, err := aes.NewCipher(secret)
		if err != nil {
			return nil, fmt.Errorf("a key of %d bytes: %s takes 16, 24 or 32", len(secret), c)
		}
		aead, err := cipher.NewGCM(block)
		return gcm{aead}, err
	case Secretbox:
		if len(secret) != 32 {
			return nil, fmt.Errorf("a key of %d bytes: %s takes 32", len(secret), c)
		}
		return &salsa{[32]byte(secret)}, nil
	}
	return nil, fmt.Errorf("unknown cipher %q: use %s or %s", c, AESGCM, Secretbox)
}

type gcm struct{ aead cipher.AEAD }

func (g gcm) overhead() int { return g.aead.NonceSize() + g.aead.Overhead() }

func (g gcm) seal(dst, plain []byte, key string, rand io.Reader) ([]byte, error) {
	var nonce [12]byte
	if _, err := io.ReadFull(rand, nonce[:]); err != nil {
		return nil, err
	}
	return g.aead.Seal(append(dst, nonce[:]...), nonce[:], plain, []byte(key)), nil
}

func (g gcm) open(sealed []byte, key string) ([]byte, error) {
	n := g.aead.NonceSize()
	if len(sealed) < g.overhead() {
		return nil, errForged
	}
	plain, err := g.aead.Open(make([]byte, 0, len(sealed)-g.overhead()), sealed[:n], sealed[n:], []byte(key))
	if err != nil {
		return nil, errForged
	}
	return plain, nil
}

type salsa struct{ secret [32]byte }

func (s *salsa) overhead() int { return 24 + secretbox.Overhead }

func (s *salsa) seal(dst, plain []byte, _ string, rand io.Reader) ([]byte, error) {
	var nonce [24]byte
	if _, err := io.ReadFull(rand, nonce[:]); err != nil {
		return nil, err
	}
	return secretbox.Seal(append(dst, nonce[:]...), plain, &nonce, &s.secret), nil
}

func (s *salsa) open(sealed []byte, _ string) ([]byte, error) {
	if len(sealed) < s.overhead() {
		return nil, errForged
	}
	plain, ok := secretbox.Open(make([]byte, 0, len(sealed)-s.overhead()), sealed[24:], (*[24]byte)(sealed), &s.secret)
	if !ok {
		return nil, errForged
	}
	return plain, nil
}
