package etcd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/url"
	"runtime"
	"strconv"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// firstWindow is what HTTP/2 gives before anything is said, and firstFrame
	// how large a frame may be then.
	firstWindow = 65535
	firstFrame  = 16 << 10
	// creditFrom is how much has arrived before etcd is given room for more.
	creditFrom = 1 << 20
	// maxLaneCalls bounds the calls under way.
	maxLaneCalls = 1024
	// lastStream is from when a connection is replaced, long before its numbers
	// of streams end.
	lastStream = 1 << 30
	// maxHeaderList bounds the headers of an answer.
	maxHeaderList = 64 << 10
	// keptBuffer is the largest buffer that is used again.
	keptBuffer = 1 << 20
)

// errNotDone says that etcd has certainly not begun with a call.
var errNotDone = errors.New("the call has not been sent")

// laneConn is one HTTP/2 connection for unary calls of gRPC. Calls that are made
// at the same time go out in one write. One goroutine reads, one looks whether
// the peer is alive; both end with the connection.
type laneConn struct {
	nc     net.Conn
	host   string
	scheme string
	framer *http2.Framer // its reading side is the reader's, its writing side guarded by mu

	mu      sync.Mutex // guards all below
	pending []byte     // frames to be written
	spare   []byte
	writing bool // somebody writes what is pending
	headers bytes.Buffer
	encoder *hpack.Encoder
	calls   map[uint32]*laneCall
	next    uint32
	room    int64         // how much etcd takes on the connection
	first   int64         // and on a new stream
	frame   int           // the largest frame it takes
	most    int           // and how many calls at once
	unacked int           // what came since it was given room for more
	grown   chan struct{} // closed and replaced when there is more room
	heard   time.Time     // when anything last came
	pinged  bool          // a sign of life has been asked for since
	closing bool          // no call is begun any more
	err     error         // why the connection ended
	ended   chan struct{} // closed with err
}

// laneCall is one call under way.
type laneCall struct {
	room    int64 // guarded by the connection's mu
	reply   []byte
	unacked int           // of the reply; the reader's
	err     error         // set before done is closed
	done    chan struct{} // closed at the end
}

// newLaneConn begins to use a connection that speaks HTTP/2.
func newLaneConn(nc net.Conn, scheme, host string, now time.Time) *laneConn {
	c := &laneConn{
		nc: nc, host: host, scheme: scheme, calls: map[uint32]*laneCall{}, next: 1, room: firstWindow, first: firstWindow,
		frame: firstFrame, most: maxLaneCalls, grown: make(chan struct{}), heard: now, ended: make(chan struct{}),
	}
	c.encoder = hpack.NewEncoder(&c.headers)
	c.framer = http2.NewFramer(pendingWriter{c}, nc)
	c.framer.SetReuseFrames()
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.framer.MaxHeaderListSize = maxHeaderList
	c.mu.Lock()
	c.pending = append(c.pending, http2.ClientPreface...)
	c.must(c.framer.WriteSettings(
		http2.Setting{ID: http2.SettingEnablePush, Val: 0}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: streamWindow}))
	c.must(c.framer.WriteWindowUpdate(0, connWindow-firstWindow))
	c.flush()
	return c
}

// pendingWriter is where the framer writes: what is written later, together.
type pendingWriter struct{ c *laneConn }

func (w pendingWriter) Write(p []byte) (int, error) {
	w.c.pending = append(w.c.pending, p...)
	return len(p), nil
}

// must takes the error of a frame that was put together, which is a frame that
// HTTP/2 does not allow. c.mu is held.
func (c *laneConn) must(err error) {
	if err != nil {
		c.fail(err)
	}
}

// flush writes what is pending, unless somebody else does. It is called with
// c.mu held and releases it.
func (c *laneConn) flush() {
	defer c.mu.Unlock()
	if c.writing {
		return
	}
	c.writing = true
	// Who is about to make a call comes first: theirs goes out in the same write.
	c.mu.Unlock()
	runtime.Gosched()
	c.mu.Lock()
	for len(c.pending) > 0 && c.err == nil {
		out := c.pending
		c.pending = c.spare[:0]
		c.mu.Unlock()
		_, err := c.nc.Write(out)
		c.mu.Lock()
		if c.spare = out[:0]; cap(out) > keptBuffer {
			c.spare = nil
		}
		if err != nil {
			c.fail(err)
		}
	}
	c.writing = false
}

// fail ends the connection and with it all calls. c.mu is held.
func (c *laneConn) fail(err error) {
	if c.err != nil {
		return
	}
	c.err, c.closing = err, true
	close(c.ended)
	_ = c.nc.Close() // the error that counts is err
	for id := range c.calls {
		c.end(id, status.Error(codes.Unavailable, "the connection to etcd broke: "+err.Error()))
	}
}

func (c *laneConn) close(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail(err)
}

// end ends a call. c.mu is held.
func (c *laneConn) end(id uint32, err error) {
	if call := c.calls[id]; call != nil {
		delete(c.calls, id)
		call.err = err
		close(call.done)
	}
}

// usable says that a call may be begun.
func (c *laneConn) usable() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.closing
}

// do makes a call: message is sent after five bytes that do sets, and the
// message of the answer is returned. The error is errNotDone when the call can
// be made elsewhere, that of ctx, or one of gRPC.
func (c *laneConn) do(ctx context.Context, method string, message []byte) ([]byte, error) {
	binary.BigEndian.PutUint32(message[1:5], uint32(len(message)-5))
	c.mu.Lock()
	if c.closing || len(c.calls) >= c.most {
		c.mu.Unlock()
		return nil, errNotDone
	}
	id := c.next
	c.next += 2
	c.closing = c.next >= lastStream
	call := &laneCall{room: c.first, done: make(chan struct{})}
	if len(c.calls) == 0 {
		c.heard = time.Now()
	}
	c.calls[id] = call
	c.encode(method)
	c.must(c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.headers.Bytes(), EndHeaders: true}))
	for {
		message = c.send(id, call, message)
		grown := c.grown
		c.flush()
		if len(message) == 0 {
			break
		}
		select {
		case <-grown:
		case <-call.done:
			return finish(call)
		case <-ctx.Done():
			return c.give(ctx, id, call)
		}
		c.mu.Lock()
	}
	select {
	case <-call.done:
		return finish(call)
	case <-ctx.Done():
		return c.give(ctx, id, call)
	}
}

// give gives a call up, unless it has ended meanwhile.
func (c *laneConn) give(ctx context.Context, id uint32, call *laneCall) ([]byte, error) {
	c.mu.Lock()
	if c.calls[id] != nil {
		c.end(id, ctx.Err())
		c.must(c.framer.WriteRSTStream(id, http2.ErrCodeCancel))
	}
	c.flush()
	return finish(call)
}

func finish(call *laneCall) ([]byte, error) {
	if call.err != nil {
		return nil, call.err
	}
	if len(call.reply) < 5 || call.reply[0] != 0 || int(binary.BigEndian.Uint32(call.reply[1:5])) != len(call.reply)-5 {
		return nil, status.Error(codes.Internal, "etcd's answer is not one plain message")
	}
	return call.reply[5:], nil
}

// send puts as much of a message into frames as there is room for, and returns
// what is left. c.mu is held.
func (c *laneConn) send(id uint32, call *laneCall, message []byte) []byte {
	for len(message) > 0 && c.err == nil {
		n := min(int64(len(message)), int64(c.frame), c.room, call.room)
		if n <= 0 {
			break
		}
		c.must(c.framer.WriteData(id, int(n) == len(message), message[:n]))
		message = message[n:]
		c.room -= n
		call.room -= n
	}
	return message
}

// encode writes the header block of a call into c.headers: after the first one,
// a byte for each field. c.mu is held.
func (c *laneConn) encode(method string) {
	c.headers.Reset()
	for _, f := range [...][2]string{
		{":method", "POST"}, {":scheme", c.scheme}, {":path", method}, {":authority", c.host},
		{"content-type", "application/grpc"}, {"te", "trailers"}, {"user-agent", "coracle"},
	} {
		_ = c.encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}) // a buffer takes all
	}
}

// answerStatus is the error that the trailers of a call tell, nil for success.
func answerStatus(f *http2.MetaHeadersFrame) error {
	text, message := "", ""
	for _, field := range f.Fields {
		switch field.Name {
		case "grpc-status":
			text = field.Value
		case "grpc-message":
			message = field.Value
		}
	}
	code, err := strconv.ParseUint(text, 10, 32)
	switch {
	case err != nil:
		return status.Error(codes.Unavailable, fmt.Sprintf("etcd ended the call without a status of gRPC (%q)", text))
	case code == 0:
		return nil
	}
	if plain, err := url.PathUnescape(message); err == nil {
		message = plain
	}
	return status.Error(codes.Code(code), message)
}
