package proxy

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	corelisters "k8s.io/client-go/listers/core/v1"
)

// apiService is the Service whose endpoints are the API servers.
var apiService = types.NamespacedName{Namespace: "default", Name: "kubernetes"}

// readFacts collects what Compute must know from the configuration, the nodes
// and the API servers' endpoints.
func (p *Proxy) readFacts() *Facts {
	f := &Facts{
		NodeName:     p.cfg.NodeName,
		ClusterPods:  p.cfg.ClusterPods,
		ServiceCIDRs: p.cfg.ServiceCIDRs,
		LocalVIPs:    p.cfg.LocalVIPs,
		ExternalIPs:  p.cfg.ExternalIPs,
		Reserved:     map[netip.Addr]struct{}{},
	}
	reserve := func(s string) {
		if a, err := netip.ParseAddr(s); err == nil {
			f.Reserved[a.Unmap()] = struct{}{}
		}
	}
	nodes, err := p.nodes.List(labels.Everything())
	if err != nil {
		panic(err) // A lister over memory has no error for Everything.
	}
	for _, n := range nodes {
		for _, a := range n.Status.Addresses {
			reserve(a.Address)
		}
		if n.Name == p.cfg.NodeName {
			f.Zone = n.Labels[corev1.LabelTopologyZone]
			f.NodePods = podRanges(n)
		}
	}
	for _, s := range p.slicesOf(apiService) {
		for i := range s.Endpoints {
			for _, a := range s.Endpoints[i].Addresses {
				reserve(a)
			}
		}
	}
	return f
}

// podRanges are the pod ranges of a node.
func podRanges(n *corev1.Node) []netip.Prefix {
	list := n.Spec.PodCIDRs
	if len(list) == 0 {
		list = []string{n.Spec.PodCIDR}
	}
	var out []netip.Prefix
	for _, s := range list {
		if p, err := netip.ParsePrefix(s); err == nil {
			out = append(out, p.Masked())
		}
	}
	return out
}

func listAll(l corelisters.ServiceLister) []*corev1.Service {
	out, err := l.List(labels.Everything())
	if err != nil {
		panic(err) // A lister over memory has no error for Everything.
	}
	return out
}
