package auth

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"k8s.io/utils/clock"
)

// FrontProxy believes the user that a trusted proxy names in headers. The
// proxy proves itself by a client certificate of an authority of its own.
// Requests without the user header are not its business.
type FrontProxy struct {
	// Roots returns the authorities that issue to proxies; it must not be the
	// authority of ordinary clients unless AllowedNames is set. Nil means that
	// no proxy is believed.
	Roots func() *x509.CertPool
	// AllowedNames are the common names that are proxies; empty means all that
	// Roots vouch for.
	AllowedNames []string
	// UserHeaders, UIDHeaders and GroupHeaders are tried in order; of the
	// first two the first non-empty counts, groups are taken from all. Default
	// X-Remote-User, X-Remote-Uid, X-Remote-Group.
	UserHeaders, UIDHeaders, GroupHeaders []string
	// ExtraPrefixes default to X-Remote-Extra-.
	ExtraPrefixes []string
	// Clock defaults to the system's.
	Clock clock.PassiveClock
}

// Authenticate implements Authenticator.
func (f *FrontProxy) Authenticate(_ context.Context, r *http.Request) (*User, bool, error) {
	name := firstHeader(r.Header, orDefault(f.UserHeaders, "X-Remote-User"))
	if name == "" || r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return nil, false, nil
	}
	pool := f.Roots()
	if pool == nil {
		return nil, false, nil
	}
	var now clock.PassiveClock = clock.RealClock{}
	if f.Clock != nil {
		now = f.Clock
	}
	leaf := r.TLS.PeerCertificates[0]
	if _, err := verifyClient(leaf, r.TLS.PeerCertificates[1:], pool, now.Now()); err != nil {
		return nil, false, fmt.Errorf("front proxy: %w", err)
	}
	if len(f.AllowedNames) > 0 && !slices.Contains(f.AllowedNames, leaf.Subject.CommonName) {
		return nil, false, errors.New("front proxy: the certificate's common name is not in the allowed list")
	}
	u := &User{Name: name, UID: firstHeader(r.Header, orDefault(f.UIDHeaders, "X-Remote-Uid"))}
	for _, h := range orDefault(f.GroupHeaders, "X-Remote-Group") {
		u.Groups = append(u.Groups, r.Header.Values(h)...)
	}
	for _, prefix := range orDefault(f.ExtraPrefixes, "X-Remote-Extra-") {
		u.Extra = extraHeaders(r.Header, prefix, u.Extra)
	}
	return u, true, nil
}

func orDefault(names []string, def string) []string {
	if len(names) == 0 {
		return []string{def}
	}
	return names
}

func firstHeader(h http.Header, names []string) string {
	for _, n := range names {
		if v := h.Get(n); v != "" {
			return v
		}
	}
	return ""
}

// extraHeaders adds to extra the headers whose name starts with prefix, case
// ignored. The rest of the name, unescaped and in lower case, is the key.
func extraHeaders(h http.Header, prefix string, extra map[string][]string) map[string][]string {
	for name, values := range h {
		if len(name) <= len(prefix) || !strings.EqualFold(name[:len(prefix)], prefix) {
			continue
		}
		key := strings.ToLower(name[len(prefix):])
		if unescaped, err := url.PathUnescape(key); err == nil {
			key = unescaped
		}
		if extra == nil {
			extra = map[string][]string{}
		}
		extra[key] = append(extra[key], values...)
	}
	return extra
}

// SetFrontProxyHeaders names a user in the headers by which FrontProxy knows
// one, for a backend that trusts this server.
func SetFrontProxyHeaders(h http.Header, u *User) {
	h.Set("X-Remote-User", u.Name)
	if u.UID != "" {
		h.Set("X-Remote-Uid", u.UID)
	}
	for _, g := range u.Groups {
		h.Add("X-Remote-Group", g)
	}
	for key, values := range u.Extra {
		for _, v := range values {
			h.Add("X-Remote-Extra-"+escapeExtraKey(key), v)
		}
	}
}

// escapeExtraKey writes what a header's name cannot hold as %XX; the percent
// sign itself, too.
func escapeExtraKey(key string) string {
	var b strings.Builder
	for i := range len(key) {
		switch c := key[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("!#$&'*+-.^_`|~", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
