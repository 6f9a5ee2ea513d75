package auth

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
)

// maxTokenBytes bounds what is parsed at all. A service account token is about
// 1 KiB; tokens of identity providers with many groups reach 16 KiB.
const maxTokenBytes = 64 << 10

// webSocketTokenPrefix marks the subprotocol in which a browser, which cannot
// set headers on a WebSocket, sends its token.
const webSocketTokenPrefix = "base64url.bearer.authorization.k8s.io."

// ErrInvalidToken is returned for a bearer token that nobody recognises.
var ErrInvalidToken = errors.New("invalid bearer token")

// TokenInfo is what a valid token says.
type TokenInfo struct {
	User *User
	// Audiences are those of the wanted audiences that the token is good for;
	// empty when the token knows no audiences.
	Audiences []string
}

// TokenAuthenticator checks bearer tokens. (nil, false, nil) means that the
// token is of another kind; an error means that it is of this kind and not
// valid. Without audiences, those of the API server are wanted.
type TokenAuthenticator interface {
	AuthenticateToken(ctx context.Context, token string, audiences []string) (info *TokenInfo, ok bool, err error)
}

// Tokens tries several kinds of tokens in order, as Chain does.
type Tokens []TokenAuthenticator

// AuthenticateToken implements TokenAuthenticator.
func (t Tokens) AuthenticateToken(ctx context.Context, token string, audiences []string) (*TokenInfo, bool, error) {
	var errs []error
	for _, a := range t {
		info, ok, err := a.AuthenticateToken(ctx, token, audiences)
		if ok && err == nil {
			return info, true, nil
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return nil, false, errors.Join(errs...)
}

// Bearer takes the token of the Authorization header, or of the WebSocket
// subprotocol made for it, to a TokenAuthenticator. A token that nobody
// recognises is an error.
type Bearer struct {
	Tokens    TokenAuthenticator
	Audiences []string
}

// Authenticate implements Authenticator.
func (b *Bearer) Authenticate(ctx context.Context, r *http.Request) (*User, bool, error) {
	token, ok, err := bearerToken(r.Header)
	if !ok || err != nil {
		return nil, false, err
	}
	info, ok, err := b.Tokens.AuthenticateToken(ctx, token, b.Audiences)
	if err != nil {
		return nil, false, err
	}
	if !ok || info == nil || info.User == nil {
		return nil, false, ErrInvalidToken
	}
	return info.User, true, nil
}

// bearerToken finds the token in the headers. A header of another scheme, or
// one without a token, is none.
func bearerToken(h http.Header) (string, bool, error) {
	if v := strings.TrimSpace(h.Get("Authorization")); v != "" {
		scheme, token, _ := strings.Cut(v, " ")
		token = strings.TrimSpace(token)
		if strings.EqualFold(scheme, "bearer") && token != "" {
			if len(token) > maxTokenBytes {
				return "", false, ErrInvalidToken
			}
			return token, true, nil
		}
	}
	if !isWebSocketUpgrade(h) {
		return "", false, nil
	}
	return webSocketToken(h)
}

func webSocketToken(h http.Header) (string, bool, error) {
	token := ""
	for _, line := range h.Values("Sec-Websocket-Protocol") {
		for p := range strings.SplitSeq(line, ",") {
			encoded, found := strings.CutPrefix(strings.TrimSpace(p), webSocketTokenPrefix)
			if !found {
				continue
			}
			if token != "" {
				return "", false, errors.New("the WebSocket subprotocols carry several bearer tokens: send one")
			}
			if len(encoded) > 2*maxTokenBytes {
				return "", false, ErrInvalidToken
			}
			raw, err := base64.RawURLEncoding.DecodeString(encoded)
			if err != nil || len(raw) == 0 {
				return "", false, ErrInvalidToken
			}
			token = string(raw)
		}
	}
	return token, token != "", nil
}

func isWebSocketUpgrade(h http.Header) bool {
	return headerHasToken(h, "Connection", "upgrade") && headerHasToken(h, "Upgrade", "websocket")
}

func headerHasToken(h http.Header, key, token string) bool {
	for _, line := range h.Values(key) {
		for p := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(p), token) {
				return true
			}
		}
	}
	return false
}

// StripCredentials removes from a header everything by which this package
// knows a user: the bearer token (a WebSocket token keeps the other
// subprotocols), impersonation and the front proxy's headers. Call it on the
// copy of a request that is sent on to a backend, never before authentication.
func StripCredentials(h http.Header) {
	h.Del("Authorization")
	for k := range h {
		if strings.HasPrefix(k, "Impersonate-") || strings.HasPrefix(k, "X-Remote-") {
			delete(h, k)
		}
	}
	var kept []string
	for _, line := range h.Values("Sec-Websocket-Protocol") {
		for p := range strings.SplitSeq(line, ",") {
			if p = strings.TrimSpace(p); p != "" && !strings.HasPrefix(p, webSocketTokenPrefix) {
				kept = append(kept, p)
			}
		}
	}
	h.Del("Sec-Websocket-Protocol")
	if len(kept) > 0 {
		h.Set("Sec-Websocket-Protocol", strings.Join(kept, ", "))
	}
}
