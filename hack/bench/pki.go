package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// identities are the keys of one run: all servers show the same certificate,
// all load is sent by the same user.
type identities struct {
	caFile, certFile, keyFile string

	pool  *x509.CertPool
	bench tls.Certificate // user bench, whom RBAC lets in
	admin tls.Certificate // group system:masters, who lets bench in
	// Who must not notice a flood of bench's: another user, a node, and the
	// controllers.
	other, node, manager tls.Certificate
}

// Names of who is there beside a flood.
const (
	otherUser = "other"
	floodNode = "node-of-the-flood"
)

// newIdentities writes a fresh authority and a serving certificate below dir.
func newIdentities(dir string) (*identities, error) {
	ca, caKey, err := issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: "bench"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil, nil)
	if err != nil {
		return nil, err
	}
	id := &identities{
		caFile: filepath.Join(dir, "ca.crt"), certFile: filepath.Join(dir, "server.crt"), keyFile: filepath.Join(dir, "server.key"),
		pool: x509.NewCertPool(),
	}
	id.pool.AddCert(ca)
	server, serverKey, err := issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: "server"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
	}, ca, caKey)
	if err != nil {
		return nil, err
	}
	for _, user := range []struct {
		into *tls.Certificate
		name pkix.Name
	}{
		{&id.bench, pkix.Name{CommonName: "bench", Organization: []string{"bench"}}},
		{&id.admin, pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}}},
		{&id.other, pkix.Name{CommonName: otherUser}},
		{&id.node, pkix.Name{CommonName: "system:node:" + floodNode, Organization: []string{"system:nodes"}}},
		{&id.manager, pkix.Name{CommonName: "system:kube-controller-manager"}},
	} {
		cert, key, err := issue(&x509.Certificate{Subject: user.name, KeyUsage: x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, ca, caKey)
		if err != nil {
			return nil, err
		}
		*user.into = tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
	}
	key, err := x509.MarshalECPrivateKey(serverKey)
	if err != nil {
		return nil, err
	}
	for file, block := range map[string]*pem.Block{
		id.caFile:   {Type: "CERTIFICATE", Bytes: ca.Raw},
		id.certFile: {Type: "CERTIFICATE", Bytes: server.Raw},
		id.keyFile:  {Type: "EC PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			return nil, err
		}
	}
	return id, nil
}

// issue makes a certificate that is valid for a day, signed by the authority
// or, without one, by itself.
func issue(template *x509.Certificate, ca *x509.Certificate, caKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		return nil, nil, err
	}
	now := time.Now()
	template.NotBefore, template.NotAfter = now.Add(-time.Hour), now.Add(24*time.Hour)
	if ca == nil {
		ca, caKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, &key.PublicKey, caKey)
	if err != nil {
		return nil, nil, fmt.Errorf("issue a certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	return cert, key, err
}

// client is a TLS configuration of one user.
func (id *identities) client(user tls.Certificate) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: id.pool, ServerName: "localhost",
		Certificates: []tls.Certificate{user}, NextProtos: []string{"h2"}}
}
