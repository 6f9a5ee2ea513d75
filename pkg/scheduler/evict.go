package scheduler

import (
	"context"
	"encoding/json"
	"fmt"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/reconcile"
	"coracle/pkg/scheduler/plugin"
)

// evictWorkers bounds the calls for the victims of one pod.
const evictWorkers = 16

// carryOut makes the room that a plan is about. Whatever fails is tried again
// with the pod's next attempt.
func (s *Scheduler) carryOut(ctx context.Context, e *entry, p plan) error {
	for _, q := range p.outdone {
		patch := map[string]any{"metadata": map[string]any{"uid": q.UID}, "status": map[string]any{"nominatedNodeName": nil}}
		if err := s.patchStatus(ctx, q, patch); err != nil {
			return fmt.Errorf("take the nomination of %s back: %w", q.Key(), err)
		}
	}
	var g errgroup.Group
	g.SetLimit(evictWorkers)
	for _, q := range p.victims {
		g.Go(func() error { return s.evict(ctx, e.Pod, q, p.node) })
	}
	return g.Wait()
}

// evict takes a pod off its node for the sake of another: users read why in its
// condition before it ends, with its grace.
func (s *Scheduler) evict(ctx context.Context, by, victim *plugin.Pod, node string) error {
	if victim.Group.Terminating {
		return nil
	}
	err := s.patchStatus(ctx, victim, map[string]any{
		"metadata": map[string]any{"uid": victim.UID},
		"status": map[string]any{"conditions": []corev1.PodCondition{{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: corev1.PodReasonPreemptionByScheduler,
			Message:            by.Shape.Scheduler + ": preempting to accommodate a higher priority pod",
			LastTransitionTime: metav1.Time{Time: s.cfg.Clock.Now()},
		}}},
	})
	if err != nil {
		return fmt.Errorf("mark %s as preempted: %w", victim.Key(), err)
	}
	call, cancel := context.WithTimeout(ctx, bindTimeout)
	defer cancel()
	err = s.cfg.Client.CoreV1().Pods(victim.Namespace()).Delete(call, victim.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &victim.UID}})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // it is gone
	}
	if err != nil {
		return fmt.Errorf("delete %s to make room: %w", victim.Key(), err)
	}
	deed := reconcile.Deed{Type: corev1.EventTypeNormal, Reason: "Preempted", Action: "Preempting", Related: reference(by)}
	s.events[by.Shape.Scheduler].Record(reference(victim), deed, "Preempted by pod %s on node %s", by.UID, node)
	return nil
}

// patchStatus writes a part of a pod's status. A pod that is gone is no error.
func (s *Scheduler) patchStatus(ctx context.Context, p *plugin.Pod, patch map[string]any) error {
	body, err := json.Marshal(patch)
	if err != nil {
		return fmt.Errorf("encode the status: %w", err)
	}
	call, cancel := context.WithTimeout(ctx, bindTimeout)
	defer cancel()
	_, err = s.cfg.Client.CoreV1().Pods(p.Namespace()).Patch(call, p.Name, types.StrategicMergePatchType, body, metav1.PatchOptions{}, "status")
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}
