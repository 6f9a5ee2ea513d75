package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	// streamWindow and connWindow are how much a server may send ahead, as in
	// Go's own client.
	streamWindow = 4 << 20
	connWindow   = 1 << 30
	firstWindow  = 65535 // what HTTP/2 gives before anything is said
	dialTimeout  = 10 * time.Second
	// answerTimeout ends a run that a server has stopped answering.
	answerTimeout = 2 * time.Minute
)

// request is one call. Its bytes are made before the measurement.
type request struct {
	method, path, contentType, accept string
	body                              []byte
}

// conn is an HTTP/2 connection that costs its user little: requests are
// written as they are, answers are counted and dropped unless someone asks for
// them. One goroutine reads.
type conn struct {
	net net.Conn

	mu         sync.Mutex // guards all below, and writing
	room       *sync.Cond // signalled when sendWindow grows or the connection ends
	out        *bufio.Writer
	framer     *http2.Framer
	headers    bytes.Buffer
	encoder    *hpack.Encoder
	streams    map[uint32]*stream
	next       uint32
	sendWindow int64
	firstRoom  int64 // window of a new stream towards the server
	err        error
	known      chan struct{} // closed when the server has told its settings, or the connection ended
	told       bool          // known is closed
}

// stream is one request under way. The reader alone writes its fields until
// done is closed.
type stream struct {
	status int
	bytes  int64
	keep   bool
	body   []byte
	// data gets what arrives, if set; it must not keep it.
	data    func([]byte)
	started chan struct{} // closed when the headers are there
	done    chan struct{} // closed at the end
	err     error
	unacked int64
	dead    bool // gives the server no more room: a client that stopped reading
}

// answer is what came back.
type answer struct {
	status int
	bytes  int64
	body   []byte // nil unless asked for
}

// dial opens a connection to address as the user of config.
func dial(address string, config *tls.Config) (*conn, error) {
	return dialWindow(address, config, streamWindow)
}

// dialWindow is dial with another window for each stream.
func dialWindow(address string, config *tls.Config, window uint32) (*conn, error) {
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: dialTimeout}, Config: config}
	nc, err := dialer.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	c := &conn{net: nc, out: bufio.NewWriterSize(nc, 32<<10), streams: map[uint32]*stream{}, next: 1, sendWindow: firstWindow, firstRoom: firstWindow, known: make(chan struct{})}
	c.room = sync.NewCond(&c.mu)
	c.encoder = hpack.NewEncoder(&c.headers)
	c.framer = http2.NewFramer(c.out, bufio.NewReaderSize(nc, 64<<10))
	c.framer.SetReuseFrames()
	err = errors.Join(
		writeString(c.out, http2.ClientPreface),
		c.framer.WriteSettings(
			http2.Setting{ID: http2.SettingEnablePush, Val: 0},
			http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}),
		c.framer.WriteWindowUpdate(0, connWindow-firstWindow),
		c.out.Flush(),
	)
	if err != nil {
		return nil, errors.Join(err, nc.Close())
	}
	go c.read()
	<-c.known
	c.mu.Lock()
	defer c.mu.Unlock()
	return c, c.err
}

func writeString(w *bufio.Writer, s string) error {
	_, err := w.WriteString(s)
	return err
}

// close ends the connection and with it all that is under way.
func (c *conn) close() { c.fail(net.ErrClosed) }

func (c *conn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	_ = c.net.Close() // the error that counts is err
	for id, s := range c.streams {
		c.end(id, s, err)
	}
	c.room.Broadcast()
	c.tell()
}

// tell is called with mu held.
func (c *conn) tell() {
	if !c.told {
		c.told = true
		close(c.known)
	}
}

// end is called with mu held.
func (c *conn) end(id uint32, s *stream, err error) {
	delete(c.streams, id)
	s.err = err
	if s.status == 0 {
		close(s.started)
	}
	close(s.done)
}

// begin sends a request.
func (c *conn) begin(r *request, s *stream) error {
	s.started, s.done = make(chan struct{}), make(chan struct{})
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.err == nil && c.sendWindow < int64(len(r.body)) {
		c.room.Wait()
	}
	if c.err != nil {
		return c.err
	}
	if int64(len(r.body)) > c.firstRoom {
		return fmt.Errorf("a body of %d bytes is larger than the window of a stream (%d)", len(r.body), c.firstRoom)
	}
	id := c.next
	c.next += 2
	c.streams[id] = s
	c.encode(r)
	err := c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.headers.Bytes(), EndHeaders: true, EndStream: len(r.body) == 0})
	for body := r.body; len(body) > 0 && err == nil; {
		part := body[:min(len(body), 16<<10)]
		body = body[len(part):]
		err = c.framer.WriteData(id, len(body) == 0, part)
	}
	c.sendWindow -= int64(len(r.body))
	return errors.Join(err, c.out.Flush())
}

// encode writes the header block of r into c.headers.
func (c *conn) encode(r *request) {
	c.headers.Reset()
	field := func(name, value string, once bool) {
		if value != "" {
			_ = c.encoder.WriteField(hpack.HeaderField{Name: name, Value: value, Sensitive: once}) // a buffer takes all
		}
	}
	field(":method", r.method, false)
	field(":scheme", "https", false)
	field(":authority", "localhost", false)
	field(":path", r.path, true) // another each time: not worth a place in the table
	field("user-agent", "bench/1", false)
	field("accept", r.accept, false)
	field("content-type", r.contentType, false)
	if len(r.body) > 0 {
		field("content-length", strconv.Itoa(len(r.body)), false)
	}
}

// do sends a request and waits for the whole answer.
func (c *conn) do(r *request, keep bool) (answer, error) {
	s := &stream{keep: keep}
	if err := c.begin(r, s); err != nil {
		return answer{}, err
	}
	timer := time.NewTimer(answerTimeout)
	defer timer.Stop()
	select {
	case <-s.done:
	case <-timer.C:
		return answer{}, fmt.Errorf("%s %s was not answered within %s", r.method, r.path, answerTimeout)
	}
	return answer{status: s.status, bytes: s.bytes, body: s.body}, s.err
}

// open sends a request whose answer does not end, and waits for its headers.
func (c *conn) open(r *request, s *stream) error {
	if err := c.begin(r, s); err != nil {
		return err
	}
	select {
	case <-s.started:
	case <-time.After(answerTimeout):
		return fmt.Errorf("%s %s was not answered within %s", r.method, r.path, answerTimeout)
	}
	if s.status != 200 {
		return fmt.Errorf("%s %s was answered %d: %w", r.method, r.path, s.status, errors.Join(s.err))
	}
	return nil
}

func (c *conn) read() {
	var status int
	decoder := hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		if f.Name == ":status" {
			status, _ = strconv.Atoi(f.Value) // 0 is reported as it is
		}
	})
	var unacked int64
	for {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			c.fail(err)
			return
		}
		switch f := frame.(type) {
		case *http2.HeadersFrame:
			_, err = decoder.Write(f.HeaderBlockFragment())
			if err == nil && !f.HeadersEnded() {
				err = errors.New("the headers of an answer are in more than one frame, which this client does not read")
			}
			c.onHeaders(f, status)
		case *http2.DataFrame:
			unacked += int64(f.Length)
			err = c.onData(f, &unacked)
		case *http2.SettingsFrame:
			err = c.onSettings(f)
		case *http2.WindowUpdateFrame:
			c.onWindow(f)
		case *http2.PingFrame:
			err = c.onPing(f)
		case *http2.RSTStreamFrame:
			c.mu.Lock()
			if s := c.streams[f.StreamID]; s != nil {
				c.end(f.StreamID, s, fmt.Errorf("the server reset the stream: %s", f.ErrCode))
			}
			c.mu.Unlock()
		case *http2.GoAwayFrame:
			err = fmt.Errorf("the server closes the connection: %s %s", f.ErrCode, f.DebugData())
		}
		if err != nil {
			c.fail(err)
			return
		}
	}
}

func (c *conn) onHeaders(f *http2.HeadersFrame, status int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.streams[f.StreamID]
	if s == nil {
		return
	}
	if s.status == 0 {
		s.status = status
		close(s.started)
	}
	if f.StreamEnded() {
		c.end(f.StreamID, s, nil)
	}
}

// onData passes on what came and gives the server room for more when half of
// the window is used up.
func (c *conn) onData(f *http2.DataFrame, unacked *int64) error {
	c.mu.Lock()
	s := c.streams[f.StreamID]
	c.mu.Unlock()
	if s != nil {
		s.bytes += int64(len(f.Data()))
		if s.keep {
			s.body = append(s.body, f.Data()...)
		}
		if s.data != nil {
			s.data(f.Data())
		}
		s.unacked += int64(f.Length)
	}
	update := *unacked >= connWindow/8
	updateStream := s != nil && !s.dead && s.unacked >= streamWindow/2
	if !update && !updateStream && !f.StreamEnded() {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var err error
	if update {
		err = c.framer.WriteWindowUpdate(0, uint32(*unacked))
		*unacked = 0
	}
	if updateStream && !f.StreamEnded() {
		err = errors.Join(err, c.framer.WriteWindowUpdate(f.StreamID, uint32(s.unacked)))
		s.unacked = 0
	}
	if f.StreamEnded() && s != nil && c.streams[f.StreamID] == s {
		c.end(f.StreamID, s, nil)
	}
	return errors.Join(err, c.out.Flush())
}

func (c *conn) onSettings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
		c.firstRoom = int64(v)
	}
	if v, ok := f.Value(http2.SettingHeaderTableSize); ok {
		c.encoder.SetMaxDynamicTableSizeLimit(v)
	}
	c.tell()
	return errors.Join(c.framer.WriteSettingsAck(), c.out.Flush())
}

func (c *conn) onWindow(f *http2.WindowUpdateFrame) {
	if f.StreamID != 0 {
		return // bodies fit into the window that a stream begins with
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sendWindow += int64(f.Increment)
	c.room.Broadcast()
}

func (c *conn) onPing(f *http2.PingFrame) error {
	if f.IsAck() {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(c.framer.WritePing(true, f.Data), c.out.Flush())
}
