package apiserver

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"

	"coracle/pkg/auth"
)

// pipeBytes bounds what an in-memory response holds before its reader takes
// it: a watch that is not read stops its handler, not the process.
const pipeBytes = 256 << 10

// Transport returns an http.RoundTripper that calls the server directly, as
// user. It needs no listener, no TLS and no credentials; requests pass
// authorization, admission and all else.
func (s *Server) Transport(user *auth.User) http.RoundTripper {
	return &transport{server: s, user: user, asHTTP: &http.Server{}}
}

type transport struct {
	server *Server
	user   *auth.User
	// asHTTP tells a reverse proxy that it runs in a server: only then does it
	// abort an answer that broke off, which would else look like a whole one.
	asHTTP *http.Server
}

// RoundTrip implements http.RoundTripper. It returns when the handler has
// begun to answer; the body is read while the handler runs.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(context.WithValue(r.Context(), http.ServerContextKey, t.asHTTP))
	in := r.Clone(ctx)
	in.RequestURI = r.URL.RequestURI()
	in.RemoteAddr = "127.0.0.1:0"
	if in.Host == "" {
		in.Host = r.URL.Host
	}
	if in.Body == nil {
		in.Body = http.NoBody
	}
	w := &response{header: http.Header{}, bodiless: in.Method == http.MethodHead, started: make(chan struct{}), pipe: newPipe()}
	go func() {
		defer cancel()
		defer w.finish()
		defer func() {
			if p := recover(); p != nil {
				w.pipe.fail(errors.New("the in-memory request was aborted by its handler"))
			}
		}()
		growStack()
		t.server.serve(w, in, func(*http.Request) (*auth.User, error) { return t.user, nil })
	}()
	select {
	case <-w.started:
	case <-r.Context().Done():
		cancel()
		w.pipe.fail(r.Context().Err())
		return nil, r.Context().Err()
	}
	stop := context.AfterFunc(ctx, func() { w.pipe.fail(ctx.Err()) })
	return &http.Response{
		Status: http.StatusText(w.code), StatusCode: w.code,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.sent, ContentLength: -1, Request: r,
		Body: &body{pipe: w.pipe, close: func() { stop(); cancel() }},
	}, nil
}

// response is the handler's side of an in-memory exchange.
type response struct {
	header http.Header
	// bodiless drops what is written, as the answer to a HEAD has no body.
	bodiless bool
	once     sync.Once
	started  chan struct{} // closed once code and sent are set
	code     int
	sent     http.Header
	pipe     *pipe
}

func (w *response) Header() http.Header { return w.header }

func (w *response) WriteHeader(code int) {
	w.once.Do(func() {
		w.code, w.sent = code, w.header.Clone()
		close(w.started)
	})
}

func (w *response) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if w.bodiless {
		return len(b), nil
	}
	return w.pipe.write(b)
}

// Flush implements http.Flusher: every write is seen at once.
func (w *response) Flush() { w.WriteHeader(http.StatusOK) }

func (w *response) finish() {
	w.WriteHeader(http.StatusOK)
	w.pipe.fail(io.EOF)
}

// body is the client's side.
type body struct {
	pipe  *pipe
	close func()
}

func (b *body) Read(p []byte) (int, error) { return b.pipe.read(p) }

func (b *body) Close() error {
	b.pipe.fail(io.ErrClosedPipe)
	b.close()
	return nil
}

// pipe is a bounded in-memory stream of bytes.
type pipe struct {
	mu   sync.Mutex
	cond *sync.Cond
	buf  []byte // guarded by mu; what was written and not read
	err  error  // guarded by mu; why no more is written
}

func newPipe() *pipe {
	p := &pipe{}
	p.cond = sync.NewCond(&p.mu)
	return p
}

func (p *pipe) write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for len(b) > 0 {
		for len(p.buf) >= pipeBytes && p.err == nil {
			p.cond.Wait()
		}
		if p.err != nil {
			return n, p.err
		}
		k := min(len(b), pipeBytes-len(p.buf))
		p.buf = append(p.buf, b[:k]...)
		b = b[k:]
		n += k
		p.cond.Broadcast()
	}
	return n, nil
}

func (p *pipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.buf) == 0 {
		if p.err != nil {
			return 0, p.err
		}
		p.cond.Wait()
	}
	n := copy(b, p.buf)
	p.buf = p.buf[n:]
	if len(p.buf) == 0 {
		p.buf = nil
	}
	p.cond.Broadcast()
	return n, nil
}

// fail ends the stream; the first reason counts. What was written before is
// still read.
func (p *pipe) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
	p.cond.Broadcast()
}
