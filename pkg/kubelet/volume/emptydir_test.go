package volume

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func limited(limits ...corev1.ResourceList) *corev1.Pod {
	pod := podWith()
	pod.Spec.Containers = nil
	for _, l := range limits {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Resources: corev1.ResourceRequirements{Limits: l}})
	}
	return pod
}

func memory(q string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(q)}
}

func TestMemorySize(t *testing.T) {
	quantity := func(q string) *resource.Quantity { return ptr(resource.MustParse(q)) }
	for _, tt := range []struct {
		name  string
		pod   *corev1.Pod
		limit *resource.Quantity
		node  corev1.ResourceList
		want  int64
	}{
		{"nothing known", limited(nil), nil, nil, 0},
		{"the node's", limited(nil), nil, memory("1Gi"), 1 << 30},
		{"the volume's own", limited(nil), quantity("1Mi"), memory("1Gi"), 1 << 20},
		{"the containers' together", limited(memory("1Mi"), memory("2Mi")), nil, memory("1Gi"), 3 << 20},
		{"one container without a limit", limited(memory("1Mi"), nil), nil, memory("1Gi"), 1 << 30},
		{"the smallest", limited(memory("1Mi")), quantity("4Mi"), memory("1Gi"), 1 << 20},
		{"a limit of zero is none", limited(nil), quantity("0"), memory("1Gi"), 1 << 30},
	} {
		if got := memorySize(tt.pod, tt.limit, tt.node); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestHugePageSize(t *testing.T) {
	huge := func(names ...corev1.ResourceName) *corev1.Pod {
		l := corev1.ResourceList{}
		for _, n := range names {
			l[n] = resource.MustParse("4Mi")
		}
		return limited(l)
	}
	for _, tt := range []struct {
		pod    *corev1.Pod
		medium corev1.StorageMedium
		want   int64 // 0 is an error
	}{
		{huge(), "HugePages-2Mi", 2 << 20}, {huge("hugepages-1Gi", "cpu"), "HugePages", 1 << 30},
		{huge(), "HugePages", 0}, {huge("hugepages-1Gi", "hugepages-2Mi"), "HugePages", 0}, {huge(), "HugePages-x", 0},
	} {
		got, err := hugePageSize(tt.pod, tt.medium)
		if (err == nil) != (tt.want != 0) || err == nil && got.Value() != tt.want {
			t.Errorf("%s: %v, %v; want %d", tt.medium, got.Value(), err, tt.want)
		}
	}
}
