package lifecycle

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const (
	firstDelay = 10 * time.Second
	maxDelay   = 300 * time.Second
	// calmAfter is how long an attempt must run for its end to count as the first.
	calmAfter = 2 * maxDelay
	// minimumGrace is left to a sidecar that is stopped after the others have
	// used up the pod's grace.
	minimumGrace = 2 * time.Second
	// defaultGrace applies when neither spec nor deletion says one.
	defaultGrace = 30 * time.Second
	// freshError is how long a failed pull is shown as such before the status
	// says that the agent waits.
	freshError = 2 * time.Second
)

// restartDelay returns how long to wait after the end of c, and the delay that
// the next attempt carries.
func restartDelay(c Container) (wait, next time.Duration) {
	begin := c.StartedAt
	if begin.IsZero() {
		begin = c.CreatedAt
	}
	if c.Delay <= 0 || c.FinishedAt.Sub(begin) > calmAfter {
		return 0, firstDelay
	}
	return c.Delay, min(2*c.Delay, maxDelay)
}

// restarts tells whether the end of an attempt is followed by another one.
func restarts(pod *corev1.Pod, spec *corev1.Container, kind kind, exitCode int32) bool {
	if kind == sidecar {
		return true
	}
	if kind == ephemeral {
		return false
	}
	for _, rule := range spec.RestartPolicyRules {
		if rule.Action == corev1.ContainerRestartRuleActionRestart && matches(rule.ExitCodes, exitCode) {
			return true
		}
	}
	policy := pod.Spec.RestartPolicy
	if spec.RestartPolicy != nil {
		policy = corev1.RestartPolicy(*spec.RestartPolicy)
	}
	switch policy {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return exitCode != 0
	default: // Always, and the empty value of pods that no server defaulted
		return kind == app || exitCode != 0
	}
}

func matches(codes *corev1.ContainerRestartRuleOnExitCodes, exitCode int32) bool {
	if codes == nil {
		return false
	}
	in := slices.Contains(codes.Values, exitCode)
	switch codes.Operator {
	case corev1.ContainerRestartRuleOnExitCodesOpIn:
		return in
	case corev1.ContainerRestartRuleOnExitCodesOpNotIn:
		return !in
	}
	return false
}

// Hash identifies the part of a container's spec whose change restarts it.
func Hash(c *corev1.Container) string {
	h := fnv.New32a()
	fmt.Fprintf(h, "%s\x00%s", c.Name, c.Image)
	return strconv.FormatUint(uint64(h.Sum32()), 16)
}

// Grace returns how long the containers of a pod that stops may take.
func Grace(pod *corev1.Pod) time.Duration {
	if g := pod.DeletionGracePeriodSeconds; g != nil {
		return time.Duration(*g) * time.Second
	}
	if g := pod.Spec.TerminationGracePeriodSeconds; g != nil {
		return time.Duration(*g) * time.Second
	}
	return defaultGrace
}
