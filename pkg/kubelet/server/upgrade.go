package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of the handshake with the runtime.
const (
	dialTimeout      = 10 * time.Second
	handshakeTimeout = 30 * time.Second
	// maxAnswer bounds the head of its answer, and maxErrorText what a client
	// is shown of a refusal.
	maxAnswer    = 64 << 10
	maxErrorText = 4 << 10
	// halfClosed is how long one direction may go on after the other has ended.
	halfClosed = 10 * time.Second
)

// passed are the headers that belong to the upgrade; all others stay here.
func passed() []string {
	return []string{
		"Upgrade", "X-Stream-Protocol-Version", "Sec-Websocket-Key", "Sec-Websocket-Version",
		"Sec-Websocket-Protocol", "Sec-Websocket-Extensions", "Sec-Websocket-Accept",
	}
}

func wantsUpgrade(r *http.Request) bool {
	if r.Header.Get("Upgrade") == "" {
		return false
	}
	for _, value := range r.Header.Values("Connection") {
		for token := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(strings.TrimSpace(token), "upgrade") {
				return true
			}
		}
	}
	return false
}

// proxyUpgrade passes the client's upgrade request on and, if the backend
// agrees, the bytes of both. On any other answer both connections are closed,
// so that nothing can reach the backend on a connection that it did not grant.
func (s *Server) proxyUpgrade(w http.ResponseWriter, r *http.Request, to *url.URL) {
	ctx, cancel := context.WithTimeout(r.Context(), handshakeTimeout)
	defer cancel()
	// Whatever happens, this connection serves no second request.
	w.Header().Set("Connection", "close")
	backend, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", to.Host)
	if err != nil {
		fail(w, &httpError{http.StatusBadGateway, "the container runtime's streaming server does not answer: " + err.Error()})
		return
	}
	defer backend.Close()
	answer, fromBackend, err := handshake(ctx, backend, r, to)
	if err != nil {
		fail(w, &httpError{http.StatusBadGateway, "the container runtime did not open the stream: " + err.Error()})
		return
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		refuse(w, answer)
		return
	}
	s.streams.Add(1)
	defer s.streams.Done()
	client, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		fail(w, fmt.Errorf("taking over the connection: %w", err))
		return
	}
	defer client.Close()
	if err := writeSwitch(client, answer); err != nil {
		return
	}
	// The bytes that came with the request have been read already.
	early, err := buffered.Reader.Peek(buffered.Reader.Buffered())
	if err != nil {
		return
	}
	fromClient := io.MultiReader(strings.NewReader(string(early)), client)
	pipe := pipe{idle: s.cfg.IdleTimeout}
	pipe.run(r.Context(), end{client, fromClient}, end{backend, fromBackend})
}

// handshake sends the upgrade request and reads the head of the answer, within
// the deadline of ctx. The reader gives what the backend sends behind it.
func handshake(ctx context.Context, backend net.Conn, r *http.Request, to *url.URL) (*http.Response, io.Reader, error) {
	deadline, _ := ctx.Deadline()
	if err := backend.SetDeadline(deadline); err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = backend.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	req := &http.Request{Method: r.Method, URL: to, Host: to.Host, Header: make(http.Header), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	for _, name := range passed() {
		if values := r.Header.Values(name); len(values) > 0 {
			req.Header[name] = slices.Clone(values)
		}
	}
	req.Header.Set("Connection", "Upgrade")
	if err := req.Write(backend); err != nil {
		return nil, nil, err
	}
	limited := &io.LimitedReader{R: backend, N: maxAnswer}
	reader := bufio.NewReader(limited)
	answer, err := http.ReadResponse(reader, req)
	if err != nil {
		return nil, nil, err
	}
	limited.N = math.MaxInt64
	if answer.StatusCode == http.StatusSwitchingProtocols {
		stop()
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		return answer, reader, backend.SetDeadline(time.Time{})
	}
	return answer, reader, nil
}

// refuse tells the client why there is no stream. A redirect is not passed on:
// where it leads is not for the client to go.
func refuse(w http.ResponseWriter, answer *http.Response) {
	defer answer.Body.Close()
	if answer.StatusCode < 400 {
		fail(w, &httpError{http.StatusBadGateway, fmt.Sprintf("the container runtime answered the upgrade with %d", answer.StatusCode)})
		return
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxErrorText))
	if err != nil && len(text) == 0 {
		text = []byte(http.StatusText(answer.StatusCode))
	}
	fail(w, &httpError{answer.StatusCode, strings.TrimSpace(string(text))})
}

// writeSwitch writes the head of the answer that grants the upgrade.
func writeSwitch(client net.Conn, answer *http.Response) error {
	head := "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
	for _, name := range passed() {
		for _, value := range answer.Header.Values(name) {
			head += name + ": " + value + "\r\n"
		}
	}
	if err := client.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
		return err
	}
	if _, err := io.WriteString(client, head+"\r\n"); err != nil {
		return err
	}
	return client.SetDeadline(time.Time{})
}

// end is one end of a pipe: a connection, and a reader that gives what was read
// from it too early and then the rest.
type end struct {
	conn net.Conn
	from io.Reader
}

// pipe copies between two connections until both have ended, one has and the
// other does not follow, or neither has moved for the idle time.
type pipe struct {
	idle time.Duration
	last atomic.Int64 // time of the last byte, in Unix nanoseconds
	half atomic.Bool  // one direction has ended
}

// patience is how long nothing may move.
func (p *pipe) patience() time.Duration {
	if p.half.Load() {
		return min(halfClosed, p.idle)
	}
	return p.idle
}

func (p *pipe) run(ctx context.Context, a, b end) {
	p.touch()
	closeBoth := func() {
		_ = a.conn.Close()
		_ = b.conn.Close()
	}
	stop := context.AfterFunc(ctx, closeBoth)
	defer stop()
	var both sync.WaitGroup
	copyOne := func(dst, src end) {
		if p.copy(dst, src) != nil {
			closeBoth()
			return
		}
		// The source has said all it had: pass that on, and give the other
		// direction a moment to come to its end.
		if half, ok := dst.conn.(interface{ CloseWrite() error }); !ok || half.CloseWrite() != nil {
			closeBoth()
			return
		}
		p.half.Store(true)
		_ = dst.conn.SetReadDeadline(time.Now().Add(p.patience()))
	}
	both.Go(func() { copyOne(a, b) })
	both.Go(func() { copyOne(b, a) })
	both.Wait()
	closeBoth()
}

func (p *pipe) touch() { p.last.Store(time.Now().UnixNano()) }

// copy moves bytes until the source ends (nil) or something fails.
func (p *pipe) copy(dst, src end) error {
	buf := make([]byte, 32<<10)
	for {
		if err := src.conn.SetReadDeadline(time.Now().Add(p.patience())); err != nil {
			return err
		}
		n, err := src.from.Read(buf)
		if n > 0 {
			p.touch()
			if err := dst.conn.SetWriteDeadline(time.Now().Add(p.patience())); err != nil {
				return err
			}
			if _, err := dst.conn.Write(buf[:n]); err != nil {
				return err
			}
			p.touch()
		}
		var timeout net.Error
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			return nil
		case errors.As(err, &timeout) && timeout.Timeout() && time.Since(time.Unix(0, p.last.Load())) < p.patience():
			// Only this direction was silent.
		default:
			return err
		}
	}
}
