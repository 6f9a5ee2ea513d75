package scheduler

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/reconcile"
)

// maxNote is the longest message that an Event takes.
const maxNote = 1024

// report tells the user why a pod waits: an Event each time, and the
// PodScheduled condition and the nomination when they say something new.
func (s *Scheduler) report(ctx context.Context, e *entry, message string, pl plan) {
	s.reportAs(ctx, e, corev1.PodReasonUnschedulable, message, pl)
}

// reportAs is report with the condition's reason.
func (s *Scheduler) reportAs(ctx context.Context, e *entry, reason, message string, pl plan) {
	p := e.Pod
	note := message
	if len(note) > maxNote {
		note = note[:maxNote-len(" ...")] + " ..."
	}
	deed := reconcile.Deed{Type: corev1.EventTypeWarning, Reason: "FailedScheduling", Action: "Scheduling"}
	s.events[p.Shape.Scheduler].Record(reference(p), deed, "%s", note)
	status := map[string]any{}
	pod, err := s.pods.Pods(p.Namespace()).Get(p.Name)
	if err != nil || pod.UID != p.UID {
		return // it is gone
	}
	if !says(pod, reason, message) {
		status["conditions"] = []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: reason, Message: message,
			LastTransitionTime: s.since(pod),
		}}
	}
	if pl.nominate && pod.Status.NominatedNodeName != pl.node {
		status["nominatedNodeName"] = pl.node
		if pl.node == "" {
			status["nominatedNodeName"] = nil
		}
	}
	if len(status) == 0 {
		return
	}
	err = s.patchStatus(ctx, p, map[string]any{"metadata": map[string]any{"uid": p.UID}, "status": status})
	if err != nil && ctx.Err() == nil {
		s.cfg.Log.Warn("a pod's condition could not be written", "pod", p.Key(), "error", err)
	}
}

// since is when the condition became false: a new message is no transition.
func (s *Scheduler) since(pod *corev1.Pod) metav1.Time {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return c.LastTransitionTime
		}
	}
	return metav1.Time{Time: s.cfg.Clock.Now()}
}

func says(pod *corev1.Pod, reason, message string) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled {
			return c.Status == corev1.ConditionFalse && c.Reason == reason && c.Message == message
		}
	}
	return false
}
