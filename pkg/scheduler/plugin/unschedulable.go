package plugin

import corev1 "k8s.io/api/core/v1"

// NodeUnschedulable keeps pods off cordoned nodes.
type NodeUnschedulable struct{}

// Name implements Filter.
func (NodeUnschedulable) Name() string { return "NodeUnschedulable" }

// Check implements Filter.
func (NodeUnschedulable) Check(p *Pod, n *Node) string {
	if !n.Object.Spec.Unschedulable {
		return ""
	}
	taint := corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}
	if tolerated(p.Tolerations, &taint) {
		return ""
	}
	return "node(s) were unschedulable"
}
