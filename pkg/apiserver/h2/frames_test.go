package h2

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// peer is a client that can break the rules.
type peer struct {
	*http2.Framer
	t       *testing.T
	nc      net.Conn
	block   bytes.Buffer
	encoder *hpack.Encoder
}

// call begins a connection, without the settings.
func call(t *testing.T, cfg Config, h http.HandlerFunc) *peer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s := New(cfg)
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.serve(theirs, &tls.ConnectionState{}, h)
	}()
	t.Cleanup(func() {
		nc.Close()
		s.Close()
		<-served
	})
	if err := nc.SetDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	p := &peer{Framer: http2.NewFramer(nc, nc), t: t, nc: nc}
	p.encoder = hpack.NewEncoder(&p.block)
	p.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if _, err := io.WriteString(nc, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *peer) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) headers(pairs ...string) []byte {
	p.block.Reset()
	for i := 0; i < len(pairs); i += 2 {
		p.must(p.encoder.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]}))
	}
	return p.block.Bytes()
}

func (p *peer) ask(id uint32, end bool, pairs ...string) {
	p.t.Helper()
	method := "GET"
	if !end {
		method = "POST"
	}
	pairs = append([]string{":method", method, ":scheme", "https", ":authority", "example.test", ":path", "/"}, pairs...)
	p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.headers(pairs...), EndHeaders: true, EndStream: end}))
}

// until reads frames until one says what is wanted of it, or the connection ends.
func (p *peer) until(want func(http2.Frame) bool) error {
	for {
		f, err := p.ReadFrame()
		if err != nil || want(f) {
			return err
		}
	}
}

func isReset(id uint32, code http2.ErrCode) func(http2.Frame) bool {
	return func(f http2.Frame) bool {
		r, ok := f.(*http2.RSTStreamFrame)
		return ok && r.StreamID == id && r.ErrCode == code
	}
}

func isGoAway(code http2.ErrCode) func(http2.Frame) bool {
	return func(f http2.Frame) bool {
		g, ok := f.(*http2.GoAwayFrame)
		return ok && g.ErrCode == code
	}
}

func isAnswer(id uint32, status string) func(http2.Frame) bool {
	return func(f http2.Frame) bool {
		h, ok := f.(*http2.MetaHeadersFrame)
		return ok && h.StreamID == id && h.PseudoValue("status") == status
	}
}

func TestBrokenRules(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(p *peer)
		want func(http2.Frame) bool
	}{
		"no settings first":      {func(p *peer) { p.must(p.WritePing(false, [8]byte{})) }, isGoAway(http2.ErrCodeProtocol)},
		"data without a stream":  {func(p *peer) { p.must(p.WriteSettings()); p.must(p.WriteData(1, true, nil)) }, isGoAway(http2.ErrCodeProtocol)},
		"reset without a stream": {func(p *peer) { p.must(p.WriteSettings()); p.must(p.WriteRSTStream(3, 0)) }, isGoAway(http2.ErrCodeProtocol)},
		"window of no stream":    {func(p *peer) { p.must(p.WriteSettings()); p.must(p.WriteWindowUpdate(3, 1)) }, isGoAway(http2.ErrCodeProtocol)},
		"stream of the server":   {func(p *peer) { p.must(p.WriteSettings()); p.ask(2, true) }, isGoAway(http2.ErrCodeProtocol)},
		"stream goes back":       {func(p *peer) { p.must(p.WriteSettings()); p.ask(5, true); p.ask(3, true) }, isGoAway(http2.ErrCodeProtocol)},
		"confirms too much":      {func(p *peer) { p.must(p.WriteSettings()); p.must(p.WriteSettingsAck()); p.must(p.WriteSettingsAck()) }, isGoAway(http2.ErrCodeProtocol)},
		"duplicate settings": {func(p *peer) {
			s := http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 20}
			p.must(p.WriteSettings(s, s))
		}, isGoAway(http2.ErrCodeProtocol)},
		"window too large": {func(p *peer) {
			p.must(p.WriteSettings())
			p.must(p.WriteWindowUpdate(0, 1<<31-1))
		}, isGoAway(http2.ErrCodeFlowControl)},
		"stream's window too large": {func(p *peer) {
			p.must(p.WriteSettings())
			p.ask(1, false)
			p.must(p.WriteWindowUpdate(1, 1<<31-1))
		}, isReset(1, http2.ErrCodeFlowControl)},
		"frame too large": {func(p *peer) {
			p.must(p.WriteSettings())
			p.ask(1, false)
			p.must(p.WriteData(1, true, make([]byte, firstFrame+1)))
		}, isGoAway(http2.ErrCodeFrameSize)},
		"bad compression": {func(p *peer) {
			p.must(p.WriteSettings())
			p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0xff, 0xff, 0xff, 0xff, 0xff}, EndHeaders: true}))
		}, isGoAway(http2.ErrCodeCompression)},
		"another frame among headers": {func(p *peer) {
			p.must(p.WriteSettings())
			p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.headers(":method", "GET")}))
			p.AllowIllegalWrites = true
			p.must(p.WriteData(1, true, nil))
		}, isGoAway(http2.ErrCodeProtocol)},
		"data after the end": {func(p *peer) {
			p.must(p.WriteSettings())
			p.ask(1, true)
			p.must(p.WriteData(1, false, []byte("x")))
		}, isReset(1, http2.ErrCodeStreamClosed)},
		"more than declared": {func(p *peer) {
			p.must(p.WriteSettings())
			p.ask(1, false, "content-length", "3")
			p.must(p.WriteData(1, true, []byte("abcd")))
		}, isReset(1, http2.ErrCodeProtocol)},
		"depends on itself": {func(p *peer) {
			p.must(p.WriteSettings())
			p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, EndStream: true, Priority: http2.PriorityParam{StreamDep: 1, Weight: 1},
				BlockFragment: p.headers(":method", "GET", ":scheme", "https", ":authority", "a", ":path", "/")}))
		}, isReset(1, http2.ErrCodeProtocol)},
		"trailers without an end": {func(p *peer) {
			p.must(p.WriteSettings())
			p.ask(1, false)
			p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.headers("x", "y"), EndHeaders: true}))
		}, isReset(1, http2.ErrCodeProtocol)},
		"more streams than allowed": {func(p *peer) {
			p.must(p.WriteSettings())
			p.must(p.WriteSettingsAck())
			for id := uint32(1); id <= 9; id += 2 {
				p.ask(id, false)
			}
		}, isReset(9, http2.ErrCodeProtocol)},
		"more before it can know": {func(p *peer) {
			p.must(p.WriteSettings())
			for id := uint32(1); id <= 9; id += 2 {
				p.ask(id, false)
			}
		}, isReset(9, http2.ErrCodeRefusedStream)},
		"headers of a connection": {func(p *peer) { p.must(p.WriteSettings()); p.ask(1, true, "connection", "close") }, isAnswer(1, "400")},
		"headers too large": {func(p *peer) {
			p.must(p.WriteSettings())
			p.ask(1, true, "x", strings.Repeat("x", 2000), "y", strings.Repeat("y", 2000))
		}, isAnswer(1, "431")},
		"trailers": {func(p *peer) {
			p.must(p.WriteSettings())
			p.ask(1, false)
			p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.headers("x", "y"), EndHeaders: true, EndStream: true}))
		}, isAnswer(1, "200")},
		"padding": {func(p *peer) {
			p.must(p.WriteSettings())
			p.ask(1, false)
			p.must(p.WriteDataPadded(1, true, []byte("x"), make([]byte, 200)))
		}, isAnswer(1, "200")},
		"unknown frame": {func(p *peer) {
			p.must(p.WriteSettings())
			p.must(p.WriteRawFrame(0x77, 0, 9, []byte("x")))
			p.ask(1, true)
		}, isAnswer(1, "200")},
		"ping":              {func(p *peer) { p.must(p.WriteSettings()); p.must(p.WritePing(false, [8]byte{7})) }, func(f http2.Frame) bool { g, ok := f.(*http2.PingFrame); return ok && g.IsAck() && g.Data[0] == 7 }},
		"says that it goes": {func(p *peer) { p.must(p.WriteSettings()); p.must(p.WriteGoAway(0, 0, nil)) }, isGoAway(http2.ErrCodeNo)},
	} {
		t.Run(name, func(t *testing.T) {
			p := call(t, Config{MaxStreams: 4, MaxHeaderBytes: 3000}, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
			})
			c.do(p)
			if err := p.until(c.want); err != nil {
				t.Error("the server did not say so: ", err)
			}
		})
	}
}

// Malformed requests reset their stream alone.
func TestMalformedRequests(t *testing.T) {
	p := call(t, Config{}, func(http.ResponseWriter, *http.Request) {})
	p.must(p.WriteSettings())
	id := uint32(1)
	for _, pairs := range [][]string{
		{":method", "GET", ":scheme", "https", ":authority", "a"},
		{":method", "GET", ":scheme", "https", ":authority", "a", ":path", ""},
		{":method", "GET", ":scheme", "https", ":authority", "a", ":path", "no-slash"},
		{":method", "GET", ":scheme", "ftp", ":authority", "a", ":path", "/"},
		{":method", "GET", ":scheme", "https", ":authority", "user@a", ":path", "/"},
		{":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":authority", "a", ":path", "/"},
		{":scheme", "https", ":authority", "a", ":path", "/"},
		{":method", "GET", ":method", "GET", ":scheme", "https", ":path", "/"},
		{":method", "GET", ":scheme", "https", ":path", "/", "Upper", "x"},
		{":method", "GET", ":scheme", "https", ":path", "/", "x", "a\nb"},
		{":method", "GET", ":scheme", "https", "x", "y", ":path", "/"},
	} {
		p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.headers(pairs...), EndHeaders: true, EndStream: true}))
		if err := p.until(isReset(id, http2.ErrCodeProtocol)); err != nil {
			t.Fatalf("%q: %v", pairs, err)
		}
		id += 2
	}
	p.ask(id, true)
	if err := p.until(isAnswer(id, "200")); err != nil {
		t.Error("the connection does not serve any more: ", err)
	}
}

// A client that asks and resets without end is sent away, and never has more
// handlers running than it may have streams.
func TestRapidReset(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	p := call(t, Config{MaxStreams: 4}, func(http.ResponseWriter, *http.Request) { <-release })
	p.must(p.WriteSettings())
	go func() {
		for id := uint32(1); id < 2000; id += 2 {
			p.block.Reset()
			_ = p.encoder.WriteField(hpack.HeaderField{Name: ":method", Value: "GET"})
			_ = p.encoder.WriteField(hpack.HeaderField{Name: ":scheme", Value: "https"})
			_ = p.encoder.WriteField(hpack.HeaderField{Name: ":path", Value: "/"})
			if p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.block.Bytes(), EndHeaders: true, EndStream: true}) != nil ||
				p.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
				return // it was sent away
			}
		}
	}()
	if err := p.until(isGoAway(http2.ErrCodeEnhanceYourCalm)); err != nil {
		t.Error("the server went on: ", err)
	}
}

// A client that causes answers and reads none loses its connection.
func TestControlFlood(t *testing.T) {
	p := call(t, Config{}, func(http.ResponseWriter, *http.Request) {})
	p.must(p.WriteSettings())
	for {
		if err := p.WritePing(false, [8]byte{}); err != nil {
			if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
				t.Error("the server takes pings without end")
			}
			return
		}
	}
}

// What a client sends beyond the window breaks the rules; what a handler reads
// makes room.
func TestWindows(t *testing.T) {
	read := make(chan struct{})
	p := call(t, Config{}, func(_ http.ResponseWriter, r *http.Request) {
		<-read
		_, _ = io.Copy(io.Discard, r.Body)
	})
	p.must(p.WriteSettings())
	p.ask(1, false)
	part := make([]byte, firstFrame)
	for range recvWindow / firstFrame {
		p.must(p.WriteData(1, false, part))
	}
	close(read)
	room := map[uint32]uint32{}
	err := p.until(func(f http2.Frame) bool {
		if w, ok := f.(*http2.WindowUpdateFrame); ok {
			room[w.StreamID] += w.Increment
		}
		return room[1] >= recvWindow/2 && room[0] >= recvWindow/2
	})
	if err != nil {
		t.Fatalf("no more room was given: %v: %v", room, err)
	}
	p.must(p.WriteData(1, true, part))
	p.must(p.until(isAnswer(1, "200")))

	p = call(t, Config{}, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	p.must(p.WriteSettings())
	p.ask(1, false)
	for range recvWindow/firstFrame + 1 {
		if p.WriteData(1, false, part) != nil {
			break
		}
	}
	if err := p.until(isGoAway(http2.ErrCodeFlowControl)); err != nil {
		t.Error("more than the window was taken: ", err)
	}
}

// An answer goes out as far as the client has room.
func TestSmallWindow(t *testing.T) {
	p := call(t, Config{}, func(w http.ResponseWriter, _ *http.Request) { w.Write(big[:100]) })
	p.must(p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 30}))
	p.ask(1, true)
	got := 0
	data := func(want int) {
		t.Helper()
		p.must(p.until(func(f http2.Frame) bool {
			if d, ok := f.(*http2.DataFrame); ok {
				got += len(d.Data())
			}
			return got >= want
		}))
		if got != want {
			t.Fatalf("%d bytes came where there was room for %d", got, want)
		}
	}
	data(30)
	p.must(p.WriteWindowUpdate(1, 5))
	data(35)
	p.must(p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}))
	p.must(p.WriteWindowUpdate(1, 30))
	p.must(p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1000}))
	data(100)
}

// A silent client is asked for a sign of life, and given up; an idle one is sent
// away.
func TestSilence(t *testing.T) {
	p := call(t, Config{PingAfter: 20 * time.Millisecond, PingLimit: 20 * time.Millisecond}, func(http.ResponseWriter, *http.Request) {})
	p.must(p.WriteSettings())
	p.must(p.until(func(f http2.Frame) bool { _, ok := f.(*http2.PingFrame); return ok }))
	if err := p.until(func(http2.Frame) bool { return false }); !errors.Is(err, io.EOF) {
		t.Error("a client that does not answer is kept: ", err)
	}
	p = call(t, Config{IdleTimeout: 20 * time.Millisecond}, func(http.ResponseWriter, *http.Request) {})
	p.must(p.WriteSettings())
	p.must(p.until(isGoAway(http2.ErrCodeNo)))
	if err := p.until(func(http2.Frame) bool { return false }); !errors.Is(err, io.EOF) {
		t.Error("an idle connection is kept: ", err)
	}
}

// FuzzConn: whatever a client sends, the server neither panics nor hangs.
func FuzzConn(f *testing.F) {
	var seed bytes.Buffer
	w := http2.NewFramer(&seed, nil)
	_ = w.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
	_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: []byte("\x83\x87\x84\x41\x01a")})
	_ = w.WriteData(1, false, []byte("some"))
	_ = w.WriteWindowUpdate(1, 100)
	_ = w.WriteRSTStream(1, 0)
	_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, EndHeaders: true, EndStream: true, BlockFragment: []byte("\x82\x87\x84\x41\x01a")})
	_ = w.WriteGoAway(0, 0, nil)
	f.Add(seed.Bytes())
	f.Fuzz(func(t *testing.T, sent []byte) {
		client, server := net.Pipe()
		s := New(Config{MaxStreams: 3, MaxHeaderBytes: 1000})
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			s.serve(server, &tls.ConnectionState{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(w, r.Body)
			}))
			s.Close()
		}()
		go func() { _, _ = io.Copy(io.Discard, client) }()
		_ = client.SetDeadline(time.Now().Add(limit))
		_, _ = client.Write(append([]byte(http2.ClientPreface), sent...)) // it may be cut off
		_ = client.Close()
		select {
		case <-ended:
		case <-time.After(limit / 4):
			t.Fatal("the connection does not end")
		}
	})
}
