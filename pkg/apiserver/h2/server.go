package h2

import (
	"crypto/tls"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2/hpack"
)

// Config are the bounds of a Server. Durations of zero mean never.
type Config struct {
	// MaxStreams is how many requests of a connection may be under way; 250 when
	// zero.
	MaxStreams int
	// MaxHeaderBytes bounds the headers of a request; 64 KB when zero.
	MaxHeaderBytes int
	// IdleTimeout is how long a connection without requests is kept.
	IdleTimeout time.Duration
	// A connection on which nothing came for PingAfter is asked for a sign of
	// life, and ends when none comes within PingLimit.
	PingAfter, PingLimit time.Duration
	// Log gets panics of handlers as errors, and the mistakes of peers for
	// debugging.
	Log *slog.Logger
}

// Server serves the connections of an http.Server.
type Server struct {
	cfg     Config
	buffers sync.Pool // of *[]byte: frames to be written
	second  atomic.Pointer[dated]
	wg      sync.WaitGroup // connections and workers

	mu     sync.Mutex // guards all below
	idle   []*worker  // that wait for a request; the last one was busy last
	conns  map[*conn]struct{}
	closed bool
}

const (
	// maxIdle bounds the workers that wait.
	maxIdle = 64
	// keptBuffer is the largest buffer for writing that is used again.
	keptBuffer = 320 << 10
	// stackRoom is what a worker's stack has room for from the start: the deep
	// calls of a handler, which would otherwise copy it as they get there.
	stackRoom = 24 << 10
)

// New returns a Server.
func New(cfg Config) *Server {
	if cfg.MaxStreams <= 0 {
		cfg.MaxStreams = 250
	}
	if cfg.MaxHeaderBytes <= 0 {
		cfg.MaxHeaderBytes = 64 << 10
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{cfg: cfg, conns: map[*conn]struct{}{}}
}

// maxHeaderList is MaxHeaderBytes as HTTP/2 counts: 32 bytes more for each field.
func (s *Server) maxHeaderList() uint32 { return uint32(s.cfg.MaxHeaderBytes + 10*32) }

// Attach has the connections of hs whose client chose HTTP/2 served here. It is
// called before hs serves. The ConnState of hs is told of a connection before its
// first request, and not when it is idle. When hs shuts down, connections end with
// the requests that are under way.
func (s *Server) Attach(hs *http.Server) {
	hs.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){
		"h2": func(hs *http.Server, nc *tls.Conn, handler http.Handler) {
			if hs.ConnState != nil { // net/http says nothing of what it hands over
				hs.ConnState(nc, http.StateActive)
			}
			state := nc.ConnectionState()
			s.serve(nc, &state, handler)
		},
	}
	hs.RegisterOnShutdown(s.leave)
}

// Close ends all connections, and returns when all handlers have returned.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	for _, w := range s.idle {
		close(w.next)
	}
	s.idle = nil
	s.mu.Unlock()
	for _, c := range s.connections() {
		c.close(http.ErrServerClosed)
	}
	s.wg.Wait()
}

// connections are those that are open. A connection's lock is taken before the
// server's, never after it.
func (s *Server) connections() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.conns))
}

// leave asks all clients to go elsewhere with further requests.
func (s *Server) leave() {
	for _, c := range s.connections() {
		c.goAway()
	}
}

// serve serves a connection until it ends.
func (s *Server) serve(nc net.Conn, state *tls.ConnectionState, handler http.Handler) {
	c := newConn(s, nc, state, handler)
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.conns[c] = struct{}{}
	s.wg.Add(1)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
		s.wg.Done()
	}()
	c.run()
}

// worker runs handlers, one after another.
type worker struct {
	next   chan *stream
	buf    []byte              // what an answer is collected in
	fields []hpack.HeaderField // and its headers
}

// start has the handler of a stream run by a worker that waits, or a new one.
func (s *Server) start(st *stream) {
	s.mu.Lock()
	if n := len(s.idle); n > 0 {
		w := s.idle[n-1]
		s.idle = s.idle[:n-1]
		s.mu.Unlock()
		w.next <- st // has room
		return
	}
	if !s.closed {
		s.wg.Go(func() {
			growStack()
			s.work(&worker{next: make(chan *stream, 1)}, st)
		})
	}
	s.mu.Unlock()
}

func (s *Server) work(w *worker, st *stream) {
	for ok := true; ok; st, ok = <-w.next {
		st.serve(w)
		s.mu.Lock()
		if s.closed || len(s.idle) >= maxIdle {
			s.mu.Unlock()
			return
		}
		s.idle = append(s.idle, w)
		s.mu.Unlock()
	}
}

// growStack makes the goroutine's stack large at once.
//
//go:noinline
func growStack() byte {
	var room [stackRoom]byte
	return touch(&room)
}

// touch keeps the compiler from leaving the array out.
//
//go:noinline
func touch(room *[stackRoom]byte) byte { return room[0] }

// buffer is an empty one for frames.
func (s *Server) buffer() []byte {
	if b, ok := s.buffers.Get().(*[]byte); ok {
		return (*b)[:0]
	}
	return make([]byte, 0, 4<<10)
}

func (s *Server) putBuffer(b []byte) {
	if cap(b) <= keptBuffer {
		s.buffers.Put(&b)
	}
}

// dated is a second and how the Date header says it.
type dated struct {
	second int64
	text   string
}

func (s *Server) date(now time.Time) string {
	d := s.second.Load()
	if d == nil || d.second != now.Unix() {
		d = &dated{now.Unix(), now.UTC().Format(http.TimeFormat)}
		s.second.Store(d)
	}
	return d.text
}
