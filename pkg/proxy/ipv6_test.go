package proxy

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/utils/ptr"

	"coracle/pkg/network"
)

// serveSix gives a pod of the lab an IPv6 address and a server that sends its
// name to whoever connects.
func (l *lab) serveSix(pod, ip string) {
	l.t.Helper()
	ns := l.ns[pod]
	l.must(ns.EnsureAddr("eth0", netip.MustParsePrefix(ip+"/64")))
	l.must(ns.EnsureRoute(network.Route{Dst: netip.MustParsePrefix("::/0"), Via: netip.MustParseAddr("fd00:244::1")}))
	var lis net.Listener
	l.must(ns.Do(func() (err error) {
		lis, err = net.Listen("tcp", net.JoinHostPort(ip, "8080"))
		return err
	}))
	l.t.Cleanup(func() { lis.Close() })
	go func() {
		for {
			c, err := lis.Accept()
			if err != nil {
				return
			}
			peer := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().String()
			_, _ = c.Write([]byte(pod + " " + peer + "\n"))
			_ = c.(*net.TCPConn).CloseWrite()
		}
	}()
}

func TestIPv6Traffic(t *testing.T) {
	n := newNode(t, 2)
	l := n.lab
	l.must(l.node.Do(func() error {
		return errors.Join(
			os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0o644),
			os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-ip6tables", []byte("1"), 0o644),
		)
	}))
	l.must(l.node.EnsureAddr("eth0", netip.MustParsePrefix("fd00:7::1/64")))
	l.must(l.ns["client"].EnsureAddr("eth0", netip.MustParsePrefix("fd00:7::2/64")))
	l.must(l.ns["client"].EnsureRoute(network.Route{Dst: netip.MustParsePrefix("::/0"), Via: netip.MustParseAddr("fd00:7::1")}))
	l.must(l.node.EnsureAddr("cni0", netip.MustParsePrefix("fd00:244::1/64")))
	l.must(l.node.EnsureRoute(network.Route{Dst: netip.MustParsePrefix("fd00:96::/108"), Link: "eth0"}))
	l.serveSix("pod0", "fd00:244::2")
	l.serveSix("pod1", "fd00:244::3")

	svc := nodePort(testService("web", "10.96.1.1"), 30080)
	svc.Spec.ClusterIPs = []string{"10.96.1.1", "fd00:96::1"}
	six := testSlice("fd00:244::2", "fd00:244::3")
	six.AddressType = discoveryv1.AddressTypeIPv6
	n.facts.ServiceCIDRs = append(n.facts.ServiceCIDRs, netip.MustParsePrefix("fd00:96::/108"))
	n.facts.ClusterPods = append(n.facts.ClusterPods, netip.MustParsePrefix("fd00:244::/48"))
	n.facts.NodePods = append(n.facts.NodePods, netip.MustParsePrefix("fd00:244::/64"))
	n.model.Set(Compute(svc, []*discoveryv1.EndpointSlice{testSlice("10.244.0.2"), six}, n.facts))
	// The table was made for IPv4: the difference is refused, and it is made anew.
	c := n.model.Take()
	if err := n.table.Apply(&c); !errors.Is(err, errFamily) {
		t.Fatalf("IPv6 in an IPv4 table: %v", err)
	}
	n.replace()

	for _, from := range []string{"client", "node", "pod0"} {
		for _, to := range []string{"[fd00:96::1]:80", "[fd00:7::1]:30080"} {
			if got := l.answers(from, "tcp", to, 30); len(got) != 2 {
				n.dump()
				t.Fatalf("from %s to %s: %v, want both pods", from, to, got)
			}
		}
		if _, _, err := l.ask(from, "tcp", "[fd00:96::77]:80"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("from %s to an address nobody has: %v", from, err)
		}
	}
	if got := l.answers("client", "tcp", "10.96.1.1:80", 5); got["pod0"] != 5 {
		t.Errorf("IPv4 beside it: %v", got)
	}
	svc.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	svc.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: ptr.To[int32](60)}}
	n.set(svc, six)
	if got := l.answers("client", "tcp", "[fd00:96::1]:80", 15); len(got) != 1 {
		t.Errorf("affinity: %v, want one pod", got)
	}
}
