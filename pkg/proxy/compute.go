package proxy

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/network/rule"
)

// defaultAffinity is the API's default of clientIP.timeoutSeconds.
const defaultAffinity = 3 * time.Hour

// Compute decides what a node does for a service, given all EndpointSlices of
// that service in any order. Headless and ExternalName services, and addresses
// that a service must not claim, yield nothing. The arguments are not changed.
func Compute(svc *corev1.Service, slices []*discoveryv1.EndpointSlice, facts *Facts) Service {
	out := Service{
		Name:    types.NamespacedName{Namespace: svc.Namespace, Name: svc.Name},
		Created: svc.CreationTimestamp.Time,
		Groups:  map[GroupKey]Group{},
	}
	if svc.Spec.Type == corev1.ServiceTypeExternalName || svc.Spec.ClusterIP == corev1.ClusterIPNone {
		return out
	}
	b := builder{facts: facts, svc: svc, slices: slices, out: &out}
	for i := range svc.Spec.Ports {
		b.addPort(&svc.Spec.Ports[i])
	}
	if port := svc.Spec.HealthCheckNodePort; port > 0 && port < 1<<16 && svc.Spec.Type == corev1.ServiceTypeLoadBalancer && b.externalLocal() {
		out.Health = &Health{Port: uint16(port), Local: b.localAddresses()}
	}
	return out
}

// builder carries what the steps of Compute share.
type builder struct {
	facts  *Facts
	svc    *corev1.Service
	slices []*discoveryv1.EndpointSlice
	out    *Service
}

func (b *builder) addPort(port *corev1.ServicePort) {
	proto, ok := protocolOf(port.Protocol)
	if !ok || port.Port < 1 || port.Port > 65535 {
		return
	}
	for _, s := range b.clusterIPs() {
		addr, ok := b.claimable(s)
		if !ok {
			continue
		}
		local := b.svc.Spec.InternalTrafficPolicy != nil && *b.svc.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal
		b.addFront(port, Front{Key: FrontKey{Addr: addr, Proto: proto, Port: uint16(port.Port)}}, local)
	}
	balanced := b.balancerAddrs()
	for _, addr := range balanced {
		f := Front{Key: FrontKey{Addr: addr, Proto: proto, Port: uint16(port.Port)}}
		f.Sources = sourcesOf(b.svc.Spec.LoadBalancerSourceRanges)
		b.addExternal(port, f)
	}
	for _, addr := range b.externalIPs() {
		if !slices.Contains(balanced, addr) {
			b.addExternal(port, Front{Key: FrontKey{Addr: addr, Proto: proto, Port: uint16(port.Port)}})
		}
	}
	if port.NodePort > 0 && port.NodePort < 1<<16 && b.svc.Spec.Type != corev1.ServiceTypeClusterIP {
		for _, v6 := range b.families() {
			b.addExternal(port, Front{Key: FrontKey{Addr: rule.Unspecified(v6), Proto: proto, Port: uint16(port.NodePort)}})
		}
	}
}

// addExternal adds a front that traffic from outside the cluster may use.
// With policy Local such traffic gets this node's endpoints and keeps its
// source; the node and its own pods get all endpoints, as if asking inside.
func (b *builder) addExternal(port *corev1.ServicePort, f Front) {
	if !b.externalLocal() {
		f.Masquerade = true
		b.addFront(port, f, false)
		return
	}
	b.addFront(port, f, false)
	f.Key.Scope = ScopeExternal
	b.addFront(port, f, true)
}

// addFront adds a front that leads to all endpoints of a port, or to this
// node's.
func (b *builder) addFront(port *corev1.ServicePort, f Front, local bool) {
	f.Group = GroupKey{Port: port.Name, Proto: f.Key.Proto, V6: f.Key.Addr.Is6(), Local: local}
	if _, ok := b.out.Groups[f.Group]; !ok {
		b.out.Groups[f.Group] = b.group(f.Group)
	}
	b.out.Fronts = append(b.out.Fronts, f)
}

func (b *builder) externalLocal() bool {
	return b.svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

// clusterIPs prefers the plural field; objects written before it exist.
func (b *builder) clusterIPs() []string {
	if len(b.svc.Spec.ClusterIPs) > 0 {
		return b.svc.Spec.ClusterIPs
	}
	return []string{b.svc.Spec.ClusterIP}
}

// families tells for which IP families the service has a cluster address:
// false is IPv4, true is IPv6.
func (b *builder) families() []bool {
	var out []bool
	for _, s := range b.clusterIPs() {
		if a, err := netip.ParseAddr(s); err == nil && !slices.Contains(out, a.Is6()) {
			out = append(out, a.Is6())
		}
	}
	return out
}

// balancerAddrs are the load balancer's addresses that reach this node
// unchanged.
func (b *builder) balancerAddrs() []netip.Addr {
	var out []string
	if b.svc.Spec.Type == corev1.ServiceTypeLoadBalancer {
		for _, in := range b.svc.Status.LoadBalancer.Ingress {
			if in.IPMode == nil || *in.IPMode == corev1.LoadBalancerIPModeVIP {
				out = append(out, in.IP)
			}
		}
	}
	return b.allClaimable(out)
}

// externalIPs are the external addresses, if those are allowed.
func (b *builder) externalIPs() []netip.Addr {
	if !b.facts.ExternalIPs {
		return nil
	}
	return b.allClaimable(b.svc.Spec.ExternalIPs)
}

// allClaimable keeps the addresses that the service may have, of the families
// that it is in, each once.
func (b *builder) allClaimable(list []string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		if a, ok := b.claimable(s); ok && slices.Contains(b.families(), a.Is6()) && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// sourcesOf reads spec.loadBalancerSourceRanges. What cannot be read allows
// nobody: a mistake must close, not open.
func sourcesOf(ranges []string) Sources {
	if len(ranges) == 0 {
		return ""
	}
	var list []string
	for _, s := range ranges {
		if p, err := netip.ParsePrefix(strings.TrimSpace(s)); err == nil {
			list = append(list, p.Masked().String())
		}
	}
	if len(list) == 0 {
		return nobody
	}
	slices.Sort(list)
	return Sources(strings.Join(slices.Compact(list), ","))
}

// prefixes is the list that s was made from.
func (s Sources) prefixes() []netip.Prefix {
	var out []netip.Prefix
	for _, f := range strings.Split(string(s), ",") {
		if p, err := netip.ParsePrefix(f); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// claimable parses an address that the service wants as a front, and says
// whether it may have it.
func (b *builder) claimable(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	if err != nil || !reachable(a) || slices.Contains(b.facts.LocalVIPs, a) {
		return netip.Addr{}, false
	}
	_, reserved := b.facts.Reserved[a]
	return a, !reserved
}

// reachable says whether an address may be a destination at all. The API
// server validates the same; a second check here costs nothing and closes the
// way for an object that came around it.
func reachable(a netip.Addr) bool {
	return a.IsValid() && a.Zone() == "" && !a.Is4In6() && !a.IsUnspecified() && !a.IsLoopback() &&
		!a.IsMulticast() && !a.IsLinkLocalUnicast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

func (b *builder) affinity() time.Duration {
	if b.svc.Spec.SessionAffinity != corev1.ServiceAffinityClientIP {
		return 0
	}
	d := defaultAffinity
	if c := b.svc.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
		d = time.Duration(*c.ClientIP.TimeoutSeconds) * time.Second
	}
	return min(max(d, time.Second), 24*time.Hour)
}

func protocolOf(p corev1.Protocol) (Protocol, bool) {
	switch p {
	case corev1.ProtocolTCP, "":
		return TCP, true
	case corev1.ProtocolUDP:
		return UDP, true
	case corev1.ProtocolSCTP:
		return SCTP, true
	}
	return 0, false
}

func compareAddrPort(a, b netip.AddrPort) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Port(), b.Port()))
}
