package auth

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
)

// Authenticator finds out who sent a request. (nil, false, nil) means that the
// request shows no credentials of this kind; an error means that it does and
// that they are wrong. r is not changed.
type Authenticator interface {
	Authenticate(ctx context.Context, r *http.Request) (u *User, ok bool, err error)
}

// AuthenticatorFunc makes an Authenticator of a function.
type AuthenticatorFunc func(ctx context.Context, r *http.Request) (*User, bool, error)

// Authenticate calls f.
func (f AuthenticatorFunc) Authenticate(ctx context.Context, r *http.Request) (*User, bool, error) {
	return f(ctx, r)
}

// Chain tries its members in order; the first that knows the user wins, even
// after another has failed (a client may show a certificate of another cluster
// and a token of this one). When nobody knows the user, the errors of all are
// returned together.
type Chain []Authenticator

// Authenticate implements Authenticator.
func (c Chain) Authenticate(ctx context.Context, r *http.Request) (*User, bool, error) {
	var errs []error
	for _, a := range c {
		u, ok, err := a.Authenticate(ctx, r)
		if ok && err == nil {
			return u, true, nil
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return nil, false, errors.Join(errs...)
}

// Config lists the kinds of credentials an API server accepts. A nil or zero
// field switches its kind off.
type Config struct {
	// Context accepts a user that the transport put into the request's context
	// with WithUser. The in-memory transport does; a listener never may.
	Context bool
	// FrontProxy accepts users named in headers by a trusted proxy.
	FrontProxy *FrontProxy
	// Certificates accepts client certificates.
	Certificates *ClientCertificates
	// Tokens accepts bearer tokens.
	Tokens TokenAuthenticator
	// Audiences are those that a token must have been issued for, one of them.
	Audiences []string
	// Anonymous says on which paths requests without any credentials are let
	// through as system:anonymous. Nil means nowhere.
	Anonymous func(path string) bool
}

// New composes an Authenticator. Every user it returns is in the group
// system:authenticated, or is anonymous. An error, and not the anonymous user,
// is the answer to credentials that nobody accepted; (nil, false, nil) is the
// answer to a request without credentials on a path that is not anonymous.
// Both are a 401.
func New(c Config) Authenticator {
	var chain Chain
	if c.Context {
		chain = append(chain, AuthenticatorFunc(fromContext))
	}
	if c.FrontProxy != nil {
		chain = append(chain, c.FrontProxy)
	}
	if c.Certificates != nil {
		chain = append(chain, c.Certificates)
	}
	if c.Tokens != nil {
		chain = append(chain, &Bearer{Tokens: c.Tokens, Audiences: c.Audiences})
	}
	return AuthenticatorFunc(func(ctx context.Context, r *http.Request) (*User, bool, error) {
		u, ok, err := chain.Authenticate(ctx, r)
		switch {
		case err != nil:
			return nil, false, err
		case ok:
			if u.Name == UserAnonymous || u.InGroup(GroupUnauthenticated) {
				return u, true, nil
			}
			return u.withGroup(GroupAuthenticated), true, nil
		case c.Anonymous != nil && c.Anonymous(r.URL.Path):
			return &User{Name: UserAnonymous, Groups: []string{GroupUnauthenticated}}, true, nil
		default:
			return nil, false, nil
		}
	})
}

// AnonymousEverywhere lets requests without credentials through on all paths:
// what they may do is then for the authorizer to say, which by default is to
// see health and version (a 403 for all else).
func AnonymousEverywhere(string) bool { return true }

// AnonymousHealth lets requests without credentials through to health and
// version only (a 401 for all else).
func AnonymousHealth(path string) bool {
	switch path {
	case "/healthz", "/livez", "/readyz", "/version", "/version/":
		return true
	}
	return false
}

// AnonymousProbes lets requests without credentials through to what machines
// ask whether the server is there (a 401 for all else).
func AnonymousProbes(path string) bool {
	switch path {
	case "/livez", "/readyz", "/version":
		return true
	}
	return false
}

// WithoutGroup takes a group from every user that a finds, whatever their
// credentials say.
func WithoutGroup(a Authenticator, group string) Authenticator {
	return AuthenticatorFunc(func(ctx context.Context, r *http.Request) (*User, bool, error) {
		u, ok, err := a.Authenticate(ctx, r)
		if !ok || err != nil || !u.InGroup(group) {
			return u, ok, err
		}
		without := *u
		without.Groups = slices.DeleteFunc(slices.Clone(u.Groups), func(g string) bool { return g == group })
		return &without, true, nil
	})
}

// WithoutCertificates refuses each request over a connection on which a
// certificate was shown that revoked says is to be refused, whatever else the
// request shows. It is asked on each request, so that open connections end too.
func WithoutCertificates(a Authenticator, revoked func(*x509.Certificate) bool) Authenticator {
	return AuthenticatorFunc(func(ctx context.Context, r *http.Request) (*User, bool, error) {
		if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 && revoked(r.TLS.PeerCertificates[0]) {
			return nil, false, fmt.Errorf("the client certificate with serial number %x is on the list of refused ones", r.TLS.PeerCertificates[0].SerialNumber)
		}
		return a.Authenticate(ctx, r)
	})
}

func fromContext(ctx context.Context, _ *http.Request) (*User, bool, error) {
	u, ok := UserFrom(ctx)
	return u, ok, nil
}
