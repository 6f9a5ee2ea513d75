package announce

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

var (
	pool  = netip.MustParsePrefix("10.89.0.128/25")
	epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
)

func node(name string, change ...func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{
		Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.89.0." + name[1:]}},
	}}
	for _, f := range change {
		f(n)
	}
	return n
}

func unknown(n *corev1.Node)  { n.Status.Conditions[0].Status = corev1.ConditionUnknown }
func leaving(n *corev1.Node)  { n.DeletionTimestamp = &metav1.Time{Time: epoch} }
func excluded(n *corev1.Node) { n.Labels = map[string]string{corev1.LabelNodeExcludeBalancers: ""} }
func unnamed(n *corev1.Node)  { n.Status.Addresses = nil }

func balancer(name string, addresses ...string) *corev1.Service {
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, CreationTimestamp: metav1.Time{Time: epoch}}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer}}
	for _, a := range addresses {
		svc.Status.LoadBalancer.Ingress = append(svc.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: a})
	}
	return svc
}

// endpoint is one of a slice: state is r(eady), t(erminating and serving) or
// g(one: neither).
func endpoint(node string, state byte) discoveryv1.Endpoint {
	ready, serving, terminating := state == 'r', state != 'g', state == 't'
	return discoveryv1.Endpoint{NodeName: &node, Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &terminating}}
}

func TestLines(t *testing.T) {
	nodes := []*corev1.Node{node("n1"), node("n2"), node("n3"), node("n4", unknown), node("n5", leaving), node("n6", excluded), node("n7", unnamed)}
	local := balancer("local", "10.89.0.130")
	local.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	proxied := balancer("proxied", "10.89.0.130")
	mode := corev1.LoadBalancerIPModeProxy
	proxied.Status.LoadBalancer.Ingress[0].IPMode = &mode
	plain := balancer("plain", "10.89.0.130")
	plain.Spec.Type = corev1.ServiceTypeClusterIP
	younger := local.DeepCopy()
	younger.CreationTimestamp.Time = epoch.Add(time.Second)
	for _, c := range []struct {
		name      string
		services  []*corev1.Service
		endpoints []discoveryv1.Endpoint
		want      map[string][]string // sorted names by address
	}{
		{name: "ready nodes stand by", services: []*corev1.Service{balancer("a", "10.89.0.130", "10.89.0.131")},
			want: map[string][]string{"10.89.0.130": {"n1", "n2", "n3"}, "10.89.0.131": {"n1", "n2", "n3"}}},
		{name: "others' addresses", services: []*corev1.Service{balancer("a", "192.0.2.1", "", "here"), proxied, plain}, want: map[string][]string{}},
		{name: "local", services: []*corev1.Service{local}, endpoints: []discoveryv1.Endpoint{endpoint("n2", 'r'), endpoint("n3", 't'), endpoint("n4", 'r')},
			want: map[string][]string{"10.89.0.130": {"n2"}}},
		{name: "local, at the end", services: []*corev1.Service{local}, endpoints: []discoveryv1.Endpoint{endpoint("n2", 'g'), endpoint("n3", 't')},
			want: map[string][]string{"10.89.0.130": {"n3"}}},
		{name: "local without endpoints", services: []*corev1.Service{local}, want: map[string][]string{"10.89.0.130": nil}},
		{name: "the older one's", services: []*corev1.Service{younger, balancer("a", "10.89.0.130")}, want: map[string][]string{"10.89.0.130": {"n1", "n2", "n3"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := map[string][]string{}
			of := func(types.NamespacedName) []*discoveryv1.EndpointSlice {
				return []*discoveryv1.EndpointSlice{{Endpoints: c.endpoints}}
			}
			for _, l := range lines(c.services, of, nodes, pool) {
				var names []string
				for _, n := range l.nodes {
					names = append(names, n.name)
				}
				slices.Sort(names)
				got[l.address.String()] = names
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("lines (-want +got):\n%s", diff)
			}
		})
	}
}

// TestOneHolder lets any nodes die: of those that live and agree on who does,
// exactly one holds each address as long as the first three are not all dead,
// and the others do not move when one goes.
func TestOneHolder(t *testing.T) {
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		var nodes []*corev1.Node
		dead := map[netip.Addr]bool{}
		for i := range 2 + rnd.IntN(8) {
			n := node(fmt.Sprint("n", i+1))
			nodes = append(nodes, n)
			dead[netip.MustParseAddr(n.Status.Addresses[0].Address)] = rnd.IntN(3) == 0
		}
		all := lines([]*corev1.Service{balancer("a", "10.89.0.130", "10.89.0.131", "10.89.0.200")}, nil, nodes, pool)
		holders := map[netip.Addr]int{}
		for _, n := range nodes {
			if dead[netip.MustParseAddr(n.Status.Addresses[0].Address)] {
				continue
			}
			for _, a := range decide(all, n.Name, func(w pair) bool { return dead[w.node] }).hold {
				holders[a]++
			}
		}
		for _, l := range all {
			want := 0
			for _, c := range l.nodes[:min(len(l.nodes), deputies+1)] {
				if !dead[c.ip] {
					want = 1
				}
			}
			if holders[l.address] != want {
				t.Fatalf("seed %d: %s has %d holders, want %d", seed, l.address, holders[l.address], want)
			}
			i := rnd.IntN(len(l.nodes))
			rest := rank(l.address, slices.Delete(slices.Clone(l.nodes), i, i+1))
			if !slices.Equal(rest, slices.Delete(slices.Clone(l.nodes), i, i+1)) {
				t.Fatalf("seed %d: the order of the others changed when %s went", seed, l.nodes[i].name)
			}
		}
	}
}

func TestAddressesSpread(t *testing.T) {
	var nodes []*corev1.Node
	for i := range 4 {
		nodes = append(nodes, node(fmt.Sprint("n", i+1)))
	}
	first := map[string]int{}
	for i := range 100 {
		first[rank(netip.AddrFrom4([4]byte{10, 89, 0, byte(130 + i)}), candidates(nodes))[0].name]++
	}
	for _, n := range nodes {
		if first[n.Name] < 10 {
			t.Errorf("of 100 addresses the nodes answer for %v", first)
		}
	}
}

func TestPatience(t *testing.T) {
	m, a, b := misses{}, pair{node: netip.MustParseAddr("10.0.0.1")}, pair{node: netip.MustParseAddr("10.0.0.2")}
	for range patience {
		if m.silent(a) || m.silent(b) {
			t.Fatal("silent too early")
		}
		m.note([]pair{a, b}, map[pair]bool{b: true})
	}
	if !m.silent(a) || m.silent(b) {
		t.Errorf("after %d rounds: %v", patience, m)
	}
	m.note([]pair{a, b}, map[pair]bool{a: true})
	if m.silent(a) {
		t.Error("a has answered and is silent")
	}
	m.note(nil, nil)
	if len(m) != 0 {
		t.Errorf("nobody asks any more, and %v is remembered", m)
	}
}

func TestFrames(t *testing.T) {
	p := packet{op: opReply, sender: netip.MustParseAddr("10.0.0.1"), senderHW: mac{1, 2, 3, 4, 5, 6}, target: netip.MustParseAddr("10.0.0.2"), targetHW: mac{7, 8, 9, 10, 11, 12}}
	got, ok := parse(append(p.frame(broadcast), 0, 0, 0)) // frames are padded
	if !ok || got != p {
		t.Errorf("parse(frame) = %+v, %v", got, ok)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(question(netip.MustParseAddr("10.0.0.1"), mac{1}, netip.MustParseAddr("10.0.0.2")).frame(broadcast))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := parse(b)
		if !ok {
			return
		}
		again, ok := parse(p.frame(mac(b[:6])))
		if !ok || again != p {
			t.Errorf("%+v becomes %+v, %v", p, again, ok)
		}
	})
}
