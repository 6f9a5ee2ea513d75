package lifecycle

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// phase sets phase, reason and message. A terminal phase stays whoever wrote it.
func (c *computation) phase(s *corev1.PodStatus) {
	switch {
	case terminal(c.Pod.Status.Phase):
		s.Phase = c.Pod.Status.Phase
		return
	case c.lastTerminal():
		s.Phase, s.Reason, s.Message = c.Last.Phase, c.Last.Reason, c.Last.Message
		return
	}
	running := c.Pod.Status.Phase == corev1.PodRunning || c.Last != nil && c.Last.Phase == corev1.PodRunning
	switch {
	case c.over():
		c.finalPhase(s)
	case running, c.ran():
		s.Phase = corev1.PodRunning
	default:
		s.Phase = corev1.PodPending
	}
}

// ran tells whether every init container is through and every app container
// has started at least once.
func (c *computation) ran() bool {
	if !c.initialized() {
		return false
	}
	for _, m := range c.members {
		switch m.kind {
		case app:
			if m.latest == nil || m.latest.State == Created || c.busy(StartContainer, m.spec.Name) && m.latest.Attempt == 0 && m.running() {
				return false
			}
			if t, ok := c.Trouble[Key{StartContainer, m.spec.Name}]; ok && m.latest.Attempt == 0 && t.Reason == ReasonRunContainer {
				return false
			}
		case sidecar:
			if m.latest == nil {
				return false
			}
		}
	}
	return true
}

func (c *computation) finalPhase(s *corev1.PodStatus) {
	switch {
	case c.Verdict != nil:
		s.Phase, s.Reason, s.Message = corev1.PodFailed, c.Verdict.Reason, c.Verdict.Message
	case c.stoppedByDeadline():
		s.Phase, s.Reason = corev1.PodFailed, ReasonDeadlineExceeded
		s.Message = "Pod was active on the node longer than the specified deadline"
	case c.allSucceeded():
		s.Phase = corev1.PodSucceeded
	default:
		s.Phase = corev1.PodFailed
	}
}

func (c *computation) allSucceeded() bool {
	for _, m := range c.members {
		if m.kind == app && (!m.ended() || m.latest.ExitCode != 0) {
			return false
		}
	}
	return true
}

// conditions sets the conditions that the agent owns and keeps those of
// others.
func (c *computation) conditions(s *corev1.PodStatus) {
	incomplete, unready := c.lacking(s)
	initialized := corev1.PodCondition{Type: corev1.PodInitialized, Status: corev1.ConditionTrue}
	ready := corev1.PodCondition{Type: corev1.ContainersReady, Status: corev1.ConditionTrue}
	switch {
	case s.Phase == corev1.PodSucceeded:
		initialized.Reason = "PodCompleted"
		ready.Status, ready.Reason = corev1.ConditionFalse, "PodCompleted"
	case len(incomplete) > 0:
		initialized.Status, initialized.Reason = corev1.ConditionFalse, "ContainersNotInitialized"
		initialized.Message = fmt.Sprintf("containers with incomplete status: [%s]", strings.Join(incomplete, " "))
	}
	switch {
	case s.Phase == corev1.PodSucceeded:
	case s.Phase == corev1.PodFailed:
		ready.Status, ready.Reason = corev1.ConditionFalse, "PodFailed"
	case len(unready) > 0:
		ready.Status, ready.Reason = corev1.ConditionFalse, "ContainersNotReady"
		ready.Message = fmt.Sprintf("containers with unready status: [%s]", strings.Join(unready, " "))
	}
	sandbox := corev1.PodCondition{Type: corev1.PodReadyToStartContainers, Status: corev1.ConditionFalse}
	if c.current != nil && !terminal(s.Phase) {
		sandbox.Status = corev1.ConditionTrue
	}
	scheduled := corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}
	own := []corev1.PodCondition{sandbox, initialized, c.podReady(ready), ready, scheduled}
	if c.Verdict != nil && c.Verdict.Condition != nil {
		own = append(own, *c.Verdict.Condition)
	}
	if !terminal(s.Phase) {
		own = append(own, c.resizeConditions()...)
	}
	s.Conditions = c.stamp(own)
}

// lacking lists the init containers that are not through and the app
// containers and sidecars that are not ready, by name in the order of the spec.
func (c *computation) lacking(s *corev1.PodStatus) (incomplete, unready []string) {
	began := c.began()
	for i, m := range c.initMembers() {
		cs := &s.InitContainerStatuses[i]
		switch {
		case m.kind == initOnce && !cs.Ready && !began:
			incomplete = append(incomplete, m.spec.Name)
		case m.kind == sidecar:
			if !*cs.Started && !began {
				incomplete = append(incomplete, m.spec.Name)
			}
			if !cs.Ready {
				unready = append(unready, m.spec.Name)
			}
		}
	}
	for i := range s.ContainerStatuses {
		if cs := &s.ContainerStatuses[i]; !cs.Ready {
			unready = append(unready, cs.Name)
		}
	}
	return incomplete, unready
}

func (c *computation) initMembers() []*member {
	return c.members[:len(c.Pod.Spec.InitContainers)]
}

// podReady is ContainersReady and every readiness gate.
func (c *computation) podReady(containers corev1.PodCondition) corev1.PodCondition {
	ready := containers
	ready.Type = corev1.PodReady
	if containers.Status != corev1.ConditionTrue {
		return ready
	}
	var missing []string
	for _, gate := range c.Pod.Spec.ReadinessGates {
		i := slices.IndexFunc(c.Pod.Status.Conditions, func(p corev1.PodCondition) bool { return p.Type == gate.ConditionType })
		switch {
		case i < 0:
			missing = append(missing, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", gate.ConditionType))
		case c.Pod.Status.Conditions[i].Status != corev1.ConditionTrue:
			missing = append(missing, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %v", gate.ConditionType, c.Pod.Status.Conditions[i].Status))
		}
	}
	if len(missing) > 0 {
		ready.Status, ready.Reason = corev1.ConditionFalse, "ReadinessGatesNotReady"
		ready.Message = strings.Join(missing, ", ")
	}
	return ready
}

// stamp dates the conditions, leaving the date of those that did not turn, and
// adds the conditions of others. Those of a resize are the agent's: they go when
// there is none.
func (c *computation) stamp(own []corev1.PodCondition) []corev1.PodCondition {
	find := func(list []corev1.PodCondition, t corev1.PodConditionType) *corev1.PodCondition {
		for i := range list {
			if list[i].Type == t {
				return &list[i]
			}
		}
		return nil
	}
	for i := range own {
		cond := &own[i]
		if cond.ObservedGeneration == 0 {
			cond.ObservedGeneration = c.Pod.Generation
		}
		old := find(c.Pod.Status.Conditions, cond.Type)
		if c.Last != nil {
			if last := find(c.Last.Conditions, cond.Type); last != nil {
				old = last
			}
		}
		if old != nil && old.Status == cond.Status && !old.LastTransitionTime.IsZero() {
			cond.LastTransitionTime = old.LastTransitionTime
		} else {
			cond.LastTransitionTime = metav1.NewTime(c.Now.Truncate(time.Second))
		}
	}
	for _, other := range c.Pod.Status.Conditions {
		mine := other.Type == corev1.PodResizePending || other.Type == corev1.PodResizeInProgress
		if !mine && find(own, other.Type) == nil {
			own = append(own, other)
		}
	}
	return own
}
