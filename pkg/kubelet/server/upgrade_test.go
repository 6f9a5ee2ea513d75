package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"
	streamcommand "k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

// shell is a container runtime that echoes.
type shell struct{}

func (shell) Exec(_ context.Context, id string, cmd []string, in io.Reader, out, errOut io.WriteCloser, _ bool, _ <-chan streamcommand.TerminalSize) error {
	if _, err := fmt.Fprintf(errOut, "%s %s", id, strings.Join(cmd, " ")); err != nil {
		return err
	}
	if in == nil {
		return nil
	}
	_, err := io.Copy(out, in)
	return err
}

func (s shell) Attach(ctx context.Context, id string, in io.Reader, out, errOut io.WriteCloser, tty bool, resize <-chan streamcommand.TerminalSize) error {
	return s.Exec(ctx, id, []string{"attached"}, in, out, errOut, tty, resize)
}

func (shell) PortForward(_ context.Context, _ string, port int32, stream io.ReadWriteCloser) error {
	defer stream.Close()
	_, err := fmt.Fprintf(stream, "port %d", port)
	return err
}

// realRuntime serves streams as container runtimes do.
func realRuntime(t *testing.T, f *fixture) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := streaming.DefaultConfig
	cfg.Addr = listener.Addr().String()
	s, err := streaming.NewServer(cfg, shell{})
	if err != nil {
		t.Fatal(err)
	}
	hs := &http.Server{Handler: s}
	done := make(chan error, 1)
	go func() { done <- hs.Serve(listener) }()
	t.Cleanup(func() { hs.Close(); <-done })
	f.node.url = func(req any) (string, error) {
		switch req := req.(type) {
		case *runtimeapi.ExecRequest:
			r, err := s.GetExec(req)
			return r.GetUrl(), err
		case *runtimeapi.AttachRequest:
			r, err := s.GetAttach(req)
			return r.GetUrl(), err
		case *runtimeapi.PortForwardRequest:
			r, err := s.GetPortForward(req)
			return r.GetUrl(), err
		}
		return "", fmt.Errorf("request of type %T", req)
	}
}

// restConfig is the configuration of a client-go client of the server.
func (f *fixture) restConfig() *rest.Config {
	return &rest.Config{Host: f.url(""), BearerToken: "good", TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
}

func TestExecAndAttachOverSPDY(t *testing.T) {
	f := newFixture(t)
	realRuntime(t, f)
	for path, wantErr := range map[string]string{
		"/exec/ns/pod/app?command=cat&input=1&output=1&error=1":         "c1 cat",
		"/exec/ns/pod/uid/app?command=cat&stdin=true&stdout=1&stderr=1": "c1 cat",
		"/attach/ns/pod/app?input=1&output=1&error=1":                   "c1 attached",
	} {
		u, err := url.Parse(f.url(path))
		if err != nil {
			t.Fatal(err)
		}
		exec, err := remotecommand.NewSPDYExecutor(f.restConfig(), "POST", u)
		if err != nil {
			t.Fatal(err)
		}
		in := bytes.Repeat([]byte("0123456789"), 100_000)
		var out, errOut bytes.Buffer
		err = exec.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: bytes.NewReader(in), Stdout: &out, Stderr: &errOut})
		if err != nil || !bytes.Equal(out.Bytes(), in) || errOut.String() != wantErr {
			t.Errorf("%s: %d bytes back, stderr %q, %v", path, out.Len(), errOut.String(), err)
		}
	}
}

func TestExecOverWebSocket(t *testing.T) {
	f := newFixture(t)
	realRuntime(t, f)
	exec, err := remotecommand.NewWebSocketExecutorForProtocols(f.restConfig(), "GET", f.url("/exec/ns/pod/app?command=cat&output=1&error=1"), "v4.channel.k8s.io")
	if err != nil {
		t.Fatal(err)
	}
	var out, errOut bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	// This protocol cannot end stdin, so the command gets none.
	err = exec.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &out, Stderr: &errOut})
	if err != nil || errOut.String() != "c1 cat" {
		t.Errorf("stderr %q, %v", errOut.String(), err)
	}
}

func TestPortForwardOverSPDY(t *testing.T) {
	f := newFixture(t)
	realRuntime(t, f)
	u, err := url.Parse(f.url("/portForward/ns/pod"))
	if err != nil {
		t.Fatal(err)
	}
	transport, upgrader, err := spdy.RoundTripperFor(f.restConfig())
	if err != nil {
		t.Fatal(err)
	}
	stop, ready := make(chan struct{}), make(chan struct{})
	pf, err := portforward.New(spdy.NewDialer(upgrader, &http.Client{Transport: transport}, "POST", u), []string{"0:80"}, stop, ready, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- pf.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	ports, err := pf.GetPorts()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", ports[0].Local))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got, err := io.ReadAll(conn); string(got) != "port 80" {
		t.Errorf("read %q, %v", got, err)
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// bufferedConn is a connection of which a reader has read ahead.
type bufferedConn struct {
	net.Conn
	reader *bufio.Reader
}

func (c bufferedConn) Read(b []byte) (int, error) { return c.reader.Read(b) }

// rawBackend accepts connections and lets a test speak for the runtime.
func rawBackend(t *testing.T, f *fixture, serve func(net.Conn, *http.Request)) *atomic.Int32 {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	requests := new(atomic.Int32)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				reader := bufio.NewReader(conn)
				for {
					req, err := http.ReadRequest(reader)
					if err != nil {
						return
					}
					requests.Add(1)
					serve(bufferedConn{conn, reader}, req)
				}
			}()
		}
	}()
	f.node.url = func(any) (string, error) { return "http://" + listener.Addr().String() + "/exec/token", nil }
	return requests
}

// upgrade sends an upgrade request on a connection of its own.
func (f *fixture) upgrade(t *testing.T, extra string) (*tls.Conn, *bufio.Reader, *http.Response) {
	t.Helper()
	conn, err := tls.Dial("tcp", f.addr, f.clientTLS(f.ca, "admin"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	const head = "POST /exec/ns/pod/app?command=sh&output=1 HTTP/1.1\r\nHost: node\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nAuthorization: Bearer canary\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n"
	if _, err := io.WriteString(conn, head+extra); err != nil {
		t.Fatal(err)
	}
	reader := bufio.NewReader(conn)
	resp, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	return conn, reader, resp
}

// TestOnlyAnUpgradePassesBytes is CVE-2018-1002105 and its kin: whatever the
// backend answers but 101, nothing more reaches it, and no redirect is passed on.
func TestOnlyAnUpgradePassesBytes(t *testing.T) {
	for status, want := range map[string]int{
		"200 OK": 502, "204 No Content": 502, "302 Found": 502, "307 Temporary Redirect": 502,
		"400 Bad Request": 400, "403 Forbidden": 403, "404 Not Found": 404, "500 Internal Server Error": 500,
	} {
		t.Run(status, func(t *testing.T) {
			f := newFixture(t)
			requests := rawBackend(t, f, func(conn net.Conn, r *http.Request) {
				if r.Header.Get("Authorization") != "" {
					t.Error("the client's credentials reached the backend")
				}
				_, _ = fmt.Fprintf(conn, "HTTP/1.1 %s\r\nLocation: http://169.254.169.254/\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nno", status)
			})
			const second = "GET /exec/other HTTP/1.1\r\nHost: x\r\n\r\n"
			conn, reader, resp := f.upgrade(t, second)
			if resp.StatusCode != want || resp.Header.Get("Location") != "" {
				t.Errorf("the client gets %d and Location %q", resp.StatusCode, resp.Header.Get("Location"))
			}
			_, _ = io.WriteString(conn, second)
			if _, err := io.Copy(io.Discard, resp.Body); err != nil {
				t.Error(err)
			}
			if rest, err := io.ReadAll(reader); len(rest) > 0 {
				t.Errorf("the connection went on: %q, %v", rest, err)
			}
			if n := requests.Load(); n != 1 {
				t.Errorf("%d requests reached the backend, want 1", n)
			}
		})
	}
}

// accept answers 101 and then calls serve with the raw connection.
func accept(serve func(net.Conn)) func(net.Conn, *http.Request) {
	return func(conn net.Conn, _ *http.Request) {
		if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nSet-Cookie: no\r\n\r\nearly"); err == nil {
			serve(conn)
		}
		conn.Close()
	}
}

func TestUpgradedBytesAreComplete(t *testing.T) {
	f := newFixture(t)
	got := make(chan string, 1)
	rawBackend(t, f, accept(func(conn net.Conn) {
		data, _ := io.ReadAll(conn)
		got <- string(data)
		_, _ = io.WriteString(conn, "late")
	}))
	conn, reader, resp := f.upgrade(t, "first")
	if resp.StatusCode != 101 || resp.Header.Get("Upgrade") != "SPDY/3.1" || resp.Header.Get("Set-Cookie") != "" {
		t.Fatalf("%d %v", resp.StatusCode, resp.Header)
	}
	text := strings.Repeat("x", 1<<20)
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if data := <-got; data != "first"+text {
		t.Errorf("the backend got %d bytes, want %d", len(data), len("first"+text))
	}
	if rest, err := io.ReadAll(reader); string(rest) != "earlylate" {
		t.Errorf("the client got %q, %v", rest, err)
	}
}

func TestStreamsEnd(t *testing.T) {
	gone := make(chan struct{}, 1)
	hang := accept(func(conn net.Conn) {
		_, _ = io.Copy(io.Discard, conn)
		gone <- struct{}{}
	})
	wait := func(t *testing.T, what string) {
		t.Helper()
		select {
		case <-gone:
		case <-time.After(10 * time.Second):
			t.Fatal("the backend's connection outlives " + what)
		}
	}
	t.Run("idle", func(t *testing.T) {
		f := newFixture(t, func(c *Config) { c.IdleTimeout = 50 * time.Millisecond })
		rawBackend(t, f, hang)
		_, reader, _ := f.upgrade(t, "")
		if rest, err := io.ReadAll(reader); string(rest) != "early" {
			t.Errorf("read %q, %v", rest, err)
		}
		wait(t, "the idle time")
	})
	t.Run("client", func(t *testing.T) {
		f := newFixture(t)
		rawBackend(t, f, hang)
		conn, _, _ := f.upgrade(t, "")
		conn.Close()
		wait(t, "the client")
	})
	t.Run("server", func(t *testing.T) {
		f := newFixture(t)
		rawBackend(t, f, hang)
		f.upgrade(t, "")
		f.stop()
		wait(t, "the server")
	})
}

func TestStreamRefusals(t *testing.T) {
	f := newFixture(t)
	upgrade := http.Header{"Connection": {"keep-alive, Upgrade"}, "Upgrade": {"SPDY/3.1"}}
	f.node.containers["dead"] = Container{ID: "c9"}
	for path, want := range map[string]string{
		"/exec/ns/pod/app?command=x":                    "400 you must specify at least 1 of stdin, stdout, stderr\n",
		"/exec/ns/pod/app?output=1":                     "400 exec needs a command\n",
		"/exec/ns/pod/app?command=x&error=1&tty=1":      "400 you must specify at least 1 of stdin, stdout, stderr\n",
		"/exec/ns/pod/wrong-uid/app?command=x&output=1": "404 pod \"pod\" in namespace \"ns\" is not on this node\n",
		"/exec/ns/pod/none?command=x&output=1":          "404 container not found (\"none\")\n",
		"/attach/ns/pod/dead?output=1":                  "400 container \"dead\" in pod \"pod\" is not running\n",
		"/portForward/ns/pod?port=70000":                "400 port \"70000\" is not a port, or there are more than 64\n",
		"/portForward/ns/pod":                           "500 no runtime in this test\n",
	} {
		status, body := get(t, f.client, "POST", f.url(path), upgrade)
		if got := fmt.Sprintf("%d %s", status, body); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	if status, _ := get(t, f.client, "POST", f.url("/exec/ns/pod/app?command=x&output=1"), nil); status != 400 {
		t.Errorf("a request that does not ask for an upgrade gets %d", status)
	}
	for _, raw := range []string{"http://169.254.169.254:80/x", "https://127.0.0.1:80/x", "http://127.0.0.1/x", "http://localhost:80/x", "/exec/x", "http://[::1"} {
		if _, err := loopbackURL(raw); err == nil {
			t.Errorf("the streaming URL %q was accepted", raw)
		}
	}
	if _, err := loopbackURL("http://[::1]:1234/exec/x"); err != nil {
		t.Error(err)
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	f.node.url = func(any) (string, error) { return "http://" + closed.Addr().String() + "/x", nil }
	if status, body := get(t, f.client, "POST", f.url("/portForward/ns/pod"), upgrade); status != 502 {
		t.Errorf("a runtime that is away: %d %q", status, body)
	}
	if _, err := New(Config{}); err == nil || errors.Is(err, io.EOF) {
		t.Error("an empty configuration was accepted")
	}
}
