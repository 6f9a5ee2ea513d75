package nodeproxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	utilproxy "k8s.io/apimachinery/pkg/util/proxy"

	"coracle/pkg/apiserver"
	"coracle/pkg/auth"
	"coracle/pkg/registry"
)

// backend is where a proxied request goes: a port of a pod, reached through
// the agent of its node, or an address that is no pod's.
type backend struct {
	scheme string // http or https
	host   string // as the URL names it: an address, with the port
	pod    *corev1.Pod
	port   int
}

// podProxy serves pods/proxy: requests of any kind to a port of a pod.
func (p *Proxy) podProxy(w http.ResponseWriter, r *http.Request, req registry.Request, rest string) {
	to, err := p.podBackend(r.Context(), req)
	if err == nil {
		err = p.cfg.Admit(r.Context(), req, &corev1.PodProxyOptions{Path: rest})
	}
	if err != nil {
		apiserver.WriteError(w, err)
		return
	}
	p.proxy(w, r, to, rest)
}

func (p *Proxy) podBackend(ctx context.Context, req registry.Request) (*backend, error) {
	scheme, name, port, ok := utilnet.SplitSchemeNamePort(req.Name)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("invalid pod request %q", req.Name))
	}
	req.Name = name
	pod, err := p.pod(ctx, req)
	if err != nil {
		return nil, err
	}
	number := 80
	if scheme == "https" {
		number = 443
	}
	if port != "" {
		if number, err = strconv.Atoi(port); err != nil {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("invalid pod request %q: the port must be a number", req.Name))
		}
	} else if first := firstPort(pod); first != 0 {
		number = first
	}
	return podPort(scheme, pod, number)
}

// firstPort is the first port that a container of the pod names.
func firstPort(pod *corev1.Pod) int {
	for i := range pod.Spec.Containers {
		if ports := pod.Spec.Containers[i].Ports; len(ports) > 0 {
			return int(ports[0].ContainerPort)
		}
	}
	return 0
}

func podPort(scheme string, pod *corev1.Pod, port int) (*backend, error) {
	if scheme == "" {
		scheme = "http"
	}
	ip, err := netip.ParseAddr(pod.Status.PodIP)
	if err != nil || port < 1 || port > 65535 {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("pod %s has no address yet, or %d is no port", pod.Name, port))
	}
	if err := checkAddress(ip.Unmap()); err != nil {
		return nil, apierrors.NewBadRequest("address not allowed")
	}
	return &backend{scheme, net.JoinHostPort(ip.String(), strconv.Itoa(port)), pod, port}, nil
}

// serviceProxy serves services/proxy: requests to one of the endpoints that
// are ready.
func (p *Proxy) serviceProxy(w http.ResponseWriter, r *http.Request, req registry.Request, rest string) {
	to, err := p.serviceBackend(r.Context(), req)
	if err == nil {
		err = p.cfg.Admit(r.Context(), req, &corev1.ServiceProxyOptions{Path: rest})
	}
	if err != nil {
		apiserver.WriteError(w, err)
		return
	}
	p.proxy(w, r, to, rest)
}

func (p *Proxy) serviceBackend(ctx context.Context, req registry.Request) (*backend, error) {
	scheme, name, port, ok := utilnet.SplitSchemeNamePort(req.Name)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("invalid service request %q", req.Name))
	}
	svc, err := p.service(ctx, req.Namespace, name)
	if err != nil {
		return nil, err
	}
	if port, err = portName(svc, port); err != nil {
		return nil, err
	}
	all, err := p.cfg.Slices(ctx, req.Namespace, name)
	if err != nil {
		return nil, err
	}
	found := candidates(all, port)
	if len(found) == 0 {
		return nil, apierrors.NewServiceUnavailable(fmt.Sprintf("no endpoints available for service %q", req.Name))
	}
	c := found[rand.IntN(len(found))]
	return p.endpointBackend(ctx, scheme, req.Namespace, c.endpoint, c.port)
}

func (p *Proxy) service(ctx context.Context, namespace, name string) (*corev1.Service, error) {
	obj, err := p.cfg.Object(ctx, corev1.SchemeGroupVersion.WithResource("services"), namespace, name)
	if err != nil {
		return nil, err
	}
	svc, ok := obj.(*corev1.Service)
	if !ok {
		return nil, apierrors.NewInternalError(fmt.Errorf("service %s is a %T", name, obj))
	}
	return svc, nil
}

// portName is the name of the port that a request means by number or name.
func portName(svc *corev1.Service, port string) (string, error) {
	number, err := strconv.ParseInt(port, 10, 32)
	if err != nil {
		return port, nil
	}
	for _, p := range svc.Spec.Ports {
		if int64(p.Port) == number {
			return p.Name, nil
		}
	}
	return "", apierrors.NewServiceUnavailable(fmt.Sprintf("no service port %d found for service %q", number, svc.Name))
}

// candidate is an endpoint with the number that a port of its Service has there.
type candidate struct {
	endpoint discoveryv1.Endpoint
	port     int
}

// candidates are the ready endpoints that have the port.
func candidates(all []*discoveryv1.EndpointSlice, port string) (found []candidate) {
	for _, s := range all {
		at := slices.IndexFunc(s.Ports, func(p discoveryv1.EndpointPort) bool {
			return p.Port != nil && (p.Name == nil && port == "" || p.Name != nil && *p.Name == port)
		})
		if at < 0 {
			continue
		}
		for _, e := range s.Endpoints {
			if len(e.Addresses) > 0 && (e.Conditions.Ready == nil || *e.Conditions.Ready) {
				found = append(found, candidate{e, int(*s.Ports[at].Port)})
			}
		}
	}
	return found
}

func (p *Proxy) endpointBackend(ctx context.Context, scheme, namespace string, e discoveryv1.Endpoint, port int) (*backend, error) {
	if ref := e.TargetRef; ref != nil && ref.Kind == "Pod" {
		pod, err := p.pod(ctx, registry.Request{Namespace: namespace, Name: ref.Name})
		if err != nil {
			return nil, err
		}
		if pod.Status.PodIP != e.Addresses[0] {
			return nil, apierrors.NewServiceUnavailable("the endpoint " + e.Addresses[0] + " is not the pod's it names: try again in a moment")
		}
		return podPort(scheme, pod, port)
	}
	if scheme == "" {
		scheme = "http"
	}
	if err := p.check(e.Addresses[0]); err != nil {
		return nil, apierrors.NewBadRequest("address not allowed: " + err.Error())
	}
	return &backend{scheme: scheme, host: net.JoinHostPort(e.Addresses[0], strconv.Itoa(port))}, nil
}

// proxy passes a request on, with upgrades, and rewrites the links in answers
// so that they lead back through the API server.
func (p *Proxy) proxy(w http.ResponseWriter, r *http.Request, to *backend, rest string) {
	r = r.Clone(r.Context())
	auth.StripCredentials(r.Header)
	target := &url.URL{Scheme: to.scheme, Host: to.host, RawQuery: r.URL.RawQuery}
	if rest != "" || strings.HasSuffix(r.URL.Path, "/") {
		target.Path = "/" + rest
	}
	transport := &http.Transport{
		DialContext:       func(ctx context.Context, network, _ string) (net.Conn, error) { return p.dialBackend(ctx, network, to) },
		DisableKeepAlives: true, // the next request may mean another pod
		// What a pod serves with is its own affair: the way to it is safe, and
		// nobody gave it a certificate for its address.
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}, //nolint:gosec // see above
		ForceAttemptHTTP2: false, ResponseHeaderTimeout: answerTimeout, DisableCompression: true,
	}
	utilproxy.NewUpgradeAwareHandler(target, transport, true, false, responder{}).ServeHTTP(w, r)
}

// responder answers when a backend cannot be reached.
type responder struct{}

// Error implements utilproxy.ErrorResponder.
func (responder) Error(w http.ResponseWriter, _ *http.Request, err error) {
	apiserver.WriteError(w, apierrors.NewServiceUnavailable("error trying to reach service: "+err.Error()))
}

// dialBackend connects to a backend. Pods are reached through the agents of
// their nodes, for this machine may have no route to them.
func (p *Proxy) dialBackend(ctx context.Context, network string, to *backend) (net.Conn, error) {
	if to.pod == nil || p.cfg.TLS == nil {
		return p.cfg.Dial(ctx, network, to.host)
	}
	agent, err := p.podAgent(ctx, to.pod)
	if err != nil {
		return nil, err
	}
	return p.dialPod(ctx, agent.JoinPath("portForward", to.pod.Namespace, to.pod.Name), to.port)
}
