package token

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"coracle/pkg/auth"
)

// LegacyIssuer is the "iss" of tokens that are kept in Secrets. They do not
// expire: what ends one is the end of its Secret or of its account.
const LegacyIssuer = "kubernetes/serviceaccount"

// Labels of Secrets with tokens. Both are dates, as LegacyDate writes them.
const (
	// LegacyInvalidSince has the token refused, whatever its value.
	LegacyInvalidSince = "kubernetes.io/legacy-token-invalid-since"
	// LegacyLastUsed is the day on which the token was last shown.
	LegacyLastUsed = "kubernetes.io/legacy-token-last-used"
	// LegacyDate is their layout.
	LegacyDate = time.DateOnly
)

// The ConfigMap in kube-system that says since which day uses are noted.
const (
	TrackingName  = "kube-apiserver-legacy-service-account-token-tracking"
	TrackingSince = "since"
)

// remarkPrefix begins the keys under which the audit log has the use of tokens in
// Secrets; generatedWarning is for those who use one that nobody asked for. Both are
// kube-apiserver's.
const (
	remarkPrefix     = "authentication.k8s.io/legacy-token-"
	generatedWarning = "Use tokens from the TokenRequest API or manually created secret-based tokens instead of auto-generated secret-based tokens."
)

// LegacyClaims are the claims of a token that is kept in a Secret.
type LegacyClaims struct {
	Namespace          string `json:"kubernetes.io/serviceaccount/namespace,omitempty"`
	SecretName         string `json:"kubernetes.io/serviceaccount/secret.name,omitempty"`
	ServiceAccountName string `json:"kubernetes.io/serviceaccount/service-account.name,omitempty"`
	ServiceAccountUID  string `json:"kubernetes.io/serviceaccount/service-account.uid,omitempty"`
}

// Secrets looks up the Secrets that keep tokens, as fresh as Objects does.
type Secrets interface {
	// TokenSecret returns nil when there is none; it is not changed.
	TokenSecret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	// TokenUsed is told of every token that was shown with a good signature and
	// whose Secret does not say so yet. It must not fail the request.
	TokenUsed(ctx context.Context, s *corev1.Secret, day string)
	// Generated says whether the Secret was made for its account by the cluster, as
	// old ones did, and not by a user: the account then names it.
	Generated(ctx context.Context, account string, s *corev1.Secret) (bool, error)
}

// IssueLegacy signs the token of an account that is kept in the named Secret
// of its namespace.
func (i *Issuer) IssueLegacy(namespace string, account Ref, secret string) (string, error) {
	if namespace == "" || account.Name == "" || account.UID == "" || secret == "" {
		return "", errors.New("a token in a secret needs a namespace, an account with its UID and the secret's name")
	}
	return i.sign(&Claims{
		Issuer:  LegacyIssuer,
		Subject: auth.ServiceAccountName(namespace, account.Name),
		LegacyClaims: LegacyClaims{
			Namespace: namespace, SecretName: secret, ServiceAccountName: account.Name, ServiceAccountUID: account.UID,
		},
	})
}

// authenticateLegacy checks a token of LegacyIssuer whose signature is good.
func (v *Verifier) authenticateLegacy(ctx context.Context, token string, c *Claims, wanted []string) (*auth.TokenInfo, bool, error) {
	if err := c.validLegacy(); err != nil {
		return nil, false, err
	}
	if len(wanted) == 0 {
		wanted = v.config.Audiences
	}
	// Such a token names no audience, and is for the API server.
	var both []string
	for _, a := range v.config.Audiences {
		if slices.Contains(wanted, a) {
			both = append(both, a)
		}
	}
	if len(both) == 0 {
		return nil, false, fmt.Errorf("%w: the token is for the API server", ErrAudience)
	}
	now := v.config.Clock.Now()
	s, err := v.keptIn(ctx, token, c)
	if err != nil {
		return nil, false, err
	}
	o, ok, err := v.config.Objects.Object(ctx, ServiceAccount, c.Namespace, c.ServiceAccountName)
	switch {
	case err != nil:
		return nil, false, fmt.Errorf("looking up the %s of a service account token: %w", ServiceAccount, err)
	case !ok, !o.DeletionTime.IsZero():
		return nil, false, fmt.Errorf("%w: its %s does not exist", ErrInvalidated, ServiceAccount)
	case o.UID != c.ServiceAccountUID:
		return nil, false, fmt.Errorf("%w: its %s was replaced by another of the same name", ErrInvalidated, ServiceAccount)
	}
	v.used(ctx, s, now)
	if s.Labels[LegacyInvalidSince] != "" {
		return nil, false, &auth.RemarkedError{
			Remark: auth.Remark{Key: remarkPrefix + "invalidated", Value: s.Name + "/" + s.Namespace},
			Err: fmt.Errorf("%w: the secret %s/%s is marked with %s: ask for a token with a TokenRequest, or take the label away to let this one in for a time",
				ErrInvalidated, s.Namespace, s.Name, LegacyInvalidSince)}
	}
	remark := &auth.Remark{Key: remarkPrefix + "manual-secret", Value: s.Name}
	generated, err := v.config.Secrets.Generated(ctx, c.ServiceAccountName, s)
	if err != nil {
		return nil, false, fmt.Errorf("looking up the %s of a service account token: %w", ServiceAccount, err)
	}
	if generated {
		remark = &auth.Remark{Key: remarkPrefix + "autogenerated-secret", Value: s.Name, Warning: generatedWarning}
	}
	return &auth.TokenInfo{Audiences: both, User: &auth.User{
		Name: c.Subject, UID: c.ServiceAccountUID, Groups: auth.ServiceAccountGroups(c.Namespace), Extra: map[string][]string{}, Remark: remark,
	}}, true, nil
}

// validLegacy checks what the token says about itself. The issuer gives these
// tokens neither an expiry nor an audience nor the claims of others: one that
// has some is of somebody who had the key sign something else.
func (c *Claims) validLegacy() error {
	switch {
	case c.Namespace == "" || c.SecretName == "" || c.ServiceAccountName == "" || c.ServiceAccountUID == "":
		return fmt.Errorf("%w: it names no service account and secret", ErrMalformed)
	case c.Subject != auth.ServiceAccountName(c.Namespace, c.ServiceAccountName):
		return fmt.Errorf("%w: subject and service account differ", ErrMalformed)
	case c.Expiry != nil || c.NotBefore != nil || len(c.Audience) > 0 || c.Kubernetes != nil:
		return fmt.Errorf("%w: it has claims that a token in a secret has not", ErrMalformed)
	}
	return nil
}

// keptIn finds the Secret of a token, which has to hold this very token. A
// Secret of another type does not count: who may make those may not bring back
// a token that was withdrawn.
func (v *Verifier) keptIn(ctx context.Context, token string, c *Claims) (*corev1.Secret, error) {
	s, err := v.config.Secrets.TokenSecret(ctx, c.Namespace, c.SecretName)
	switch {
	case err != nil:
		return nil, fmt.Errorf("looking up the secret of a service account token: %w", err)
	case s == nil || s.DeletionTimestamp != nil || s.Type != corev1.SecretTypeServiceAccountToken:
		return nil, fmt.Errorf("%w: its secret does not exist", ErrInvalidated)
	case subtle.ConstantTimeCompare(s.Data[corev1.ServiceAccountTokenKey], []byte(token)) != 1:
		return nil, fmt.Errorf("%w: its secret holds another", ErrInvalidated)
	}
	return s, nil
}

// used has the day written down. That of another server's clock may be one
// ahead.
func (v *Verifier) used(ctx context.Context, s *corev1.Secret, now time.Time) {
	today := now.UTC().Format(LegacyDate)
	if last := s.Labels[LegacyLastUsed]; last != today && last != now.UTC().AddDate(0, 0, 1).Format(LegacyDate) {
		v.config.Secrets.TokenUsed(ctx, s, today)
	}
}
