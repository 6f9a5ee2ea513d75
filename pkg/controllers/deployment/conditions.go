package deployment

import (
	"fmt"
	"math"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Reasons of the Progressing and Available conditions; clients act on them.
const (
	reasonCreated     = "NewReplicaSetCreated"
	reasonFound       = "FoundNewReplicaSet"
	reasonUpdated     = "ReplicaSetUpdated"
	reasonComplete    = "NewReplicaSetAvailable"
	reasonCreateError = "ReplicaSetCreateError"
	reasonTimedOut    = "ProgressDeadlineExceeded"
	reasonPaused      = "DeploymentPaused"
	reasonResumed     = "DeploymentResumed"
	reasonAvailable   = "MinimumReplicasAvailable"
	reasonUnavailable = "MinimumReplicasUnavailable"
)

func condition(s *appsv1.DeploymentStatus, t appsv1.DeploymentConditionType) *appsv1.DeploymentCondition {
	for i := range s.Conditions {
		if s.Conditions[i].Type == t {
			return &s.Conditions[i]
		}
	}
	return nil
}

// setCondition replaces the condition of c's type unless status and reason are
// the same already. The transition time is kept while the status is.
func setCondition(s *appsv1.DeploymentStatus, c appsv1.DeploymentCondition, now time.Time) {
	have := condition(s, c.Type)
	if have != nil && have.Status == c.Status && have.Reason == c.Reason {
		return
	}
	putCondition(s, c, now)
}

// putCondition is setCondition that always moves the update time: it is the
// time of the last progress.
func putCondition(s *appsv1.DeploymentStatus, c appsv1.DeploymentCondition, now time.Time) {
	c.LastUpdateTime, c.LastTransitionTime = metav1.Time{Time: now}, metav1.Time{Time: now}
	if have := condition(s, c.Type); have != nil {
		if have.Status == c.Status {
			c.LastTransitionTime = have.LastTransitionTime
		}
		*have = c
		return
	}
	s.Conditions = append(s.Conditions, c)
}

func removeCondition(s *appsv1.DeploymentStatus, t appsv1.DeploymentConditionType) {
	s.Conditions = slices.DeleteFunc(s.Conditions, func(c appsv1.DeploymentCondition) bool { return c.Type == t })
}

func progressing(status corev1.ConditionStatus, reason, message string) appsv1.DeploymentCondition {
	return appsv1.DeploymentCondition{Type: appsv1.DeploymentProgressing, Status: status, Reason: reason, Message: message}
}

// hasDeadline reports whether progress is watched at all.
func hasDeadline(d *appsv1.Deployment) bool {
	s := d.Spec.ProgressDeadlineSeconds
	return s != nil && *s != math.MaxInt32
}

// notePause marks pausing and resuming, so that the deadline does not run
// while d is paused and starts anew afterwards.
func notePause(d *appsv1.Deployment, s *appsv1.DeploymentStatus, now time.Time) {
	if !hasDeadline(d) {
		return
	}
	have := condition(s, appsv1.DeploymentProgressing)
	if have != nil && have.Reason == reasonTimedOut {
		return
	}
	paused := have != nil && have.Reason == reasonPaused
	switch {
	case d.Spec.Paused && !paused:
		setCondition(s, progressing(corev1.ConditionUnknown, reasonPaused, "Deployment is paused"), now)
	case !d.Spec.Paused && paused:
		setCondition(s, progressing(corev1.ConditionUnknown, reasonResumed, "Deployment is resumed"), now)
	}
}

// complete reports whether all pods are of the current template and available,
// and no other is left.
func complete(d *appsv1.Deployment, s *appsv1.DeploymentStatus) bool {
	want := *d.Spec.Replicas
	return s.UpdatedReplicas == want && s.Replicas == want && s.AvailableReplicas == want &&
		s.ObservedGeneration >= d.Generation
}

// moved reports whether s shows progress over was.
func moved(was, s *appsv1.DeploymentStatus) bool {
	return s.UpdatedReplicas > was.UpdatedReplicas ||
		s.Replicas-s.UpdatedReplicas < was.Replicas-was.UpdatedReplicas ||
		s.ReadyReplicas > was.ReadyReplicas ||
		s.AvailableReplicas > was.AvailableReplicas
}

// noteProgress sets Progressing, and returns when the deadline will have
// passed if nothing moves until then.
func noteProgress(d *appsv1.Deployment, s *appsv1.DeploymentStatus, current *appsv1.ReplicaSet, now time.Time) time.Duration {
	have := condition(s, appsv1.DeploymentProgressing)
	if !hasDeadline(d) {
		removeCondition(s, appsv1.DeploymentProgressing)
		return 0
	}
	name := fmt.Sprintf("Deployment %q", d.Name)
	if current != nil {
		name = fmt.Sprintf("ReplicaSet %q", current.Name)
	}
	done := have != nil && have.Reason == reasonComplete && s.Replicas == s.UpdatedReplicas
	if done {
		return 0
	}
	deadline := time.Duration(*d.Spec.ProgressDeadlineSeconds) * time.Second
	switch {
	case complete(d, s):
		setCondition(s, progressing(corev1.ConditionTrue, reasonComplete, name+" has successfully progressed."), now)
		return 0
	case moved(&d.Status, s):
		putCondition(s, progressing(corev1.ConditionTrue, reasonUpdated, name+" is progressing."), now)
		return deadline
	case have == nil || have.Reason == reasonComplete || have.Reason == reasonTimedOut:
		// Nothing is being waited for, or it is known to be late.
		return 0
	}
	left := have.LastUpdateTime.Add(deadline).Sub(now)
	if left <= 0 {
		setCondition(s, progressing(corev1.ConditionFalse, reasonTimedOut, name+" has timed out progressing."), now)
		return 0
	}
	return left
}

// noteAvailability sets Available from the number of available pods.
func noteAvailability(d *appsv1.Deployment, s *appsv1.DeploymentStatus, now time.Time) {
	_, unavailable := bounds(d)
	c := appsv1.DeploymentCondition{
		Type: appsv1.DeploymentAvailable, Status: corev1.ConditionFalse,
		Reason: reasonUnavailable, Message: "Deployment does not have minimum availability.",
	}
	if s.AvailableReplicas >= *d.Spec.Replicas-unavailable {
		c.Status, c.Reason, c.Message = corev1.ConditionTrue, reasonAvailable, "Deployment has minimum availability."
	}
	setCondition(s, c, now)
}

// noteFailure copies ReplicaFailure from the current set, or from the first
// old one that has it.
func noteFailure(s *appsv1.DeploymentStatus, current *appsv1.ReplicaSet, old []*appsv1.ReplicaSet, now time.Time) {
	sets := old
	if current != nil {
		sets = append([]*appsv1.ReplicaSet{current}, old...)
	}
	for _, rs := range sets {
		for _, c := range rs.Status.Conditions {
			if c.Type == appsv1.ReplicaSetReplicaFailure {
				setCondition(s, appsv1.DeploymentCondition{
					Type: appsv1.DeploymentReplicaFailure, Status: c.Status, Reason: c.Reason, Message: c.Message,
				}, now)
				return
			}
		}
	}
	removeCondition(s, appsv1.DeploymentReplicaFailure)
}
