package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// identityProvider serves the documents of an OpenID Connect issuer and signs
// its tokens.
func identityProvider(t *testing.T) (s *httptest.Server, caFile string, sign func(claims map[string]any) string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k", Use: "sig"}}}
	s = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var doc any = keys
		if r.URL.Path == "/.well-known/openid-configuration" {
			doc = map[string]string{"issuer": "https://" + r.Host, "jwks_uri": "https://" + r.Host + "/keys"}
		}
		if err := json.NewEncoder(w).Encode(doc); err != nil {
			t.Errorf("the issuer's client has gone: %v", err)
		}
	}))
	t.Cleanup(s.Close)
	caFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "k"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s, caFile, func(claims map[string]any) string {
		claims["iss"], claims["exp"] = s.URL, time.Now().Add(time.Hour).Unix()
		payload, err := json.Marshal(claims)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := signer.Sign(payload)
		if err != nil {
			t.Fatal(err)
		}
		text, err := signed.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
}

// TestOIDC: users of an issuer are known by their claims; one issuer that is away
// costs nobody else anything.
func TestOIDC(t *testing.T) {
	issuer, ca, sign := identityProvider(t)
	config := startServer(t, t.TempDir(), "--oidc-issuer-url", issuer.URL, "--oidc-client-id", "kubernetes", "--oidc-ca-file", ca,
		"--oidc-username-prefix", "corp:", "--oidc-groups-claim", "groups", "--oidc-signing-algs", "ES256")
	jane := sign(map[string]any{"aud": "kubernetes", "sub": "jane", "groups": []string{"devs"}})
	me, err := whoami(t.Context(), config, jane)
	if err != nil {
		t.Fatal(err)
	}
	if me.Username != "corp:jane" || !slices.Equal(me.Groups, []string{"devs", "system:authenticated"}) {
		t.Errorf("known as %+v", me)
	}
	for name, token := range map[string]string{
		"another audience": sign(map[string]any{"aud": "vault", "sub": "jane"}),
		"masters":          sign(map[string]any{"aud": "kubernetes", "sub": "jane", "groups": []string{"system:masters"}}),
	} {
		if _, err := whoami(t.Context(), config, token); !apierrors.IsUnauthorized(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	admin := kubernetes.NewForConfigOrDie(config)
	review := func(audiences ...string) authenticationv1.TokenReviewStatus {
		r, err := admin.AuthenticationV1().TokenReviews().Create(t.Context(),
			&authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: jane, Audiences: audiences}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return r.Status
	}
	if s := review(); !s.Authenticated || s.User.Username != "corp:jane" || len(s.Audiences) != 1 {
		t.Errorf("TokenReview: %+v", s)
	}
	if s := review("vault"); s.Authenticated {
		t.Errorf("TokenReview for another audience: %+v", s)
	}
	if err := serviceAccountWorks(t, admin, config); err != nil {
		t.Error(err)
	}
}

// TestDeadIssuer: service accounts and certificates work on, and the issuer's
// own tokens are refused.
func TestDeadIssuer(t *testing.T) {
	issuer, ca, sign := identityProvider(t)
	file := filepath.Join(t.TempDir(), "authentication.yaml")
	pemBytes, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(map[string]any{
		"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
		"jwt": []any{map[string]any{
			"issuer":        map[string]any{"url": issuer.URL, "certificateAuthority": string(pemBytes), "audiences": []string{"a"}},
			"claimMappings": map[string]any{"username": map[string]any{"claim": "sub", "prefix": ""}},
		}},
		"anonymous": map[string]any{"enabled": true, "conditions": []any{map[string]any{"path": "/livez"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	issuer.Close()
	config := startServer(t, t.TempDir(), "--authentication-config", file)
	if err := serviceAccountWorks(t, kubernetes.NewForConfigOrDie(config), config); err != nil {
		t.Error(err)
	}
	if _, err := whoami(t.Context(), config, sign(map[string]any{"aud": "a", "sub": "jane"})); !apierrors.IsUnauthorized(err) {
		t.Errorf("a token of the dead issuer: %v", err)
	}
	anonymous := bearer(config, "").Discovery().RESTClient()
	if err := anonymous.Get().AbsPath("/livez").Do(t.Context()).Error(); err != nil {
		t.Errorf("anonymous at /livez: %v", err)
	}
	if err := anonymous.Get().AbsPath("/version").Do(t.Context()).Error(); !apierrors.IsUnauthorized(err) {
		t.Errorf("anonymous at /version: %v", err)
	}
}

func serviceAccountWorks(t *testing.T, admin *kubernetes.Clientset, config *rest.Config) error {
	t.Helper()
	account := &authenticationv1.TokenRequest{}
	if _, err := admin.CoreV1().ServiceAccounts("default").Create(t.Context(), newAccount("robot"), metav1.CreateOptions{}); err != nil {
		return err
	}
	made, err := admin.CoreV1().ServiceAccounts("default").CreateToken(t.Context(), "robot", account, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	_, err = whoami(t.Context(), config, made.Status.Token)
	return err
}
