package scheduler_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"coracle/pkg/testcluster"
)

const gpuDriver = "gpu.example.com"

// makeSlice publishes a node's devices.
func makeSlice(t *testing.T, c kubernetes.Interface, node string, devices ...resourcev1.Device) {
	t.Helper()
	_, err := c.ResourceV1().ResourceSlices().Create(t.Context(), &resourcev1.ResourceSlice{
		ObjectMeta: metav1.ObjectMeta{Name: node + "-gpus"},
		Spec: resourcev1.ResourceSliceSpec{Driver: gpuDriver, NodeName: &node, Devices: devices,
			Pool: resourcev1.ResourcePool{Name: node, ResourceSliceCount: 1}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// gpu is a device with a model and a place.
func gpu(name, model, socket string, taints ...resourcev1.DeviceTaint) resourcev1.Device {
	return resourcev1.Device{Name: name, Taints: taints, Attributes: map[resourcev1.QualifiedName]resourcev1.DeviceAttribute{
		"model": {StringValue: &model}, "socket": {StringValue: &socket}}}
}

func makeDeviceClass(t *testing.T, c kubernetes.Interface, name, selector string) {
	t.Helper()
	class := &resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: name}}
	class.Spec.Selectors = []resourcev1.DeviceSelector{{CEL: &resourcev1.CELDeviceSelector{Expression: selector}}}
	if _, err := c.ResourceV1().DeviceClasses().Create(t.Context(), class, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func oneGPU(change ...func(*resourcev1.ExactDeviceRequest)) resourcev1.DeviceClaim {
	r := &resourcev1.ExactDeviceRequest{DeviceClassName: "gpu"}
	for _, f := range change {
		f(r)
	}
	return resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{{Name: "gpu", Exactly: r}}}
}

func makeDeviceTemplate(t *testing.T, c kubernetes.Interface, name string, devices resourcev1.DeviceClaim) {
	t.Helper()
	_, err := c.ResourceV1().ResourceClaimTemplates("default").Create(t.Context(), &resourcev1.ResourceClaimTemplate{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: resourcev1.ResourceClaimTemplateSpec{Spec: resourcev1.ResourceClaimSpec{Devices: devices}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

func makeDeviceClaim(t *testing.T, c kubernetes.Interface, name string, devices resourcev1.DeviceClaim) {
	t.Helper()
	_, err := c.ResourceV1().ResourceClaims("default").Create(t.Context(), &resourcev1.ResourceClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: resourcev1.ResourceClaimSpec{Devices: devices}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// withTemplate gives a pod a claim of its own, withClaim one that there is.
func withTemplate(template string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.ResourceClaims = append(p.Spec.ResourceClaims, corev1.PodResourceClaim{Name: template, ResourceClaimTemplateName: &template})
	}
}

func withClaim(claim string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.ResourceClaims = append(p.Spec.ResourceClaims, corev1.PodResourceClaim{Name: claim, ResourceClaimName: &claim})
	}
}

func getClaim(t *testing.T, c kubernetes.Interface, name string) *resourcev1.ResourceClaim {
	t.Helper()
	claim, err := c.ResourceV1().ResourceClaims("default").Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return claim
}

// devicesOf are the devices of the claim that a pod was given, as node/device.
func devicesOf(t *testing.T, c kubernetes.Interface, p *corev1.Pod) string {
	t.Helper()
	var out []string
	for _, s := range p.Status.ResourceClaimStatuses {
		claim := getClaim(t, c, *s.ResourceClaimName)
		if users := claim.Status.ReservedFor; claim.Status.Allocation == nil || len(users) != 1 || users[0].UID != p.UID || len(claim.Finalizers) != 1 {
			t.Fatalf("claim %s of a bound pod: finalizers %v, status %+v", claim.Name, claim.Finalizers, claim.Status)
		}
		for _, r := range claim.Status.Allocation.Devices.Results {
			out = append(out, r.Pool+"/"+r.Device)
		}
	}
	return strings.Join(out, " ")
}

func removePod(t *testing.T, c kubernetes.Interface, name string) {
	t.Helper()
	if err := c.CoreV1().Pods("default").Delete(t.Context(), name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil {
		t.Fatal(err)
	}
}

// TestPodsCompeteForADevice: each step on a pod's way says what it waits for,
// and who gets the device first keeps it until it ends.
func TestPodsCompeteForADevice(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithRoles()).Client
	makeNode(t, c, "n1", "4", nil)
	makeNode(t, c, "n2", "4", nil)
	makePod(t, c, "a", "100m", withTemplate("gpu"))
	awaitPod(t, c, "a", says(`pod "default/a": ResourceClaim not created yet`))
	makeDeviceTemplate(t, c, "gpu", oneGPU())
	awaitPod(t, c, "a", says("request gpu: device class gpu does not exist"))
	makeDeviceClass(t, c, "gpu", fmt.Sprintf("device.driver == %q", gpuDriver))
	p := awaitPod(t, c, "a", says("cannot allocate all claims"))
	if got, want := unschedulable(p), "0/2 nodes are available: 2 cannot allocate all claims. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."; got != want {
		t.Errorf("message %q, want %q", got, want)
	}
	makeSlice(t, c, "n2", gpu("g0", "big", "s0"))
	p = awaitPod(t, c, "a", bound)
	if got := devicesOf(t, c, p); p.Spec.NodeName != "n2" || got != "n2/g0" {
		t.Errorf("the pod is on %s with %s", p.Spec.NodeName, got)
	}
	makePod(t, c, "b", "100m", withTemplate("gpu"))
	awaitPod(t, c, "b", says("2 cannot allocate all claims"))
	removePod(t, c, "a")
	if got := devicesOf(t, c, awaitPod(t, c, "b", bound)); got != "n2/g0" {
		t.Errorf("the second pod has %s", got)
	}
	makePod(t, c, "c", "100m", withClaim("missing"))
	awaitPod(t, c, "c", says(`could not find ResourceClaim "default/missing"`))
}

// TestManyPodsShareFewDevices: no device is given twice, however fast pods
// come.
func TestManyPodsShareFewDevices(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithRoles()).Client
	makeDeviceClass(t, c, "gpu", fmt.Sprintf("device.driver == %q", gpuDriver))
	makeDeviceTemplate(t, c, "gpu", oneGPU())
	const nodes, each = 4, 4
	for i := range nodes {
		name := fmt.Sprintf("n%d", i)
		makeNode(t, c, name, "64", nil)
		var devices []resourcev1.Device
		for j := range each {
			devices = append(devices, gpu(fmt.Sprintf("g%d", j), "big", "s0"))
		}
		makeSlice(t, c, name, devices...)
	}
	for i := range nodes * each {
		makePod(t, c, fmt.Sprintf("p%d", i), "100m", withTemplate("gpu"))
	}
	has := map[string]string{}
	for i := range nodes * each {
		p := awaitPod(t, c, fmt.Sprintf("p%d", i), bound)
		device := devicesOf(t, c, p)
		if other := has[device]; other != "" || !strings.HasPrefix(device, p.Spec.NodeName+"/") {
			t.Errorf("%s on %s has %s, which is also %q's", p.Name, p.Spec.NodeName, device, other)
		}
		has[device] = p.Name
	}
	makePod(t, c, "late", "100m", withTemplate("gpu"))
	awaitPod(t, c, "late", says("4 cannot allocate all claims"))
}

func TestDevicesAreChosenAsClaimsSay(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithRoles()).Client
	makeDeviceClass(t, c, "gpu", fmt.Sprintf("device.driver == %q", gpuDriver))
	makeDeviceClass(t, c, "huge", fmt.Sprintf("device.attributes[%q].model == %q", gpuDriver, "huge"))
	makeNode(t, c, "n1", "4", nil)
	makeNode(t, c, "n2", "4", nil)
	makeSlice(t, c, "n1", gpu("g0", "big", "s0"), gpu("g1", "small", "s1"), gpu("g2", "big", "s1"))
	makeSlice(t, c, "n2", gpu("g0", "old", "s0", resourcev1.DeviceTaint{Key: "broken", Effect: resourcev1.DeviceTaintEffectNoSchedule}))
	socket := resourcev1.FullyQualifiedName(gpuDriver + "/socket")
	model := func(model string) func(*resourcev1.ExactDeviceRequest) {
		return func(r *resourcev1.ExactDeviceRequest) {
			r.Selectors = []resourcev1.DeviceSelector{{CEL: &resourcev1.CELDeviceSelector{Expression: fmt.Sprintf("device.attributes[%q].model == %q", gpuDriver, model)}}}
		}
	}
	two := oneGPU(func(r *resourcev1.ExactDeviceRequest) { r.Count = 2 })
	two.Constraints = []resourcev1.DeviceConstraint{{MatchAttribute: &socket}}
	tests := []struct {
		name    string
		devices resourcev1.DeviceClaim
		want    string // devices, or a part of the message
	}{
		{"by a selector", oneGPU(model("small")), "n1/g1"},
		{"of one socket", two, "n1/g1 n1/g2"},
		{"all of a model", oneGPU(model("big"), func(r *resourcev1.ExactDeviceRequest) {
			r.AllocationMode = resourcev1.DeviceAllocationModeAll
		}), "n1/g0 n1/g2"},
		{"the next best", resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{{Name: "gpu", FirstAvailable: []resourcev1.DeviceSubRequest{
			{Name: "huge", DeviceClassName: "huge"},
			{Name: "small", DeviceClassName: "gpu", Selectors: oneGPU(model("small")).Requests[0].Exactly.Selectors}}}}}, "n1/g1"},
		{"what is broken", oneGPU(model("old")), "cannot allocate all claims"},
		{"what is broken, tolerated", oneGPU(model("old"), func(r *resourcev1.ExactDeviceRequest) {
			r.Tolerations = []resourcev1.DeviceToleration{{Key: "broken", Operator: resourcev1.DeviceTolerationOpExists}}
		}), "n2/g0"},
		{"a selector that fails", oneGPU(func(r *resourcev1.ExactDeviceRequest) {
			r.Selectors = []resourcev1.DeviceSelector{{CEL: &resourcev1.CELDeviceSelector{Expression: fmt.Sprintf("device.attributes[%q].colour == %q", gpuDriver, "red")}}}
		}), "no such key: colour"},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			name := fmt.Sprintf("p%d", i)
			makeDeviceTemplate(t, c, name, tt.devices)
			makePod(t, c, name, "100m", withTemplate(name))
			defer removePod(t, c, name)
			if !strings.Contains(tt.want, "/") {
				awaitPod(t, c, name, says(tt.want))
				return
			}
			if got := devicesOf(t, c, awaitPod(t, c, name, bound)); got != tt.want {
				t.Errorf("the pod has %s, want %s", got, tt.want)
			}
		})
	}
}

// TestPodsShareAClaim: all of them go where its devices are; a pod for which
// there is no room there waits as long as others use it.
func TestPodsShareAClaim(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithRoles()).Client
	makeDeviceClass(t, c, "gpu", fmt.Sprintf("device.driver == %q", gpuDriver))
	makeNode(t, c, "n1", "1", nil)
	makeSlice(t, c, "n1", gpu("g0", "big", "s0"))
	makeDeviceClaim(t, c, "shared", oneGPU())
	makePod(t, c, "a", "400m", withClaim("shared"))
	makePod(t, c, "b", "400m", withClaim("shared"))
	awaitPod(t, c, "a", bound)
	awaitPod(t, c, "b", bound)
	if users := getClaim(t, c, "shared").Status.ReservedFor; len(users) != 2 {
		t.Errorf("the claim is used by %v", users)
	}
	makeNode(t, c, "n2", "4", nil)
	makeSlice(t, c, "n2", gpu("g0", "big", "s0"))
	makePod(t, c, "c", "400m", withClaim("shared"))
	awaitPod(t, c, "c", says("0/2 nodes are available: 1 Insufficient cpu, 1 resourceclaim not available on the node"))
	removePod(t, c, "a")
	if p := awaitPod(t, c, "c", bound); p.Spec.NodeName != "n1" {
		t.Errorf("the pod is on %s, the device on n1", p.Spec.NodeName)
	}
}

// TestDevicesWhereAPodCannotGoAreTakenBack: a claim that was given devices for
// a pod that was then not bound does not tie it to a node that is full.
func TestDevicesWhereAPodCannotGoAreTakenBack(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithRoles()).Client
	makeDeviceClass(t, c, "gpu", fmt.Sprintf("device.driver == %q", gpuDriver))
	makeDeviceClaim(t, c, "claim", oneGPU())
	claim := getClaim(t, c, "claim")
	claim.Finalizers = []string{resourcev1.Finalizer}
	claim, err := c.ResourceV1().ResourceClaims("default").Update(t.Context(), claim, metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	claim.Status.Allocation = &resourcev1.AllocationResult{
		Devices: resourcev1.DeviceAllocationResult{Results: []resourcev1.DeviceRequestAllocationResult{{Request: "gpu", Driver: gpuDriver, Pool: "n0", Device: "g0"}}},
		NodeSelector: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{
			{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{"n0"}}}}}},
	}
	if _, err := c.ResourceV1().ResourceClaims("default").UpdateStatus(t.Context(), claim, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	makeNode(t, c, "n1", "4", nil)
	makeSlice(t, c, "n1", gpu("g0", "big", "s0"))
	makePod(t, c, "p", "100m", withClaim("claim"))
	awaitPod(t, c, "p", bound)
	if r := getClaim(t, c, "claim").Status.Allocation.Devices.Results; r[0].Pool != "n1" {
		t.Errorf("the claim has %v", r)
	}
}

// TestDeviceTaintRule: a rule keeps pods from devices until it goes.
func TestDeviceTaintRule(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithRoles()).Client
	makeDeviceClass(t, c, "gpu", fmt.Sprintf("device.driver == %q", gpuDriver))
	makeDeviceTemplate(t, c, "gpu", oneGPU())
	makeNode(t, c, "n1", "4", nil)
	makeSlice(t, c, "n1", gpu("g0", "big", "s0"), gpu("g1", "big", "s0"))
	pool, device := "n1", "g0"
	rule := &resourcev1.DeviceTaintRule{ObjectMeta: metav1.ObjectMeta{Name: "maintenance"}, Spec: resourcev1.DeviceTaintRuleSpec{
		DeviceSelector: &resourcev1.DeviceTaintSelector{Pool: &pool, Device: &device},
		Taint:          resourcev1.DeviceTaint{Key: "maintenance", Effect: resourcev1.DeviceTaintEffectNoSchedule, TimeAdded: &metav1.Time{Time: time.Unix(1, 0)}},
	}}
	if _, err := c.ResourceV1().DeviceTaintRules().Create(t.Context(), rule, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	makePod(t, c, "a", "100m", withTemplate("gpu"))
	makePod(t, c, "b", "100m", withTemplate("gpu"))
	p := awaitPod(t, c, "a", func(p *corev1.Pod) bool { return bound(p) || says("cannot allocate all claims")(p) })
	first, second := "a", "b"
	if !bound(p) {
		first, second = "b", "a"
	}
	if got := devicesOf(t, c, awaitPod(t, c, first, bound)); got != "n1/g1" {
		t.Errorf("a pod has %s", got)
	}
	awaitPod(t, c, second, says("cannot allocate all claims"))
	if err := c.ResourceV1().DeviceTaintRules().Delete(t.Context(), "maintenance", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	awaitPod(t, c, second, bound)
}
