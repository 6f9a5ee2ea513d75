package h2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// expectedBody is up to where a body that was announced gets its room at once.
const expectedBody = 64 << 10

// stream is one request and its answer.
type stream struct {
	c       *conn
	id      uint32
	request *http.Request
	handler http.Handler
	cancel  context.CancelFunc
	w       response

	// All below is guarded by c.mu. err is set as the stream is forgotten.
	cond     sync.Cond // the body has come, there is more room, or err is set
	err      error
	room     int64 // how much the client takes
	recv     int64 // how much the client may send
	owed     int   // what was read since it was told of more room
	in       []byte
	read     int   // of in
	got      int64 // bytes of the body that have come
	declared int64 // how many were announced, -1 when not
	whole    bool  // the client has ended the request
	inErr    error // why no more of the body comes
	closed   bool  // the handler does not want the body any more
	expect   bool  // the client waits for a word before it sends the body
	short    bool  // it is among the connection's short ones

	readTimer, writeTimer *time.Timer
}

// take keeps a part of the body for the handler. c.mu is held.
func (st *stream) take(part []byte) {
	if st.in == nil && st.declared >= int64(len(part)) && st.declared <= expectedBody {
		st.in = make([]byte, 0, st.declared)
	}
	if st.read > 0 && st.read >= len(st.in)/2 && len(st.in)+len(part) > cap(st.in) {
		st.in = st.in[:copy(st.in, st.in[st.read:])]
		st.read = 0
	}
	st.in = append(st.in, part...)
}

// endOfBody is called when the client has sent all. c.mu is held.
func (st *stream) endOfBody() {
	st.whole = true
	if st.inErr != nil {
		return
	}
	st.inErr = io.EOF
	if st.declared >= 0 && st.declared != st.got {
		st.inErr = fmt.Errorf("the request declared a Content-Length of %d but has %d bytes", st.declared, st.got)
	}
}

// body is the stream as the body of its request.
type body stream

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	st := (*stream)(b)
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if st.expect && st.err == nil {
		st.expect = false
		c.putHeaders(st, []hpack.HeaderField{statusField(http.StatusContinue)}, false)
		c.kick()
	}
	for st.read == len(st.in) && st.inErr == nil && st.err == nil && !st.closed && len(p) > 0 {
		st.cond.Wait()
	}
	if st.closed {
		return 0, http.ErrBodyReadAfterClose
	}
	if n := copy(p, st.in[st.read:]); n > 0 || len(p) == 0 {
		if st.read += n; st.read == len(st.in) {
			st.in, st.read = st.in[:0], 0
		}
		c.credit(st, n)
		c.kick()
		return n, nil
	}
	if st.inErr != nil {
		return 0, st.inErr
	}
	return 0, st.err
}

// Close implements io.Closer: what else comes is thrown away.
func (b *body) Close() error {
	st := (*stream)(b)
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	if !st.closed {
		st.closed = true
		st.c.credit(st, len(st.in)-st.read)
		st.c.kick()
		st.in, st.read = nil, 0
		st.cond.Broadcast()
	}
	return nil
}

// serve runs the handler and ends the answer.
func (st *stream) serve(w *worker) {
	st.w.begin(st, w)
	st.run()
	w.buf, w.fields = st.w.buf[:0], st.w.fields[:0]
	clear(w.fields[:cap(w.fields)])
	if cap(w.buf) > 2*bufferedBytes {
		w.buf = nil
	}
	st.w.buf, st.w.fields = nil, nil
}

// run calls the handler. A panic resets the stream: it is none of the other
// streams' business.
func (st *stream) run() {
	defer func() {
		if p := recover(); p != nil {
			st.panicked(p)
		}
	}()
	st.handler.ServeHTTP(&st.w, st.request)
	st.w.finish()
}

func (st *stream) panicked(p any) {
	if p != http.ErrAbortHandler {
		st.c.server.cfg.Log.Error("a request handler panicked", "client", st.c.remote, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	}
	c := st.c
	c.mu.Lock()
	st.w.ended = true
	if st.err == nil {
		c.reset(st.id, http2.ErrCodeInternal, errGone)
	}
	c.done()
	c.flush()
}

// expire is called when a deadline of the handler is over.
func (st *stream) expire() {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	if st.err == nil {
		st.c.reset(st.id, http2.ErrCodeInternal, os.ErrDeadlineExceeded)
	}
}

// expireBody is called when the deadline for reading is over.
func (st *stream) expireBody() {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	if st.inErr == nil {
		st.inErr = fmt.Errorf("the body of the request: %w", os.ErrDeadlineExceeded)
		st.cond.Broadcast()
	}
}

// setTimer sets, moves or stops a timer of the stream.
func (st *stream) setTimer(timer **time.Timer, deadline time.Time, over func()) error {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	if st.err != nil {
		return st.err
	}
	if *timer != nil {
		(*timer).Stop()
	}
	if deadline.IsZero() {
		*timer = nil
		return nil
	}
	*timer = time.AfterFunc(time.Until(deadline), over)
	return nil
}

var errHandlerEnded = errors.New("the handler of the request has returned")
