package scheduler

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestVerifier finds the bindings that the filters do not admit.
func TestVerifier(t *testing.T) {
	v, err := NewVerifier()
	if err != nil {
		t.Fatal(err)
	}
	v.SetNamespace("sched-0", map[string]string{})
	v.SetNode(benchNode(0, 1))
	v.SetNode(benchNode(1, 1))
	alone := apart("green", corev1.LabelHostname, false, false)
	green := func(name string) *corev1.Pod { return benchPod(name, "sched-0", 0, both(labelled("green"), alone)) }
	expect := func(p *corev1.Pod, node string, want ...string) {
		t.Helper()
		if got := v.Bind(p, node); !slices.Equal(got.Reasons, want) {
			t.Errorf("%s on %s: %q, want %q", p.Name, node, got.Reasons, want)
		}
	}
	expect(green("a"), "node-0")
	expect(green("b"), "node-1")
	expect(green("c"), "node-1", "node(s) didn't match pod anti-affinity rules")
	v.Gone(green("b").UID)
	v.Gone(green("c").UID)
	expect(green("d"), "node-1")
	expect(green("e"), "node-2", "node node-2 does not exist")
	pinned := benchPod("p", "sched-0", 0, func(p *corev1.Pod, _ int) {
		p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{"node-0"}}}}}}}}
	})
	expect(pinned, "node-1", "node(s) didn't satisfy plugin(s) [NodeAffinity]")
	if least, most := v.Spread(corev1.ResourceCPU); least != 100.0/4000 || most != 200.0/4000 {
		t.Errorf("cpu is requested to %v at least and %v at most", least, most)
	}
}
