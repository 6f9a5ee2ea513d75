package auth

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"
)

func TestBootstrapTokens(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	const good = "abc123.0123456789abcdef"
	for _, c := range []struct {
		name, token string
		change      func(*corev1.Secret)
		fail        error
		ok          bool
	}{
		{name: "good", token: good, ok: true},
		{name: "ends later", token: good, change: func(s *corev1.Secret) { s.Data["expiration"] = []byte("2030-01-01T00:00:01Z") }, ok: true},
		{name: "ended", token: good, change: func(s *corev1.Secret) { s.Data["expiration"] = []byte("2029-12-31T23:59:59Z") }},
		{name: "unreadable end", token: good, change: func(s *corev1.Secret) { s.Data["expiration"] = []byte("never") }},
		{name: "wrong secret", token: "abc123.0123456789abcdeg"},
		{name: "unknown id", token: "abc124.0123456789abcdef"},
		{name: "not for authentication", token: good, change: func(s *corev1.Secret) { delete(s.Data, "usage-bootstrap-authentication") }},
		{name: "deleted", token: good, change: func(s *corev1.Secret) { s.DeletionTimestamp = &metav1.Time{Time: now} }},
		{name: "other type", token: good, change: func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque }},
		{name: "other id inside", token: good, change: func(s *corev1.Secret) { s.Data["token-id"] = []byte("abc124") }},
		{name: "group of masters", token: good, change: func(s *corev1.Secret) { s.Data["auth-extra-groups"] = []byte("system:masters") }},
		{name: "store fails", token: good, fail: errors.New("the store is away")},
		{name: "a JWT", token: "eyJhbGciOiJub25lIn0.e30."},
	} {
		s := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: "bootstrap-token-abc123"}, Type: "bootstrap.kubernetes.io/token",
			Data: map[string][]byte{"token-id": []byte("abc123"), "token-secret": []byte("0123456789abcdef"), "usage-bootstrap-authentication": []byte("true")},
		}
		if c.change != nil {
			c.change(s)
		}
		b := AudienceAgnostic{Own: []string{"api"}, Tokens: &BootstrapTokens{Clock: clocktesting.NewFakePassiveClock(now),
			Secret: func(_ context.Context, name string) (*corev1.Secret, error) {
				if c.fail != nil || name != s.Name {
					return nil, c.fail
				}
				return s, nil
			}}}
		info, ok, err := b.AuthenticateToken(t.Context(), c.token, nil)
		if ok != c.ok || !errors.Is(err, c.fail) {
			t.Errorf("%s: %v, %v", c.name, ok, err)
		}
		if !ok {
			continue
		}
		want := &TokenInfo{User: &User{Name: "system:bootstrap:abc123", Groups: []string{"system:bootstrappers"}}, Audiences: []string{"api"}}
		if d := cmp.Diff(want, info); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
		if _, ok, _ := b.AuthenticateToken(t.Context(), c.token, []string{"vault"}); ok {
			t.Errorf("%s: the token is good for another audience", c.name)
		}
	}
}
