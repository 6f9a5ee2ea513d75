package token

import (
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
)

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
