package token

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/auth"
)

// kept is the Secrets of a cluster, and which were told to be in use.
type kept struct {
	secrets map[string]*corev1.Secret
	used    []string
	// generated are the Secrets that accounts name.
	generated []string
}

func (k *kept) Generated(_ context.Context, _ string, s *corev1.Secret) (bool, error) {
	return slices.Contains(k.generated, s.Name), nil
}

func (k *kept) TokenSecret(_ context.Context, namespace, name string) (*corev1.Secret, error) {
	if name == "unreadable" {
		return nil, errors.New("the store is away")
	}
	return k.secrets[namespace+"/"+name], nil
}

func (k *kept) TokenUsed(_ context.Context, s *corev1.Secret, day string) {
	k.used = append(k.used, s.Name+" "+day)
}

// legacyFixture has an account sa with a token in the Secret kept.
func legacyFixture(t *testing.T) (f *fixture, k *kept, text string) {
	t.Helper()
	f = newFixture(t, nil)
	k = &kept{secrets: map[string]*corev1.Secret{}}
	config := f.verifier.config
	config.Secrets = k
	var err error
	if f.verifier, err = NewVerifier(config); err != nil {
		t.Fatal(err)
	}
	if text, err = f.issuer.IssueLegacy("ns", Ref{"sa", "sa-uid"}, "kept"); err != nil {
		t.Fatal(err)
	}
	k.keep("kept", text)
	return f, k, text
}

func (k *kept) keep(name, text string) *corev1.Secret {
	s := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: "kept-uid", Labels: map[string]string{}},
		Type:       corev1.SecretTypeServiceAccountToken, Data: map[string][]byte{"token": []byte(text)},
	}
	k.secrets["ns/"+name] = s
	return s
}

func legacyClaims() map[string]any {
	return map[string]any{
		"iss": LegacyIssuer, "sub": "system:serviceaccount:ns:sa",
		"kubernetes.io/serviceaccount/namespace":            "ns",
		"kubernetes.io/serviceaccount/secret.name":          "kept",
		"kubernetes.io/serviceaccount/service-account.name": "sa",
		"kubernetes.io/serviceaccount/service-account.uid":  "sa-uid",
	}
}

func TestLegacyToken(t *testing.T) {
	f, k, text := legacyFixture(t)
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(text, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	want := `{"iss":"kubernetes/serviceaccount","sub":"system:serviceaccount:ns:sa",` +
		`"kubernetes.io/serviceaccount/namespace":"ns","kubernetes.io/serviceaccount/secret.name":"kept",` +
		`"kubernetes.io/serviceaccount/service-account.name":"sa","kubernetes.io/serviceaccount/service-account.uid":"sa-uid"}`
	if string(payload) != want {
		t.Errorf("the claims are %s, want %s", payload, want)
	}
	f.clock.SetTime(start.AddDate(20, 0, 0)) // it does not expire
	info, ok, err := f.check(text)
	if !ok || err != nil {
		t.Fatalf("it is refused: %v", err)
	}
	if diff := cmp.Diff(&auth.User{
		Name: "system:serviceaccount:ns:sa", UID: "sa-uid", Extra: map[string][]string{}, Remark: &auth.Remark{Key: "authentication.k8s.io/legacy-token-manual-secret", Value: "kept"},
		Groups: []string{"system:serviceaccounts", "system:serviceaccounts:ns"},
	}, info.User); diff != "" {
		t.Errorf("user (-want +got):\n%s", diff)
	}
	if !slices.Equal(info.Audiences, []string{audience}) {
		t.Errorf("it is for %v", info.Audiences)
	}
	if _, ok, err := f.check(text, "vault"); ok || !errors.Is(err, ErrAudience) {
		t.Errorf("another audience: %v, %v", ok, err)
	}
	if want := []string{"kept " + start.AddDate(20, 0, 0).UTC().Format(time.DateOnly)}; !slices.Equal(k.used, want) {
		t.Errorf("told to be in use: %v, want %v", k.used, want)
	}
}

// TestLegacyTokenUse: the day is written down once, and a server that is a day
// ahead is not contradicted.
func TestLegacyTokenUse(t *testing.T) {
	f, k, text := legacyFixture(t)
	day := func(n int) string { return start.UTC().AddDate(0, 0, n).Format(time.DateOnly) }
	for label, want := range map[string][]string{"": {"kept " + day(0)}, day(-1): {"kept " + day(0)}, day(0): nil, day(1): nil, day(2): {"kept " + day(0)}, "x": {"kept " + day(0)}} {
		k.used = nil
		k.secrets["ns/kept"].Labels[LegacyLastUsed] = label
		if _, ok, err := f.check(text); !ok {
			t.Errorf("last used %q: %v", label, err)
		}
		if !slices.Equal(k.used, want) {
			t.Errorf("last used %q: told %v, want %v", label, k.used, want)
		}
	}
}

// TestLegacyTokenWithdrawn: a token counts as long as its Secret and its
// account say so, whatever was found before.
func TestLegacyTokenWithdrawn(t *testing.T) {
	gone := metav1.NewTime(start)
	for name, change := range map[string]func(f *fixture, k *kept, s *corev1.Secret){
		"secret deleted":          func(_ *fixture, k *kept, _ *corev1.Secret) { clear(k.secrets) },
		"secret being deleted":    func(_ *fixture, _ *kept, s *corev1.Secret) { s.DeletionTimestamp = &gone },
		"secret emptied":          func(_ *fixture, _ *kept, s *corev1.Secret) { s.Data = nil },
		"secret of another token": func(_ *fixture, _ *kept, s *corev1.Secret) { s.Data["token"] = []byte("another") },
		"secret with more":        func(_ *fixture, _ *kept, s *corev1.Secret) { s.Data["token"] = append(s.Data["token"], '\n') },
		"opaque secret":           func(_ *fixture, _ *kept, s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque },
		"marked":                  func(_ *fixture, _ *kept, s *corev1.Secret) { s.Labels[LegacyInvalidSince] = "2026-01-01" },
		"account deleted":         func(f *fixture, _ *kept, _ *corev1.Secret) { delete(f.objects, "ServiceAccount/ns/sa") },
		"account being deleted": func(f *fixture, _ *kept, _ *corev1.Secret) {
			f.objects["ServiceAccount/ns/sa"] = Object{UID: "sa-uid", DeletionTime: start}
		},
		"account of another uid": func(f *fixture, _ *kept, _ *corev1.Secret) {
			f.objects["ServiceAccount/ns/sa"] = Object{UID: "new-uid"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, k, text := legacyFixture(t)
			if _, ok, err := f.check(text); !ok {
				t.Fatalf("refused before: %v", err)
			}
			change(f, k, k.secrets["ns/kept"])
			k.used = nil
			if _, ok, err := f.check(text); ok || !errors.Is(err, ErrInvalidated) {
				t.Errorf("accepted %v, %v", ok, err)
			}
			if marked := name == "marked"; len(k.used) > 0 != marked {
				t.Errorf("told to be in use: %v", k.used)
			}
		})
	}
	f, _, text := legacyFixture(t)
	f.objects["ServiceAccount/ns/sa"] = Object{UID: "error"}
	if _, ok, err := f.check(text); ok || err == nil {
		t.Errorf("an account that cannot be looked up: %v, %v", ok, err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := NewKeySet(other.Public())
	if err != nil {
		t.Fatal(err)
	}
	f, _, text = legacyFixture(t)
	f.verifier.SetKeys(keys)
	if _, ok, err := f.check(text); ok || !errors.Is(err, ErrMalformed) {
		t.Errorf("a key that is not believed any more: %v, %v", ok, err)
	}
}

// TestLegacyTokenForged: each token is kept in the Secret that it names, and is
// wrong all the same.
func TestLegacyTokenForged(t *testing.T) {
	f, k, text := legacyFixture(t)
	foreign, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := f.sign(t, jose.ES256, f.key, f.kid(), legacyClaims())
	k.keep("kept", good)
	if _, ok, err := f.check(good); !ok {
		t.Fatalf("the token that all others are made from is refused: %v", err)
	}
	with := func(changes map[string]any) string {
		c := legacyClaims()
		maps.Copy(c, changes)
		maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
		return f.sign(t, jose.ES256, f.key, f.kid(), c)
	}
	const prefix = "kubernetes.io/serviceaccount/"
	parts := strings.Split(text, ".")
	b64 := base64.RawURLEncoding.EncodeToString
	for name, forged := range map[string]string{
		"alg none":               b64([]byte(`{"alg":"none"}`)) + "." + parts[1] + ".",
		"alg none and signature": b64([]byte(`{"alg":"none"}`)) + "." + parts[1] + "." + parts[2],
		"unsigned":               parts[0] + "." + parts[1] + ".",
		"foreign key":            f.sign(t, jose.ES256, foreign, "", legacyClaims()),
		"foreign key, our kid":   f.sign(t, jose.ES256, foreign, f.kid(), legacyClaims()),
		"key in its own header":  embeddedKey(t, foreign, legacyClaims()),
		"issuer of others":       with(map[string]any{"iss": issuerURL}),
		"issuer unknown":         with(map[string]any{"iss": "kubernetes/serviceaccount/"}),
		"no issuer":              with(map[string]any{"iss": nil}),
		"no subject":             with(map[string]any{"sub": nil}),
		"subject of another":     with(map[string]any{"sub": "system:serviceaccount:kube-system:sa"}),
		"no namespace":           with(map[string]any{prefix + "namespace": nil}),
		"no secret":              with(map[string]any{prefix + "secret.name": nil}),
		"no account":             with(map[string]any{prefix + "service-account.name": nil}),
		"no uid":                 with(map[string]any{prefix + "service-account.uid": nil}),
		"uid of another":         with(map[string]any{prefix + "service-account.uid": "new-uid"}),
		"secret not readable":    with(map[string]any{prefix + "secret.name": "unreadable"}),
		"secret of another name": with(map[string]any{prefix + "secret.name": "absent"}),
		"expired":                with(map[string]any{"exp": start.Unix() - 60}),
		"with an audience":       with(map[string]any{"aud": []string{audience}}),
		"with claims of others":  with(map[string]any{"kubernetes.io": f.claims()["kubernetes.io"]}),
	} {
		t.Run(name, func(t *testing.T) {
			k.keep("kept", forged)
			k.used = nil
			if info, ok, err := f.check(forged); ok {
				t.Errorf("accepted as %+v (err %v)", info.User, err)
			}
			if len(k.used) > 0 {
				t.Errorf("told to be in use: %v", k.used)
			}
		})
	}
	// Without Secrets to look into, and as an issuer of tokens without one.
	config := f.verifier.config
	config.Secrets = nil
	v, err := NewVerifier(config)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok, _ := v.AuthenticateToken(t.Context(), text, nil); ok {
		t.Error("accepted with no Secrets to look into")
	}
	config.Issuers = append(config.Issuers, LegacyIssuer)
	if _, err := NewVerifier(config); err == nil {
		t.Error("the issuer of tokens in secrets is an issuer of others")
	}
}

// TestLegacyRemarks: the use of a token in a Secret is remarked upon, by who has
// made the Secret, and whoever uses one that nobody asked for is warned.
func TestLegacyRemarks(t *testing.T) {
	f, k, text := legacyFixture(t)
	for _, tc := range []struct {
		generated []string
		want      auth.Remark
	}{
		{nil, auth.Remark{Key: "authentication.k8s.io/legacy-token-manual-secret", Value: "kept"}},
		{[]string{"kept"}, auth.Remark{Key: "authentication.k8s.io/legacy-token-autogenerated-secret", Value: "kept", Warning: generatedWarning}},
	} {
		k.generated = tc.generated
		info, ok, err := f.verifier.AuthenticateToken(t.Context(), text, nil)
		if err != nil || !ok || info.User.Remark == nil || *info.User.Remark != tc.want {
			t.Errorf("%v: %+v, %v", tc.generated, info, err)
		}
	}
	k.secrets["ns/kept"].Labels = map[string]string{LegacyInvalidSince: "2026-01-01"}
	_, _, err := f.verifier.AuthenticateToken(t.Context(), text, nil)
	var remarked *auth.RemarkedError
	if !errors.As(err, &remarked) || remarked.Remark != (auth.Remark{Key: "authentication.k8s.io/legacy-token-invalidated", Value: "kept/ns"}) || !errors.Is(err, ErrInvalidated) {
		t.Errorf("invalidated: %v", err)
	}
}
