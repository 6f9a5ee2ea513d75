package apiserver

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"coracle/pkg/registry"
)

const (
	// handshakeLimit bounds the opening and the closing of a WebSocket.
	handshakeLimit = 10 * time.Second
	// maxClientFrame bounds what a client of a watch may send, which nobody
	// reads.
	maxClientFrame = 4 << 10
	// protoLength is the length before each event in a protobuf stream, which a
	// WebSocket does without: its messages have their own.
	protoLength = 4
)

// wantsWebSocket says that a watch is to be served over a WebSocket, as browsers
// ask for it.
func wantsWebSocket(r *http.Request) bool {
	return r.ProtoMajor == 1 && websocket.IsWebSocketUpgrade(r)
}

// socketSink sends each event of a watch as a message: of text in JSON, of bytes
// in protobuf.
type socketSink struct {
	conn *websocket.Conn
	kind int // of the messages
	skip int // bytes of a frame that are not sent
	// ended says that the time of the watch is up.
	ended atomic.Bool
}

// openSocket takes over the connection of a watch. What it answers when that
// fails has been sent. The context ends when the client goes or closes the
// socket; close must be called.
func openSocket(w http.ResponseWriter, r *http.Request, ctx context.Context, rep representation) (s *socketSink, watched context.Context, closeIt func(), err error) {
	up := websocket.Upgrader{HandshakeTimeout: handshakeLimit, CheckOrigin: trustedOrigin}
	if offered := websocket.Subprotocols(r); len(offered) > 0 {
		up.Subprotocols = offered[:1]
	}
	conn, err := up.Upgrade(w, r, nil)
	if err != nil {
		return nil, nil, nil, err
	}
	s = &socketSink{conn: conn, kind: websocket.TextMessage}
	if rep.media == registry.Protobuf {
		s.kind, s.skip = websocket.BinaryMessage, protoLength
	}
	watched, cancel := context.WithCancel(ctx)
	read := make(chan struct{})
	conn.SetReadLimit(maxClientFrame)
	go func() {
		defer close(read)
		defer cancel()
		// Pings and the end are handled by reading; there is nothing else.
		for {
			if _, _, err := conn.NextReader(); err != nil {
				return
			}
		}
	}()
	return s, watched, func() {
		cancel()
		message := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
		_ = conn.WriteControl(websocket.CloseMessage, message, time.Now().Add(time.Second)) // the client may be gone
		_ = conn.Close()
		<-read
	}, nil
}

// trustedOrigin refuses pages of other sites that come with the client
// certificate of whoever looks at them. A page that shows a token knows it.
func trustedOrigin(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" || r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && strings.EqualFold(u.Host, r.Host)
}

func (s *socketSink) begin() bool { return true }

func (s *socketSink) send(frame []byte, slow bool) bool {
	var limit time.Time
	switch {
	case s.ended.Load():
		limit = time.Now().Add(lastWrite)
	case slow:
		limit = time.Now().Add(stallLimit)
	}
	return s.conn.SetWriteDeadline(limit) == nil && s.conn.WriteMessage(s.kind, frame[s.skip:]) == nil
}

func (s *socketSink) perFrame() bool { return true }

func (s *socketSink) limit(t time.Time) {
	s.ended.Store(true)
	if err := s.conn.NetConn().SetWriteDeadline(t); err != nil {
		return
	}
}
