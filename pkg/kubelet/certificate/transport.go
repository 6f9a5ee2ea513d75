package certificate

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"k8s.io/client-go/rest"

	"coracle/pkg/pki"
)

// A connection on which nothing came for pingAfter is asked for a sign of life,
// and closed when none comes within pingLimit; one without requests is closed
// after idleLimit.
const (
	pingAfter = 30 * time.Second
	pingLimit = 15 * time.Second
	idleLimit = 90 * time.Second
	dialLimit = 30 * time.Second
)

// Transport makes requests under the client certificate that a Live holds, to
// servers of the authorities of the moment. After one of them was replaced, requests go over new connections; those of the old
// certificate go on with what is under way on them, such as watches, and are
// closed when that ends.
type Transport struct {
	live  *pki.Live
	base  *tls.Config
	roots func() *x509.CertPool // nil for those of base

	mu   sync.Mutex
	leaf *x509.Certificate // that now was made for; guarded by mu
	pool *x509.CertPool    // likewise
	now  *http.Transport   // guarded by mu
}

// NewTransport verifies servers by base, which it takes over, and by roots where
// they are not nil. As long as nothing changes, roots returns the same pool.
func NewTransport(base *tls.Config, live *pki.Live, roots func() *x509.CertPool) *Transport {
	base.GetClientCertificate = live.GetClientCertificate
	t := &Transport{live: live, base: base, roots: roots}
	t.leaf, t.pool = live.Leaf(), t.believed()
	t.now = t.make()
	return t
}

func (t *Transport) believed() *x509.CertPool {
	if t.roots == nil {
		return t.base.RootCAs
	}
	return t.roots()
}

func (t *Transport) make() *http.Transport {
	dialer := &net.Dialer{Timeout: dialLimit, KeepAlive: dialLimit}
	config := t.base.Clone()
	config.RootCAs = t.pool
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext, TLSClientConfig: config,
		TLSHandshakeTimeout: dialLimit, IdleConnTimeout: idleLimit, MaxIdleConnsPerHost: 25, ForceAttemptHTTP2: true,
		HTTP2: &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingLimit},
	}
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	return t.current().RoundTrip(r)
}

// CloseIdleConnections closes the connections on which nothing is under way.
func (t *Transport) CloseIdleConnections() { t.current().CloseIdleConnections() }

func (t *Transport) current() *http.Transport {
	t.mu.Lock()
	defer t.mu.Unlock()
	if leaf, pool := t.live.Leaf(), t.believed(); leaf != t.leaf || pool != t.pool {
		t.now.CloseIdleConnections()
		t.leaf, t.pool = leaf, pool
		t.now = t.make()
	}
	return t.now
}

// ClientConfig is a configuration of clients that reach the server of base, know
// it by the same authority, or by roots where they are not nil, and are known by what
// live holds. Nothing else of base is taken over.
func ClientConfig(base *rest.Config, live *pki.Live, roots func() *x509.CertPool) (*rest.Config, error) {
	if base.Insecure {
		return nil, errors.New("the kubeconfig says not to verify the API server: name its authority instead")
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: base.ServerName}
	bundle := base.CAData
	if len(bundle) == 0 && base.CAFile != "" {
		var err error
		if bundle, err = read(base.CAFile); err != nil {
			return nil, fmt.Errorf("read the authority of the API server: %w", err)
		}
	}
	if len(bundle) > 0 {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(bundle) {
			return nil, errors.New("the authority of the API server holds no certificate")
		}
	}
	return &rest.Config{Host: base.Host, APIPath: base.APIPath, Transport: NewTransport(config, live, roots)}, nil
}

// Seed is the client certificate of a configuration, nil when it has none.
func Seed(base *rest.Config) (*pki.Pair, error) {
	part := func(data []byte, file string) ([]byte, error) {
		if len(data) > 0 || file == "" {
			return data, nil
		}
		return read(file)
	}
	cert, err := part(base.CertData, base.CertFile)
	if err == nil && len(cert) > 0 {
		var key []byte
		if key, err = part(base.KeyData, base.KeyFile); err == nil {
			return pki.ParsePair(cert, key)
		}
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return nil, err
}
