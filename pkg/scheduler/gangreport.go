package scheduler

import (
	"context"
	"encoding/json"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/scheduler/queue"
)

// reportWorkers bounds the members of a group that are told at once why it
// waits.
const reportWorkers = 16

// startGang does what was decided about a group, beside the next decisions: its
// members are bound like any pods, or told why none of them is.
func (s *Scheduler) startGang(ctx context.Context, out *gangOutcome) {
	if !out.placed {
		s.beside(ctx, s.slots, func() { s.gangRefused(ctx, out) })
		return
	}
	any := false
	for i := range out.members {
		m := &out.members[i]
		any = any || m.o.node != ""
		s.start(ctx, m.e, &m.o)
	}
	if any {
		s.beside(ctx, s.slots, func() {
			s.setScheduled(ctx, out.key, metav1.Condition{Status: metav1.ConditionTrue, Reason: "Scheduled"})
		})
	}
}

// gangRefused tells the members of a group why it waits, and gives them back.
func (s *Scheduler) gangRefused(ctx context.Context, out *gangOutcome) {
	reason, groupReason := corev1.PodReasonUnschedulable, schedulingv1beta1.PodGroupReasonUnschedulable
	if out.broken {
		reason, groupReason = corev1.PodReasonSchedulerError, schedulingv1beta1.PodGroupReasonSchedulerError
	}
	var told errgroup.Group
	told.SetLimit(reportWorkers)
	for i := range out.members {
		m := &out.members[i]
		told.Go(func() error {
			result := resultUnschedulable
			if out.broken {
				result = resultError
			}
			s.meters.count(m.e, result, m.o.began, s.cfg.Clock.Now())
			message := m.o.why.message()
			s.note(m.e, &m.o, message)
			s.reportAs(ctx, m.e, reason, message, m.o.plan)
			return nil
		})
	}
	told.Go(func() error {
		s.setScheduled(ctx, out.key, metav1.Condition{Status: metav1.ConditionFalse, Reason: groupReason, Message: out.message})
		return nil
	})
	_ = told.Wait() // none of them fails
	s.cluster.gangFailed(out, s.cfg.Clock.Now())
}

// setScheduled writes whether a group has been scheduled. Once it has, it has
// been for ever.
func (s *Scheduler) setScheduled(ctx context.Context, key gangKey, c metav1.Condition) {
	group, err := s.groups.PodGroups(key.namespace).Get(key.name)
	if err != nil {
		return // it is gone
	}
	c.Type, c.ObservedGeneration = schedulingv1beta1.PodGroupInitiallyScheduled, group.Generation
	c.LastTransitionTime = metav1.Time{Time: s.cfg.Clock.Now()}
	had := apimeta.FindStatusCondition(group.Status.Conditions, c.Type)
	if had != nil && had.Status == c.Status {
		c.LastTransitionTime = had.LastTransitionTime
	}
	if had != nil && (*had == c || had.Status == metav1.ConditionTrue && c.Status != metav1.ConditionTrue) {
		return
	}
	body, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": group.UID}, "status": map[string]any{"conditions": []metav1.Condition{c}},
	})
	if err != nil {
		s.cfg.Log.Error("a pod group's condition could not be encoded", "namespace", key.namespace, "podgroup", key.name, "error", err)
		return
	}
	call, cancel := context.WithTimeout(ctx, bindTimeout)
	defer cancel()
	_, err = s.cfg.Client.SchedulingV1beta1().PodGroups(key.namespace).Patch(call, key.name, types.StrategicMergePatchType, body, metav1.PatchOptions{}, "status")
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) && ctx.Err() == nil {
		s.cfg.Log.Warn("a pod group's condition could not be written", "namespace", key.namespace, "podgroup", key.name, "error", err)
	}
}

// gangFailed gives the members of a refused group back, with those that came
// meanwhile.
func (c *cluster) gangFailed(out *gangOutcome, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := out.gang
	for i := range out.members {
		c.queue.Fail(out.members[i].e, queue.Refusal{Plugins: out.filters, Error: out.broken}, now)
	}
	again := g.again
	g.tried, g.again = nil, false
	c.tellGates(g, now)
	if again {
		c.wakeGang(g, now)
	}
	c.gangs.tidy(g)
	c.signal()
}

// regroup tries a group again when one of its members could not be bound and
// the others are too few now. c.mu is held.
func (c *cluster) regroup(uid types.UID, now time.Time) {
	if g := c.gangs.of[uid]; g != nil && g.group != nil && !g.satisfied() {
		c.wakeGang(g, now)
	}
}
