package nodeproxy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"
	"k8s.io/streaming/pkg/httpstream"

	"coracle/pkg/apiserver/nodeproxy"
)

// executors are client-go's ways to run a command.
func executors(t *testing.T, a *agent, target *url.URL) map[string]remotecommand.Executor {
	t.Helper()
	config := &rest.Config{Host: a.front.URL, BearerToken: "secret"}
	over, err := remotecommand.NewSPDYExecutor(config, "POST", target)
	if err != nil {
		t.Fatal(err)
	}
	v5, err := remotecommand.NewWebSocketExecutor(config, "GET", target.String())
	if err != nil {
		t.Fatal(err)
	}
	return map[string]remotecommand.Executor{"SPDY": over, "WebSocket v5": v5}
}

func (a *agent) target(path string, query url.Values) *url.URL {
	u, err := url.Parse(a.front.URL + path)
	if err != nil {
		a.t.Fatal(err)
	}
	u.RawQuery = query.Encode()
	return u
}

// oneSize is a terminal that never changes.
type oneSize struct{ sent bool }

func (s *oneSize) Next() *remotecommand.TerminalSize {
	if s.sent {
		return nil
	}
	s.sent = true
	return &remotecommand.TerminalSize{Width: 80, Height: 25}
}

// TestCommands: exec and attach over both of client-go's executors, with
// input, both outputs, a terminal, and the exit code.
func TestCommands(t *testing.T) {
	for _, kind := range []string{"exec", "attach"} {
		for _, way := range []string{"SPDY", "WebSocket v5"} {
			t.Run(kind+" "+way, func(t *testing.T) {
				a := newAgent(t)
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				run := func(q url.Values, opts remotecommand.StreamOptions) error {
					q.Set("container", "c")
					return executors(t, a, a.target("/pods/"+kind, q))[way].StreamWithContext(ctx, opts)
				}
				var out, errs bytes.Buffer
				q := url.Values{"command": {"cat", "-"}, "stdin": {"true"}, "stdout": {"true"}, "stderr": {"true"}}
				if err := run(q, remotecommand.StreamOptions{Stdin: strings.NewReader("hello "), Stdout: &out, Stderr: &errs}); err != nil {
					t.Fatal(err)
				}
				if out.String() != "hello out" || errs.String() != "err" {
					t.Errorf("out %q, err %q", out.String(), errs.String())
				}
				r := a.requests()[0]
				if want := "/" + kind + "/ns/pod/c"; r.URL.Path != want || r.Header.Get("Authorization") != "" || r.URL.Query().Get("input") != "1" {
					t.Errorf("the agent was asked %s with %v", r.URL, r.Header)
				}
				if r.Header.Get("Sec-Websocket-Protocol") != "" && strings.Contains(r.Header.Get("Sec-Websocket-Protocol"), "bearer") {
					t.Error("the client's token reached the agent")
				}
				out.Reset()
				q = url.Values{"command": {"sh"}, "stdout": {"true"}, "tty": {"true"}, "stdin": {"true"}}
				if err := run(q, remotecommand.StreamOptions{Stdin: strings.NewReader("x"), Stdout: &out, Tty: true, TerminalSizeQueue: &oneSize{}}); err != nil {
					t.Fatal(err)
				}
				if !strings.Contains(out.String(), `"Width":80`) || !strings.HasSuffix(out.String(), "xout") {
					t.Errorf("a terminal shows %q", out.String())
				}
				err := run(url.Values{"command": {"fail"}, "stdout": {"true"}}, remotecommand.StreamOptions{Stdout: io.Discard})
				var code exec.CodeExitError
				if kind == "exec" && (!errors.As(err, &code) || code.Code != 3) {
					t.Errorf("a command that fails: %v", err)
				}
			})
		}
	}
}

// TestOldWebSocket: what speaks WebSocket v4 passes through untouched.
func TestOldWebSocket(t *testing.T) {
	a := newAgent(t)
	config, err := websocket.NewConfig(strings.Replace(a.front.URL, "http", "ws", 1)+"/pods/exec?container=c&command=ls&stdout=1&stderr=1", a.front.URL)
	if err != nil {
		t.Fatal(err)
	}
	config.Protocol = []string{"base64url.bearer.authorization.k8s.io.c2VjcmV0", "v4.channel.k8s.io"}
	conn, err := websocket.DialConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	defer closeIt(t, conn)
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	got := map[byte]string{}
	for !strings.Contains(got[3], "Success") {
		var message []byte
		if err := websocket.Message.Receive(conn, &message); err != nil {
			t.Fatalf("after %v: %v", got, err)
		}
		if len(message) > 0 {
			got[message[0]] += string(message[1:])
		}
	}
	if got[1] != "out" || got[2] != "err" {
		t.Errorf("channels %v", got)
	}
	if h := a.requests()[0].Header.Get("Sec-Websocket-Protocol"); h != "v4.channel.k8s.io" {
		t.Errorf("the agent was offered %q", h)
	}
}

// TestPortForward: over SPDY, and through a tunnel of WebSocket messages.
func TestPortForward(t *testing.T) {
	for _, way := range []string{"SPDY", "tunnel"} {
		t.Run(way, func(t *testing.T) {
			a := newAgent(t)
			target, config := a.target("/pods/portforward", nil), &rest.Config{Host: a.front.URL}
			var dialer httpstream.Dialer
			tripper, upgrader, err := spdy.RoundTripperFor(config)
			if err != nil {
				t.Fatal(err)
			}
			dialer = spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: tripper}, "POST", target)
			if way == "tunnel" {
				if dialer, err = portforward.NewSPDYOverWebsocketDialerForStreaming(target, config); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			ready := make(chan struct{})
			forwarder, err := portforward.NewOnAddressesForStreamingWithContext(ctx, dialer, []string{"127.0.0.1"}, []string{"0:8080"}, ready, io.Discard, io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- forwarder.ForwardPorts() }()
			select {
			case <-ready:
			case err := <-done:
				t.Fatalf("it ended before it was ready: %v", err)
			}
			ports, err := forwarder.GetPorts()
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				echo(t, fmt.Sprintf("127.0.0.1:%d", ports[0].Local))
			}
			cancel()
			<-done
		})
	}
}

func echo(t *testing.T, addr string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer closeIt(t, conn)
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	text := strings.Repeat("0123456789", 20_000)
	go func() {
		if _, err := io.WriteString(conn, text); err != nil {
			t.Errorf("send: %v", err)
		}
	}()
	got := make([]byte, len("8080:")+len(text))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "8080:"+text {
		t.Fatalf("echoed %d bytes (%v)", len(got), err)
	}
}

// get asks the front and reads the whole answer.
func (a *agent) get(path string, headers ...string) (int, string, http.Header) {
	a.t.Helper()
	r, err := http.NewRequestWithContext(a.t.Context(), http.MethodGet, a.front.URL+path, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, Timeout: patience}
	resp, err := client.Do(r)
	if err != nil {
		a.t.Fatal(err)
	}
	defer closeIt(a.t, resp.Body)
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	return resp.StatusCode, string(body), resp.Header
}

var upgradeHeaders = []string{"Connection", "Upgrade", "Upgrade", "SPDY/3.1", "X-Stream-Protocol-Version", "v4.channel.k8s.io"}

// TestRedirects: a redirect of an agent is an error at every door, and nobody
// goes where it points (CVE-2018-1002102).
func TestRedirects(t *testing.T) {
	trap := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }))
	defer trap.Close()
	a := newAgent(t)
	a.answer = func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, trap.URL, http.StatusFound) }
	for _, path := range []string{"/pods/exec?command=ls&container=c", "/pods/attach?container=c", "/pods/portforward", "/pods/log?container=c", "/nodes/proxy/stats", "/nodes/proxy/exec/x"} {
		var headers []string
		if !strings.Contains(path, "log") && !strings.Contains(path, "stats") {
			headers = upgradeHeaders
		}
		code, body, h := a.get(path, headers...)
		if code != http.StatusBadGateway || h.Get("Location") != "" || !strings.Contains(body, "redirect") {
			t.Errorf("%s: %d %v %s", path, code, h, body)
		}
	}
	for way, e := range executors(t, a, a.target("/pods/exec", url.Values{"command": {"ls"}, "container": {"c"}, "stdout": {"1"}})) {
		if err := e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: io.Discard}); err == nil {
			t.Errorf("%s: a redirect went unnoticed", way)
		}
	}
}

// TestNoUpgrade: when an agent does not agree to leave HTTP, its connection is
// closed and no byte of the client's reaches it (CVE-2018-1002105).
func TestNoUpgrade(t *testing.T) {
	a := newAgent(t)
	a.answer = func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "not today", http.StatusForbidden) }
	conn, err := net.Dial("tcp", a.front.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer closeIt(t, conn)
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	// The second request rides behind the first, as the attack did.
	fmt.Fprint(conn, "GET /pods/exec?command=ls&container=c HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"+
		"GET /runningpods/ HTTP/1.1\r\nHost: x\r\n\r\n")
	buf := make([]byte, 4096)
	n, err := conn.Read(buf)
	if err != nil || !strings.HasPrefix(string(buf[:n]), "HTTP/1.1 403") || !strings.Contains(string(buf[:n]), "not today") {
		t.Fatalf("the client got %q (%v)", buf[:n], err)
	}
	select {
	case <-a.closed:
	case <-time.After(patience):
		t.Fatal("the connection to the agent stays open")
	}
	for _, r := range a.requests() {
		if strings.Contains(r.URL.Path, "runningpods") {
			t.Error("a request of the client's own reached the agent")
		}
	}
}

// TestLogs: the options, WebSocket, and what has no logs.
func TestLogs(t *testing.T) {
	a := newAgent(t)
	code, body, h := a.get("/pods/log?container=c&tailLines=5&timestamps=true&follow=true&evil=1&previous=true", "Authorization", "Bearer secret")
	if code != 200 || h.Get("Content-Type") != "text/plain" || h.Get("Set-Cookie") != "" ||
		body != "GET /containerLogs/ns/pod/c?follow=true&previous=true&tailLines=5&timestamps=true" {
		t.Errorf("%d %v %s", code, h, body)
	}
	if r := a.requests()[0]; r.Header.Get("Authorization") != "" {
		t.Error("the client's token reached the agent")
	}
	for path, want := range map[string]string{
		"/pods/log":             "a container name must be specified for pod pod, choose one of: [c d]",
		"/pods/log?container=x": "container x is not valid for pod pod",
	} {
		if code, body, _ := a.get(path); code != 400 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	conn, err := websocket.Dial(strings.Replace(a.front.URL, "http", "ws", 1)+"/pods/log?container=d", "", a.front.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer closeIt(t, conn)
	got := ""
	for {
		var message []byte
		if err := websocket.Message.Receive(conn, &message); err != nil {
			break
		}
		got += string(message)
	}
	if got != "GET /containerLogs/ns/pod/d" {
		t.Errorf("over WebSocket: %q", got)
	}
	a.answer = func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "container c is waiting to start", http.StatusBadRequest)
	}
	if code, body, _ := a.get("/pods/log?container=c"); code != 400 || !strings.Contains(body, `"message":"container c is waiting to start"`) {
		t.Errorf("an agent's refusal: %d %s", code, body)
	}
	a.pod.Spec.NodeName = ""
	if code, body, _ := a.get("/pods/log?container=c"); code != 200 || body != "" {
		t.Errorf("a pod without a node: %d %s", code, body)
	}
}

// TestAddresses: nobody is led to where no node is (CVE-2022-3294).
func TestAddresses(t *testing.T) {
	a := newAgent(t, func(c *nodeproxy.Config) { c.CheckAddress = nil })
	for _, addr := range []string{"127.0.0.1", "::1", "169.254.169.254", "0.0.0.0", "::ffff:127.0.0.1", "224.0.0.1", "localhost", "fe80::1", ""} {
		a.node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: addr}}
		if code, body, _ := a.get("/nodes/proxy/x"); code != 400 {
			t.Errorf("address %q: %d %s", addr, code, body)
		}
	}
	a.node.Status.Addresses = nil
	if code, _, _ := a.get("/nodes/proxy/x"); code != 503 {
		t.Errorf("a node without addresses: %d", code)
	}
	if n := len(a.requests()); n > 0 {
		t.Errorf("%d requests reached the agent", n)
	}
}

// TestOwnAddresses: a node that says that it is where the API is has nothing sent
// to it, and no certificate shown.
func TestOwnAddresses(t *testing.T) {
	var own string
	a := newAgent(t, func(c *nodeproxy.Config) {
		c.Own = func(to netip.AddrPort) bool { return to.String() == own }
	})
	if code, _, _ := a.get("/nodes/proxy/x"); code != 200 {
		t.Errorf("an agent: %d", code)
	}
	own = a.server.Listener.Addr().String()
	for _, path := range []string{"/nodes/proxy/x", "/pods/log?container=c", "/pods/exec?command=ls&container=c", "/pods/portforward"} {
		if code, body, _ := a.get(path, upgradeHeaders...); code != 400 || !strings.Contains(body, "may not be used to reach a node") {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	if n := len(a.requests()); n != 1 {
		t.Errorf("%d requests reached the agent, want the first alone", n)
	}
}

// TestPlainRequests: exec and attach need an upgrade; nodes/proxy passes on
// paths but no credentials.
func TestPlainRequests(t *testing.T) {
	a := newAgent(t)
	for _, path := range []string{"/pods/exec?command=ls&container=c", "/pods/attach?container=c", "/pods/portforward", "/pods/exec?container=c"} {
		if code, body, _ := a.get(path); code != 400 {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	code, body, h := a.get("/nodes/proxy/metrics/x?a=b", "Authorization", "Bearer secret", "Impersonate-Extra-Scopes", "x", "X-Remote-User", "root", "Cookie", "c=d")
	if code != 200 || body != "GET /metrics/x?a=b" || h.Get("Set-Cookie") != "" {
		t.Errorf("%d %v %s", code, h, body)
	}
	r := a.requests()[0]
	for _, name := range []string{"Authorization", "Impersonate-Extra-Scopes", "X-Remote-User", "Cookie"} {
		if r.Header.Get(name) != "" {
			t.Errorf("%s reached the agent", name)
		}
	}
}
