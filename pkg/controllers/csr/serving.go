package csr

import (
	"crypto/x509"
	"net/netip"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

const (
	nodeUser       = "system:node:"
	nodesGroup     = "system:nodes"
	servingMessage = "Auto approving kubelet serving certificate: the names and addresses are those of the Node object."
)

// facts are what a request for a serving certificate is held against. A node says
// itself which addresses it has, so that its word alone would let it pose as
// another node, as a Service or as the API server: what one of those has, no
// other node gets.
type facts struct {
	nodes    []*corev1.Node
	services []*corev1.Service
	api      []*discoveryv1.EndpointSlice // of the API server
}

// refuse says why the request, whose form has been checked, is not approved, or
// "".
func (f facts) refuse(r *certificatesv1.CertificateSigningRequest, csr *x509.CertificateRequest) string {
	name, isNode := strings.CutPrefix(r.Spec.Username, nodeUser)
	if !isNode || !slices.Contains(r.Spec.Groups, nodesGroup) {
		return "its sender is not a node"
	}
	if csr.Subject.CommonName != r.Spec.Username {
		return "its sender is not the node that it is for"
	}
	at := slices.IndexFunc(f.nodes, func(n *corev1.Node) bool { return n.Name == name })
	if at < 0 {
		return "there is no such node"
	}
	for _, dns := range csr.DNSNames {
		if why := f.refuseName(f.nodes[at], dns); why != "" {
			return why
		}
	}
	for _, raw := range csr.IPAddresses {
		ip, ok := netip.AddrFromSlice(raw)
		if !ok {
			return "it has an address of a strange length"
		}
		if why := f.refuseIP(f.nodes[at], ip.Unmap()); why != "" {
			return why
		}
	}
	return ""
}

func (f facts) refuseName(node *corev1.Node, dns string) string {
	if dns != node.Name && !hasAddress(node, dns, corev1.NodeHostName, corev1.NodeInternalDNS, corev1.NodeExternalDNS) {
		return "the node has no name " + dns
	}
	if reserved(dns) {
		return "the name " + dns + " is never a node's"
	}
	for _, n := range f.nodes {
		if n != node && (strings.EqualFold(n.Name, dns) || hasAddress(n, dns, corev1.NodeHostName, corev1.NodeInternalDNS, corev1.NodeExternalDNS)) {
			return "node " + n.Name + " has the name " + dns + " too"
		}
	}
	return ""
}

// reserved are names that mean something else in every cluster.
func reserved(dns string) bool {
	dns = strings.TrimSuffix(strings.ToLower(dns), ".")
	labels := strings.Split(dns, ".")
	return strings.Contains(dns, "*") || labels[len(labels)-1] == "localhost" || slices.Contains(labels, "svc") ||
		dns == "kubernetes" || dns == "kubernetes.default"
}

func (f facts) refuseIP(node *corev1.Node, ip netip.Addr) string {
	text := ip.String()
	switch {
	case !hasIP(node, ip):
		return "the node has no address " + text
	case !ip.IsGlobalUnicast(): // loopback, multicast, link-local, unspecified
		return "the address " + text + " is never a node's alone"
	}
	for _, n := range f.nodes {
		if n != node && hasIP(n, ip) {
			return "node " + n.Name + " has the address " + text + " too"
		}
	}
	for _, s := range f.services {
		taken := slices.Concat(s.Spec.ClusterIPs, []string{s.Spec.ClusterIP}, s.Spec.ExternalIPs)
		for _, i := range s.Status.LoadBalancer.Ingress {
			taken = append(taken, i.IP)
		}
		if slices.ContainsFunc(taken, same(ip)) {
			return "Service " + s.Namespace + "/" + s.Name + " has the address " + text
		}
	}
	if !onControlPlane(node) {
		for _, s := range f.api {
			for _, e := range s.Endpoints {
				if slices.ContainsFunc(e.Addresses, same(ip)) {
					return "the API server has the address " + text
				}
			}
		}
	}
	return ""
}

// onControlPlane says that a node may share the API server's address. A node
// cannot give itself this label.
func onControlPlane(n *corev1.Node) bool {
	_, ok := n.Labels["node-role.kubernetes.io/control-plane"]
	return ok
}

func hasAddress(n *corev1.Node, text string, types ...corev1.NodeAddressType) bool {
	return slices.ContainsFunc(n.Status.Addresses, func(a corev1.NodeAddress) bool {
		return slices.Contains(types, a.Type) && strings.EqualFold(a.Address, text)
	})
}

func hasIP(n *corev1.Node, ip netip.Addr) bool {
	return slices.ContainsFunc(n.Status.Addresses, func(a corev1.NodeAddress) bool {
		return (a.Type == corev1.NodeInternalIP || a.Type == corev1.NodeExternalIP) && same(ip)(a.Address)
	})
}

// same compares addresses, however they are written.
func same(ip netip.Addr) func(string) bool {
	return func(text string) bool {
		other, err := netip.ParseAddr(text)
		return err == nil && other.Unmap() == ip
	}
}
