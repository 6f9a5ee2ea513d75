package scheduler_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"coracle/pkg/testcluster"
)

func makePriority(t *testing.T, c kubernetes.Interface, name string, value int32, policy corev1.PreemptionPolicy) {
	t.Helper()
	class := &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value, PreemptionPolicy: &policy}
	if _, err := c.SchedulingV1().PriorityClasses().Create(t.Context(), class, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// of gives a pod a priority class; it ends at once when it is deleted.
func of(class string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.PriorityClassName = class
		p.Spec.TerminationGracePeriodSeconds = new(int64)
	}
}

func gone(t *testing.T, c kubernetes.Interface, name string) bool {
	t.Helper()
	_, err := c.CoreV1().Pods("default").Get(t.Context(), name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	return err != nil
}

// TestPreemptsTheFewestAndLeastImportant is SCHED-009: the lowest priority goes
// first, no more pods than needed, and who is there stays elsewhere.
func TestPreemptsTheFewestAndLeastImportant(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithRoles()).Client
	makePriority(t, c, "low", 1, corev1.PreemptLowerPriority)
	makePriority(t, c, "medium", 50, corev1.PreemptLowerPriority)
	makePriority(t, c, "high", 100, corev1.PreemptLowerPriority)
	on := func(node, class string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			of(class)(p)
			p.Spec.NodeSelector = map[string]string{"kubernetes.io/hostname": node}
		}
	}
	makeNode(t, c, "n1", "1", nil)
	makeNode(t, c, "n2", "1", nil)
	for _, p := range []struct{ name, cpu, node, class string }{
		{"low-a", "500m", "n1", "low"}, {"medium-a", "500m", "n1", "medium"}, {"medium-b", "500m", "n2", "medium"}, {"medium-c", "500m", "n2", "medium"},
	} {
		makePod(t, c, p.name, p.cpu, on(p.node, p.class))
		awaitPod(t, c, p.name, bound)
	}
	makePod(t, c, "urgent", "500m", of("high"))
	p := awaitPod(t, c, "urgent", bound)
	if p.Spec.NodeName != "n1" || p.Status.NominatedNodeName != "" || !gone(t, c, "low-a") {
		t.Errorf("the urgent pod is on %s (nominated %q), low-a gone: %v", p.Spec.NodeName, p.Status.NominatedNodeName, gone(t, c, "low-a"))
	}
	for _, name := range []string{"medium-a", "medium-b", "medium-c"} {
		if gone(t, c, name) {
			t.Errorf("%s was preempted for nothing", name)
		}
	}
	awaitEvent(t, c, "low-a", "Preempted", fmt.Sprintf("Preempted by pod %s on node n1", p.UID))
	awaitEvent(t, c, "urgent", "FailedScheduling", "0/2 nodes are available: 2 Insufficient cpu. preemption: found a potential placement for pod on node n1, preempting 1 victims")
	awaitEvent(t, c, "urgent", "Scheduled", "Successfully assigned default/urgent to n1")
}

func awaitEvent(t *testing.T, c kubernetes.Interface, pod, reason, message string) {
	t.Helper()
	action := map[string]string{"Preempted": "Preempting", "FailedScheduling": "Scheduling", "Scheduled": "Binding"}[reason]
	var seen []string
	err := wait.PollUntilContextTimeout(t.Context(), 10*time.Millisecond, 20*time.Second, true, func(ctx context.Context) (bool, error) {
		list, err := c.CoreV1().Events("default").List(ctx, metav1.ListOptions{FieldSelector: "source=default-scheduler,involvedObject.name=" + pod})
		if err != nil {
			return false, err
		}
		seen = nil
		for _, e := range list.Items {
			seen = append(seen, e.Reason+": "+e.Message)
			if e.Reason == reason && e.Message == message && e.ReportingController == "default-scheduler" && e.Action == action && (reason != "Preempted" || e.Related != nil && e.Related.Kind == "Pod") {
				return true, nil
			}
		}
		return false, nil
	})
	if err != nil {
		t.Errorf("no Event %s %q about %s; there are %q", reason, message, pod, seen)
	}
}

// TestCriticalPodPreempts is SCHED-010.
func TestCriticalPodPreempts(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithRoles()).Client
	makeNode(t, c, "n", "1", nil)
	makePod(t, c, "low", "1", of(""))
	awaitPod(t, c, "low", bound)
	critical := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "critical"}, Spec: corev1.PodSpec{
		PriorityClassName: "system-cluster-critical",
		Containers: []corev1.Container{{Name: "c", Image: "x", Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{"cpu": resource.MustParse("1")}}}},
	}}
	if _, err := c.CoreV1().Pods("kube-system").Create(t.Context(), critical, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	err := wait.PollUntilContextTimeout(t.Context(), 10*time.Millisecond, 20*time.Second, true, func(ctx context.Context) (bool, error) {
		p, err := c.CoreV1().Pods("kube-system").Get(ctx, "critical", metav1.GetOptions{})
		return err == nil && bound(p), err
	})
	if err != nil || !gone(t, c, "low") {
		t.Errorf("the critical pod: %v; low is gone: %v", err, gone(t, c, "low"))
	}
}

// TestPreemptedPodSaysSo is SCHED-011; the preemptor waits for the promised
// room, keeps it from others of its priority, and takes nobody else's.
func TestPreemptedPodSaysSo(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithRoles()).Client
	makePriority(t, c, "high", 100, corev1.PreemptLowerPriority)
	makeNode(t, c, "n", "1", nil)
	makePod(t, c, "low", "1", func(p *corev1.Pod) {
		of("")(p)
		p.Finalizers = []string{"example.com/hold"}
	})
	awaitPod(t, c, "low", bound)
	makePod(t, c, "urgent", "1", of("high"))
	low := awaitPod(t, c, "low", func(p *corev1.Pod) bool { return p.DeletionTimestamp != nil })
	var reason string
	for _, cond := range low.Status.Conditions {
		if cond.Type == corev1.DisruptionTarget && cond.Status == corev1.ConditionTrue {
			reason = cond.Reason + " " + cond.Message
		}
	}
	if want := "PreemptionByScheduler default-scheduler: preempting to accommodate a higher priority pod"; reason != want {
		t.Errorf("condition %q, want %q", reason, want)
	}
	awaitPod(t, c, "urgent", func(p *corev1.Pod) bool { return p.Status.NominatedNodeName == "n" })
	makePod(t, c, "second", "1", of("high"))
	awaitPod(t, c, "second", func(p *corev1.Pod) bool {
		return strings.HasSuffix(unschedulable(p), "preemption: 0/1 nodes are available: 1 Insufficient cpu.")
	})
	if _, err := c.CoreV1().Pods("default").Patch(t.Context(), "low", "application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	awaitPod(t, c, "urgent", bound)
}

func TestNeverPreempts(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithRoles()).Client
	makePriority(t, c, "polite", 100, corev1.PreemptNever)
	makeNode(t, c, "n", "1", nil)
	makePod(t, c, "low", "1", of(""))
	awaitPod(t, c, "low", bound)
	makePod(t, c, "urgent", "1", of("polite"))
	const want = "0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never."
	awaitPod(t, c, "urgent", func(p *corev1.Pod) bool { return unschedulable(p) == want })
	if gone(t, c, "low") {
		t.Error("a pod that never preempts preempted")
	}
}

// TestPreemptionSparesBudgets: the victim is the one that no budget protects,
// though its priority is higher.
func TestPreemptionSparesBudgets(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithRoles()).Client
	makePriority(t, c, "medium", 50, corev1.PreemptLowerPriority)
	makePriority(t, c, "high", 100, corev1.PreemptLowerPriority)
	one := intstr.FromInt32(1)
	pdb := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "guard"}, Spec: policyv1.PodDisruptionBudgetSpec{
		MinAvailable: &one, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "guarded"}}}}
	if _, err := c.PolicyV1().PodDisruptionBudgets("default").Create(t.Context(), pdb, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	makeNode(t, c, "n", "1", nil)
	makePod(t, c, "guarded", "500m", func(p *corev1.Pod) {
		of("")(p)
		p.Labels = map[string]string{"app": "guarded"}
	})
	makePod(t, c, "free", "500m", of("medium"))
	awaitPod(t, c, "guarded", bound)
	awaitPod(t, c, "free", bound)
	makePod(t, c, "urgent", "500m", of("high"))
	awaitPod(t, c, "urgent", bound)
	if gone(t, c, "guarded") || !gone(t, c, "free") {
		t.Errorf("guarded gone: %v, free gone: %v", gone(t, c, "guarded"), gone(t, c, "free"))
	}
}

// TestPreemptionPath is SCHED-007: ReplicaSets of rising priority share an
// extended resource; in the end the numbers are what the priorities say.
func TestPreemptionPath(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithRoles()).Client
	const name = "example.com/fakecpu"
	makeNode(t, c, "n", "8", nil)
	n, err := c.CoreV1().Nodes().Get(t.Context(), "n", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	n.Status.Allocatable[name], n.Status.Capacity[name] = resource.MustParse("1000"), resource.MustParse("1000")
	if _, err := c.CoreV1().Nodes().UpdateStatus(t.Context(), n, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	wanted := map[string]int32{"p1": 5, "p2": 4, "p3": 4, "p4": 1}
	requests := map[string]string{"p1": "40", "p2": "50", "p3": "95", "p4": "400"}
	ready := map[string]int{}
	count := func(ctx context.Context) error {
		list, err := c.CoreV1().Pods("default").List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		clear(ready)
		for i := range list.Items {
			if p := &list.Items[i]; bound(p) && p.DeletionTimestamp == nil {
				ready[p.Labels["set"]]++
			}
		}
		return nil
	}
	await := func(want map[string]int) {
		t.Helper()
		err := wait.PollUntilContextTimeout(t.Context(), 10*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
			return fmt.Sprint(want) == fmt.Sprint(ready), count(ctx)
		})
		if err != nil {
			t.Fatalf("%v: pods %v, want %v", err, ready, want)
		}
	}
	have := map[string]int{}
	for i, set := range []string{"p1", "p2", "p3", "p4"} {
		makePriority(t, c, set, int32(i+1), corev1.PreemptLowerPriority)
		labels, replicas := map[string]string{"set": set}, wanted[set]
		rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: set}, Spec: appsv1.ReplicaSetSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{
				PriorityClassName: set, TerminationGracePeriodSeconds: new(int64),
				Containers: []corev1.Container{{Name: "c", Image: "x", Resources: corev1.ResourceRequirements{
					Requests: corev1.ResourceList{name: resource.MustParse(requests[set])}, Limits: corev1.ResourceList{name: resource.MustParse(requests[set])}}}},
			}}}}
		if _, err := c.AppsV1().ReplicaSets("default").Create(t.Context(), rs, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if have[set] = int(replicas); set == "p4" {
			// 200 + 200 + 380 are taken: of the 400, 220 are free.
			have["p1"] = 0
			delete(have, "p1")
		}
		await(have)
	}
}

// TestHostPortsConflict is SCHED-006.
func TestHostPortsConflict(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithRoles()).Client
	makeNode(t, c, "n", "4", nil)
	port := func(ip string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 54322, HostIP: ip}}
		}
	}
	makePod(t, c, "any", "100m", port(""))
	awaitPod(t, c, "any", bound)
	makePod(t, c, "one", "100m", port("127.0.0.1"))
	p := awaitPod(t, c, "one", func(p *corev1.Pod) bool { return unschedulable(p) != "" })
	const want = "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
	if got := unschedulable(p); got != want {
		t.Errorf("message %q, want %q", got, want)
	}
}

// TestPlacementsSayWhatCannotHelp is SCHED-003 and SCHED-005, with the words
// of both halves of the message.
func TestPlacementsSayWhatCannotHelp(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithRoles()).Client
	makeNode(t, c, "n", "1", nil)
	makePod(t, c, "selects", "100m", func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"no": "where"} })
	makePod(t, c, "large", "2", nil)
	for name, want := range map[string]string{
		"selects": "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.",
		"large":   "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.",
	} {
		p := awaitPod(t, c, name, func(p *corev1.Pod) bool { return unschedulable(p) != "" })
		if got := unschedulable(p); got != want {
			t.Errorf("%s: message %q, want %q", name, got, want)
		}
	}
}
