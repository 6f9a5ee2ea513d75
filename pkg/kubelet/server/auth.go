package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// identity is an authenticated client.
type identity struct {
	user   string
	groups []string
}

// authTimeout bounds authentication and authorization of one request.
const authTimeout = requestTimeout / 4

var errNoCredentials = errors.New("a client certificate of this cluster, or a token, is required")

// allowed reports whether the client may use the route; if not, it has answered.
func (s *Server) allowed(w http.ResponseWriter, r *http.Request, rt route) bool {
	ctx, cancel := context.WithTimeout(r.Context(), authTimeout)
	defer cancel()
	id, err := s.authenticate(ctx, r)
	if err != nil {
		if !errors.Is(err, errNoCredentials) {
			s.cfg.Log.Info("a client was not authenticated", "path", rt.pattern, "remote", r.RemoteAddr, "err", err)
		}
		http.Error(w, "Unauthorized", http.StatusUnauthorized)
		return false
	}
	for _, sub := range rt.subresources {
		if err = s.cfg.Auth(ctx, id.user, id.groups, rt.verb, sub); err == nil {
			return true
		}
	}
	s.cfg.Log.Info("a client was refused", "user", id.user, "verb", rt.verb, "path", rt.pattern, "err", err)
	http.Error(w, fmt.Sprintf("Forbidden (user=%q, verb=%s, resource=nodes, subresource=%s)",
		id.user, rt.verb, strings.Join(rt.subresources, "|")), http.StatusForbidden)
	return false
}

// authenticate finds out who the client is. The TLS connection has verified
// the certificate against the cluster's CA and for use by clients.
func (s *Server) authenticate(ctx context.Context, r *http.Request) (identity, error) {
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 && len(r.TLS.VerifiedChains[0]) > 0 {
		subject := r.TLS.VerifiedChains[0][0].Subject
		if subject.CommonName == "" {
			return identity{}, errors.New("the client certificate names no user")
		}
		return identity{user: subject.CommonName, groups: append([]string{authenticated}, subject.Organization...)}, nil
	}
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") || strings.TrimSpace(token) == "" || s.cfg.Token == nil {
		return identity{}, errNoCredentials
	}
	user, groups, err := s.cfg.Token(ctx, strings.TrimSpace(token))
	if err != nil {
		return identity{}, err
	}
	if user == "" {
		return identity{}, errors.New("the token names no user")
	}
	return identity{user: user, groups: groups}, nil
}

// authenticated is the group of all who have shown who they are.
const authenticated = "system:authenticated"
