package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"
)

func newCSR(t testing.TB, key any, template x509.CertificateRequest) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &template, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestSignCSR(t *testing.T) {
	ca, key := newCA(t), newKey(t)
	client := []string{"digital signature", "key encipherment", "client auth"}
	server := []string{"digital signature", "server auth"}
	node := pkix.Name{CommonName: "system:node:n1", Organization: []string{"system:nodes"}}
	uri := &url.URL{Scheme: "spiffe", Host: "x"}
	ip := []net.IP{net.IPv4(10, 0, 0, 1)}
	for name, tc := range map[string]struct {
		signer string
		csr    x509.CertificateRequest
		usages []string
		err    string
	}{
		"client":                  {SignerAPIServerClient, x509.CertificateRequest{Subject: pkix.Name{CommonName: "ann", Organization: []string{"dev"}}}, client, ""},
		"client as master":        {SignerAPIServerClient, x509.CertificateRequest{Subject: pkix.Name{CommonName: "ann", Organization: []string{"dev", "system:masters"}}}, client, "system:masters"},
		"client for serving":      {SignerAPIServerClient, x509.CertificateRequest{Subject: pkix.Name{CommonName: "ann"}}, server, "usages must include"},
		"client with server auth": {SignerAPIServerClient, x509.CertificateRequest{Subject: pkix.Name{CommonName: "ann"}}, append([]string{"server auth"}, client...), "not one this signer gives"},
		"kubelet":                 {SignerAPIServerClientKubelet, x509.CertificateRequest{Subject: node}, client, ""},
		"kubelet with name":       {SignerAPIServerClientKubelet, x509.CertificateRequest{Subject: node, DNSNames: []string{"n1"}}, client, "subject alternative names"},
		"kubelet without group":   {SignerAPIServerClientKubelet, x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:n1"}}, client, "organization"},
		"kubelet in two groups":   {SignerAPIServerClientKubelet, x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:n1", Organization: []string{"system:nodes", "x"}}}, client, "organization"},
		"kubelet without prefix":  {SignerAPIServerClientKubelet, x509.CertificateRequest{Subject: pkix.Name{CommonName: "n1", Organization: []string{"system:nodes"}}}, client, "common name"},
		"kubelet without name":    {SignerAPIServerClientKubelet, x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:", Organization: []string{"system:nodes"}}}, client, "common name"},
		"serving":                 {SignerKubeletServing, x509.CertificateRequest{Subject: node, DNSNames: []string{"n1"}, IPAddresses: ip}, server, ""},
		"serving without names":   {SignerKubeletServing, x509.CertificateRequest{Subject: node}, server, "needs a DNS name"},
		"serving with URI":        {SignerKubeletServing, x509.CertificateRequest{Subject: node, DNSNames: []string{"n1"}, URIs: []*url.URL{uri}}, server, "URI"},
		"serving for clients":     {SignerKubeletServing, x509.CertificateRequest{Subject: node, DNSNames: []string{"n1"}}, client, "usages must include"},
		"legacy":                  {SignerLegacyUnknown, x509.CertificateRequest{Subject: pkix.Name{CommonName: "x"}}, []string{"server auth", "signing"}, ""},
		"authority":               {SignerLegacyUnknown, x509.CertificateRequest{Subject: pkix.Name{CommonName: "x"}}, []string{"cert sign"}, "unrecognized usage"},
		"other signer":            {"example.com/x", x509.CertificateRequest{Subject: pkix.Name{CommonName: "x"}}, client, "not one of the cluster's own"},
	} {
		t.Run(name, func(t *testing.T) {
			csr, err := ParseCSR(newCSR(t, key, tc.csr))
			if err != nil {
				t.Fatal(err)
			}
			certPEM, err := ca.SignCSR(tc.signer, csr, tc.usages, 0, start, rand.Reader)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) || CheckCSR(tc.signer, csr, tc.usages) == nil {
					t.Errorf("%v, want %q", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			certs, err := ParseCertificates(certPEM)
			if err != nil {
				t.Fatal(err)
			}
			cert := certs[0]
			if err := cert.CheckSignatureFrom(ca.Cert); err != nil {
				t.Error(err)
			}
			if cert.IsCA || !samePublic(cert.PublicKey, key.Public()) || cert.Subject.CommonName != tc.csr.Subject.CommonName || len(cert.DNSNames) != len(tc.csr.DNSNames) {
				t.Errorf("%+v", cert.Subject)
			}
		})
	}
}

func TestSignCSRLifetime(t *testing.T) {
	ca := newCA(t)
	csr, err := ParseCSR(newCSR(t, newKey(t), x509.CertificateRequest{Subject: pkix.Name{CommonName: "a"}}))
	if err != nil {
		t.Fatal(err)
	}
	for asked, want := range map[time.Duration]time.Duration{0: DefaultLifetime - backdate, time.Second: MinSignedLifetime, time.Hour: time.Hour, 2 * DefaultLifetime: DefaultLifetime - backdate} {
		certPEM, err := ca.SignCSR(SignerAPIServerClient, csr, []string{"client auth", "digital signature"}, asked, start, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		certs, err := ParseCertificates(certPEM)
		if err != nil || certs[0].NotAfter.Sub(start) != want {
			t.Errorf("asked %s: %v %v", asked, certs[0].NotAfter, err)
		}
	}
}

func TestParseCSRRefuses(t *testing.T) {
	key := newKey(t)
	good := newCSR(t, key, x509.CertificateRequest{Subject: pkix.Name{CommonName: "a"}})
	block, _ := pem.Decode(good)
	forged := bytes.Clone(block.Bytes)
	forged[len(forged)-1] ^= 1
	for name, data := range map[string][]byte{
		"nothing":         nil,
		"other block":     pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes}),
		"two blocks":      append(bytes.Clone(good), good...),
		"text after":      append(bytes.Clone(good), "x"...),
		"wrong signature": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: forged}),
		"too large":       bytes.Repeat([]byte("a"), maxPEM+1),
	} {
		if _, err := ParseCSR(data); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	weak, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 1023), E: 65537})
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.ParsePKIXPublicKey(weak)
	if err != nil {
		t.Fatal(err)
	}
	if checkKey(public) == nil {
		t.Error("a 1024 bit key is accepted")
	}
}

func FuzzCSR(f *testing.F) {
	ca := newCA(f)
	f.Add(newCSR(f, newKey(f), x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:a", Organization: []string{"system:nodes"}}}))
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		csr, err := ParseCSR(data)
		if err != nil {
			return
		}
		for _, signer := range []string{SignerAPIServerClient, SignerAPIServerClientKubelet, SignerKubeletServing, SignerLegacyUnknown} {
			certPEM, err := ca.SignCSR(signer, csr, []string{"client auth", "digital signature"}, 0, start, rand.Reader)
			if err != nil {
				continue
			}
			certs, err := ParseCertificates(certPEM)
			if err != nil || certs[0].IsCA {
				t.Errorf("%v: %v", certs, err)
			}
		}
	})
}

func FuzzPEM(f *testing.F) {
	ca := newCA(f)
	key, err := ca.KeyPEM()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ca.CertPEM())
	f.Add(key)
	f.Fuzz(func(t *testing.T, data []byte) {
		if certs, err := ParseCertificates(data); (err == nil) != (len(certs) > 0) {
			t.Error(certs, err)
		}
		if key, err := ParsePrivateKey(data); (err == nil) != (key != nil) {
			t.Error(key, err)
		}
		if keys, err := ParsePublicKeys(data); (err == nil) != (len(keys) > 0) {
			t.Error(keys, err)
		}
	})
}
