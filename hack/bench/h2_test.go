package main

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// serve starts a server that the client can dial as user bench.
func serve(t *testing.T, handler http.HandlerFunc) (string, *identities) {
	t.Helper()
	id, err := newIdentities(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(id.certFile, id.keyFile)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(handler)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert}
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String(), id
}

// TestClient sends requests of all sizes at once over one connection to Go's
// own server.
func TestClient(t *testing.T) {
	address, id := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.ProtoMajor != 2 || r.TLS.PeerCertificates[0].Subject.CommonName != "bench" {
			http.Error(w, "not as it shall be", http.StatusBadRequest)
			return
		}
		w.Header().Set("X-Method", r.Method)
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, r.URL.Path+" "+r.Header.Get("Content-Type")+" "+string(body))
	})
	c, err := dial(address, id.client(id.bench))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, size := range []int{0, 1, 4 << 10, 16 << 10, 40 << 10, 100 << 10} {
		for range 8 {
			wg.Go(func() {
				r := &request{method: "POST", path: "/some/path", contentType: jsonType, accept: jsonType, body: []byte(strings.Repeat("b", size))}
				a, err := c.do(r, true)
				want := "/some/path " + jsonType + " " + string(r.body)
				if err != nil || a.status != http.StatusCreated || string(a.body) != want || a.bytes != int64(len(want)) {
					t.Errorf("%d bytes: status %d, %d bytes, %v", size, a.status, a.bytes, err)
				}
			})
		}
	}
	wg.Wait()
	c.close()
	if _, err := c.do(&request{method: "GET", path: "/"}, false); err == nil {
		t.Error("a closed connection takes a request")
	}
}

// TestLargeAnswer: an answer larger than every window comes whole.
func TestLargeAnswer(t *testing.T) {
	const size = 3 * streamWindow
	address, id := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, size)) })
	c, err := dial(address, id.client(id.bench))
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if a, err := c.do(&request{method: "GET", path: "/"}, false); err != nil || a.bytes != size {
		t.Errorf("%d bytes of %d, %v", a.bytes, size, err)
	}
}

// TestDeadClient: a stream that gives no room gets no more than its first
// window.
func TestDeadClient(t *testing.T) {
	full := make(chan struct{})
	address, id := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		_, _ = w.Write(make([]byte, firstWindow))
		_ = http.NewResponseController(w).Flush()
		close(full)
		_, _ = w.Write(make([]byte, firstWindow))
	})
	c, err := dialWindow(address, id.client(id.bench), firstWindow)
	if err != nil {
		t.Fatal(err)
	}
	s := &stream{dead: true}
	if err := c.open(&request{method: "GET", path: "/"}, s); err != nil {
		t.Fatal(err)
	}
	select {
	case <-full:
	case <-time.After(dialTimeout):
		t.Fatal("the first window was not taken")
	}
	c.close()
	<-s.done
	if s.bytes > firstWindow {
		t.Errorf("%d bytes came, the window is %d", s.bytes, firstWindow)
	}
}

// TestAwake: connections that have been quiet for long are replaced.
func TestAwake(t *testing.T) {
	address, id := serve(t, func(http.ResponseWriter, *http.Request) {})
	l := &lane{name: "test", prog: &program{address: address}}
	if err := l.connect(id, 2); err != nil {
		t.Fatal(err)
	}
	defer func() {
		for _, c := range l.conns {
			c.close()
		}
	}()
	first := l.conns[0]
	if err := l.awake(); err != nil || l.conns[0] != first || len(l.conns) != 2 {
		t.Errorf("a connection in use is replaced: %v", err)
	}
	l.used = l.used.Add(-idleAfter)
	if err := l.awake(); err != nil || l.conns[0] == first || len(l.conns) != 2 {
		t.Errorf("an idle connection is kept: %v", err)
	}
	if _, err := l.call(l.conns[0], &request{method: "GET", path: "/"}); err != nil {
		t.Error(err)
	}
}

// TestRefused: a server that says no ends the run with its words.
func TestRefused(t *testing.T) {
	address, id := serve(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "not today", http.StatusForbidden) })
	l := &lane{name: "test", prog: &program{address: address}}
	if err := l.connect(id, 1); err != nil {
		t.Fatal(err)
	}
	defer l.conns[0].close()
	if _, err := l.call(l.conns[0], &request{method: "GET", path: "/x"}); err == nil || !strings.Contains(err.Error(), "not today") {
		t.Errorf("refused: %v", err)
	}
}
