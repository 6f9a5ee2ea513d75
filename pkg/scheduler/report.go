package scheduler

import (
	"context"
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// report tells the user why a pod waits: an Event each time, and the
// PodScheduled condition when it says something new.
func (s *Scheduler) report(ctx context.Context, e *entry, message string) {
	p := e.pod
	s.events.Eventf(reference(p), corev1.EventTypeWarning, "FailedScheduling", "%s", message)
	if pod, err := s.pods.Pods(p.Namespace()).Get(p.Name); err == nil && pod.UID == p.UID && says(pod, message) {
		return
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": p.UID},
		"status": map[string]any{"conditions": []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: message,
			LastTransitionTime: metav1.Time{Time: s.cfg.Clock.Now()},
		}}},
	})
	if err != nil {
		s.cfg.Log.Error("encode a pod's condition", "error", err)
		return
	}
	call, cancel := context.WithTimeout(ctx, bindTimeout)
	defer cancel()
	_, err = s.cfg.Client.CoreV1().Pods(p.Namespace()).Patch(call, p.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) && ctx.Err() == nil {
		s.cfg.Log.Warn("a pod's condition could not be written", "pod", p.Key(), "error", err)
	}
}

func says(pod *corev1.Pod, message string) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled {
			return c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable && c.Message == message
		}
	}
	return false
}
