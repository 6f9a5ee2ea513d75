package nodeproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	portforwardconsts "k8s.io/apimachinery/pkg/util/portforward"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// maxForwardError bounds what an agent says of a port it cannot reach.
const maxForwardError = 4 << 10

// pingEvery keeps a connection to an agent alive.
const pingEvery = 5 * time.Second

// dialPod connects to a port of a pod by port-forward: target is the agent's
// address of it.
func (p *Proxy) dialPod(ctx context.Context, target *url.URL, port int) (net.Conn, error) {
	number := strconv.Itoa(port)
	target.RawQuery = url.Values{"port": {number}}.Encode()
	ask := &http.Request{Method: http.MethodPost, URL: target, Host: target.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Connection": {"Upgrade"}, "Upgrade": {"SPDY/3.1"}, "X-Stream-Protocol-Version": {portforwardconsts.PortForwardV1Name}}}
	agent, refused, err := p.upgrade(ctx, ask, target)
	if err = errors.Join(err, refused); err != nil {
		return nil, fmt.Errorf("the agent of the node at %s: %w", target.Host, err)
	}
	conn, err := spdy.NewClientConnectionWithPings(agent, pingEvery)
	if err != nil {
		return nil, fmt.Errorf("speak SPDY with the agent: %w", err)
	}
	out, err := openPort(conn, agent, number)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return out, nil
}

// openPort opens the two streams of one forwarded connection.
func openPort(conn httpstream.Connection, agent net.Conn, port string) (*podConn, error) {
	headers := http.Header{}
	headers.Set(corev1.PortHeader, port)
	headers.Set(corev1.PortForwardRequestIDHeader, "0")
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	failures, err := conn.CreateStream(headers)
	if err != nil {
		return nil, fmt.Errorf("open the error stream of a forwarded port: %w", err)
	}
	if err := failures.Close(); err != nil { // nothing is sent on it
		return nil, fmt.Errorf("close our side of the error stream: %w", err)
	}
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := conn.CreateStream(headers)
	if err != nil {
		return nil, fmt.Errorf("open the data stream of a forwarded port: %w", err)
	}
	c := &podConn{Stream: data, conn: conn, agent: agent, failed: make(chan struct{})}
	go c.listen(failures)
	return c, nil
}

// podConn is a connection to a port of a pod, as a stream through the agent of
// its node.
type podConn struct {
	httpstream.Stream
	conn  httpstream.Connection
	agent net.Conn
	close sync.Once

	failed  chan struct{} // closed when the agent's error stream has ended
	failure string        // set before failed is closed
}

// listen waits for what the agent says of a failure; it ends with the
// connection.
func (c *podConn) listen(failures io.Reader) {
	defer close(c.failed)
	text, err := io.ReadAll(io.LimitReader(failures, maxForwardError))
	if err == nil {
		c.failure = string(text)
	}
}

// Read implements net.Conn. Where the agent could not reach the port, it says
// why.
func (c *podConn) Read(b []byte) (int, error) {
	n, err := c.Stream.Read(b)
	if n > 0 || !errors.Is(err, io.EOF) {
		return n, err
	}
	select {
	case <-c.failed:
		if c.failure != "" {
			return 0, errors.New(c.failure)
		}
	case <-time.After(failureWait):
	}
	return 0, io.EOF
}

// failureWait is how long the end of the data waits for the reason of the end.
const failureWait = time.Second

// Close implements net.Conn: it ends the whole connection to the agent.
func (c *podConn) Close() (err error) {
	c.close.Do(func() { err = errors.Join(c.Reset(), c.conn.Close()) })
	return err
}

// LocalAddr and RemoteAddr are those of the connection to the agent.
func (c *podConn) LocalAddr() net.Addr { return c.agent.LocalAddr() }

// RemoteAddr implements net.Conn.
func (c *podConn) RemoteAddr() net.Addr { return c.agent.RemoteAddr() }

// SetDeadline implements net.Conn: a stream has none, requests are bounded by
// their contexts.
func (c *podConn) SetDeadline(time.Time) error { return os.ErrNoDeadline }

// SetReadDeadline implements net.Conn.
func (c *podConn) SetReadDeadline(time.Time) error { return os.ErrNoDeadline }

// SetWriteDeadline implements net.Conn.
func (c *podConn) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }
