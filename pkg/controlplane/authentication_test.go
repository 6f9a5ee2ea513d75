package controlplane_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"coracle/pkg/controlplane"
	"coracle/pkg/storage/memory"
)

// provider is an OpenID Connect issuer on the loopback.
type provider struct {
	*httptest.Server
	signer jose.Signer
}

func newProvider(t *testing.T) *provider {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p := &provider{}
	if p.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "k"}}, nil); err != nil {
		t.Fatal(err)
	}
	keys := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k", Use: "sig"}}}
	p.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var doc any = keys
		if r.URL.Path == "/elsewhere" {
			doc = map[string]string{"issuer": "https://issuer.example", "jwks_uri": "https://" + r.Host + "/keys"}
		}
		if err := json.NewEncoder(w).Encode(doc); err != nil {
			t.Errorf("the issuer's client has gone: %v", err)
		}
	}))
	t.Cleanup(p.Close)
	return p
}

// token has the claims and what every token needs.
func (p *provider) token(t *testing.T, claims map[string]any) string {
	t.Helper()
	all := map[string]any{"iss": "https://issuer.example", "aud": "kubernetes", "exp": time.Now().Add(time.Hour).Unix()}
	for k, v := range claims {
		all[k] = v
	}
	payload, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := p.signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// file is an AuthenticationConfiguration with further parts of its JWT issuer.
func (p *provider) file(t *testing.T, audiences string, jwt map[string]any, anonymous any) []byte {
	t.Helper()
	one := map[string]any{"issuer": map[string]any{
		"url": "https://issuer.example", "discoveryURL": p.URL + "/elsewhere", "audiences": strings.Split(audiences, ","), "audienceMatchPolicy": "MatchAny",
		"certificateAuthority": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Certificate().Raw})),
	}}
	for k, v := range jwt {
		one[k] = v
	}
	doc := map[string]any{"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration", "jwt": []any{one}}
	if anonymous != nil {
		doc["anonymous"] = anonymous
	}
	text, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func expressionOf(text string) map[string]any { return map[string]any{"expression": text} }

// known is how the server knows the bearer of a token.
func known(t *testing.T, config *rest.Config, token string) (authenticationv1.UserInfo, error) {
	t.Helper()
	c := rest.AnonymousClientConfig(config)
	c.BearerToken, c.QPS = token, -1
	r, err := kubernetes.NewForConfigOrDie(c).AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return authenticationv1.UserInfo{}, err
	}
	return r.Status.UserInfo, nil
}

// TestAuthenticationConfiguration: the file's expressions make users and refuse
// tokens, and a changed file is in force with no restart; a bad one is not.
func TestAuthenticationConfiguration(t *testing.T) {
	p, dir := newProvider(t), t.TempDir()
	file := filepath.Join(dir, "authentication.yaml")
	mappings := map[string]any{
		"username": expressionOf(`"corp:" + claims.sub`),
		"groups":   expressionOf(`claims.?roles.orValue([]).map(r, "role:" + r)`),
		"uid":      expressionOf(`claims.oid`),
		"extra": []any{
			map[string]any{"key": "example.com/tenant", "valueExpression": `claims.tenant`},
			map[string]any{"key": "example.com/admin", "valueExpression": `has(claims.admin) && claims.admin ? "true" : ""`},
		},
	}
	put(t, file, p.file(t, "kubernetes,other", map[string]any{
		"claimMappings": mappings,
		"claimValidationRules": []any{
			map[string]any{"claim": "hd", "requiredValue": "example.com"},
			map[string]any{"expression": `claims.exp - claims.nbf <= 86400`, "message": "tokens live for a day at the most"},
		},
		"userValidationRules": []any{map[string]any{"expression": `!user.groups.exists(g, g == "role:banned") && user.extra["example.com/tenant"].size() == 1`, "message": "go away"}},
	}, map[string]any{"enabled": true, "conditions": []any{map[string]any{"path": "/livez"}}}))
	config := serve(t, filepath.Join(dir, "data"), func(o *controlplane.ServeOptions) {
		o.AuthenticationFile, o.ReloadEvery = file, 20*time.Millisecond
	})
	now := time.Now().Unix()
	good := map[string]any{"sub": "jane", "oid": "7", "roles": []string{"dev"}, "tenant": "red", "hd": "example.com", "nbf": now}
	with := func(change map[string]any) string {
		claims := map[string]any{}
		for _, m := range []map[string]any{good, change} {
			for k, v := range m {
				claims[k] = v
			}
		}
		return p.token(t, claims)
	}
	me, err := known(t, config, with(nil))
	if err != nil {
		t.Fatal(err)
	}
	want := authenticationv1.UserInfo{Username: "corp:jane", UID: "7", Groups: []string{"role:dev", "system:authenticated"},
		Extra: map[string]authenticationv1.ExtraValue{"example.com/tenant": {"red"}}}
	if d := cmp.Diff(want, me); d != "" {
		t.Error(d)
	}
	for name, change := range map[string]map[string]any{
		"no such claim":        {"oid": nil},
		"a required claim":     {"hd": "example.org"},
		"a claim rule":         {"nbf": now - 90000},
		"a user rule":          {"roles": []string{"banned"}},
		"a user's name":        {"sub": 7},
		"groups of no text":    {"roles": []int{1}},
		"an attribute missing": {"tenant": ""},
	} {
		if me, err := known(t, config, with(change)); !apierrors.IsUnauthorized(err) {
			t.Errorf("%s: %+v, %v", name, me, err)
		}
	}
	stranger := rest.AnonymousClientConfig(config)
	code := func(path string) int { c, _ := ask(t, stranger, "GET", path); return c }
	if code("/livez") != 200 || code("/version") != 401 {
		t.Error("anonymous.conditions do not count")
	}

	// Another mapping, and nothing about anonymous requests: Kubernetes' default.
	mappings["username"] = expressionOf(`"new:" + claims.sub`)
	put(t, file, p.file(t, "kubernetes", map[string]any{"claimMappings": mappings}, nil))
	within(t, "the changed file is in force", func() error {
		me, err := known(t, config, with(nil))
		if err == nil && me.Username != "new:jane" {
			err = fmt.Errorf("known as %s", me.Username)
		}
		return err
	})
	if code("/version") != 200 || code("/api") != 403 {
		t.Error("without the file's word strangers are let through everywhere")
	}
	// One that cannot be read, and one whose expression does not compile, leave it
	// as it is; what follows them is in force.
	put(t, file, []byte("{"))
	mappings["username"] = expressionOf(`claims.`)
	put(t, file, p.file(t, "kubernetes", map[string]any{"claimMappings": mappings}, nil))
	if me, err := known(t, config, with(nil)); err != nil || me.Username != "new:jane" {
		t.Errorf("under a bad file: %+v, %v", me, err)
	}
	mappings["username"] = expressionOf(`claims.sub`)
	put(t, file, p.file(t, "other", map[string]any{"claimMappings": mappings}, nil))
	within(t, "another audience counts", func() error {
		if _, err := known(t, config, with(nil)); !apierrors.IsUnauthorized(err) {
			return errors.New("the old one still counts")
		}
		_, err := known(t, config, with(map[string]any{"aud": []string{"x", "other"}}))
		return err
	})
	if me, err := known(t, config, with(map[string]any{"aud": "other", "sub": "system:admin"})); !apierrors.IsUnauthorized(err) {
		t.Errorf("a name of the cluster's own by an expression: %+v, %v", me, err)
	}
}

// TestBadAuthenticationConfiguration: a server does not start by a file that it
// does not understand in full.
func TestBadAuthenticationConfiguration(t *testing.T) {
	p := newProvider(t)
	username := map[string]any{"username": expressionOf("claims.sub")}
	for want, jwt := range map[string]map[string]any{
		"claims.email_verified must be used": {"claimMappings": map[string]any{"username": expressionOf("claims.email")}},
		"compilation failed":                 {"claimMappings": map[string]any{"username": expressionOf("claims..x")}},
		"must evaluate to bool":              {"claimMappings": username, "claimValidationRules": []any{expressionOf("claims.sub + 'x'")}},
		"undefined field 'name'":             {"claimMappings": username, "userValidationRules": []any{expressionOf("user.name == 'x'")}},
		"undeclared reference to 'user'":     {"claimMappings": username, "claimValidationRules": []any{expressionOf("user.username == 'x'")}},
	} {
		dir := t.TempDir()
		file := filepath.Join(dir, "authentication.yaml")
		put(t, file, p.file(t, "a", jwt, nil))
		err := controlplane.Serve(t.Context(), controlplane.ServeOptions{
			Config:  controlplane.Config{Backend: memory.New(memory.Config{}), SoleWriter: true},
			DataDir: filepath.Join(dir, "data"), BindAddress: "127.0.0.1", AuthenticationFile: file,
		})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
