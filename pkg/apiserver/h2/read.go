package h2

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/net/http2"
)

// source is where the reader's buffer is filled from. Handlers are started when
// all that has come has been looked at: the body of a small request is there
// then.
type source struct{ c *conn }

func (s source) Read(p []byte) (int, error) {
	c := s.c
	if len(c.ready) > 0 {
		c.start()
	}
	n, err := c.nc.Read(p)
	c.heard.Store(time.Now().UnixNano())
	return n, err
}

// start has the handlers of new streams run, but for those that were reset at
// once.
func (c *conn) start() {
	c.mu.Lock()
	for _, st := range c.ready {
		if st.err != nil {
			c.done()
		}
	}
	c.ready = slices.DeleteFunc(c.ready, func(st *stream) bool { return st.err != nil })
	c.mu.Unlock()
	for _, st := range c.ready {
		c.server.start(st)
	}
	clear(c.ready)
	c.ready = c.ready[:0]
}

// run serves the connection until it ends.
func (c *conn) run() {
	err := c.hello()
	for err == nil {
		var f http2.Frame
		if f, err = c.framer.ReadFrame(); err == nil {
			err = c.take(f)
		}
		err = c.answer(err)
	}
	c.server.cfg.Log.Debug("A connection has ended", "client", c.remote, "error", err)
	c.close(err)
	_ = c.nc.Close() // the error that counts is err
}

// hello begins the connection. The framer reads on from where the preface ends.
func (c *conn) hello() error {
	cfg := &c.server.cfg
	c.mu.Lock()
	c.pending = appendSettings(c.queue(), 0,
		http2.Setting{ID: http2.SettingMaxFrameSize, Val: firstFrame},
		http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: uint32(cfg.MaxStreams)},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: c.server.maxHeaderList()},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: recvWindow})
	c.pending = appendWindowUpdate(c.pending, 0, recvWindow-firstWindow)
	c.unacked++
	c.timer = time.AfterFunc(helloLimit, c.tend)
	c.flush()
	if err := c.nc.SetReadDeadline(time.Now().Add(helloLimit)); err != nil {
		return err
	}
	var preface [len(http2.ClientPreface)]byte
	if _, err := io.ReadFull(c.reader, preface[:]); err != nil {
		return err
	}
	if string(preface[:]) != http2.ClientPreface {
		return errors.New("the client does not speak HTTP/2")
	}
	return nil
}

// greet is called when the client has said how it speaks HTTP/2: from now on it
// may be silent.
func (c *conn) greet() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.greeted = true
	if c.err != nil || c.away {
		return c.err // the deadline is that of the end
	}
	c.timer.Reset(0) // which looks when to look next
	return c.nc.SetReadDeadline(time.Time{})
}

// answer tells the client of its mistake. What it returns ends the connection.
func (c *conn) answer(err error) error {
	var stream http2.StreamError
	var connection http2.ConnectionError
	code := http2.ErrCodeNo
	switch {
	case err == nil:
		return nil
	case errors.As(err, &stream):
		c.mu.Lock()
		defer c.mu.Unlock()
		c.last = max(c.last, stream.StreamID)
		c.reset(stream.StreamID, stream.Code, errGone)
		return c.crowded()
	case errors.As(err, &connection):
		code = http2.ErrCode(connection)
	case errors.Is(err, http2.ErrFrameTooLarge):
		code = http2.ErrCodeFrameSize
	default:
		return err
	}
	c.mu.Lock()
	c.away = false // this GOAWAY is another one
	c.leave(code)
	for _, st := range c.streams {
		c.drop(st, errGone)
	}
	c.part()
	c.mu.Unlock()
	// A client that is still sending would lose what was said last.
	_, _ = io.CopyN(io.Discard, c.nc, 1<<20)
	return fmt.Errorf("the client broke the rules of HTTP/2: %w", err)
}

// crowded is an error when more frames wait that answer frames than a client
// that reads can have caused. c.mu is held.
func (c *conn) crowded() error {
	if c.replies > maxReplies {
		return errors.New("the client causes answers and takes none")
	}
	return nil
}

// take handles one frame.
func (c *conn) take(f http2.Frame) error {
	if !c.greeted {
		if s, ok := f.(*http2.SettingsFrame); !ok || s.IsAck() {
			return http2.ConnectionError(http2.ErrCodeProtocol)
		}
		if err := c.greet(); err != nil {
			return err
		}
	}
	if h, ok := f.(*http2.MetaHeadersFrame); ok {
		return c.headers(h)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.handle(f); err != nil {
		return err
	}
	c.kick()
	return c.crowded()
}

// handle takes a frame that carries no headers. c.mu is held.
func (c *conn) handle(f http2.Frame) error {
	id := f.Header().StreamID
	if (id > c.last || id%2 == 0) && id > 0 {
		return c.ofNone(f)
	}
	switch f := f.(type) {
	case *http2.DataFrame:
		return c.data(f)
	case *http2.SettingsFrame:
		return c.settings(f)
	case *http2.PingFrame:
		if !f.IsAck() {
			c.pending = appendPing(c.queue(), http2.FlagPingAck, f.Data)
			c.replies++
		}
	case *http2.WindowUpdateFrame:
		return c.window(f)
	case *http2.RSTStreamFrame:
		if st := c.streams[id]; st != nil {
			c.drop(st, errGone)
		}
	case *http2.GoAwayFrame:
		c.leave(http2.ErrCodeNo)
	case *http2.PushPromiseFrame:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	case *http2.PriorityFrame:
		if f.StreamDep == id {
			return http2.StreamError{StreamID: id, Code: http2.ErrCodeProtocol}
		}
	}
	return nil
}

// ofNone takes a frame of a stream that there never was. c.mu is held.
func (c *conn) ofNone(f http2.Frame) error {
	switch f := f.(type) {
	case *http2.DataFrame:
		if c.away { // the stream was begun after GOAWAY
			c.recv -= int64(f.Length)
			c.credit(nil, int(f.Length))
			return nil
		}
	case *http2.RSTStreamFrame, *http2.WindowUpdateFrame:
		if c.away {
			return nil
		}
	case *http2.PriorityFrame:
		if f.StreamDep == f.StreamID {
			return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeProtocol}
		}
		return nil
	case *http2.PushPromiseFrame:
	default:
		return nil
	}
	return http2.ConnectionError(http2.ErrCodeProtocol)
}

// window takes what the client says that it has room for. c.mu is held.
func (c *conn) window(f *http2.WindowUpdateFrame) error {
	if f.StreamID == 0 {
		if c.room += int64(f.Increment); c.room > maxWindow {
			return http2.ConnectionError(http2.ErrCodeFlowControl)
		}
		c.more()
		return nil
	}
	st := c.streams[f.StreamID]
	if st == nil {
		return nil
	}
	if st.room += int64(f.Increment); st.room > maxWindow {
		return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeFlowControl}
	}
	st.cond.Broadcast()
	return nil
}

// settings takes what the client says of itself. c.mu is held.
func (c *conn) settings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		if c.unacked--; c.unacked < 0 {
			return http2.ConnectionError(http2.ErrCodeProtocol)
		}
		return nil
	}
	if f.NumSettings() > 100 || f.HasDuplicates() {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	err := f.ForeachSetting(func(s http2.Setting) error {
		if err := s.Valid(); err != nil {
			return err
		}
		switch s.ID {
		case http2.SettingInitialWindowSize:
			grown := int64(s.Val) - c.first
			c.first = int64(s.Val)
			for _, st := range c.streams {
				if st.room += grown; st.room > maxWindow {
					return http2.ConnectionError(http2.ErrCodeFlowControl)
				}
				st.cond.Broadcast()
			}
		case http2.SettingMaxFrameSize:
			c.frame = int(min(s.Val, maxPending))
		case http2.SettingHeaderTableSize:
			c.encoder.SetMaxDynamicTableSize(s.Val)
		}
		return nil
	})
	if err != nil {
		return err
	}
	c.pending = appendSettings(c.queue(), http2.FlagSettingsAck)
	c.replies++
	return nil
}

// data takes a part of a body. c.mu is held.
func (c *conn) data(f *http2.DataFrame) error {
	size := int64(f.Length)
	if size > c.recv {
		return http2.ConnectionError(http2.ErrCodeFlowControl)
	}
	c.recv -= size
	st := c.streams[f.StreamID]
	if st == nil || st.whole {
		c.credit(nil, int(size))
		if st == nil && f.StreamEnded() {
			return nil // it was under way when the stream ended
		}
		return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeStreamClosed}
	}
	body := f.Data()
	st.got += int64(len(body))
	switch {
	case size > st.recv:
		c.credit(nil, int(size))
		return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeFlowControl}
	case st.declared >= 0 && st.got > st.declared:
		c.credit(nil, int(size))
		return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeProtocol}
	}
	st.recv -= size
	if st.closed || st.inErr != nil {
		c.credit(st, int(size)) // nobody reads it
	} else {
		st.take(body)
		c.credit(st, int(size)-len(body)) // what it was padded with
	}
	if f.StreamEnded() {
		st.endOfBody()
	}
	st.cond.Broadcast()
	return nil
}
