package plugin

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
)

// TaintToleration keeps pods off nodes whose NoSchedule and NoExecute taints
// they do not tolerate, and prefers nodes with fewer PreferNoSchedule taints
// that they do not tolerate.
type TaintToleration struct{}

// Name implements Plugin.
func (TaintToleration) Name() string { return "TaintToleration" }

// PreFilter implements Filter.
func (TaintToleration) PreFilter(_ *Cluster, p *Pod) FilterPlan {
	return FilterPlan{Check: taintCheck{p.Shape.Tolerations}}
}

type taintCheck struct{ tolerations []corev1.Toleration }

// Check implements Check.
func (c taintCheck) Check(v *View) Verdict {
	if len(v.Taints) == 0 {
		return Verdict{}
	}
	if t := untolerated(v.Taints, c.tolerations); t != nil {
		return Verdict{
			Code: Unresolvable, Reasons: []string{"node(s) had untolerated taint(s)"},
			Detail: func() string { return fmt.Sprintf("node(s) had untolerated taint {%s: %s}", t.Key, t.Value) },
		}
	}
	return Verdict{}
}

// Fits implements QuickCheck.
func (c taintCheck) Fits(n *Node) bool { return untolerated(n.Taints, c.tolerations) == nil }

// untolerated is the first taint that keeps pods with these tolerations away.
func untolerated(taints []corev1.Taint, tolerations []corev1.Toleration) *corev1.Taint {
	for i := range taints {
		t := &taints[i]
		if t.Effect != corev1.TaintEffectPreferNoSchedule && !tolerated(tolerations, t) {
			return t
		}
	}
	return nil
}

func tolerated(tolerations []corev1.Toleration, t *corev1.Taint) bool {
	for i := range tolerations {
		if tolerations[i].ToleratesTaint(klog.Logger{}, t, false) {
			return true
		}
	}
	return false
}

// MayHelp implements Hinter: a taint that kept the pod away is gone.
func (TaintToleration) MayHelp(p *Pod, e *Event) bool {
	switch e.Kind {
	case NodeAdded, NodeUpdated:
		was := e.OldNode == nil || untolerated(e.OldNode.Taints, p.Shape.Tolerations) != nil
		return was && untolerated(e.Node.Taints, p.Shape.Tolerations) == nil
	case OwnPodUpdated:
		return true
	}
	return false
}

// PreScore implements Score. The band is the number of taints.
func (TaintToleration) PreScore(_ *Cluster, p *Pod) ScorePlan {
	return ScorePlan{Band: taintScore{p.Shape.Tolerations}}
}

type taintScore struct{ tolerations []corev1.Toleration }

// Band implements BandScore.
func (s taintScore) Band(n *Node) int32 {
	var count int32
	for i := range n.Taints {
		if t := &n.Taints[i]; t.Effect == corev1.TaintEffectPreferNoSchedule && !tolerated(s.tolerations, t) {
			count++
		}
	}
	return count
}

// Scores implements BandScore: the more taints the worse.
func (taintScore) Scores(bands []Band, out []int64) {
	var top int64
	for _, b := range bands {
		top = max(top, int64(b.ID))
	}
	for i, b := range bands {
		if out[i] = MaxScore; top > 0 {
			out[i] -= MaxScore * int64(b.ID) / top
		}
	}
}

// NodeUnschedulable keeps pods off cordoned nodes.
type NodeUnschedulable struct{}

// Name implements Plugin.
func (NodeUnschedulable) Name() string { return "NodeUnschedulable" }

// PreFilter implements Filter.
func (NodeUnschedulable) PreFilter(_ *Cluster, p *Pod) FilterPlan {
	if toleratesCordon(p) {
		return FilterPlan{}
	}
	return FilterPlan{Check: cordonCheck{}}
}

func toleratesCordon(p *Pod) bool {
	return tolerated(p.Shape.Tolerations, &corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule})
}

type cordonCheck struct{}

// Check implements Check.
func (cordonCheck) Check(v *View) Verdict {
	if v.Unschedulable {
		return refuse(Unresolvable, []string{"node(s) were unschedulable"})
	}
	return Verdict{}
}

// Fits implements QuickCheck.
func (cordonCheck) Fits(n *Node) bool { return !n.Unschedulable }

// MayHelp implements Hinter.
func (NodeUnschedulable) MayHelp(p *Pod, e *Event) bool {
	switch e.Kind {
	case NodeAdded:
		return !e.Node.Unschedulable
	case NodeUpdated:
		return e.OldNode.Unschedulable && !e.Node.Unschedulable
	case OwnPodUpdated:
		return toleratesCordon(e.Pod)
	}
	return false
}
