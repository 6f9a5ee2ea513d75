package ownership_test

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"coracle/pkg/registry/ownership"
)

func find(t testing.TB, plural string) *subject {
	t.Helper()
	for _, s := range allSubjects(t) {
		if s.res.Plural == plural && s.res.GVK().Group != "events.k8s.io" {
			return s
		}
	}
	t.Fatalf("the table has no %s", plural)
	return nil
}

func examplePod(t testing.TB) *corev1.Pod {
	t.Helper()
	data, err := os.ReadFile("testdata/pod.yaml")
	if err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{}
	if err := yaml.UnmarshalStrict(data, pod); err != nil {
		t.Fatal(err)
	}
	return pod
}

func exampleDeployment(t testing.TB) *appsv1.Deployment {
	t.Helper()
	pod, replicas := examplePod(t), int32(3)
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default", UID: "u", Labels: pod.Labels},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: pod.Labels}, Spec: pod.Spec},
		},
	}
}

func exampleConfigMap() *corev1.ConfigMap {
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default", UID: "u"}, Data: map[string]string{}}
	for i := range 10 {
		cm.Data[fmt.Sprintf("key-%d.yaml", i)] = "some: value\n"
	}
	return cm
}

// change is a write to measure.
type change struct {
	name, plural, manager, subresource string
	live, obj                          runtime.Object
}

// written returns obj with the entries that the library gives it.
func written(t testing.TB, s *subject, live, obj runtime.Object, manager, subresource string) runtime.Object {
	t.Helper()
	live, obj = live.DeepCopyObject(), obj.DeepCopyObject()
	live.GetObjectKind().SetGroupVersionKind(s.res.GVK())
	obj.GetObjectKind().SetGroupVersionKind(s.res.GVK())
	return s.typed[subresource].UpdateNoErrors(live, obj, manager)
}

func changes(t testing.TB) []change {
	pods, deployments, configMaps := find(t, "pods"), find(t, "deployments"), find(t, "configmaps")
	created := examplePod(t)
	created.Status, created.Spec.NodeName = corev1.PodStatus{}, ""
	pod := written(t, pods, &corev1.Pod{}, created, "controller", "")
	bound := pod.DeepCopyObject().(*corev1.Pod)
	bound.Spec.NodeName = "node-1"
	pod = written(t, pods, pod, bound, "scheduler", "")
	running := pod.DeepCopyObject().(*corev1.Pod)
	running.Status = examplePod(t).Status
	pod = written(t, pods, pod, running, "kubelet", "status")
	heartbeat := pod.DeepCopyObject().(*corev1.Pod)
	heartbeat.Status.Conditions[1].LastTransitionTime = metav1.Unix(1800000000, 0)
	heartbeat.Status.ContainerStatuses[0].RestartCount++
	relabeled := pod.DeepCopyObject().(*corev1.Pod)
	relabeled.Labels["version"] = "2"
	relabeled.Spec.Containers[0].Image = "registry.example.com/shop/web:1.43.0"
	deployment := written(t, deployments, &appsv1.Deployment{}, exampleDeployment(t), "kubectl", "")
	scaled := deployment.DeepCopyObject().(*appsv1.Deployment)
	*scaled.Spec.Replicas = 5
	configMap := written(t, configMaps, &corev1.ConfigMap{}, exampleConfigMap(), "kubectl", "")
	edited := configMap.DeepCopyObject().(*corev1.ConfigMap)
	edited.Data["key-1.yaml"] = "other: value\n"
	return []change{
		{"PodCreate", "pods", "controller", "", &corev1.Pod{}, created},
		{"PodFirstStatus", "pods", "kubelet", "status", bound, running},
		{"PodStatus", "pods", "kubelet", "status", pod, heartbeat},
		{"PodSpec", "pods", "kubectl", "", pod, relabeled},
		{"PodNothing", "pods", "kubectl", "", pod, pod},
		{"DeploymentCreate", "deployments", "kubectl", "", &appsv1.Deployment{}, exampleDeployment(t)},
		{"DeploymentScale", "deployments", "hpa", "", deployment, scaled},
		{"ConfigMapCreate", "configmaps", "kubectl", "", &corev1.ConfigMap{}, exampleConfigMap()},
		{"ConfigMapUpdate", "configmaps", "kubectl", "", configMap, edited},
	}
}

// cpuTime is the processor time that the process has used, which a busy machine
// disturbs less than the clock.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkUpdate measures the walker and, for comparison, the library.
func BenchmarkUpdate(b *testing.B) {
	for _, c := range changes(b) {
		s := find(b, c.plural)
		sent := accessor(b, c.obj).GetManagedFields()
		b.Run(c.name+"/ours", func(b *testing.B) {
			obj := c.obj.DeepCopyObject()
			w := ownership.Write{Manager: c.manager, Subresource: c.subresource, Reset: s.reset(c.subresource), Now: time.Now()}
			b.ReportAllocs()
			cpu := cpuTime()
			for b.Loop() {
				accessor(b, obj).SetManagedFields(sent)
				if !s.kind.Update(c.live, obj, w) {
					b.Fatal("the write cannot be followed")
				}
			}
			b.ReportMetric(float64(cpuTime()-cpu)/float64(b.N), "cpu-ns/op")
		})
		b.Run(c.name+"/library", func(b *testing.B) {
			obj := c.obj.DeepCopyObject()
			obj.GetObjectKind().SetGroupVersionKind(s.res.GVK())
			b.ReportAllocs()
			cpu := cpuTime()
			for b.Loop() {
				// The library marks the live object, which others may read.
				live := c.live.DeepCopyObject()
				live.GetObjectKind().SetGroupVersionKind(s.res.GVK())
				accessor(b, obj).SetManagedFields(sent)
				s.typed[c.subresource].UpdateNoErrors(live, obj, c.manager)
			}
			b.ReportMetric(float64(cpuTime()-cpu)/float64(b.N), "cpu-ns/op")
		})
	}
}

// TestExamplesEqualLibrary compares what is measured.
func TestExamplesEqualLibrary(t *testing.T) {
	for _, c := range changes(t) {
		h := &history{subject: find(t, c.plural), t: t, live: c.live}
		h.gvk(h.live)
		obj := c.obj.DeepCopyObject()
		want := show(accessor(t, written(t, h.subject, c.live, obj, c.manager, c.subresource)).GetManagedFields())
		if !h.kind.Update(c.live, obj, ownership.Write{Manager: c.manager, Subresource: c.subresource, Reset: h.reset(c.subresource), Now: time.Now()}) {
			t.Fatalf("%s cannot be followed", c.name)
		}
		if got := show(accessor(t, obj).GetManagedFields()); got != want {
			t.Errorf("%s: the entries are\n%s, not the library's\n%s", c.name, got, want)
		}
	}
}

// TestConcurrent has several goroutines follow writes over the same live
// objects: the race detector sees what they share.
func TestConcurrent(t *testing.T) {
	all := changes(t)
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for _, c := range all {
				s, obj := find(t, c.plural), c.obj.DeepCopyObject()
				if !s.kind.Update(c.live, obj, ownership.Write{Manager: c.manager, Subresource: c.subresource, Reset: s.reset(c.subresource), Now: time.Now()}) {
					t.Errorf("%s cannot be followed", c.name)
				}
			}
		})
	}
	group.Wait()
}
