// Package nodeproxy connects the API to the nodes' agents: logs, exec, attach,
// port-forward and nodes/proxy, and through them to the ports of pods: pods/proxy
// and services/proxy.
//
// Contract: the agent's serving certificate is verified against the cluster's
// authority and it is shown a client certificate; an answer that is a redirect
// is refused, whatever it says (CVE-2018-1002102, CVE-2022-3172). Streams of
// old clients (SPDY, WebSocket up to v4) pass through byte by byte once the
// agent has agreed to the upgrade, and not before (CVE-2018-1002105);
// WebSocket v5 and tunnelled port-forward are translated to SPDY.
package nodeproxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"

	"coracle/pkg/apiserver"
	"coracle/pkg/auth"
	"coracle/pkg/registry"
)

// Config is what a Proxy needs. Object and Slices are required, and for the
// handlers Admit and TLS.
type Config struct {
	// Object reads an object consistently: a pod, a node or a service.
	Object func(ctx context.Context, gvr schema.GroupVersionResource, namespace, name string) (runtime.Object, error)
	// Admit runs the admission chain for a connect (webhooks may refuse it).
	Admit func(ctx context.Context, req registry.Request, options runtime.Object) error
	// Slices reads the endpoint slices of a service.
	Slices func(ctx context.Context, namespace, service string) ([]*discoveryv1.EndpointSlice, error)
	// TLS has the client certificate and the authorities of agents. Without it
	// there are no handlers, and DialService goes to pods directly.
	TLS *tls.Config
	// Roots are the authorities of agents as they are at the moment, in place of
	// those of TLS; nil leaves those.
	Roots func() *x509.CertPool
	// Dial connects to addresses that are no pod's; nil goes through the network,
	// to what CheckAddress allows.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// CheckAddress refuses addresses that are no node's; nil refuses those of
	// this machine itself and of no machine.
	CheckAddress func(ip netip.Addr) error
	// Own says that the API itself is at an address: an agent is never there, and
	// whoever could say so would have the server's requests come back to it under
	// the server's own name. Nil means nowhere.
	Own func(netip.AddrPort) bool
	Log *slog.Logger
}

const (
	dialTimeout = 10 * time.Second
	// answerTimeout bounds the time until an agent begins to answer.
	answerTimeout = 60 * time.Second
	// idleTimeout ends streams on which nothing moves (upstream's default).
	idleTimeout = 4 * time.Hour
	// defaultKubeletPort is the agent's port when the node does not say.
	defaultKubeletPort = 10250
	// maxErrorBody bounds what of an agent's error is passed on.
	maxErrorBody = 64 << 10
)

// Proxy serves the subresources that a node's agent answers.
type Proxy struct {
	cfg       Config
	transport *http.Transport
}

// New makes a Proxy.
func New(cfg Config) *Proxy {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.CheckAddress == nil {
		cfg.CheckAddress = checkAddress
	}
	if cfg.Own == nil {
		cfg.Own = func(netip.AddrPort) bool { return false }
	}
	if cfg.Dial == nil {
		cfg.Dial = dialChecked(cfg.CheckAddress)
	}
	p := &Proxy{cfg: cfg}
	p.transport = &http.Transport{
		DialTLSContext: p.dial, MaxIdleConnsPerHost: 8, IdleConnTimeout: 90 * time.Second,
		ResponseHeaderTimeout: answerTimeout, DisableCompression: true,
	}
	return p
}

// Handlers are the subresources served, for apiserver.Config.
func (p *Proxy) Handlers() map[string]apiserver.Handler {
	return map[string]apiserver.Handler{
		"pods/log":         p.logs,
		"pods/exec":        p.exec,
		"pods/attach":      p.attach,
		"pods/portforward": p.portForward,
		"pods/proxy":       p.podProxy,
		"services/proxy":   p.serviceProxy,
		"nodes/proxy":      p.nodeProxy,
	}
}

// dial connects to an agent. HTTP/2 is not offered: streams need HTTP/1.1.
func (p *Proxy) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	config := p.tls()
	config.NextProtos = []string{"http/1.1"}
	d := &tls.Dialer{NetDialer: &net.Dialer{Timeout: dialTimeout}, Config: config}
	return d.DialContext(ctx, network, addr)
}

// tls is the configuration of a connection that is made now.
func (p *Proxy) tls() *tls.Config {
	config := p.cfg.TLS.Clone()
	if p.cfg.Roots != nil {
		config.RootCAs = p.cfg.Roots()
	}
	return config
}

// agent is where a node's agent is.
func (p *Proxy) agent(ctx context.Context, name string) (*url.URL, error) {
	obj, err := p.cfg.Object(ctx, corev1.SchemeGroupVersion.WithResource("nodes"), "", name)
	if err != nil {
		return nil, err
	}
	node, ok := obj.(*corev1.Node)
	if !ok {
		return nil, apierrors.NewInternalError(fmt.Errorf("node %s is a %T", name, obj))
	}
	port := int(node.Status.DaemonEndpoints.KubeletEndpoint.Port)
	if port == 0 {
		port = defaultKubeletPort
	}
	for _, a := range node.Status.Addresses {
		if a.Type != corev1.NodeInternalIP {
			continue
		}
		if err := p.checkAgent(a.Address, port); err != nil {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("node %s: %v", name, err))
		}
		// The path is absolute, for JoinPath leaves a relative one relative.
		return &url.URL{Scheme: "https", Host: net.JoinHostPort(a.Address, strconv.Itoa(port)), Path: "/"}, nil
	}
	return nil, apierrors.NewServiceUnavailable(fmt.Sprintf("node %s has no internal address yet: wait until it is ready", name))
}

// check refuses an address that is none, or not allowed.
func (p *Proxy) check(text string) error {
	ip, err := netip.ParseAddr(text)
	if err != nil {
		return fmt.Errorf("address %q is not an IP address", text)
	}
	return p.cfg.CheckAddress(ip.Unmap())
}

// checkAgent refuses where no agent can be.
func (p *Proxy) checkAgent(address string, port int) error {
	if err := p.check(address); err != nil {
		return err
	}
	if to, err := netip.ParseAddrPort(net.JoinHostPort(address, strconv.Itoa(port))); err != nil || p.cfg.Own(netip.AddrPortFrom(to.Addr().Unmap(), to.Port())) {
		return fmt.Errorf("address %s port %d may not be used to reach a node", address, port)
	}
	return nil
}

// checkAddress refuses addresses that would lead somewhere else than to a
// node: a node object is written by the node itself (CVE-2022-3294).
func checkAddress(ip netip.Addr) error {
	if ip.IsLoopback() || ip.IsUnspecified() || ip.IsLinkLocalUnicast() || ip.IsMulticast() {
		return fmt.Errorf("address %s may not be used to reach a node", ip)
	}
	return nil
}

// pod reads the pod of a request.
func (p *Proxy) pod(ctx context.Context, req registry.Request) (*corev1.Pod, error) {
	obj, err := p.cfg.Object(ctx, corev1.SchemeGroupVersion.WithResource("pods"), req.Namespace, req.Name)
	if err != nil {
		return nil, err
	}
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return nil, apierrors.NewInternalError(fmt.Errorf("pod %s is a %T", req.Name, obj))
	}
	return pod, nil
}

// forward sends a plain request to an agent and its answer back.
func (p *Proxy) forward(w http.ResponseWriter, r *http.Request, target *url.URL) {
	proxy := &httputil.ReverseProxy{
		Transport: p.transport, FlushInterval: -1, ErrorLog: slog.NewLogLogger(p.cfg.Log.Handler(), slog.LevelDebug),
		Rewrite: func(out *httputil.ProxyRequest) {
			out.Out.URL, out.Out.Host = target, target.Host
			auth.StripCredentials(out.Out.Header)
			out.Out.Header.Del("Cookie")
		},
		ModifyResponse: func(resp *http.Response) error {
			if resp.StatusCode >= 300 && resp.StatusCode < 400 && resp.StatusCode != http.StatusNotModified {
				return errRedirect(target)
			}
			for _, h := range []string{"Audit-Id", "X-Content-Type-Options", "Location", "Set-Cookie"} {
				resp.Header.Del(h)
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			if status := apierrors.APIStatus(nil); !errors.As(err, &status) {
				err = unreachable(target, err)
			}
			apiserver.WriteError(w, err)
		},
	}
	proxy.ServeHTTP(w, r)
}

func closeBody(b io.Closer) {
	if err := b.Close(); err != nil {
		return // what could be read has been
	}
}

func unreachable(target *url.URL, err error) error {
	return apierrors.NewServiceUnavailable(fmt.Sprintf("the agent of the node at %s cannot be reached: %v", target.Host, err))
}

func errRedirect(target *url.URL) error {
	s := apierrors.NewGenericServerResponse(http.StatusBadGateway, "", schema.GroupResource{}, "",
		fmt.Sprintf("the agent at %s answered with a redirect, which is not followed", target.Host), 0, false)
	s.ErrStatus.Message = fmt.Sprintf("the agent at %s answered with a redirect, which is not followed", target.Host)
	return s
}

// copyFlushing passes bytes on as they come.
func copyFlushing(w http.ResponseWriter, r io.Reader) {
	flush := http.NewResponseController(w)
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return
			}
			if err := flush.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// nodeProxy passes any request on to a node: to its agent, or to the port that
// the request names ([SCHEME:]NODE[:PORT]).
func (p *Proxy) nodeProxy(w http.ResponseWriter, r *http.Request, req registry.Request, rest string) {
	scheme, name, port, ok := utilnet.SplitSchemeNamePort(req.Name)
	if !ok {
		apiserver.WriteError(w, apierrors.NewBadRequest(fmt.Sprintf("invalid node request %q", req.Name)))
		return
	}
	target, err := p.agent(r.Context(), name)
	if err == nil {
		err = p.cfg.Admit(r.Context(), req, &corev1.NodeProxyOptions{Path: rest})
	}
	if err != nil {
		apiserver.WriteError(w, err)
		return
	}
	if port != "" && port != target.Port() {
		if scheme == "" {
			scheme = "http"
		}
		p.proxy(w, r, &backend{scheme: scheme, host: net.JoinHostPort(target.Hostname(), port)}, rest)
		return
	}
	target.Path, target.RawQuery = "/"+rest, r.URL.RawQuery
	if isUpgrade(r) {
		p.passThrough(w, r, target)
		return
	}
	p.forward(w, r, target)
}
