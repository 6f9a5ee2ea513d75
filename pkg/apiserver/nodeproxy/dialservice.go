package nodeproxy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// dialTries is how many endpoints of a Service are tried for one connection.
const dialTries = 3

// DialService connects to an endpoint of a Service that is ready: pods are
// reached through the agents of their nodes, for this machine need not be on the
// network of pods. What an ExternalName resolves to is looked at as it is
// dialled.
func (p *Proxy) DialService(ctx context.Context, namespace, name string, port int32) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	svc, err := p.service(ctx, namespace, name)
	if err != nil {
		return nil, err
	}
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		return p.cfg.Dial(ctx, "tcp", net.JoinHostPort(svc.Spec.ExternalName, strconv.Itoa(int(port))))
	}
	portName, err := portName(svc, strconv.Itoa(int(port)))
	if err != nil {
		return nil, err
	}
	all, err := p.cfg.Slices(ctx, namespace, name)
	if err != nil {
		return nil, err
	}
	found := candidates(all, portName)
	if len(found) == 0 {
		return nil, apierrors.NewServiceUnavailable(fmt.Sprintf("no endpoints available for service %q", name))
	}
	rand.Shuffle(len(found), func(i, j int) { found[i], found[j] = found[j], found[i] })
	var errs []error
	for _, c := range found[:min(len(found), dialTries)] {
		conn, err := p.dialEndpoint(ctx, namespace, c.endpoint, c.port)
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func (p *Proxy) dialEndpoint(ctx context.Context, namespace string, e discoveryv1.Endpoint, port int) (net.Conn, error) {
	to, err := p.endpointBackend(ctx, "https", namespace, e, port)
	if err != nil {
		return nil, err
	}
	return p.dialBackend(ctx, "tcp", to)
}

// dialChecked connects to an address that is no pod's. It looks at the very
// address that it dials, whatever a name resolved to before.
func dialChecked(check func(netip.Addr) error) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		d := net.Dialer{Timeout: dialTimeout, ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
			to, err := netip.ParseAddrPort(address)
			if err != nil {
				return fmt.Errorf("address %q is not an IP address with a port", address)
			}
			return check(to.Addr().Unmap())
		}}
		return d.DialContext(ctx, network, address)
	}
}
