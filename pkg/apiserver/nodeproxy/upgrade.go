package nodeproxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"coracle/pkg/apiserver"
	"coracle/pkg/registry"
)

// isUpgrade says that the client wants to leave HTTP.
func isUpgrade(r *http.Request) bool {
	for _, v := range r.Header.Values("Connection") {
		for token := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(token), "upgrade") {
				return true
			}
		}
	}
	return false
}

// upgraded is a connection to an agent that has agreed to leave HTTP.
type upgraded struct {
	net.Conn
	reader *bufio.Reader // may hold bytes that came with the answer
	resp   *http.Response
}

// Read reads what the answer's reader holds first.
func (u *upgraded) Read(b []byte) (int, error) { return u.reader.Read(b) }

// upgrade asks an agent to leave HTTP. refused is its answer when it does not
// agree; the connection is closed then.
func (p *Proxy) upgrade(ctx context.Context, r *http.Request, target *url.URL) (conn *upgraded, refused error, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	c, err := p.dial(ctx, "tcp", target.Host)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if conn == nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if err := c.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return nil, nil, err
	}
	if err := r.Write(c); err != nil {
		return nil, nil, fmt.Errorf("send the request: %w", err)
	}
	reader := bufio.NewReader(c)
	resp, err := http.ReadResponse(reader, r)
	if err != nil {
		return nil, nil, fmt.Errorf("read the answer: %w", err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		refused := agentError(resp, target, registry.Request{})
		closeBody(resp.Body)
		return nil, refused, nil
	}
	if err := c.SetDeadline(time.Time{}); err != nil {
		return nil, nil, err
	}
	return &upgraded{c, reader, resp}, nil, nil
}

// upgradeRequest is the client's upgrade, addressed to the agent and without
// the client's credentials.
func upgradeRequest(r *http.Request, target *url.URL) *http.Request {
	out := &http.Request{Method: r.Method, URL: target, Host: target.Host, Header: http.Header{}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	for name, values := range r.Header {
		if name == "Connection" || name == "Upgrade" || name == "Origin" ||
			strings.HasPrefix(name, "Sec-Websocket-") || name == "X-Stream-Protocol-Version" {
			out.Header[name] = values
		}
	}
	// A token in the subprotocols is for the API server alone.
	if protocols := out.Header.Values("Sec-Websocket-Protocol"); len(protocols) > 0 {
		var kept []string
		for protocol := range strings.SplitSeq(strings.Join(protocols, ","), ",") {
			if protocol = strings.TrimSpace(protocol); !strings.HasPrefix(protocol, "base64url.bearer.authorization.") {
				kept = append(kept, protocol)
			}
		}
		out.Header.Set("Sec-Websocket-Protocol", strings.Join(kept, ", "))
	}
	return out
}

// passThrough joins client and agent once the agent has agreed to the
// upgrade.
func (p *Proxy) passThrough(w http.ResponseWriter, r *http.Request, target *url.URL) {
	agent, refused, err := p.upgrade(r.Context(), upgradeRequest(r, target), target)
	if err != nil {
		refused = unreachable(target, err)
	}
	if refused != nil {
		apiserver.WriteError(w, refused)
		return
	}
	defer closeBody(agent)
	client, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		apiserver.WriteError(w, fmt.Errorf("this connection cannot leave HTTP: use HTTP/1.1: %w", err))
		return
	}
	defer closeBody(client)
	if err := agent.resp.Write(client); err != nil {
		return
	}
	join(bufferedConn{client, buffered.Reader}, agent)
}

// bufferedConn reads what the HTTP server had read ahead first.
type bufferedConn struct {
	net.Conn
	reader io.Reader
}

func (c bufferedConn) Read(b []byte) (int, error) { return c.reader.Read(b) }

// join copies both ways until either side ends, then closes both.
func join(a, b net.Conn) {
	var wg sync.WaitGroup
	watch := newIdle(func() { closeBody(a); closeBody(b) })
	defer watch.stop()
	pipe := func(dst, src net.Conn) {
		defer closeBody(a)
		defer closeBody(b)
		if _, err := io.Copy(watch.writer(dst), src); err != nil {
			return // the other direction ends too
		}
	}
	wg.Go(func() { pipe(a, b) })
	wg.Go(func() { pipe(b, a) })
	wg.Wait()
}

// idle ends a pair of connections on which nothing moves.
type idle struct{ timer *time.Timer }

func newIdle(end func()) *idle { return &idle{time.AfterFunc(idleTimeout, end)} }

func (i *idle) stop() { i.timer.Stop() }

func (i *idle) writer(w io.Writer) io.Writer { return idleWriter{w, i} }

type idleWriter struct {
	io.Writer
	idle *idle
}

func (w idleWriter) Write(b []byte) (int, error) {
	w.idle.timer.Reset(idleTimeout)
	return w.Writer.Write(b)
}
