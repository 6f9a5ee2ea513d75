package proxy

import (
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// FuzzCompute puts any text in the fields that users write: no front and no
// endpoint may be an address that nobody may have, and encoding them may not
// fail or change their length.
func FuzzCompute(f *testing.F) {
	f.Add("10.96.1.1", "203.0.113.5", "10.0.0.0/8", "10.244.0.2", "http", int32(80), int32(30080))
	f.Add("::ffff:10.0.0.1", labNode, "0.0.0.0/0", "127.0.0.1", "", int32(-1), int32(70000))
	f.Add("fd00:96::1", "fe80::1%eth0", "x", "169.254.169.254", "}; drop", int32(65535), int32(0))
	f.Fuzz(func(t *testing.T, clusterIP, ingress, sources, endpoint, name string, port, nodePort int32) {
		svc := testService("web", clusterIP)
		svc.Spec.Type = corev1.ServiceTypeLoadBalancer
		svc.Spec.ExternalIPs = []string{ingress}
		svc.Spec.LoadBalancerSourceRanges = []string{sources}
		svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: ingress}}
		svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Name: name, Port: port, NodePort: nodePort})
		slice := testSlice(endpoint)
		slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{Name: &name, Port: &port})
		facts := labFacts()
		facts.ExternalIPs = true
		m := NewModel()
		m.Set(Compute(svc, []*discoveryv1.EndpointSlice{slice}, facts))
		c := m.TakeAll()
		for _, e := range c.Fronts.Add {
			a := e.Key.Addr
			if _, reserved := facts.Reserved[a]; reserved || !a.IsUnspecified() && !reachable(a) || e.Key.Port == 0 {
				t.Fatalf("front %v", e.Key)
			}
			if n := len(frontBytes(e.Key)); n != a.BitLen()/8+8 {
				t.Fatalf("front %v is %d bytes", e.Key, n)
			}
		}
		for _, e := range c.Backends.Add {
			if !reachable(e.Value.Addr()) || e.Value.Port() == 0 || e.Value.Addr() == netip.IPv4Unspecified() {
				t.Fatalf("endpoint %v", e.Value)
			}
		}
		for _, e := range c.Guards.Add {
			if e.Value != nobody && len(e.Value.prefixes()) == 0 {
				t.Fatalf("guard %q of %v", e.Value, e.Key)
			}
		}
	})
}
