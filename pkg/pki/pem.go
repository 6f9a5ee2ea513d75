package pki

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
)

// maxPEM bounds what is parsed as PEM.
const maxPEM = 1 << 20

// ParseCertificates reads all certificates of a PEM file, at least one. Blocks
// of other kinds are passed over.
func ParseCertificates(data []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	err := eachBlock(data, func(b *pem.Block) error {
		if b.Type != "CERTIFICATE" {
			return nil
		}
		cert, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return fmt.Errorf("certificate %d of the PEM data: %w", len(certs)+1, err)
		}
		certs = append(certs, cert)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("certificate: %w", errNoPEM)
	}
	return certs, nil
}

// ParsePrivateKey reads the first private key of a PEM file, in any of the
// forms PKCS #8, SEC 1 and PKCS #1.
func ParsePrivateKey(data []byte) (crypto.Signer, error) {
	var key crypto.Signer
	err := eachBlock(data, func(b *pem.Block) error {
		if key != nil {
			return nil
		}
		var parsed any
		var err error
		switch b.Type {
		case "PRIVATE KEY":
			parsed, err = x509.ParsePKCS8PrivateKey(b.Bytes)
		case "EC PRIVATE KEY":
			parsed, err = x509.ParseECPrivateKey(b.Bytes)
		case "RSA PRIVATE KEY":
			parsed, err = x509.ParsePKCS1PrivateKey(b.Bytes)
		default:
			return nil
		}
		if err != nil {
			return fmt.Errorf("private key: %w", err)
		}
		signer, ok := parsed.(crypto.Signer)
		if !ok {
			return fmt.Errorf("a private key of type %T cannot sign", parsed)
		}
		key = signer
		return nil
	})
	if err != nil {
		return nil, err
	}
	if key == nil {
		return nil, fmt.Errorf("private key: %w", errNoPEM)
	}
	return key, nil
}

// ParsePublicKeys reads all public keys of a PEM file: those given as such,
// and those of the certificates and private keys in it. There is at least one.
func ParsePublicKeys(data []byte) ([]crypto.PublicKey, error) {
	var keys []crypto.PublicKey
	err := eachBlock(data, func(b *pem.Block) error {
		key, err := blockPublicKey(b)
		if err != nil {
			return fmt.Errorf("public key %d of the PEM data: %w", len(keys)+1, err)
		}
		if key != nil {
			keys = append(keys, key)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("public key: %w", errNoPEM)
	}
	return keys, nil
}

// blockPublicKey returns nil for a block that holds no key.
func blockPublicKey(b *pem.Block) (crypto.PublicKey, error) {
	switch b.Type {
	case "PUBLIC KEY":
		return x509.ParsePKIXPublicKey(b.Bytes)
	case "RSA PUBLIC KEY":
		return x509.ParsePKCS1PublicKey(b.Bytes)
	case "CERTIFICATE":
		cert, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, err
		}
		return cert.PublicKey, nil
	case "PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY":
		key, err := ParsePrivateKey(pem.EncodeToMemory(b))
		if err != nil {
			return nil, err
		}
		return key.Public(), nil
	default:
		return nil, nil
	}
}

// EncodePrivateKey returns the key as PKCS #8 PEM: a secret.
func EncodePrivateKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding a private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func eachBlock(data []byte, f func(*pem.Block) error) error {
	if len(data) > maxPEM {
		return fmt.Errorf("PEM data of %d bytes is too large: at most %d are read", len(data), maxPEM)
	}
	for {
		var b *pem.Block
		if b, data = pem.Decode(data); b == nil {
			return nil
		}
		if err := f(b); err != nil {
			return err
		}
	}
}
