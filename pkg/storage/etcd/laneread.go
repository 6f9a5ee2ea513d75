package etcd

import (
	"context"
	"errors"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// read takes what etcd sends until the connection ends.
func (c *laneConn) read() {
	for {
		f, err := c.framer.ReadFrame()
		c.mu.Lock()
		c.heard, c.pinged = time.Now(), false
		if err == nil {
			err = c.take(f)
		}
		if err != nil {
			c.fail(err)
		}
		if len(c.pending) == 0 {
			c.mu.Unlock()
		} else {
			c.flush()
		}
		if err != nil {
			return
		}
	}
}

// take handles one frame. c.mu is held.
func (c *laneConn) take(f http2.Frame) error {
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		c.answered(f)
	case *http2.DataFrame:
		return c.data(f)
	case *http2.SettingsFrame:
		return c.settings(f)
	case *http2.PingFrame:
		if !f.IsAck() {
			return c.framer.WritePing(true, f.Data)
		}
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			c.room += int64(f.Increment)
		} else if call := c.calls[f.StreamID]; call != nil {
			call.room += int64(f.Increment)
		}
		c.more()
	case *http2.GoAwayFrame:
		c.closing = true
		for id := range c.calls {
			if id > f.LastStreamID {
				c.end(id, errNotDone)
			}
		}
	case *http2.RSTStreamFrame:
		if f.ErrCode == http2.ErrCodeRefusedStream {
			c.end(f.StreamID, errNotDone)
		} else {
			c.end(f.StreamID, status.Error(codes.Unavailable, "etcd reset the call: "+f.ErrCode.String()))
		}
	}
	if c.closing && len(c.calls) == 0 {
		return errors.New("etcd asked for another connection")
	}
	return nil
}

// answered takes the headers of an answer, or its trailers. c.mu is held.
func (c *laneConn) answered(f *http2.MetaHeadersFrame) {
	switch {
	case f.StreamEnded():
		c.end(f.StreamID, answerStatus(f))
	case f.PseudoValue("status") != "200":
		c.end(f.StreamID, status.Error(codes.Unavailable, "etcd answered with the HTTP status "+f.PseudoValue("status")))
	}
}

// data takes a part of an answer. c.mu is held.
func (c *laneConn) data(f *http2.DataFrame) error {
	size := int(f.Length)
	if c.unacked += size; c.unacked >= creditFrom {
		if err := c.framer.WriteWindowUpdate(0, uint32(c.unacked)); err != nil {
			return err
		}
		c.unacked = 0
	}
	call := c.calls[f.StreamID]
	if call == nil {
		return nil // it was given up
	}
	if len(call.reply)+size > maxMessage {
		c.end(f.StreamID, status.Error(codes.ResourceExhausted, "etcd's answer is too large"))
		return c.framer.WriteRSTStream(f.StreamID, http2.ErrCodeCancel)
	}
	call.reply = append(call.reply, f.Data()...)
	if f.StreamEnded() {
		c.end(f.StreamID, status.Error(codes.Unavailable, "etcd ended the call without a status"))
		return nil
	}
	if call.unacked += size; call.unacked >= creditFrom {
		n := call.unacked
		call.unacked = 0
		return c.framer.WriteWindowUpdate(f.StreamID, uint32(n))
	}
	return nil
}

// settings takes what etcd says of itself. c.mu is held.
func (c *laneConn) settings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	err := f.ForeachSetting(func(s http2.Setting) error {
		switch s.ID {
		case http2.SettingInitialWindowSize:
			for _, call := range c.calls {
				call.room += int64(s.Val) - c.first
			}
			c.first = int64(s.Val)
		case http2.SettingMaxFrameSize:
			c.frame = int(s.Val)
		case http2.SettingHeaderTableSize:
			c.encoder.SetMaxDynamicTableSize(min(s.Val, 4096))
		case http2.SettingMaxConcurrentStreams:
			c.most = int(min(s.Val, maxLaneCalls))
		}
		return s.Valid()
	})
	if err != nil {
		return err
	}
	c.more()
	return c.framer.WriteSettingsAck()
}

// more wakes who waits for room. c.mu is held.
func (c *laneConn) more() {
	close(c.grown)
	c.grown = make(chan struct{})
}

// tend ends a connection whose peer has gone without a word while calls wait for
// it: those waited in vain, but no more shall. It also ends with ctx.
func (c *laneConn) tend(ctx context.Context) {
	ticker := time.NewTicker(keepAlive / 3)
	defer ticker.Stop()
	for {
		select {
		case <-c.ended:
			return
		case <-ctx.Done():
			c.close(ctx.Err())
			return
		case now := <-ticker.C:
			c.alive(now)
		}
	}
}

// alive asks for a sign of life when calls wait and nothing came for long, and
// fails the connection when none comes.
func (c *laneConn) alive(now time.Time) {
	c.mu.Lock()
	quiet := now.Sub(c.heard)
	switch {
	case len(c.calls) == 0 || quiet < keepAlive:
	case quiet >= keepAlive+keepAliveTimeout:
		c.fail(errors.New("etcd gives no sign of life"))
	case !c.pinged:
		c.pinged = true
		c.must(c.framer.WritePing(false, [8]byte{}))
	}
	c.flush()
}
