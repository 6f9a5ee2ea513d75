package aggregate_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/auth"
)

// echo is what the aggregated server saw.
type echo struct {
	Method, URI, Body, Proxy string
	Header                   http.Header
}

func (s *site) echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		s.t.Log("read a body:", err)
	}
	text, err := json.Marshal(echo{r.Method, r.URL.RequestURI(), string(body), r.TLS.PeerCertificates[0].Subject.CommonName, r.Header})
	if err != nil {
		s.t.Error(err)
	}
	for _, name := range []string{"Set-Cookie", "Www-Authenticate", "Alt-Svc", "Access-Control-Allow-Origin", "Audit-Id", "X-Kept"} {
		w.Header().Set(name, "backend")
	}
	w.WriteHeader(http.StatusTeapot)
	write(s.t, w, string(text))
}

// TestIdentity: a request arrives as it was sent, under the front proxy's
// certificate, with the user that this server found out and none of what the
// client claims.
func TestIdentity(t *testing.T) {
	s := newSite(t)
	s.serve(s.echo)
	user := &auth.User{Name: "anna", UID: "u-1", Groups: []string{"a", auth.GroupMasters}, Extra: map[string][]string{"example.com/scope": {"x", "y"}}}
	resp, text, err := s.doAs(s.RESTConfig(user).Transport, "PUT", group+"/namespaces/default/flunders/f?a=1&b=%2F", "hello",
		"Authorization", "Bearer secret", "X-Remote-User", "root", "X-Remote-Group", "system:masters", "X-Remote-Extra-Scope", "all", "X-Asked", "yes",
		"X-Forwarded-For", "1.2.3.4", "Connection", "X-Remote-User, X-Remote-Extra-Example.com%2fscope")
	if err != nil || resp.StatusCode != http.StatusTeapot {
		t.Fatalf("%v %+v %s", err, resp, text)
	}
	var got echo
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	if got.Method != "PUT" || got.URI != group+"/namespaces/default/flunders/f?a=1&b=%2F" || got.Body != "hello" || got.Proxy != "front-proxy-client" {
		t.Errorf("the request arrived as %+v", got)
	}
	identity := http.Header{}
	for name, values := range got.Header {
		if strings.HasPrefix(name, "X-Remote-") || name == "Authorization" || name == "X-Asked" || name == "X-Forwarded-For" {
			identity[name] = values
		}
	}
	want := http.Header{"X-Remote-User": {"anna"}, "X-Remote-Uid": {"u-1"}, "X-Remote-Group": {"a", auth.GroupMasters},
		"X-Remote-Extra-Example.com%2fscope": {"x", "y"}, "X-Asked": {"yes"}, "X-Forwarded-For": {"127.0.0.1"}}
	if diff := cmp.Diff(want, identity); diff != "" {
		t.Errorf("headers that arrived (-want +got):\n%s", diff)
	}
	for _, name := range []string{"Set-Cookie", "Www-Authenticate", "Alt-Svc", "Access-Control-Allow-Origin"} {
		if resp.Header.Get(name) != "" {
			t.Errorf("the answer has the header %s", name)
		}
	}
	if resp.Header.Get("X-Kept") != "backend" || len(resp.Header.Values("Audit-Id")) != 1 || resp.Header.Get("Audit-Id") == "backend" {
		t.Errorf("the answer's header is %v", resp.Header)
	}
}

// TestImpersonation: the backend is told of the user that the request is for.
func TestImpersonation(t *testing.T) {
	s := newSite(t)
	s.serve(s.echo)
	_, text, err := s.do("GET", group+"/namespaces/default/flunders", "", "Impersonate-User", "bob", "Impersonate-Group", "system:masters")
	var got echo
	if err != nil || json.Unmarshal([]byte(text), &got) != nil {
		t.Fatal(err, text)
	}
	if got.Header.Get("X-Remote-User") != "bob" || got.Header.Get("Impersonate-User") != "" {
		t.Errorf("the backend was told of %v", got.Header)
	}
}

// TestAuthorizedFirst: nothing reaches the backend that this server forbids, nor
// anything that the two could read differently.
func TestAuthorizedFirst(t *testing.T) {
	s := newSite(t)
	var mu sync.Mutex
	var reached []string
	s.serve(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		reached = append(reached, r.URL.Path)
		mu.Unlock()
	})
	nobody := s.As("nobody").Transport
	for _, path := range []string{
		"/namespaces/default/flunders", "/namespaces/default/flunders/f", "/namespaces/default/flunders//f", "//namespaces/default/flunders",
		"/./flunders", "/x/../flunders", "/flunders/%2e%2e/y", "/%2e%2e/%2e%2e/api/v1/secrets", "/", "//",
	} {
		resp, text, err := s.doAs(nobody, "GET", group+path, "")
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if path == "/" { // discovery, which everybody may see
			if resp.StatusCode != 200 || len(reached) != 1 {
				t.Errorf("discovery with a slash: %d %s", resp.StatusCode, text)
			}
			continue
		}
		if resp.StatusCode != 403 && resp.StatusCode != 404 && resp.StatusCode != 400 {
			t.Errorf("%s: %d %s", path, resp.StatusCode, text)
		}
	}
	for _, path := range []string{"/namespaces/default/flunders//f", "/x/../flunders", "/flunders/."} {
		if resp, text, err := s.do("GET", group+path, ""); err != nil || resp.StatusCode != 400 {
			t.Errorf("%s as an administrator: %v %d %s, want 400", path, err, resp.StatusCode, text)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(reached) > 1 {
		t.Errorf("these reached the backend: %v", reached)
	}
}

// TestWatchIsPassedOn: each event is seen when it is sent, and the end of the
// client's interest is seen by the backend.
func TestWatchIsPassedOn(t *testing.T) {
	s := newSite(t)
	next, ended := make(chan string), make(chan struct{})
	s.serve(func(w http.ResponseWriter, r *http.Request) {
		for {
			select {
			case text := <-next:
				write(t, w, text)
				if err := http.NewResponseController(w).Flush(); err != nil {
					t.Error(err)
				}
			case <-r.Context().Done():
				close(ended)
				return
			}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", "http://coracle.invalid"+group+"/flunders?watch=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() { next <- "one\n" }()
	resp, err := s.http.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(resp.Body)
	for _, want := range []string{"one\n", "two\n", "three\n"} {
		if got, err := lines.ReadString('\n'); got != want {
			t.Fatalf("event %q, %v, want %q", got, err, want)
		}
		if want != "three\n" {
			next <- map[string]string{"one\n": "two\n", "two\n": "three\n"}[want]
		}
	}
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
	select {
	case <-ended:
	case <-ctx.Done():
		t.Error("the backend still serves a watch that nobody reads")
	}
}

// TestUpgradeIsPassedOn: a WebSocket works through the server, without the token
// that was in its subprotocols.
func TestUpgradeIsPassedOn(t *testing.T) {
	s := newSite(t)
	s.serve(func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Sec-Websocket-Protocol"); got != "chat" || r.Header.Get("X-Remote-User") != "anna" {
			t.Errorf("the upgrade arrived with the protocols %q as %q", got, r.Header.Get("X-Remote-User"))
		}
		conn, err := (&websocket.Upgrader{Subprotocols: []string{"chat"}}).Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		kind, text, err := conn.ReadMessage()
		if err == nil {
			err = conn.WriteMessage(kind, append([]byte("echo "), text...))
		}
		if err != nil {
			t.Error(err)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	server, config := s.listen()
	dialer := websocket.Dialer{TLSClientConfig: config, Subprotocols: []string{"chat", "base64url.bearer.authorization.k8s.io.c2VjcmV0"}}
	conn, resp, err := dialer.DialContext(t.Context(), "wss"+strings.TrimPrefix(server.URL, "https")+group+"/namespaces/default/flunders/f/talk", nil)
	if err != nil {
		t.Fatalf("%v %+v", err, resp)
	}
	if err := conn.WriteMessage(websocket.TextMessage, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, text, err := conn.ReadMessage(); err != nil || string(text) != "echo hello" {
		t.Errorf("%q %v", text, err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
}

// TestLyingBackends: whatever a backend answers harms the one request.
func TestLyingBackends(t *testing.T) {
	s := newSite(t)
	path := group + "/namespaces/default/flunders"
	release := make(chan struct{})
	defer close(release)
	for _, c := range []struct {
		name, query string
		serve       http.HandlerFunc
		code        int    // 0: the answer breaks off
		part        string // of the answer
	}{
		{"redirects", "", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://evil.invalid/", http.StatusFound)
		}, 502, "redirect"},
		{"redirects without a place", "", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTemporaryRedirect) }, 502, "redirect"},
		{"hangs", "?timeout=50ms", func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}, 504, "did not answer in time"},
		{"breaks off", "", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			write(t, w, "{}")
		}, 0, ""},
		{"goes away", "", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 503, "error trying to reach service"},
		{"has a huge header", "", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Long", strings.Repeat("a", 1<<20))
			write(t, w, "{}")
		}, 503, "error trying to reach service"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.serve(c.serve)
			resp, text, err := s.do("GET", path+c.query, "")
			if c.code == 0 {
				if err == nil {
					t.Errorf("half an answer was passed on as a whole one: %d %s", resp.StatusCode, text)
				}
				return
			}
			var status metav1.Status
			if err != nil || resp.StatusCode != c.code || json.Unmarshal([]byte(text), &status) != nil || !strings.Contains(status.Message, c.part) {
				t.Fatalf("%v %+v %s, want %d with %q", err, resp, text, c.code, c.part)
			}
			if resp.Header.Get("Location") != "" {
				t.Error("the place of a redirect was passed on")
			}
		})
	}
	s.must(200, "GET", "/api/v1/namespaces/default", "")
}

// TestEndlessAnswer: an answer of 100 MB is passed on in pieces.
func TestEndlessAnswer(t *testing.T) {
	s := newSite(t)
	const size = 100 << 20
	s.serve(func(w http.ResponseWriter, _ *http.Request) {
		piece := make([]byte, 1<<20)
		for range size / len(piece) {
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	})
	r, err := http.NewRequestWithContext(t.Context(), "GET", "http://coracle.invalid"+group+"/flunders", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.http.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	piece, read, most := make([]byte, 1<<20), 0, uint64(0)
	for {
		n, err := resp.Body.Read(piece)
		read += n
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if read%(8<<20) < n {
			runtime.GC()
			runtime.ReadMemStats(&now)
			most = max(most, now.HeapAlloc)
		}
	}
	if read != size {
		t.Errorf("%d bytes of %d arrived", read, size)
	}
	if more := int64(most) - int64(before.HeapAlloc); more > 16<<20 {
		t.Errorf("passing on 100 MB held %d bytes", more)
	}
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
}

// TestHangingBackendHoldsItsOwnPlaces: when a backend hangs with as many
// requests as are passed on at once, its own clients are told, and everybody
// else is served.
func TestHangingBackendHoldsItsOwnPlaces(t *testing.T) {
	s := newSite(t)
	const most = 200
	arrived, release := make(chan struct{}, 2*most), make(chan struct{})
	s.serve(func(_ http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-release
	})
	var wg sync.WaitGroup
	for range most {
		wg.Go(func() {
			if _, _, err := s.do("GET", group+"/flunders", ""); err != nil {
				t.Error(err)
			}
		})
	}
	for range most {
		<-arrived
	}
	if resp, text, err := s.do("GET", group+"/flunders", ""); err != nil || resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" {
		t.Errorf("%v %+v %s, want 429", err, resp, text)
	}
	ordinary := s.As("ordinary").Transport // takes a place of this server's own
	if resp, text, err := s.doAs(ordinary, "GET", "/apis", ""); err != nil || resp.StatusCode != 200 {
		t.Errorf("%v %+v %s, want 200", err, resp, text)
	}
	close(release)
	wg.Wait()
}

// TestLoop: a request that comes back to the server ends.
func TestLoop(t *testing.T) {
	s := newSite(t)
	var passes sync.Map
	s.serve(func(w http.ResponseWriter, r *http.Request) {
		via := r.Header.Get("Via")
		if _, again := passes.LoadOrStore(via, true); again {
			t.Errorf("the request passed twice by %s", via)
		}
		// As a server would that passes it back to where it came from.
		resp, text, err := s.do("GET", r.URL.Path, "", "Via", via)
		if err != nil {
			t.Error(err)
			return
		}
		w.WriteHeader(resp.StatusCode)
		write(t, w, text)
	})
	if resp, text, err := s.do("GET", group+"/flunders", ""); err != nil || resp.StatusCode != http.StatusLoopDetected {
		t.Errorf("%v %+v %s, want 508", err, resp, text)
	}
}

// TestRefusedUpgrade: a backend that does not agree to an upgrade keeps no
// connection of the client's, by which more could be asked in the server's name
// (CVE-2018-1002105).
func TestRefusedUpgrade(t *testing.T) {
	s := newSite(t)
	var mu sync.Mutex
	var paths []string
	s.serve(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		paths = append(paths, r.URL.Path)
		mu.Unlock()
		http.Error(w, "no", http.StatusForbidden)
	})
	server, config := s.listen()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	client := clientOver(conn, config)
	ask := func(path string, headers string) *http.Response {
		if _, err := fmt.Fprintf(client, "GET %s HTTP/1.1\r\nHost: a\r\n%s\r\n", path, headers); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(client.reader, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		return resp
	}
	if resp := ask(group+"/flunders", "Connection: Upgrade\r\nUpgrade: websocket\r\n"); resp.StatusCode != 403 {
		t.Errorf("answered %d, want the backend's 403", resp.StatusCode)
	}
	if resp := ask("/version", "Connection: close\r\n"); resp.StatusCode != 200 {
		t.Errorf("the next request on the connection was answered %d: it is this server's to answer", resp.StatusCode)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(paths) != 1 {
		t.Errorf("the backend saw %v", paths)
	}
	if err := client.Close(); err != nil {
		t.Error(err)
	}
}
