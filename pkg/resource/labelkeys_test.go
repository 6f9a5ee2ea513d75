package resource

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestLabelKeysBecomeExpressions: a created pod's terms and constraints have
// its labels' values in their selectors, once; keys that it has no label for,
// and terms without a selector, stay as they are.
func TestLabelKeysBecomeExpressions(t *testing.T) {
	term := func(sel *metav1.LabelSelector) corev1.PodAffinityTerm {
		return corev1.PodAffinityTerm{LabelSelector: sel, MatchLabelKeys: []string{"hash", "none"}, MismatchLabelKeys: []string{"tenant"}}
	}
	app := func() *metav1.LabelSelector { return &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}} }
	weighted := func() []corev1.WeightedPodAffinityTerm {
		return []corev1.WeightedPodAffinityTerm{{Weight: 1, PodAffinityTerm: term(app())}}
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "a", "hash": "1", "tenant": "t"}}}
	pod.Spec.Affinity = &corev1.Affinity{
		PodAffinity: &corev1.PodAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{term(app()), term(nil)}, PreferredDuringSchedulingIgnoredDuringExecution: weighted(),
		},
		PodAntiAffinity: &corev1.PodAntiAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{term(app())}, PreferredDuringSchedulingIgnoredDuringExecution: weighted(),
		},
	}
	pod.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{LabelSelector: app(), MatchLabelKeys: []string{"hash"}}, {MatchLabelKeys: []string{"hash"}}}
	preparePod(pod, nil)
	created := pod.DeepCopy()
	preparePod(pod, created)
	if diff := cmp.Diff(created, pod); diff != "" {
		t.Errorf("an update merged again:\n%s", diff)
	}
	hash := metav1.LabelSelectorRequirement{Key: "hash", Operator: metav1.LabelSelectorOpIn, Values: []string{"1"}}
	tenant := metav1.LabelSelectorRequirement{Key: "tenant", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"t"}}
	both := app()
	both.MatchExpressions = []metav1.LabelSelectorRequirement{hash, tenant}
	a := pod.Spec.Affinity
	for name, got := range map[string]*metav1.LabelSelector{
		"required affinity":       a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution[0].LabelSelector,
		"preferred affinity":      a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution[0].PodAffinityTerm.LabelSelector,
		"required anti-affinity":  a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution[0].LabelSelector,
		"preferred anti-affinity": a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution[0].PodAffinityTerm.LabelSelector,
	} {
		if diff := cmp.Diff(both, got); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
	spread := app()
	spread.MatchExpressions = []metav1.LabelSelectorRequirement{hash}
	if diff := cmp.Diff(spread, pod.Spec.TopologySpreadConstraints[0].LabelSelector); diff != "" {
		t.Errorf("spread:\n%s", diff)
	}
	if a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution[1].LabelSelector != nil || pod.Spec.TopologySpreadConstraints[1].LabelSelector != nil {
		t.Error("a selector was made where there was none")
	}
}
