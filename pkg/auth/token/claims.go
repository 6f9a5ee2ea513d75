package token

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"

	"coracle/pkg/auth"
)

// leeway is how far the clocks of two API servers may be apart.
const leeway = 10 * time.Second

// Ref names an object that a token is bound to.
type Ref struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}

// Claims are all that a token says.
type Claims struct {
	Issuer    string           `json:"iss,omitempty"`
	Subject   string           `json:"sub,omitempty"`
	Audience  Audience         `json:"aud,omitempty"`
	Expiry    *jwt.NumericDate `json:"exp,omitempty"`
	IssuedAt  *jwt.NumericDate `json:"iat,omitempty"`
	NotBefore *jwt.NumericDate `json:"nbf,omitempty"`
	ID        string           `json:"jti,omitempty"`
	// Kubernetes are the claims of the cluster; nil in foreign tokens.
	Kubernetes *ClusterClaims `json:"kubernetes.io,omitempty"`
	// LegacyClaims are those of a token that is kept in a Secret.
	LegacyClaims
}

// Audience is written as a list, also with one element, and read as a list or
// a single string.
type Audience []string

// UnmarshalJSON reads both forms.
func (a *Audience) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '"' {
		*a = Audience{""}
		return json.Unmarshal(data, &(*a)[0])
	}
	return json.Unmarshal(data, (*[]string)(a))
}

// ClusterClaims are the claims below "kubernetes.io".
type ClusterClaims struct {
	Namespace      string           `json:"namespace,omitempty"`
	Node           *Ref             `json:"node,omitempty"`
	Pod            *Ref             `json:"pod,omitempty"`
	Secret         *Ref             `json:"secret,omitempty"`
	ServiceAccount Ref              `json:"serviceaccount"`
	WarnAfter      *jwt.NumericDate `json:"warnafter,omitempty"`
}

// Reasons for which a token is refused.
var (
	ErrExpired     = errors.New("service account token has expired")
	ErrNotYetValid = errors.New("service account token is not valid yet")
	ErrAudience    = errors.New("token audiences are not among those wanted")
	ErrMalformed   = errors.New("service account token is not valid")
	ErrInvalidated = errors.New("service account token has been invalidated")
)

// valid checks what the token says about itself.
func (c *Claims) valid() error {
	k := c.Kubernetes
	switch {
	case c.Expiry == nil:
		return fmt.Errorf("%w: it has no expiry", ErrMalformed)
	case k == nil || k.Namespace == "" || k.ServiceAccount.Name == "" || k.ServiceAccount.UID == "":
		return fmt.Errorf("%w: it names no service account", ErrMalformed)
	case c.Subject != auth.ServiceAccountName(k.Namespace, k.ServiceAccount.Name):
		return fmt.Errorf("%w: subject and service account differ", ErrMalformed)
	case k.Pod != nil && k.Secret != nil, k.Node != nil && k.Secret != nil:
		return fmt.Errorf("%w: it is bound to several objects", ErrMalformed)
	}
	for _, r := range []*Ref{k.Pod, k.Secret, k.Node} {
		// The node of a pod is only told, and may have been unknown.
		told := r == k.Node && k.Pod != nil
		if r != nil && (r.Name == "" || (r.UID == "" && !told)) {
			return fmt.Errorf("%w: it is bound to an object without name or UID", ErrMalformed)
		}
	}
	return nil
}

// current checks the token's times.
func (c *Claims) current(now time.Time) error {
	if now.Add(-leeway).After(c.Expiry.Time()) {
		return ErrExpired
	}
	if c.NotBefore != nil && now.Add(leeway).Before(c.NotBefore.Time()) {
		return ErrNotYetValid
	}
	if c.IssuedAt != nil && now.Add(leeway).Before(c.IssuedAt.Time()) {
		return ErrNotYetValid
	}
	return nil
}

// audiences returns those wanted that the token is for.
func (c *Claims) audiences(wanted []string) ([]string, error) {
	var both []string
	for _, a := range c.Audience {
		if slices.Contains(wanted, a) && !slices.Contains(both, a) {
			both = append(both, a)
		}
	}
	if len(both) == 0 {
		return nil, fmt.Errorf("%w: the token is for %q", ErrAudience, []string(c.Audience))
	}
	return both, nil
}

// user returns the identity a valid token gives.
func (c *Claims) user() *auth.User {
	k := c.Kubernetes
	u := &auth.User{
		Name:   c.Subject,
		UID:    k.ServiceAccount.UID,
		Groups: auth.ServiceAccountGroups(k.Namespace),
		Extra:  map[string][]string{},
	}
	if c.ID != "" {
		u.Extra[auth.ExtraCredentialID] = []string{"JTI=" + c.ID}
	}
	if k.Pod != nil {
		u.Extra[auth.ExtraPodName] = []string{k.Pod.Name}
		u.Extra[auth.ExtraPodUID] = []string{k.Pod.UID}
	}
	if k.Node != nil {
		u.Extra[auth.ExtraNodeName] = []string{k.Node.Name}
		if k.Node.UID != "" {
			u.Extra[auth.ExtraNodeUID] = []string{k.Node.UID}
		}
	}
	return u
}
