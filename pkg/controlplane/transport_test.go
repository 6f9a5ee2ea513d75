package controlplane_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"coracle/pkg/controlplane"
)

// TestTLS: the API's port speaks TLS 1.2 with ephemeral keys and authenticated
// encryption, and TLS 1.3.
func TestTLS(t *testing.T) {
	t.Parallel()
	admin := serve(t, t.TempDir(), nil)
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(admin.CAData) {
		t.Fatal("the kubeconfig has no authority")
	}
	dial := func(c *tls.Config) error {
		c.RootCAs = roots
		conn, err := tls.Dial("tcp", strings.TrimPrefix(admin.Host, "https://"), c)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	for version, good := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		if err := dial(&tls.Config{MinVersion: version, MaxVersion: version}); (err == nil) != good {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
	}
	accepted := 0
	for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		if s.SupportedVersions[len(s.SupportedVersions)-1] == tls.VersionTLS13 {
			continue
		}
		strong := strings.Contains(s.Name, "ECDHE") && (strings.Contains(s.Name, "GCM") || strings.Contains(s.Name, "CHACHA20"))
		err := dial(&tls.Config{MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{s.ID}})
		if err == nil && !strong {
			t.Errorf("%s is accepted", s.Name)
		}
		if err == nil {
			accepted++
		}
	}
	if accepted < 3 {
		t.Errorf("%d suites are accepted", accepted)
	}
	conn, err := net.Dial("tcp", strings.TrimPrefix(admin.Host, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := io.WriteString(conn, "GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil || strings.Contains(string(answer), "gitVersion") {
		t.Errorf("without TLS: %v %s", err, answer)
	}
}

// TestBrowsers: what a page of a stranger can have a browser send gets nothing.
func TestBrowsers(t *testing.T) {
	t.Parallel()
	admin := serve(t, t.TempDir(), func(o *controlplane.ServeOptions) { o.ExtraSANs = []string{"api.example.com"} })
	stranger := rest.AnonymousClientConfig(admin)
	for _, c := range []*rest.Config{admin, stranger} {
		for _, path := range []string{"/version", "/api/v1/namespaces", "/nothing", "/openapi/v3", "/metrics"} {
			for _, method := range []string{"GET", "OPTIONS", "POST"} {
				_, h := ask(t, c, method, path, "Origin", "https://evil.example", "Access-Control-Request-Method", "GET")
				for name := range h {
					if strings.HasPrefix(name, "Access-Control-") {
						t.Errorf("%s %s: %s", method, path, name)
					}
				}
				if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Strict-Transport-Security") == "" {
					t.Errorf("%s %s: %v", method, path, h)
				}
				if strings.Contains(strings.ToLower(strings.Join(h.Values("Www-Authenticate"), " ")), "basic") {
					t.Errorf("%s %s asks for a password", method, path)
				}
			}
		}
	}
	for host, good := range map[string]bool{
		"localhost": true, "localhost:6443": true, "LOCALHOST.": true, "127.0.0.1:1": true, "[::1]:6443": true, "api.example.com": true, "API.example.com:6443": true,
		"kubernetes.default.svc": true, "evil.example": false, "evil.example:6443": false, "localhost.evil.example": false, "api.example.com.evil.example": false, "127.0.0.1.nip.io": false,
	} {
		code, _ := ask(t, admin, "GET", "/api/v1/namespaces", "Host", host)
		if good && code != http.StatusOK || !good && code != http.StatusMisdirectedRequest {
			t.Errorf("called %s: %d", host, code)
		}
	}
}

// TestResetFlood: a stranger who opens streams and resets them at once loses the
// connection soon, and others are served meanwhile (CVE-2023-44487).
func TestResetFlood(t *testing.T) {
	t.Parallel()
	admin := serve(t, t.TempDir(), nil)
	client := kubernetes.NewForConfigOrDie(admin)
	const enough = 100_000 // streams, of which the server has to put up with few
	conn, err := tls.Dial("tcp", strings.TrimPrefix(admin.Host, "https://"), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Log(err) // the server was first
		}
	}()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(conn, conn)
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	goneAway := make(chan error, 1)
	go func() {
		for {
			frame, err := framer.ReadFrame()
			if err != nil {
				goneAway <- err
				return
			}
			if _, ok := frame.(*http2.GoAwayFrame); ok {
				goneAway <- nil
				return
			}
		}
	}()
	var block strings.Builder
	headers := hpack.NewEncoder(&block)
	for _, f := range []hpack.HeaderField{{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "https"}, {Name: ":authority", Value: "localhost"}, {Name: ":path", Value: "/api/v1/namespaces"}} {
		if err := headers.WriteField(f); err != nil {
			t.Fatal(err)
		}
	}
	opened := 0
flood:
	for ; opened < enough; opened++ {
		select {
		case <-goneAway:
			break flood
		default:
		}
		id := uint32(2*opened + 1)
		if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: []byte(block.String()), EndHeaders: true, EndStream: true}); err != nil {
			break
		}
		if err := framer.WriteRSTStream(id, http2.ErrCodeCancel); err != nil {
			break
		}
		if opened%500 == 0 {
			if _, err := client.CoreV1().Namespaces().Get(t.Context(), "default", metav1.GetOptions{}); err != nil {
				t.Errorf("another client, after %d streams: %v", opened, err)
			}
		}
	}
	if opened == enough {
		t.Errorf("the connection went on after %d streams", opened)
	}
}

// TestNodeAtTheAPI: a node that says that its agent is where the API is, has
// nothing sent there; and what the API server shows agents gives no rights in
// the API (CVE-2022-3294).
func TestNodeAtTheAPI(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	admin := serve(t, dir, func(o *controlplane.ServeOptions) { o.AdvertiseAddress = "192.0.2.10" })
	client := kubernetes.NewForConfigOrDie(admin)
	node, err := client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	port := 0
	if _, p, err := net.SplitHostPort(strings.TrimPrefix(admin.Host, "https://")); err == nil {
		port, err = net.LookupPort("tcp", p)
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		address string
		port    int
	}{{"10.96.0.1", 443}, {"10.96.7.7", 10250}, {"192.0.2.10", port}, {"127.0.0.1", port}, {"::ffff:192.0.2.10", port}} {
		node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: c.address}}
		node.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(c.port)
		if node, err = client.CoreV1().Nodes().UpdateStatus(t.Context(), node, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		err := client.CoreV1().RESTClient().Get().Resource("nodes").Name("n").SubResource("proxy").Suffix("api/v1/secrets").Do(t.Context()).Error()
		if !apierrors.IsBadRequest(err) {
			t.Errorf("%s port %d: %v", c.address, c.port, err)
		}
	}
	agentClient := rest.AnonymousClientConfig(admin)
	agentClient.CertFile, agentClient.KeyFile, agentClient.QPS = dir+"/pki/apiserver-kubelet-client.crt", dir+"/pki/apiserver-kubelet-client.key", -1
	asAgentClient := kubernetes.NewForConfigOrDie(agentClient)
	if _, err := asAgentClient.CoreV1().Secrets("").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("what is shown to agents lists secrets: %v", err)
	}
	if _, err := asAgentClient.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("what is shown to agents is no client at all: %v", err)
	}
}
