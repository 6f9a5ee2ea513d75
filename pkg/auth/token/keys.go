package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"

	"coracle/pkg/pki"
)

// publicKey is a key that tokens may be signed with, and how.
type publicKey struct {
	id        string
	algorithm jose.SignatureAlgorithm
	key       crypto.PublicKey
}

// KeySet is the public keys whose tokens are believed. It is immutable.
type KeySet struct {
	keys []publicKey
}

// NewKeySet returns a set of ECDSA and RSA keys, at least one. A key given
// twice counts once.
func NewKeySet(keys ...crypto.PublicKey) (*KeySet, error) {
	s := &KeySet{}
	for _, key := range keys {
		p, err := newPublicKey(key)
		if err != nil {
			return nil, err
		}
		if !s.has(p.id) {
			s.keys = append(s.keys, p)
		}
	}
	if len(s.keys) == 0 {
		return nil, errors.New("service account tokens need at least one public key")
	}
	return s, nil
}

// ParseKeySet reads the keys of PEM files as --service-account-key-file names
// them: public keys, certificates or private keys, several in each.
func ParseKeySet(files ...[]byte) (*KeySet, error) {
	var all []crypto.PublicKey
	for _, data := range files {
		keys, err := pki.ParsePublicKeys(data)
		if err != nil {
			return nil, err
		}
		all = append(all, keys...)
	}
	return NewKeySet(all...)
}

func (s *KeySet) has(id string) bool {
	for _, k := range s.keys {
		if k.id == id {
			return true
		}
	}
	return false
}

// candidates are the keys a token with this header may be signed with: those
// of its key id, all when it has none, and of them those whose algorithm is
// the token's.
func (s *KeySet) candidates(keyID, algorithm string) []publicKey {
	var out []publicKey
	for _, k := range s.keys {
		if (keyID == "" || k.id == keyID) && string(k.algorithm) == algorithm {
			out = append(out, k)
		}
	}
	return out
}

// algorithms are those of the set's keys.
func (s *KeySet) algorithms() []jose.SignatureAlgorithm {
	var out []jose.SignatureAlgorithm
	seen := map[jose.SignatureAlgorithm]bool{}
	for _, k := range s.keys {
		if !seen[k.algorithm] {
			seen[k.algorithm] = true
			out = append(out, k.algorithm)
		}
	}
	return out
}

func newPublicKey(key crypto.PublicKey) (publicKey, error) {
	algorithm, err := algorithmOf(key)
	if err != nil {
		return publicKey{}, err
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return publicKey{}, fmt.Errorf("encoding a public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return publicKey{id: base64.RawURLEncoding.EncodeToString(sum[:]), algorithm: algorithm, key: key}, nil
}

// algorithmOf pins the algorithm to the kind of key, so that the token's
// header has no say in it.
func algorithmOf(key crypto.PublicKey) (jose.SignatureAlgorithm, error) {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < 2048 {
			return "", fmt.Errorf("an RSA key of %d bits is too short for tokens: use 2048 or more", k.N.BitLen())
		}
		return jose.RS256, nil
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return jose.ES256, nil
		case elliptic.P384():
			return jose.ES384, nil
		case elliptic.P521():
			return jose.ES512, nil
		}
	}
	return "", fmt.Errorf("a key of type %T cannot sign tokens: use ECDSA P-256, P-384, P-521 or RSA", key)
}

// JWKS returns the set as a JSON Web Key Set, to be served at
// /openid/v1/jwks as application/jwk-set+json.
func (s *KeySet) JWKS() ([]byte, error) {
	var set jose.JSONWebKeySet
	for _, k := range s.keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.key, KeyID: k.id, Algorithm: string(k.algorithm), Use: "sig"})
	}
	return json.Marshal(set)
}

// Discovery returns the OpenID provider document of an issuer, to be served at
// /.well-known/openid-configuration as application/json.
func (s *KeySet) Discovery(issuer, jwksURI string) ([]byte, error) {
	return json.Marshal(struct {
		Issuer        string                    `json:"issuer"`
		JWKSURI       string                    `json:"jwks_uri"`
		ResponseTypes []string                  `json:"response_types_supported"`
		SubjectTypes  []string                  `json:"subject_types_supported"`
		Algorithms    []jose.SignatureAlgorithm `json:"id_token_signing_alg_values_supported"`
	}{issuer, jwksURI, []string{"id_token"}, []string{"public"}, s.algorithms()})
}
