package aggregate

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/streaming/pkg/httpstream"

	"coracle/pkg/apiserver"
	"coracle/pkg/auth"
)

// Bounds of what a backend may cost.
const (
	// answerTime bounds the time until a backend begins to answer.
	answerTime = 60 * time.Second
	// handshakeTime bounds the TLS handshake.
	handshakeTime = 10 * time.Second
	// maxHeader bounds the header of an answer.
	maxHeader = 64 << 10
	// maxRequests and maxStreams bound what is under way to one backend:
	// ordinary requests, and watches and upgraded connections.
	maxRequests = 200
	maxStreams  = 1000
	// idleTime ends upgraded connections on which nothing moves.
	idleTime = 4 * time.Hour
	// A connection on which nothing came for pingAfter is asked for a sign of
	// life, and closed when none comes within pingLimit.
	pingAfter = 30 * time.Second
	pingLimit = 15 * time.Second
)

// backend is the server that an APIService names. It serves HTTP by asking it.
type backend struct {
	name  string // of the APIService
	gv    schema.GroupVersion
	host  string // SERVICE.NAMESPACE.svc:PORT, for URLs
	via   string
	proxy *httputil.ReverseProxy
	// plain may speak HTTP/2; upgrades need HTTP/1.1 and a connection of their
	// own.
	plain, upgrade *http.Transport

	ready             atomic.Bool // its APIService says that it is available
	requests, streams chan struct{}
}

func (a *Aggregator) newBackend(s *apiregistrationv1.APIService) *backend {
	ref := s.Spec.Service
	server := ref.Name + "." + ref.Namespace + ".svc"
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: server, GetClientCertificate: a.cfg.Certificate}
	switch {
	case s.Spec.InsecureSkipTLSVerify:
		config.InsecureSkipVerify = true
	case len(s.Spec.CABundle) > 0:
		// A bundle without a certificate in it vouches for nobody.
		config.RootCAs = x509.NewCertPool()
		config.RootCAs.AppendCertsFromPEM(s.Spec.CABundle)
	}
	namespace, name, port := ref.Namespace, ref.Name, portOf(ref)
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return a.cfg.Dial(ctx, namespace, name, port)
	}
	b := &backend{
		name: s.Name, gv: schema.GroupVersion{Group: s.Spec.Group, Version: s.Spec.Version},
		host: net.JoinHostPort(server, strconv.Itoa(int(port))), via: a.via,
		requests: make(chan struct{}, maxRequests), streams: make(chan struct{}, maxStreams),
		plain: &http.Transport{
			DialContext: dial, TLSClientConfig: config, ForceAttemptHTTP2: true, TLSHandshakeTimeout: handshakeTime,
			ResponseHeaderTimeout: answerTime, MaxResponseHeaderBytes: maxHeader, DisableCompression: true,
			MaxIdleConnsPerHost: 16, IdleConnTimeout: 90 * time.Second,
			HTTP2: &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingLimit},
		},
	}
	first := config.Clone()
	first.NextProtos = []string{"http/1.1"}
	b.upgrade = &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return newIdleConn(conn), nil
		},
		TLSClientConfig: first, TLSHandshakeTimeout: handshakeTime, ResponseHeaderTimeout: answerTime,
		MaxResponseHeaderBytes: maxHeader, DisableCompression: true, DisableKeepAlives: true,
	}
	b.proxy = &httputil.ReverseProxy{
		Rewrite: b.rewrite, Transport: b, FlushInterval: -1, ModifyResponse: cleanAnswer, ErrorHandler: b.fail,
		ErrorLog: slog.NewLogLogger(a.cfg.Log.Handler(), slog.LevelDebug),
	}
	return b
}

func (b *backend) setAvailable(is bool) { b.ready.Store(is) }

// ServeHTTP passes a request on. The request is authenticated and authorized.
func (b *backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, ok := auth.UserFrom(r.Context()); !ok {
		apiserver.WriteError(w, apierrors.NewInternalError(errors.New("a request without a user cannot be passed on")))
		return
	}
	if !b.ready.Load() {
		apiserver.WriteError(w, apierrors.NewServiceUnavailable("the server of APIService "+b.name+" is not available: its condition says why"))
		return
	}
	for _, hop := range r.Header.Values("Via") {
		if strings.Contains(hop, b.via) {
			apiserver.WriteError(w, gatewayError(http.StatusLoopDetected, "APIService "+b.name+" leads back to this server"))
			return
		}
	}
	places := b.requests
	if _, bounded := r.Context().Deadline(); !bounded {
		places = b.streams
	}
	select {
	case places <- struct{}{}:
		defer func() { <-places }()
	default:
		apiserver.WriteError(w, apierrors.NewTooManyRequests("the server of APIService "+b.name+" has as many requests as are passed on at once: try again later", 1))
		return
	}
	b.proxy.ServeHTTP(w, r)
}

// rewrite addresses a request to the backend, in the very form in which it was
// authorized, and takes the client's credentials from it.
func (b *backend) rewrite(r *httputil.ProxyRequest) {
	r.Out.URL = &url.URL{Scheme: "https", Host: b.host, Path: r.In.URL.Path, RawQuery: r.Out.URL.RawQuery}
	r.Out.Host = ""
	auth.StripCredentials(r.Out.Header)
	r.SetXForwarded()
	r.Out.Trailer = nil
}

// RoundTrip implements http.RoundTripper for the proxy: what is set here cannot
// be taken away by a client that calls the headers its own hop's.
func (b *backend) RoundTrip(r *http.Request) (*http.Response, error) {
	user, ok := auth.UserFrom(r.Context())
	if !ok {
		return nil, errors.New("a request without a user cannot be passed on")
	}
	return b.send(r, user)
}

func (b *backend) send(r *http.Request, user *auth.User) (*http.Response, error) {
	r = r.Clone(r.Context())
	auth.StripCredentials(r.Header)
	auth.SetFrontProxyHeaders(r.Header, user)
	r.Header.Add("Via", "1.1 "+b.via)
	if httpstream.IsUpgradeRequest(r) {
		return b.upgrade.RoundTrip(r)
	}
	return b.plain.RoundTrip(r)
}

// refusedHeaders are those of answers that would act on a client's relation to
// this server, or that this server sets itself.
var refusedHeaders = []string{
	"Audit-Id", "X-Content-Type-Options", "Set-Cookie", "Www-Authenticate", "Strict-Transport-Security", "Alt-Svc", "Refresh", "Location",
}

// errRedirected is the answer to a redirect.
var errRedirected = errors.New("the backend attempted to redirect this request, which is not permitted")

// cleanAnswer looks at an answer before it is passed on.
func cleanAnswer(resp *http.Response) error {
	if resp.StatusCode >= 300 && resp.StatusCode < 400 && resp.StatusCode != http.StatusNotModified {
		return errRedirected
	}
	for _, name := range refusedHeaders {
		resp.Header.Del(name)
	}
	for name := range resp.Header {
		if strings.HasPrefix(name, "Access-Control-") {
			resp.Header.Del(name)
		}
	}
	return nil
}

// fail answers where the backend did not.
func (b *backend) fail(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, errRedirected):
		apiserver.WriteError(w, gatewayError(http.StatusBadGateway, err.Error()))
	case errors.Is(err, context.DeadlineExceeded):
		apiserver.WriteError(w, apierrors.NewTimeoutError("the server of APIService "+b.name+" did not answer in time", 1))
	case r.Context().Err() != nil:
		panic(http.ErrAbortHandler) // the client has gone
	default:
		apiserver.WriteError(w, apierrors.NewServiceUnavailable(fmt.Sprintf("the server of APIService %s: error trying to reach service: %s", b.name, plainError(err))))
	}
}

func gatewayError(code int, message string) error {
	s := apierrors.NewGenericServerResponse(code, "", schema.GroupResource{}, "", message, 0, false)
	s.ErrStatus.Message = message
	return s
}

// plainError leaves out of an error what is different each time: the port that a
// connection comes from.
func plainError(err error) string {
	var op *net.OpError
	if errors.As(err, &op) && op.Addr != nil {
		return fmt.Sprintf("%s %s: %v", op.Op, op.Addr, op.Err)
	}
	return err.Error()
}

// closeIdle ends connections that may lead to an endpoint that is gone.
func (b *backend) closeIdle() { b.plain.CloseIdleConnections() }

func (b *backend) close() {
	b.ready.Store(false)
	b.closeIdle()
}
