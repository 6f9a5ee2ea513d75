package scheduler_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"

	"coracle/pkg/testcluster"
)

func makeNode(t *testing.T, c kubernetes.Interface, name, cpu string, change func(*corev1.Node)) {
	t.Helper()
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"kubernetes.io/hostname": name}}}
	made, err := c.CoreV1().Nodes().Create(t.Context(), n, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// Controllers write to the node as well.
	if err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		if made, err = c.CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{}); err != nil {
			return err
		}
		made.Spec.Taints = nil // those of a node that is not ready yet
		if change != nil {
			change(made)
		}
		if made, err = c.CoreV1().Nodes().Update(t.Context(), made, metav1.UpdateOptions{}); err != nil {
			return err
		}
		made.Status.Allocatable = corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse("4Gi"), corev1.ResourcePods: resource.MustParse("110"),
		}
		made.Status.Capacity = made.Status.Allocatable
		now := metav1.Now()
		made.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: now, LastTransitionTime: now}}
		_, err = c.CoreV1().Nodes().UpdateStatus(t.Context(), made, metav1.UpdateOptions{})
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func makePod(t *testing.T, c kubernetes.Interface, name, cpu string, change func(*corev1.Pod)) {
	t.Helper()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "x", Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}}}}},
	}
	if change != nil {
		change(p)
	}
	if _, err := c.CoreV1().Pods("default").Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func awaitPod(t *testing.T, c kubernetes.Interface, name string, ok func(*corev1.Pod) bool) *corev1.Pod {
	t.Helper()
	var pod *corev1.Pod
	err := wait.PollUntilContextTimeout(t.Context(), 5*time.Millisecond, 20*time.Second, true, func(ctx context.Context) (bool, error) {
		var err error
		pod, err = c.CoreV1().Pods("default").Get(ctx, name, metav1.GetOptions{})
		return err == nil && ok(pod), err
	})
	if err != nil {
		t.Fatalf("pod %s: %v; last seen %+v", name, err, pod)
	}
	return pod
}

func bound(p *corev1.Pod) bool { return p.Spec.NodeName != "" }

func unschedulable(p *corev1.Pod) string {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return c.Message
		}
	}
	return ""
}

func TestPlacesByNodeSelectorTaintsAndRoom(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithRoles()).Client
	makeNode(t, c, "small", "1", nil)
	makeNode(t, c, "disk", "4", func(n *corev1.Node) { n.Labels["disk"] = "ssd" })
	makeNode(t, c, "reserved", "4", func(n *corev1.Node) {
		n.Spec.Taints = []corev1.Taint{{Key: "team", Value: "a", Effect: corev1.TaintEffectNoSchedule}}
	})

	makePod(t, c, "selects", "100m", func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "ssd"} })
	if p := awaitPod(t, c, "selects", bound); p.Spec.NodeName != "disk" {
		t.Errorf("pod with a node selector is on %s", p.Spec.NodeName)
	}
	makePod(t, c, "large", "3", nil)
	if p := awaitPod(t, c, "large", bound); p.Spec.NodeName != "disk" {
		t.Errorf("large pod is on %s", p.Spec.NodeName)
	}
	makePod(t, c, "toolarge", "3", nil)
	p := awaitPod(t, c, "toolarge", func(p *corev1.Pod) bool { return unschedulable(p) != "" })
	want := "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient cpu. " +
		"preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling."
	if got := unschedulable(p); got != want {
		t.Errorf("message %q, want %q", got, want)
	}
	// Room that another pod leaves wakes it.
	if err := c.CoreV1().Pods("default").Delete(t.Context(), "large", metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil {
		t.Fatal(err)
	}
	if p := awaitPod(t, c, "toolarge", bound); p.Spec.NodeName != "disk" {
		t.Errorf("woken pod is on %s", p.Spec.NodeName)
	}
}

func sum(counts map[string]int) int {
	total := 0
	for _, n := range counts {
		total += n
	}
	return total
}

func TestSpreadsAndNeverOvercommits(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithRoles()).Client
	for i := range 4 {
		makeNode(t, c, fmt.Sprintf("n%d", i), "1", nil)
	}
	for i := range 50 {
		makePod(t, c, fmt.Sprintf("p%02d", i), "100m", nil)
	}
	var placed map[string]int
	err := wait.PollUntilContextTimeout(t.Context(), 10*time.Millisecond, 20*time.Second, true, func(ctx context.Context) (bool, error) {
		list, err := c.CoreV1().Pods("default").List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		placed = map[string]int{}
		waiting := 0
		for i := range list.Items {
			if p := &list.Items[i]; bound(p) {
				placed[p.Spec.NodeName]++
			} else if strings.Contains(unschedulable(p), "Insufficient cpu") {
				waiting++
			}
		}
		return waiting == 10 && len(list.Items) == 50 && sum(placed) == 40, nil
	})
	if err != nil {
		t.Fatalf("%v; placed %v", err, placed)
	}
	for node, n := range placed {
		if n != 10 {
			t.Errorf("node %s has %d pods of 100m on 1 cpu, want 10", node, n)
		}
	}
}
