package network

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// netipEqual lets cmp look at addresses.
var netipEqual = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

func testRanges() Ranges {
	return Ranges{Pods: []netip.Prefix{prefix("10.244.0.0/16"), prefix("fd00:244::/48")}, Services: []netip.Prefix{prefix("10.96.0.0/16")}}
}

func testNode(name, ip string, cidrs ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{PodCIDRs: cidrs}}
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}, {Type: corev1.NodeInternalIP, Address: ip}}
	return n
}

func TestConfList(t *testing.T) {
	const want = `{
  "cniVersion": "1.0.0",
  "name": "coracle",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "cni0",
      "mtu": 1400,
      "isGateway": true,
      "hairpinMode": true,
      "ipam": {
        "type": "host-local",
        "ranges": [
          [
            {
              "subnet": "10.244.1.0/24"
            }
          ],
          [
            {
              "subnet": "fd00:244:0:1::/64"
            }
          ]
        ],
        "routes": [
          {
            "dst": "0.0.0.0/0"
          },
          {
            "dst": "::/0"
          }
        ]
      }
    }
  ]
}
`
	if d := cmp.Diff(want, string(ConfList([]netip.Prefix{prefix("10.244.1.0/24"), prefix("fd00:244:0:1::/64")}, 1400))); d != "" {
		t.Errorf("configuration (-want +got):\n%s", d)
	}
}

func TestConfFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "net.d")
	if name, err := findForeign(dir); name != "" || err != nil {
		t.Errorf("no folder: %q, %v", name, err)
	}
	for i, want := range []bool{true, false} {
		if changed, err := writeConf(dir, []byte("a")); err != nil || changed != want {
			t.Errorf("write %d: changed %v, error %v", i, changed, err)
		}
	}
	for name, foreign := range map[string]bool{
		"10-flannel.conflist": true, "05-cilium.conf": true, "x.json": true,
		"87-podman-bridge.conflist": false, "200-loopback.conf": false, "README": false, ConfFile: false,
	} {
		if got := foreignConf(name); got != foreign {
			t.Errorf("%s: foreign %v, want %v", name, got, foreign)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "10-flannel.conflist"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if name, err := findForeign(dir); name != "10-flannel.conflist" || err != nil {
		t.Errorf("found %q, %v", name, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("files left: %v, %v", entries, err)
	}
}

func TestRoutes(t *testing.T) {
	ranges := testRanges()
	late := testNode("z", "192.168.7.9", "10.244.2.0/25")
	late.CreationTimestamp = metav1.NewTime(time.Unix(100, 0))
	six := testNode("e", "192.168.7.5", "10.244.5.0/24", "fd00:244:0:5::/64")
	six.Status.Addresses = append(six.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: "fd00:7::5"})
	got := Routes("a", []*corev1.Node{
		late,
		testNode("a", "192.168.7.1", "10.244.1.0/24"),
		testNode("b", "192.168.7.2", "10.244.2.0/24"),
		testNode("everything", "192.168.7.66", "0.0.0.0/0"),
		testNode("services", "192.168.7.66", "10.96.0.0/24"),
		testNode("mine", "192.168.7.66", "10.244.1.0/25"),
		testNode("crooked", "192.168.7.66", "10.244.3.7/24"),
		testNode("none", "192.168.7.7"),
		testNode("loopback", "127.0.0.1", "10.244.4.0/24"),
		six,
	}, &ranges)
	want := []Route{
		{Dst: prefix("10.244.2.0/24"), Via: addr("192.168.7.2")},
		{Dst: prefix("10.244.5.0/24"), Via: addr("192.168.7.5")},
		{Dst: prefix("fd00:244:0:5::/64"), Via: addr("fd00:7::5")},
	}
	if d := cmp.Diff(want, got, netipEqual); d != "" {
		t.Errorf("routes (-want +got):\n%s", d)
	}
}

// TestRouteChangesProperty applies the changes between random sets of routes
// and expects exactly the wanted ones.
func TestRouteChangesProperty(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	random := func() map[netip.Prefix]Route {
		out := map[netip.Prefix]Route{}
		for range r.IntN(6) {
			p := prefix(fmt.Sprintf("10.244.%d.0/24", r.IntN(6)))
			out[p] = Route{Dst: p, Via: addr(fmt.Sprintf("192.168.7.%d", 1+r.IntN(3)))}
		}
		return out
	}
	list := func(m map[netip.Prefix]Route) (out []Route) {
		for _, v := range m {
			out = append(out, v)
		}
		return out
	}
	for range 1000 {
		have, want := random(), random()
		del, add := routeChanges(list(have), list(want))
		for _, d := range del {
			delete(have, d.Dst)
		}
		for _, a := range add {
			if old, ok := have[a.Dst]; ok && old == a {
				t.Fatalf("adds %v, which is there", a)
			}
			have[a.Dst] = a
		}
		if d := cmp.Diff(want, have, netipEqual); d != "" {
			t.Fatalf("routes (-want +got):\n%s", d)
		}
	}
}

func portPod(name, ip string, ports ...corev1.ContainerPort) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
		Spec:       corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Ports: ports}}},
		Status:     corev1.PodStatus{PodIPs: []corev1.PodIP{{IP: ip}}},
	}
}

func TestHostPorts(t *testing.T) {
	young := portPod("young", "10.244.1.9", corev1.ContainerPort{HostPort: 80, ContainerPort: 1})
	young.CreationTimestamp = metav1.NewTime(time.Unix(100, 0))
	done := portPod("done", "10.244.1.8", corev1.ContainerPort{HostPort: 81, ContainerPort: 1})
	done.Status.Phase = corev1.PodSucceeded
	host := portPod("host", "10.244.1.8", corev1.ContainerPort{HostPort: 82, ContainerPort: 82})
	host.Spec.HostNetwork = true
	got := HostPorts([]*corev1.Pod{
		young, done, host,
		portPod("a", "10.244.1.2", corev1.ContainerPort{HostPort: 80, ContainerPort: 8080}, corev1.ContainerPort{ContainerPort: 9}),
		portPod("b", "10.244.1.3", corev1.ContainerPort{HostPort: 80, ContainerPort: 53, Protocol: corev1.ProtocolUDP}),
		portPod("c", "10.244.1.4", corev1.ContainerPort{HostPort: 80, ContainerPort: 8080, HostIP: "127.0.0.1"}),
		portPod("d", "10.244.1.5", corev1.ContainerPort{HostPort: 80, ContainerPort: 8080, HostIP: "192.168.7.1"}),
		portPod("e", "10.244.1.6", corev1.ContainerPort{HostPort: 90, ContainerPort: 1, HostIP: "::1"}),
		portPod("f", "fd00:244::6", corev1.ContainerPort{HostPort: 90, ContainerPort: 1}),
	})
	at := netip.MustParseAddrPort
	want := []HostPort{
		{addr("0.0.0.0"), 6, 80, at("10.244.1.2:8080")},
		{addr("0.0.0.0"), 17, 80, at("10.244.1.3:53")},
		{addr("127.0.0.1"), 6, 80, at("10.244.1.4:8080")},
		{addr("192.168.7.1"), 6, 80, at("10.244.1.5:8080")},
		{addr("::"), 6, 90, at("[fd00:244::6]:1")},
	}
	if d := cmp.Diff(want, got, netipEqual); d != "" {
		t.Errorf("host ports (-want +got):\n%s", d)
	}
	// The wildcard's relay gives way to the pod that asked for loopback alone.
	relayed := loopbackPorts(got)
	wantRelayed := []HostPort{
		{addr("127.0.0.1"), 17, 80, at("10.244.1.3:53")},
		{addr("127.0.0.1"), 6, 80, at("10.244.1.4:8080")},
		{addr("::1"), 6, 90, at("[fd00:244::6]:1")},
	}
	if d := cmp.Diff(wantRelayed, relayed, netipEqual); d != "" {
		t.Errorf("relays (-want +got):\n%s", d)
	}
}
