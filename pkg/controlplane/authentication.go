package controlplane

import (
	"context"
	"fmt"
	"reflect"
	"slices"

	"coracle/pkg/auth"
	"coracle/pkg/auth/oidc"
)

// authentication is whose tokens are believed and where nobody need show any. It
// is never changed, but replaced.
type authentication struct {
	issuers   []trustedIssuer
	tokens    auth.Tokens // of issuers
	anonymous func(path string) bool
}

// trustedIssuer is one OpenID Connect issuer with the keys that are known of it.
type trustedIssuer struct {
	config oidc.Config
	tokens auth.TokenAuthenticator
}

// setAuthentication has the tokens of these issuers believed, and no others.
// Issuers that stay as they were keep their keys. It is called at the start, and
// by one goroutine afterwards.
func (cp *ControlPlane) setAuthentication(issuers []oidc.Config, anonymous func(path string) bool) error {
	next, id := &authentication{anonymous: anonymous}, cp.cfg.Identity
	now := cp.authentication.Load()
	for _, c := range issuers {
		if id != nil && (c.IssuerURL == id.Issuer || slices.Contains(id.OldIssuers, c.IssuerURL)) {
			return fmt.Errorf("%s is the issuer of service account tokens: an OpenID Connect issuer must be another", c.IssuerURL)
		}
		one := trustedIssuer{config: c}
		if now != nil {
			if i := slices.IndexFunc(now.issuers, func(t trustedIssuer) bool { return reflect.DeepEqual(t.config, c) }); i >= 0 {
				one.tokens = now.issuers[i].tokens
			}
		}
		if one.tokens == nil {
			issuer, err := oidc.New(c, cp.cfg.Clock, cp.compileIdentity)
			if err != nil {
				return err
			}
			one.tokens = auth.AudienceAgnostic{Own: cp.tokens.audiences, Tokens: issuer}
		}
		next.issuers = append(next.issuers, one)
		next.tokens = append(next.tokens, one.tokens)
	}
	cp.authentication.Store(next)
	return nil
}

// compileIdentity is the oidc.Compile of the expressions' compiler.
func (cp *ControlPlane) compileIdentity(variable, text string, condition bool) (oidc.Expression, error) {
	return cp.expressions.Identity(variable, text, condition)
}

// trustedTokens are the tokens of the issuers that are believed at the moment.
type trustedTokens struct{ cp *ControlPlane }

// AuthenticateToken implements auth.TokenAuthenticator.
func (t trustedTokens) AuthenticateToken(ctx context.Context, token string, audiences []string) (*auth.TokenInfo, bool, error) {
	return t.cp.authentication.Load().tokens.AuthenticateToken(ctx, token, audiences)
}

// mayBeNobody says whether requests without credentials are let through to the
// authorizer on a path.
func (cp *ControlPlane) mayBeNobody(path string) bool {
	if now := cp.authentication.Load(); now != nil && now.anonymous != nil {
		return now.anonymous(path)
	}
	return cp.cfg.Anonymous(path)
}

// authenticationFile puts the file of the flag into force, and follows it.
func (o *ServeOptions) authenticationFile(files *Files) error {
	if o.AuthenticationFile == "" {
		return nil
	}
	read := func() (*oidc.File, error) {
		data, err := readKeyFile(o.AuthenticationFile)
		if err != nil {
			return nil, fmt.Errorf("read --authentication-config: %w", err)
		}
		f, err := oidc.ParseFile(data)
		if err != nil {
			return nil, fmt.Errorf("read --authentication-config %s: %w", o.AuthenticationFile, err)
		}
		if o.Hardened {
			f.Anonymous = nil // H1 stays as it is
		}
		return f, nil
	}
	f, err := read()
	if err != nil {
		return err
	}
	o.OIDC = f.Issuers
	if f.Anonymous != nil {
		o.Anonymous = f.Anonymous
	}
	files.reloads = append(files.reloads, &reload{what: "the authentication configuration", files: []string{o.AuthenticationFile},
		apply: func(_ context.Context, cp *ControlPlane) error {
			f, err := read()
			if err != nil {
				return err
			}
			anonymous := f.Anonymous
			if anonymous == nil && !o.Hardened {
				anonymous = auth.AnonymousEverywhere
			}
			return cp.setAuthentication(f.Issuers, anonymous)
		}})
	return nil
}
