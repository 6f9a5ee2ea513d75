package auth

import (
	"context"
	"crypto/subtle"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"

	"coracle/pkg/auth/bootstraptoken"
)

// BootstrapTokens knows the tokens with which machines join. A token that it
// does not know, or that has ended, is nobody's: what was wrong with it is not
// told, since it would help to guess.
type BootstrapTokens struct {
	// Secret reads a Secret of kube-system, nil when there is none.
	Secret func(ctx context.Context, name string) (*corev1.Secret, error)
	Clock  clock.PassiveClock
}

var _ TokenAuthenticator = (*BootstrapTokens)(nil)

// AuthenticateToken implements TokenAuthenticator. Wrap it in AudienceAgnostic:
// the tokens know no audiences.
func (b *BootstrapTokens) AuthenticateToken(ctx context.Context, token string, _ []string) (*TokenInfo, bool, error) {
	id, secret, ok := bootstraptoken.Split(token)
	if !ok {
		return nil, false, nil
	}
	stored, err := b.Secret(ctx, bootstraptoken.NamePrefix+id)
	if err != nil {
		return nil, false, fmt.Errorf("looking up a bootstrap token: %w", err)
	}
	if stored == nil || stored.DeletionTimestamp != nil {
		return nil, false, nil
	}
	t, err := bootstraptoken.Parse(stored)
	if err != nil || subtle.ConstantTimeCompare([]byte(t.Secret), []byte(secret)) != 1 ||
		!t.Authentication || t.Expired(b.Clock.Now()) {
		return nil, false, nil
	}
	return &TokenInfo{User: &User{Name: bootstraptoken.UserPrefix + id, Groups: t.Groups}}, true, nil
}

// AudienceAgnostic makes tokens without audiences good for those of the API
// server: who asks for others learns nothing about them.
type AudienceAgnostic struct {
	Tokens TokenAuthenticator
	// Own are the audiences of the API server.
	Own []string
}

// AuthenticateToken implements TokenAuthenticator.
func (a AudienceAgnostic) AuthenticateToken(ctx context.Context, token string, audiences []string) (*TokenInfo, bool, error) {
	both := a.Own
	if len(audiences) > 0 {
		if both = intersection(a.Own, audiences); len(both) == 0 {
			return nil, false, nil
		}
	}
	info, ok, err := a.Tokens.AuthenticateToken(ctx, token, nil)
	if err != nil || !ok || info == nil {
		return nil, false, err
	}
	return &TokenInfo{User: info.User, Audiences: both}, true, nil
}

func intersection(a, b []string) []string {
	var both []string
	for _, x := range a {
		for _, y := range b {
			if x == y {
				both = append(both, x)
				break
			}
		}
	}
	return both
}
