package network

import (
	"cmp"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Ranges are the address ranges of a cluster.
type Ranges struct {
	// Pods are the ranges that the nodes' pod ranges are cut from.
	Pods []netip.Prefix
	// Services are the ranges of cluster addresses.
	Services []netip.Prefix
}

// PodCIDRs returns the pod ranges of a node that lie within the cluster's. A
// node that asks for more, 0.0.0.0/0 for one, would draw others' traffic.
func (r *Ranges) PodCIDRs(n *corev1.Node) []netip.Prefix {
	list := n.Spec.PodCIDRs
	if len(list) == 0 {
		list = []string{n.Spec.PodCIDR}
	}
	var out []netip.Prefix
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if err != nil || p != p.Masked() {
			continue
		}
		if slices.ContainsFunc(r.Pods, func(all netip.Prefix) bool { return all.Bits() <= p.Bits() && all.Contains(p.Addr()) }) {
			out = append(out, p)
		}
	}
	return out
}

// InternalIPs returns the addresses by which other nodes reach a node.
func InternalIPs(n *corev1.Node) []netip.Addr {
	var out []netip.Addr
	for _, a := range n.Status.Addresses {
		if ip, err := netip.ParseAddr(a.Address); err == nil && a.Type == corev1.NodeInternalIP && !ip.IsLoopback() && !ip.IsUnspecified() {
			out = append(out, ip)
		}
	}
	return out
}

// Routes decides which routes a node has: one to the pod range of each other
// node, by the address of the same family. Where nodes claim overlapping
// ranges, the one that was created first has it, and never anyone but the node
// itself the range of its own pods. The result is sorted.
func Routes(self string, nodes []*corev1.Node, ranges *Ranges) []Route {
	nodes = slices.Clone(nodes)
	slices.SortFunc(nodes, func(a, b *corev1.Node) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	var taken []netip.Prefix
	for _, n := range nodes {
		if n.Name == self {
			taken = ranges.PodCIDRs(n)
		}
	}
	var out []Route
	for _, n := range nodes {
		if n.Name == self {
			continue
		}
		addrs := InternalIPs(n)
		for _, p := range ranges.PodCIDRs(n) {
			via := slices.IndexFunc(addrs, func(a netip.Addr) bool { return a.Is4() == p.Addr().Is4() })
			if via < 0 || slices.ContainsFunc(taken, p.Overlaps) {
				continue
			}
			taken = append(taken, p)
			out = append(out, Route{Dst: p, Via: addrs[via]})
		}
	}
	slices.SortFunc(out, func(a, b Route) int {
		return cmp.Or(a.Dst.Addr().Compare(b.Dst.Addr()), cmp.Compare(a.Dst.Bits(), b.Dst.Bits()))
	})
	return out
}

// routeChanges says how to get from the routes there are to the wanted ones.
// A route is the same if destination, next hop and source are, and the link
// where the wanted one names it: otherwise the kernel chose it.
func routeChanges(have, want []Route) (del, add []Route) {
	same := func(h, w Route) bool {
		return h.Dst == w.Dst && h.Via == w.Via && (!w.Src.IsValid() || h.Src == w.Src) && (w.Link == "" || h.Link == w.Link)
	}
	for _, h := range have {
		if !slices.ContainsFunc(want, func(w Route) bool { return w.Dst == h.Dst }) {
			del = append(del, h)
		}
	}
	for _, w := range want {
		if !slices.ContainsFunc(have, func(h Route) bool { return same(h, w) }) {
			add = append(add, w)
		}
	}
	return del, add
}

// HostPort is a port of this node that leads to a pod. It is comparable.
type HostPort struct {
	// Host is the node's address that the port is on; unspecified is each one
	// of that family.
	Host netip.Addr
	// Proto is the IP protocol number, Port the port on the node.
	Proto uint8
	Port  uint16
	// Pod is where it leads.
	Pod netip.AddrPort
}

// HostPorts lists the host ports of the pods of a node, sorted. Of two that
// ask for the same one, which the scheduler prevents, the older pod has it.
// Pods in the host's network need nothing: they listen there themselves.
func HostPorts(pods []*corev1.Pod) []HostPort {
	pods = slices.Clone(pods)
	slices.SortFunc(pods, func(a, b *corev1.Pod) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.UID, b.UID))
	})
	var out []HostPort
	for _, pod := range pods {
		if pod.Spec.HostNetwork || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
			continue
		}
		for _, c := range append(slices.Clone(pod.Spec.InitContainers), pod.Spec.Containers...) {
			for i := range c.Ports {
				for _, hp := range hostPort(&c.Ports[i], pod.Status.PodIPs) {
					if !slices.ContainsFunc(out, func(o HostPort) bool { return o.Host == hp.Host && o.Proto == hp.Proto && o.Port == hp.Port }) {
						out = append(out, hp)
					}
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b HostPort) int {
		return cmp.Or(a.Host.Compare(b.Host), cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Port, b.Port))
	})
	return out
}

// hostPort resolves one container port: on one address of the node, or on all
// addresses of each family that the pod has.
func hostPort(p *corev1.ContainerPort, ips []corev1.PodIP) []HostPort {
	protos := map[corev1.Protocol]uint8{"": 6, corev1.ProtocolTCP: 6, corev1.ProtocolUDP: 17, corev1.ProtocolSCTP: 132}
	proto, ok := protos[p.Protocol]
	if !ok || p.HostPort < 1 || p.HostPort > 65535 || p.ContainerPort < 1 || p.ContainerPort > 65535 {
		return nil
	}
	var out []HostPort
	for _, ip := range ips {
		pod, err := netip.ParseAddr(ip.IP)
		if err != nil {
			continue
		}
		host := netip.IPv4Unspecified()
		if pod.Is6() {
			host = netip.IPv6Unspecified()
		}
		if p.HostIP != "" {
			h, err := netip.ParseAddr(p.HostIP)
			if err != nil || h.Is4() != pod.Is4() {
				continue
			}
			host = h
		}
		out = append(out, HostPort{Host: host, Proto: proto, Port: uint16(p.HostPort), Pod: netip.AddrPortFrom(pod, uint16(p.ContainerPort))})
	}
	return out
}
