package loadbalancer

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

var (
	pool  = netip.MustParsePrefix("10.89.0.128/25")
	tiny  = netip.MustParsePrefix("10.89.0.252/30") // three addresses: the last is broadcast
	epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
)

// service makes a balanced service; age is in seconds.
func service(name string, age int, change ...func(*corev1.Service)) *corev1.Service {
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(name), CreationTimestamp: metav1.Time{Time: epoch.Add(-time.Duration(age) * time.Second)}},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}},
	}
	for _, f := range change {
		f(svc)
	}
	return svc
}

func has(addresses ...string) func(*corev1.Service) {
	return func(svc *corev1.Service) {
		svc.Finalizers = []string{"other", finalizer}
		mode := corev1.LoadBalancerIPModeVIP
		for _, a := range addresses {
			svc.Status.LoadBalancer.Ingress = append(svc.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: a, IPMode: &mode})
		}
	}
}

func asks(a string) func(*corev1.Service) {
	return func(svc *corev1.Service) { svc.Spec.LoadBalancerIP = a }
}

func class(c string) func(*corev1.Service) {
	return func(svc *corev1.Service) { svc.Spec.LoadBalancerClass = &c }
}

func clusterIP(svc *corev1.Service) { svc.Spec.Type = corev1.ServiceTypeClusterIP }
func deleted(svc *corev1.Service)   { svc.DeletionTimestamp = &metav1.Time{Time: epoch} }
func v6only(svc *corev1.Service)    { svc.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol} }
func bare(svc *corev1.Service)      { svc.Finalizers = nil }

func TestCompute(t *testing.T) {
	for _, c := range []struct {
		name     string
		pool     netip.Prefix
		services []*corev1.Service
		want     []string
	}{
		{name: "one that asks for an address", services: []*corev1.Service{service("a", 1, asks("10.89.0.200"))}, want: []string{"a = 10.89.0.200"}},
		{name: "settled", services: []*corev1.Service{service("a", 1, has("10.89.0.200"))}},
		{name: "our class", services: []*corev1.Service{service("a", 1, class(Class), asks("10.89.0.200"))}, want: []string{"a = 10.89.0.200"}},
		{name: "another class", services: []*corev1.Service{service("a", 1, class("example.com/lb"))}},
		{name: "another class, deleted", services: []*corev1.Service{service("a", 1, class("example.com/lb"), has("10.89.0.200"), deleted)}},
		{name: "no load balancer", services: []*corev1.Service{service("a", 1, clusterIP)}},
		{name: "finalizer lost", services: []*corev1.Service{service("a", 1, has("10.89.0.200"), bare)}, want: []string{"a = 10.89.0.200"}},
		{name: "several addresses", services: []*corev1.Service{service("a", 1, has("10.89.0.200", "10.89.0.201"))}, want: []string{"a = 10.89.0.200"}},
		{name: "type changed", services: []*corev1.Service{service("a", 1, has("10.89.0.200"), clusterIP)}, want: []string{"release a"}},
		{name: "type changed of somebody else's", services: []*corev1.Service{service("a", 1, has("192.0.2.1"), clusterIP)}},
		{name: "deleted", services: []*corev1.Service{service("a", 1, has("10.89.0.200"), deleted)}, want: []string{"release a"}},
		{name: "deleted before it had one", services: []*corev1.Service{service("a", 1, has(), deleted)}, want: []string{"release a"}},
		{name: "deleted without our finalizer", services: []*corev1.Service{service("a", 1, deleted)}},
		{name: "moves to the address that it asks for", services: []*corev1.Service{service("a", 1, has("10.89.0.200"), asks("10.89.0.201"))}, want: []string{"a = 10.89.0.201"}},
		{name: "keeps its address where it cannot move", services: []*corev1.Service{service("a", 1, has("10.89.0.200"), asks("10.0.0.1"))},
			want: []string{`refuse a: spec.loadBalancerIP "10.0.0.1" is not one of the addresses for load balancers (10.89.0.128/25)`}},
		{name: "the address is in use", services: []*corev1.Service{service("a", 2, asks("10.89.0.200")), service("b", 1, has("10.89.0.200"))},
			want: []string{"refuse a: spec.loadBalancerIP 10.89.0.200 is in use by Service ns/b"}},
		{name: "no address at all", services: []*corev1.Service{service("a", 2, asks("here"))},
			want: []string{`refuse a: spec.loadBalancerIP "here" is not one of the addresses for load balancers (10.89.0.128/25)`}},
		{name: "the broadcast address", services: []*corev1.Service{service("a", 2, asks("10.89.0.255"))},
			want: []string{`refuse a: spec.loadBalancerIP "10.89.0.255" is not one of the addresses for load balancers (10.89.0.128/25)`}},
		{name: "IPv6 alone", services: []*corev1.Service{service("a", 2, v6only)},
			want: []string{"refuse a: the addresses for load balancers (10.89.0.128/25) are IPv4: add that to spec.ipFamilies"}},
		{name: "twice the same: the older keeps it", pool: tiny,
			services: []*corev1.Service{service("a", 1, has("10.89.0.253")), service("b", 2, has("10.89.0.253")), service("c", 3, has("10.89.0.254"))},
			want:     []string{"a = 10.89.0.252"}},
		{name: "who asks goes first", pool: tiny,
			services: []*corev1.Service{service("a", 9), service("b", 8), service("c", 1, asks("10.89.0.252")), service("d", 1, has("10.89.0.253"))},
			want: []string{"c = 10.89.0.252", "a = 10.89.0.254",
				"refuse b: all addresses for load balancers (10.89.0.252/30) are in use: delete a Service of type LoadBalancer"}},
		{name: "what is let go is free in the next round", pool: tiny,
			services: []*corev1.Service{service("a", 1), service("b", 2, has("10.89.0.252"), deleted), service("c", 3, has("10.89.0.254")), service("d", 3, has("10.89.0.253"))},
			want: []string{"release b",
				"refuse a: all addresses for load balancers (10.89.0.252/30) are in use: delete a Service of type LoadBalancer"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !c.pool.IsValid() {
				c.pool = pool
			}
			if diff := cmp.Diff(c.want, describe(compute(c.services, c.pool))); diff != "" {
				t.Errorf("compute (-want +got):\n%s", diff)
			}
		})
	}
}

func describe(steps []step) []string {
	var out []string
	for _, s := range steps {
		switch s.action {
		case assign:
			out = append(out, fmt.Sprintf("%s = %s", s.service.Name, s.address))
		case release:
			out = append(out, "release "+s.service.Name)
		case refuse:
			out = append(out, "refuse "+s.service.Name+": "+s.reason)
		}
	}
	return out
}

// TestNoAddressTwice applies some of what compute wants to services that come,
// go and change, as writes that fail would, and restarts at any time: compute
// has no memory.
func TestNoAddressTwice(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		all := map[string]*corev1.Service{}
		for round := range 60 {
			name := fmt.Sprint("s", rnd.IntN(6))
			svc := all[name]
			switch {
			case svc == nil:
				svc = service(name, -round)
				if rnd.IntN(2) == 0 {
					asks(fmt.Sprint("10.89.0.", 252+rnd.IntN(4)))(svc)
				}
				all[name] = svc
			case rnd.IntN(3) == 0:
				deleted(svc)
			case rnd.IntN(3) == 0:
				clusterIP(svc)
			}
			var list []*corev1.Service
			for _, s := range all {
				list = append(list, s)
			}
			for _, s := range compute(list, tiny) {
				if s.action != refuse && rnd.IntN(4) > 0 {
					all[s.service.Name] = s.carried()
				}
			}
			owners := map[string]string{}
			for name, svc := range all {
				for _, in := range svc.Status.LoadBalancer.Ingress {
					if other, ok := owners[in.IP]; ok {
						t.Fatalf("seed %d: %s belongs to %s and %s", seed, in.IP, name, other)
					}
					owners[in.IP] = name
				}
				if svc.DeletionTimestamp != nil && !slices.Contains(svc.Finalizers, finalizer) {
					delete(all, name)
				}
			}
		}
	}
}

func TestRefusalsAreToldOnce(t *testing.T) {
	r := refusals{}
	bad := step{service: service("a", 1), action: refuse, reason: "full"}
	good := step{service: service("b", 1), action: assign}
	for i, want := range [][]string{{"refuse a: full", "b = invalid IP"}, {"b = invalid IP"}} {
		if diff := cmp.Diff(want, describe(r.fresh([]step{bad, good}))); diff != "" {
			t.Errorf("round %d (-want +got):\n%s", i, diff)
		}
	}
	r.fresh(nil) // a was served meanwhile
	if got := r.fresh([]step{bad}); len(got) != 1 {
		t.Errorf("a refusal after a good time is news: %v", got)
	}
}
