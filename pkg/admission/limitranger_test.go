package admission

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// quantities makes a list of "name", "quantity", ...
func quantities(pairs ...string) corev1.ResourceList {
	list := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		list[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return list
}

func container(name string, requests, limits corev1.ResourceList) corev1.Container {
	return corev1.Container{Name: name, Image: "i", Resources: corev1.ResourceRequirements{Requests: requests, Limits: limits}}
}

func podOf(containers ...corev1.Container) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns"}, Spec: corev1.PodSpec{Containers: containers}}
}

func limited(items ...corev1.LimitRangeItem) stored {
	return stored{limitRangeGVR: {
		&corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Name: "l", Namespace: "ns"}, Spec: corev1.LimitRangeSpec{Limits: items}},
		&corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Name: "l", Namespace: "elsewhere"}, Spec: corev1.LimitRangeSpec{
			Limits: []corev1.LimitRangeItem{{Type: corev1.LimitTypePod, Max: quantities("cpu", "1n")}}}},
	}}
}

func TestLimitRangerDefaults(t *testing.T) {
	ranges := limited(corev1.LimitRangeItem{Type: corev1.LimitTypeContainer,
		Default: quantities("cpu", "500m", "memory", "1Gi"), DefaultRequest: quantities("cpu", "100m", "memory", "512Mi")})
	p := podOf(container("none", nil, nil), container("some", quantities("cpu", "200m"), quantities("memory", "2Gi")),
		container("all", quantities("cpu", "1", "memory", "1"), quantities("cpu", "1", "memory", "1")))
	p.Spec.InitContainers = []corev1.Container{container("first", nil, nil)}
	refused(t, pass(t, LimitRanger{Objects: ranges}, request(t, Create, podGVR, "", p, nil)), "")
	want := podOf(
		container("none", quantities("cpu", "100m", "memory", "512Mi"), quantities("cpu", "500m", "memory", "1Gi")),
		container("some", quantities("cpu", "200m", "memory", "512Mi"), quantities("cpu", "500m", "memory", "2Gi")),
		container("all", quantities("cpu", "1", "memory", "1"), quantities("cpu", "1", "memory", "1")))
	want.Spec.InitContainers = []corev1.Container{container("first", quantities("cpu", "100m", "memory", "512Mi"), quantities("cpu", "500m", "memory", "1Gi"))}
	want.Annotations = map[string]string{"kubernetes.io/limit-ranger": "LimitRanger plugin set: cpu, memory request for container none; " +
		"cpu, memory limit for container none; memory request for container some; cpu limit for container some; " +
		"cpu, memory request for init container first; cpu, memory limit for init container first"}
	if diff := cmp.Diff(want, p); diff != "" {
		t.Errorf("the pod (-want +got):\n%s", diff)
	}
	untouched := podOf(container("all", quantities("cpu", "1", "memory", "1"), quantities("cpu", "1", "memory", "1")))
	want = untouched.DeepCopy()
	refused(t, pass(t, LimitRanger{Objects: ranges}, request(t, Create, podGVR, "", untouched, nil)), "")
	if diff := cmp.Diff(want, untouched); diff != "" {
		t.Errorf("a complete pod (-want +got):\n%s", diff)
	}
}

func TestLimitRangerBounds(t *testing.T) {
	item := func(kind corev1.LimitType, low, high, ratio corev1.ResourceList) corev1.LimitRangeItem {
		return corev1.LimitRangeItem{Type: kind, Min: low, Max: high, MaxLimitRequestRatio: ratio}
	}
	sidecar := container("side", quantities("memory", "1Gi"), quantities("memory", "1Gi"))
	sidecar.RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
	onPod := func(change func(*corev1.Pod), containers ...corev1.Container) *corev1.Pod {
		p := podOf(containers...)
		change(p)
		return p
	}
	tests := []struct {
		name  string
		limit corev1.LimitRangeItem
		pod   *corev1.Pod
		want  string
	}{
		{"within", item("Container", quantities("cpu", "1"), quantities("cpu", "2"), quantities("cpu", "2")),
			podOf(container("c", quantities("cpu", "1"), quantities("cpu", "2"))), ""},
		{"no request", item("Container", quantities("cpu", "1"), nil, nil), podOf(container("c", nil, nil)),
			"minimum cpu usage per Container is 1.  No request is specified"},
		{"request below", item("Container", quantities("cpu", "1"), nil, nil), podOf(container("c", quantities("cpu", "999m"), nil)),
			"minimum cpu usage per Container is 1, but request is 999m"},
		{"limit below", item("Container", quantities("cpu", "1"), nil, nil), podOf(container("c", quantities("cpu", "1"), quantities("cpu", "10m"))),
			"minimum cpu usage per Container is 1, but limit is 10m"},
		{"no limit", item("Container", nil, quantities("memory", "1Gi"), nil), podOf(container("c", quantities("memory", "1"), nil)),
			"maximum memory usage per Container is 1Gi.  No limit is specified"},
		{"limit above", item("Container", nil, quantities("memory", "1Gi"), nil), podOf(container("c", nil, quantities("memory", "1025Mi"))),
			"maximum memory usage per Container is 1Gi, but limit is 1025Mi"},
		{"request above", item("Container", nil, quantities("memory", "1Gi"), nil), podOf(container("c", quantities("memory", "2Gi"), quantities("memory", "1Gi"))),
			"maximum memory usage per Container is 1Gi, but request is 2Gi"},
		{"init container", item("Container", nil, quantities("memory", "1Gi"), nil),
			onPod(func(p *corev1.Pod) { p.Spec.InitContainers = []corev1.Container{container("i", nil, nil)} }, container("c", nil, quantities("memory", "1Gi"))),
			"maximum memory usage per Container is 1Gi.  No limit is specified"},
		{"ratio without request", item("Container", nil, nil, quantities("cpu", "2")), podOf(container("c", nil, quantities("cpu", "1"))),
			"cpu max limit to request ratio per Container is 2, but no request is specified or request is 0"},
		{"ratio without limit", item("Container", nil, nil, quantities("cpu", "2")), podOf(container("c", quantities("cpu", "1"), nil)),
			"cpu max limit to request ratio per Container is 2, but no limit is specified or limit is 0"},
		{"ratio above", item("Container", nil, nil, quantities("cpu", "1500m")), podOf(container("c", quantities("cpu", "1"), quantities("cpu", "1600m"))),
			"cpu max limit to request ratio per Container is 1500m, but provided ratio is 1.600000"},
		{"two at once", item("Container", quantities("cpu", "1", "memory", "1"), nil, nil), podOf(container("c", nil, nil)),
			"[minimum cpu usage per Container is 1.  No request is specified, minimum memory usage per Container is 1.  No request is specified]"},
		{"pod sum", item("Pod", nil, quantities("memory", "3Gi"), nil),
			podOf(container("a", nil, quantities("memory", "2Gi")), container("b", nil, quantities("memory", "2Gi"))),
			"maximum memory usage per Pod is 3Gi, but limit is 4Gi"},
		{"pod with a sidecar", item("Pod", nil, quantities("memory", "2Gi"), nil),
			onPod(func(p *corev1.Pod) { p.Spec.InitContainers = []corev1.Container{sidecar} }, container("a", nil, quantities("memory", "2Gi"))),
			"maximum memory usage per Pod is 2Gi, but limit is 3Gi"},
		{"pod without its overhead", item("Pod", nil, quantities("memory", "2Gi"), nil),
			onPod(func(p *corev1.Pod) { p.Spec.Overhead = quantities("memory", "1Gi") }, container("a", nil, quantities("memory", "2Gi"))), ""},
		{"pod-level resources", item("Pod", quantities("memory", "2Gi"), nil, nil),
			onPod(func(p *corev1.Pod) {
				p.Spec.Resources = &corev1.ResourceRequirements{Requests: quantities("memory", "3Gi")}
			}, container("a", quantities("memory", "1Gi"), nil)), ""},
		{"of another type", item("PersistentVolumeClaim", nil, quantities("storage", "1"), nil), podOf(container("c", nil, nil)), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			plugin := LimitRanger{Objects: limited(tt.limit)}
			refused(t, pass(t, plugin, request(t, Create, podGVR, "", tt.pod, nil)), tt.want)
			refused(t, pass(t, plugin, request(t, Update, podGVR, "", tt.pod, tt.pod)), "")
			refused(t, pass(t, plugin, request(t, Update, podGVR, "status", tt.pod, tt.pod)), "")
			refused(t, pass(t, plugin, request(t, Update, podGVR, "resize", tt.pod, tt.pod)), tt.want)
		})
	}
}

func TestLimitRangerClaims(t *testing.T) {
	claim := func(asked corev1.ResourceList) *corev1.PersistentVolumeClaim {
		return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "ns"},
			Spec: corev1.PersistentVolumeClaimSpec{Resources: corev1.VolumeResourceRequirements{Requests: asked}}}
	}
	leaving := claim(nil)
	leaving.DeletionTimestamp = &metav1.Time{}
	plugin := LimitRanger{Objects: limited(corev1.LimitRangeItem{Type: corev1.LimitTypePersistentVolumeClaim,
		Min: quantities("storage", "1Gi"), Max: quantities("storage", "5Gi")})}
	tests := []struct {
		name  string
		op    Operation
		claim *corev1.PersistentVolumeClaim
		old   runtime.Object
		want  string
	}{
		{"within", Create, claim(quantities("storage", "5Gi")), nil, ""},
		{"below", Create, claim(quantities("storage", "1")), nil, "minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1"},
		{"above", Create, claim(quantities("storage", "6Gi")), nil, "maximum storage usage per PersistentVolumeClaim is 5Gi, but request is 6Gi"},
		{"grows above", Update, claim(quantities("storage", "6Gi")), claim(quantities("storage", "5Gi")), "maximum storage usage"},
		{"is being deleted", Update, claim(quantities("storage", "6Gi")), leaving, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			gvr := corev1.SchemeGroupVersion.WithResource("persistentvolumeclaims")
			refused(t, pass(t, plugin, request(t, tt.op, gvr, "", tt.claim, tt.old)), tt.want)
		})
	}
}
