package callout

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// Bounds of the calls under way.
const (
	// maxHosts bounds the programs that connections are kept to.
	maxHosts = 256
	// maxCalls bounds the calls that are with one program at a time.
	maxCalls = 64
	// maxIdle bounds the connections that are kept for its next calls.
	maxIdle     = 16
	idleTimeout = 90 * time.Second
	dialTimeout = 10 * time.Second
	// maxHeaders bounds what is read of an answer before its body.
	maxHeaders = 64 << 10
)

// Client calls programs and keeps connections to them.
type Client struct {
	// Dial connects to a port of a Service; nil means that none can be reached.
	Dial func(ctx context.Context, namespace, name string, port int32) (net.Conn, error)

	mu    sync.Mutex
	hosts map[[sha256.Size]byte]*host // by what was configured; guarded by mu
}

// host is one program: a host and port, or a port of a Service, for which one
// authority vouches.
type host struct {
	client *http.Client
	places chan struct{} // one for each call under way
}

// enter waits for a place among the calls that are with the program.
func (h *host) enter(ctx context.Context, u *url.URL) error {
	select {
	case h.places <- struct{}{}:
		return nil
	default:
	}
	select {
	case h.places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("Post %q: %d other calls are with it: %w", u, maxCalls, ctx.Err())
	}
}

func (h *host) leave() { <-h.places }

// host returns the program at a location.
func (c *Client) host(l location, authority []byte) (*host, error) {
	// A URL may name what is a Service's name as well, and be something else.
	key := sha256.Sum256(append(fmt.Appendf(nil, "%s %t\n", l.url.Host, l.service != nil), authority...))
	c.mu.Lock()
	defer c.mu.Unlock()
	if h := c.hosts[key]; h != nil {
		return h, nil
	}
	config := &tls.Config{ServerName: l.url.Hostname(), MinVersion: tls.VersionTLS12}
	if len(authority) > 0 {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(authority) {
			return nil, errors.New("its caBundle holds no certificate")
		}
	}
	if len(c.hosts) >= maxHosts {
		c.closeLocked()
	}
	if c.hosts == nil {
		c.hosts = map[[sha256.Size]byte]*host{}
	}
	dial := (&net.Dialer{Timeout: dialTimeout}).DialContext
	if s := l.service; s != nil {
		dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return c.Dial(ctx, s.Namespace, s.Name, s.Port)
		}
	}
	h := &host{places: make(chan struct{}, maxCalls), client: &http.Client{
		// One call per connection: one that hangs delays no other.
		Transport: &http.Transport{
			TLSClientConfig: config, MaxIdleConnsPerHost: maxIdle, IdleConnTimeout: idleTimeout,
			DialContext: dial, TLSHandshakeTimeout: dialTimeout,
			MaxResponseHeaderBytes: maxHeaders,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	c.hosts[key] = h
	return h, nil
}

// Close ends idle connections; those of calls under way end with them.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closeLocked()
}

func (c *Client) closeLocked() {
	for _, h := range c.hosts {
		h.client.CloseIdleConnections()
	}
	c.hosts = nil
}
