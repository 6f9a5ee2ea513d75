package proxy

import (
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"coracle/pkg/network"
)

func labFacts() *Facts {
	return &Facts{
		NodeName:     "n1",
		ClusterPods:  []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")},
		NodePods:     []netip.Prefix{netip.MustParsePrefix("10.244.0.0/24")},
		ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")},
		LocalVIPs:    []netip.Addr{netip.MustParseAddr("10.96.0.10")},
		Reserved:     map[netip.Addr]struct{}{netip.MustParseAddr(labNode): {}},
	}
}

// testService has a TCP and a UDP port 80 to 8080.
func testService(name, ip string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: ip, ClusterIPs: []string{ip},
			Ports: []corev1.ServicePort{
				{Name: "tcp", Protocol: corev1.ProtocolTCP, Port: 80},
				{Name: "udp", Protocol: corev1.ProtocolUDP, Port: 80},
			},
		},
	}
}

func testSlice(addrs ...string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports: []discoveryv1.EndpointPort{
			{Name: ptr.To("tcp"), Protocol: ptr.To(corev1.ProtocolTCP), Port: ptr.To[int32](8080)},
			{Name: ptr.To("udp"), Protocol: ptr.To(corev1.ProtocolUDP), Port: ptr.To[int32](8080)},
		},
	}
	for _, a := range addrs {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}, NodeName: ptr.To("n1")})
	}
	return s
}

// node is a model and table driven as the loop drives them.
type node struct {
	t     *testing.T
	lab   *lab
	facts *Facts
	model *Model
	table *Table
}

func newNode(t *testing.T, pods int) *node {
	l := newLab(t, pods)
	for i := range pods {
		l.serve(i, 8080)
	}
	table, err := OpenTable(l.node.FD())
	l.must(err)
	t.Cleanup(func() { table.Close() })
	n := &node{t: t, lab: l, facts: labFacts(), model: NewModel(), table: table}
	n.replace()
	return n
}

func (n *node) replace() {
	n.t.Helper()
	state := n.model.TakeAll()
	n.lab.must(n.table.Replace(n.facts, &state))
}

func (n *node) set(svc *corev1.Service, slices ...*discoveryv1.EndpointSlice) {
	n.t.Helper()
	n.model.Set(Compute(svc, slices, n.facts))
	c := n.model.Take()
	if err := n.table.Apply(&c); err != nil {
		n.dump()
		n.t.Fatal(err)
	}
}

func (n *node) dump() {
	_ = n.lab.node.Do(func() error {
		out, _ := exec.Command("nft", "list", "ruleset").CombinedOutput()
		n.t.Logf("%s", out)
		return nil
	})
}

func TestClusterIPTraffic(t *testing.T) {
	n := newNode(t, 3)
	n.set(testService("web", "10.96.1.1"), testSlice("10.244.0.2", "10.244.0.3"))
	for _, proto := range []string{"tcp", "udp"} {
		for _, from := range []string{"client", "node", "pod2", "pod0"} {
			got := n.lab.answers(from, proto, "10.96.1.1:80", 30)
			if len(got) != 2 || got["pod0"] == 0 || got["pod1"] == 0 {
				n.dump()
				t.Fatalf("%s from %s: answers %v, want both pod0 and pod1", proto, from, got)
			}
		}
	}
	if _, peer, _ := n.lab.ask("pod2", "tcp", "10.96.1.1:80"); peer != podAddr(2).String() {
		t.Errorf("a pod's own address is hidden: the backend saw %s", peer)
	}
}

func TestRejectsAtOnce(t *testing.T) {
	n := newNode(t, 1)
	n.set(testService("web", "10.96.1.1"))
	for _, from := range []string{"client", "node", "pod0"} {
		for _, to := range []string{"10.96.1.1:80", "10.96.1.1:81", "10.96.77.77:80"} {
			if _, _, err := n.lab.ask(from, "tcp", to); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("from %s to %s: %v, want connection refused", from, to, err)
			}
		}
	}
}

func TestHairpinIsMasqueraded(t *testing.T) {
	n := newNode(t, 1)
	n.set(testService("web", "10.96.1.1"), testSlice("10.244.0.2"))
	pod, peer, err := n.lab.ask("pod0", "tcp", "10.96.1.1:80")
	if err != nil || pod != "pod0" || peer != "10.244.0.1" {
		t.Errorf("pod0 asking its own service: answer from %q, seen as %q, error %v", pod, peer, err)
	}
}

func nodePort(svc *corev1.Service, port int32) *corev1.Service {
	svc.Spec.Type = corev1.ServiceTypeNodePort
	for i := range svc.Spec.Ports {
		svc.Spec.Ports[i].NodePort = port
	}
	return svc
}

func TestNodePortAndPolicies(t *testing.T) {
	n := newNode(t, 2)
	svc := nodePort(testService("web", "10.96.1.1"), 30080)
	n.set(svc, testSlice("10.244.0.2", "10.244.0.3"))
	for _, from := range []string{"client", "node", "pod0"} {
		if got := n.lab.answers(from, "tcp", labNode+":30080", 20); len(got) != 2 {
			t.Errorf("node port from %s: %v", from, got)
		}
	}
	if _, peer, _ := n.lab.ask("client", "udp", labNode+":30080"); peer != "10.244.0.1" {
		t.Errorf("policy Cluster: backend saw %s, want the node", peer)
	}
	if _, _, err := n.lab.ask("node", "tcp", "127.0.0.1:30080"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("node port on loopback: %v, want connection refused", err)
	}

	// Only pod1 is of this node: from outside it alone answers, and sees who asks.
	slice := testSlice("10.244.0.2", "10.244.0.3")
	slice.Endpoints[0].NodeName = ptr.To("n2")
	svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	n.set(svc, slice)
	if got := n.lab.answers("client", "tcp", labNode+":30080", 10); got["pod1"] != 10 {
		t.Errorf("policy Local from outside: %v", got)
	}
	if _, peer, _ := n.lab.ask("client", "tcp", labNode+":30080"); peer != labClient {
		t.Errorf("policy Local: backend saw %s, want the client", peer)
	}
	if got := n.lab.answers("node", "tcp", labNode+":30080", 20); len(got) != 2 {
		t.Errorf("policy Local from the node: %v, want all endpoints", got)
	}
	slice.Endpoints[1].NodeName = ptr.To("n2")
	n.set(svc, slice)
	if _, _, err := n.lab.ask("client", "tcp", labNode+":30080"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("policy Local without an endpoint here: %v, want connection refused", err)
	}
	if got := n.lab.answers("client", "tcp", "10.96.1.1:80", 20); len(got) != 2 {
		t.Errorf("cluster address: %v, want all endpoints", got)
	}
}

func TestLoadBalancerAddress(t *testing.T) {
	n := newNode(t, 2)
	svc := nodePort(testService("web", "10.96.1.1"), 30080)
	svc.Spec.Type = corev1.ServiceTypeLoadBalancer
	svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{
		{IP: "203.0.113.5"}, {IP: labNode}, {IP: "203.0.113.6", IPMode: ptr.To(corev1.LoadBalancerIPModeProxy)},
	}
	n.set(svc, testSlice("10.244.0.2", "10.244.0.3"))
	if got := n.lab.answers("client", "tcp", "203.0.113.5:80", 20); len(got) != 2 {
		t.Errorf("load balancer address: %v", got)
	}
	if _, _, err := n.lab.ask("client", "tcp", labNode+":80"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a service claimed the node's address: %v", err)
	}
}

func TestAffinity(t *testing.T) {
	n := newNode(t, 3)
	svc := nodePort(testService("web", "10.96.1.1"), 30080)
	svc.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	n.set(svc, testSlice("10.244.0.2", "10.244.0.3", "10.244.0.4"))
	first, _, err := n.lab.ask("client", "tcp", "10.96.1.1:80")
	if err != nil {
		n.dump()
		t.Fatal(err)
	}
	for _, to := range []string{"10.96.1.1:80", labNode + ":30080"} {
		if got := n.lab.answers("client", "tcp", to, 15); got[first] != 15 {
			t.Errorf("affinity to %s: first answer from %s, then %v", to, first, got)
		}
	}

	// Its endpoint goes: the client moves to one other, and stays there.
	left := map[string]string{"pod0": "10.244.0.2", "pod1": "10.244.0.3", "pod2": "10.244.0.4"}
	delete(left, first)
	var addrs []string
	for _, a := range left {
		addrs = append(addrs, a)
	}
	n.set(svc, testSlice(addrs...))
	if got := n.lab.answers("client", "tcp", "10.96.1.1:80", 15); len(got) != 1 || got[first] != 0 {
		t.Errorf("after %s left: %v, want one other pod", first, got)
	}
	svc.Spec.SessionAffinity = corev1.ServiceAffinityNone
	n.set(svc, testSlice(addrs...))
	if got := n.lab.answers("client", "tcp", "10.96.1.1:80", 30); len(got) != 2 {
		t.Errorf("affinity off: %v, want both pods", got)
	}
}

func TestReplaceKeepsConnections(t *testing.T) {
	n := newNode(t, 2)
	n.set(testService("web", "10.96.1.1"), testSlice("10.244.0.2", "10.244.0.3"))
	c, err := n.lab.dial("client", "tcp", "10.96.1.1:80", 0)
	n.lab.must(err)
	before, _, err := say(c)
	n.lab.must(err)
	n.model.Remove(Compute(testService("web", ""), nil, n.facts).Name)
	n.replace()
	n.set(testService("web2", "10.96.1.2"), testSlice("10.244.0.2"))
	if after, _, err := say(c); err != nil || after != before {
		t.Errorf("established connection to %s: answer %q, error %v", before, after, err)
	}
	if _, _, err := n.lab.ask("client", "tcp", "10.96.1.1:80"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("removed service: %v, want connection refused", err)
	}
}

func TestReplaceKeepsAffinity(t *testing.T) {
	n := newNode(t, 3)
	svc := testService("web", "10.96.1.1")
	svc.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	n.set(testService("other", "10.96.1.9"), testSlice("10.244.0.2"))
	n.set(svc, testSlice("10.244.0.2", "10.244.0.3", "10.244.0.4"))
	first, _, err := n.lab.ask("client", "tcp", "10.96.1.1:80")
	n.lab.must(err)
	// As after a restart: the numbers of groups are others.
	n.model = NewModel()
	n.model.Set(Compute(svc, []*discoveryv1.EndpointSlice{testSlice("10.244.0.2", "10.244.0.3", "10.244.0.4")}, n.facts))
	n.replace()
	if got := n.lab.answers("client", "tcp", "10.96.1.1:80", 15); got[first] != 15 {
		t.Errorf("before %s, after the restart %v", first, got)
	}
}

func TestStaleUDPFlows(t *testing.T) {
	n := newNode(t, 2)
	svc := nodePort(testService("dns", "10.96.1.1"), 30053)
	n.set(svc, testSlice("10.244.0.2"))
	for _, to := range []string{"10.96.1.1:80", labNode + ":30053"} {
		n.set(svc, testSlice("10.244.0.2"))
		c, err := n.lab.dial("client", "udp", to, 0)
		n.lab.must(err)
		if pod, _, err := say(c); err != nil || pod != "pod0" {
			t.Fatalf("%s: %q, %v", to, pod, err)
		}
		n.model.Set(Compute(svc, []*discoveryv1.EndpointSlice{testSlice("10.244.0.3")}, n.facts))
		changes := n.model.Take()
		n.lab.must(n.table.Apply(&changes))
		fronts := map[netip.AddrPort]UDPFront{}
		for _, f := range changes.UDP {
			fronts[netip.AddrPortFrom(f.Addr, f.Port)] = f
		}
		clean := func() (uint, error) {
			return network.DeleteUDPFlows(n.lab.node.FD(), func(f network.Flow) bool { return stale(f, fronts) })
		}
		if count, err := clean(); err != nil || count == 0 {
			t.Fatalf("%s: ended %d flows, error %v", to, count, err)
		}
		if pod, _, err := say(c); err != nil || pod != "pod1" {
			t.Errorf("%s: the same socket reaches %q, error %v; want pod1", to, pod, err)
		}
		if count, err := clean(); err != nil || count != 0 {
			t.Errorf("%s: ended %d live flows, error %v", to, count, err)
		}
	}
}

func TestOnePortTwoProtocols(t *testing.T) {
	n := newNode(t, 1)
	svc := testService("web", "10.96.1.1")
	n.set(svc, testSlice("10.244.0.2"))
	svc.Spec.Ports = svc.Spec.Ports[1:]
	n.set(svc, testSlice("10.244.0.2"))
	if _, _, err := n.lab.ask("client", "tcp", "10.96.1.1:80"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dropped TCP port: %v, want connection refused", err)
	}
	if pod, _, err := n.lab.ask("client", "udp", "10.96.1.1:80"); err != nil || pod != "pod0" {
		t.Errorf("kept UDP port: %q, %v", pod, err)
	}
}

func TestLoadBalancerSources(t *testing.T) {
	n := newNode(t, 1)
	svc := testService("web", "10.96.1.1")
	svc.Spec.Type = corev1.ServiceTypeLoadBalancer
	svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "203.0.113.5"}}
	for _, tt := range []struct {
		ranges []string
		ok     bool
	}{{[]string{"198.51.100.0/24"}, false}, {[]string{"198.51.100.0/24", "192.168.7.0/24"}, true}, {[]string{"typo"}, false}, {nil, true}} {
		svc.Spec.LoadBalancerSourceRanges = tt.ranges
		n.set(svc, testSlice("10.244.0.2"))
		if _, _, err := n.lab.ask("client", "udp", "203.0.113.5:80"); (err == nil) != tt.ok {
			t.Errorf("ranges %q: %v", tt.ranges, err)
		}
		if _, _, err := n.lab.ask("client", "udp", "10.96.1.1:80"); err != nil {
			t.Errorf("ranges %q: cluster address: %v", tt.ranges, err)
		}
	}
}

// TestLocalVIP shows that the address the node itself serves is left alone, even
// where a Service claims it, while other ports of the range are rejected.
func TestLocalVIP(t *testing.T) {
	n := newNode(t, 1)
	n.lab.must(n.lab.node.EnsureAddr("lo", netip.MustParsePrefix("10.96.0.10/32")))
	var dns net.PacketConn
	n.lab.must(n.lab.node.Do(func() (err error) {
		dns, err = net.ListenPacket("udp", "10.96.0.10:53")
		return err
	}))
	defer dns.Close()
	go func() {
		buf := make([]byte, 64)
		for {
			_, peer, err := dns.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = dns.WriteTo([]byte("node "+peer.String()+"\n"), peer)
		}
	}()
	svc := testService("kube-dns", "10.96.0.10")
	svc.Spec.Ports[1].Port = 53
	n.set(svc)
	for _, from := range []string{"pod0", "node"} {
		if who, _, err := n.lab.ask(from, "udp", "10.96.0.10:53"); err != nil || who != "node" {
			t.Errorf("from %s: %q, %v", from, who, err)
		}
	}
}

// TestTableAfterFailure shows that a refused transaction changes nothing and
// does not spoil the next.
func TestTableAfterFailure(t *testing.T) {
	n := newNode(t, 1)
	n.set(testService("web", "10.96.1.1"), testSlice("10.244.0.2"))
	bad := Changes{Fronts: Diff[FrontKey, Target]{Del: []FrontKey{{Addr: netip.MustParseAddr("10.96.9.9"), Proto: TCP, Port: 1}}}}
	if err := n.table.Apply(&bad); err == nil {
		t.Fatal("deleting what is not there was accepted")
	}
	if _, _, err := n.lab.ask("client", "tcp", "10.96.1.1:80"); err != nil {
		t.Errorf("after a refused transaction: %v", err)
	}
	n.set(testService("web2", "10.96.1.2"), testSlice("10.244.0.2"))
	if _, _, err := n.lab.ask("client", "tcp", "10.96.1.2:80"); err != nil {
		t.Errorf("next transaction: %v", err)
	}
}
