package certificate

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"testing"
	"time"

	"coracle/pkg/pki"
)

var begin = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func authority(t *testing.T, now time.Time) *pki.CA {
	t.Helper()
	ca, err := pki.NewCA("test", 0, now, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func issue(t *testing.T, ca *pki.CA, r pki.Request, now time.Time) *pki.Pair {
	t.Helper()
	p, err := ca.Issue(r, now, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestRenewAt(t *testing.T) {
	ca := authority(t, begin)
	seen := map[time.Time]bool{}
	for range 50 {
		cert := issue(t, ca, pki.Request{CommonName: "a", ClientAuth: true, Lifetime: 100 * time.Hour}, begin).Cert
		at := renewAt(cert)
		if at.Before(begin.Add(69*time.Hour)) || at.After(begin.Add(91*time.Hour)) {
			t.Errorf("a certificate for 100 h is renewed after %s", at.Sub(begin))
		}
		if !at.Equal(renewAt(cert)) {
			t.Error("the time changes from look to look")
		}
		seen[at] = true
	}
	if len(seen) < 40 {
		t.Errorf("50 certificates are renewed at %d times", len(seen))
	}
}

// TestOutmoded: only a certificate of an authority that is being replaced is.
func TestOutmoded(t *testing.T) {
	old, fresh, other := authority(t, begin), authority(t, begin), authority(t, begin)
	of := func(ca *pki.CA) *x509.Certificate {
		return issue(t, ca, pki.Request{CommonName: "a", ClientAuth: true}, begin).Cert
	}
	for _, tc := range []struct {
		cert  *x509.Certificate
		known []*pki.CA
		want  bool
	}{
		{of(old), []*pki.CA{old}, false}, {of(old), []*pki.CA{old, fresh}, false}, {of(old), []*pki.CA{fresh, old}, true},
		{of(fresh), []*pki.CA{fresh, old}, false}, {of(other), []*pki.CA{fresh, old}, false}, {of(old), []*pki.CA{fresh}, false},
		{of(old), nil, false}, {nil, []*pki.CA{fresh, old}, false},
	} {
		var known []*x509.Certificate
		for _, ca := range tc.known {
			known = append(known, ca.Cert)
		}
		if got := outmoded(tc.cert, known); got != tc.want {
			t.Errorf("%v of %d: %v", tc.cert, len(known), got)
		}
	}
}

func TestDue(t *testing.T) {
	ca := authority(t, begin)
	node := pki.Request{CommonName: "system:node:a", Organization: []string{"system:nodes"}, DNSNames: []string{"a"}, IPs: []net.IP{{10, 0, 0, 1}},
		ServerAuth: true, Lifetime: 100 * time.Hour}
	cert := issue(t, ca, node, begin).Cert
	want := func(change func(*x509.CertificateRequest)) *x509.CertificateRequest {
		w := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:a", Organization: []string{"system:nodes"}}, DNSNames: []string{"a"}, IPAddresses: []net.IP{net.ParseIP("10.0.0.1")}}
		change(w)
		return w
	}
	same := want(func(*x509.CertificateRequest) {})
	for _, tc := range []struct {
		name string
		cert *x509.Certificate
		want *x509.CertificateRequest
		age  time.Duration
		why  string
	}{
		{"new", cert, same, 0, ""},
		{"before its time", cert, same, 69 * time.Hour, ""},
		{"after it", cert, same, 91 * time.Hour, "it is due for renewal"},
		{"expired", cert, same, 100 * time.Hour, "it has expired"},
		{"none", nil, same, 0, "there is none"},
		{"a new address", cert, want(func(w *x509.CertificateRequest) { w.IPAddresses = append(w.IPAddresses, net.IP{10, 0, 0, 2}) }), 0, "it lacks the address 10.0.0.2"},
		{"a new name", cert, want(func(w *x509.CertificateRequest) { w.DNSNames = []string{"b"} }), 0, "it lacks the name b"},
		{"another node", cert, want(func(w *x509.CertificateRequest) { w.Subject.CommonName = "system:node:b" }), 0, "it is another's"},
		{"another group", cert, want(func(w *x509.CertificateRequest) { w.Subject.Organization = []string{"g"} }), 0, "it lacks the group g"},
	} {
		why, rest := due(tc.cert, tc.want, begin.Add(tc.age))
		if why != tc.why || (why == "") != (rest > 0) {
			t.Errorf("%s: %q and %s, want %q", tc.name, why, rest, tc.why)
		}
	}
}

func TestBetter(t *testing.T) {
	ca := authority(t, begin)
	pair := func(name string, life time.Duration) *pki.Pair {
		return issue(t, ca, pki.Request{CommonName: name, ClientAuth: true, Lifetime: life}, begin)
	}
	short, long, others := pair("a", time.Hour), pair("a", 2*time.Hour), pair("b", 3*time.Hour)
	want := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "a"}}
	for _, tc := range []struct {
		name    string
		a, b    *pki.Pair
		age     time.Duration
		outcome *pki.Pair
	}{
		{"nothing", nil, nil, 0, nil},
		{"the stored one", short, nil, 0, short},
		{"the seed", nil, short, 0, short},
		{"the longer, stored", long, short, 0, long},
		{"the longer, seed", short, long, 0, long},
		{"another's", short, others, 0, short},
		{"expired", short, nil, time.Hour, nil},
		{"the one that has not expired", short, long, time.Hour, long},
	} {
		for _, known := range [][]*x509.Certificate{nil, {ca.Cert}, {authority(t, begin).Cert, ca.Cert}} {
			if got := better(tc.a, tc.b, want, known, begin.Add(tc.age)); got != tc.outcome {
				t.Errorf("%s: not the right one", tc.name)
			}
		}
	}
	// What was made before the authority was replaced counts no more, however long
	// it lasts.
	fresh := authority(t, begin)
	renewed := issue(t, fresh, pki.Request{CommonName: "a", ClientAuth: true, Lifetime: time.Hour}, begin)
	for _, known := range [][]*x509.Certificate{{fresh.Cert}, {fresh.Cert, ca.Cert}} {
		if better(renewed, long, want, known, begin) != renewed || better(long, renewed, want, known, begin) != renewed {
			t.Error("the one of the authority that was replaced")
		}
	}
}
