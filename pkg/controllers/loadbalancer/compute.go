package loadbalancer

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// Class is the value of spec.loadBalancerClass that names this controller;
	// services without a class are its own too.
	Class = "coracle.dev/bridge"
	// finalizer keeps a service until its address is given back (upstream's name).
	finalizer = "service.kubernetes.io/load-balancer-cleanup"
)

// action says what to do about a service.
type action int

const (
	// assign writes the address, and the finalizer with it.
	assign action = iota
	// release takes address and finalizer away.
	release
	// refuse tells why the service gets no address, or not the one it asks for.
	refuse
)

// step is what to do about one service. A service that is as it should be has
// none.
type step struct {
	service *corev1.Service
	action  action
	address netip.Addr // of assign
	reason  string     // of refuse, for people to read
}

// compute decides about all services at once, so that no address is given out
// twice. What an address belongs to is read from the stored statuses: of two
// services with the same one, the older keeps it. Addresses of services that
// are let go are free again in the next round, when that is written. The
// arguments are not changed.
func compute(services []*corev1.Service, pool netip.Prefix) []step {
	services = slices.Clone(services)
	slices.SortFunc(services, func(a, b *corev1.Service) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	r := round{pool: pool, taken: map[netip.Addr]*corev1.Service{}}
	var waiting []*corev1.Service
	for _, svc := range services {
		switch {
		case lost(svc, pool):
			for _, a := range held(svc, pool) {
				r.claim(a, svc)
			}
			r.steps = append(r.steps, step{service: svc, action: release})
		case wants(svc) && svc.DeletionTimestamp == nil:
			if !r.keep(svc) {
				waiting = append(waiting, svc)
			}
		}
	}
	// Who asks for a certain address goes before those that take any.
	slices.SortStableFunc(waiting, func(a, b *corev1.Service) int {
		return cmp.Compare(btoi(a.Spec.LoadBalancerIP == ""), btoi(b.Spec.LoadBalancerIP == ""))
	})
	for _, svc := range waiting {
		r.serve(svc)
	}
	return r.steps
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// round is the state of one compute.
type round struct {
	pool  netip.Prefix
	taken map[netip.Addr]*corev1.Service
	steps []step
}

// claim takes an address for a service unless another has it.
func (r *round) claim(a netip.Addr, svc *corev1.Service) bool {
	if _, ok := r.taken[a]; ok {
		return false
	}
	r.taken[a] = svc
	return true
}

// keep takes the address that svc has, and says whether nothing more is to be
// done for it.
func (r *round) keep(svc *corev1.Service) bool {
	had := held(svc, r.pool)
	if len(had) == 0 || !r.claim(had[0], svc) {
		return false
	}
	if svc.Spec.LoadBalancerIP != "" && svc.Spec.LoadBalancerIP != had[0].String() {
		return false
	}
	if !slices.Contains(svc.Finalizers, finalizer) || !written(svc, had[0]) {
		r.steps = append(r.steps, step{service: svc, action: assign, address: had[0]})
	}
	return true
}

// serve finds an address for a service that has none, or not the one it asks
// for. One that has an address keeps it while it cannot have the other.
func (r *round) serve(svc *corev1.Service) {
	a, reason := r.choose(svc)
	if reason != "" {
		r.steps = append(r.steps, step{service: svc, action: refuse, reason: reason})
		return
	}
	r.claim(a, svc)
	r.steps = append(r.steps, step{service: svc, action: assign, address: a})
}

// choose names a free address, or says why there is none.
func (r *round) choose(svc *corev1.Service) (netip.Addr, string) {
	if !slices.Contains(svc.Spec.IPFamilies, familyOf(r.pool)) {
		return netip.Addr{}, fmt.Sprintf("the addresses for load balancers (%s) are %s: add that to spec.ipFamilies", r.pool, familyOf(r.pool))
	}
	if ask := svc.Spec.LoadBalancerIP; ask != "" {
		a, err := netip.ParseAddr(ask)
		if err != nil || !usable(a, r.pool) {
			return netip.Addr{}, fmt.Sprintf("spec.loadBalancerIP %q is not one of the addresses for load balancers (%s)", ask, r.pool)
		}
		if by := r.taken[a]; by != nil {
			return netip.Addr{}, fmt.Sprintf("spec.loadBalancerIP %s is in use by Service %s/%s", a, by.Namespace, by.Name)
		}
		return a, ""
	}
	// A service that is made again under its name gets the address that it had,
	// and an address that was given back is not used at once by another.
	size := uint64(1) << min(r.pool.Addr().BitLen()-r.pool.Bits(), 16)
	h := fnv.New64a()
	h.Write([]byte(svc.Namespace + "/" + svc.Name))
	start := h.Sum64() % size
	for i := range size {
		a := nth(r.pool, (start+i)%size)
		if _, ok := r.taken[a]; !ok && usable(a, r.pool) {
			return a, ""
		}
	}
	return netip.Addr{}, fmt.Sprintf("all addresses for load balancers (%s) are in use: delete a Service of type LoadBalancer", r.pool)
}

// nth is the address at an offset below 2^16 in a prefix.
func nth(p netip.Prefix, n uint64) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	low := uint64(b[len(b)-2])<<8 | uint64(b[len(b)-1])
	low += n
	b[len(b)-2], b[len(b)-1] = byte(low>>8), byte(low)
	a, _ := netip.AddrFromSlice(b)
	return a
}

// usable says whether an address may be given out: the last of an IPv4 range
// may be the bridge's broadcast address.
func usable(a netip.Addr, pool netip.Prefix) bool {
	return pool.Contains(a) && (a.Is6() || pool.Contains(a.Next()))
}

func familyOf(p netip.Prefix) corev1.IPFamily {
	if p.Addr().Is6() {
		return corev1.IPv6Protocol
	}
	return corev1.IPv4Protocol
}

// wants says whether svc is for this controller to serve.
func wants(svc *corev1.Service) bool {
	return svc.Spec.Type == corev1.ServiceTypeLoadBalancer && ours(svc)
}

func ours(svc *corev1.Service) bool {
	return svc.Spec.LoadBalancerClass == nil || *svc.Spec.LoadBalancerClass == Class
}

// lost says whether svc has something of this controller's that it should no
// longer have. Others use the same finalizer: theirs have another class or, when
// that is gone with the type, an address that is not of the pool.
func lost(svc *corev1.Service, pool netip.Prefix) bool {
	if !slices.Contains(svc.Finalizers, finalizer) || !ours(svc) {
		return false
	}
	if svc.DeletionTimestamp == nil && wants(svc) {
		return false
	}
	return len(svc.Status.LoadBalancer.Ingress) == 0 || len(held(svc, pool)) > 0
}

// held are the addresses of the pool in svc's status.
func held(svc *corev1.Service, pool netip.Prefix) []netip.Addr {
	var out []netip.Addr
	for _, in := range svc.Status.LoadBalancer.Ingress {
		if a, err := netip.ParseAddr(in.IP); err == nil && usable(a, pool) {
			out = append(out, a)
		}
	}
	return out
}

// written says whether svc's status says that a is its address, and nothing
// else.
func written(svc *corev1.Service, a netip.Addr) bool {
	in := svc.Status.LoadBalancer.Ingress
	return len(in) == 1 && in[0].IP == a.String() && in[0].Hostname == "" && in[0].IPMode != nil && *in[0].IPMode == corev1.LoadBalancerIPModeVIP
}

// carried is the service as it is to be written.
func (s *step) carried() *corev1.Service {
	out := s.service.DeepCopy()
	out.Status.LoadBalancer = corev1.LoadBalancerStatus{}
	if s.action == release {
		out.Finalizers = slices.DeleteFunc(out.Finalizers, func(f string) bool { return f == finalizer })
		return out
	}
	mode := corev1.LoadBalancerIPModeVIP
	out.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: s.address.String(), IPMode: &mode}}
	if !slices.Contains(out.Finalizers, finalizer) {
		out.Finalizers = append(out.Finalizers, finalizer)
	}
	return out
}

// refusals remembers what services were told, so that they are told once.
type refusals map[types.UID]string

// fresh says whether a refusal is news, and forgets services that are not
// refused any more.
func (r refusals) fresh(steps []step) []step {
	var out []step
	now := refusals{}
	for _, s := range steps {
		if s.action == refuse {
			now[s.service.UID] = s.reason
			if r[s.service.UID] == s.reason {
				continue
			}
		}
		out = append(out, s)
	}
	clear(r)
	for uid, reason := range now {
		r[uid] = reason
	}
	return out
}
