package apiserver_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/apiserver"
	"coracle/pkg/auth"
)

// somebody is the user of every request.
func somebody(cfg *apiserver.Config) {
	cfg.Authenticator = auth.AuthenticatorFunc(func(context.Context, *http.Request) (*auth.User, bool, error) {
		return &auth.User{Name: "somebody"}, true, nil
	})
}

// dial opens a watch of ConfigMaps over a WebSocket.
func dial(t *testing.T, base, query string, h http.Header, protocols ...string) *websocket.Conn {
	t.Helper()
	d := websocket.Dialer{HandshakeTimeout: patience, Subprotocols: protocols}
	conn, resp, err := d.DialContext(t.Context(), "ws"+strings.TrimPrefix(base, "http")+configMaps("%s", query), h)
	if err != nil {
		t.Fatalf("%v: %+v", err, resp)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// TestWatchOverWebSocket: text in JSON, bytes in protobuf, one event a message,
// and a clean end when the time is up.
func TestWatchOverWebSocket(t *testing.T) {
	s := newServer(t)
	s.makeConfigMap(t, configMap("a"))
	listener := httptest.NewServer(apiServer(t, s, nil, somebody))
	defer listener.Close()
	inJSON := dial(t, listener.URL, "?watch=true", nil, "base64.binary.k8s.io", "other")
	if got := inJSON.Subprotocol(); got != "base64.binary.k8s.io" {
		t.Errorf("the protocol is %q", got)
	}
	inProto := dial(t, listener.URL, "?watch=1", http.Header{"Accept": {"application/vnd.kubernetes.protobuf"}})
	next := func(c *websocket.Conn, kind int) []byte {
		t.Helper()
		got, data, err := c.ReadMessage()
		if err != nil || got != kind {
			t.Fatalf("message of type %d, want %d: %v", got, kind, err)
		}
		return data
	}
	for _, name := range []string{"a", "b"} {
		if name == "b" {
			s.makeConfigMap(t, configMap("b"))
		}
		e := &streamEvent{}
		if err := json.Unmarshal(next(inJSON, websocket.TextMessage), e); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(e.Object, &e.object); err != nil || e.Type != "ADDED" || e.Metadata.Name != name {
			t.Errorf("got %s %s (%v), want %s", e.Type, e.Object, err, name)
		}
		var event metav1.WatchEvent
		if err := event.Unmarshal(next(inProto, websocket.BinaryMessage)); err != nil || event.Type != "ADDED" {
			t.Errorf("got %+v (%v)", event, err)
		}
	}
	short := dial(t, listener.URL, "?watch=1&timeoutSeconds=1&fieldSelector=metadata.name%3Dnone", nil)
	if _, _, err := short.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Errorf("a watch whose time is up ended with %v", err)
	}
}

// TestWebSocketOrigin: a page of another site cannot use the certificate of who
// looks at it.
func TestWebSocketOrigin(t *testing.T) {
	handler := apiServer(t, newServer(t), nil, somebody)
	certified := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{}}}
	for _, c := range []struct {
		origin string
		tls    *tls.ConnectionState
		want   int // 500: the recorder's connection cannot be taken over
	}{
		{"https://evil.example", certified, 403}, {"https://api.example", certified, 500}, {"", certified, 500}, {"https://evil.example", &tls.ConnectionState{}, 500},
	} {
		r := httptest.NewRequest("GET", "https://api.example"+configMaps("?watch=1"), nil)
		r.TLS = c.tls
		for name, value := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg=="} {
			r.Header.Set(name, value)
		}
		if c.origin != "" {
			r.Header.Set("Origin", c.origin)
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != c.want {
			t.Errorf("origin %q with certificates %d: %d, want %d", c.origin, len(c.tls.PeerCertificates), w.Code, c.want)
		}
	}
}

// stuckWriter takes nothing: its writes last until their deadline.
type stuckWriter struct {
	header http.Header
	passed chan struct{} // closed when a deadline has been set
	once   sync.Once
}

func (w *stuckWriter) Header() http.Header { return w.header }
func (w *stuckWriter) WriteHeader(int)     {}
func (w *stuckWriter) FlushError() error   { return nil }
func (w *stuckWriter) Write([]byte) (int, error) {
	<-w.passed
	return 0, os.ErrDeadlineExceeded
}
func (w *stuckWriter) SetWriteDeadline(at time.Time) error {
	if !at.IsZero() && time.Until(at) < 30*time.Second {
		w.once.Do(func() { close(w.passed) })
	}
	return nil
}

// TestDeadWatcher: the watch of a client that reads nothing ends when its time
// is up, and does not stay in a write.
func TestDeadWatcher(t *testing.T) {
	s := newServer(t)
	cm := s.makeConfigMap(t, configMap("a"))
	handler := apiServer(t, s, nil, somebody)
	ctx, cancel := context.WithTimeoutCause(t.Context(), patience, errors.New("the watch did not end"))
	defer cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w := &stuckWriter{header: http.Header{}, passed: make(chan struct{})}
		handler.ServeHTTP(w, request(t.Context(), t, "GET", configMaps("?watch=1&timeoutSeconds=1&resourceVersion=%s", cm.ResourceVersion), nil))
	}()
	s.label(t, "a", `"1"`)
	select {
	case <-ended:
	case <-ctx.Done():
		t.Fatal(context.Cause(ctx))
	}
}
