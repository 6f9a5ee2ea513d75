package announce

import (
	"cmp"
	"hash/fnv"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
)

// deputies is how many nodes stand by for an address besides the first. They
// watch whether those before them answer; all other nodes only learn from the
// API server that a node is gone.
const deputies = 2

// candidate is a node that may answer for an address.
type candidate struct {
	name string
	ip   netip.Addr // where its network can be asked whether it is there
}

// line is an address and the nodes that may answer for it, the first one first.
type line struct {
	address netip.Addr
	nodes   []candidate
}

// lines lists the addresses of the pool that services have, sorted, each with
// its nodes in an order that all nodes of the cluster agree on. slicesOf gives
// the EndpointSlices of a service. An address that two services claim is the
// older one's.
func lines(services []*corev1.Service, slicesOf func(types.NamespacedName) []*discoveryv1.EndpointSlice, nodes []*corev1.Node, pool netip.Prefix) []line {
	owners := map[netip.Addr]*corev1.Service{}
	for _, svc := range services {
		for _, a := range addressesOf(svc, pool) {
			if old := owners[a]; old == nil || older(svc, old) {
				owners[a] = svc
			}
		}
	}
	fit := candidates(nodes)
	var out []line
	for a, svc := range owners {
		able := fit
		if svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
			able = withEndpoints(fit, slicesOf(types.NamespacedName{Namespace: svc.Namespace, Name: svc.Name}))
		}
		out = append(out, line{address: a, nodes: rank(a, able)})
	}
	slices.SortFunc(out, func(a, b line) int { return a.address.Compare(b.address) })
	return out
}

// addressesOf are the addresses of the pool that a service has.
func addressesOf(svc *corev1.Service, pool netip.Prefix) []netip.Addr {
	if svc.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return nil
	}
	var out []netip.Addr
	for _, in := range svc.Status.LoadBalancer.Ingress {
		a, err := netip.ParseAddr(in.IP)
		if err == nil && pool.Contains(a) && (in.IPMode == nil || *in.IPMode == corev1.LoadBalancerIPModeVIP) {
			out = append(out, a)
		}
	}
	return out
}

func older(a, b *corev1.Service) bool {
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name)) < 0
}

// candidates are the nodes that are ready, stay, and take traffic from outside.
func candidates(nodes []*corev1.Node) []candidate {
	var out []candidate
	for _, n := range nodes {
		if _, excluded := n.Labels[corev1.LabelNodeExcludeBalancers]; excluded || n.DeletionTimestamp != nil || !ready(n) {
			continue
		}
		if ip, ok := internalIPv4(n); ok {
			out = append(out, candidate{name: n.Name, ip: ip})
		}
	}
	return out
}

func ready(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

func internalIPv4(n *corev1.Node) (netip.Addr, bool) {
	for _, a := range n.Status.Addresses {
		if ip, err := netip.ParseAddr(a.Address); err == nil && a.Type == corev1.NodeInternalIP && ip.Is4() {
			return ip, true
		}
	}
	return netip.Addr{}, false
}

// withEndpoints keeps the nodes on which a service has ready endpoints; where
// none is ready anywhere, those with endpoints that still serve as they end.
func withEndpoints(nodes []candidate, endpoints []*discoveryv1.EndpointSlice) []candidate {
	is := func(c *bool, missing bool) bool { return c == nil && missing || c != nil && *c }
	up, ending := map[string]bool{}, map[string]bool{}
	for _, s := range endpoints {
		for i := range s.Endpoints {
			e := &s.Endpoints[i]
			switch {
			case e.NodeName == nil:
			case is(e.Conditions.Ready, true):
				up[*e.NodeName] = true
			case is(e.Conditions.Serving, false) && is(e.Conditions.Terminating, false):
				ending[*e.NodeName] = true
			}
		}
	}
	if len(up) == 0 {
		up = ending
	}
	return slices.DeleteFunc(slices.Clone(nodes), func(c candidate) bool { return !up[c.name] })
}

// rank orders nodes for an address. Each pair of address and node draws a
// number: so addresses spread over the nodes, and a node that comes or goes
// moves no address but those that become or were its own.
func rank(a netip.Addr, nodes []candidate) []candidate {
	draw := func(c candidate) uint64 {
		h := fnv.New64a()
		h.Write([]byte(a.String() + "/" + c.name))
		// FNV's high bits hardly change with the last letters of a name.
		x := h.Sum64()
		x ^= x >> 33
		x *= 0xff51afd7ed558ccd
		return x ^ x>>33
	}
	nodes = slices.Clone(nodes)
	slices.SortFunc(nodes, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(draw(a), draw(b)), cmp.Compare(a.name, b.name))
	})
	return nodes
}

// pair is an address, and a node before this one in its line.
type pair struct{ address, node netip.Addr }

// plan is what one node does about all addresses.
type plan struct {
	hold  []netip.Addr // answer for these
	watch []pair       // ask these nodes whether they answer for the address
}

// decide says what the node called self does: it answers for an address when it
// is the first of the line, or a deputy before whom everybody is silent.
func decide(all []line, self string, silent func(pair) bool) plan {
	var p plan
	for _, l := range all {
		i := slices.IndexFunc(l.nodes, func(c candidate) bool { return c.name == self })
		if i < 0 || i > deputies {
			continue
		}
		first := true
		for _, c := range l.nodes[:i] {
			w := pair{address: l.address, node: c.ip}
			p.watch = append(p.watch, w)
			first = first && silent(w)
		}
		if first {
			p.hold = append(p.hold, l.address)
		}
	}
	return p
}

// patience is how many rounds of questions in a row a node may leave without an
// answer before it counts as silent.
const patience = 3

// misses counts unanswered rounds of questions.
type misses map[pair]int

// note takes the result of a round, and forgets what is not asked any more.
func (m misses) note(asked []pair, answered map[pair]bool) {
	for w := range m {
		if !slices.Contains(asked, w) {
			delete(m, w)
		}
	}
	for _, w := range asked {
		if answered[w] {
			delete(m, w)
		} else {
			m[w]++
		}
	}
}

func (m misses) silent(w pair) bool { return m[w] >= patience }
