// Package allocator gives Services their cluster addresses and node ports.
//
// Contract: an address is taken by creating the IPAddress object of its name, a
// node port by setting its bit in a stored bitmap, both with one
// compare-and-set of the store: however many API servers share it, none is given
// out twice. Claims are made before a Service is written and undone when it is
// not. A server that dies in between leaves a claim behind, which Repair takes
// back after a grace; it also makes claims that are missing and reports values
// that two Services hold. The lower part of each range is kept for values chosen
// by hand for as long as the upper part lasts (KEP-3070, KEP-3668).
package allocator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/clock"

	"coracle/pkg/auth"
	"coracle/pkg/registry"
	"coracle/pkg/resource"
	"coracle/pkg/storage"
)

// Config is what an Allocator is made of. Registry, Backend and Rand are
// required.
type Config struct {
	// Registry holds Services, ServiceCIDRs and IPAddresses.
	Registry *registry.Registry
	// Backend holds the bitmap of node ports.
	Backend storage.Backend
	// FirstNodePort and LastNodePort bound node ports, both inclusive; zero
	// means 30000 and 32767.
	FirstNodePort, LastNodePort int32
	// Rand chooses among free values.
	Rand  io.Reader
	Clock clock.WithTicker
	Log   *slog.Logger
}

// Allocator is safe for concurrent use.
type Allocator struct {
	cfg                        Config
	services, cidrs, addresses *resource.Resource
	events                     *resource.Resource
	ports                      portStore
	rand                       sync.Mutex // guards cfg.Rand

	repairing sync.Mutex
	leaks     map[int32]int // rounds for which a port was leaked; guarded by repairing
}

const (
	defaultFirstNodePort = 30000
	defaultLastNodePort  = 32767
	// releaseTimeout bounds giving values back after a write: the client has
	// its answer, or waits for it.
	releaseTimeout = 10 * time.Second
)

// New returns an Allocator. Nothing is read or written yet.
func New(cfg Config) (*Allocator, error) {
	if cfg.FirstNodePort == 0 {
		cfg.FirstNodePort, cfg.LastNodePort = defaultFirstNodePort, defaultLastNodePort
	}
	if cfg.FirstNodePort < 1 || cfg.LastNodePort > 65535 || cfg.LastNodePort < cfg.FirstNodePort {
		return nil, fmt.Errorf("the node port range %d-%d is not valid", cfg.FirstNodePort, cfg.LastNodePort)
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	a := &Allocator{cfg: cfg, leaks: map[int32]int{}, ports: portStore{cfg.Backend, portRange{cfg.FirstNodePort, cfg.LastNodePort}}}
	table := cfg.Registry.Table()
	for gvr, res := range map[string]**resource.Resource{"services": &a.services, "events": &a.events} {
		*res, _ = table.ByGVR(corev1.SchemeGroupVersion.WithResource(gvr))
	}
	for gvr, res := range map[string]**resource.Resource{"servicecidrs": &a.cidrs, "ipaddresses": &a.addresses} {
		*res, _ = table.ByGVR(networkingv1.SchemeGroupVersion.WithResource(gvr))
	}
	if a.services == nil || a.events == nil || a.cidrs == nil || a.addresses == nil {
		return nil, errors.New("an allocator needs a table with services, events, servicecidrs and ipaddresses")
	}
	return a, nil
}

// self is whose writes the claims are.
func self(ctx context.Context) context.Context {
	return auth.WithUser(ctx, &auth.User{Name: auth.UserAPIServer, Groups: []string{auth.GroupMasters, auth.GroupAuthenticated}})
}

// Complete fills in the addresses and ports that svc lacks, and claims those
// it names that old, the stored Service or nil, does not hold. A dry run claims
// nothing. The returned function takes the new claims back; what only the stored
// Service holds stays taken until Settle. Errors are Invalid, with the field,
// or the store's.
func (a *Allocator) Complete(ctx context.Context, svc, old *corev1.Service, dryRun bool) (undo func(), err error) {
	c := &claim{a: a, ctx: self(ctx), svc: svc, old: old, dry: dryRun}
	errs, err := c.all()
	if err != nil || len(errs) > 0 {
		c.undo()
	}
	if err != nil {
		return nil, err
	}
	if len(errs) > 0 {
		return nil, apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Service").GroupKind(), svc.Name, errs)
	}
	return c.undo, nil
}

// Settle frees what old held and svc, now stored, does not.
func (a *Allocator) Settle(ctx context.Context, svc, old *corev1.Service) {
	kept, keptPorts := addressesOf(svc), nodePorts(svc)
	a.release(ctx, old,
		slices.DeleteFunc(addressesOf(old), func(ip netip.Addr) bool { return slices.Contains(kept, ip) }),
		slices.DeleteFunc(nodePorts(old), func(p int32) bool { return slices.Contains(keptPorts, p) }))
}

// Release frees what a Service that left the store held.
func (a *Allocator) Release(ctx context.Context, svc *corev1.Service) {
	a.release(ctx, svc, addressesOf(svc), nodePorts(svc))
}

// release gives values back. What fails is left to Repair.
func (a *Allocator) release(ctx context.Context, svc *corev1.Service, ips []netip.Addr, ports []int32) {
	if len(ips) == 0 && len(ports) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(self(context.WithoutCancel(ctx)), releaseTimeout)
	defer cancel()
	for _, ip := range ips {
		if err := a.freeAddress(ctx, svc, ip); err != nil {
			a.cfg.Log.Warn("a cluster address could not be freed yet", "address", ip, "service", svc.Namespace+"/"+svc.Name, "error", err)
		}
	}
	if err := a.ports.change(ctx, func(set *portSet) bool { return set.clear(ports) }); err != nil {
		a.cfg.Log.Warn("node ports could not be freed yet", "ports", ports, "service", svc.Namespace+"/"+svc.Name, "error", err)
	}
}

// addressesOf are the cluster addresses that a Service holds.
func addressesOf(svc *corev1.Service) []netip.Addr {
	if svc == nil || svc.Spec.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	var out []netip.Addr
	for _, s := range append([]string{svc.Spec.ClusterIP}, svc.Spec.ClusterIPs...) {
		if ip, err := netip.ParseAddr(s); err == nil && !slices.Contains(out, ip.Unmap()) {
			out = append(out, ip.Unmap())
		}
	}
	return out
}

// nodePorts are the node ports that a Service holds; protocols share a number.
func nodePorts(svc *corev1.Service) []int32 {
	if svc == nil {
		return nil
	}
	var out []int32
	add := func(p int32) {
		if p != 0 && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	for _, p := range svc.Spec.Ports {
		add(p.NodePort)
	}
	add(svc.Spec.HealthCheckNodePort)
	return out
}

// claim is what one write takes.
type claim struct {
	a        *Allocator
	ctx      context.Context // of the write; claims are made within it
	svc, old *corev1.Service
	dry      bool
	ips      []netip.Addr // claimed by this write
	ports    []int32      // claimed by this write
}

// all makes the claims of a write. Addresses come first: a full range of ports
// is rarer than an address that is taken.
func (c *claim) all() (field.ErrorList, error) {
	if errs := checkFamilies(c.svc); len(errs) > 0 {
		return errs, nil
	}
	errs, err := c.address()
	if err != nil || len(errs) > 0 {
		return errs, err
	}
	return c.nodePorts()
}

func (c *claim) undo() {
	c.a.release(c.ctx, c.svc, c.ips, c.ports)
	c.ips, c.ports = nil, nil
}

// checkFamilies refuses what a cluster of one family cannot do.
func checkFamilies(svc *corev1.Service) field.ErrorList {
	spec, path := &svc.Spec, field.NewPath("spec")
	if spec.Type == corev1.ServiceTypeExternalName || spec.ClusterIP == corev1.ClusterIPNone && len(spec.Selector) == 0 {
		return nil // the endpoints of the latter are whatever a person writes
	}
	var errs field.ErrorList
	const single = "this cluster is not configured for dual-stack services"
	if spec.IPFamilyPolicy != nil && *spec.IPFamilyPolicy == corev1.IPFamilyPolicyRequireDualStack {
		errs = append(errs, field.Invalid(path.Child("ipFamilyPolicy"), *spec.IPFamilyPolicy, single))
	}
	for i, f := range spec.IPFamilies {
		if f == corev1.IPv6Protocol {
			errs = append(errs, field.Invalid(path.Child("ipFamilies").Index(i), f, "not configured on this cluster"))
		}
	}
	if len(errs) == 0 && len(spec.ClusterIPs) > 1 {
		errs = append(errs, field.Invalid(path.Child("clusterIPs"), spec.ClusterIPs, single))
	}
	return errs
}
