package nodeproxy_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/apiserver/nodeproxy"
)

// web is what runs in the pod: it says what it was asked.
func web(t *testing.T) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/page":
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, `<html><body><a href="/other">x</a></body></html>`)
		case "/moved":
			http.Redirect(w, r, "/other", http.StatusFound)
		case "/socket":
			upgrader := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
			conn, err := upgrader.Upgrade(w, r, nil)
			if err != nil {
				t.Error(err)
				return
			}
			defer closeIt(t, conn)
			kind, text, err := conn.ReadMessage()
			if err == nil {
				err = conn.WriteMessage(kind, append([]byte("echo "), text...))
			}
			if err != nil {
				t.Error(err)
			}
		default:
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			w.Header().Set("X-From", "pod")
			w.WriteHeader(http.StatusTeapot)
			fmt.Fprintf(w, "%s %s [%s] %q %q", r.Method, r.URL.RequestURI(), body, r.Header.Get("Authorization"), r.Header.Get("X-Asked"))
		}
	})
}

// withWeb is an agent whose pod serves web on port 8080 and over TLS on 8443.
func withWeb(t *testing.T) *agent {
	t.Helper()
	a := newAgent(t)
	plain, secure := httptest.NewServer(web(t)), httptest.NewTLSServer(web(t))
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	a.ports = map[string]string{"8080": plain.Listener.Addr().String(), "8443": secure.Listener.Addr().String()}
	a.pod.Status.PodIP = "10.244.0.5"
	a.pod.Spec.Containers[1].Ports = []corev1.ContainerPort{{ContainerPort: 8080}}
	a.service = &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "svc"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{
		{Name: "web", Port: 80}, {Name: "safe", Port: 443}, {Name: "none", Port: 9}}}}
	target := &corev1.ObjectReference{Kind: "Pod", Namespace: "ns", Name: "pod"}
	a.slices = []*discoveryv1.EndpointSlice{{
		Ports: []discoveryv1.EndpointPort{{Name: new("web"), Port: new(int32(8080))}, {Name: new("safe"), Port: new(int32(8443))}},
		Endpoints: []discoveryv1.Endpoint{
			{Addresses: []string{"10.244.0.9"}, Conditions: discoveryv1.EndpointConditions{Ready: new(false)}},
			{Addresses: []string{"10.244.0.5"}, TargetRef: target},
		},
	}}
	return a
}

// ask sends a request to the front as one for the object of that name.
func (a *agent) ask(method, path, name, body string) *http.Response {
	a.t.Helper()
	r, err := http.NewRequestWithContext(a.t.Context(), method, a.front.URL+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	r.Header.Set("X-Test-Name", name)
	r.Header.Set("Authorization", "Bearer secret")
	r.Header.Set("X-Asked", "yes")
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(r)
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { closeIt(a.t, resp.Body) })
	return resp
}

func text(t *testing.T, resp *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestProxyToPods: whatever names the port, requests reach the pod through its
// agent with their method, path, query, headers and body, and without the
// client's credentials.
func TestProxyToPods(t *testing.T) {
	a := withWeb(t)
	for _, c := range []struct{ kind, name string }{
		{"pods", "pod"}, {"pods", "pod:8080"}, {"pods", "http:pod:8080"}, {"pods", "https:pod:8443"},
		{"services", "svc:web"}, {"services", "svc:80"}, {"services", "http:svc:web"}, {"services", "https:svc:safe"}, {"services", "https:svc:443"},
	} {
		t.Run(c.kind+"/"+c.name, func(t *testing.T) {
			resp := a.ask("PUT", "/"+c.kind+"/proxy/a/b?x=1&y=%2F", c.name, "hello")
			if got, want := text(t, resp), `PUT /a/b?x=1&y=%2F [hello] "" "yes"`; resp.StatusCode != http.StatusTeapot || got != want || resp.Header.Get("X-From") != "pod" {
				t.Errorf("%d %s, want 418 %s", resp.StatusCode, got, want)
			}
		})
	}
}

func TestProxyRefuses(t *testing.T) {
	a := withWeb(t)
	for _, c := range []struct {
		kind, name string
		code       int
		part       string
	}{
		{"pods", "pod:9090", 503, "nobody listens there"},
		{"pods", "pod:web", 400, "must be a number"},
		{"pods", "ftp:pod:1:2", 400, "invalid pod request"},
		{"services", "svc:81", 503, "no service port 81 found"},
		{"services", "svc:none", 503, "no endpoints available"},
		{"services", "svc", 503, "no endpoints available"},
	} {
		resp := a.ask("GET", "/"+c.kind+"/proxy/", c.name, "")
		if got := text(t, resp); resp.StatusCode != c.code || !strings.Contains(got, c.part) {
			t.Errorf("%s %s: %d %s, want %d with %q", c.kind, c.name, resp.StatusCode, got, c.code, c.part)
		}
	}
	for _, ip := range []string{"", "127.0.0.1", "169.254.169.254", "::1"} {
		a.pod.Status.PodIP = ip
		if resp := a.ask("GET", "/pods/proxy/", "pod", ""); resp.StatusCode != 400 {
			t.Errorf("a pod at %q: %d %s, want 400", ip, resp.StatusCode, text(t, resp))
		}
	}
	if n := len(a.requests()); n != 1 {
		t.Errorf("%d requests reached the agent, want that of port 9090 alone", n)
	}
}

// TestProxyRewritesLinks: pages and redirects lead back through the proxy.
func TestProxyRewritesLinks(t *testing.T) {
	a := withWeb(t)
	if got := text(t, a.ask("GET", "/pods/proxy/page", "pod", "")); !strings.Contains(got, `href="/pods/proxy/other"`) {
		t.Errorf("the page is %s, want a link to /pods/proxy/other", got)
	}
	if got := a.ask("GET", "/pods/proxy/moved", "pod", "").Header.Get("Location"); got != "/pods/proxy/other" {
		t.Errorf("redirected to %q, want /pods/proxy/other", got)
	}
	root := a.ask("GET", "/pods/proxy", "pod", "")
	if got := root.Header.Get("Location"); root.StatusCode != http.StatusMovedPermanently || !strings.HasSuffix(got, "/pods/proxy/") {
		t.Errorf("without a slash: %d to %q, want 301 to one with", root.StatusCode, got)
	}
}

// TestProxyUpgrades: a WebSocket to a pod, over plain HTTP and TLS.
func TestProxyUpgrades(t *testing.T) {
	a := withWeb(t)
	for _, name := range []string{"pod:8080", "https:pod:8443"} {
		header := http.Header{"X-Test-Name": {name}}
		conn, resp, err := websocket.DefaultDialer.DialContext(t.Context(), "ws"+strings.TrimPrefix(a.front.URL, "http")+"/pods/proxy/socket", header)
		if err != nil {
			t.Fatalf("%s: %v (%v)", name, err, resp)
		}
		if err := conn.WriteMessage(websocket.TextMessage, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, got, err := conn.ReadMessage(); err != nil || string(got) != "echo hello" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		closeIt(t, conn)
	}
}

// TestProxyToNodes: the agent by default and by the number of its port, what
// else listens on the node by that of its own.
func TestProxyToNodes(t *testing.T) {
	a := withWeb(t)
	_, port, err := net.SplitHostPort(a.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_, other, err := net.SplitHostPort(a.ports["8080"])
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"n": "GET /stats?x=1", "n:" + port: "GET /stats?x=1", "https:n:" + port: "GET /stats?x=1",
		"n:" + other: `GET /stats?x=1 [] "" "yes"`, "http:n:" + other: `GET /stats?x=1 [] "" "yes"`,
	} {
		if got := text(t, a.ask("GET", "/nodes/proxy/stats?x=1", name, "")); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if resp := a.ask("GET", "/nodes/proxy/", "a:b:c:d", ""); resp.StatusCode != 400 {
		t.Errorf("a name of four parts: %d, want 400", resp.StatusCode)
	}
}

// TestDialService: a Service is reached at its pods, by its port's number; names
// that lead to the machine itself are not dialled.
func TestDialService(t *testing.T) {
	a := withWeb(t)
	p := nodeproxy.New(a.config)
	conn, err := p.DialService(t.Context(), "ns", "svc", 80)
	if err != nil {
		t.Fatal(err)
	}
	defer closeIt(t, conn)
	if _, err := io.WriteString(conn, "GET /a HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); err != nil || !strings.Contains(string(got), "418") {
		t.Errorf("%q %v", got, err)
	}
	for _, port := range []int32{9, 81} {
		if _, err := p.DialService(t.Context(), "ns", "svc", port); !apierrors.IsServiceUnavailable(err) {
			t.Errorf("port %d: %v, want that it is unavailable", port, err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer closeIt(t, l)
	a.service.Spec.Type, a.service.Spec.ExternalName = corev1.ServiceTypeExternalName, "localhost"
	cfg := a.config
	cfg.CheckAddress = nil // as it is by default
	if _, err := nodeproxy.New(cfg).DialService(t.Context(), "ns", "svc", int32(l.Addr().(*net.TCPAddr).Port)); err == nil || !strings.Contains(err.Error(), "may not be used") {
		t.Errorf("a name of this machine: %v", err)
	}
}

// TestNodeProxyHeaders: an agent's answer arrives with its headers, but for what
// is the connection's own or would act on the client's relation to this server.
func TestNodeProxyHeaders(t *testing.T) {
	a := newAgent(t)
	a.answer = func(w http.ResponseWriter, r *http.Request) {
		for name, value := range map[string]string{"X-Custom": "kept", "Cache-Control": "no-store", "Content-Encoding": "identity",
			"Set-Cookie": "a=b", "Connection": "X-Hop", "X-Hop": "dropped", "Content-Type": "text/plain"} {
			w.Header().Set(name, value)
		}
		fmt.Fprintf(w, "%s %q", r.URL.RequestURI(), r.Header.Get("Authorization"))
	}
	resp := a.ask("GET", "/nodes/proxy/metrics?x=1", "n", "")
	if got := text(t, resp); got != `/metrics?x=1 ""` {
		t.Errorf("the agent saw %s", got)
	}
	for name, want := range map[string]string{"X-Custom": "kept", "Cache-Control": "no-store", "Content-Encoding": "identity", "Set-Cookie": "", "X-Hop": "", "Content-Type": "text/plain"} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}
