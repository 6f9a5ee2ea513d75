package pki

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
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
		k := &Keeper{Dir: dir, Name: "x", CA: FixedCA(ca), Live: live, Rand: rand.Reader,
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
