package h2

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	// firstWindow is what HTTP/2 gives before anything is said, and firstFrame
	// how large a frame may be then.
	firstWindow = 65535
	firstFrame  = 16 << 10
	// recvWindow is how much a connection, and each stream, may send that no
	// handler has read.
	recvWindow = 1 << 20
	// maxWindow is the largest that HTTP/2 knows.
	maxWindow = 1<<31 - 1
	// headerTable bounds the tables of header compression.
	headerTable = 4096
	// maxPending is how much waits to be written before handlers wait too.
	maxPending = 256 << 10
	// maxReplies bounds frames that answer frames while nothing can be written.
	maxReplies = 2000
	// helloLimit is how long a client may take to say how it speaks HTTP/2.
	helloLimit = 10 * time.Second
	// byeLimit is how long a connection that is to end is still read from, so
	// that the client gets what was said last.
	byeLimit = time.Second
)

// errGone is what handlers see of a connection that has ended.
var errGone = errors.New("the client has gone")

// conn is one connection. The goroutine of run reads. Whoever has something to
// say appends frames to pending, and one at a time writes what is there.
type conn struct {
	server  *Server
	nc      net.Conn
	handler http.Handler
	base    context.Context // of all requests; never ends by itself
	remote  string
	tls     *tls.ConnectionState
	heard   atomic.Int64 // when anything last came, in nanoseconds

	// Of the reader alone.
	reader  *bufio.Reader
	framer  *http2.Framer
	greeted bool      // the first SETTINGS have come
	ready   []*stream // to be started before the next read that may wait

	mu      sync.Mutex // guards all below
	pending []byte     // frames to be written; nil when there are none
	writing bool       // somebody writes
	began   time.Time  // when that write began
	replies int        // frames pending that answer frames
	encoder *hpack.Encoder
	block   bytes.Buffer // what encoder writes
	streams map[uint32]*stream
	last    uint32    // the highest stream there was
	running int       // handlers
	waiting []*stream // for a handler, while those of streams that were reset run
	short   []*stream // that wait until more can be sent on the connection
	room    int64     // how much the client takes on the connection
	first   int64     // and on a new stream
	frame   int       // the largest frame it takes
	recv    int64     // how much the client may send
	owed    int       // what was read since it was told of more room
	unacked int       // SETTINGS of ours that it has not confirmed
	away    bool      // GOAWAY has been said
	idle    time.Time // since when there are no streams
	pinged  time.Time // when a sign of life was asked for; zero when not
	timer   *time.Timer
	err     error // why the connection ended
}

func newConn(s *Server, nc net.Conn, state *tls.ConnectionState, handler http.Handler) *conn {
	base := context.Background()
	if h, ok := handler.(interface{ BaseContext() context.Context }); ok {
		base = context.WithoutCancel(h.BaseContext())
	}
	c := &conn{
		server: s, nc: nc, handler: handler, base: context.WithValue(base, http.LocalAddrContextKey, nc.LocalAddr()),
		remote: nc.RemoteAddr().String(), tls: state, streams: map[uint32]*stream{},
		room: firstWindow, first: firstWindow, frame: firstFrame, recv: recvWindow, idle: time.Now(),
	}
	c.heard.Store(c.idle.UnixNano())
	c.encoder = hpack.NewEncoder(&c.block)
	c.encoder.SetMaxDynamicTableSizeLimit(headerTable)
	c.reader = bufio.NewReader(source{c})
	c.framer = http2.NewFramer(nil, c.reader)
	c.framer.SetReuseFrames()
	c.framer.SetMaxReadFrameSize(firstFrame)
	c.framer.ReadMetaHeaders = hpack.NewDecoder(headerTable, nil)
	c.framer.MaxHeaderListSize = s.maxHeaderList()
	return c
}

// queue is where the next frame is appended. c.mu is held.
func (c *conn) queue() []byte {
	if c.pending == nil {
		c.pending = c.server.buffer()
	}
	return c.pending
}

// flush writes what is pending, unless somebody else does, which then follows.
// It is called with c.mu held and releases it.
func (c *conn) flush() {
	defer c.mu.Unlock()
	if c.writing || len(c.pending) == 0 {
		return
	}
	c.writing, c.began = true, time.Now()
	// Whose answer is about to be ready comes first: it goes out in the same write.
	c.mu.Unlock()
	runtime.Gosched()
	c.mu.Lock()
	c.write()
	// What others have added meanwhile does not keep this handler.
	c.writing = false
	c.kick()
}

// kick has what is pending written by another goroutine: the reader never
// waits for the client to read. c.mu is held.
func (c *conn) kick() {
	if !c.writing && len(c.pending) > 0 && c.err == nil {
		c.writing, c.began = true, time.Now()
		c.server.wg.Go(c.drain)
	}
}

// drain writes until nothing is pending.
func (c *conn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.pending) > 0 && c.err == nil {
		c.write()
	}
	c.writing = false
}

// write writes what is pending. c.mu is held, but not while it writes.
func (c *conn) write() {
	if len(c.pending) == 0 || c.err != nil {
		return
	}
	out := c.pending
	c.pending, c.replies, c.began = nil, 0, time.Now()
	c.mu.Unlock()
	_, err := c.nc.Write(out)
	c.server.putBuffer(out)
	c.mu.Lock()
	if err != nil {
		c.fail(err)
	}
	c.more()
}

// more wakes the streams that wait to send. c.mu is held.
func (c *conn) more() {
	for _, st := range c.short {
		st.short = false
		st.cond.Broadcast()
	}
	clear(c.short)
	c.short = c.short[:0]
}

// fail ends the connection and with it all streams. c.mu is held.
func (c *conn) fail(err error) {
	if c.err != nil {
		return
	}
	c.err = err
	// The reader returns and closes; a write that is stuck ends as well.
	_ = c.nc.SetDeadline(time.Unix(1, 0))
	if c.timer != nil {
		c.timer.Stop()
	}
	for _, st := range c.streams {
		c.drop(st, errGone)
	}
}

func (c *conn) close(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail(err)
}

// drop forgets a stream: err is what its handler sees, if it still runs. c.mu is
// held, and who releases it has what is pending written.
func (c *conn) drop(st *stream, err error) {
	if c.streams[st.id] != st {
		return
	}
	delete(c.streams, st.id)
	st.err = err
	for _, t := range []*time.Timer{st.readTimer, st.writeTimer} {
		if t != nil {
			t.Stop()
		}
	}
	c.credit(nil, len(st.in)-st.read)
	st.in, st.read = nil, 0
	st.cond.Broadcast()
	st.cancel()
	if len(c.streams) == 0 {
		c.idle = time.Now()
		c.part()
	}
}

// reset ends a stream with an error. c.mu is held.
func (c *conn) reset(id uint32, code http2.ErrCode, err error) {
	c.pending = appendReset(c.queue(), id, code)
	c.replies++
	if st := c.streams[id]; st != nil {
		c.drop(st, err)
	}
	c.kick()
}

// credit gives the client room for n bytes that were read of a stream, or
// thrown away. c.mu is held, and who releases it has what is pending written.
func (c *conn) credit(st *stream, n int) {
	const enough = recvWindow / 4
	if c.owed += n; c.owed >= enough {
		c.pending = appendWindowUpdate(c.queue(), 0, c.owed)
		c.recv += int64(c.owed)
		c.owed = 0
	}
	if st == nil || st.whole || st.err != nil {
		return
	}
	if st.owed += n; st.owed >= enough {
		c.pending = appendWindowUpdate(c.queue(), st.id, st.owed)
		st.recv += int64(st.owed)
		st.owed = 0
	}
}

// goAway asks the client to go elsewhere with further requests.
func (c *conn) goAway() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leave(http2.ErrCodeNo)
}

// leave says GOAWAY. The connection ends with its last stream. c.mu is held.
func (c *conn) leave(code http2.ErrCode) {
	if c.away || c.err != nil {
		return
	}
	c.away = true
	c.pending = appendGoAway(c.queue(), c.last, code)
	c.kick()
	if len(c.streams) == 0 {
		c.part()
	}
}

// part ends a connection that has said GOAWAY and has no streams, after a
// moment in which the client can read that. c.mu is held.
func (c *conn) part() {
	if c.away && c.err == nil {
		_ = c.nc.SetReadDeadline(time.Now().Add(byeLimit)) // the reader's next error
	}
}

// tend looks whether the connection is used, and the client alive.
func (c *conn) tend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	now, cfg := time.Now(), &c.server.cfg
	heard := time.Unix(0, c.heard.Load())
	next := time.Hour
	until := func(since time.Time, limit time.Duration) bool {
		left := limit - now.Sub(since)
		if limit > 0 && left > 0 {
			next = min(next, left)
		}
		return limit > 0 && left <= 0
	}
	if len(c.streams) == 0 && until(c.idle, cfg.IdleTimeout) {
		c.leave(http2.ErrCodeNo)
	}
	if c.pinged.Before(heard) {
		c.pinged = time.Time{}
	}
	switch {
	case c.writing && until(c.began, cfg.PingAfter+cfg.PingLimit):
		c.fail(errors.New("the client takes nothing"))
		return
	case !c.pinged.IsZero():
		if until(c.pinged, cfg.PingLimit) {
			c.fail(errors.New("the client gives no sign of life"))
			return
		}
	case until(heard, cfg.PingAfter):
		c.pinged = now
		c.pending = appendPing(c.queue(), 0, [8]byte{})
		c.kick()
		until(c.pinged, cfg.PingLimit)
	}
	c.timer.Reset(max(next, 10*time.Millisecond))
}

// done is called when a handler has returned. c.mu is held.
func (c *conn) done() {
	c.running--
	for len(c.waiting) > 0 && c.running < c.server.cfg.MaxStreams {
		st := c.waiting[0]
		c.waiting = slices.Delete(c.waiting, 0, 1)
		if st.err == nil { // it has not been reset meanwhile
			c.running++
			c.server.start(st)
		}
	}
}
