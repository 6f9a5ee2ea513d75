package proxy

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
	"k8s.io/utils/ptr"
)

// leads renders where each front of the TCP port leads, for comparing.
func leads(s Service) map[string]string {
	out := map[string]string{}
	for _, f := range s.Fronts {
		if f.Key.Proto != TCP {
			continue
		}
		key := netip.AddrPortFrom(f.Key.Addr, f.Key.Port).String()
		if f.Key.Scope == ScopeExternal {
			key += " from outside"
		}
		var to []string
		for _, b := range s.Groups[f.Group].Backends {
			to = append(to, b.Addr().String())
		}
		out[key] = fmt.Sprint(to)
		if f.Masquerade {
			out[key] += " hidden"
		}
	}
	return out
}

func TestCompute(t *testing.T) {
	type obj struct {
		svc   *corev1.Service
		slice *discoveryv1.EndpointSlice
		facts *Facts
	}
	tests := []struct {
		name   string
		change func(*obj)
		want   map[string]string
	}{
		{"cluster address", func(*obj) {}, map[string]string{"10.96.1.1:80": "[10.244.0.2 10.244.1.2]"}},
		{"headless", func(o *obj) { o.svc.Spec.ClusterIP = corev1.ClusterIPNone }, map[string]string{}},
		{"external name", func(o *obj) { o.svc.Spec.Type = corev1.ServiceTypeExternalName }, map[string]string{}},
		{"served by the node", func(o *obj) { o.svc.Spec.ClusterIPs = []string{"10.96.0.10"} }, map[string]string{}},
		{"node address claimed", func(o *obj) { o.svc.Spec.ClusterIPs = []string{labNode} }, map[string]string{}},
		{"loopback claimed", func(o *obj) { o.svc.Spec.ClusterIPs = []string{"127.0.0.1"} }, map[string]string{}},
		{"not ready is out", func(o *obj) { o.slice.Endpoints[0].Conditions.Ready = ptr.To(false) },
			map[string]string{"10.96.1.1:80": "[10.244.1.2]"}},
		{"bad endpoint addresses", func(o *obj) {
			for _, a := range []string{"127.0.0.1", "169.254.1.1", "224.0.0.1", "0.0.0.0", "::ffff:10.0.0.1", "fe80::1", "x", "255.255.255.255"} {
				o.slice.Endpoints = append(o.slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}})
			}
		}, map[string]string{"10.96.1.1:80": "[10.244.0.2 10.244.1.2]"}},
		{"only terminating ones serve", func(o *obj) {
			for i := range o.slice.Endpoints {
				o.slice.Endpoints[i].Conditions = discoveryv1.EndpointConditions{
					Ready: ptr.To(false), Serving: ptr.To(i == 0), Terminating: ptr.To(true),
				}
			}
		}, map[string]string{"10.96.1.1:80": "[10.244.0.2]"}},
		{"internal policy Local", func(o *obj) {
			o.svc.Spec.InternalTrafficPolicy = ptr.To(corev1.ServiceInternalTrafficPolicyLocal)
		}, map[string]string{"10.96.1.1:80": "[10.244.0.2]"}},
		{"node port", func(o *obj) { nodePort(o.svc, 30080) },
			map[string]string{"10.96.1.1:80": "[10.244.0.2 10.244.1.2]", "0.0.0.0:30080": "[10.244.0.2 10.244.1.2] hidden"}},
		{"node port, policy Local", func(o *obj) {
			nodePort(o.svc, 30080).Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
		}, map[string]string{
			"10.96.1.1:80": "[10.244.0.2 10.244.1.2]", "0.0.0.0:30080": "[10.244.0.2 10.244.1.2]",
			"0.0.0.0:30080 from outside": "[10.244.0.2]",
		}},
		{"external addresses refused", func(o *obj) { o.svc.Spec.ExternalIPs = []string{"203.0.113.9"} },
			map[string]string{"10.96.1.1:80": "[10.244.0.2 10.244.1.2]"}},
		{"external addresses allowed", func(o *obj) {
			o.svc.Spec.ExternalIPs, o.facts.ExternalIPs = []string{"203.0.113.9", "203.0.113.9"}, true
		}, map[string]string{"10.96.1.1:80": "[10.244.0.2 10.244.1.2]", "203.0.113.9:80": "[10.244.0.2 10.244.1.2] hidden"}},
		{"near by zone", func(o *obj) {
			o.slice.Endpoints[0].Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "b"}}}
			o.slice.Endpoints[1].Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "a"}}}
		}, map[string]string{"10.96.1.1:80": "[10.244.1.2]"}},
		{"near by node", func(o *obj) {
			for i, n := range []string{"n1", "n2"} {
				o.slice.Endpoints[i].Hints = &discoveryv1.EndpointHints{
					ForZones: []discoveryv1.ForZone{{Name: "a"}}, ForNodes: []discoveryv1.ForNode{{Name: n}},
				}
			}
		}, map[string]string{"10.96.1.1:80": "[10.244.0.2]"}},
		{"hints on some only", func(o *obj) {
			o.slice.Endpoints[1].Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "a"}}}
		}, map[string]string{"10.96.1.1:80": "[10.244.0.2 10.244.1.2]"}},
		{"port of another name", func(o *obj) { o.slice.Ports[0].Name = ptr.To("other") }, map[string]string{"10.96.1.1:80": "[]"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := obj{testService("web", "10.96.1.1"), testSlice("10.244.0.2", "10.244.1.2"), labFacts()}
			o.slice.Endpoints[1].NodeName = ptr.To("n2")
			o.facts.Zone = "a"
			tt.change(&o)
			svc, slice := o.svc.DeepCopy(), o.slice.DeepCopy()
			got := Compute(o.svc, []*discoveryv1.EndpointSlice{o.slice}, o.facts)
			if d := cmp.Diff(tt.want, leads(got)); d != "" {
				t.Errorf("fronts (-want +got):\n%s", d)
			}
			if d := cmp.Diff(svc, o.svc) + cmp.Diff(slice, o.slice); d != "" {
				t.Errorf("arguments changed:\n%s", d)
			}
		})
	}
}

func TestComputeDualStackAndHealth(t *testing.T) {
	svc := nodePort(testService("web", "10.96.1.1"), 30080)
	svc.Spec.ClusterIPs = []string{"10.96.1.1", "fd00:96::1"}
	svc.Spec.Type = corev1.ServiceTypeLoadBalancer
	svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	svc.Spec.HealthCheckNodePort = 32000
	six := testSlice("fd00:244::2")
	six.AddressType = discoveryv1.AddressTypeIPv6
	got := Compute(svc, []*discoveryv1.EndpointSlice{testSlice("10.244.0.2", "10.244.0.3"), six}, labFacts())
	want := map[string]string{
		"10.96.1.1:80": "[10.244.0.2 10.244.0.3]", "[fd00:96::1]:80": "[fd00:244::2]",
		"0.0.0.0:30080": "[10.244.0.2 10.244.0.3]", "[::]:30080": "[fd00:244::2]",
		"0.0.0.0:30080 from outside": "[10.244.0.2 10.244.0.3]", "[::]:30080 from outside": "[fd00:244::2]",
	}
	if d := cmp.Diff(want, leads(got)); d != "" {
		t.Errorf("fronts (-want +got):\n%s", d)
	}
	if d := cmp.Diff(&Health{Port: 32000, Local: 3}, got.Health); d != "" {
		t.Errorf("health (-want +got):\n%s", d)
	}
}

func TestSources(t *testing.T) {
	for _, tt := range []struct {
		in   []string
		want Sources
	}{
		{nil, ""},
		{[]string{"10.0.0.0/8"}, "10.0.0.0/8"},
		{[]string{" 192.168.1.7/16 ", "10.0.0.0/8", "10.0.0.0/8"}, "10.0.0.0/8,192.168.0.0/16"},
		{[]string{"10.0.0.0/8", "typo"}, "10.0.0.0/8"},
		{[]string{"typo"}, nobody},
	} {
		if got := sourcesOf(tt.in); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.in, got, tt.want)
		}
	}
	if p := nobody.prefixes(); len(p) != 0 {
		t.Errorf("nobody is %v", p)
	}
}

// shadow is a table that takes differences as the kernel does: it fails on
// adding what is there and on deleting what is not.
type shadow struct {
	t *testing.T
	m map[string]string
}

func (s *shadow) apply(c *Changes) {
	patch(s, "front", c.Fronts)
	patch(s, "backend", c.Backends)
	patch(s, "live", c.Live)
	patch(s, "masq", c.Masquerade)
	patch(s, "hairpin", c.Hairpins)
	patch(s, "chain", c.Chains)
	patch(s, "guard", c.Guards)
}

func patch[K, V comparable](s *shadow, set string, d Diff[K, V]) {
	for _, k := range d.Del {
		key := fmt.Sprint(set, " ", k)
		if _, ok := s.m[key]; !ok {
			s.t.Fatalf("deletes %s, which is not there", key)
		}
		delete(s.m, key)
	}
	for _, e := range d.Add {
		key := fmt.Sprint(set, " ", e.Key)
		if _, ok := s.m[key]; ok {
			s.t.Fatalf("adds %s, which is there", key)
		}
		s.m[key] = fmt.Sprint(e.Value)
	}
}

// meaning resolves fronts to endpoints, so that states with other group
// numbers and places compare equal.
func meaning(c Changes) map[string]string {
	backends := map[uint32][]string{}
	for _, e := range c.Backends.Add {
		backends[e.Key.Group] = append(backends[e.Key.Group], e.Value.String())
	}
	out := map[string]string{}
	for _, e := range c.Fronts.Add {
		b := backends[e.Value.Group]
		slices.Sort(b)
		out[fmt.Sprint("front ", e.Key)] = fmt.Sprint(e.Value.Plan, b)
	}
	for _, e := range c.Masquerade.Add {
		out[fmt.Sprint("masq ", e.Key)] = ""
	}
	for _, e := range c.Hairpins.Add {
		out[fmt.Sprint("hairpin ", e.Key)] = ""
	}
	for _, e := range c.Guards.Add {
		out[fmt.Sprint("guard ", e.Key)] = string(e.Value)
	}
	for _, e := range c.Chains.Add {
		out[fmt.Sprint("chain ", e.Key)] = ""
	}
	return out
}

// TestModelProperty drives a model with random changes, in which services
// claim the same addresses, and checks after each that
//   - the differences taken so far build exactly the state that TakeAll gives,
//   - places of a group are dense, and the plan counts them,
//   - the order of events does not matter: a model told only the last state of
//     each service means the same.
func TestModelProperty(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	facts := labFacts()
	facts.ExternalIPs = true
	for round := range 30 {
		m, sh := NewModel(), &shadow{t, map[string]string{}}
		last := map[types.NamespacedName]Service{}
		for step := range 60 {
			name := fmt.Sprintf("s%d", r.IntN(6))
			if r.IntN(5) == 0 {
				key := types.NamespacedName{Namespace: "ns", Name: name}
				m.Remove(key)
				delete(last, key)
			} else {
				s := Compute(randomService(r, name), randomSlices(r), facts)
				m.Set(s)
				last[s.Name] = s
			}
			if r.IntN(3) == 0 {
				continue // several changes in one difference
			}
			c := m.Take()
			sh.apply(&c)
			all := m.TakeAll()
			fresh := &shadow{t, map[string]string{}}
			fresh.apply(&all)
			if d := cmp.Diff(fresh.m, sh.m); d != "" {
				t.Fatalf("round %d step %d: differences do not add up (-whole +built):\n%s", round, step, d)
			}
			checkPlaces(t, all)
			other := NewModel()
			for _, s := range last {
				other.Set(s)
			}
			if d := cmp.Diff(meaning(other.TakeAll()), meaning(all)); d != "" {
				t.Fatalf("round %d step %d: order of events matters:\n%s", round, step, d)
			}
		}
	}
}

func checkPlaces(t *testing.T, c Changes) {
	t.Helper()
	count := map[uint32]int{}
	most := map[uint32]uint32{}
	for _, e := range c.Backends.Add {
		count[e.Key.Group]++
		most[e.Key.Group] = max(most[e.Key.Group], e.Key.Index)
	}
	for _, e := range c.Fronts.Add {
		n := e.Value.Plan.Backends
		if count[e.Value.Group] != n || n > 0 && int(most[e.Value.Group]) != n-1 {
			t.Fatalf("front %v: plan for %d endpoints, %d places up to %d", e.Key, n, count[e.Value.Group], most[e.Value.Group])
		}
	}
}

func randomService(r *rand.Rand, name string) *corev1.Service {
	svc := testService(name, fmt.Sprintf("10.96.1.%d", r.IntN(4)))
	svc.CreationTimestamp = metav1.NewTime(time.Unix(int64(r.IntN(3)), 0))
	if r.IntN(2) == 0 {
		nodePort(svc, int32(30000+r.IntN(3)))
	}
	if r.IntN(2) == 0 {
		svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	}
	if r.IntN(2) == 0 {
		svc.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	}
	if r.IntN(3) == 0 {
		svc.Spec.Type = corev1.ServiceTypeLoadBalancer
		svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: fmt.Sprintf("203.0.113.%d", r.IntN(3))}}
		svc.Spec.LoadBalancerSourceRanges = [][]string{nil, {"10.0.0.0/8"}, {"x"}}[r.IntN(3)]
	}
	if r.IntN(3) == 0 {
		svc.Spec.ExternalIPs = []string{fmt.Sprintf("203.0.113.%d", r.IntN(3))}
	}
	return svc
}

func randomSlices(r *rand.Rand) []*discoveryv1.EndpointSlice {
	var out []*discoveryv1.EndpointSlice
	for range r.IntN(3) {
		s := testSlice()
		for range r.IntN(5) {
			s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
				Addresses:  []string{fmt.Sprintf("10.244.0.%d", 2+r.IntN(8))},
				NodeName:   ptr.To(fmt.Sprintf("n%d", 1+r.IntN(2))),
				Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(r.IntN(4) > 0), Terminating: ptr.To(r.IntN(2) == 0), Serving: ptr.To(true)},
			})
		}
		out = append(out, s)
	}
	return out
}

func TestAssignMovesFew(t *testing.T) {
	at := func(i int) netip.AddrPort { return netip.AddrPortFrom(podAddr(i), 80) }
	have := []netip.AddrPort{at(0), at(1), at(2), at(3)}
	slots, gone := assign(have, []netip.AddrPort{at(0), at(2), at(3)})
	if d := cmp.Diff([]netip.AddrPort{at(0), at(3), at(2)}, slots, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
		t.Errorf("places (-want +got):\n%s", d)
	}
	if len(gone) != 1 || gone[0] != at(1) {
		t.Errorf("gone: %v", gone)
	}
}
