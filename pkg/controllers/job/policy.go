package job

import (
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// verdict is what a job's podFailurePolicy says of a failed pod.
type verdict struct {
	action  batchv1.PodFailurePolicyAction // "" when no rule matches
	message string                         // why the job fails, for FailJob
}

// counts reports whether the failure counts against the back-off limits.
func (v verdict) counts() bool { return v.action != batchv1.PodFailurePolicyActionIgnore }

// judge finds the first rule of policy that is about the failed pod.
func judge(policy *batchv1.PodFailurePolicy, pod *corev1.Pod) verdict {
	if policy == nil {
		return verdict{}
	}
	for i := range policy.Rules {
		rule := &policy.Rules[i]
		var message string
		if rule.OnExitCodes != nil {
			c := endedWith(&pod.Status, rule.OnExitCodes)
			if c == nil {
				continue
			}
			message = fmt.Sprintf("Container %s for pod %s/%s failed with exit code %v matching %v rule at index %d",
				c.Name, pod.Namespace, pod.Name, c.State.Terminated.ExitCode, rule.Action, i)
		} else {
			c := conditionOf(&pod.Status, rule.OnPodConditions)
			if c == nil {
				continue
			}
			message = fmt.Sprintf("Pod %s/%s has condition %v matching %v rule at index %d", pod.Namespace, pod.Name, c.Type, rule.Action, i)
		}
		return verdict{rule.Action, message}
	}
	return verdict{}
}

// endedWith returns a container that failed with an exit code as the rule has
// it. Success is never a match.
func endedWith(s *corev1.PodStatus, rule *batchv1.PodFailurePolicyOnExitCodesRequirement) *corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{s.ContainerStatuses, s.InitContainerStatuses} {
		for i := range list {
			c := &list[i]
			if c.State.Terminated == nil || c.State.Terminated.ExitCode == 0 || rule.ContainerName != nil && *rule.ContainerName != c.Name {
				continue
			}
			listed := slices.Contains(rule.Values, c.State.Terminated.ExitCode)
			if listed == (rule.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn) {
				return c
			}
		}
	}
	return nil
}

func conditionOf(s *corev1.PodStatus, patterns []batchv1.PodFailurePolicyOnPodConditionsPattern) *corev1.PodCondition {
	for i := range s.Conditions {
		c := &s.Conditions[i]
		if slices.ContainsFunc(patterns, func(p batchv1.PodFailurePolicyOnPodConditionsPattern) bool {
			return p.Type == c.Type && p.Status == c.Status
		}) {
			return c
		}
	}
	return nil
}

// succeeds returns the number of the first rule of policy that the completed
// indexes satisfy.
func succeeds(policy *batchv1.SuccessPolicy, completions int, done indexes) (rule int, ok bool) {
	if policy == nil {
		return 0, false
	}
	for i, r := range policy.Rules {
		have, want := done.count(), 0
		if r.SucceededIndexes != nil {
			wanted := parseIndexes(*r.SucceededIndexes, completions)
			have, want = done.countIn(wanted), wanted.count()
		}
		if r.SucceededCount != nil {
			want = int(*r.SucceededCount)
		}
		if want > 0 && have >= want {
			return i, true
		}
	}
	return 0, false
}
