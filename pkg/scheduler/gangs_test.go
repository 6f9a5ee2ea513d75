package scheduler_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"coracle/pkg/testcluster"
)

func makeGroup(t *testing.T, c kubernetes.Interface, name string, minCount int32, change func(*schedulingv1beta1.PodGroup)) {
	t.Helper()
	g := &schedulingv1beta1.PodGroup{ObjectMeta: metav1.ObjectMeta{Name: name}}
	g.Spec.SchedulingPolicy.Gang = &schedulingv1beta1.GangSchedulingPolicy{MinCount: minCount}
	if change != nil {
		change(g)
	}
	if _, err := c.SchedulingV1beta1().PodGroups("default").Create(t.Context(), g, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// awaitGroup waits for the condition of a group.
func awaitGroup(t *testing.T, c kubernetes.Interface, name string, status metav1.ConditionStatus, reason, message string) {
	t.Helper()
	var got *metav1.Condition
	err := wait.PollUntilContextTimeout(t.Context(), 10*time.Millisecond, 20*time.Second, true, func(ctx context.Context) (bool, error) {
		g, err := c.SchedulingV1beta1().PodGroups("default").Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		got = apimeta.FindStatusCondition(g.Status.Conditions, schedulingv1beta1.PodGroupInitiallyScheduled)
		return got != nil && got.Status == status && got.Reason == reason && got.Message == message && got.ObservedGeneration == g.Generation, nil
	})
	if err != nil {
		t.Errorf("group %s: %v; its condition is %+v, want %s %s %q", name, err, got, status, reason, message)
	}
}

func member(group string, change func(*corev1.Pod)) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.SchedulingGroup = &corev1.PodSchedulingGroup{PodGroupName: &group}
		p.Spec.TerminationGracePeriodSeconds = new(int64)
		if change != nil {
			change(p)
		}
	}
}

func remove(t *testing.T, c kubernetes.Interface, name string) {
	t.Helper()
	if err := c.CoreV1().Pods("default").Delete(t.Context(), name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil {
		t.Fatal(err)
	}
}

// TestGangIsPlacedTogether: the pods of a group wait for each other, say why,
// and are bound when there is room for enough of them; those that come later go
// by themselves.
func TestGangIsPlacedTogether(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithRoles()).Client
	makeNode(t, c, "n1", "2", nil)
	makeNode(t, c, "n2", "2", nil)
	makePod(t, c, "other", "2", func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = new(int64) })
	awaitPod(t, c, "other", bound)

	makePod(t, c, "a-0", "1", member("a", nil)) // before its group
	makeGroup(t, c, "a", 3, nil)
	makePod(t, c, "a-1", "1", member("a", nil))
	makePod(t, c, "single", "1", func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = new(int64) })
	awaitPod(t, c, "single", bound) // whatever waits of a group takes no room
	remove(t, c, "single")
	for _, name := range []string{"a-0", "a-1"} {
		if p := awaitPod(t, c, name, func(*corev1.Pod) bool { return true }); bound(p) || unschedulable(p) != "" {
			t.Errorf("%s of an incomplete group is on %q and says %q", name, p.Spec.NodeName, unschedulable(p))
		}
	}
	makePod(t, c, "a-2", "1", member("a", nil))
	short := "minCount (3) cannot be satisfied: 2 scheduled, 0 remaining"
	awaitGroup(t, c, "a", metav1.ConditionFalse, "Unschedulable", short)
	saidShort := 0
	for i := range 3 {
		p := awaitPod(t, c, fmt.Sprint("a-", i), func(p *corev1.Pod) bool { return unschedulable(p) != "" })
		if bound(p) {
			t.Errorf("%s of a group without room is on %s", p.Name, p.Spec.NodeName)
		}
		if unschedulable(p) == short {
			saidShort++
			awaitEvent(t, c, p.Name, "FailedScheduling", short)
		}
	}
	if saidShort != 2 {
		t.Errorf("%d members say that the group has no room, want the 2 that could go", saidShort)
	}
	remove(t, c, "other")
	for i := range 3 {
		awaitPod(t, c, fmt.Sprint("a-", i), bound)
	}
	awaitGroup(t, c, "a", metav1.ConditionTrue, "Scheduled", "")
	makePod(t, c, "a-3", "1", member("a", nil))
	awaitPod(t, c, "a-3", bound)
	makePod(t, c, "a-4", "1", member("a", nil))
	awaitPod(t, c, "a-4", func(p *corev1.Pod) bool { return unschedulable(p) != "" })
	awaitGroup(t, c, "a", metav1.ConditionTrue, "Scheduled", "")
}

// TestGangShrinks: a group that wants less is tried again.
func TestGangShrinks(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithRoles()).Client
	makeNode(t, c, "n", "2", nil)
	makeGroup(t, c, "a", 3, nil)
	for i := range 3 {
		makePod(t, c, fmt.Sprint("a-", i), "1", member("a", nil))
	}
	awaitGroup(t, c, "a", metav1.ConditionFalse, "Unschedulable", "minCount (3) cannot be satisfied: 2 scheduled, 0 remaining")
	g, err := c.SchedulingV1beta1().PodGroups("default").Get(t.Context(), "a", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	g.Spec.SchedulingPolicy.Gang.MinCount = 2
	if _, err := c.SchedulingV1beta1().PodGroups("default").Update(t.Context(), g, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	awaitGroup(t, c, "a", metav1.ConditionTrue, "Scheduled", "")
	placed := 0
	for i := range 3 {
		if bound(awaitPod(t, c, fmt.Sprint("a-", i), func(p *corev1.Pod) bool { return bound(p) || unschedulable(p) != "" })) {
			placed++
		}
	}
	if placed > 2 {
		t.Errorf("%d pods of 1 cpu are on a node with 2", placed)
	}
}

// TestGangInOneDomain: a group with a topology constraint goes where all of it
// fits, and stays there.
func TestGangInOneDomain(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithRoles()).Client
	for i, zone := range []string{"x", "x", "y", "y", "y"} {
		makeNode(t, c, fmt.Sprint("n", i), "1", func(n *corev1.Node) { n.Labels["rack"] = zone })
	}
	makeNode(t, c, "large", "8", nil) // in no rack
	makeGroup(t, c, "a", 3, func(g *schedulingv1beta1.PodGroup) {
		g.Spec.SchedulingConstraints = &schedulingv1beta1.PodGroupSchedulingConstraints{Topology: []schedulingv1beta1.TopologyConstraint{{Key: "rack"}}}
	})
	for i := range 3 {
		makePod(t, c, fmt.Sprint("a-", i), "1", member("a", nil))
	}
	for i := range 3 {
		p := awaitPod(t, c, fmt.Sprint("a-", i), bound)
		if n := p.Spec.NodeName; n != "n2" && n != "n3" && n != "n4" {
			t.Errorf("%s is on %s, out of the rack", p.Name, n)
		}
	}
	makePod(t, c, "a-3", "1", member("a", nil))
	p := awaitPod(t, c, "a-3", func(p *corev1.Pod) bool { return unschedulable(p) != "" })
	if got, want := unschedulable(p), "0/3 nodes are available: 3 Insufficient cpu."; got != want {
		t.Errorf("message %q, want %q", got, want)
	}
	makeGroup(t, c, "b", 3, func(g *schedulingv1beta1.PodGroup) {
		g.Spec.SchedulingConstraints = &schedulingv1beta1.PodGroupSchedulingConstraints{Topology: []schedulingv1beta1.TopologyConstraint{{Key: "rack"}}}
	})
	for i := range 3 {
		makePod(t, c, fmt.Sprint("b-", i), "1", member("b", nil))
	}
	awaitGroup(t, c, "b", metav1.ConditionFalse, "Unschedulable", "0/2 placements are available, first placement status: pod group is unschedulable")
}

// TestGangOfOnePriority: pods and group have the priority of one class.
func TestGangOfOnePriority(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithRoles()).Client
	makePriority(t, c, "high", 100, corev1.PreemptLowerPriority)
	makeNode(t, c, "n", "4", nil)
	makeGroup(t, c, "a", 1, func(g *schedulingv1beta1.PodGroup) { g.Spec.PriorityClassName = "high" })
	g, err := c.SchedulingV1beta1().PodGroups("default").Get(t.Context(), "a", metav1.GetOptions{})
	if err != nil || g.Spec.Priority == nil || *g.Spec.Priority != 100 {
		t.Fatalf("the group's priority is %v (%v), want 100", g.Spec.Priority, err)
	}
	makePod(t, c, "low", "1", member("a", nil))
	awaitGroup(t, c, "a", metav1.ConditionFalse, "SchedulerError", "all pods in a single pod group should have the same priority as the pod group's priority, got 0 and 100")
	remove(t, c, "low")
	makePod(t, c, "right", "1", member("a", of("high")))
	awaitPod(t, c, "right", bound)
}
