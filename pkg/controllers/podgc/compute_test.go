package podgc

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var now = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func pod(name, node string, phase corev1.PodPhase, deleting bool, age time.Duration) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.Time{Time: now.Add(-age)}},
		Spec:       corev1.PodSpec{NodeName: node}, Status: corev1.PodStatus{Phase: phase},
	}
	if deleting {
		p.DeletionTimestamp = &metav1.Time{Time: now}
	}
	return p
}

func node(name string, ready corev1.ConditionStatus, taints ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}
	for _, t := range taints {
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: t, Effect: corev1.TaintEffectNoExecute})
	}
	return n
}

func TestCompute(t *testing.T) {
	o := observed{
		nodes: map[string]*corev1.Node{
			"up":   node("up", corev1.ConditionTrue),
			"off":  node("off", corev1.ConditionUnknown, corev1.TaintNodeOutOfService),
			"lies": node("lies", corev1.ConditionTrue, corev1.TaintNodeOutOfService),
			"dark": node("dark", corev1.ConditionUnknown),
		},
		missing: map[string]time.Time{"gone": now.Add(-time.Minute), "fresh": now.Add(-time.Second)},
		pods: []*corev1.Pod{
			pod("runs", "up", corev1.PodRunning, false, 0),
			pod("on a node just gone", "fresh", corev1.PodRunning, false, 0),
			pod("on a node long gone", "gone", corev1.PodRunning, false, 0),
			pod("ending on a node that is off", "off", corev1.PodRunning, true, 0),
			pod("wanted on a node that is off", "off", corev1.PodRunning, false, 0),
			pod("ending on a node that is not off", "lies", corev1.PodRunning, true, 0),
			pod("ending on a silent node", "dark", corev1.PodRunning, true, 0),
			pod("deleted without a node", "", corev1.PodPending, true, 0),
			pod("pending", "", corev1.PodPending, false, 0),
			pod("old", "up", corev1.PodSucceeded, false, 3*time.Hour),
			pod("older", "up", corev1.PodFailed, false, 4*time.Hour),
			pod("new", "up", corev1.PodSucceeded, false, time.Hour),
		},
	}
	want := map[string]reason{
		"on a node long gone":          orphaned,
		"ending on a node that is off": outOfAction,
		"deleted without a node":       unplaced,
		"older":                        finished,
		"old":                          finished,
	}
	got := map[string]reason{}
	for _, it := range compute(o, limits{finished: 1, quarantine: 40 * time.Second}, now) {
		got[it.pod.Name] = it.why
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("collected (-want +got):\n%s", diff)
	}
}

func TestMissingNodes(t *testing.T) {
	o := observed{
		nodes:   map[string]*corev1.Node{"up": node("up", corev1.ConditionTrue)},
		missing: map[string]time.Time{"gone": now.Add(-time.Minute), "back": now},
		pods:    []*corev1.Pod{pod("a", "up", "", false, 0), pod("b", "gone", "", false, 0), pod("c", "new", "", false, 0), pod("d", "", "", false, 0)},
	}
	want := map[string]time.Time{"gone": now.Add(-time.Minute), "new": now}
	if diff := cmp.Diff(want, missingNodes(o, now)); diff != "" {
		t.Errorf("missing (-want +got):\n%s", diff)
	}
}
