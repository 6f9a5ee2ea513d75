package admission

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func exists(key string) corev1.Toleration {
	return corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}
}

func TestRuntimeClass(t *testing.T) {
	plugin := RuntimeClass{Objects: stored{runtimeClassGVR: {
		&nodev1.RuntimeClass{ObjectMeta: named("plain", 0)},
		&nodev1.RuntimeClass{ObjectMeta: named("heavy", 0), Overhead: &nodev1.Overhead{PodFixed: quantities("cpu", "100m")}},
		&nodev1.RuntimeClass{ObjectMeta: named("placed", 0), Scheduling: &nodev1.Scheduling{
			NodeSelector: map[string]string{"vm": "yes"}, Tolerations: []corev1.Toleration{exists("vm")}}},
	}}}
	tests := []struct {
		name    string
		class   *string
		spec    corev1.PodSpec
		want    corev1.PodSpec // without the class
		refusal string
	}{
		{"none", nil, corev1.PodSpec{}, corev1.PodSpec{}, ""},
		{"unknown", new("gone"), corev1.PodSpec{}, corev1.PodSpec{}, `pod rejected: RuntimeClass "gone" not found`},
		{"plain", new("plain"), corev1.PodSpec{}, corev1.PodSpec{}, ""},
		{"overhead", new("heavy"), corev1.PodSpec{}, corev1.PodSpec{Overhead: quantities("cpu", "100m")}, ""},
		{"the same overhead", new("heavy"), corev1.PodSpec{Overhead: quantities("cpu", "0.1")}, corev1.PodSpec{Overhead: quantities("cpu", "100m")}, ""},
		{"another overhead", new("heavy"), corev1.PodSpec{Overhead: quantities("cpu", "1")}, corev1.PodSpec{}, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"},
		{"an overhead of its own", new("plain"), corev1.PodSpec{Overhead: quantities("cpu", "1")}, corev1.PodSpec{}, "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"},
		{"an overhead without class", nil, corev1.PodSpec{Overhead: quantities("cpu", "1")}, corev1.PodSpec{}, "without corresponding RuntimeClass"},
		{"placed", new("placed"), corev1.PodSpec{NodeSelector: map[string]string{"disk": "ssd"}, Tolerations: []corev1.Toleration{exists("x")}},
			corev1.PodSpec{NodeSelector: map[string]string{"disk": "ssd", "vm": "yes"}, Tolerations: []corev1.Toleration{exists("x"), exists("vm")}}, ""},
		{"placed elsewhere", new("placed"), corev1.PodSpec{NodeSelector: map[string]string{"vm": "no"}}, corev1.PodSpec{},
			"conflict: runtimeClass.scheduling.nodeSelector[vm] = yes; pod.spec.nodeSelector[vm] = no"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := podOf()
			p.Spec = tt.spec
			p.Spec.RuntimeClassName = tt.class
			err := pass(t, plugin, request(t, Create, podGVR, "", p, nil))
			refused(t, err, tt.refusal)
			tt.want.RuntimeClassName = tt.class
			if diff := cmp.Diff(tt.want, p.Spec); err == nil && diff != "" {
				t.Errorf("the pod (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMergeTolerations(t *testing.T) {
	seconds := func(n int64) corev1.Toleration {
		return corev1.Toleration{Key: "k", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &n}
	}
	equal := corev1.Toleration{Key: "k", Operator: corev1.TolerationOpEqual, Value: "v", Effect: corev1.TaintEffectNoSchedule}
	everything := corev1.Toleration{Operator: corev1.TolerationOpExists}
	tests := []struct {
		name                string
		first, second, want []corev1.Toleration
	}{
		{"others", []corev1.Toleration{exists("a")}, []corev1.Toleration{exists("b")}, []corev1.Toleration{exists("a"), exists("b")}},
		{"equal", []corev1.Toleration{exists("a")}, []corev1.Toleration{exists("a")}, []corev1.Toleration{exists("a")}},
		{"wider before", []corev1.Toleration{exists("k")}, []corev1.Toleration{equal}, []corev1.Toleration{exists("k")}},
		{"wider after", []corev1.Toleration{equal}, []corev1.Toleration{exists("k")}, []corev1.Toleration{exists("k")}},
		{"all keys", []corev1.Toleration{equal, exists("b")}, []corev1.Toleration{everything}, []corev1.Toleration{everything}},
		{"longer", []corev1.Toleration{seconds(5)}, []corev1.Toleration{seconds(10)}, []corev1.Toleration{seconds(10)}},
		{"another effect", []corev1.Toleration{seconds(5)}, []corev1.Toleration{exists("k")}, []corev1.Toleration{seconds(5), exists("k")}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, mergeTolerations(tt.first, tt.second)); diff != "" {
				t.Errorf("merged (-want +got):\n%s", diff)
			}
		})
	}
}

func inNamespace(annotations ...string) stored {
	return stored{namespaceGVR: {&corev1.Namespace{ObjectMeta: named("ns", 0, annotations...)}}}
}

func TestPodTolerationRestriction(t *testing.T) {
	const defaults, allowed = "scheduler.alpha.kubernetes.io/defaultTolerations", "scheduler.alpha.kubernetes.io/tolerationsWhitelist"
	const a, b = `{"key":"a","operator":"Exists","effect":"NoSchedule"}`, `{"key":"b","operator":"Exists","effect":"NoSchedule"}`
	burstable := container("c", quantities("cpu", "1"), nil)
	tests := []struct {
		name    string
		objects stored
		pod     *corev1.Pod
		has     []corev1.Toleration
		want    []corev1.Toleration
		refusal string
	}{
		{"nothing said", inNamespace(), podOf(), []corev1.Toleration{exists("x")}, []corev1.Toleration{exists("x")}, ""},
		{"defaults", inNamespace(defaults, "["+a+"]"), podOf(), []corev1.Toleration{exists("x")}, []corev1.Toleration{exists("x"), exists("a")}, ""},
		{"memory pressure", inNamespace(), podOf(burstable), nil, []corev1.Toleration{exists(corev1.TaintNodeMemoryPressure)}, ""},
		{"allowed", inNamespace(allowed, "["+a+","+b+"]"), podOf(), []corev1.Toleration{exists("b")}, []corev1.Toleration{exists("b")}, ""},
		{"not allowed", inNamespace(allowed, "["+a+"]"), podOf(), []corev1.Toleration{exists("b")}, nil, "conflict with its namespace whitelist"},
		{"defaults that are not allowed", inNamespace(allowed, "["+a+"]", defaults, "["+b+"]"), podOf(), nil, nil, "conflict with its namespace whitelist"},
		{"not JSON", inNamespace(defaults, "{"), podOf(), nil, nil, "is not a JSON list of tolerations"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.pod.Spec.Tolerations = tt.has
			err := pass(t, PodTolerationRestriction{Objects: tt.objects}, request(t, Create, podGVR, "", tt.pod, nil))
			refused(t, err, tt.refusal)
			if diff := cmp.Diff(tt.want, tt.pod.Spec.Tolerations); err == nil && diff != "" {
				t.Errorf("tolerations (-want +got):\n%s", diff)
			}
		})
	}
}

func TestExtendedResourceToleration(t *testing.T) {
	p := podOf(container("a", quantities("example.com/gpu", "1", "cpu", "1"), nil), container("b", quantities("example.com/gpu", "1", "example.com/a", "1"), nil))
	p.Spec.Tolerations = []corev1.Toleration{{Key: "example.com/gpu", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}}
	refused(t, pass(t, ExtendedResourceToleration{}, request(t, Create, podGVR, "", p, nil)), "")
	if diff := cmp.Diff([]corev1.Toleration{exists("example.com/gpu"), exists("example.com/a")}, p.Spec.Tolerations); diff != "" {
		t.Errorf("tolerations (-want +got):\n%s", diff)
	}
}

func TestAlwaysPullImages(t *testing.T) {
	pod := func(image string) *corev1.Pod {
		p := podOf(corev1.Container{Name: "c", Image: image, ImagePullPolicy: corev1.PullNever})
		p.Spec.InitContainers = []corev1.Container{{Name: "i", Image: image, ImagePullPolicy: corev1.PullIfNotPresent}}
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: image}}}}
		return p
	}
	made := pod("a")
	refused(t, pass(t, AlwaysPullImages{}, request(t, Create, podGVR, "", made, nil)), "")
	if made.Spec.Containers[0].ImagePullPolicy != corev1.PullAlways || made.Spec.InitContainers[0].ImagePullPolicy != corev1.PullAlways ||
		made.Spec.Volumes[0].Image.PullPolicy != corev1.PullAlways {
		t.Errorf("policies of %+v", made.Spec)
	}
	same := pod("a")
	refused(t, pass(t, AlwaysPullImages{}, request(t, Update, podGVR, "", same, pod("a"))), "")
	if same.Spec.Containers[0].ImagePullPolicy != corev1.PullNever {
		t.Error("an update without a new image changed the policy")
	}
	debugged := pod("a")
	debugged.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "e", Image: "b", ImagePullPolicy: corev1.PullNever}}}
	refused(t, AlwaysPullImages{}.Validate(t.Context(), request(t, Update, podGVR, "ephemeralcontainers", debugged, pod("a"))),
		`spec.ephemeralContainers[0].imagePullPolicy: Unsupported value: "Never"`)
	refused(t, pass(t, AlwaysPullImages{}, request(t, Update, podGVR, "ephemeralcontainers", debugged, pod("a"))), "")
	if debugged.Spec.EphemeralContainers[0].ImagePullPolicy != corev1.PullAlways || debugged.Spec.Containers[0].ImagePullPolicy != corev1.PullNever {
		t.Errorf("policies of %+v", debugged.Spec)
	}
	refused(t, AlwaysPullImages{}.Validate(t.Context(), request(t, Create, podGVR, "", pod("a"), nil)),
		`spec.containers[0].imagePullPolicy: Unsupported value: "Never": supported values: "Always"`)
}

func TestPodNodeSelector(t *testing.T) {
	const annotation = "scheduler.alpha.kubernetes.io/node-selector"
	tests := []struct {
		name      string
		objects   stored
		has, want map[string]string
		refusal   string
	}{
		{"nothing said", inNamespace(), map[string]string{"a": "1"}, map[string]string{"a": "1"}, ""},
		{"added", inNamespace(annotation, "env=test,zone=b"), map[string]string{"a": "1"}, map[string]string{"a": "1", "env": "test", "zone": "b"}, ""},
		{"agreed", inNamespace(annotation, "env=test"), map[string]string{"env": "test"}, map[string]string{"env": "test"}, ""},
		{"conflict", inNamespace(annotation, "env=test"), map[string]string{"env": "prod"}, nil, "pod node label selector conflicts with its namespace node label selector"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := podOf()
			p.Spec.NodeSelector = tt.has
			err := pass(t, PodNodeSelector{Objects: tt.objects}, request(t, Create, podGVR, "", p, nil))
			refused(t, err, tt.refusal)
			if diff := cmp.Diff(tt.want, p.Spec.NodeSelector); err == nil && diff != "" {
				t.Errorf("node selector (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPodTopologyLabels(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{
		corev1.LabelTopologyZone: "a", corev1.LabelTopologyRegion: "r", corev1.LabelHostname: "n"}}}
	plugin := PodTopologyLabels{NodeLabels: func(_ context.Context, name string) (map[string]string, error) {
		if name != node.Name {
			return nil, apierrors.NewNotFound(corev1.Resource("nodes"), name)
		}
		return node.Labels, nil
	}}
	want := map[string]string{corev1.LabelTopologyZone: "a", corev1.LabelTopologyRegion: "r"}
	binding := func(kind, name string) *corev1.Binding {
		return &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns"}, Target: corev1.ObjectReference{Kind: kind, Name: name}}
	}
	onNode := podOf()
	onNode.Spec.NodeName = "n"
	tests := []struct {
		name string
		sub  string
		obj  interface {
			runtime.Object
			metav1.Object
		}
		want map[string]string
	}{
		{"binding", "binding", binding("Node", "n"), want},
		{"binding to something else", "binding", binding("Other", "n"), nil},
		{"binding to an unknown node", "binding", binding("Node", "x"), nil},
		{"pod", "", podOf(), nil},
		{"pod that has its node", "", onNode, want},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			refused(t, pass(t, plugin, request(t, Create, podGVR, tt.sub, tt.obj, nil)), "")
			if diff := cmp.Diff(tt.want, tt.obj.GetLabels()); diff != "" {
				t.Errorf("labels (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPodResizeValidator(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Status: corev1.NodeStatus{Allocatable: quantities("cpu", "2", "memory", "1Gi")}}
	windows := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "w", Labels: map[string]string{corev1.LabelOSStable: "windows"}}}
	plugin := PodResizeValidator{Objects: stored{nodeGVR: {node, windows}}}
	tests := []struct{ name, node, cpu, memory, refusal string }{
		{"fits", "n", "2", "1Gi", ""},
		{"has no node", "", "3", "1Gi", ""},
		{"too much", "n", "3", "2Gi", "node didn't have enough allocatable resources: cpu, requested: 3000, allocatable: 2000; memory, requested: 2147483648, allocatable: 1073741824"},
		{"windows", "w", "1", "1", `pod resize is only supported on linux nodes, node "w" is "windows"`},
		{"gone", "x", "1", "1", `node "x" not found`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := podOf(container("c", quantities("cpu", tt.cpu, "memory", tt.memory), nil))
			p.Spec.NodeName = tt.node
			refused(t, pass(t, plugin, request(t, Update, podGVR, "resize", p, p.DeepCopy())), "")
			old := p.DeepCopy()
			p.Generation++
			refused(t, pass(t, plugin, request(t, Update, podGVR, "resize", p, old)), tt.refusal)
		})
	}
}
