package aggregate_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"coracle/pkg/auth"
	"coracle/pkg/controlplane"
	"coracle/pkg/pki"
	"coracle/pkg/testcluster"
)

// patience bounds how long a test waits for something that has to come.
const patience = 20 * time.Second

const (
	group    = "/apis/wardle.example.com/v1"
	endpoint = "10.0.0.9:8443" // where the Service's EndpointSlice says the backend is
	document = `{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"wardle.example.com/v1","resources":[
		{"name":"flunders","singularName":"flunder","namespaced":true,"kind":"Flunder","verbs":["get","list","watch","delete"],"shortNames":["fl"]},
		{"name":"flunders/status","namespaced":true,"kind":"Flunder","verbs":["get"]}]}`
	index = `{"paths":{"apis/wardle.example.com/v1":{"serverRelativeURL":"/openapi/v3/apis/wardle.example.com/v1?hash=AB12"},"apis/apps/v1":{"serverRelativeURL":"/evil"}}}`
)

// site is a control plane with an aggregated server behind it, which the test
// controls.
type site struct {
	*testcluster.Cluster
	t    *testing.T
	http http.RoundTripper // as an administrator
	// serves is what the aggregated server answers beside its discovery.
	serves atomic.Pointer[http.HandlerFunc]
	// discovers replaces its discovery; nil is the document above.
	discovers atomic.Pointer[http.HandlerFunc]
	backend   *httptest.Server
	dead      atomic.Bool // nobody listens at the endpoint
	bundle    []byte      // verifies the backend
	clients   *pki.CA     // of users with certificates
}

func authority(t *testing.T, name string) *pki.CA {
	t.Helper()
	ca, err := pki.NewCA(name, time.Hour, time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func issue(t *testing.T, ca *pki.CA, r pki.Request) (certPEM, keyPEM []byte) {
	t.Helper()
	pair, err := ca.Issue(r, time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return pair.CertPEM, pair.KeyPEM
}

func certificate(t *testing.T, ca *pki.CA, r pki.Request) tls.Certificate {
	t.Helper()
	cert, err := tls.X509KeyPair(issue(t, ca, r))
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// newSite starts both servers and waits until the group is served.
func newSite(t *testing.T, options ...testcluster.Option) *site {
	t.Helper()
	s := start(t, options...)
	s.must(201, "POST", "/apis/apiregistration.k8s.io/v1/apiservices", s.registration(""))
	s.untilCondition("Passed")
	return s
}

// start starts both servers; nothing leads from one to the other yet but the
// Service.
func start(t *testing.T, options ...testcluster.Option) *site {
	t.Helper()
	s := &site{t: t}
	front, serving := authority(t, "front"), authority(t, "serving")
	s.clients, s.bundle = authority(t, "clients"), serving.CertPEM()
	proxy := &controlplane.FrontProxy{CA: pki.NewBundle(front.CertPEM()), AllowedNames: []string{"front-proxy-client"}, Client: &pki.Live{}}
	if err := proxy.Client.Set(issue(t, front, pki.Request{CommonName: "front-proxy-client", ClientAuth: true})); err != nil {
		t.Fatal(err)
	}
	s.backend = httptest.NewUnstartedServer(http.HandlerFunc(s.answer))
	s.backend.EnableHTTP2 = true
	s.backend.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	s.backend.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: front.Pool(),
		Certificates: []tls.Certificate{certificate(t, serving, pki.Request{CommonName: "wardle", ServerAuth: true, DNSNames: []string{"wardle.default.svc"}})}}
	s.backend.StartTLS()
	t.Cleanup(s.backend.Close)
	pool := &pki.LivePool{}
	if err := pool.Set(s.clients.CertPEM()); err != nil {
		t.Fatal(err)
	}
	s.Cluster = testcluster.Start(t, append([]testcluster.Option{testcluster.WithConfig(func(c *controlplane.Config) {
		c.Identity = &controlplane.Identity{Clients: pool, ClientCA: s.clients.CertPEM(), FrontProxy: proxy}
		c.DialBackend = s.dial
	})}, options...)...)
	s.http = s.Admin().Transport
	s.must(201, "POST", "/api/v1/namespaces/default/services", `{"kind":"Service","apiVersion":"v1","metadata":{"name":"wardle"},"spec":{"ports":[{"port":443,"targetPort":8443}]}}`)
	s.must(201, "POST", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", `{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1",
		"metadata":{"name":"wardle-1","labels":{"kubernetes.io/service-name":"wardle"}},"addressType":"IPv4","ports":[{"name":"","port":8443}],"endpoints":[{"addresses":["10.0.0.9"]}]}`)
	return s
}

// dial is the network: the backend is at the endpoint.
func (s *site) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if address != endpoint || s.dead.Load() {
		return nil, fmt.Errorf("nobody is at %s", address)
	}
	var d net.Dialer
	return d.DialContext(ctx, network, s.backend.Listener.Addr().String())
}

// registration is the APIService; change is JSON that its spec has besides.
func (s *site) registration(change string) string {
	if change == "" {
		change = `,"caBundle":"` + base64.StdEncoding.EncodeToString(s.bundle) + `"`
	}
	return `{"kind":"APIService","apiVersion":"apiregistration.k8s.io/v1","metadata":{"name":"v1.wardle.example.com"},"spec":{"group":"wardle.example.com","version":"v1",
		"groupPriorityMinimum":2000,"versionPriority":10,"service":{"namespace":"default","name":"wardle"}` + change + `}}`
}

func (s *site) answer(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case group:
		if h := s.discovers.Load(); h != nil {
			(*h)(w, r)
			return
		}
		write(s.t, w, document)
	case "/openapi/v3":
		write(s.t, w, index)
	default:
		if h := s.serves.Load(); h != nil {
			(*h)(w, r)
			return
		}
		http.NotFound(w, r)
	}
}

func write(t *testing.T, w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "application/json")
	if _, err := io.WriteString(w, text); err != nil {
		t.Log("the other side has gone:", err)
	}
}

func (s *site) serve(h http.HandlerFunc)    { s.serves.Store(&h) }
func (s *site) discover(h http.HandlerFunc) { s.discovers.Store(&h) }

// do sends a request through the in-memory transport and reads the answer.
func (s *site) do(method, path, body string, headers ...string) (*http.Response, string, error) {
	s.t.Helper()
	return s.doAs(s.http, method, path, body, headers...)
}

func (s *site) doAs(transport http.RoundTripper, method, path, body string, headers ...string) (*http.Response, string, error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, "http://coracle.invalid"+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return nil, "", err
	}
	text, err := io.ReadAll(resp.Body)
	if closeErr := resp.Body.Close(); closeErr != nil {
		s.t.Error(closeErr)
	}
	return resp, string(text), err
}

// must sends a request that has to be answered with code.
func (s *site) must(code int, method, path, body string, headers ...string) string {
	s.t.Helper()
	resp, text, err := s.do(method, path, body, headers...)
	if err != nil || resp.StatusCode != code {
		s.t.Fatalf("%s %s: %v %+v %s, want %d", method, path, err, resp, text, code)
	}
	return text
}

// untilCondition waits until the APIService has a condition with the reason.
func (s *site) untilCondition(reason string) {
	s.t.Helper()
	var last string
	s.until(func() bool {
		_, last, _ = s.do("GET", "/apis/apiregistration.k8s.io/v1/apiservices/v1.wardle.example.com/status", "")
		return strings.Contains(last, `"reason":"`+reason+`"`)
	}, func() string { return "the APIService is not " + reason + ": " + last })
	if reason == "Passed" { // the server itself has read it, too
		s.until(func() bool { return s.available() }, func() string { return "the group is not served" })
	}
}

func (s *site) available() bool {
	resp, _, err := s.do("GET", group, "")
	return err == nil && resp.StatusCode != http.StatusServiceUnavailable && resp.StatusCode != http.StatusNotFound
}

func (s *site) until(is func() bool, what func() string) {
	s.t.Helper()
	if err := wait.PollUntilContextTimeout(s.t.Context(), 10*time.Millisecond, patience, true, func(context.Context) (bool, error) { return is(), nil }); err != nil {
		s.t.Fatalf("%v: %s", err, what())
	}
}

// listen serves the API over TLS, and returns a client with a certificate of a
// user in system:masters.
func (s *site) listen() (*httptest.Server, *tls.Config) {
	s.t.Helper()
	server := httptest.NewUnstartedServer(s.Handler())
	server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	server.StartTLS()
	s.t.Cleanup(server.Close)
	config := server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	config.Certificates = []tls.Certificate{certificate(s.t, s.clients, pki.Request{CommonName: "anna", Organization: []string{auth.GroupMasters}, ClientAuth: true})}
	config.NextProtos = nil
	return server, config
}

// rawClient speaks HTTP by hand.
type rawClient struct {
	*tls.Conn
	reader *bufio.Reader
}

func clientOver(conn net.Conn, config *tls.Config) *rawClient {
	config = config.Clone()
	if config.ServerName == "" {
		config.ServerName = "example.com" // httptest's certificate
	}
	c := tls.Client(conn, config)
	return &rawClient{c, bufio.NewReader(c)}
}
