package scheduler

import (
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"coracle/pkg/scheduler/plugin"
)

// budget is what preemption needs to know of a PodDisruptionBudget. Immutable.
type budget struct {
	namespace string
	selector  labels.Selector
	allowed   int32
	disrupted map[string]bool // names of pods that are on their way out already
}

// newBudget returns nil for one that protects nothing.
func newBudget(b *policyv1.PodDisruptionBudget) *budget {
	selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
	if err != nil || selector.Empty() {
		return nil
	}
	out := &budget{namespace: b.Namespace, selector: selector, allowed: b.Status.DisruptionsAllowed, disrupted: map[string]bool{}}
	for name := range b.Status.DisruptedPods {
		out.disrupted[name] = true
	}
	return out
}

// protect splits pods, keeping their order, into those whose leaving would
// violate a budget when all leave in this order, and the others.
func protect(pods []*plugin.Pod, budgets []*budget) (protected, free []*plugin.Pod) {
	left := make([]int32, len(budgets))
	for i, b := range budgets {
		left[i] = b.allowed
	}
	for _, p := range pods {
		violates := false
		for i, b := range budgets {
			if len(p.Group.Labels) == 0 || b.namespace != p.Namespace() || b.disrupted[p.Name] || !b.selector.Matches(p.Group.Labels) {
				continue
			}
			if left[i]--; left[i] < 0 {
				violates = true
				break
			}
		}
		if violates {
			protected = append(protected, p)
		} else {
			free = append(free, p)
		}
	}
	return protected, free
}
