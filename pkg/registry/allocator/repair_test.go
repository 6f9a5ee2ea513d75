package allocator

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var testNow = time.Date(2026, 1, 1, 2, 0, 0, 0, time.UTC)

func service(name string, ip string, ports ...int32) *corev1.Service {
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "a", CreationTimestamp: metav1.Time{Time: testNow}}}
	svc.Spec.Type, svc.Spec.ClusterIP, svc.Spec.ClusterIPs = corev1.ServiceTypeNodePort, ip, []string{ip}
	for _, p := range ports {
		svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Port: p, NodePort: p})
	}
	return svc
}

func address(ip, owner string, old time.Duration) *networkingv1.IPAddress {
	return &networkingv1.IPAddress{
		ObjectMeta: metav1.ObjectMeta{Name: ip, Labels: map[string]string{networkingv1.LabelManagedBy: manager},
			CreationTimestamp: metav1.Time{Time: testNow.Add(-old)}},
		Spec: networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Resource: "services", Namespace: "a", Name: owner}},
	}
}

func set(ports ...int32) *portSet {
	s := &portSet{portRange: portRange{30000, 30100}}
	for _, p := range ports {
		s.set(p)
	}
	return s
}

// said is a round of repair as text.
func said(r repairs) []string {
	var out []string
	for _, m := range r.create {
		out = append(out, fmt.Sprintf("take %s for %s", m.address, m.service.Name))
	}
	for _, a := range r.remove {
		out = append(out, "free "+a.Name)
	}
	for _, p := range r.mark {
		out = append(out, fmt.Sprintf("mark %d", p))
	}
	for _, p := range r.clear {
		out = append(out, fmt.Sprintf("clear %d", p))
	}
	for _, p := range slices.Sorted(maps.Keys(r.leaks)) {
		out = append(out, fmt.Sprintf("leak %d since %d", p, r.leaks[p]))
	}
	for _, f := range r.report {
		out = append(out, f.reason+" "+f.service.Name)
	}
	return out
}

func TestRepair(t *testing.T) {
	other := address("10.96.0.9", "x", time.Hour)
	other.Labels = nil
	for _, c := range []struct {
		name      string
		services  []*corev1.Service
		addresses []*networkingv1.IPAddress
		ports     *portSet
		leaks     map[int32]int
		want      []string
	}{
		{name: "all is well", services: []*corev1.Service{service("web", "10.96.0.5", 30001)},
			addresses: []*networkingv1.IPAddress{address("10.96.0.5", "web", time.Hour)}, ports: set(30001)},
		{name: "missing", services: []*corev1.Service{service("web", "10.96.0.5", 30001)}, ports: set(),
			want: []string{"take 10.96.0.5 for web", "mark 30001"}},
		{name: "headless", services: []*corev1.Service{service("web", "None")}, ports: set()},
		{name: "an address of another", services: []*corev1.Service{service("web", "10.96.0.5")},
			addresses: []*networkingv1.IPAddress{address("10.96.0.5", "gone", 0)}, ports: set(),
			want: []string{"take 10.96.0.5 for web", "free 10.96.0.5"}},
		{name: "an address that leaked", addresses: []*networkingv1.IPAddress{address("10.96.0.5", "web", time.Hour)}, ports: set(),
			want: []string{"free 10.96.0.5"}},
		{name: "an address that may be in use in a moment", addresses: []*networkingv1.IPAddress{address("10.96.0.5", "web", time.Minute)}, ports: set()},
		{name: "somebody else's address", addresses: []*networkingv1.IPAddress{other}, ports: set()},
		{name: "a port that leaked", ports: set(30002), want: []string{"leak 30002 since 1"}},
		{name: "a port that leaked for long", ports: set(30002, 30003), leaks: map[int32]int{30002: 2},
			want: []string{"clear 30002", "leak 30003 since 1"}},
		{name: "a port that is used again", services: []*corev1.Service{service("web", "None", 30002)}, ports: set(30002), leaks: map[int32]int{30002: 2}},
		{name: "used twice", services: []*corev1.Service{service("web", "10.96.0.5", 30001), service("zeb", "10.96.0.5", 30001)},
			addresses: []*networkingv1.IPAddress{address("10.96.0.5", "web", time.Hour)}, ports: set(30001),
			want: []string{"ClusterIPAlreadyAllocated zeb", "PortAlreadyAllocated zeb"}},
		{name: "out of range", services: []*corev1.Service{service("web", "10.97.0.5", 31000)},
			addresses: []*networkingv1.IPAddress{address("10.97.0.5", "web", time.Hour)}, ports: set(),
			want: []string{"ClusterIPOutOfRange web", "PortOutOfRange web"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := repair(observed{services: c.services, addresses: c.addresses, ports: c.ports, leaks: c.leaks, now: testNow,
				ranges: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}})
			if diff := cmp.Diff(c.want, said(got)); diff != "" {
				t.Errorf("repair (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRanges(t *testing.T) {
	for _, c := range []struct {
		prefix      string
		first, last string
		static      uint64
	}{
		{"10.96.0.0/16", "10.96.0.1", "10.96.255.254", 256},
		{"10.96.0.0/24", "10.96.0.1", "10.96.0.254", 16},
		{"10.96.0.0/28", "10.96.0.1", "10.96.0.14", 1},
		{"fd00::/120", "fd00::1", "fd00::ff", 16},
		{"fd00::/108", "fd00::1", "fd00::f:ffff", 256},
	} {
		p := netip.MustParsePrefix(c.prefix)
		first, end := hosts(p)
		if a, b := addressAt(p, first).String(), addressAt(p, end-1).String(); a != c.first || b != c.last {
			t.Errorf("%s goes from %s to %s, want %s to %s", c.prefix, a, b, c.first, c.last)
		}
		if got := staticAddresses(end - first + 1); got != c.static {
			t.Errorf("%s keeps %d addresses, want %d", c.prefix, got, c.static)
		}
		if !usable(p, addressAt(p, first)) || !usable(p, addressAt(p, end-1)) || usable(p, p.Addr()) {
			t.Errorf("%s: the ends are not usable, or its first address is", c.prefix)
		}
	}
	if r := (portRange{30000, 32767}); r.static() != 86 {
		t.Errorf("%s keeps %d ports, want 86", r, r.static())
	}
}
