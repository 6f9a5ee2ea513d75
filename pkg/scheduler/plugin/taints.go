package plugin

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
)

// TaintToleration keeps pods off nodes whose NoSchedule and NoExecute taints
// they do not tolerate.
type TaintToleration struct{}

// Name implements Filter.
func (TaintToleration) Name() string { return "TaintToleration" }

// Check implements Filter.
func (TaintToleration) Check(p *Pod, n *Node) string {
	for i := range n.Object.Spec.Taints {
		t := &n.Object.Spec.Taints[i]
		if t.Effect != corev1.TaintEffectPreferNoSchedule && !tolerated(p.Tolerations, t) {
			return fmt.Sprintf("node(s) had untolerated taint {%s: %s}", t.Key, t.Value)
		}
	}
	return ""
}

func tolerated(tolerations []corev1.Toleration, t *corev1.Taint) bool {
	for i := range tolerations {
		if tolerations[i].ToleratesTaint(klog.Logger{}, t, false) {
			return true
		}
	}
	return false
}

// PreferNoTaints prefers nodes with fewer PreferNoSchedule taints that the pod
// does not tolerate.
type PreferNoTaints struct{}

// Name implements Score.
func (PreferNoTaints) Name() string { return "TaintToleration" }

// Weight implements Score.
func (PreferNoTaints) Weight() int64 { return 3 }

// Score implements Score; the raw value is a number of taints.
func (PreferNoTaints) Score(p *Pod, n *Node) int64 {
	var count int64
	for i := range n.Object.Spec.Taints {
		t := &n.Object.Spec.Taints[i]
		if t.Effect == corev1.TaintEffectPreferNoSchedule && !tolerated(p.Tolerations, t) {
			count++
		}
	}
	return count
}

// Normalize implements Normalizer.
func (PreferNoTaints) Normalize(scores []int64) { scaleDown(scores) }
