package endpointslice

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func service(change ...func(*corev1.Service)) *corev1.Service {
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "ns", UID: "svc", Labels: map[string]string{"app": "web"}},
		Spec: corev1.ServiceSpec{
			ClusterIP: "10.96.0.20", Selector: map[string]string{"app": "web"},
			IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
			Ports:      []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80, TargetPort: intstr.FromString("http")}},
		},
	}
	for _, c := range change {
		c(svc)
	}
	return svc
}

func pod(name, ip string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns", UID: types.UID(name), Labels: map[string]string{"app": "web"}},
		Spec: corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{
			Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}},
		}}},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: ip}},
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		},
	}
	for _, c := range change {
		c(p)
	}
	return p
}

func unready(p *corev1.Pod)  { p.Status.Conditions[0].Status = corev1.ConditionFalse }
func deleting(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)} }
func finished(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }
func noIP(p *corev1.Pod)     { p.Status.PodIPs = nil }
func port9090(p *corev1.Pod) { p.Spec.Containers[0].Ports[0].ContainerPort = 9090 }
func noPorts(p *corev1.Pod)  { p.Spec.Containers[0].Ports = nil }
func dual(p *corev1.Pod) {
	p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: "fd00::1"})
}

func zoneOf(node string) string {
	if node == "n1" {
		return "z1"
	}
	return ""
}

// summary is what matters of one endpoint.
type summary struct {
	Type                        discoveryv1.AddressType
	Port                        int32
	Pod, Address, Node, Zone    string
	Ready, Serving, Terminating bool
}

func summarise(slices []*discoveryv1.EndpointSlice) (out []summary) {
	for _, s := range slices {
		for _, e := range s.Endpoints {
			out = append(out, summary{
				Type: s.AddressType, Port: *s.Ports[0].Port, Pod: e.TargetRef.Name, Address: e.Addresses[0], Node: *e.NodeName, Zone: *e.Zone,
				Ready: *e.Conditions.Ready, Serving: *e.Conditions.Serving, Terminating: *e.Conditions.Terminating,
			})
		}
	}
	return out
}

func TestCompute(t *testing.T) {
	v4, v6 := discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6
	for _, tc := range []struct {
		name string
		svc  *corev1.Service
		pods []*corev1.Pod
		want []summary
	}{
		{
			"ready, unready and terminating", service(),
			[]*corev1.Pod{pod("a", "10.0.0.1"), pod("b", "10.0.0.2", unready), pod("c", "10.0.0.3", deleting), pod("d", "10.0.0.4", finished), pod("e", "", noIP)},
			[]summary{
				{v4, 8080, "a", "10.0.0.1", "n1", "z1", true, true, false},
				{v4, 8080, "b", "10.0.0.2", "n1", "z1", false, false, false},
				{v4, 8080, "c", "10.0.0.3", "n1", "z1", false, true, true},
			},
		},
		{
			"publishNotReadyAddresses", service(func(s *corev1.Service) { s.Spec.PublishNotReadyAddresses = true }),
			[]*corev1.Pod{pod("b", "10.0.0.2", unready), pod("c", "10.0.0.3", deleting)},
			[]summary{
				{v4, 8080, "b", "10.0.0.2", "n1", "z1", true, false, false},
				{v4, 8080, "c", "10.0.0.3", "n1", "z1", true, true, true},
			},
		},
		{
			"named port differs by pod and may be absent", service(),
			[]*corev1.Pod{pod("a", "10.0.0.1"), pod("b", "10.0.0.2", port9090), pod("c", "10.0.0.3", noPorts)},
			[]summary{
				{v4, 8080, "a", "10.0.0.1", "n1", "z1", true, true, false},
				{v4, 9090, "b", "10.0.0.2", "n1", "z1", true, true, false},
			},
		},
		{
			"two families", service(func(s *corev1.Service) {
				s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
			}),
			[]*corev1.Pod{pod("a", "10.0.0.1", dual)},
			[]summary{
				{v4, 8080, "a", "10.0.0.1", "n1", "z1", true, true, false},
				{v6, 8080, "a", "fd00::1", "n1", "z1", true, true, false},
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := compute(tc.svc, tc.pods, nil, zoneOf, "")
			if diff := cmp.Diff(tc.want, summarise(c.Create)); diff != "" {
				t.Errorf("endpoints (-want +got):\n%s", diff)
			}
			for i, s := range c.Create {
				s.Name = string(rune('a' + i))
			}
			if again := compute(tc.svc, tc.pods, c.Create, zoneOf, "2030-01-01T00:00:00Z"); !again.Empty() {
				t.Errorf("computing again writes %+v", again)
			}
		})
	}
}

func TestComputeLabelsAndPlaceholder(t *testing.T) {
	headless := service(func(s *corev1.Service) { s.Spec.ClusterIP = corev1.ClusterIPNone })
	c := compute(headless, nil, nil, zoneOf, "")
	if len(c.Create) != 1 || len(c.Create[0].Endpoints) != 0 {
		t.Fatalf("a service without pods gives %+v, want one empty slice", c)
	}
	want := map[string]string{
		"app": "web", "kubernetes.io/service-name": "web", "service.kubernetes.io/headless": "",
		"endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
	}
	if diff := cmp.Diff(want, c.Create[0].Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	if ref := c.Create[0].OwnerReferences[0]; ref.Kind != "Service" || ref.UID != "svc" || !*ref.Controller {
		t.Errorf("owner is %+v, want the service", ref)
	}
}

func TestHints(t *testing.T) {
	near := "PreferSameNode"
	svc := service(func(s *corev1.Service) { s.Spec.TrafficDistribution = &near })
	c := compute(svc, []*corev1.Pod{pod("a", "10.0.0.1")}, nil, zoneOf, "")
	want := &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "z1"}}, ForNodes: []discoveryv1.ForNode{{Name: "n1"}}}
	if diff := cmp.Diff(want, c.Create[0].Endpoints[0].Hints); diff != "" {
		t.Errorf("hints (-want +got):\n%s", diff)
	}
}
