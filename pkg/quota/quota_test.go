package quota

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var now = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// list makes a list of "name", "quantity", ...
func list(pairs ...string) corev1.ResourceList {
	out := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		out[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return out
}

func container(name string, requests, limits corev1.ResourceList) corev1.Container {
	return corev1.Container{Name: name, Resources: corev1.ResourceRequirements{Requests: requests, Limits: limits}}
}

func pod(change func(*corev1.Pod), containers ...corev1.Container) *corev1.Pod {
	p := &corev1.Pod{Spec: corev1.PodSpec{Containers: containers}}
	if change != nil {
		change(p)
	}
	return p
}

func in(plural string) schema.GroupResource { return schema.ParseGroupResource(plural) }

func service(spec corev1.ServiceSpec, ports ...int32) *corev1.Service {
	for _, p := range ports {
		spec.Ports = append(spec.Ports, corev1.ServicePort{NodePort: p})
	}
	return &corev1.Service{Spec: spec}
}

func claim(size, class string, change func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
	c := &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{Resources: corev1.VolumeResourceRequirements{Requests: list("storage", size)}}}
	if class != "" {
		c.Spec.StorageClassName = &class
	}
	if change != nil {
		change(c)
	}
	return c
}

func TestUsage(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	ended := func(after time.Duration) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &metav1.Time{Time: now.Add(-after)}, new(int64(30))
		}
	}
	devices := func(requests ...resourcev1.DeviceRequest) *resourcev1.ResourceClaim {
		return &resourcev1.ResourceClaim{Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: requests}}}
	}
	exactly := func(class string, mode resourcev1.DeviceAllocationMode, n int64) resourcev1.DeviceRequest {
		return resourcev1.DeviceRequest{Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: class, AllocationMode: mode, Count: n}}
	}
	tests := []struct {
		name string
		of   string
		obj  runtime.Object
		want corev1.ResourceList
	}{
		{"a pod that asks for nothing", "pods", pod(nil, container("c", nil, nil)), list("count/pods", "1", "pods", "1")},
		{"a pod", "pods", pod(nil, container("a", list("cpu", "1", "memory", "1Gi", "ephemeral-storage", "1Gi"), list("cpu", "2", "memory", "2Gi")), container("b", list("cpu", "500m"), list("ephemeral-storage", "2Gi"))),
			list("count/pods", "1", "pods", "1", "cpu", "1500m", "requests.cpu", "1500m", "memory", "1Gi", "requests.memory", "1Gi",
				"ephemeral-storage", "1Gi", "requests.ephemeral-storage", "1Gi", "limits.cpu", "2", "limits.memory", "2Gi", "limits.ephemeral-storage", "2Gi")},
		{"init containers and sidecars", "pods", pod(func(p *corev1.Pod) {
			side := container("s", list("cpu", "1"), nil)
			side.RestartPolicy = &always
			p.Spec.InitContainers = []corev1.Container{container("i", list("cpu", "3"), nil), side}
		}, container("a", list("cpu", "1"), nil)), list("count/pods", "1", "pods", "1", "cpu", "3", "requests.cpu", "3")},
		{"overhead", "pods", pod(func(p *corev1.Pod) { p.Spec.Overhead = list("cpu", "250m") }, container("a", list("cpu", "1"), nil)),
			list("count/pods", "1", "pods", "1", "cpu", "1250m", "requests.cpu", "1250m")},
		{"pod-level resources", "pods", pod(func(p *corev1.Pod) {
			p.Spec.Resources = &corev1.ResourceRequirements{Requests: list("cpu", "4"), Limits: list("cpu", "5")}
		}, container("a", list("cpu", "1"), nil)), list("count/pods", "1", "pods", "1", "cpu", "4", "requests.cpu", "4", "limits.cpu", "5")},
		{"pages and devices", "pods", pod(nil, container("a", list("hugepages-2Mi", "4Mi", "example.com/gpu", "2", "deviceclass.resource.kubernetes.io/gpu", "1"), nil)),
			list("count/pods", "1", "pods", "1", "hugepages-2Mi", "4Mi", "requests.hugepages-2Mi", "4Mi", "requests.example.com/gpu", "2",
				"requests.deviceclass.resource.kubernetes.io/gpu", "1")},
		{"a pod that has ended", "pods", pod(func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }, container("a", list("cpu", "1"), nil)), list("count/pods", "1")},
		{"a pod that is ending", "pods", pod(ended(29*time.Second), container("a", nil, nil)), list("count/pods", "1", "pods", "1")},
		{"a pod that nobody ends", "pods", pod(ended(31*time.Second), container("a", nil, nil)), list("count/pods", "1")},
		{"a pod that was resized down and is not yet", "pods", pod(func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "a", AllocatedResources: list("cpu", "2"), Resources: &corev1.ResourceRequirements{Requests: list("cpu", "2")}}}
		}, container("a", list("cpu", "1"), nil)), list("count/pods", "1", "pods", "1", "cpu", "2", "requests.cpu", "2")},
		{"a service", "services", service(corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP}, 0), list("count/services", "1", "services", "1", "services.nodeports", "0", "services.loadbalancers", "0")},
		{"node ports", "services", service(corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort}, 0, 30000), list("count/services", "1", "services", "1", "services.nodeports", "2", "services.loadbalancers", "0")},
		{"a load balancer", "services", service(corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer}, 0, 0), list("count/services", "1", "services", "1", "services.nodeports", "2", "services.loadbalancers", "1")},
		{"a load balancer without ports", "services", service(corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, AllocateLoadBalancerNodePorts: new(false)}, 0, 30000),
			list("count/services", "1", "services", "1", "services.nodeports", "1", "services.loadbalancers", "1")},
		{"a claim", "persistentvolumeclaims", claim("1Gi", "", nil), list("count/persistentvolumeclaims", "1", "persistentvolumeclaims", "1", "requests.storage", "1Gi")},
		{"a claim of a class", "persistentvolumeclaims", claim("1500m", "gold", nil), list("count/persistentvolumeclaims", "1", "persistentvolumeclaims", "1", "requests.storage", "2",
			"gold.storageclass.storage.k8s.io/persistentvolumeclaims", "1", "gold.storageclass.storage.k8s.io/requests.storage", "2")},
		{"a claim that shrank", "persistentvolumeclaims", claim("1Gi", "", func(c *corev1.PersistentVolumeClaim) { c.Status.AllocatedResources = list("storage", "3Gi") }),
			list("count/persistentvolumeclaims", "1", "persistentvolumeclaims", "1", "requests.storage", "3Gi")},
		{"devices", "resourceclaims.resource.k8s.io", devices(exactly("a", "ExactCount", 2), exactly("a", "ExactCount", 1), exactly("b", "All", 0), exactly("c", "New", 1)),
			list("count/resourceclaims.resource.k8s.io", "1", "a.deviceclass.resource.k8s.io/devices", "3", "b.deviceclass.resource.k8s.io/devices", "32", "c.deviceclass.resource.k8s.io/devices", "0")},
		{"the first devices that are there", "resourceclaims.resource.k8s.io", devices(resourcev1.DeviceRequest{FirstAvailable: []resourcev1.DeviceSubRequest{
			{DeviceClassName: "a", AllocationMode: "ExactCount", Count: 2}, {DeviceClassName: "a", AllocationMode: "ExactCount", Count: 4}, {DeviceClassName: "b", AllocationMode: "ExactCount", Count: 1}}}),
			list("count/resourceclaims.resource.k8s.io", "1", "a.deviceclass.resource.k8s.io/devices", "4", "b.deviceclass.resource.k8s.io/devices", "1")},
		{"a secret", "secrets", nil, list("count/secrets", "1", "secrets", "1")},
		{"anything", "widgets.example.com", nil, list("count/widgets.example.com", "1")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := For(in(tt.of))
			got := e.Usage(tt.obj, now)
			if !Equal(got, tt.want) {
				t.Errorf("usage (-want +got):\n%s", cmp.Diff(text(tt.want), text(got)))
			}
			for name := range got {
				if !e.Tracks(name) && name != "hugepages-2Mi" {
					t.Errorf("%s is used and not tracked", name)
				}
				if gr, ok := Resource(name); !ok || gr != in(tt.of) {
					t.Errorf("%s is about %s, want %s", name, gr, tt.of)
				}
			}
		})
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[corev1.ResourceName]string{
		"requests.example.com/gpu": "pods", "requests.hugepages-1Gi": "pods", "limits.memory": "pods", "count/pods": "pods",
		"gold.storageclass.storage.k8s.io/requests.storage": "persistentvolumeclaims", "requests.storage": "persistentvolumeclaims",
		"gpu.deviceclass.resource.k8s.io/devices": "resourceclaims.resource.k8s.io", "count/deployments.apps": "deployments.apps",
		"resourcequotas": "resourcequotas", "services.nodeports": "services", "example.com/gpu": "", "requests.kubernetes.io/x": "", "limits.example.com/gpu": "",
	} {
		gr, ok := Resource(name)
		if ok != (want != "") || ok && gr != in(want) {
			t.Errorf("%s is about %q (%v), want %q", name, gr, ok, want)
		}
	}
	if For(in("events")) != nil || For(in("events.events.k8s.io")) != nil {
		t.Error("events are counted")
	}
}

func TestScopes(t *testing.T) {
	is := func(scope corev1.ResourceQuotaScope) corev1.ScopedResourceSelectorRequirement {
		return corev1.ScopedResourceSelectorRequirement{ScopeName: scope, Operator: corev1.ScopeSelectorOpExists}
	}
	class := func(op corev1.ScopeSelectorOperator, values ...string) corev1.ScopedResourceSelectorRequirement {
		return corev1.ScopedResourceSelectorRequirement{ScopeName: corev1.ResourceQuotaScopePriorityClass, Operator: op, Values: values}
	}
	attributes := func(op corev1.ScopeSelectorOperator, values ...string) corev1.ScopedResourceSelectorRequirement {
		return corev1.ScopedResourceSelectorRequirement{ScopeName: corev1.ResourceQuotaScopeVolumeAttributesClass, Operator: op, Values: values}
	}
	plain := pod(nil, container("c", nil, nil))
	deadline := pod(func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = new(int64(0)) }, container("c", nil, nil))
	busy := pod(nil, container("c", nil, list("memory", "1")))
	zero := pod(nil, container("c", list("cpu", "0", "example.com/gpu", "1"), nil))
	high := pod(func(p *corev1.Pod) { p.Spec.PriorityClassName = "high" })
	across := pod(func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{
			{PodAffinityTerm: corev1.PodAffinityTerm{NamespaceSelector: &metav1.LabelSelector{}}}}}}
	})
	within := pod(func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{TopologyKey: "x"}}}}
	})
	moving := claim("1", "", func(c *corev1.PersistentVolumeClaim) {
		c.Spec.VolumeAttributesClassName, c.Status.CurrentVolumeAttributesClassName = new("new"), new("old")
	})
	tests := []struct {
		name string
		s    corev1.ScopedResourceSelectorRequirement
		obj  runtime.Object
		want bool
	}{
		{"terminating", is("Terminating"), deadline, true}, {"terminating, not", is("Terminating"), plain, false},
		{"not terminating", is("NotTerminating"), plain, true}, {"not terminating, not", is("NotTerminating"), deadline, false},
		{"best effort", is("BestEffort"), plain, true}, {"best effort with zero", is("BestEffort"), zero, true},
		{"best effort, not", is("BestEffort"), busy, false}, {"not best effort", is("NotBestEffort"), busy, true},
		{"any class", class("Exists"), high, true}, {"any class, not", class("Exists"), plain, false},
		{"no class", class("DoesNotExist"), plain, true}, {"no class, not", class("DoesNotExist"), high, false},
		{"class in", class("In", "low", "high"), high, true}, {"class in, not", class("In", "low"), high, false}, {"class in, none", class("In", "low"), plain, false},
		{"class not in", class("NotIn", "low"), high, true}, {"class not in, not", class("NotIn", "high"), high, false}, {"class not in, none", class("NotIn", "high"), plain, true},
		{"across", is("CrossNamespacePodAffinity"), across, true}, {"across, not", is("CrossNamespacePodAffinity"), within, false},
		{"another kind's", is("VolumeAttributesClass"), plain, false},
		{"attributes", attributes("In", "old"), moving, true}, {"attributes to come", attributes("In", "new"), moving, true},
		{"attributes, not", attributes("In", "other"), moving, false}, {"no attributes", attributes("DoesNotExist"), claim("1", "", nil), true},
		{"attributes, any", attributes("Exists"), moving, true}, {"a pod's scope of a claim", is("NotTerminating"), moving, false},
		{"a pod's scope of a service", is("NotTerminating"), &corev1.Service{}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := Evaluator(pods{})
			switch tt.obj.(type) {
			case *corev1.PersistentVolumeClaim:
				e = claims{}
			case *corev1.Service:
				e = services{}
			}
			if got := e.InScope(tt.s, tt.obj); got != tt.want {
				t.Errorf("in scope: %v, want %v", got, tt.want)
			}
		})
	}
}

func quotaOf(hard, used corev1.ResourceList, scopes ...corev1.ResourceQuotaScope) *corev1.ResourceQuota {
	return &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "q"}, Spec: corev1.ResourceQuotaSpec{Hard: hard, Scopes: scopes},
		Status: corev1.ResourceQuotaStatus{Hard: hard, Used: used}}
}

func TestChargeAndReserve(t *testing.T) {
	small := pod(nil, container("c", list("cpu", "100m", "memory", "1Gi"), list("cpu", "1", "memory", "1Gi")))
	silent := pod(nil, container("b", nil, nil), container("a", list("cpu", "1"), nil))
	bigger := pod(nil, container("c", list("cpu", "300m", "memory", "1Gi"), nil))
	tests := []struct {
		name    string
		of      string
		sub     string
		obj     runtime.Object
		old     runtime.Object
		q       *corev1.ResourceQuota
		delta   corev1.ResourceList
		refusal string
	}{
		{"fits", "pods", "", small, nil, quotaOf(list("pods", "2", "cpu", "1", "secrets", "0"), list("pods", "1", "cpu", "900m", "secrets", "0")), list("pods", "1", "cpu", "100m"), ""},
		{"exceeds", "pods", "", small, nil, quotaOf(list("pods", "2", "cpu", "1", "memory", "2Gi"), list("pods", "2", "cpu", "950m", "memory", "0")), nil,
			"exceeded quota: q, requested: cpu=100m,pods=1, used: cpu=950m,pods=2, limited: cpu=1,pods=2"},
		{"is about something else", "pods", "", small, nil, quotaOf(list("secrets", "0"), list("secrets", "0")), nil, ""},
		{"is out of scope", "pods", "", small, nil, quotaOf(list("pods", "0"), list("pods", "0"), "BestEffort"), nil, ""},
		{"lacks", "pods", "", silent, nil, quotaOf(list("cpu", "9", "limits.cpu", "9", "requests.memory", "9"), nil), nil,
			"failed quota: q: must specify cpu for: b; limits.cpu for: a,b; requests.memory for: a,b"},
		{"lacks what it has as a whole", "pods", "", pod(func(p *corev1.Pod) {
			p.Spec.Resources = &corev1.ResourceRequirements{Requests: list("cpu", "1")}
		}, container("a", nil, nil)), nil, quotaOf(list("cpu", "9", "memory", "1"), list("cpu", "0", "memory", "0")), list("cpu", "1"), ""},
		{"is not counted yet", "pods", "", small, nil, quotaOf(list("pods", "2", "cpu", "1"), list("pods", "1")), nil, "status unknown for quota: q, resources: cpu,pods"},
		{"asks for less than nothing", "pods", "", pod(nil, container("c", list("cpu", "-1"), nil)), nil, quotaOf(list("cpu", "1"), list("cpu", "0")), nil,
			"quota usage is negative for resource(s): cpu,requests.cpu"},
		{"grows", "pods", "resize", bigger, small, quotaOf(list("cpu", "1"), list("cpu", "800m")), list("cpu", "200m"), ""},
		{"grows too much", "pods", "resize", bigger, small, quotaOf(list("cpu", "1"), list("cpu", "900m")), nil,
			"exceeded quota: q, requested: cpu=200m, used: cpu=900m, limited: cpu=1"},
		{"shrinks while all is used", "pods", "resize", small, bigger, quotaOf(list("cpu", "1"), list("cpu", "2")), nil, ""},
		{"comes into scope", "pods", "", pod(func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = new(int64(1)) }), pod(nil),
			quotaOf(list("pods", "1"), list("pods", "0"), "Terminating"), list("pods", "1"), ""},
		{"becomes a node port", "services", "", service(corev1.ServiceSpec{Type: "NodePort"}, 0), service(corev1.ServiceSpec{Type: "ClusterIP"}, 0),
			quotaOf(list("services", "1", "services.nodeports", "1"), list("services", "1", "services.nodeports", "1")), nil,
			"exceeded quota: q, requested: services.nodeports=1, used: services.nodeports=1, limited: services.nodeports=1"},
		{"reports more than there is", "persistentvolumeclaims", "status", claim("1Gi", "", func(c *corev1.PersistentVolumeClaim) { c.Status.AllocatedResources = list("storage", "3Gi") }),
			claim("1Gi", "", nil), quotaOf(list("requests.storage", "1Gi"), list("requests.storage", "1Gi")), list("requests.storage", "2Gi"), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := Write{Evaluator: For(in(tt.of)), Subresource: tt.sub, Object: tt.obj, Old: tt.old, Now: now}
			if !w.Evaluator.Handles(tt.sub, tt.obj, tt.old) {
				t.Fatal("the write is not looked at")
			}
			delta, err := w.Charge(tt.q)
			var used corev1.ResourceList
			if err == nil {
				used, err = w.Reserve(tt.q, tt.q.Status.Used, delta)
			}
			if got := message(err); got != tt.refusal {
				t.Fatalf("got %q, want %q", got, tt.refusal)
			}
			if err == nil && (!Equal(delta, tt.delta) || !Equal(used, Add(tt.q.Status.Used, tt.delta))) {
				t.Errorf("charged %s, used is %s; want %s", text(delta), text(used), text(tt.delta))
			}
		})
	}
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestHandles(t *testing.T) {
	p, d := pod(nil), pod(func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = new(int64(1)) })
	c := claim("1", "", nil)
	for _, tt := range []struct {
		of, sub  string
		obj, old runtime.Object
		want     bool
	}{
		{"pods", "", p, nil, true}, {"pods", "", p, p, false}, {"pods", "", d, p, true}, {"pods", "status", p, p, false}, {"pods", "resize", p, p, true}, {"pods", "binding", p, nil, false},
		{"services", "", nil, nil, true}, {"services", "status", nil, nil, false},
		{"persistentvolumeclaims", "", c, c, true}, {"persistentvolumeclaims", "status", c, c, false},
		{"persistentvolumeclaims", "status", claim("1", "", func(c *corev1.PersistentVolumeClaim) { c.Status.CurrentVolumeAttributesClassName = new("x") }), c, true},
		{"resourceclaims.resource.k8s.io", "", nil, nil, true}, {"resourceclaims.resource.k8s.io", "status", nil, nil, false},
		{"secrets", "", p, nil, true}, {"secrets", "", p, p, false}, {"widgets.example.com", "status", p, nil, false},
	} {
		if got := For(in(tt.of)).Handles(tt.sub, tt.obj, tt.old); got != tt.want {
			t.Errorf("%s/%s with old %v: %v, want %v", tt.of, tt.sub, tt.old != nil, got, tt.want)
		}
	}
}

// TestUpdatesAreNeverFree: what an update is charged is what is missing to the
// new usage, so that used never says less than what is there.
func TestUpdatesAreNeverFree(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	names := []string{"a", "b", "c"}
	random := func() corev1.ResourceList {
		out := corev1.ResourceList{}
		for _, n := range names {
			if r.IntN(3) > 0 {
				out[corev1.ResourceName(n)] = *resource.NewMilliQuantity(r.Int64N(5), resource.DecimalSI)
			}
		}
		return out
	}
	for range 1000 {
		a, b := random(), random()
		sum := Add(Excess(a, b), b)
		for name, x := range a {
			if have := sum[name]; have.Cmp(x) < 0 {
				t.Fatalf("%s over %s: %s is %s", text(a), text(b), name, have.String())
			}
		}
		if !Equal(Add(a, b), Add(b, a)) || !Equal(Mask(a, a), a) {
			t.Fatalf("sums and masks of %s and %s", text(a), text(b))
		}
	}
}
