package auth

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clocktesting "k8s.io/utils/clock/testing"

	"coracle/pkg/pki"
)

var start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func newCA(t testing.TB, name string) *pki.CA {
	t.Helper()
	ca, err := pki.NewCA(name, 0, start, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func issue(t testing.TB, ca *pki.CA, r pki.Request) *x509.Certificate {
	t.Helper()
	p, err := ca.Issue(r, start, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return p.Cert
}

func clientCert(t testing.TB, ca *pki.CA, name string, groups ...string) *x509.Certificate {
	t.Helper()
	return issue(t, ca, pki.Request{CommonName: name, Organization: groups, ClientAuth: true})
}

// request is a GET of the path with header lines "Name: value", and a client
// certificate unless that is nil.
func request(path string, cert *x509.Certificate, headers ...string) *http.Request {
	r := httptest.NewRequest("GET", path, nil)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
	}
	if cert != nil {
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
	}
	return r
}

// tokens accepts "good:NAME", refuses "bad", and knows nothing else.
type tokens struct{}

func (tokens) AuthenticateToken(_ context.Context, token string, audiences []string) (*TokenInfo, bool, error) {
	if name, ok := strings.CutPrefix(token, "good:"); ok {
		return &TokenInfo{User: &User{Name: name}, Audiences: audiences}, true, nil
	}
	if token == "bad" {
		return nil, false, errors.New("token is bad")
	}
	return nil, false, nil
}

func TestNew(t *testing.T) {
	ca, proxyCA, foreign := newCA(t, "ca"), newCA(t, "proxy"), newCA(t, "foreign")
	clock := clocktesting.NewFakePassiveClock(start)
	a := New(Config{
		Context:      true,
		FrontProxy:   &FrontProxy{Roots: proxyCA.Pool, AllowedNames: []string{"front-proxy"}, Clock: clock},
		Certificates: &ClientCertificates{Roots: poolOf(ca), Clock: clock},
		Tokens:       tokens{},
		Anonymous:    AnonymousEverywhere,
	})
	ann := clientCert(t, ca, "ann", "dev", "ops")
	proxy := clientCert(t, proxyCA, "front-proxy")
	webSocket := []string{"Connection: keep-alive, Upgrade", "Upgrade: websocket"}
	subprotocol := func(token string) string {
		return "Sec-WebSocket-Protocol: v5.channel.k8s.io, base64url.bearer.authorization.k8s.io." + base64.RawURLEncoding.EncodeToString([]byte(token))
	}
	for _, tc := range []struct {
		name   string
		r      *http.Request
		user   string
		groups string
		err    string
	}{
		{name: "nothing", r: request("/api", nil), user: "system:anonymous", groups: "system:unauthenticated"},
		{name: "certificate", r: request("/api", ann), user: "ann", groups: "dev ops system:authenticated"},
		{name: "certificate of another authority", r: request("/api", clientCert(t, foreign, "ann")), err: "unknown authority"},
		{name: "serving certificate", r: request("/api", issue(t, ca, pki.Request{CommonName: "ann", ServerAuth: true, DNSNames: []string{"x"}})), err: "incompatible key usage"},
		{name: "token", r: request("/api", nil, "Authorization: Bearer good:joe"), user: "joe", groups: "system:authenticated"},
		{name: "token, lower case scheme", r: request("/api", nil, "Authorization: bearer  good:joe"), user: "joe", groups: "system:authenticated"},
		{name: "bad token is not anonymous", r: request("/healthz", nil, "Authorization: Bearer bad"), err: "token is bad"},
		{name: "unknown token is not anonymous", r: request("/healthz", nil, "Authorization: Bearer what"), err: "invalid bearer token"},
		{name: "large token", r: request("/healthz", nil, "Authorization: Bearer good:"+strings.Repeat("x", maxTokenBytes)), err: "invalid bearer token"},
		{name: "basic is no credential here", r: request("/api", nil, "Authorization: Basic YTpi"), user: "system:anonymous", groups: "system:unauthenticated"},
		{name: "certificate beats token", r: request("/api", ann, "Authorization: Bearer good:joe"), user: "ann", groups: "dev ops system:authenticated"},
		{name: "foreign certificate, good token", r: request("/api", clientCert(t, foreign, "ann"), "Authorization: Bearer good:joe"), user: "joe", groups: "system:authenticated"},
		{name: "foreign certificate, bad token", r: request("/api", clientCert(t, foreign, "ann"), "Authorization: Bearer bad"), err: "token is bad"},
		{name: "token by websocket", r: request("/api", nil, append(webSocket, subprotocol("good:ws"))...), user: "ws", groups: "system:authenticated"},
		{name: "token by websocket without upgrade", r: request("/api", nil, subprotocol("good:ws")), user: "system:anonymous", groups: "system:unauthenticated"},
		{name: "two tokens by websocket", r: request("/api", nil, append(webSocket, subprotocol("good:a"), subprotocol("good:b"))...), err: "several bearer tokens"},
		{name: "broken token by websocket", r: request("/api", nil, append(webSocket, "Sec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io.%%")...), err: "invalid bearer token"},
		{name: "proxy", r: request("/api", proxy, "X-Remote-User: kim", "X-Remote-Group: a", "X-Remote-Group: b"), user: "kim", groups: "a b system:authenticated"},
		{name: "proxy headers without certificate", r: request("/api", nil, "X-Remote-User: root", "X-Remote-Group: system:masters"), user: "system:anonymous", groups: "system:unauthenticated"},
		{name: "proxy headers with client certificate", r: request("/api", ann, "X-Remote-User: root", "X-Remote-Group: system:masters"), user: "ann", groups: "dev ops system:authenticated"},
		{name: "proxy of another name", r: request("/api", clientCert(t, proxyCA, "other"), "X-Remote-User: root"), err: "allowed list"},
		{name: "proxy as client", r: request("/api", proxy), err: "unknown authority"},
		{name: "proxy says anonymous", r: request("/api", proxy, "X-Remote-User: system:anonymous", "X-Remote-Group: system:unauthenticated"), user: "system:anonymous", groups: "system:unauthenticated"},
		{name: "transport", r: request("/api", nil).WithContext(WithUser(t.Context(), &User{Name: "system:kube-scheduler"})), user: "system:kube-scheduler", groups: "system:authenticated"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := tc.r.Header.Clone()
			u, ok, err := a.Authenticate(tc.r.Context(), tc.r)
			if !cmp.Equal(before, tc.r.Header) {
				t.Error("the request's header was changed")
			}
			if tc.err != "" {
				if ok || err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("%v %v %v, want an error with %q", u, ok, err, tc.err)
				}
				return
			}
			if !ok || err != nil {
				t.Fatal(ok, err)
			}
			if u.Name != tc.user || strings.Join(u.Groups, " ") != tc.groups {
				t.Errorf("%s %v", u.Name, u.Groups)
			}
		})
	}
}

// poolOf returns the same pool each time, as a pool that is not replaced does.
func poolOf(ca *pki.CA) func() *x509.CertPool {
	p := ca.Pool()
	return func() *x509.CertPool { return p }
}

func TestAnonymousHealth(t *testing.T) {
	a := New(Config{Tokens: tokens{}, Anonymous: AnonymousHealth})
	for path, want := range map[string]bool{
		"/healthz": true, "/livez": true, "/readyz": true, "/version": true,
		"/": false, "/api": false, "/metrics": false, "/livez/etcd": false, "/healthz/../api": false, "/apis": false,
	} {
		u, ok, err := a.Authenticate(t.Context(), request(path, nil))
		if ok != want || err != nil || ok != (u != nil) {
			t.Errorf("%s: %v %v %v", path, u, ok, err)
		}
	}
}

func TestClientCertificateUser(t *testing.T) {
	ca := newCA(t, "ca")
	clock := clocktesting.NewFakePassiveClock(start)
	pool := ca.Pool()
	revoked := map[string]bool{}
	c := &ClientCertificates{
		Roots: func() *x509.CertPool { return pool },
		Clock: clock,
	}
	a := WithoutCertificates(c, func(cert *x509.Certificate) bool { return revoked[cert.SerialNumber.String()] })
	cert := clientCert(t, ca, "ann", "dev")
	get := func() (*User, bool, error) { return a.Authenticate(t.Context(), request("/", cert)) }

	u, ok, err := get()
	if !ok || err != nil || len(u.Extra[ExtraCredentialID]) != 1 || !strings.HasPrefix(u.Extra[ExtraCredentialID][0], "X509SHA256=") {
		t.Fatalf("%+v %v %v", u, ok, err)
	}
	if again, _, _ := get(); again != u {
		t.Error("the certificate was verified again")
	}
	clock.SetTime(cert.NotAfter.Add(time.Second))
	if _, ok, err := get(); ok || err == nil {
		t.Error("an expired certificate is remembered as good")
	}
	clock.SetTime(start.Add(-time.Hour))
	if _, ok, err := get(); ok || err == nil {
		t.Error("a certificate of the future is remembered as good")
	}
	clock.SetTime(start)
	revoked[cert.SerialNumber.String()] = true
	if _, ok, err := get(); ok || err == nil {
		t.Error("a refused certificate is good")
	}
	proxy := WithoutCertificates(&FrontProxy{Roots: ca.Pool, Clock: clock}, func(*x509.Certificate) bool { return true })
	if _, ok, err := proxy.Authenticate(t.Context(), request("/", cert, "X-Remote-User: kim")); ok || err == nil {
		t.Error("a refused certificate is good for a front proxy")
	}
	delete(revoked, cert.SerialNumber.String())
	if _, ok, _ := get(); !ok {
		t.Error("the certificate is not good again")
	}
	pool = newCA(t, "next").Pool()
	if _, ok, err := get(); ok || err == nil {
		t.Error("a certificate of a replaced authority is remembered as good")
	}
	pool = nil
	if _, ok, err := get(); ok || err != nil {
		t.Errorf("without authorities: %v %v", ok, err)
	}
}

func TestFrontProxyExtra(t *testing.T) {
	ca := newCA(t, "proxy")
	f := &FrontProxy{Roots: ca.Pool, Clock: clocktesting.NewFakePassiveClock(start)}
	u, ok, err := f.Authenticate(t.Context(), request("/", clientCert(t, ca, "any"),
		"X-Remote-User: kim", "X-Remote-Uid: 7", "X-Remote-Extra-Scopes: a", "X-Remote-Extra-Scopes: b", "X-Remote-Extra-Acme.com%2FProject: p", "X-Remote-Extra-: none"))
	want := &User{Name: "kim", UID: "7", Extra: map[string][]string{"scopes": {"a", "b"}, "acme.com/project": {"p"}}}
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	if diff := cmp.Diff(want, u); diff != "" {
		t.Error(diff)
	}
}

func TestStripCredentials(t *testing.T) {
	r := request("/", nil, "Authorization: Bearer x", "Impersonate-User: a", "Impersonate-Extra-B: c", "X-Remote-User: d", "X-Remote-Extra-E: f",
		"Accept: g", "Sec-WebSocket-Protocol: v5, base64url.bearer.authorization.k8s.io.aaa", "Sec-WebSocket-Protocol: v4")
	StripCredentials(r.Header)
	want := http.Header{"Accept": {"g"}, "Sec-Websocket-Protocol": {"v5, v4"}}
	if diff := cmp.Diff(want, r.Header); diff != "" {
		t.Error(diff)
	}
}

// TestSetFrontProxyHeaders: who is written into headers is who is read from them.
func TestSetFrontProxyHeaders(t *testing.T) {
	for _, want := range []*User{
		{Name: "a"},
		{Name: "anna", UID: "u", Groups: []string{"x", "system:masters"}, Extra: map[string][]string{"scopes": {"a", "b"}, "example.com/odd key%2f": {"c"}}},
	} {
		h := http.Header{}
		SetFrontProxyHeaders(h, want)
		got := &User{Name: h.Get("X-Remote-User"), UID: h.Get("X-Remote-Uid"), Groups: h.Values("X-Remote-Group"), Extra: extraHeaders(h, "X-Remote-Extra-", nil)}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		if StripCredentials(h); len(h) > 0 {
			t.Errorf("%v is left", h)
		}
	}
}

func TestServiceAccountNames(t *testing.T) {
	if ns, name, ok := SplitServiceAccountName(ServiceAccountName("a", "b")); !ok || ns != "a" || name != "b" {
		t.Error(ns, name, ok)
	}
	for _, bad := range []string{"", "a", "system:serviceaccount:a", "system:serviceaccount::b", "system:serviceaccount:a:", "system:serviceaccount:a:b:c", "system:node:a:b"} {
		if _, _, ok := SplitServiceAccountName(bad); ok {
			t.Errorf("%q is taken for a service account", bad)
		}
	}
}

func TestNodeName(t *testing.T) {
	for _, tc := range []struct {
		user   string
		groups []string
		node   string
		isNode bool
	}{
		{"system:node:n1", []string{"system:nodes"}, "n1", true},
		{"system:node:n1", nil, "", false},
		{"n1", []string{"system:nodes"}, "", true},
		{"system:node:", []string{"system:nodes"}, "", true},
	} {
		if node, isNode := NodeName(&User{Name: tc.user, Groups: tc.groups}); node != tc.node || isNode != tc.isNode {
			t.Errorf("%+v: %q %v", tc, node, isNode)
		}
	}
}

func FuzzBearer(f *testing.F) {
	f.Add("Bearer good:x", "a, base64url.bearer.authorization.k8s.io.Z29vZDp4")
	f.Add("bearer", ",,,")
	f.Fuzz(func(t *testing.T, authorization, protocol string) {
		h := http.Header{"Authorization": {authorization}, "Connection": {"upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Protocol": {protocol}}
		token, ok, err := bearerToken(h)
		if ok != (token != "") || (ok && err != nil) || len(token) > 2*maxTokenBytes {
			t.Errorf("%q %v %v", token, ok, err)
		}
		StripCredentials(h)
		if _, ok, err := bearerToken(h); ok || err != nil {
			t.Errorf("a token is left in %v", h)
		}
	})
}
