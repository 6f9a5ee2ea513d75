package token

import (
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"coracle/pkg/auth"
)

const (
	// MinLifetime is the shortest life of a token; a TokenRequest for less is
	// refused by validation.
	MinLifetime = 10 * time.Minute
	// DefaultLifetime is that of a token whose request says none.
	DefaultLifetime = time.Hour
	// DefaultMaxLifetime is the longest life of a token unless IssuerConfig
	// says otherwise; requests for more get this much.
	DefaultMaxLifetime = 24 * time.Hour
)

// IssuerConfig describes an Issuer.
type IssuerConfig struct {
	// URL is the "iss" of all tokens.
	URL string
	// Key signs.
	Key crypto.Signer
	// Audiences are those of a token whose request names none: the API
	// server's own.
	Audiences []string
	// MaxLifetime defaults to DefaultMaxLifetime.
	MaxLifetime time.Duration
	// Rand makes token ids.
	Rand io.Reader
}

// Issuer signs service account tokens. It is safe for concurrent use.
type Issuer struct {
	config IssuerConfig
	signer jose.Signer
}

// Request says what a token is for. Who may ask for it has been decided
// before, and the UIDs are those of existing objects.
type Request struct {
	Namespace      string
	ServiceAccount Ref
	// Pod, Secret and Node bind the token; at most one of Pod and Secret. Node
	// beside Pod only tells where the pod runs, and needs no UID then.
	Pod, Secret, Node *Ref
	// Audiences default to those of the issuer.
	Audiences []string
	// Lifetime is raised to MinLifetime and cut to the issuer's maximum; zero
	// means DefaultLifetime.
	Lifetime time.Duration
}

// Issued is a token with what its holder needs to know.
type Issued struct {
	// Token is the secret.
	Token string
	// ID is the "jti" claim, which may be logged.
	ID      string
	Expires time.Time
	// Audiences are those the token is for.
	Audiences []string
}

// NewIssuer checks the configuration.
func NewIssuer(c IssuerConfig) (*Issuer, error) {
	if c.URL == "" || c.Key == nil || c.Rand == nil || len(c.Audiences) == 0 {
		return nil, errors.New("a token issuer needs a URL, a key, audiences and randomness")
	}
	if c.MaxLifetime == 0 {
		c.MaxLifetime = DefaultMaxLifetime
	}
	if c.MaxLifetime < MinLifetime {
		return nil, fmt.Errorf("the longest token life, %s, is shorter than the shortest, %s", c.MaxLifetime, MinLifetime)
	}
	public, err := newPublicKey(c.Key.Public())
	if err != nil {
		return nil, err
	}
	signer, err := jose.NewSigner(jose.SigningKey{
		Algorithm: public.algorithm,
		Key:       jose.JSONWebKey{Key: c.Key, KeyID: public.id},
	}, nil)
	if err != nil {
		return nil, fmt.Errorf("signing service account tokens: %w", err)
	}
	return &Issuer{config: c, signer: signer}, nil
}

// Issue signs a token that is valid from now on.
func (i *Issuer) Issue(r Request, now time.Time) (*Issued, error) {
	id, err := newID(i.config.Rand)
	if err != nil {
		return nil, err
	}
	expires := now.Add(i.lifetime(r.Lifetime)).Truncate(time.Second)
	audiences := slices.Clone(r.Audiences)
	if len(audiences) == 0 {
		audiences = slices.Clone(i.config.Audiences)
	}
	c := Claims{
		Issuer:    i.config.URL,
		Subject:   auth.ServiceAccountName(r.Namespace, r.ServiceAccount.Name),
		Audience:  audiences,
		Expiry:    jwt.NewNumericDate(expires),
		IssuedAt:  jwt.NewNumericDate(now),
		NotBefore: jwt.NewNumericDate(now),
		ID:        id,
		Kubernetes: &ClusterClaims{
			Namespace:      r.Namespace,
			ServiceAccount: r.ServiceAccount,
			Pod:            r.Pod,
			Secret:         r.Secret,
			Node:           r.Node,
		},
	}
	if err := c.valid(); err != nil {
		return nil, err
	}
	text, err := i.sign(&c)
	if err != nil {
		return nil, err
	}
	return &Issued{Token: text, ID: id, Expires: expires, Audiences: audiences}, nil
}

func (i *Issuer) sign(c *Claims) (string, error) {
	payload, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	signed, err := i.signer.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("signing a service account token: %w", err)
	}
	return signed.CompactSerialize()
}

func (i *Issuer) lifetime(asked time.Duration) time.Duration {
	if asked == 0 {
		asked = DefaultLifetime
	}
	return min(max(asked, MinLifetime), i.config.MaxLifetime)
}

// newID returns a random (version 4) UUID.
func newID(rand io.Reader) (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return "", fmt.Errorf("reading randomness for a token id: %w", err)
	}
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), nil
}
