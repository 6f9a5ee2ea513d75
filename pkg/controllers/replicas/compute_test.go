package replicas

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

var now = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// pod builds a running pod that has been ready for a minute; change says what
// is different about it.
func pod(name string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, UID: types.UID(name), Labels: map[string]string{"app": "web"},
			CreationTimestamp: metav1.Time{Time: now.Add(-2 * time.Minute)},
		},
		Spec: corev1.PodSpec{NodeName: "node-" + name},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{
			Type: corev1.PodReady, Status: corev1.ConditionTrue,
			LastTransitionTime: metav1.Time{Time: now.Add(-time.Minute)},
		}}},
	}
	for _, c := range change {
		c(p)
	}
	return p
}

func unready(p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionFalse }
func unplaced(p *corev1.Pod) {
	p.Spec.NodeName = ""
	p.Status = corev1.PodStatus{Phase: corev1.PodPending}
}
func failed(p *corev1.Pod)  { p.Status.Phase = corev1.PodFailed }
func dying(p *corev1.Pod)   { p.DeletionTimestamp = &metav1.Time{Time: now} }
func cheap(p *corev1.Pod)   { p.Annotations = map[string]string{corev1.PodDeletionCost: "-5"} }
func dear(p *corev1.Pod)    { p.Annotations = map[string]string{corev1.PodDeletionCost: "5"} }
func crowded(p *corev1.Pod) { p.Spec.NodeName = "crowded" }
func restarted(p *corev1.Pod) {
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{RestartCount: 3}}
}
func justReady(p *corev1.Pod) {
	p.Status.Conditions[0].LastTransitionTime = metav1.Time{Time: now.Add(-time.Second)}
}

func set(replicas int, change ...func(*Set)) Set {
	s := Set{
		Object:   &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: "rs", Namespace: "ns", UID: "rs", Generation: 3}},
		Replicas: replicas, CountsTerminating: true,
		Template: &corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}}},
	}
	for _, c := range change {
		c(&s)
	}
	return s
}

func TestCompute(t *testing.T) {
	for _, tc := range []struct {
		name   string
		rs     Set
		pods   []*corev1.Pod
		create int
		remove []string
		wake   time.Duration
	}{
		{name: "none yet", rs: set(3), create: 3},
		{name: "right", rs: set(2), pods: []*corev1.Pod{pod("a"), pod("b")}},
		{name: "failed and dying pods are replaced", rs: set(3), pods: []*corev1.Pod{pod("a"), pod("b", failed), pod("c", dying)}, create: 2},
		{name: "a deleted set makes nothing", rs: set(3, func(s *Set) { s.Object.SetDeletionTimestamp(&metav1.Time{Time: now}) })},
		{name: "to zero", rs: set(0), pods: []*corev1.Pod{pod("a")}, remove: []string{"a"}},
		{name: "unplaced first", rs: set(2), pods: []*corev1.Pod{pod("a", unready), pod("b"), pod("c", unplaced)}, remove: []string{"c"}},
		{name: "unready before ready", rs: set(2), pods: []*corev1.Pod{pod("a"), pod("b", unready), pod("c", cheap)}, remove: []string{"b"}},
		{name: "cheap before dear", rs: set(1), pods: []*corev1.Pod{pod("a", dear), pod("b"), pod("c", cheap)}, remove: []string{"c", "b"}},
		{name: "crowded node first", rs: set(2), pods: []*corev1.Pod{pod("a", justReady), pod("b", crowded), pod("c", crowded)}, remove: []string{"b"}},
		{name: "younger first", rs: set(2), pods: []*corev1.Pod{pod("a"), pod("b", justReady), pod("c", restarted)}, remove: []string{"b"}},
		{name: "restarted first among equals", rs: set(2), pods: []*corev1.Pod{pod("a"), pod("b"), pod("c", restarted)}, remove: []string{"c"}},
		{name: "wakes when a pod becomes available", rs: set(1, func(s *Set) { s.MinReady = 90 * time.Second }), pods: []*corev1.Pod{pod("a")}, wake: 30 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := compute(tc.rs, tc.pods, nil, now)
			var removed []string
			for _, v := range p.remove {
				removed = append(removed, v.Name)
			}
			if p.create != tc.create || p.wake != tc.wake {
				t.Errorf("creates %d and wakes in %v, want %d and %v", p.create, p.wake, tc.create, tc.wake)
			}
			if diff := cmp.Diff(tc.remove, removed); diff != "" {
				t.Errorf("removes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestStatus(t *testing.T) {
	rs := set(4, func(s *Set) { s.MinReady = 30 * time.Second })
	unlabelled := func(p *corev1.Pod) { p.Labels = map[string]string{"other": "x"} }
	pods := []*corev1.Pod{pod("a"), pod("b", justReady), pod("c", unready, unlabelled), pod("d", failed), pod("e", dying)}
	got := status(rs, pods, nil, now)
	terminating := int32(1)
	want := appsv1.ReplicaSetStatus{
		ObservedGeneration: 3, Replicas: 3, FullyLabeledReplicas: 2, ReadyReplicas: 2, AvailableReplicas: 1,
		TerminatingReplicas: &terminating,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	rs.Status = got
	if changed(rs, status(rs, pods, nil, now.Add(time.Second))) {
		t.Error("the status of an unchanged set would be written again")
	}
}

func TestFailureCondition(t *testing.T) {
	rs := set(2)
	rs.Status = status(rs, nil, errors.New("quota"), now)
	if len(rs.Status.Conditions) != 1 || rs.Status.Conditions[0].Reason != "FailedCreate" || rs.Status.Conditions[0].Message != "quota" {
		t.Fatalf("conditions are %+v, want ReplicaFailure FailedCreate", rs.Status.Conditions)
	}
	if changed(rs, status(rs, nil, errors.New("quota, differently said"), now.Add(time.Minute))) {
		t.Error("a lasting failure is written again and again")
	}
	rs.Status = status(rs, nil, nil, now)
	if len(rs.Status.Conditions) != 0 {
		t.Errorf("conditions are %+v after success, want none", rs.Status.Conditions)
	}
}

// TestVictimsLeaveWhatWasAsked checks that whatever the pods, the plan meets
// the wanted number exactly and removes each pod at most once.
func TestVictimsLeaveWhatWasAsked(t *testing.T) {
	kinds := []func(*corev1.Pod){func(*corev1.Pod) {}, unready, unplaced, failed, dying, cheap, crowded, justReady}
	for n := range 200 {
		var pods []*corev1.Pod
		active := 0
		for i, x := 0, n*7919; i < n%11; i, x = i+1, x/3+17 {
			p := pod(fmt.Sprint(i), kinds[x%len(kinds)])
			if p.DeletionTimestamp == nil && p.Status.Phase != corev1.PodFailed {
				active++
			}
			pods = append(pods, p)
		}
		want := n % 5
		p := compute(set(want), pods, nil, now)
		seen := map[string]bool{}
		for _, v := range p.remove {
			if seen[v.Name] || v.DeletionTimestamp != nil || v.Status.Phase == corev1.PodFailed {
				t.Fatalf("case %d removes %s twice or though it does not count", n, v.Name)
			}
			seen[v.Name] = true
		}
		if active+p.create-len(p.remove) != want {
			t.Fatalf("case %d: %d active, %d created, %d removed, want %d", n, active, p.create, len(p.remove), want)
		}
	}
}
