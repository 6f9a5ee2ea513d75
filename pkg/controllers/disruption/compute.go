package disruption

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"coracle/pkg/controllers/podset"
)

// patience is how long an eviction that was granted may take to show: until
// then its pod counts as gone, and the pod's condition says that it will go.
const patience = 2 * time.Minute

// observed is what one reconcile of a budget sees.
type observed struct {
	budget *policyv1.PodDisruptionBudget
	pods   []*corev1.Pod // that the budget selects
	// scale is how many pods their controllers want together; only budgets
	// that depend on it have it.
	scale int
}

// plan is what one reconcile does.
type plan struct {
	status policyv1.PodDisruptionBudgetStatus
	// spared are pods whose eviction was granted and did not happen.
	spared []*corev1.Pod
	wake   time.Duration // when to look again; 0 means on events
}

// needsScale reports whether a budget is a share of what controllers want.
func needsScale(b *policyv1.PodDisruptionBudget) bool {
	return b.Spec.MaxUnavailable != nil || b.Spec.MinAvailable != nil && b.Spec.MinAvailable.Type == intstr.String
}

// compute counts the pods and decides how many of them may be disrupted.
func compute(o observed, now time.Time) (plan, error) {
	expected, desired, err := expectation(o)
	if err != nil {
		return plan{}, err
	}
	p := plan{status: *o.budget.Status.DeepCopy()}
	s := &p.status
	p.keepGranted(o, now)
	s.ObservedGeneration = o.budget.Generation
	s.ExpectedPods, s.DesiredHealthy, s.CurrentHealthy, s.DisruptionsAllowed = int32(expected), int32(desired), 0, 0
	for _, pod := range o.pods {
		if _, granted := s.DisruptedPods[pod.Name]; !granted && pod.DeletionTimestamp == nil && podset.Ready(pod) {
			s.CurrentHealthy++
		}
	}
	// A budget without pods allows nothing, so that its first pods are safe
	// before they are counted.
	if expected > 0 {
		s.DisruptionsAllowed = max(s.CurrentHealthy-s.DesiredHealthy, 0)
	}
	c := metav1.Condition{
		Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionFalse, Reason: policyv1.InsufficientPodsReason,
		ObservedGeneration: s.ObservedGeneration, LastTransitionTime: metav1.Time{Time: now},
	}
	if s.DisruptionsAllowed > 0 {
		c.Status, c.Reason = metav1.ConditionTrue, policyv1.SufficientPodsReason
	}
	meta.SetStatusCondition(&s.Conditions, c)
	return p, nil
}

// expectation is how many pods the budget counts and how many of them are to
// stay healthy.
func expectation(o observed) (expected, desired int, err error) {
	switch spec := o.budget.Spec; {
	case spec.MaxUnavailable != nil:
		n, err := intstr.GetScaledValueFromIntOrPercent(spec.MaxUnavailable, o.scale, true)
		if err != nil {
			return 0, 0, fmt.Errorf("maxUnavailable: %w", err)
		}
		return o.scale, max(o.scale-n, 0), nil
	case spec.MinAvailable == nil:
		return 0, 0, nil
	case spec.MinAvailable.Type == intstr.Int:
		return len(o.pods), spec.MinAvailable.IntValue(), nil
	default:
		n, err := intstr.GetScaledValueFromIntOrPercent(spec.MinAvailable, o.scale, true)
		if err != nil {
			return 0, 0, fmt.Errorf("minAvailable: %w", err)
		}
		return o.scale, n, nil
	}
}

// keepGranted drops the granted evictions that were seen, or that did not
// happen in time.
func (p *plan) keepGranted(o observed, now time.Time) {
	left := map[string]metav1.Time{}
	for _, pod := range o.pods {
		granted, ok := p.status.DisruptedPods[pod.Name]
		if !ok || pod.DeletionTimestamp != nil {
			continue
		}
		wait := granted.Add(patience).Sub(now)
		if wait <= 0 {
			p.spared = append(p.spared, pod)
			continue
		}
		left[pod.Name] = granted
		if p.wake == 0 || wait < p.wake {
			p.wake = wait
		}
	}
	p.status.DisruptedPods = left
}

// failed is the status of a budget that cannot be computed: it allows nothing.
func failed(b *policyv1.PodDisruptionBudget, cause error, now time.Time) policyv1.PodDisruptionBudgetStatus {
	s := *b.Status.DeepCopy()
	s.DisruptionsAllowed = 0
	meta.SetStatusCondition(&s.Conditions, metav1.Condition{
		Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionFalse, Reason: policyv1.SyncFailedReason,
		Message: cause.Error(), ObservedGeneration: s.ObservedGeneration, LastTransitionTime: metav1.Time{Time: now},
	})
	return s
}

// untouched reports whether pod says that it is about to be disrupted although
// nothing happened to it, and after how long that is no longer true. What the
// node's agent announces takes as long as it takes.
func untouched(pod *corev1.Pod, now time.Time) (yes bool, wait time.Duration) {
	c := podset.Condition(pod, corev1.DisruptionTarget)
	if c == nil || c.Status != corev1.ConditionTrue || c.Reason == corev1.PodReasonTerminationByKubelet ||
		pod.DeletionTimestamp != nil || podset.Finished(pod) {
		return false, 0
	}
	return true, max(c.LastTransitionTime.Add(patience).Sub(now), 0)
}

// spare returns pod with its condition taken back.
func spare(pod *corev1.Pod, now time.Time) *corev1.Pod {
	pod = pod.DeepCopy()
	*podset.Condition(pod, corev1.DisruptionTarget) = corev1.PodCondition{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionFalse, LastTransitionTime: metav1.Time{Time: now},
	}
	return pod
}
