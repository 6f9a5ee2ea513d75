package hpa

import (
	"fmt"
	"slices"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// tolerance is by which part usage may miss its target, where behavior does not
// say.
const tolerance = 0.1

// news is an Event to be told.
type news struct{ kind, reason, message string }

// work is one look at an autoscaler: its status as it comes to be, and what is
// to be told. It does no I/O.
type work struct {
	hpa    *autoscalingv2.HorizontalPodAutoscaler // a copy, of which status is changed
	now    time.Time
	events []news
}

func (w *work) warn(reason, message string) {
	w.events = append(w.events, news{corev1.EventTypeWarning, reason, message})
}

// set sets a condition. Its time is that of the last change of status.
func (w *work) set(kind autoscalingv2.HorizontalPodAutoscalerConditionType, status bool, reason, message string) {
	s := corev1.ConditionFalse
	if status {
		s = corev1.ConditionTrue
	}
	list := &w.hpa.Status.Conditions
	i := slices.IndexFunc(*list, func(c autoscalingv2.HorizontalPodAutoscalerCondition) bool { return c.Type == kind })
	if i < 0 {
		*list = append(*list, autoscalingv2.HorizontalPodAutoscalerCondition{Type: kind})
		i = len(*list) - 1
	}
	c := &(*list)[i]
	if c.Status != s {
		c.LastTransitionTime = metav1.Time{Time: w.now}
	}
	c.Status, c.Reason, c.Message = s, reason, message
}

// sees writes what was seen into the status.
func (w *work) sees(current, desired int32, metrics []autoscalingv2.MetricStatus) {
	generation := w.hpa.Generation
	w.hpa.Status.ObservedGeneration = &generation
	w.hpa.Status.CurrentReplicas, w.hpa.Status.DesiredReplicas, w.hpa.Status.CurrentMetrics = current, desired, metrics
}

// noScale notes that the target's size cannot be read.
func (w *work) noScale(err error) {
	w.warn("FailedGetScale", err.Error())
	w.set(autoscalingv2.AbleToScale, false, "FailedGetScale", "the HPA controller was unable to get the target's current scale: "+err.Error())
}

// noPods notes why the pods of the target are not known.
func (w *work) noPods(current int32, event, reason, said, message string) {
	w.warn(event, said)
	w.set(autoscalingv2.ScalingActive, false, reason, message)
	w.sees(current, w.hpa.Status.DesiredReplicas, make([]autoscalingv2.MetricStatus, len(w.hpa.Spec.Metrics)))
	w.warn("FailedComputeMetricsReplicas", said)
}

func minimum(h *autoscalingv2.HorizontalPodAutoscaler) int32 {
	if h.Spec.MinReplicas != nil {
		return *h.Spec.MinReplicas
	}
	return 1
}

func tolerancesOf(h *autoscalingv2.HorizontalPodAutoscaler) tolerances {
	t := tolerances{tolerance, tolerance}
	if b := h.Spec.Behavior; b != nil {
		if b.ScaleDown != nil && b.ScaleDown.Tolerance != nil {
			t.down = b.ScaleDown.Tolerance.AsApproximateFloat64()
		}
		if b.ScaleUp != nil && b.ScaleUp.Tolerance != nil {
			t.up = b.ScaleUp.Tolerance.AsApproximateFloat64()
		}
	}
	return t
}

// wokenByMetrics says whether a target without pods has a metric that speaks
// without pods.
func wokenByMetrics(h *autoscalingv2.HorizontalPodAutoscaler) bool {
	return slices.ContainsFunc(h.Spec.Metrics, func(m autoscalingv2.MetricSpec) bool {
		return m.Type == autoscalingv2.ObjectMetricSourceType || m.Type == autoscalingv2.ExternalMetricSourceType
	})
}

// putToSleep says whether it was this controller that scaled the target to
// zero: otherwise somebody turned scaling off.
func putToSleep(h *autoscalingv2.HorizontalPodAutoscaler) bool {
	return slices.ContainsFunc(h.Status.Conditions, func(c autoscalingv2.HorizontalPodAutoscalerCondition) bool {
		return c.Type == autoscalingv2.ScaledToZero && c.Status == corev1.ConditionTrue
	})
}

// plan is the size that the target is to have.
type plan struct {
	replicas int32
	why      string // of another size than the present one
}

// bounds decides what needs no metrics: a target that is switched off, or out of
// bounds. done is false where metrics are needed.
func (w *work) bounds(current int32) (p plan, done bool) {
	low := minimum(w.hpa)
	switch {
	case current == 0:
		if putToSleep(w.hpa) && (low != 0 || wokenByMetrics(w.hpa)) {
			return plan{}, false
		}
		w.set(autoscalingv2.ScalingActive, false, "ScalingDisabled", "scaling is disabled since the replica count of the target is zero")
		return plan{}, true
	case current > w.hpa.Spec.MaxReplicas:
		return plan{w.hpa.Spec.MaxReplicas, "Current number of replicas above Spec.MaxReplicas"}, true
	case current < low:
		return plan{low, "Current number of replicas below Spec.MinReplicas"}, true
	}
	return plan{}, false
}

// weigh decides by the metrics: the one that asks for most has its way, within
// what behavior and bounds allow. Metrics that failed hold fewer replicas back,
// but not more. It is false when nothing can be decided.
func (w *work) weigh(current int32, proposals []proposal, h *history) (p plan, ok bool) {
	best, failures := proposal{}, 0
	var first *proposal
	for i := range proposals {
		q := &proposals[i]
		switch {
		case q.err != nil:
			w.warn(q.reason, q.cause.Error())
			if failures++; first == nil {
				first = q
			}
		case best.name == "" || q.replicas > best.replicas:
			best = *q
		}
	}
	if failures >= len(proposals) || failures > 0 && best.replicas < current {
		said := ""
		if first != nil {
			w.set(autoscalingv2.ScalingActive, false, first.reason, fmt.Sprintf("the HPA was unable to compute the replica count: %v", first.cause))
			said = first.err.Error()
		}
		w.warn("FailedComputeMetricsReplicas", fmt.Sprintf("invalid metrics (%d invalid out of %d), first error is: %s", failures, len(proposals), said))
		w.sees(current, w.hpa.Status.DesiredReplicas, statuses(proposals))
		return plan{}, false
	}
	w.set(autoscalingv2.ScalingActive, true, "ValidMetricFound", "the HPA was able to successfully calculate a replica count from "+best.name)
	p = plan{replicas: best.replicas}
	switch {
	case best.replicas > current:
		p.why = best.name + " above target"
	case best.replicas < current:
		p.why = "All metrics below target"
	}
	low := minimum(w.hpa)
	l := limits{current: current, min: low, max: w.hpa.Spec.MaxReplicas, behavior: w.hpa.Spec.Behavior, now: w.now}
	stable := h.stabilize(best.replicas, l)
	w.set(autoscalingv2.AbleToScale, true, stable.reason, stable.message)
	limited := h.limit(stable.replicas, l)
	w.set(autoscalingv2.ScalingLimited, limited.changed, limited.reason, limited.message)
	p.replicas = limited.replicas
	if current == 0 && p.replicas < low {
		p.replicas = low // woken, it has what it needs at once
		if p.why == "" {
			p.why = "Current number of replicas below Spec.MinReplicas"
		}
	}
	return p, true
}

func statuses(proposals []proposal) []autoscalingv2.MetricStatus {
	var out []autoscalingv2.MetricStatus
	for i := range proposals {
		out = append(out, proposals[i].status)
	}
	return out
}

// rescaled notes that the target was given another size.
func (w *work) rescaled(current int32, p plan) {
	w.set(autoscalingv2.AbleToScale, true, "SucceededRescale", fmt.Sprintf("the HPA controller was able to update the target scale to %d", p.replicas))
	w.events = append(w.events, news{corev1.EventTypeNormal, "SuccessfulRescale", fmt.Sprintf("New size: %d; reason: %s", p.replicas, p.why)})
	if p.replicas == 0 && minimum(w.hpa) == 0 && wokenByMetrics(w.hpa) {
		w.set(autoscalingv2.ScaledToZero, true, "ScaledToZero", "the HPA controller scaled the workload to zero")
	} else {
		w.set(autoscalingv2.ScaledToZero, false, "NotScaledToZero", "the HPA controller did not scale the workload to zero")
	}
	w.hpa.Status.LastScaleTime = &metav1.Time{Time: w.now}
}

// notRescaled notes that the target could not be given another size.
func (w *work) notRescaled(p plan, err error) {
	w.warn("FailedRescale", fmt.Sprintf("New size: %d; reason: %s; error: %v", p.replicas, p.why, err))
	w.set(autoscalingv2.AbleToScale, false, "FailedUpdateScale", fmt.Sprintf("the HPA controller was unable to update the target scale: %v", err))
}
