package resource

//lint:file-ignore SA1019 Endpoints are deprecated for clients; a server serves them all the same.

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// TestFirstKinds: a cluster that runs containers needs all of these.
func TestFirstKinds(t *testing.T) {
	want := strings.Fields(`
		/v1/namespaces /v1/nodes /v1/pods /v1/services /v1/endpoints /v1/configmaps /v1/secrets /v1/serviceaccounts
		/v1/events events.k8s.io/v1/events /v1/bindings discovery.k8s.io/v1/endpointslices coordination.k8s.io/v1/leases
		apps/v1/deployments apps/v1/replicasets scheduling.k8s.io/v1/priorityclasses
		rbac.authorization.k8s.io/v1/roles rbac.authorization.k8s.io/v1/rolebindings
		rbac.authorization.k8s.io/v1/clusterroles rbac.authorization.k8s.io/v1/clusterrolebindings
		certificates.k8s.io/v1/certificatesigningrequests
		authentication.k8s.io/v1/tokenreviews authentication.k8s.io/v1/selfsubjectreviews
		authorization.k8s.io/v1/subjectaccessreviews authorization.k8s.io/v1/localsubjectaccessreviews
		authorization.k8s.io/v1/selfsubjectaccessreviews authorization.k8s.io/v1/selfsubjectrulesreviews`)
	table := Builtin()
	for _, name := range want {
		parts := strings.Split(name, "/")
		if _, ok := table.ByGVR(schema.GroupVersionResource{Group: parts[0], Version: parts[1], Resource: parts[2]}); !ok {
			t.Errorf("%s is not served", name)
		}
	}
	for name, subresources := range map[string]string{
		"pods":            "status binding eviction log exec attach portforward proxy ephemeralcontainers resize",
		"serviceaccounts": "token", "nodes": "status proxy", "services": "status proxy", "namespaces": "status finalize",
		"deployments.apps": "status scale", "replicasets.apps": "status scale",
		"certificatesigningrequests.certificates.k8s.io": "status approval",
	} {
		for _, r := range table.All() {
			if r.GroupResource().String() != name {
				continue
			}
			for _, s := range strings.Fields(subresources) {
				if _, ok := r.Subresource(s); !ok {
					t.Errorf("%s lacks /%s", name, s)
				}
			}
		}
	}
}

func TestNamespace(t *testing.T) {
	testUpdate(t, namespaces(), nil, []change[*corev1.Namespace]{
		{"finalizers stay", func(ns *corev1.Namespace) { ns.Spec.Finalizers = nil }, nil},
	})
	testStatus(t, namespaces(), nil, []change[*corev1.Namespace]{
		{"phase", func(ns *corev1.Namespace) { ns.Status.Phase = corev1.NamespaceTerminating }, errs("Invalid status.Phase")},
	})
	old := created(t, namespaces()).(*corev1.Namespace)
	ns := old.DeepCopy()
	ns.Spec.Finalizers, ns.Status.Phase = []corev1.FinalizerName{"a b"}, corev1.NamespaceTerminating
	finalize, _ := namespaces().Subresource("finalize")
	finalize.Prepare(ns, old)
	if got := errorTexts(finalize.Validate(ns, old)); len(got) != 1 || got[0] != "Invalid spec.finalizers[0]" || ns.Status.Phase != corev1.NamespaceActive {
		t.Errorf("finalize: %v, phase %s", got, ns.Status.Phase)
	}
}

func TestConfigMap(t *testing.T) {
	testCreate(t, configMaps(), []change[*corev1.ConfigMap]{
		{"key", func(c *corev1.ConfigMap) { c.Data["a/b"] = "" }, errs("Invalid data[a/b]")},
		{"key twice", func(c *corev1.ConfigMap) { c.Data["blob"] = "" }, errs("Invalid data[blob]")},
		{"size", func(c *corev1.ConfigMap) { c.Data["big"] = strings.Repeat("x", maxDataSize) }, errs("TooLong []")},
	})
	testUpdate(t, configMaps(), func(c *corev1.ConfigMap) { c.Immutable = new(true) }, []change[*corev1.ConfigMap]{
		{"data", func(c *corev1.ConfigMap) { c.Data["new"] = "" }, errs("Forbidden data")},
		{"binary data", func(c *corev1.ConfigMap) { c.BinaryData = nil }, errs("Forbidden binaryData")},
		{"thaw", func(c *corev1.ConfigMap) { c.Immutable = nil }, errs("Forbidden immutable")},
		{"label", func(c *corev1.ConfigMap) { c.Labels = map[string]string{"a": "b"} }, nil},
	})
}

func TestSecret(t *testing.T) {
	testCreate(t, secrets(), []change[*corev1.Secret]{
		{"key", func(s *corev1.Secret) { s.Data["a b"] = nil }, errs("Invalid data[a b]")},
		{"size", func(s *corev1.Secret) { s.Data["big"] = make([]byte, maxDataSize) }, errs("TooLong data")},
		{"tls", func(s *corev1.Secret) { s.Type = corev1.SecretTypeTLS }, errs("Required data[tls.crt]", "Required data[tls.key]")},
		{"docker", func(s *corev1.Secret) { s.Type = corev1.SecretTypeDockerConfigJson }, errs("Required data[.dockerconfigjson]")},
		{"docker json", func(s *corev1.Secret) {
			s.Type = corev1.SecretTypeDockerConfigJson
			s.Data[corev1.DockerConfigJsonKey] = []byte("{")
		}, errs("Invalid data[.dockerconfigjson]")},
		{"basic", func(s *corev1.Secret) { s.Type = corev1.SecretTypeBasicAuth }, errs("Required data[username]", "Required data[password]")},
		{"basic with a user", func(s *corev1.Secret) {
			s.Type = corev1.SecretTypeBasicAuth
			s.StringData["username"] = "ada"
		}, nil},
		{"ssh", func(s *corev1.Secret) { s.Type = corev1.SecretTypeSSHAuth }, errs("Required data[ssh-privatekey]")},
		{"token", func(s *corev1.Secret) { s.Type = corev1.SecretTypeServiceAccountToken },
			errs("Required metadata.annotations[kubernetes.io/service-account.name]")},
	})
	testUpdate(t, secrets(), func(s *corev1.Secret) { s.Immutable = new(true) }, []change[*corev1.Secret]{
		{"type", func(s *corev1.Secret) { s.Type = "other" }, errs("Invalid type")},
		{"data", func(s *corev1.Secret) { s.StringData = map[string]string{"user": "eve"} }, errs("Forbidden data")},
		{"thaw", func(s *corev1.Secret) { s.Immutable = new(false) }, errs("Forbidden immutable")},
	})
}

func TestNode(t *testing.T) {
	testCreate(t, nodes(), []change[*corev1.Node]{
		{"taint effect", func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: "k", Effect: "Never"}} }, errs("NotSupported metadata.taints[0].effect")},
		{"taint twice", func(n *corev1.Node) {
			n.Spec.Taints = []corev1.Taint{{Key: "k", Effect: "NoSchedule"}, {Key: "k", Value: "v", Effect: "NoSchedule"}}
		}, errs("Duplicate metadata.taints[1]")},
		{"cidr", func(n *corev1.Node) { n.Spec.PodCIDR = "10.0.0" }, errs("Invalid spec.podCIDRs[0]")},
		{"capacity", func(n *corev1.Node) {
			q := n.Status.Capacity["cpu"]
			q.Neg()
			n.Status.Capacity["cpu"] = q
		}, errs("Invalid status.capacity.cpu", "Invalid status.allocatable.cpu")},
	})
	testUpdate(t, nodes(), nil, []change[*corev1.Node]{
		{"cordon", func(n *corev1.Node) { n.Spec.Unschedulable = false }, nil},
		{"taint", func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: "k", Effect: "NoSchedule"}} }, nil},
		{"cidr", func(n *corev1.Node) { n.Spec.PodCIDR = "10.1.0.0/24" }, errs("Forbidden spec.podCIDRs")},
		{"provider", func(n *corev1.Node) { n.Spec.ProviderID = "x" }, nil},
	})
	testStatus(t, nodes(), nil, []change[*corev1.Node]{
		{"address", func(n *corev1.Node) { n.Status.Addresses[0].Address = "x" }, errs("Invalid status.addresses[0]")},
		{"address twice", func(n *corev1.Node) { n.Status.Addresses = append(n.Status.Addresses, n.Status.Addresses[0]) }, errs("Duplicate status.addresses[2]")},
	})
}

func TestService(t *testing.T) {
	testCreate(t, services(), []change[*corev1.Service]{
		{"no ports", func(s *corev1.Service) { s.Spec.Ports = nil }, errs("Required spec.ports")},
		{"headless without ports", func(s *corev1.Service) {
			s.Spec = corev1.ServiceSpec{ClusterIP: "None", Selector: s.Spec.Selector}
		}, nil},
		{"unnamed ports", func(s *corev1.Service) { s.Spec.Ports[0].Name = "" }, errs("Required spec.ports[0].name")},
		{"port name twice", func(s *corev1.Service) { s.Spec.Ports[1].Name = "http" }, errs("Duplicate spec.ports[1].name")},
		{"port twice", func(s *corev1.Service) { s.Spec.Ports[1].Port = 80; s.Spec.Ports[1].Protocol = "TCP" }, errs("Duplicate spec.ports[1]")},
		{"port", func(s *corev1.Service) { s.Spec.Ports[0].Port = 0; s.Spec.Ports[0].TargetPort = intstr.FromInt32(1) }, errs("Invalid spec.ports[0].port")},
		{"target port", func(s *corev1.Service) { s.Spec.Ports[0].TargetPort = intstr.FromString("A b") }, errs("Invalid spec.ports[0].targetPort")},
		{"type", func(s *corev1.Service) { s.Spec.Type = "Magic"; s.Spec.SessionAffinity = "" }, errs("NotSupported spec.type")},
		{"node port of a cluster IP", func(s *corev1.Service) { s.Spec.Type = "ClusterIP"; s.Spec.Ports[0].NodePort = 30000 },
			errs("Forbidden spec.ports[0].nodePort")},
		{"node port twice", func(s *corev1.Service) {
			s.Spec.Ports[0].NodePort = 30000
			s.Spec.Ports[1].NodePort = 30000
			s.Spec.Ports[1].Protocol = "TCP"
		}, errs("Duplicate spec.ports[1].nodePort")},
		{"headless node port", func(s *corev1.Service) { s.Spec.Type = "NodePort"; s.Spec.ClusterIP = "None" }, errs("Invalid spec.clusterIPs[0]")},
		{"external name", func(s *corev1.Service) { s.Spec = corev1.ServiceSpec{Type: "ExternalName", ExternalName: "a_b"} }, errs("Invalid spec.externalName")},
		{"no external name", func(s *corev1.Service) { s.Spec = corev1.ServiceSpec{Type: "ExternalName", ClusterIP: "10.96.0.9"} },
			errs("Required spec.externalName", "Forbidden spec.clusterIPs")},
		{"affinity", func(s *corev1.Service) { s.Spec.SessionAffinity = "Cookie" }, errs("NotSupported spec.sessionAffinity")},
		{"affinity time", func(s *corev1.Service) {
			s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: new(int32(90000))}}
		}, errs("Invalid spec.sessionAffinityConfig.clientIP.timeoutSeconds")},
		{"external IP", func(s *corev1.Service) { s.Spec.ExternalIPs = []string{"127.0.0.1"} }, errs("Invalid spec.externalIPs[0]")},
		{"local for a cluster IP", func(s *corev1.Service) { s.Spec.Type = "ClusterIP"; s.Spec.ExternalTrafficPolicy = "Local" },
			errs("Invalid spec.externalTrafficPolicy")},
		{"source ranges", func(s *corev1.Service) { s.Spec.LoadBalancerSourceRanges = []string{"x"} }, errs("Invalid spec.LoadBalancerSourceRanges[0]")},
		{"class of a cluster IP", func(s *corev1.Service) { s.Spec.Type = "ClusterIP"; s.Spec.LoadBalancerClass = new("a/b") },
			errs("Forbidden spec.loadBalancerClass")},
		{"cluster IP", func(s *corev1.Service) { s.Spec.ClusterIP = "x" }, errs("Invalid spec.clusterIPs[0]")},
		{"two cluster IPs", func(s *corev1.Service) { s.Spec.ClusterIP = "10.96.0.1"; s.Spec.ClusterIPs = []string{"10.96.0.2"} },
			errs("Invalid spec.clusterIPs")},
	})
	allocated := func(s *corev1.Service) {
		s.Spec.ClusterIP = "10.96.0.7"
		s.Spec.Ports[0].NodePort, s.Spec.Ports[1].NodePort = 30000, 30001
	}
	testUpdate(t, services(), allocated, []change[*corev1.Service]{
		{"cluster IP", func(s *corev1.Service) { s.Spec.ClusterIP = "10.96.0.8"; s.Spec.ClusterIPs = nil }, errs("Invalid spec.clusterIPs[0]")},
		{"cluster IP left out", func(s *corev1.Service) { s.Spec.ClusterIP = ""; s.Spec.ClusterIPs = nil }, nil},
		{"node ports left out", func(s *corev1.Service) { s.Spec.Ports[0].NodePort = 0 }, nil},
		{"to cluster IP", func(s *corev1.Service) { s.Spec.Type = "ClusterIP" }, nil},
		{"to external name", func(s *corev1.Service) {
			s.Spec = corev1.ServiceSpec{Type: "ExternalName", ExternalName: "a.b"}
		}, nil},
		{"class", func(s *corev1.Service) { s.Spec.LoadBalancerClass = new("a/b") }, errs("Invalid spec.loadBalancerClass")},
	})
}

func TestServiceKeepsWhatWasAllocated(t *testing.T) {
	r := services()
	old := created(t, r).(*corev1.Service)
	old.Spec.ClusterIP, old.Spec.ClusterIPs = "10.96.0.7", []string{"10.96.0.7"}
	old.Spec.Ports[0].NodePort, old.Spec.Ports[1].NodePort = 30000, 30001
	svc := example(t, r).(*corev1.Service)
	r.Default(svc)
	r.Prepare(svc, old)
	if svc.Spec.ClusterIP != "10.96.0.7" || svc.Spec.Ports[0].NodePort != 30000 || svc.Spec.Ports[1].NodePort != 30001 {
		t.Errorf("an update that leaves them out: %+v", svc.Spec)
	}
	svc = old.DeepCopy()
	svc.Spec.Type = corev1.ServiceTypeClusterIP
	r.Default(svc)
	r.Prepare(svc, old)
	if svc.Spec.Ports[0].NodePort != 0 || svc.Spec.ExternalTrafficPolicy != "" || svc.Spec.AllocateLoadBalancerNodePorts != nil {
		t.Errorf("a change to ClusterIP keeps %+v", svc.Spec)
	}
}

// TestServiceAddressesFollowTheFirst: clusterIP alone is what a client of the
// singular field changes, so that validation is about the address and not about
// what the server filled in beside it.
func TestServiceAddressesFollowTheFirst(t *testing.T) {
	r := services()
	old := created(t, r).(*corev1.Service)
	old.Spec.ClusterIP, old.Spec.ClusterIPs = "None", []string{"None"}
	svc := old.DeepCopy()
	svc.Spec.ClusterIP = "10.96.0.7"
	r.Default(svc)
	r.Prepare(svc, old)
	if len(svc.Spec.ClusterIPs) != 1 || svc.Spec.ClusterIPs[0] != "10.96.0.7" {
		t.Errorf("a change of clusterIP leaves clusterIPs %v", svc.Spec.ClusterIPs)
	}
	svc.Spec.ClusterIPs = []string{"10.96.0.8"}
	r.Prepare(svc, old)
	if svc.Spec.ClusterIPs[0] != "10.96.0.8" {
		t.Errorf("clusterIPs that the client changed too became %v", svc.Spec.ClusterIPs)
	}
}

// TestServiceNodePortsFollowNames: a port that changes its number keeps its node
// port, by its name, unless another port of the service takes that.
func TestServiceNodePortsFollowNames(t *testing.T) {
	r := services()
	old := created(t, r).(*corev1.Service)
	old.Spec.Type = corev1.ServiceTypeNodePort
	old.Spec.Ports = []corev1.ServicePort{{Name: "a", Port: 80, Protocol: "TCP", NodePort: 30000}, {Name: "b", Port: 81, Protocol: "TCP", NodePort: 30001}}
	for _, c := range []struct {
		name  string
		ports []corev1.ServicePort
		want  []int32
	}{
		{"another number", []corev1.ServicePort{{Name: "a", Port: 8080, Protocol: "TCP"}, {Name: "b", Port: 81, Protocol: "UDP"}}, []int32{30000, 30001}},
		{"another name", []corev1.ServicePort{{Name: "c", Port: 80, Protocol: "TCP"}, {Name: "b", Port: 81, Protocol: "TCP"}}, []int32{0, 30001}},
		{"exchanged", []corev1.ServicePort{{Name: "a", Port: 80, Protocol: "TCP", NodePort: 30001}, {Name: "b", Port: 81, Protocol: "TCP"}}, []int32{30001, 0}},
	} {
		svc := old.DeepCopy()
		svc.Spec.Ports = c.ports
		r.Prepare(svc, old)
		for i, want := range c.want {
			if got := svc.Spec.Ports[i].NodePort; got != want {
				t.Errorf("%s: port %d has node port %d, want %d", c.name, i, got, want)
			}
		}
	}
}

func TestServiceNeeds(t *testing.T) {
	for _, c := range []struct {
		spec      corev1.ServiceSpec
		ip, ports bool
	}{
		{corev1.ServiceSpec{Type: "ClusterIP"}, true, false},
		{corev1.ServiceSpec{Type: "ClusterIP", ClusterIP: "None"}, false, false},
		{corev1.ServiceSpec{Type: "NodePort"}, true, true},
		{corev1.ServiceSpec{Type: "LoadBalancer", ClusterIP: "10.96.0.1", AllocateLoadBalancerNodePorts: new(false)}, false, false},
		{corev1.ServiceSpec{Type: "ExternalName"}, false, false},
	} {
		svc := &corev1.Service{Spec: c.spec}
		if ip, ports := ServiceNeedsClusterIP(svc), ServiceNeedsNodePorts(svc); ip != c.ip || ports != c.ports {
			t.Errorf("%+v: IP %v, ports %v", c.spec, ip, ports)
		}
	}
}

func TestEndpoints(t *testing.T) {
	testCreate(t, endpoints(), []change[*corev1.Endpoints]{
		{"empty", func(e *corev1.Endpoints) { e.Subsets = []corev1.EndpointSubset{{}} }, errs("Required subsets[0]")},
		{"loopback", func(e *corev1.Endpoints) { e.Subsets[0].Addresses[0].IP = "127.0.0.1" }, errs("Invalid subsets[0].addresses[0].ip")},
		{"mapped loopback", func(e *corev1.Endpoints) { e.Subsets[0].Addresses[0].IP = "::ffff:127.0.0.1" }, errs("Invalid subsets[0].addresses[0].ip")},
		{"metadata service", func(e *corev1.Endpoints) { e.Subsets[0].NotReadyAddresses[0].IP = "169.254.169.254" }, errs("Invalid subsets[0].notReadyAddresses[0].ip")},
		{"name", func(e *corev1.Endpoints) { e.Subsets[0].Ports[0].Name = "" }, errs("Required subsets[0].ports[0].name")},
		{"port", func(e *corev1.Endpoints) { e.Subsets[0].Ports[0].Port = 0 }, errs("Invalid subsets[0].ports[0].port")},
	})
}

func TestEndpointSlice(t *testing.T) {
	testCreate(t, endpointSlices(), []change[*discoveryv1.EndpointSlice]{
		{"no type", func(s *discoveryv1.EndpointSlice) { s.AddressType = "" }, errs("Required addressType")},
		{"type", func(s *discoveryv1.EndpointSlice) { s.AddressType = "IPX" }, errs("NotSupported addressType")},
		{"family", func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].Addresses[0] = "fd00::1" }, errs("Invalid endpoints[0].addresses[0]")},
		{"loopback", func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].Addresses[0] = "127.0.0.1" }, errs("Invalid endpoints[0].addresses[0]")},
		{"mapped link-local", func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].Addresses[0] = "::ffff:169.254.169.254" }, errs("Invalid endpoints[0].addresses[0]")},
		{"no address", func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].Addresses = nil }, errs("Required endpoints[0].addresses")},
		{"port twice", func(s *discoveryv1.EndpointSlice) { s.Ports[1].Name = nil }, errs("Duplicate ports[1].name")},
		{"too many", func(s *discoveryv1.EndpointSlice) {
			for len(s.Endpoints) <= maxSliceEndpoints {
				s.Endpoints = append(s.Endpoints, s.Endpoints[0])
			}
		}, errs("TooMany endpoints")},
	})
	testUpdate(t, endpointSlices(), nil, []change[*discoveryv1.EndpointSlice]{
		{"type", func(s *discoveryv1.EndpointSlice) { s.AddressType = "FQDN" }, errs("Invalid addressType")},
		{"endpoints", func(s *discoveryv1.EndpointSlice) { s.Endpoints = nil }, nil},
	})
	r := endpointSlices()
	old := created(t, r).(*discoveryv1.EndpointSlice)
	s := old.DeepCopy()
	s.Endpoints = nil
	r.Prepare(s, old)
	if old.Generation != 1 || s.Generation != 2 {
		t.Errorf("generations %d and %d, want 1 and 2", old.Generation, s.Generation)
	}
}

func TestEvent(t *testing.T) {
	modern := func(e *corev1.Event) {
		e.EventTime = metav1.NewMicroTime(testNow)
		e.ReportingController, e.ReportingInstance, e.Action = "kubelet", "n1", "Pull"
	}
	testCreate(t, events(), []change[*corev1.Event]{
		{"other namespace", func(e *corev1.Event) { e.InvolvedObject.Namespace = "x" }, errs("Invalid involvedObject.namespace")},
		{"cluster object", func(e *corev1.Event) { e.InvolvedObject.Namespace = "" }, errs("Invalid involvedObject.namespace")},
		{"cluster object in default", func(e *corev1.Event) { e.InvolvedObject.Namespace = ""; e.Namespace = "default" }, nil},
		{"new", modern, nil},
		{"new without controller", func(e *corev1.Event) { modern(e); e.ReportingController = "" }, errs("Required reportingController")},
		{"new with long reason", func(e *corev1.Event) { modern(e); e.Reason = strings.Repeat("x", 129) }, errs("Invalid reason")},
		{"new of no type", func(e *corev1.Event) { modern(e); e.Type = "Odd" }, errs("NotSupported type")},
	})
	testUpdate(t, events(), modern, []change[*corev1.Event]{
		{"series", func(e *corev1.Event) { e.Series = &corev1.EventSeries{Count: 2} }, nil},
		{"reason", func(e *corev1.Event) { e.Reason = "Other" }, errs("Invalid reason")},
	})
	testUpdate(t, events(), nil, []change[*corev1.Event]{
		{"old style", func(e *corev1.Event) { e.Count = 9; e.Message = "again" }, nil},
	})
}

func TestEventViewIsLossless(t *testing.T) {
	e := created(t, events()).(*corev1.Event)
	e.TypeMeta = metav1.TypeMeta{}
	e.Series = &corev1.EventSeries{Count: 4, LastObservedTime: metav1.NewMicroTime(testNow)}
	v := events().Views[0]
	view, err := v.To(e)
	if err != nil {
		t.Fatal(err)
	}
	back, err := v.From(view)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(e, back); diff != "" {
		t.Errorf("to the view and back:\n%s", diff)
	}
	if _, err := v.To(&corev1.Pod{}); err == nil {
		t.Error("a pod was taken for an event")
	}
}

func TestLease(t *testing.T) {
	testCreate(t, leases(), []change[*coordinationv1.Lease]{
		{"duration", func(l *coordinationv1.Lease) { l.Spec.LeaseDurationSeconds = new(int32(0)) }, errs("Invalid spec.leaseDurationSeconds")},
		{"transitions", func(l *coordinationv1.Lease) { l.Spec.LeaseTransitions = new(int32(-1)) }, errs("Invalid spec.leaseTransitions")},
		{"empty", func(l *coordinationv1.Lease) { l.Spec = coordinationv1.LeaseSpec{} }, nil},
	})
}
