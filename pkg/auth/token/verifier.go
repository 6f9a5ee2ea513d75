package token

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
	"k8s.io/utils/clock"

	"coracle/pkg/auth"
)

const (
	// maxTokenBytes bounds what is parsed as a service account token.
	maxTokenBytes = 16 << 10
	// maxRemembered bounds the signatures remembered as good; past it they
	// are all checked anew.
	maxRemembered = 4096
	// deletionGrace is how long after an object's deletion time its tokens
	// still count, for a pod that shuts down.
	deletionGrace = 60 * time.Second
)

// Kind is a kind of object that tokens are bound to.
type Kind string

// The kinds.
const (
	ServiceAccount Kind = "ServiceAccount"
	Pod            Kind = "Pod"
	Secret         Kind = "Secret"
	Node           Kind = "Node"
)

// Object is what a token must know of the object it is bound to.
type Object struct {
	UID string
	// DeletionTime is the object's deletionTimestamp, zero when it has none.
	DeletionTime time.Time
}

// Objects looks up the objects that tokens are bound to, fresh enough to show
// each token's object once the token is out. ok is false when there is none;
// an error means that this could not be found out, and refuses the token. The
// namespace of a node is empty.
type Objects interface {
	Object(ctx context.Context, kind Kind, namespace, name string) (o Object, ok bool, err error)
}

// VerifierConfig describes a Verifier.
type VerifierConfig struct {
	// Issuers are the accepted "iss"; the first is that of new tokens.
	Issuers []string
	// Audiences are those wanted when a caller names none: the API server's.
	Audiences []string
	Keys      *KeySet
	Objects   Objects
	// Secrets are where tokens of LegacyIssuer are kept; nil refuses those.
	Secrets Secrets
	// Clock defaults to the system's.
	Clock clock.PassiveClock
}

// Verifier checks service account tokens. It is safe for concurrent use.
type Verifier struct {
	config VerifierConfig
	// issuers are all that are believed, LegacyIssuer among them when there are
	// Secrets to look into.
	issuers []string
	keys    atomic.Pointer[knownKeys]
}

// knownKeys are keys and the tokens that they were found to have signed.
type knownKeys struct {
	set *KeySet
	mu  sync.Mutex
	// claims of tokens by the tokens' hash; guarded by mu.
	claims map[[sha256.Size]byte]*Claims
}

var _ auth.TokenAuthenticator = (*Verifier)(nil)

// NewVerifier checks the configuration.
func NewVerifier(c VerifierConfig) (*Verifier, error) {
	if len(c.Issuers) == 0 || len(c.Audiences) == 0 || c.Keys == nil || c.Objects == nil {
		return nil, errors.New("a token verifier needs issuers, audiences, keys and objects")
	}
	if slices.Contains(c.Issuers, LegacyIssuer) {
		return nil, fmt.Errorf("%s is the issuer of tokens in secrets: the issuer of service account tokens must be another", LegacyIssuer)
	}
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	v := &Verifier{config: c, issuers: slices.Clone(c.Issuers)}
	if c.Secrets != nil {
		v.issuers = append(v.issuers, LegacyIssuer)
	}
	v.SetKeys(c.Keys)
	return v, nil
}

// SetKeys replaces the keys; tokens of keys that are gone are refused from now
// on.
func (v *Verifier) SetKeys(keys *KeySet) {
	v.keys.Store(&knownKeys{set: keys, claims: map[[sha256.Size]byte]*Claims{}})
}

// AuthenticateToken implements auth.TokenAuthenticator. Tokens that are not
// JWTs or are of another issuer are not its business.
func (v *Verifier) AuthenticateToken(ctx context.Context, token string, audiences []string) (*auth.TokenInfo, bool, error) {
	c, mine, err := v.signedClaims(token)
	if !mine || err != nil {
		return nil, false, err
	}
	if c.Issuer == LegacyIssuer {
		return v.authenticateLegacy(ctx, token, c, audiences)
	}
	if err := c.valid(); err != nil {
		return nil, false, err
	}
	now := v.config.Clock.Now()
	if err := c.current(now); err != nil {
		return nil, false, err
	}
	if len(audiences) == 0 {
		audiences = v.config.Audiences
	}
	both, err := c.audiences(audiences)
	if err != nil {
		return nil, false, err
	}
	if err := v.bound(ctx, c, now); err != nil {
		return nil, false, err
	}
	return &auth.TokenInfo{User: c.user(), Audiences: both}, true, nil
}

// signedClaims returns the claims of a token with a good signature.
func (v *Verifier) signedClaims(token string) (c *Claims, mine bool, err error) {
	if len(token) > maxTokenBytes {
		return nil, false, nil
	}
	keys := v.keys.Load()
	sum := sha256.Sum256([]byte(token))
	if c, ok := keys.known(sum); ok {
		return c, true, nil
	}
	c, mine, err = verify(token, v.issuers, keys.set)
	if mine && err == nil {
		keys.remember(sum, c)
	}
	return c, mine, err
}

// verify parses a token and checks issuer and signature.
func verify(token string, issuers []string, keys *KeySet) (c *Claims, mine bool, err error) {
	parsed, err := jwt.ParseSigned(token, keys.algorithms())
	if err != nil {
		// Not a JWT, or one with an algorithm of none of our keys: if it was
		// meant for us it is refused by nobody else accepting it.
		return nil, false, nil
	}
	c = &Claims{}
	if err := parsed.UnsafeClaimsWithoutVerification(c); err != nil || !slices.Contains(issuers, c.Issuer) {
		return nil, false, nil
	}
	if len(parsed.Headers) != 1 {
		return nil, true, fmt.Errorf("%w: it has %d signatures", ErrMalformed, len(parsed.Headers))
	}
	h := parsed.Headers[0]
	for _, k := range keys.candidates(h.KeyID, h.Algorithm) {
		verified := &Claims{}
		if parsed.Claims(k.key, verified) == nil {
			return verified, true, nil
		}
	}
	return nil, true, fmt.Errorf("%w: its signature is not of this cluster", ErrMalformed)
}

func (k *knownKeys) known(sum [sha256.Size]byte) (*Claims, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c, ok := k.claims[sum]
	return c, ok
}

func (k *knownKeys) remember(sum [sha256.Size]byte, c *Claims) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.claims) >= maxRemembered {
		clear(k.claims)
	}
	k.claims[sum] = c
}

// bound checks that the objects the token is bound to are there. The node of a
// pod's token is told, not checked: the pod stands for it.
func (v *Verifier) bound(ctx context.Context, c *Claims, now time.Time) error {
	k := c.Kubernetes
	if err := v.exists(ctx, ServiceAccount, k.Namespace, k.ServiceAccount, now); err != nil {
		return err
	}
	switch {
	case k.Pod != nil:
		return v.exists(ctx, Pod, k.Namespace, *k.Pod, now)
	case k.Secret != nil:
		return v.exists(ctx, Secret, k.Namespace, *k.Secret, now)
	case k.Node != nil:
		return v.exists(ctx, Node, "", *k.Node, now)
	default:
		return nil
	}
}

func (v *Verifier) exists(ctx context.Context, kind Kind, namespace string, ref Ref, now time.Time) error {
	o, ok, err := v.config.Objects.Object(ctx, kind, namespace, ref.Name)
	switch {
	case err != nil:
		return fmt.Errorf("looking up the %s of a service account token: %w", kind, err)
	case !ok:
		return fmt.Errorf("%w: its %s does not exist", ErrInvalidated, kind)
	case o.UID != ref.UID:
		return fmt.Errorf("%w: its %s was replaced by another of the same name", ErrInvalidated, kind)
	case !o.DeletionTime.IsZero() && now.After(o.DeletionTime.Add(deletionGrace)):
		return fmt.Errorf("%w: its %s has been deleted", ErrInvalidated, kind)
	default:
		return nil
	}
}
