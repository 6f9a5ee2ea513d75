package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestPodNetwork(t *testing.T) {
	c, pod1, pod2 := twoNodes(t)
	c.serve("outside", "192.168.7.200:80")
	c.serve("n2", "192.168.7.2:80")
	c.serve("n1", "10.96.0.10:53")
	for _, network := range []string{"tcp", "udp"} {
		c.expect("pod1", network, pod2+":8080", "pod2 saw "+pod1)
		c.expect("n1", network, pod2+":8080", "pod2 saw 192.168.7.1")
		c.expect("n1", network, pod1+":8080", "pod1 saw 10.244.1.1")
		c.expect("pod1", network, "192.168.7.2:80", "n2 saw "+pod1)
		c.expect("pod1", network, "192.168.7.200:80", "outside saw 192.168.7.1")
		c.expect("pod1", network, "10.96.0.10:53", "n1 saw "+pod1)
	}
	if r, err := c.ns["n1"].RouteTo(addr("10.96.5.5")); err != nil || r.Link != "eth0" || r.Src != addr("192.168.7.1") {
		t.Errorf("route to a service: %+v, %v", r, err)
	}
	if mtu, err := c.ns["pod1"].MTU("eth0"); err != nil || mtu != 1400 {
		t.Errorf("MTU in a pod: %d, %v; want the uplink's 1400", mtu, err)
	}

	// A node leaves: its route goes. Somebody else's route stays.
	foreign := exec.Command("ip", "route", "add", "10.250.0.0/24", "via", "192.168.7.2")
	c.must(c.ns["n1"].Do(foreign.Run))
	c.must(c.client.CoreV1().Nodes().Delete(t.Context(), "n2", metav1.DeleteOptions{}))
	c.eventually("route to a node that is gone", func() error {
		routes, err := c.ns["n1"].OwnRoutes()
		if err != nil || len(routes) != 1 {
			return fmt.Errorf("routes %v, %v; want the service range's alone", routes, err)
		}
		return nil
	})
	if _, err := c.ns["n1"].RouteTo(addr("10.250.0.1")); err != nil {
		t.Errorf("another program's route: %v", err)
	}
}

func TestHostPortTraffic(t *testing.T) {
	tcp := func(host int32, ip string) corev1.ContainerPort {
		return corev1.ContainerPort{HostPort: host, ContainerPort: 8080, HostIP: ip}
	}
	udp := tcp(5000, "")
	udp.Protocol = corev1.ProtocolUDP
	pod := portPod("p", "10.244.1.2", tcp(5000, ""), udp, tcp(6000, "127.0.0.1"), tcp(7000, "192.168.7.1"))
	c, pod1, _ := twoNodes(t, pod)
	if pod1 != "10.244.1.2" {
		t.Fatalf("pod1 has %s", pod1)
	}
	c.eventually("host port", func() error {
		_, err := c.ask("outside", "tcp", "192.168.7.1:5000")
		return err
	})
	for _, network := range []string{"tcp", "udp"} {
		c.expect("outside", network, "192.168.7.1:5000", "pod1 saw 192.168.7.200")
		c.expect("n1", network, "192.168.7.1:5000", "pod1 saw 192.168.7.1")
		c.expect("n1", network, "127.0.0.1:5000", "pod1 saw 10.244.1.1")
		c.expect("pod1", network, "192.168.7.1:5000", "pod1 saw 10.244.1.1")
	}
	c.expect("n1", "tcp", "127.0.0.1:6000", "pod1 saw 10.244.1.1")
	c.expect("outside", "tcp", "192.168.7.1:7000", "pod1 saw 192.168.7.200")
	if got, err := c.ask("outside", "tcp", "192.168.7.1:6000"); err == nil {
		t.Errorf("a loopback host port answers outside: %q", got)
	}
	if got, err := c.ask("n1", "tcp", "127.0.0.1:7000"); err == nil {
		t.Errorf("a host port of one address answers on loopback: %q", got)
	}
	c.must(c.client.CoreV1().Pods("default").Delete(t.Context(), "p", metav1.DeleteOptions{}))
	c.eventually("host port after its pod", func() error {
		for _, at := range []string{"192.168.7.1:5000", "127.0.0.1:5000"} {
			if _, err := c.ask("n1", "tcp", at); err == nil {
				return errors.New(at + " still answers")
			}
		}
		return nil
	})
}

func TestForeignNetworkIsLeftAlone(t *testing.T) {
	c, _, _ := twoNodes(t)
	theirs := filepath.Join(c.cniDir("n1"), "10-flannel.conflist")
	c.must(os.WriteFile(theirs, []byte("{}"), 0o644))
	c.eventually("withdrawal", func() error {
		if err := c.hasConf("n1"); err == nil {
			return errors.New("our configuration is still there")
		}
		routes, err := c.ns["n1"].OwnRoutes()
		if err != nil || len(routes) != 1 {
			return fmt.Errorf("routes %v, %v; want the service range's alone", routes, err)
		}
		return nil
	})
	if b, err := os.ReadFile(theirs); err != nil || string(b) != "{}" {
		t.Errorf("their file: %q, %v", b, err)
	}
	c.must(os.Remove(theirs))
	c.eventually("return", func() error { return c.hasConf("n1") })
}

func TestNetworkRepairs(t *testing.T) {
	c, pod1, pod2 := twoNodes(t)
	c.must(c.ns["n1"].DeleteRoute(Route{Dst: prefix("10.244.2.0/24")}))
	c.must(c.ns["n1"].DeleteAddr("lo", prefix("10.96.0.10/32")))
	c.eventually("repair", func() error {
		if got, err := c.ask("pod1", "tcp", pod2+":8080"); err != nil || got != "pod2 saw "+pod1 {
			return fmt.Errorf("%q, %w", got, err)
		}
		if _, ok := c.ns["n1"].LinkWith(addr("10.96.0.10")); !ok {
			return errors.New("the DNS address is missing")
		}
		return nil
	})
}

func TestRestartAndRemove(t *testing.T) {
	c := newCluster(t)
	c.must(c.client.Tracker().Add(testNode("n1", "192.168.7.1", "10.244.1.0/24")))
	c.must(c.client.Tracker().Add(testNode("n2", "192.168.7.2", "10.244.2.0/24")))
	n1 := c.ns["n1"]
	complete := func() error {
		if routes, err := n1.OwnRoutes(); err != nil || len(routes) != 2 {
			return fmt.Errorf("routes %v, %w", routes, err)
		}
		return c.hasConf("n1")
	}
	stop := c.run("n1")
	c.eventually("first start", complete)
	stop()
	c.must(complete()) // What pods need stays while the agent is away.
	c.must(n1.EnsureRoute(Route{Dst: prefix("10.244.9.0/24"), Via: addr("192.168.7.2")}))
	stop = c.run("n1")
	c.eventually("stale route removed by the second start", complete)
	stop()
	for range 2 {
		c.must(Remove(n1, c.cniDir("n1"), []netip.Addr{addr("10.96.0.10")}))
	}
	routes, err := n1.OwnRoutes()
	_, vip := n1.LinkWith(addr("10.96.0.10"))
	if err != nil || len(routes) != 0 || vip || c.hasConf("n1") == nil {
		t.Errorf("left over: routes %v (%v), local address %v, CNI configuration %v", routes, err, vip, c.hasConf("n1") == nil)
	}
}

func TestPrimitivesAreIdempotent(t *testing.T) {
	c := newCluster(t)
	n1 := c.ns["n1"]
	for range 2 {
		c.must(c.bridge.EnsureBridge("br0", 1400))
		c.must(EnsureVeth(VethEnd{c.bridge, "port0"}, VethEnd{n1, "eth0"}, 1400))
		c.must(c.bridge.SetMaster("port0", "br0"))
		c.must(n1.EnsureAddr("eth0", prefix("192.168.7.1/24")))
		c.must(n1.EnsureRoute(Route{Dst: prefix("0.0.0.0/0"), Via: addr("192.168.7.200")}))
	}
	addrs, err := n1.Addrs()
	c.must(err)
	if !containsPrefix(addrs, "192.168.7.1/24") {
		t.Errorf("addresses %v", addrs)
	}
	for range 2 {
		c.must(n1.DeleteRoute(Route{Dst: prefix("0.0.0.0/0")}))
		c.must(n1.DeleteAddr("eth0", prefix("192.168.7.1/24")))
		c.must(c.bridge.DeleteLink("port0"))
	}
	if ok, err := n1.HasLink("eth0"); ok || err != nil {
		t.Errorf("other end of a deleted pair: %v, %v", ok, err)
	}
	// A bridge of that name that is none is not taken over.
	if err := n1.EnsureBridge("lo", 0); err == nil {
		t.Error("lo was taken for a bridge")
	}
	path := filepath.Join(c.dir, "again")
	for range 2 {
		ns, err := CreateNS(path)
		c.must(err)
		ns.Close()
	}
	for range 2 {
		c.must(DeleteNS(path))
	}
	if _, err := OpenNS(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("opening a deleted namespace: %v", err)
	}
}

func containsPrefix(list []netip.Prefix, p string) bool {
	for _, x := range list {
		if x.String() == p {
			return true
		}
	}
	return false
}
