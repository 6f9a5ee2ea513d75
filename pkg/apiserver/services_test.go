package apiserver_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"coracle/pkg/storage/memory"
	"coracle/pkg/testcluster"
)

// newService describes a Service of port 80.
func newService(name string, typ corev1.ServiceType, change ...func(*corev1.Service)) *corev1.Service {
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}}
	svc.Spec = corev1.ServiceSpec{Type: typ, Selector: map[string]string{"app": name}, Ports: []corev1.ServicePort{{Port: 80}}}
	for _, f := range change {
		f(svc)
	}
	return svc
}

func (s *server) service(t *testing.T, svc *corev1.Service) *corev1.Service {
	t.Helper()
	out, err := s.Client.CoreV1().Services(svc.Namespace).Create(t.Context(), svc, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// held are the addresses that IPAddress objects say are taken, with their
// owners.
func held(t *testing.T, client kubernetes.Interface) map[string]string {
	t.Helper()
	list, err := client.NetworkingV1().IPAddresses().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, a := range list.Items {
		out[a.Name] = a.Spec.ParentRef.Resource + "/" + a.Spec.ParentRef.Namespace + "/" + a.Spec.ParentRef.Name
	}
	return out
}

// TestServicesHoldAddresses: an address is an IPAddress object for as long as
// a Service has it.
func TestServicesHoldAddresses(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		ctx := t.Context()
		if got := held(t, s.Client)["10.96.0.1"]; got != "services/default/kubernetes" {
			t.Errorf("10.96.0.1 is of %q, want the kubernetes Service", got)
		}
		web := s.service(t, newService("web", corev1.ServiceTypeClusterIP))
		if got := held(t, s.Client)[web.Spec.ClusterIP]; got != "services/default/web" {
			t.Errorf("%s is of %q, want web", web.Spec.ClusterIP, got)
		}
		addr, err := s.Client.NetworkingV1().IPAddresses().Get(ctx, web.Spec.ClusterIP, metav1.GetOptions{})
		if err != nil || addr.Labels[networkingv1.LabelIPAddressFamily] != "IPv4" || addr.Labels[networkingv1.LabelManagedBy] != "ipallocator.k8s.io" {
			t.Errorf("address %v (%v), want the labels of the allocator", addr, err)
		}
		s.service(t, newService("headless", corev1.ServiceTypeClusterIP, func(svc *corev1.Service) { svc.Spec.ClusterIP = "None" }))
		services := s.Client.CoreV1().Services("default")
		// Refused and dry creates hold nothing afterwards.
		before := len(held(t, s.Client))
		if _, err := services.Create(ctx, newService("bad", corev1.ServiceTypeClusterIP, func(svc *corev1.Service) { svc.Spec.Ports[0].Port = 0 }), metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
			t.Errorf("a port of 0: %v", err)
		}
		if _, err := services.Create(ctx, newService("dry", corev1.ServiceTypeNodePort), metav1.CreateOptions{DryRun: []string{"All"}}); err != nil {
			t.Error(err)
		}
		if _, err := services.Create(ctx, newService("web", corev1.ServiceTypeClusterIP), metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
			t.Errorf("a second web: %v", err)
		}
		if after := len(held(t, s.Client)); after != before {
			t.Errorf("%d addresses are held, %d before: refused creates leave none", after, before)
		}
		// ExternalName has no address; coming back takes one.
		web.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.com"}
		web, err = services.Update(ctx, web, metav1.UpdateOptions{})
		if err != nil || web.Spec.ClusterIP != "" || len(held(t, s.Client)) != before-1 {
			t.Fatalf("as ExternalName: %v, %q, %v held", err, web.Spec.ClusterIP, held(t, s.Client))
		}
		web.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, Ports: []corev1.ServicePort{{Port: 80}}}
		if web, err = services.Update(ctx, web, metav1.UpdateOptions{}); err != nil || held(t, s.Client)[web.Spec.ClusterIP] == "" {
			t.Fatalf("as ClusterIP again: %v, %v", err, held(t, s.Client))
		}
		if err := services.Delete(ctx, "web", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if got := held(t, s.Client)[web.Spec.ClusterIP]; got != "" {
			t.Errorf("%s is still held by %s", web.Spec.ClusterIP, got)
		}
	})
}

// TestServiceFamilies: a cluster of one family says so.
func TestServiceFamilies(t *testing.T) {
	s := newServer(t)
	policy := func(p corev1.IPFamilyPolicy, families ...corev1.IPFamily) func(*corev1.Service) {
		return func(svc *corev1.Service) { svc.Spec.IPFamilyPolicy, svc.Spec.IPFamilies = &p, families }
	}
	prefer := s.service(t, newService("prefer", corev1.ServiceTypeClusterIP, policy(corev1.IPFamilyPolicyPreferDualStack)))
	if len(prefer.Spec.ClusterIPs) != 1 || len(prefer.Spec.IPFamilies) != 1 || *prefer.Spec.IPFamilyPolicy != corev1.IPFamilyPolicyPreferDualStack {
		t.Errorf("PreferDualStack is %v %v", prefer.Spec.ClusterIPs, prefer.Spec.IPFamilies)
	}
	for _, c := range []struct {
		change func(*corev1.Service)
		part   string
	}{
		{policy(corev1.IPFamilyPolicyRequireDualStack), "spec.ipFamilyPolicy"},
		{policy(corev1.IPFamilyPolicySingleStack, corev1.IPv6Protocol), "spec.ipFamilies[0]"},
	} {
		_, err := s.Client.CoreV1().Services("default").Create(t.Context(), newService("no", corev1.ServiceTypeClusterIP, c.change), metav1.CreateOptions{})
		refused(t, err, 422, metav1.StatusReasonInvalid, c.part)
	}
	headless := s.service(t, newService("headless", corev1.ServiceTypeClusterIP, func(svc *corev1.Service) {
		svc.Spec.ClusterIP, svc.Spec.Selector = "None", nil
	}))
	if len(headless.Spec.IPFamilies) != 2 || *headless.Spec.IPFamilyPolicy != corev1.IPFamilyPolicyRequireDualStack {
		t.Errorf("headless without a selector is %v %v, want both families", headless.Spec.IPFamilies, *headless.Spec.IPFamilyPolicy)
	}
}

// TestNodePorts: numbers chosen by hand and by the server, shared by the
// protocols of a port, kept over updates and given back.
func TestNodePorts(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		ctx := t.Context()
		services := s.Client.CoreV1().Services("default")
		dns := s.service(t, newService("dns", corev1.ServiceTypeNodePort, func(svc *corev1.Service) {
			svc.Spec.Ports = []corev1.ServicePort{{Name: "udp", Port: 53, Protocol: "UDP"}, {Name: "tcp", Port: 53}, {Name: "web", Port: 80}}
		}))
		p := dns.Spec.Ports
		if p[0].NodePort != p[1].NodePort || p[0].NodePort == p[2].NodePort || p[0].NodePort < 30086 || p[0].NodePort > 32767 {
			t.Errorf("node ports %d, %d and %d: want one for both protocols, of the upper band", p[0].NodePort, p[1].NodePort, p[2].NodePort)
		}
		for port, part := range map[int32]string{p[0].NodePort: "already allocated", 40000: "not in the valid range"} {
			_, err := services.Create(ctx, newService("no", corev1.ServiceTypeNodePort, func(svc *corev1.Service) {
				svc.Spec.Ports[0].NodePort, svc.Spec.Ports[0].Protocol = port, "SCTP"
			}), metav1.CreateOptions{})
			refused(t, err, 422, metav1.StatusReasonInvalid, part)
		}
		local := s.service(t, newService("local", corev1.ServiceTypeLoadBalancer, func(svc *corev1.Service) {
			svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
			svc.Spec.AllocateLoadBalancerNodePorts = new(false)
		}))
		health := local.Spec.HealthCheckNodePort
		if health == 0 || local.Spec.Ports[0].NodePort != 0 {
			t.Errorf("health port %d and node port %d, want one and none", health, local.Spec.Ports[0].NodePort)
		}
		local.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
		if local, err := services.Update(ctx, local, metav1.UpdateOptions{}); err != nil || local.Spec.HealthCheckNodePort != 0 {
			t.Errorf("a policy without a health port: %v, %v", local, err)
		}
		s.service(t, newService("next", corev1.ServiceTypeNodePort, func(svc *corev1.Service) { svc.Spec.Ports[0].NodePort = health }))
		dns.Spec.Type = corev1.ServiceTypeClusterIP
		if dns, err := services.Update(ctx, dns, metav1.UpdateOptions{}); err != nil || dns.Spec.Ports[0].NodePort != 0 {
			t.Fatalf("as ClusterIP: %v, %v", dns, err)
		}
		s.service(t, newService("after", corev1.ServiceTypeNodePort, func(svc *corev1.Service) { svc.Spec.Ports[0].NodePort = p[0].NodePort }))
	})
}

// TestOneOfManyWins: of concurrent creates that ask for one address and one
// node port, each gets them once, on two servers too.
func TestOneOfManyWins(t *testing.T) {
	onTwoServers(t, func(t *testing.T, a, b *server) {
		const each = 12
		var mu sync.Mutex
		won := map[string][]string{}
		var wg sync.WaitGroup
		for i := range each {
			for j, s := range []*server{a, b} {
				name := fmt.Sprintf("s%d-%d", i, j)
				wg.Go(func() {
					svc := newService(name, corev1.ServiceTypeNodePort, func(svc *corev1.Service) { svc.Spec.ClusterIP, svc.Spec.Ports[0].NodePort = "10.96.0.77", 30007 })
					_, err := s.Client.CoreV1().Services("default").Create(context.Background(), svc, metav1.CreateOptions{})
					mu.Lock()
					defer mu.Unlock()
					switch {
					case err == nil:
						won["both"] = append(won["both"], name)
					case !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "already allocated"):
						t.Errorf("%s: %v", name, err)
					}
				})
			}
		}
		wg.Wait()
		if len(won["both"]) != 1 {
			t.Errorf("%v won, want one", won)
		}
	})
}

// TestNothingGivenTwice: two servers choose addresses and ports themselves.
func TestNothingGivenTwice(t *testing.T) {
	onTwoServers(t, func(t *testing.T, a, b *server) {
		const each = 20
		var mu sync.Mutex
		ips, ports := map[string]string{}, map[int32]string{}
		var wg sync.WaitGroup
		for i := range each {
			for j, s := range []*server{a, b} {
				name := fmt.Sprintf("s%d-%d", i, j)
				wg.Go(func() {
					svc, err := s.Client.CoreV1().Services("default").Create(context.Background(), newService(name, corev1.ServiceTypeNodePort), metav1.CreateOptions{})
					if err != nil {
						t.Errorf("%s: %v", name, err)
						return
					}
					mu.Lock()
					defer mu.Unlock()
					ip, port := svc.Spec.ClusterIP, svc.Spec.Ports[0].NodePort
					if ips[ip] != "" || ports[port] != "" || ip == "" || port == 0 {
						t.Errorf("%s got %s and %d, which %s and %s have", name, ip, port, ips[ip], ports[port])
					}
					ips[ip], ports[port] = name, name
				})
			}
		}
		wg.Wait()
		if n := len(held(t, a.Client)); n != 2*each+1 {
			t.Errorf("%d addresses are held, want %d", n, 2*each+1)
		}
	})
}

// TestClaimsAreRepaired: a server that starts makes the claims that stored
// Services lack, before it gives anything out.
func TestClaimsAreRepaired(t *testing.T) {
	ctx := t.Context()
	backend := memory.New(memory.Config{})
	t.Cleanup(func() { closeIt(t, backend) })
	first := newServer(t, testcluster.WithBackend(backend))
	web := first.service(t, newService("web", corev1.ServiceTypeNodePort))
	ip, port := web.Spec.ClusterIP, web.Spec.Ports[0].NodePort
	if err := first.Client.NetworkingV1().IPAddresses().Delete(ctx, ip, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	const ports = "/registry/ranges/servicenodeports"
	kv, _, err := backend.Get(ctx, ports)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := backend.Delete(ctx, ports, kv.ModRevision); err != nil {
		t.Fatal(err)
	}
	second := newServer(t, testcluster.WithBackend(backend))
	if got := held(t, second.Client)[ip]; got != "services/default/web" {
		t.Errorf("%s is of %q, want web", ip, got)
	}
	for _, change := range []func(*corev1.Service){
		func(svc *corev1.Service) { svc.Spec.ClusterIP = ip },
		func(svc *corev1.Service) { svc.Spec.Ports[0].NodePort = port },
	} {
		_, err := second.Client.CoreV1().Services("default").Create(ctx, newService("other", corev1.ServiceTypeNodePort, change), metav1.CreateOptions{})
		refused(t, err, 422, metav1.StatusReasonInvalid, "already allocated")
	}
}
