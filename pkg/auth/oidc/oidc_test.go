package oidc

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"
	clocktesting "k8s.io/utils/clock/testing"

	"coracle/pkg/auth"
)

// issuer is an OpenID Connect issuer on the loopback.
type issuer struct {
	*httptest.Server
	clock   *clocktesting.FakeClock
	keys    atomic.Pointer[jose.JSONWebKeySet]
	fetches atomic.Int64
	// answer takes the place of the true documents when set.
	answer atomic.Pointer[http.HandlerFunc]
}

func newIssuer(t *testing.T) *issuer {
	i := &issuer{clock: clocktesting.NewFakeClock(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC))}
	i.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f := i.answer.Load(); f != nil {
			(*f)(w, r)
			return
		}
		var doc any = i.keys.Load()
		if r.URL.Path == "/.well-known/openid-configuration" {
			i.fetches.Add(1)
			doc = map[string]string{"issuer": i.URL, "jwks_uri": i.URL + "/keys"}
		}
		if err := json.NewEncoder(w).Encode(doc); err != nil {
			return // the client has gone
		}
	}))
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) config() Config {
	return Config{
		IssuerURL: i.URL, Audiences: []string{"kubernetes"}, Algorithms: []string{"RS256", "ES256"},
		CA:       pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.Certificate().Raw}),
		Username: Mapping{Claim: "sub", Prefix: "oidc:"}, Groups: Mapping{Claim: "groups", Prefix: "oidc:"},
	}
}

func (i *issuer) authenticator(t *testing.T, change ...func(*Config)) *Authenticator {
	t.Helper()
	c := i.config()
	for _, f := range change {
		f(&c)
	}
	a, err := New(c, i.clock, nil)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (i *issuer) publish(keys ...jose.JSONWebKey) { i.keys.Store(&jose.JSONWebKeySet{Keys: keys}) }

func public(id string, key crypto.Signer) jose.JSONWebKey {
	return jose.JSONWebKey{Key: key.Public(), KeyID: id, Use: "sig"}
}

func ecdsaKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t *testing.T, algorithm jose.SignatureAlgorithm, key any, id string, claims map[string]any) string {
	t.Helper()
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: jose.JSONWebKey{Key: key, KeyID: id}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := s.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (i *issuer) claims(change map[string]any) map[string]any {
	c := map[string]any{"iss": i.URL, "aud": "kubernetes", "sub": "jane", "groups": []string{"devs", "ops"},
		"exp": i.clock.Now().Add(time.Hour).Unix(), "iat": i.clock.Now().Unix()}
	for k, v := range change {
		if c[k] = v; v == nil {
			delete(c, k)
		}
	}
	return c
}

func TestClaims(t *testing.T) {
	i, key := newIssuer(t), ecdsaKey(t)
	i.publish(public("k1", key))
	now := i.clock.Now()
	for _, c := range []struct {
		name   string
		claims map[string]any
		change func(*Config)
		want   *auth.User // nil: refused
	}{
		{name: "plain", want: &auth.User{Name: "oidc:jane", Groups: []string{"oidc:devs", "oidc:ops"}}},
		{name: "one group as a text", claims: map[string]any{"groups": "devs"}, want: &auth.User{Name: "oidc:jane", Groups: []string{"oidc:devs"}}},
		{name: "no groups", claims: map[string]any{"groups": nil}, want: &auth.User{Name: "oidc:jane"}},
		{name: "audience among others", claims: map[string]any{"aud": []string{"x", "kubernetes"}, "groups": nil}, want: &auth.User{Name: "oidc:jane"}},
		{name: "uid", claims: map[string]any{"groups": nil, "oid": "7"}, change: func(c *Config) { c.UID.Claim = "oid" }, want: &auth.User{Name: "oidc:jane", UID: "7"}},
		{name: "required claim", claims: map[string]any{"groups": nil, "hd": "example.com"}, change: func(c *Config) { c.Required = map[string]string{"hd": "example.com"} }, want: &auth.User{Name: "oidc:jane"}},
		{name: "required claim missing", change: func(c *Config) { c.Required = map[string]string{"hd": "example.com"} }},
		{name: "required claim in a list", claims: map[string]any{"hd": []string{"example.com"}}, change: func(c *Config) { c.Required = map[string]string{"hd": "example.com"} }},
		{name: "wrong audience", claims: map[string]any{"aud": "vault"}},
		{name: "no audience", claims: map[string]any{"aud": nil}},
		{name: "expired", claims: map[string]any{"exp": now.Unix()}},
		{name: "no expiry", claims: map[string]any{"exp": nil}},
		{name: "expiry is a text", claims: map[string]any{"exp": "tomorrow"}},
		{name: "not yet valid", claims: map[string]any{"nbf": now.Add(time.Minute).Unix()}},
		{name: "not yet valid in words", claims: map[string]any{"nbf": "tomorrow"}},
		{name: "no user", claims: map[string]any{"sub": nil}},
		{name: "empty user", claims: map[string]any{"sub": ""}},
		{name: "user is a number", claims: map[string]any{"sub": 7}},
		{name: "groups are numbers", claims: map[string]any{"groups": []int{1}}},
		{name: "email that is not verified", claims: map[string]any{"email": "a@b", "email_verified": false}, change: func(c *Config) { c.Username.Claim = "email" }},
		{name: "email verified in words", claims: map[string]any{"email": "a@b", "email_verified": "true"}, change: func(c *Config) { c.Username.Claim = "email" }},
		{name: "email", claims: map[string]any{"email": "a@b", "email_verified": true, "groups": nil}, change: func(c *Config) { c.Username = Mapping{Claim: "email"} }, want: &auth.User{Name: "a@b"}},
		{name: "masters without a prefix", claims: map[string]any{"groups": []string{"system:masters"}}, change: func(c *Config) { c.Groups.Prefix = "" }},
		{name: "masters by the prefix", claims: map[string]any{"groups": []string{"masters"}}, change: func(c *Config) { c.Groups.Prefix = "system:" }},
		{name: "a node without a prefix", claims: map[string]any{"sub": "system:node:n1"}, change: func(c *Config) { c.Username.Prefix = "" }},
	} {
		var change []func(*Config)
		if c.change != nil {
			change = append(change, c.change)
		}
		info, ok, err := i.authenticator(t, change...).AuthenticateToken(t.Context(), sign(t, jose.ES256, key, "k1", i.claims(c.claims)), nil)
		switch {
		case c.want == nil && (ok || !errors.Is(err, ErrInvalid)):
			t.Errorf("%s: %v, %v", c.name, ok, err)
		case c.want != nil && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != nil:
			if d := cmp.Diff(c.want, info.User); d != "" {
				t.Errorf("%s: %s", c.name, d)
			}
		}
	}
}

// TestForgeries: nothing but a key of the issuer, used as such a key is, makes a
// token.
func TestForgeries(t *testing.T) {
	i, key := newIssuer(t), ecdsaKey(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	shared := []byte("a secret that is long enough for HMAC")
	i.publish(public("k1", key), public("r1", rsaKey), jose.JSONWebKey{Key: shared, KeyID: "s1", Algorithm: "HS256"})
	good := sign(t, jose.ES256, key, "k1", i.claims(nil))
	parts := strings.Split(good, ".")
	a := i.authenticator(t)
	if _, ok, err := a.AuthenticateToken(t.Context(), good, nil); !ok {
		t.Fatal(err)
	}
	for name, token := range map[string]string{
		"alg none":             "eyJhbGciOiJub25lIn0." + parts[1] + ".",
		"alg none, signed":     "eyJhbGciOiJub25lIn0." + parts[1] + "." + parts[2],
		"no signature":         parts[0] + "." + parts[1] + ".",
		"another key":          sign(t, jose.ES256, ecdsaKey(t), "k1", i.claims(nil)),
		"another key, no kid":  sign(t, jose.ES256, ecdsaKey(t), "", i.claims(nil)),
		"kid of another kind":  sign(t, jose.ES256, key, "r1", i.claims(nil)),
		"kid of the secret":    sign(t, jose.HS256, shared, "s1", i.claims(nil)),
		"public key as secret": sign(t, jose.HS256, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: rsaKey.N.Bytes()}), "r1", i.claims(nil)),
		"algorithm not chosen": sign(t, jose.PS256, rsaKey, "r1", i.claims(nil)),
		"another issuer":       sign(t, jose.ES256, key, "k1", i.claims(map[string]any{"iss": "https://evil.example"})),
		"changed claims":       parts[0] + "." + parts[1] + "x." + parts[2],
		"oversized":            sign(t, jose.ES256, key, "k1", i.claims(map[string]any{"pad": strings.Repeat("x", maxTokenBytes)})),
		"no token":             "",
	} {
		if info, ok, err := a.AuthenticateToken(t.Context(), token, nil); ok {
			t.Errorf("%s: %+v, %v", name, info, err)
		}
	}
	if info, ok, err := a.AuthenticateToken(t.Context(), sign(t, jose.RS256, rsaKey, "r1", i.claims(nil)), nil); !ok {
		t.Errorf("the RSA key: %+v, %v", info, err)
	}
}

// TestRotation: a new key counts at once, unknown ones do not make the server
// ask more often, and a key that was withdrawn ends.
func TestRotation(t *testing.T) {
	i, first, second := newIssuer(t), ecdsaKey(t), ecdsaKey(t)
	i.publish(public("k1", first))
	a := i.authenticator(t)
	try := func(key *ecdsa.PrivateKey, id string) bool {
		_, ok, _ := a.AuthenticateToken(t.Context(), sign(t, jose.ES256, key, id, i.claims(nil)), nil)
		return ok
	}
	if !try(first, "k1") || i.fetches.Load() != 1 {
		t.Fatalf("the first token, after %d fetches", i.fetches.Load())
	}
	i.publish(public("k1", first), public("k2", second))
	i.clock.Step(fetchPause)
	if !try(second, "k2") {
		t.Error("a token of the new key is refused")
	}
	for range 50 {
		if try(second, "k3") {
			t.Error("a key id that is not there")
		}
	}
	if n := i.fetches.Load(); n != 2 {
		t.Errorf("%d fetches, want 2", n)
	}
	i.publish(public("k2", second))
	i.clock.Step(keysAge + time.Second)
	for deadline := time.Now().Add(10 * time.Second); try(first, "k1"); {
		if time.Now().After(deadline) {
			t.Fatal("a key that was withdrawn counts for ever")
		}
	}
}

// TestBadIssuers: an issuer that is away, lies, redirects or floods costs its
// own tokens, and is not asked again at once.
func TestBadIssuers(t *testing.T) {
	key := ecdsaKey(t)
	other := newIssuer(t)
	other.publish(public("k1", key))
	for name, answer := range map[string]http.HandlerFunc{
		"500": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL+r.URL.Path, http.StatusFound)
		},
		"another issuer": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"issuer":"https://other.example","jwks_uri":"https://other.example/keys"}`))
		},
		"no JSON": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) },
		"flood":   func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 2*maxDocument)) },
		"keys over http": func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write([]byte(`{"issuer":"https://` + r.Host + `","jwks_uri":"http://` + r.Host + `/keys"}`))
		},
		"no keys": func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write([]byte(`{"issuer":"https://` + r.Host + `","jwks_uri":"https://` + r.Host + `/keys","keys":[{"kty":"oct","k":"AAAA"}]}`))
		},
	} {
		i := newIssuer(t)
		var asked atomic.Int64
		counted := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked.Add(1); answer(w, r) })
		i.answer.Store(&counted)
		a, token := i.authenticator(t), sign(t, jose.ES256, key, "k1", i.claims(nil))
		for range 5 {
			if _, ok, err := a.AuthenticateToken(t.Context(), token, nil); ok || err == nil {
				t.Errorf("%s: %v, %v", name, ok, err)
			}
		}
		if n := asked.Load(); n > 2 {
			t.Errorf("%s: asked %d times", name, n)
		}
		if other.fetches.Load() > 0 {
			t.Errorf("%s: another server was asked", name)
		}
		// Well again, it is believed after the pause.
		i.answer.Store(nil)
		i.publish(public("k1", key))
		i.clock.Step(fetchPause)
		if _, ok, err := a.AuthenticateToken(t.Context(), token, nil); !ok {
			t.Errorf("%s, then well: %v", name, err)
		}
	}
}

// TestHangingIssuer: a request waits for no longer than its own context.
func TestHangingIssuer(t *testing.T) {
	i := newIssuer(t)
	asked, release := make(chan struct{}), make(chan struct{})
	hang := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(asked)
		<-release
	})
	i.answer.Store(&hang)
	t.Cleanup(func() { close(release) })
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	_, ok, err := i.authenticator(t).AuthenticateToken(ctx, sign(t, jose.ES256, ecdsaKey(t), "k1", i.claims(nil)), nil)
	if ok || !errors.Is(err, context.Canceled) {
		t.Errorf("%v, %v", ok, err)
	}
}

func TestParseFile(t *testing.T) {
	const head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n"
	const jwt = head + "jwt:\n- issuer: {url: https://id.example, audiences: [a]}\n  claimMappings:\n    username: {claim: sub, prefix: \"x:\"}\n"
	f, err := ParseFile([]byte(jwt + "  claimValidationRules: [{claim: hd, requiredValue: e}]\nanonymous: {enabled: true, conditions: [{path: /livez}]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Issuers) != 1 || f.Issuers[0].Username != (Mapping{Claim: "sub", Prefix: "x:"}) || f.Issuers[0].Required["hd"] != "e" || !f.Anonymous("/livez") || f.Anonymous("/api") {
		t.Errorf("%+v", f)
	}
	if f, err = ParseFile([]byte(head + "anonymous: {enabled: false}\n")); err != nil || f.Anonymous("/livez") {
		t.Errorf("anonymous off: %v", err)
	}
	for text, want := range map[string]string{
		"": "has the version",
		"apiVersion: apiserver.config.k8s.io/v1\nkind: X\n":                                 "of the kind",
		head + "unknown: 1\n":                                                               "unknown",
		jwt + "  userValidationRules: [{message: m}]\n":                                     "needs an expression",
		jwt + "  claimValidationRules: [{claim: a, expression: \"true\"}]\n":                "make two rules",
		jwt + "  claimValidationRules: [{claim: a, message: m}]\n":                          "is for expressions",
		jwt + "  claimValidationRules: [{expression: a, requiredValue: m}]\n":               "is for claims",
		jwt + "  claimValidationRules: [{expression: a}, {expression: a}]\n":                "there twice",
		jwt + "    extra: [{key: k, valueExpression: v}]\n":                                 "claimMappings.extra[0].key",
		jwt + "    extra: [{key: k8s.io/k, valueExpression: v}]\n":                          "reserved",
		jwt + "    extra: [{key: example.com/K, valueExpression: v}]\n":                     "lowercase",
		jwt + "    extra: [{key: example.com/k}]\n":                                         "valueExpression is missing",
		jwt + "    groups: {claim: g, expression: e}\n":                                     "leave out claim",
		jwt + "    uid: {claim: g, expression: e}\n":                                        "leave out claim",
		jwt + "    groups: {claim: g}\n":                                                    "prefix must be set",
		strings.Replace(jwt, "https", "http", 1):                                            "must begin with https://",
		strings.Replace(jwt, "[a]", "[]", 1):                                                "needs an audience",
		strings.Replace(jwt, "[a]", "[a, b]", 1):                                            "must be MatchAny",
		strings.Replace(jwt, "audiences", "discoveryURL: https://id.example, audiences", 1): "leave it out",
		jwt + strings.TrimPrefix(jwt, head+"jwt:\n"):                                        "there twice",
		head + "anonymous: {enabled: false, conditions: [{path: /livez}]}\n":                "need anonymous.enabled",
		head + strings.Repeat("#", maxFile):                                                 "at most",
	} {
		if _, err := ParseFile([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.120q: %v, want %q", text, err, want)
		}
	}
}

func FuzzParseFile(f *testing.F) {
	f.Add([]byte("apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n- issuer: {url: https://a, audiences: [a]}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if file, err := ParseFile(data); err == nil {
			for _, c := range file.Issuers {
				if c.Username.Claim == "" && c.Username.Expression == "" || len(c.Audiences) == 0 {
					t.Errorf("%+v passes", c)
				}
			}
		}
	})
}

func FuzzClaims(f *testing.F) {
	f.Add([]byte(`{"sub":"jane","aud":["a"],"exp":1,"groups":["g"]}`))
	a := &Authenticator{config: Config{Audiences: []string{"a"}, Username: Mapping{Claim: "sub"}, Groups: Mapping{Claim: "groups"}}, clock: clocktesting.NewFakePassiveClock(time.Unix(0, 0))}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseClaims(data)
		if err != nil || a.current(c) != nil {
			return
		}
		if u, err := a.identity(t.Context(), c); err == nil && (u.Name == "" || strings.HasPrefix(u.Name, "system:")) {
			t.Errorf("%q is let in as %q", data, u.Name)
		}
	})
}
