package scheduler_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/testcluster"
)

// TestCountsResizedPods: of a pod that is resized the most counts of what it
// asks for, was allocated and has; one whose wish the node has refused counts
// with what it has; and a pod that shrinks makes room at once.
func TestCountsResizedPods(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithRoles()).Client
	makeNode(t, c, "n", "4", nil)
	makePod(t, c, "p", "1", nil)
	awaitPod(t, c, "p", bound)
	cpu := func(q string) corev1.ResourceList { return corev1.ResourceList{"cpu": resource.MustParse(q)} }
	report := func(allocated, actual, reason string) {
		t.Helper()
		p, err := c.CoreV1().Pods("default").Get(t.Context(), "p", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{
			Name: "c", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
			AllocatedResources: cpu(allocated), Resources: &corev1.ResourceRequirements{Requests: cpu(actual)},
		}}
		p.Status.Conditions = nil
		if reason != "" {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodResizePending, Status: corev1.ConditionTrue, Reason: reason}}
		}
		if _, err := c.CoreV1().Pods("default").UpdateStatus(t.Context(), p, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	resize := func(q string) {
		t.Helper()
		p, err := c.CoreV1().Pods("default").Get(t.Context(), "p", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		p.Spec.Containers[0].Resources.Requests = cpu(q)
		if _, err := c.CoreV1().Pods("default").UpdateResize(t.Context(), "p", p, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	resize("3")
	report("1", "1", corev1.PodReasonDeferred)
	makePod(t, c, "q", "2", nil) // 3 are asked for
	awaitPod(t, c, "q", func(p *corev1.Pod) bool { return unschedulable(p) != "" })
	report("1", "1", corev1.PodReasonInfeasible)
	awaitPod(t, c, "q", bound)
	resize("2")
	report("2", "1", "")
	makePod(t, c, "r", "1", nil)
	awaitPod(t, c, "r", func(p *corev1.Pod) bool { return unschedulable(p) != "" })
	resize("1")
	report("1", "2", "") // the runtime has not followed yet
	report("1", "1", "")
	awaitPod(t, c, "r", bound)
}
