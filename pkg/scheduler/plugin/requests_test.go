package plugin

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
)

// TestPlainRequests: the short way to a pod's requests ends where Kubernetes'
// own does, and is not taken by pods with more to them.
func TestPlainRequests(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	amounts := map[corev1.ResourceName][]string{
		corev1.ResourceCPU:              {"0", "1m", "250m", "3", "1.5"},
		corev1.ResourceMemory:           {"0", "1", "128Mi", "1G", "1500m"},
		corev1.ResourceEphemeralStorage: {"1Gi", "5e3"},
		"example.com/gpu":               {"0", "2"},
	}
	taken := 0
	for i := range 2000 {
		pod := &corev1.Pod{}
		for range 1 + r.IntN(3) {
			c := corev1.Container{Name: "c", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{}}}
			for name, of := range amounts {
				if r.IntN(3) > 0 {
					c.Resources.Requests[name] = resource.MustParse(of[r.IntN(len(of))])
				}
			}
			pod.Spec.Containers = append(pod.Spec.Containers, c)
		}
		switch first := pod.Spec.Containers[0]; r.IntN(8) {
		case 0:
			pod.Spec.InitContainers = []corev1.Container{first}
		case 1:
			pod.Spec.Overhead = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}
		case 2:
			pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", AllocatedResources: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("9")}}}
		case 3:
			pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodResizePending, Reason: corev1.PodReasonInfeasible}}
		case 4:
			pod.Spec.Resources = &corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("8")}}
		}
		options := resourcehelper.PodResourcesOptions{UseStatusResources: true, InPlacePodLevelResourcesVerticalScalingEnabled: true}
		want := ResourcesOf(resourcehelper.PodRequests(pod, options))
		options.NonMissingContainerRequests = floors()
		wantNonZero := ResourcesOf(resourcehelper.PodRequests(pod, options))
		got, nonZero := requestsOf(pod)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("pod %d: requests (-want +got):\n%s%v", i, diff, pod.Spec)
		}
		if diff := cmp.Diff(wantNonZero, nonZero); diff != "" {
			t.Fatalf("pod %d: with floors (-want +got):\n%s%v", i, diff, pod.Spec)
		}
		if _, _, plain := plainRequests(pod); plain {
			taken++
		}
	}
	if taken == 0 {
		t.Error("no pod took the short way")
	}
}
