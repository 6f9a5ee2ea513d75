package controlplane

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
)

// connections are those whose clients have shown a certificate, so that all that
// is under way on them ends when the certificate counts no more: a watch is asked
// who it is only as it begins. A connection is looked at once, a request never.
type connections struct {
	mu   sync.Mutex
	open map[*connection]*x509.Certificate // guarded by mu
}

// connection is below TLS.
type connection struct {
	net.Conn
	of *connections
	// noted is set by the first request.
	noted atomic.Bool
}

// Close implements net.Conn. It also is how a connection ends that was taken
// over for an upgrade.
func (c *connection) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// listener follows the connections of l and puts TLS on them.
func (c *connections) listener(l net.Listener, config *tls.Config) net.Listener {
	return tls.NewListener(followedListener{l, c}, config)
}

type followedListener struct {
	net.Listener
	of *connections
}

// Accept implements net.Listener.
func (l followedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &connection{Conn: c, of: l.of}, nil
}

// state is the ConnState of the server: with a connection's first request its
// handshake is over, and nobody has looked at the request yet.
func (c *connections) state(conn net.Conn, state http.ConnState) {
	if state != http.StateActive {
		return
	}
	t, ok := conn.(*tls.Conn)
	if !ok {
		return
	}
	below, ok := t.NetConn().(*connection)
	if !ok || below.noted.Swap(true) {
		return
	}
	shown := t.ConnectionState().PeerCertificates
	if len(shown) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil {
		c.open = map[*connection]*x509.Certificate{}
	}
	c.open[below] = shown[0]
}

// end closes the connections whose certificate is refused, and returns how many
// they were. Requests that come later are refused by themselves: whoever calls has
// put into force before what refuses them.
func (c *connections) end(refused func(*x509.Certificate) bool) int {
	c.mu.Lock()
	var all []*connection
	for conn, cert := range c.open {
		if refused(cert) {
			all = append(all, conn)
		}
	}
	c.mu.Unlock()
	for _, conn := range all {
		// No word of farewell, which a client that does not read could delay.
		_ = conn.Close()
	}
	return len(all)
}
