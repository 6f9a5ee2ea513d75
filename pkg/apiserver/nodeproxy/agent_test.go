package nodeproxy_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"coracle/pkg/apiserver/nodeproxy"
	"coracle/pkg/pki"
	"coracle/pkg/registry"
)

const patience = 20 * time.Second

// agent is a node's agent that a test controls: commands echo their input.
type agent struct {
	t      *testing.T
	server *httptest.Server
	front  *httptest.Server // the API server's side
	config nodeproxy.Config
	node   *corev1.Node
	pod    *corev1.Pod
	// service and slices are what services/proxy reads; may be nil.
	service *corev1.Service
	slices  []*discoveryv1.EndpointSlice

	closed chan struct{} // one element for each connection that ended, up to its size

	// ports are what listens in the pod, by number; nil echoes on every port.
	// Set before the first request.
	ports map[string]string

	mu   sync.Mutex
	seen []*http.Request // guarded by mu
	// answer replaces the agent's own answers. Set before the first request.
	answer http.HandlerFunc
}

func newAgent(t *testing.T, change ...func(*nodeproxy.Config)) *agent {
	t.Helper()
	a := &agent{t: t, closed: make(chan struct{}, 8)}
	ca, err := pki.NewCA("test", time.Hour, time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issue := func(r pki.Request) tls.Certificate {
		pair, err := ca.Issue(r, time.Now(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := tls.X509KeyPair(pair.CertPEM, pair.KeyPEM)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	a.server = httptest.NewUnstartedServer(http.HandlerFunc(a.serve))
	a.server.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(),
		Certificates: []tls.Certificate{issue(pki.Request{CommonName: "node", ServerAuth: true, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}})}}
	a.server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			select {
			case a.closed <- struct{}{}:
			default:
			}
		}
	}
	a.server.StartTLS()
	t.Cleanup(a.server.Close)
	a.objects()
	cfg := nodeproxy.Config{
		TLS:          &tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{issue(pki.Request{CommonName: "api", ClientAuth: true})}},
		CheckAddress: func(netip.Addr) error { return nil },
		Admit:        func(context.Context, registry.Request, runtime.Object) error { return nil },
		Object: func(_ context.Context, gvr schema.GroupVersionResource, _, _ string) (runtime.Object, error) {
			switch gvr.Resource {
			case "nodes":
				return a.node, nil
			case "services":
				return a.service, nil
			}
			return a.pod, nil
		},
		Slices: func(context.Context, string, string) ([]*discoveryv1.EndpointSlice, error) { return a.slices, nil },
	}
	for _, c := range change {
		c(&cfg)
	}
	a.config = cfg
	handlers := nodeproxy.New(cfg).Handlers()
	a.front = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// /pods/exec or /nodes/proxy/rest
		kind, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		sub, rest, _ := strings.Cut(rest, "/")
		h, ok := handlers[kind+"/"+sub]
		if !ok {
			http.NotFound(w, r)
			return
		}
		name := "pod"
		if as := r.Header.Get("X-Test-Name"); as != "" {
			name = as
		}
		h(w, r, registry.Request{Namespace: "ns", Name: name}, rest)
	}))
	t.Cleanup(a.front.Close)
	return a
}

// objects are a node at the agent's address and a pod on it.
func (a *agent) objects() {
	host, port, err := net.SplitHostPort(a.server.Listener.Addr().String())
	if err != nil {
		a.t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		a.t.Fatal(err)
	}
	a.node = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Status: corev1.NodeStatus{
		Addresses:       []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: "n"}, {Type: corev1.NodeInternalIP, Address: host}},
		DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: int32(n)}},
	}}
	a.pod = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "pod", Namespace: "ns"},
		Spec: corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "c"}, {Name: "d"}}}}
}

// requests are those that reached the agent.
func (a *agent) requests() []*http.Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]*http.Request(nil), a.seen...)
}

func (a *agent) serve(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	a.seen = append(a.seen, r)
	a.mu.Unlock()
	part := strings.Split(r.URL.Path, "/")[1]
	switch {
	case a.answer != nil:
		a.answer(w, r)
	case part == "exec" || part == "attach":
		a.command(w, r)
	case part == "portForward":
		a.portForward(w, r)
	default:
		w.Header().Set("Content-Type", "text/x-agent")
		w.Header().Set("Set-Cookie", "a=b")
		fmt.Fprintf(w, "%s %s", r.Method, r.URL.RequestURI())
	}
}

// command echoes input to output, says «err» on the error output where there
// is one, and ends with exit code 3 when it is called «fail».
func (a *agent) command(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	status := &metav1.Status{Status: metav1.StatusSuccess}
	if q.Get("command") == "fail" {
		status = &metav1.Status{Status: metav1.StatusFailure, Reason: "NonZeroExitCode", Message: "command terminated with exit code 3",
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: "ExitCode", Message: "3"}}}}
	}
	end, err := json.Marshal(status)
	if err != nil {
		a.t.Error(err)
	}
	var in io.Reader = strings.NewReader("")
	out, errs := io.Discard, io.Discard
	var result io.Writer
	if wsstream.IsWebSocketRequest(r) {
		conn := wsstream.NewConn(map[string]wsstream.ChannelProtocolConfig{"v4.channel.k8s.io": {Binary: true, Channels: []wsstream.ChannelType{
			wsstream.ReadChannel, wsstream.WriteChannel, wsstream.WriteChannel, wsstream.WriteChannel, wsstream.ReadChannel}}})
		_, chans, err := conn.Open(w, r)
		if err != nil {
			a.t.Errorf("open a WebSocket: %v", err)
			return
		}
		defer closeIt(a.t, conn)
		out, errs, result = chans[1], chans[2], chans[3]
	} else {
		conn, streams := a.spdyStreams(w, r)
		if conn == nil {
			return
		}
		defer closeIt(a.t, conn)
		if s := streams["stdin"]; s != nil {
			in = s
		}
		if s := streams["stdout"]; s != nil {
			out = s
		}
		if s := streams["stderr"]; s != nil {
			errs = s
		}
		result = streams["error"]
		if s := streams["resize"]; s != nil {
			line, err := bufio.NewReader(s).ReadString('}')
			if err == nil {
				fmt.Fprint(out, line)
			}
		}
	}
	if _, err := io.Copy(out, in); err != nil {
		return
	}
	fmt.Fprint(out, "out")
	fmt.Fprint(errs, "err")
	if _, err := result.Write(end); err != nil {
		a.t.Logf("the outcome was not taken: %v", err)
	}
}

// spdyStreams accepts as many streams as the query asks for.
func (a *agent) spdyStreams(w http.ResponseWriter, r *http.Request) (httpstream.Connection, map[string]httpstream.Stream) {
	if _, err := httpstream.Handshake(r, w, []string{"v4.channel.k8s.io"}); err != nil {
		return nil, nil
	}
	come := make(chan httpstream.Stream, 8)
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(s httpstream.Stream, _ <-chan struct{}) error { come <- s; return nil })
	if conn == nil {
		return nil, nil
	}
	want := 1
	for _, name := range []string{"input", "output", "error", "tty"} {
		if r.URL.Query().Get(name) == "1" {
			want++
		}
	}
	streams := map[string]httpstream.Stream{}
	for len(streams) < want {
		select {
		case s := <-come:
			streams[s.Headers().Get("streamType")] = s
		case <-time.After(patience):
			a.t.Errorf("%d of %d streams came", len(streams), want)
			return conn, streams
		}
	}
	return conn, streams
}

// portForward connects to what listens in the pod, or echoes what comes on
// every data stream, behind the port.
func (a *agent) portForward(w http.ResponseWriter, r *http.Request) {
	if _, err := httpstream.Handshake(r, w, []string{"portforward.k8s.io"}); err != nil {
		return
	}
	var wg sync.WaitGroup
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(s httpstream.Stream, replied <-chan struct{}) error {
		wg.Go(func() {
			<-replied
			if a.ports != nil {
				a.connect(s)
				return
			}
			if s.Headers().Get("streamType") == "data" {
				fmt.Fprint(s, s.Headers().Get("port")+":")
				pipe(s, s)
			}
			end(s)
		})
		return nil
	})
	if conn == nil {
		return
	}
	<-conn.CloseChan()
	wg.Wait()
}

// connect joins a stream with what listens on its port.
func (a *agent) connect(s httpstream.Stream) {
	defer end(s)
	address, ok := a.ports[s.Headers().Get("port")]
	if s.Headers().Get("streamType") == "error" {
		if !ok {
			fmt.Fprint(s, "nobody listens there")
		}
		return
	}
	if !ok {
		return
	}
	conn, err := net.Dial("tcp", address)
	if err != nil {
		a.t.Error(err)
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		defer end(conn)
		pipe(conn, s)
	})
	pipe(s, conn)
	end(s)
	wg.Wait()
}

// pipe copies until either side ends. Streams may outlive their test, so that
// nothing is logged of their ends.
func pipe(dst io.Writer, src io.Reader) {
	if _, err := io.Copy(dst, src); err != nil {
		return
	}
}

// end closes a stream that may outlive its test.
func end(c io.Closer) {
	if err := c.Close(); err != nil {
		return
	}
}

func closeIt(t *testing.T, c io.Closer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Logf("close: %v", err)
	}
}
