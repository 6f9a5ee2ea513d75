package token

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"
	clocktesting "k8s.io/utils/clock/testing"

	"coracle/pkg/auth"
	"coracle/pkg/pki"
)

const (
	issuerURL = "https://kubernetes.default.svc.cluster.local"
	audience  = "https://kubernetes.default.svc"
)

var start = time.Unix(1_800_000_000, 0)

// objects is a set of existing objects.
type objects map[string]Object

func (o objects) Object(_ context.Context, kind Kind, namespace, name string) (Object, bool, error) {
	key := string(kind) + "/" + namespace + "/" + name
	if o[key].UID == "error" {
		return Object{}, false, errors.New("cache is not ready")
	}
	v, ok := o[key]
	return v, ok, nil
}

type fixture struct {
	key      *ecdsa.PrivateKey
	issuer   *Issuer
	verifier *Verifier
	objects  objects
	clock    *clocktesting.FakePassiveClock
}

func newFixture(t testing.TB, key crypto.Signer) *fixture {
	t.Helper()
	f := &fixture{
		objects: objects{
			"ServiceAccount/ns/sa": {UID: "sa-uid"},
			"Pod/ns/web":           {UID: "pod-uid"},
			"Secret/ns/tok":        {UID: "secret-uid"},
			"Node//n1":             {UID: "node-uid"},
		},
		clock: clocktesting.NewFakePassiveClock(start),
	}
	if key == nil {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		f.key, key = k, k
	}
	keys, err := NewKeySet(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	f.issuer, err = NewIssuer(IssuerConfig{URL: issuerURL, Key: key, Audiences: []string{audience}, Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	f.verifier, err = NewVerifier(VerifierConfig{Issuers: []string{issuerURL}, Audiences: []string{audience}, Keys: keys, Objects: f.objects, Clock: f.clock})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func podRequest() Request {
	return Request{
		Namespace:      "ns",
		ServiceAccount: Ref{"sa", "sa-uid"},
		Pod:            &Ref{"web", "pod-uid"},
		Node:           &Ref{"n1", "node-uid"},
	}
}

func (f *fixture) issue(t testing.TB, r Request) string {
	t.Helper()
	i, err := f.issuer.Issue(r, f.clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	return i.Token
}

func (f *fixture) check(token string, audiences ...string) (*auth.TokenInfo, bool, error) {
	return f.verifier.AuthenticateToken(context.Background(), token, audiences)
}

func TestRoundTrip(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"ES256": nil, "RS256": rsaKey, "ES384": p384} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, key)
			issued, err := f.issuer.Issue(podRequest(), start)
			if err != nil {
				t.Fatal(err)
			}
			// Twice: the second time the signature is remembered.
			for range 2 {
				info, ok, err := f.check(issued.Token)
				if !ok || err != nil {
					t.Fatal(ok, err)
				}
				want := &auth.TokenInfo{
					User: &auth.User{
						Name:   "system:serviceaccount:ns:sa",
						UID:    "sa-uid",
						Groups: []string{"system:serviceaccounts", "system:serviceaccounts:ns"},
						Extra: map[string][]string{
							"authentication.kubernetes.io/credential-id": {"JTI=" + issued.ID},
							"authentication.kubernetes.io/pod-name":      {"web"},
							"authentication.kubernetes.io/pod-uid":       {"pod-uid"},
							"authentication.kubernetes.io/node-name":     {"n1"},
							"authentication.kubernetes.io/node-uid":      {"node-uid"},
						},
					},
					Audiences: []string{audience},
				}
				if diff := cmp.Diff(want, info); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

// TestClaims fixes the form of a token: other programs read it.
func TestClaims(t *testing.T) {
	f := newFixture(t, nil)
	issued, err := f.issuer.Issue(podRequest(), start)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(issued.Token, ".")
	var header, claims map[string]any
	decode(t, parts[0], &header)
	decode(t, parts[1], &claims)
	if header["alg"] != "ES256" || header["kid"] == "" {
		t.Errorf("header %v", header)
	}
	want := map[string]any{
		"iss": issuerURL, "sub": "system:serviceaccount:ns:sa", "aud": []any{audience},
		"iat": float64(start.Unix()), "nbf": float64(start.Unix()), "exp": float64(start.Unix() + 3600),
		"jti": issued.ID,
		"kubernetes.io": map[string]any{
			"namespace":      "ns",
			"serviceaccount": map[string]any{"name": "sa", "uid": "sa-uid"},
			"pod":            map[string]any{"name": "web", "uid": "pod-uid"},
			"node":           map[string]any{"name": "n1", "uid": "node-uid"},
		},
	}
	if diff := cmp.Diff(want, claims); diff != "" {
		t.Error(diff)
	}
	if len(issued.ID) != 36 || issued.ID[14] != '4' {
		t.Errorf("id %q is not a random UUID", issued.ID)
	}
}

func decode(t *testing.T, part string, into any) {
	t.Helper()
	data, err := base64.RawURLEncoding.DecodeString(part)
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestLifetime(t *testing.T) {
	f := newFixture(t, nil)
	for asked, want := range map[time.Duration]time.Duration{
		0:                    time.Hour,
		time.Second:          10 * time.Minute,
		30 * time.Minute:     30 * time.Minute,
		24 * 365 * time.Hour: 24 * time.Hour,
	} {
		r := podRequest()
		r.Lifetime = asked
		issued, err := f.issuer.Issue(r, start)
		if err != nil || issued.Expires.Sub(start) != want {
			t.Errorf("asked %s: %v, %v", asked, issued.Expires.Sub(start), err)
		}
	}
}

// sign makes a token of any header and claims with the fixture's key.
func (f *fixture) sign(t *testing.T, algorithm jose.SignatureAlgorithm, key any, kid string, claims any) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, nil)
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

func (f *fixture) claims() map[string]any {
	return map[string]any{
		"iss": issuerURL, "sub": "system:serviceaccount:ns:sa", "aud": []string{audience},
		"iat": start.Unix(), "nbf": start.Unix(), "exp": start.Unix() + 3600,
		"kubernetes.io": map[string]any{
			"namespace":      "ns",
			"serviceaccount": map[string]any{"name": "sa", "uid": "sa-uid"},
			"pod":            map[string]any{"name": "web", "uid": "pod-uid"},
		},
	}
}

func (f *fixture) kid() string { return f.verifier.keys.Load().set.keys[0].id }

// TestAbuse: each token is one change away from a good one.
func TestAbuse(t *testing.T) {
	f := newFixture(t, nil)
	good := f.claims()
	if _, ok, err := f.check(f.sign(t, jose.ES256, f.key, f.kid(), good)); !ok || err != nil {
		t.Fatalf("the token that all others are made from is refused: %v", err)
	}
	with := func(change func(claims, cluster map[string]any)) string {
		c := f.claims()
		change(c, c["kubernetes.io"].(map[string]any))
		return f.sign(t, jose.ES256, f.key, f.kid(), c)
	}
	foreign, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	signed := f.sign(t, jose.ES256, f.key, f.kid(), good)
	parts := strings.Split(signed, ".")
	b64 := base64.RawURLEncoding.EncodeToString
	publicDER, err := x509.MarshalPKIXPublicKey(f.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	// The classic: the public key as HMAC secret.
	hmacHead := b64([]byte(`{"alg":"HS256","kid":"`+f.kid()+`"}`)) + "." + parts[1]
	mac := hmac.New(sha256.New, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: publicDER}))
	mac.Write([]byte(hmacHead))

	for name, token := range map[string]string{
		"alg none":                  b64([]byte(`{"alg":"none"}`)) + "." + parts[1] + ".",
		"alg none with signature":   b64([]byte(`{"alg":"none","kid":"`+f.kid()+`"}`)) + "." + parts[1] + "." + parts[2],
		"public key as hmac secret": hmacHead + "." + b64(mac.Sum(nil)),
		"key in its own header":     embeddedKey(t, foreign, good),
		"foreign key, our kid":      f.sign(t, jose.ES256, foreign, f.kid(), good),
		"our key, foreign kid":      f.sign(t, jose.ES256, f.key, "another", good),
		"foreign key, no kid":       f.sign(t, jose.ES256, foreign, "", good),
		"rsa key":                   f.sign(t, jose.RS256, rsaKey, f.kid(), good),
		"no signature":              parts[0] + "." + parts[1] + ".",
		"cut signature":             signed[:len(signed)-4],
		"other payload":             parts[0] + "." + b64([]byte(`{"iss":"`+issuerURL+`","sub":"system:serviceaccount:kube-system:admin"}`)) + "." + parts[2],
		"wrong issuer":              with(func(c, _ map[string]any) { c["iss"] = "https://evil" }),
		"no issuer":                 with(func(c, _ map[string]any) { delete(c, "iss") }),
		"wrong audience":            with(func(c, _ map[string]any) { c["aud"] = []string{"vault"} }),
		"no audience":               with(func(c, _ map[string]any) { delete(c, "aud") }),
		"expired":                   with(func(c, _ map[string]any) { c["exp"] = start.Unix() - 60 }),
		"no expiry":                 with(func(c, _ map[string]any) { delete(c, "exp") }),
		"not yet valid":             with(func(c, _ map[string]any) { c["nbf"] = start.Unix() + 60 }),
		"issued in the future":      with(func(c, _ map[string]any) { c["iat"] = start.Unix() + 60 }),
		"subject of another":        with(func(c, _ map[string]any) { c["sub"] = "system:serviceaccount:ns:admin" }),
		"subject no account":        with(func(c, _ map[string]any) { c["sub"] = "system:admin" }),
		"swapped namespace":         with(func(c, k map[string]any) { k["namespace"] = "other"; c["sub"] = "system:serviceaccount:other:sa" }),
		"namespace against subject": with(func(_, k map[string]any) { k["namespace"] = "other" }),
		"no cluster claims":         with(func(c, _ map[string]any) { delete(c, "kubernetes.io") }),
		"account of another uid":    with(func(_, k map[string]any) { k["serviceaccount"] = map[string]any{"name": "sa", "uid": "old"} }),
		"account without uid":       with(func(_, k map[string]any) { k["serviceaccount"] = map[string]any{"name": "sa"} }),
		"pod of another uid":        with(func(_, k map[string]any) { k["pod"] = map[string]any{"name": "web", "uid": "old"} }),
		"pod without uid":           with(func(_, k map[string]any) { k["pod"] = map[string]any{"name": "web"} }),
		"pod that is not there":     with(func(_, k map[string]any) { k["pod"] = map[string]any{"name": "gone", "uid": "pod-uid"} }),
		"secret that is not there":  with(func(_, k map[string]any) { delete(k, "pod"); k["secret"] = map[string]any{"name": "gone", "uid": "u"} }),
		"node of another uid":       with(func(_, k map[string]any) { delete(k, "pod"); k["node"] = map[string]any{"name": "n1", "uid": "old"} }),
		"pod and secret":            with(func(_, k map[string]any) { k["secret"] = map[string]any{"name": "tok", "uid": "secret-uid"} }),
		"empty":                     "",
		"not a token":               "abc",
		"two dots":                  "..",
		"large":                     strings.Repeat("a", 1<<20) + ".b.c",
	} {
		t.Run(name, func(t *testing.T) {
			info, ok, err := f.check(token)
			if ok {
				t.Errorf("accepted as %+v (err %v)", info.User, err)
			}
		})
	}
}

func embeddedKey(t *testing.T, key *ecdsa.PrivateKey, claims any) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, &jose.SignerOptions{EmbedJWK: true})
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

// TestRevocation: a token ends with what it is bound to, at once, even when
// its signature is remembered.
func TestRevocation(t *testing.T) {
	for _, tc := range []struct {
		name   string
		bind   func(*Request)
		object string
	}{
		{"service account", func(r *Request) { r.Pod, r.Node = nil, nil }, "ServiceAccount/ns/sa"},
		{"account of a pod's token", func(*Request) {}, "ServiceAccount/ns/sa"},
		{"pod", func(*Request) {}, "Pod/ns/web"},
		{"secret", func(r *Request) { r.Pod, r.Node, r.Secret = nil, nil, &Ref{"tok", "secret-uid"} }, "Secret/ns/tok"},
		{"node", func(r *Request) { r.Pod = nil }, "Node//n1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFixture(t, nil)
			r := podRequest()
			tc.bind(&r)
			token := f.issue(t, r)
			accepted := func() bool {
				_, ok, err := f.check(token)
				if ok != (err == nil) {
					t.Errorf("ok %v, err %v", ok, err)
				}
				if err != nil && !errors.Is(err, ErrInvalidated) && !strings.Contains(err.Error(), "looking up") {
					t.Errorf("err %v", err)
				}
				return ok
			}
			was := f.objects[tc.object]
			if !accepted() {
				t.Fatal("a good token is refused")
			}
			f.objects[tc.object] = Object{UID: was.UID, DeletionTime: start}
			if !accepted() {
				t.Error("refused while the object shuts down")
			}
			f.clock.SetTime(start.Add(61 * time.Second))
			if accepted() {
				t.Error("accepted a minute after the deletion time")
			}
			f.clock.SetTime(start)
			f.objects[tc.object] = Object{UID: "new"}
			if accepted() {
				t.Error("a new object of the same name revives it")
			}
			f.objects[tc.object] = Object{UID: "error"}
			if accepted() {
				t.Error("accepted though the object could not be looked up")
			}
			delete(f.objects, tc.object)
			if accepted() {
				t.Error("accepted without the object")
			}
		})
	}
}

func TestExpiryOfRememberedToken(t *testing.T) {
	f := newFixture(t, nil)
	token := f.issue(t, podRequest())
	for _, step := range []struct {
		after time.Duration
		want  error
	}{{0, nil}, {time.Hour, nil}, {time.Hour + leeway + time.Second, ErrExpired}, {-leeway, nil}, {-leeway - time.Second, ErrNotYetValid}} {
		f.clock.SetTime(start.Add(step.after))
		if _, ok, err := f.check(token); !errors.Is(err, step.want) || ok != (step.want == nil) {
			t.Errorf("after %s: %v %v", step.after, ok, err)
		}
	}
}

func TestAudiences(t *testing.T) {
	f := newFixture(t, nil)
	r := podRequest()
	r.Audiences = []string{"vault", "other"}
	token := f.issue(t, r)
	if _, ok, err := f.check(token); ok || !errors.Is(err, ErrAudience) {
		t.Errorf("the API server takes a token for others: %v", err)
	}
	info, ok, err := f.check(token, "vault", audience)
	if !ok || err != nil || !cmp.Equal(info.Audiences, []string{"vault"}) {
		t.Errorf("%v %v %v", info, ok, err)
	}
}

func TestNodeOfAPodNeedsNoUID(t *testing.T) {
	f := newFixture(t, nil)
	r := podRequest()
	r.Node = &Ref{Name: "unknown"}
	info, ok, err := f.check(f.issue(t, r))
	if !ok || err != nil || !cmp.Equal(info.User.Extra[auth.ExtraNodeName], []string{"unknown"}) || info.User.Extra[auth.ExtraNodeUID] != nil {
		t.Errorf("%+v %v %v", info, ok, err)
	}
	r.Pod = nil
	if _, err := f.issuer.Issue(r, start); err == nil {
		t.Error("a token bound to a node without UID")
	}
}

func TestKeyRotation(t *testing.T) {
	f := newFixture(t, nil)
	old := f.issue(t, podRequest())
	next := newFixture(t, nil)
	both, err := NewKeySet(next.key.Public(), f.key.Public(), next.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	if len(both.keys) != 2 {
		t.Errorf("%d keys", len(both.keys))
	}
	f.verifier.SetKeys(both)
	for name, token := range map[string]string{"old": old, "new": next.issue(t, podRequest())} {
		if _, ok, err := f.check(token); !ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	noKid := f.sign(t, jose.ES256, f.key, "", f.claims())
	if _, ok, err := f.check(noKid); !ok {
		t.Errorf("token without key id: %v", err)
	}
	only, err := NewKeySet(next.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	f.verifier.SetKeys(only)
	if _, ok, _ := f.check(old); ok {
		t.Error("a token of a removed key is accepted")
	}
}

func TestDocuments(t *testing.T) {
	f := newFixture(t, nil)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := NewKeySet(f.key.Public(), rsaKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	data, err := keys.JWKS()
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(data, []byte(`"d"`)) {
		t.Error("the key set holds a private key")
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(data, &set); err != nil {
		t.Fatal(err)
	}
	// What a workload does: find the key by id and check its own token.
	token := f.issue(t, podRequest())
	parsed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	found := set.Key(parsed.Signatures[0].Header.KeyID)
	if len(found) != 1 || found[0].Use != "sig" || found[0].Algorithm != "ES256" {
		t.Fatalf("keys %+v", found)
	}
	if _, err := parsed.Verify(found[0]); err != nil {
		t.Error(err)
	}
	doc, err := keys.Discovery(issuerURL, issuerURL+"/openid/v1/jwks")
	want := `{"issuer":"` + issuerURL + `","jwks_uri":"` + issuerURL + `/openid/v1/jwks",` +
		`"response_types_supported":["id_token"],"subject_types_supported":["public"],"id_token_signing_alg_values_supported":["ES256","RS256"]}`
	if err != nil || string(doc) != want {
		t.Errorf("%v\n%s\n%s", err, doc, want)
	}
}

func TestParseKeySet(t *testing.T) {
	f := newFixture(t, nil)
	private, err := pki.EncodePrivateKey(f.key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(f.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	set, err := ParseKeySet(private, public)
	if err != nil || len(set.keys) != 1 {
		t.Errorf("%v %v", set, err)
	}
	short, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: f.key.X, E: 65537})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"nothing":   nil,
		"short RSA": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: short}),
		"damaged":   pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der[1:]}),
	} {
		if _, err := ParseKeySet(data); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestForeignTokensAreLeftToOthers(t *testing.T) {
	f := newFixture(t, nil)
	other := f.claims()
	other["iss"] = "https://accounts.example"
	for _, token := range []string{"abcdef.0123456789abcdef", "opaque", f.sign(t, jose.ES256, f.key, "", other)} {
		if _, ok, err := f.check(token); ok || err != nil {
			t.Errorf("%.20s: %v %v", token, ok, err)
		}
	}
}

func FuzzToken(f *testing.F) {
	x := newFixture(f, nil)
	good := x.issue(f, podRequest())
	f.Add(good)
	f.Add("..")
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Add(good[:len(good)-1])
	f.Fuzz(func(t *testing.T, token string) {
		info, ok, err := x.check(token)
		if ok != (err == nil && info != nil) {
			if ok || info != nil {
				t.Fatalf("%v %v %v", info, ok, err)
			}
		}
		// Only what we signed is accepted; base64 may spell the last byte of
		// the signature in several ways.
		if ok && token[:len(token)-2] != good[:len(good)-2] {
			t.Fatalf("accepted %q", token)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	f := newFixture(b, nil)
	token := f.issue(b, podRequest())
	b.ReportAllocs()
	for b.Loop() {
		if _, ok, err := f.check(token); !ok {
			b.Fatal(err)
		}
	}
}
