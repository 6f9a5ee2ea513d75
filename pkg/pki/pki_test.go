package pki

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func newCA(t testing.TB) *CA {
	t.Helper()
	ca, err := NewCA("test-ca", 0, start, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func TestIssue(t *testing.T) {
	ca := newCA(t)
	serving := Request{CommonName: "api", DNSNames: []string{"localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, ServerAuth: true}
	client := Request{CommonName: "ann", Organization: []string{"a", "b"}, ClientAuth: true, Lifetime: time.Hour}
	for name, tc := range map[string]struct {
		r     Request
		usage x509.ExtKeyUsage
		not   x509.ExtKeyUsage
		life  time.Duration
	}{
		"serving": {serving, x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth, DefaultLifetime},
		"client":  {client, x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := ca.Issue(tc.r, start, rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			verify := func(usage x509.ExtKeyUsage, at time.Time) error {
				_, err := p.Cert.Verify(x509.VerifyOptions{Roots: ca.Pool(), KeyUsages: []x509.ExtKeyUsage{usage}, CurrentTime: at})
				return err
			}
			if err := verify(tc.usage, start); err != nil {
				t.Error(err)
			}
			if err := verify(tc.usage, start.Add(-backdate)); err != nil {
				t.Errorf("on a clock that is behind: %v", err)
			}
			if verify(tc.not, start) == nil {
				t.Error("it serves another usage as well")
			}
			if got := p.Cert.NotAfter.Sub(start); got != tc.life {
				t.Errorf("life %s", got)
			}
			if p.Cert.IsCA || p.Cert.KeyUsage&x509.KeyUsageCertSign != 0 {
				t.Error("it is an authority")
			}
			if _, err := tls.X509KeyPair(p.CertPEM, p.KeyPEM); err != nil {
				t.Error(err)
			}
		})
	}
	for name, r := range map[string]Request{
		"no name":        {ClientAuth: true},
		"no usage":       {CommonName: "x"},
		"nameless serve": {CommonName: "x", ServerAuth: true},
	} {
		if _, err := ca.Issue(r, start, rand.Reader); err == nil {
			t.Errorf("%s: issued", name)
		}
	}
}

func TestLifeEndsWithTheAuthority(t *testing.T) {
	ca := newCA(t)
	late := ca.Cert.NotAfter.Add(-time.Hour)
	p, err := ca.Issue(Request{CommonName: "x", ClientAuth: true}, late, rand.Reader)
	if err != nil || !p.Cert.NotAfter.Equal(ca.Cert.NotAfter) {
		t.Errorf("%v %v", p, err)
	}
	if _, err := ca.Issue(Request{CommonName: "x", ClientAuth: true}, ca.Cert.NotAfter.Add(time.Second), rand.Reader); err == nil {
		t.Error("an ended authority issues")
	}
}

func TestSerialsDiffer(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		s, err := newSerial(rand.Reader)
		if err != nil || s.Sign() <= 0 || s.BitLen() > 127 || seen[s.String()] {
			t.Fatal(s, err)
		}
		seen[s.String()] = true
	}
	if _, err := newSerial(bytes.NewReader(nil)); err == nil {
		t.Error("a serial number without randomness")
	}
}

func TestDue(t *testing.T) {
	cert := &x509.Certificate{NotBefore: start, NotAfter: start.Add(30 * time.Hour)}
	for at, want := range map[time.Duration]bool{
		-time.Second: true, 0: false, 20*time.Hour - time.Second: false, 20 * time.Hour: true, 40 * time.Hour: true,
	} {
		if got := Due(start.Add(at), cert); got != want {
			t.Errorf("%s: %v", at, got)
		}
	}
}

func TestOutdated(t *testing.T) {
	ca := newCA(t)
	r := Request{CommonName: "api", Organization: []string{"b", "a"}, DNSNames: []string{"one", "two"}, IPs: []net.IP{net.IPv4(10, 0, 0, 1)}, ServerAuth: true}
	p, err := ca.Issue(r, start, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		at     time.Time
		ca     *CA
		change func(*Request)
		want   string
	}{
		"fresh":            {start, ca, func(*Request) {}, ""},
		"fewer names":      {start, ca, func(r *Request) { r.DNSNames = []string{"one"} }, ""},
		"order of groups":  {start, ca, func(r *Request) { r.Organization = []string{"a", "b"} }, ""},
		"same address":     {start, ca, func(r *Request) { r.IPs = []net.IP{net.ParseIP("::ffff:10.0.0.1")} }, ""},
		"due":              {start.Add(300 * 24 * time.Hour), ca, func(*Request) {}, "due"},
		"another CA":       {start, newCA(t), func(*Request) {}, "authority"},
		"new name":         {start, ca, func(r *Request) { r.DNSNames = append(r.DNSNames, "three") }, "three"},
		"new address":      {start, ca, func(r *Request) { r.IPs = append(r.IPs, net.IPv4(10, 0, 0, 2)) }, "10.0.0.2"},
		"new common name":  {start, ca, func(r *Request) { r.CommonName = "x" }, "subject"},
		"another group":    {start, ca, func(r *Request) { r.Organization = []string{"a"} }, "subject"},
		"additional usage": {start, ca, func(r *Request) { r.ClientAuth = true }, "usage"},
	} {
		wanted := r
		wanted.DNSNames = append([]string(nil), r.DNSNames...)
		wanted.IPs = append([]net.IP(nil), r.IPs...)
		tc.change(&wanted)
		if got := Outdated(tc.at, p.Cert, wanted, tc.ca); (got == "") != (tc.want == "") || !strings.Contains(got, tc.want) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestLoadOrCreate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	ca, err := LoadOrCreateCA(dir, "ca", "the-ca", start, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	again, err := LoadOrCreateCA(dir, "ca", "the-ca", start, rand.Reader)
	if err != nil || !again.Cert.Equal(ca.Cert) {
		t.Fatalf("a second authority: %v", err)
	}
	r := Request{CommonName: "api", DNSNames: []string{"one"}, ServerAuth: true}
	load := func(at time.Time) *Pair {
		t.Helper()
		p, err := LoadOrCreate(dir, "api", ca, r, at, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	first := load(start)
	if !load(start).Cert.Equal(first.Cert) {
		t.Error("issued again without need")
	}
	r.DNSNames = append(r.DNSNames, "two")
	second := load(start)
	if second.Cert.Equal(first.Cert) {
		t.Error("not issued again for a new name")
	}
	if third := load(start.Add(DefaultLifetime)); third.Cert.Equal(second.Cert) {
		t.Error("not issued again when due")
	}
	// A crash between the two files leaves a pair that does not fit.
	if err := WriteFile(KeyFile(dir, "api"), first.KeyPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	load(start.Add(DefaultLifetime))
	if err := os.WriteFile(CertFile(dir, "api"), []byte("garbage"), 0o644); err != nil {
		t.Fatal(err)
	}
	load(start.Add(DefaultLifetime))

	for name, want := range map[string]os.FileMode{"ca.key": 0o600, "ca.crt": 0o644, "api.key": 0o600, "api.crt": 0o644, ".": 0o700} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v %v", name, info.Mode().Perm(), err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 4 {
		t.Errorf("%v %v", entries, err)
	}
}

func TestWideKeyIsTightened(t *testing.T) {
	dir := t.TempDir()
	if _, err := LoadOrCreateCA(dir, "ca", "c", start, rand.Reader); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(KeyFile(dir, "ca"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadOrCreateCA(dir, "ca", "c", start, rand.Reader); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(KeyFile(dir, "ca")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
}

func TestAuthorityIsNeverReplaced(t *testing.T) {
	dir := t.TempDir()
	ca, err := LoadOrCreateCA(dir, "ca", "c", start, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := newCA(t).KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func() error{
		"foreign key": func() error { return os.WriteFile(KeyFile(dir, "ca"), other, 0o600) },
		"lost key":    func() error { return os.Remove(KeyFile(dir, "ca")) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadOrCreateCA(dir, "ca", "c", start, rand.Reader); err == nil {
			t.Errorf("%s: no error", name)
		}
		if data, err := os.ReadFile(CertFile(dir, "ca")); err != nil || !bytes.Equal(data, ca.CertPEM()) {
			t.Errorf("%s: the certificate was touched", name)
		}
	}
	// A key without a certificate is what a crash during the first start leaves.
	fresh := t.TempDir()
	if err := os.WriteFile(KeyFile(fresh, "ca"), other, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadOrCreateCA(fresh, "ca", "c", start, rand.Reader); err != nil {
		t.Error(err)
	}
}

func TestConcurrentCreation(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	cas := make([]*CA, 8)
	for i := range cas {
		wg.Go(func() {
			ca, err := LoadOrCreateCA(dir, "ca", "c", start, rand.Reader)
			if err != nil {
				t.Error(err)
				return
			}
			cas[i] = ca
			if _, err := LoadOrCreate(dir, "x", ca, Request{CommonName: "x", ClientAuth: true}, start, rand.Reader); err != nil {
				t.Error(err)
			}
			if _, err := LoadOrCreateKey(filepath.Join(dir, "sa.key"), rand.Reader); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, ca := range cas {
		if ca == nil || !ca.Cert.Equal(cas[0].Cert) {
			t.Fatal("several authorities were made")
		}
	}
}

func TestLoadOrCreateKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "sa.key")
	a, err := LoadOrCreateKey(path, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b, err := LoadOrCreateKey(path, rand.Reader)
	if err != nil || !samePublic(a.Public(), b.Public()) {
		t.Errorf("another key: %v", err)
	}
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadOrCreateKey(path, rand.Reader); err == nil {
		t.Error("a damaged key is replaced")
	}
}

func TestWriteFileFailsWhole(t *testing.T) {
	if err := WriteFile(filepath.Join(t.TempDir(), "none", "x"), []byte("a"), 0o600); err == nil {
		t.Error("no error")
	}
	dir := t.TempDir()
	target := filepath.Join(dir, "x")
	if err := os.Mkdir(target, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(target, []byte("a"), 0o600); err == nil {
		t.Error("a directory was overwritten")
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("something is left behind: %v", entries)
	}
}

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
	for asked, want := range map[time.Duration]time.Duration{0: DefaultLifetime, time.Second: MinSignedLifetime, time.Hour: time.Hour} {
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

// TestServerReloads: a served certificate and the accepted authorities change
// between two connections.
func TestServerReloads(t *testing.T) {
	ca, clientCA := newCA(t), newCA(t)
	live, pool := &Live{}, &LivePool{}
	now := time.Now()
	serving := func() *Pair {
		p, err := ca.Issue(Request{CommonName: "s", IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, ServerAuth: true}, start, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	first, second := serving(), serving()
	if _, err := live.GetCertificate(nil); err == nil {
		t.Error("a certificate out of nothing")
	}
	if live.Leaf() != nil || pool.Pool() != nil {
		t.Error("not empty at first")
	}
	for _, err := range []error{live.Set(first.CertPEM, first.KeyPEM), pool.Set(clientCA.CertPEM())} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if live.Set(first.CertPEM, second.KeyPEM) == nil || pool.Set([]byte("x")) == nil {
		t.Error("what does not fit is taken")
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", ServerConfig(live, pool))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) > 0 {
			_, _ = io.WriteString(w, r.TLS.PeerCertificates[0].Subject.CommonName)
		}
	})}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	defer func() {
		_ = server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()

	pair, err := clientCA.Issue(Request{CommonName: "ann", ClientAuth: true}, now, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	client := &Live{}
	if err := client.Set(pair.CertPEM, pair.KeyPEM); err != nil {
		t.Fatal(err)
	}
	dial := func(version uint16) *x509.Certificate {
		t.Helper()
		c, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", l.Addr().String(), &tls.Config{
			RootCAs: ca.Pool(), Time: func() time.Time { return start }, MaxVersion: version, GetClientCertificate: client.GetClientCertificate,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0]
	}
	if !dial(tls.VersionTLS13).Equal(first.Cert) {
		t.Error("another certificate is served")
	}
	if err := live.Set(second.CertPEM, second.KeyPEM); err != nil {
		t.Fatal(err)
	}
	if !dial(tls.VersionTLS12).Equal(second.Cert) {
		t.Error("the old certificate is served")
	}
	if c, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11}); err == nil {
		_ = c.Close()
		t.Error("TLS 1.1 is spoken")
	}
	web := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{
		RootCAs: ca.Pool(), Time: func() time.Time { return start }, GetClientCertificate: client.GetClientCertificate,
	}}}
	defer web.CloseIdleConnections()
	res, err := web.Get("https://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err != nil || string(body) != "ann" {
		t.Errorf("the server saw %q, %v", body, err)
	}
}

func TestKeeper(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		ca, err := NewCA("c", 0, time.Now(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		live := &Live{}
		k := &Keeper{Dir: dir, Name: "x", CA: ca, Live: live, Rand: rand.Reader,
			Request: func() Request { return Request{CommonName: "x", ClientAuth: true, Lifetime: 30 * time.Hour} }}
		if err := k.Refresh(); err != nil {
			t.Fatal(err)
		}
		first := live.Leaf()
		done := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { done <- k.Run(ctx) }()
		time.Sleep(19 * time.Hour)
		synctest.Wait()
		if !live.Leaf().Equal(first) {
			t.Error("renewed early")
		}
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		if live.Leaf().Equal(first) {
			t.Error("not renewed")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
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
