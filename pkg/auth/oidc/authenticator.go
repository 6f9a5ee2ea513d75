// Package oidc knows users by the tokens of OpenID Connect issuers.
//
// An issuer is asked for its keys when its first token comes, never at start:
// one that is away, slow or lying harms nobody but those who show its tokens.
// Only https addresses of the configuration, and the address of the keys that
// the issuer's own document names, are ever asked; redirects are not followed,
// answers and times are bounded, and unknown keys are asked for at a bounded
// rate.
//
// A token gives no identity of the cluster's own: users and groups whose names
// begin with "system:" are refused, whatever prefix is configured.
package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
	"k8s.io/utils/clock"

	"coracle/pkg/auth"
)

const (
	// maxTokenBytes bounds what is parsed, maxGroups what a user may be in.
	maxTokenBytes = 64 << 10
	maxGroups     = 10_000
	// leeway is how far the clock of the issuer may be apart.
	leeway = 10 * time.Second
	// reserved begins the names that are the cluster's to give.
	reserved = "system:"
)

// ErrInvalid says that a token of the issuer is not good.
var ErrInvalid = errors.New("the OpenID Connect token is not valid")

// Authenticator checks the tokens of one issuer. It is safe for concurrent use.
type Authenticator struct {
	config Config
	programs
	keys  *keyring
	clock clock.PassiveClock
}

var _ auth.TokenAuthenticator = (*Authenticator)(nil)

// New checks the configuration. Nothing is asked of the issuer yet. compile is
// needed where there are expressions.
func New(c Config, clk clock.PassiveClock, compile Compile) (*Authenticator, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	compiled, err := newPrograms(&c, compile)
	if err != nil {
		return nil, fmt.Errorf("the issuer %s: %w", c.IssuerURL, err)
	}
	keys, err := newKeyring(c, clk)
	if err != nil {
		return nil, err
	}
	return &Authenticator{config: c, programs: compiled, keys: keys, clock: clk}, nil
}

// AuthenticateToken implements auth.TokenAuthenticator. Tokens of other issuers
// are not its business. Wrap it in auth.AudienceAgnostic: the audience of a
// token is that of a client, and not of the API server.
func (a *Authenticator) AuthenticateToken(ctx context.Context, token string, _ []string) (*auth.TokenInfo, bool, error) {
	if len(token) > maxTokenBytes || !a.mine(token) {
		return nil, false, nil
	}
	all, err := a.verified(ctx, token)
	if err != nil {
		return nil, false, err
	}
	if err := a.current(all); err != nil {
		return nil, false, err
	}
	u, err := a.identity(ctx, all)
	if err != nil {
		return nil, false, err
	}
	return &auth.TokenInfo{User: u}, true, nil
}

// mine says whether a token claims to be of this issuer.
func (a *Authenticator) mine(token string) bool {
	parsed, err := jwt.ParseSigned(token, signingAlgorithms)
	if err != nil {
		return false
	}
	var c struct {
		Issuer string `json:"iss"`
	}
	return parsed.UnsafeClaimsWithoutVerification(&c) == nil && c.Issuer == a.config.IssuerURL
}

// verified returns the claims of a token with a good signature.
func (a *Authenticator) verified(ctx context.Context, token string) (claims, error) {
	parsed, err := jwt.ParseSigned(token, a.config.algorithms())
	if err != nil || len(parsed.Headers) != 1 {
		return nil, fmt.Errorf("%w: it is not signed once with one of %v", ErrInvalid, a.config.algorithms())
	}
	h := parsed.Headers[0]
	keys, err := a.keys.find(ctx, h.KeyID, h.Algorithm)
	if err != nil {
		return nil, err
	}
	for _, key := range keys {
		var raw json.RawMessage
		if parsed.Claims(key.Key, &raw) != nil {
			continue
		}
		return parseClaims(raw)
	}
	return nil, fmt.Errorf("%w: its signature is not of the issuer", ErrInvalid)
}

// current checks times, audience and required claims.
func (a *Authenticator) current(c claims) error {
	now := a.clock.Now()
	expiry, ok := c.time("exp")
	if !ok {
		return fmt.Errorf("%w: it has no expiry", ErrInvalid)
	}
	if !now.Before(expiry) {
		return fmt.Errorf("%w: it has expired", ErrInvalid)
	}
	if _, there := c["nbf"]; there {
		if from, ok := c.time("nbf"); !ok || now.Add(leeway).Before(from) {
			return fmt.Errorf("%w: it is not valid yet", ErrInvalid)
		}
	}
	audiences, _ := c.texts("aud")
	if !slices.ContainsFunc(audiences, func(x string) bool { return slices.Contains(a.config.Audiences, x) }) {
		return fmt.Errorf("%w: it is for another audience", ErrInvalid)
	}
	for name, want := range a.config.Required {
		if got, ok := c.text(name); !ok || got != want {
			return fmt.Errorf("%w: its claim %q has not the required value", ErrInvalid, name)
		}
	}
	return nil
}

// identity checks the claims by the rules, makes the user, and checks that.
func (a *Authenticator) identity(ctx context.Context, c claims) (u *auth.User, err error) {
	var values map[string]any // of expressions
	if a.config.compiles() {
		if values, err = c.values(); err != nil {
			return nil, err
		}
	}
	if err := hold(ctx, a.config.ClaimRules, a.programs.claims, values); err != nil {
		return nil, err
	}
	u = &auth.User{}
	if u.Name, err = a.name(ctx, c, values); err != nil {
		return nil, err
	}
	if strings.HasPrefix(u.Name, reserved) {
		return nil, fmt.Errorf("%w: names that begin with %s are the cluster's own: set a prefix for users", ErrInvalid, reserved)
	}
	if u.UID, err = a.id(ctx, c, values); err != nil {
		return nil, err
	}
	if u.Groups, err = a.groupsOf(ctx, c, values); err != nil {
		return nil, err
	}
	for i, e := range a.extra {
		key := a.config.Extra[i].Key
		list, err := textsOf(ctx, e, "extra attributes "+key, values)
		if err != nil {
			return nil, err
		}
		if len(list) > 0 {
			if u.Extra == nil {
				u.Extra = map[string][]string{}
			}
			u.Extra[key] = list
		}
	}
	if len(a.programs.user) > 0 {
		err = hold(ctx, a.config.UserRules, a.programs.user, userValues(u))
	}
	return u, err
}

// name is the user's.
func (a *Authenticator) name(ctx context.Context, c claims, values map[string]any) (string, error) {
	if a.username != nil {
		name, err := textOf(ctx, a.username, "user name", values)
		if err == nil && name == "" {
			err = fmt.Errorf("%w: its user name is empty", ErrInvalid)
		}
		return name, err
	}
	claim := a.config.Username.Claim
	name, ok := c.text(claim)
	if !ok || name == "" {
		return "", fmt.Errorf("%w: its claim %q names no user", ErrInvalid, claim)
	}
	if claim == "email" {
		// Who may write any address into a token is nobody by it.
		if verified, there := c["email_verified"]; there && string(verified) != "true" {
			return "", fmt.Errorf("%w: its email address is not verified", ErrInvalid)
		}
	}
	return a.config.Username.Prefix + name, nil
}

// id is the user's UID, empty for none.
func (a *Authenticator) id(ctx context.Context, c claims, values map[string]any) (string, error) {
	if a.uid != nil {
		return textOf(ctx, a.uid, "UID", values)
	}
	claim := a.config.UID.Claim
	if claim == "" {
		return "", nil
	}
	id, ok := c.text(claim)
	if !ok {
		return "", fmt.Errorf("%w: its claim %q is no text", ErrInvalid, claim)
	}
	return id, nil
}

func (a *Authenticator) groupsOf(ctx context.Context, c claims, values map[string]any) (names []string, err error) {
	claim := a.config.Groups.Claim
	if a.groups != nil {
		if names, err = textsOf(ctx, a.groups, "groups", values); err != nil {
			return nil, err
		}
	} else if raw, there := c[claim]; claim != "" && there && string(raw) != "null" {
		var ok bool
		if names, ok = c.texts(claim); !ok {
			return nil, fmt.Errorf("%w: its claim %q is no list of group names", ErrInvalid, claim)
		}
	}
	if len(names) > maxGroups {
		return nil, fmt.Errorf("%w: its user is in more than %d groups", ErrInvalid, maxGroups)
	}
	var groups []string
	for _, name := range names {
		g := a.config.Groups.Prefix + name
		if strings.HasPrefix(g, reserved) {
			return nil, fmt.Errorf("%w: groups that begin with %s are the cluster's own: set a prefix for groups", ErrInvalid, reserved)
		}
		groups = append(groups, g)
	}
	return groups, nil
}

// claims are the claims of a token by name.
type claims map[string]json.RawMessage

func parseClaims(raw []byte) (claims, error) {
	var c claims
	if err := json.Unmarshal(raw, &c); err != nil || c == nil {
		return nil, fmt.Errorf("%w: its claims are no JSON object", ErrInvalid)
	}
	return c, nil
}

// text is a claim that is a string.
func (c claims) text(name string) (s string, ok bool) {
	raw := c[name]
	if len(raw) == 0 || raw[0] != '"' {
		return "", false
	}
	return s, json.Unmarshal(raw, &s) == nil
}

// texts is a claim that is a string or a list of strings.
func (c claims) texts(name string) (list []string, ok bool) {
	if s, ok := c.text(name); ok {
		return []string{s}, true
	}
	raw := c[name]
	if len(raw) == 0 || raw[0] != '[' {
		return nil, false
	}
	return list, json.Unmarshal(raw, &list) == nil
}

// time is a claim that is a time in seconds since 1970.
func (c claims) time(name string) (time.Time, bool) {
	var n jwt.NumericDate
	raw := c[name]
	if len(raw) == 0 || string(raw) == "null" || n.UnmarshalJSON(raw) != nil {
		return time.Time{}, false
	}
	return n.Time(), true
}
