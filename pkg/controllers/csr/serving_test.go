package csr

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/pki"
)

func node(name string, addresses ...corev1.NodeAddress) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{Addresses: addresses}}
}

// TestServing: a node says itself which addresses it has; that does not get it a
// certificate for those of others.
func TestServing(t *testing.T) {
	at := func(kind corev1.NodeAddressType, address string) corev1.NodeAddress {
		return corev1.NodeAddress{Type: kind, Address: address}
	}
	claims := []corev1.NodeAddress{
		at(corev1.NodeInternalIP, "10.0.0.1"), at(corev1.NodeExternalIP, "2001:db8::1"), at(corev1.NodeHostName, "a"), at(corev1.NodeInternalDNS, "a.example.org"),
		at(corev1.NodeInternalIP, "10.0.0.2"), at(corev1.NodeInternalIP, "10.0.0.9"), at(corev1.NodeInternalIP, "10.96.0.10"), at(corev1.NodeInternalIP, "192.0.2.7"),
		at(corev1.NodeInternalIP, "127.0.0.1"), at(corev1.NodeHostName, "b.example.org"), at(corev1.NodeHostName, "b"), at(corev1.NodeHostName, "localhost"),
		at(corev1.NodeHostName, "web.default.svc"), at(corev1.NodeHostName, "web.default.SVC.cluster.local"), at(corev1.NodeHostName, "kubernetes"), at(corev1.NodeHostName, "*.example.org"),
	}
	master := node("m", at(corev1.NodeInternalIP, "10.0.0.9"))
	master.Labels = map[string]string{"node-role.kubernetes.io/control-plane": ""}
	f := facts{
		nodes: []*corev1.Node{node("a", claims...), node("b", at(corev1.NodeInternalIP, "10.0.0.2"), at(corev1.NodeExternalDNS, "B.example.org"))},
		services: []*corev1.Service{{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.10"},
			Status: corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: "192.0.2.7"}}}},
		}},
		api: []*discoveryv1.EndpointSlice{{Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.9"}}}}},
	}
	alone := facts{nodes: []*corev1.Node{master}, api: f.api}
	for _, tc := range []struct {
		name         string
		facts        facts
		user, common string
		group        string
		names        string
		want         string
	}{
		{"its own", f, "system:node:a", "system:node:a", "system:nodes", "10.0.0.1 2001:db8::1 a A.example.org", ""},
		{"the API server's, where that runs", alone, "system:node:m", "system:node:m", "system:nodes", "10.0.0.9", ""},
		{"somebody else asks", f, "eve", "system:node:a", "system:nodes", "a", "not a node"},
		{"somebody of that name who is no node", f, "system:node:a", "system:node:a", "eves", "a", "not a node"},
		{"another node asks", f, "system:node:b", "system:node:a", "system:nodes", "a", "not the node that it is for"},
		{"a node that is not there", f, "system:node:c", "system:node:c", "system:nodes", "c", "no such node"},
		{"an address that it has not", f, "system:node:a", "system:node:a", "system:nodes", "10.0.0.3", "has no address 10.0.0.3"},
		{"a name that it has not", f, "system:node:a", "system:node:a", "system:nodes", "a c.example.org", "has no name c.example.org"},
		{"another node's address", f, "system:node:a", "system:node:a", "system:nodes", "10.0.0.1 10.0.0.2", "node b has the address 10.0.0.2 too"},
		{"the same, as IPv6", f, "system:node:a", "system:node:a", "system:nodes", "::ffff:10.0.0.2", "node b has the address 10.0.0.2 too"},
		{"another node's name", f, "system:node:a", "system:node:a", "system:nodes", "b", "node b has the name b too"},
		{"another node's host name", f, "system:node:a", "system:node:a", "system:nodes", "b.example.org", "node b has the name b.example.org too"},
		{"the API server's address", f, "system:node:a", "system:node:a", "system:nodes", "10.0.0.9", "the API server has"},
		{"a Service's address", f, "system:node:a", "system:node:a", "system:nodes", "10.96.0.10", "Service default/web"},
		{"a load balancer's address", f, "system:node:a", "system:node:a", "system:nodes", "192.0.2.7", "Service default/web"},
		{"everybody's address", f, "system:node:a", "system:node:a", "system:nodes", "127.0.0.1", "never a node's alone"},
		{"everybody's name", f, "system:node:a", "system:node:a", "system:nodes", "localhost", "never a node's"},
		{"a Service's name", f, "system:node:a", "system:node:a", "system:nodes", "web.default.svc", "never a node's"},
		{"a Service's full name", f, "system:node:a", "system:node:a", "system:nodes", "web.default.SVC.cluster.local", "never a node's"},
		{"the API server's name", f, "system:node:a", "system:node:a", "system:nodes", "kubernetes", "never a node's"},
		{"all names", f, "system:node:a", "system:node:a", "system:nodes", "*.example.org", "never a node's"},
	} {
		r := request(pki.SignerKubeletServing, 0)
		r.Spec.Username, r.Spec.Groups = tc.user, []string{tc.group, "system:authenticated"}
		csr := &x509.CertificateRequest{Subject: pkix.Name{CommonName: tc.common}}
		for _, n := range strings.Fields(tc.names) {
			if ip := net.ParseIP(n); ip != nil {
				csr.IPAddresses = append(csr.IPAddresses, ip)
			} else {
				csr.DNSNames = append(csr.DNSNames, n)
			}
		}
		got := tc.facts.refuse(r, csr)
		if tc.want == "" && got != "" || !strings.Contains(got, tc.want) {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}
