package token

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
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
