package plugin

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestShapesAreShared says which pods are alike.
func TestShapesAreShared(t *testing.T) {
	base := func(p *corev1.Pod) {
		asks("cpu", "1", "memory", "1Gi")(p)
		p.Labels = map[string]string{"app": "a"}
	}
	for _, c := range []struct {
		name         string
		change       func(*corev1.Pod)
		shape, group bool // shared
	}{
		{"the same", func(*corev1.Pod) {}, true, true},
		{"another label", func(p *corev1.Pod) { p.Labels["app"] = "b" }, true, false},
		{"another namespace", func(p *corev1.Pod) { p.Namespace = "other" }, true, false},
		{"more cpu", asks("cpu", "2", "memory", "1Gi"), false, true},
		{"an affinity", wantsNode(field("n"), field("m")), false, true},
		{"another port", takes("", corev1.ProtocolTCP, 80), false, true},
		{"another scheduler", func(p *corev1.Pod) { p.Spec.SchedulerName = "s" }, false, true},
		{"a node selector", func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"a": "b"} }, false, true},
		{"a toleration", tolerates(corev1.Toleration{Operator: corev1.TolerationOpExists}), false, true},
	} {
		in := NewInterner()
		a, b := in.Pod(podObject("a", base)), in.Pod(podObject("b", func(p *corev1.Pod) { base(p); c.change(p) }))
		if (a.Shape == b.Shape) != c.shape || (a.Group == b.Group) != c.group {
			t.Errorf("%s: shape shared %v, group shared %v, want %v and %v", c.name, a.Shape == b.Shape, a.Group == b.Group, c.shape, c.group)
		}
	}
	in := NewInterner()
	a, b := in.Pod(podObject("a", wantsNode(field("n")))), in.Pod(podObject("b", wantsNode(field("m"))))
	if a.Shape != b.Shape || a.Pin != "n" || b.Pin != "m" || a.Shape.HasRequired {
		t.Errorf("pods of a DaemonSet: shapes shared %v, pins %q and %q", a.Shape == b.Shape, a.Pin, b.Pin)
	}
}
