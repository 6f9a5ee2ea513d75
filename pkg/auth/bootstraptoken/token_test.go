package bootstraptoken

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func secret(data map[string]string) *corev1.Secret {
	s := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: NamePrefix + "abc123"}, Type: SecretType,
		Data: map[string][]byte{"token-id": []byte("abc123"), "token-secret": []byte("0123456789abcdef")},
	}
	for k, v := range data {
		s.Data[k] = []byte(v)
	}
	return s
}

func TestParse(t *testing.T) {
	full, err := Parse(secret(map[string]string{
		"expiration": "2030-01-02T03:04:05Z", "usage-bootstrap-authentication": "true", "usage-bootstrap-signing": "true",
		"auth-extra-groups": "system:bootstrappers:worker,system:bootstrappers:a-b:c,system:bootstrappers:worker",
	}))
	if err != nil {
		t.Fatal(err)
	}
	want := &Token{
		ID: "abc123", Secret: "0123456789abcdef", Expires: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC), Authentication: true, Signing: true,
		Groups: []string{"system:bootstrappers", "system:bootstrappers:a-b:c", "system:bootstrappers:worker"},
	}
	if d := cmp.Diff(want, full); d != "" {
		t.Error(d)
	}
	plain, err := Parse(secret(map[string]string{"usage-bootstrap-authentication": "True"}))
	if err != nil || plain.Authentication || plain.Signing || !plain.Expires.IsZero() || len(plain.Groups) != 1 {
		t.Errorf("%+v, %v: a use that is not marked \"true\" is none", plain, err)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, s := range map[string]*corev1.Secret{
		"type":                {ObjectMeta: secret(nil).ObjectMeta, Type: corev1.SecretTypeOpaque, Data: secret(nil).Data},
		"another name":        secret(map[string]string{"token-id": "abc124"}),
		"upper case id":       secret(map[string]string{"token-id": "ABC123"}),
		"short secret":        secret(map[string]string{"token-secret": "0123"}),
		"empty secret":        secret(map[string]string{"token-secret": ""}),
		"expiration":          secret(map[string]string{"expiration": "tomorrow"}),
		"group of masters":    secret(map[string]string{"auth-extra-groups": "system:masters"}),
		"one bad group":       secret(map[string]string{"auth-extra-groups": "system:bootstrappers:a,system:nodes"}),
		"group with a space":  secret(map[string]string{"auth-extra-groups": "system:bootstrappers:a, system:bootstrappers:b"}),
		"group ends in colon": secret(map[string]string{"auth-extra-groups": "system:bootstrappers:a:"}),
		"group without name":  secret(map[string]string{"auth-extra-groups": "system:bootstrappers:"}),
		"long group":          secret(map[string]string{"auth-extra-groups": "system:bootstrappers:" + strings.Repeat("a", 257)}),
	} {
		if tok, err := Parse(s); err == nil {
			t.Errorf("%s: %+v", name, tok)
		}
	}
}

func TestExpired(t *testing.T) {
	at := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		token Token
		now   time.Time
		want  bool
	}{
		{Token{}, at, false},
		{Token{Expires: at}, at.Add(-time.Second), false},
		{Token{Expires: at}, at, true},
		{Token{Expires: at}, at.Add(time.Hour), true},
	} {
		if got := c.token.Expired(c.now); got != c.want {
			t.Errorf("%+v at %s: %v", c.token, c.now, got)
		}
	}
}

func TestSplit(t *testing.T) {
	if id, s, ok := Split("abc123.0123456789abcdef"); !ok || id != "abc123" || s != "0123456789abcdef" {
		t.Errorf("%q %q %v", id, s, ok)
	}
	for _, bad := range []string{"", ".", "abc123", "abc123.", "abc123.0123456789abcde", "abc123.0123456789abcdef.x",
		"ABC123.0123456789abcdef", "../123.0123456789abcdef", "abc123.0123456789abcdef\n", "eyJh.eyJh.c2ln"} {
		if _, _, ok := Split(bad); ok {
			t.Errorf("%q is taken for a token", bad)
		}
	}
}

// TestSign holds the signature against one that was made by other means.
func TestSign(t *testing.T) {
	tok := &Token{ID: "abc123", Secret: "0123456789abcdef"}
	const content = "apiVersion: v1\nkind: Config\n"
	sig, err := tok.Sign(content)
	if err != nil {
		t.Fatal(err)
	}
	const want = "eyJhbGciOiJIUzI1NiIsImtpZCI6ImFiYzEyMyJ9..qTvWXImTCcLAxj6nw53xOmdsSzLP1_zffoBVin_NQD4"
	if sig != want {
		t.Errorf("%q, want %q", sig, want)
	}
	if !tok.Verify(content, sig) {
		t.Error("does not verify its own signature")
	}
	for name, ok := range map[string]bool{
		"other content": tok.Verify(content+" ", sig),
		"other token":   (&Token{ID: "abc123", Secret: "0123456789abcdeg"}).Verify(content, sig),
		"other id":      (&Token{ID: "abc124", Secret: "0123456789abcdef"}).Verify(content, sig),
		"no signature":  tok.Verify(content, ""),
	} {
		if ok {
			t.Errorf("%s verifies", name)
		}
	}
	if _, err := (&Token{ID: "abc123"}).Sign(content); err == nil {
		t.Error("a token without a secret signs")
	}
}

func FuzzSplit(f *testing.F) {
	f.Add("abc123.0123456789abcdef")
	f.Fuzz(func(t *testing.T, token string) {
		if id, s, ok := Split(token); ok && (len(token) != 23 || id+"."+s != token) {
			t.Errorf("%q gave %q and %q", token, id, s)
		}
	})
}

// TestNewSecret: a new token is one that the cluster believes, for its time.
func TestNewSecret(t *testing.T) {
	ends := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	token, err := Parse(NewSecret("ABCDEFGHIJKLMNOPQRSTUVWXYZ", ends, Limits{Machines: 2, Node: "n1"}))
	if err != nil {
		t.Fatal(err)
	}
	if token.ID != "abcdef" || token.Secret != "ghijklmnopqrstuv" || !token.Authentication || !token.Signing || !token.Expires.Equal(ends) ||
		len(token.Groups) != 2 || token.Groups[1] != NodeGroup || token.Limits != (Limits{Machines: 2, Node: "n1"}) {
		t.Errorf("%+v", token)
	}
}
