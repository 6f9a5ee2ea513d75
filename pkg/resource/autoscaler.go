package resource

import (
	"fmt"
	"strings"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
)

func horizontalPodAutoscalers() *Resource {
	return define(Resource{
		Group: "autoscaling", Version: "v2", Kind: "HorizontalPodAutoscaler", Plural: "horizontalpodautoscalers", ShortNames: []string{"hpa"},
		Categories:          []string{"all"},
		Namespaced:          true,
		HasStatus:           true,
		UnconditionalUpdate: true,
		New:                 func() runtime.Object { return &autoscalingv2.HorizontalPodAutoscaler{} },
		NewList:             func() runtime.Object { return &autoscalingv2.HorizontalPodAutoscalerList{} },
		Views: []View{{
			Group: "autoscaling", Version: "v1", Kind: "HorizontalPodAutoscaler",
			New:     func() runtime.Object { return &autoscalingv1.HorizontalPodAutoscaler{} },
			NewList: func() runtime.Object { return &autoscalingv1.HorizontalPodAutoscalerList{} },
			To:      autoscalerToView,
			From:    autoscalerFromView,
		}},
		Columns: columns("Name", "Reference", "Targets", "MinPods", "MaxPods:integer", "Replicas:integer", "Age"),
	}, hooks[*autoscalingv2.HorizontalPodAutoscaler]{
		Default:        defaultAutoscaler,
		Validate:       validateAutoscaler,
		ValidateStatus: validateAutoscalerStatus,
		Row:            autoscalerRow,
	})
}

// defaultUtilization is what an autoscaler that names no metric aims at.
const defaultUtilization = 80

func defaultAutoscaler(h *autoscalingv2.HorizontalPodAutoscaler) {
	defaultCount(&h.Spec.MinReplicas, 1)
	if len(h.Spec.Metrics) == 0 {
		h.Spec.Metrics = []autoscalingv2.MetricSpec{utilization(defaultUtilization)}
	}
	if b := h.Spec.Behavior; b != nil {
		b.ScaleUp = completeRules(b.ScaleUp, 0, []autoscalingv2.HPAScalingPolicy{
			{Type: autoscalingv2.PodsScalingPolicy, Value: 4, PeriodSeconds: 15},
			{Type: autoscalingv2.PercentScalingPolicy, Value: 100, PeriodSeconds: 15},
		})
		b.ScaleDown = completeRules(b.ScaleDown, -1, []autoscalingv2.HPAScalingPolicy{
			{Type: autoscalingv2.PercentScalingPolicy, Value: 100, PeriodSeconds: 15},
		})
	}
}

func utilization(percent int32) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
		Name:   corev1.ResourceCPU,
		Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &percent},
	}}
}

// completeRules fills scaling rules; a window below 0 is left to the
// controller, which has a setting for it.
func completeRules(r *autoscalingv2.HPAScalingRules, window int32, policies []autoscalingv2.HPAScalingPolicy) *autoscalingv2.HPAScalingRules {
	if r == nil {
		r = &autoscalingv2.HPAScalingRules{}
	}
	if r.SelectPolicy == nil {
		r.SelectPolicy = new(autoscalingv2.MaxChangePolicySelect)
	}
	if r.StabilizationWindowSeconds == nil && window >= 0 {
		r.StabilizationWindowSeconds = &window
	}
	if len(r.Policies) == 0 {
		r.Policies = policies
	}
	return r
}

func autoscalerRow(h *autoscalingv2.HorizontalPodAutoscaler, now time.Time) []any {
	low := "<unset>"
	if h.Spec.MinReplicas != nil {
		low = fmt.Sprint(*h.Spec.MinReplicas)
	}
	return []any{
		h.Name, h.Spec.ScaleTargetRef.Kind + "/" + h.Spec.ScaleTargetRef.Name, metricsText(h.Spec.Metrics, h.Status.CurrentMetrics),
		low, int64(h.Spec.MaxReplicas), int64(h.Status.CurrentReplicas), age(h.CreationTimestamp, now),
	}
}

// shownMetrics is how many metrics a table's cell shows.
const shownMetrics = 2

func metricsText(specs []autoscalingv2.MetricSpec, statuses []autoscalingv2.MetricStatus) string {
	if len(specs) == 0 {
		return "<none>"
	}
	var list []string
	for i := range specs[:min(len(specs), shownMetrics)] {
		var status autoscalingv2.MetricStatus
		if i < len(statuses) {
			status = statuses[i]
		}
		list = append(list, metricText(&specs[i], &status))
	}
	text := strings.Join(list, ", ")
	if more := len(specs) - len(list); more > 0 {
		text += fmt.Sprintf(" + %d more...", more)
	}
	return text
}

func metricText(spec *autoscalingv2.MetricSpec, status *autoscalingv2.MetricStatus) string {
	switch {
	case spec.Resource != nil:
		var now *autoscalingv2.MetricValueStatus
		if status.Resource != nil {
			now = &status.Resource.Current
		}
		return string(spec.Resource.Name) + ": " + targetText(&spec.Resource.Target, now, "")
	case spec.ContainerResource != nil:
		var now *autoscalingv2.MetricValueStatus
		if status.ContainerResource != nil {
			now = &status.ContainerResource.Current
		}
		return string(spec.ContainerResource.Name) + ": " + targetText(&spec.ContainerResource.Target, now, "")
	case spec.Pods != nil:
		var now *autoscalingv2.MetricValueStatus
		if status.Pods != nil {
			now = &status.Pods.Current
		}
		return targetText(&spec.Pods.Target, now, "")
	case spec.Object != nil:
		var now *autoscalingv2.MetricValueStatus
		if status.Object != nil {
			now = &status.Object.Current
		}
		return targetText(&spec.Object.Target, now, " (avg)")
	case spec.External != nil:
		var now *autoscalingv2.MetricValueStatus
		if status.External != nil {
			now = &status.External.Current
		}
		return targetText(&spec.External.Target, now, " (avg)")
	}
	return "<unknown type>"
}

// targetText shows current and wanted value in the terms of the target.
func targetText(t *autoscalingv2.MetricTarget, now *autoscalingv2.MetricValueStatus, averaged string) string {
	quantity := func(q *resource.Quantity) string {
		if q == nil {
			return "<unknown>"
		}
		return q.String()
	}
	percent := func(p *int32) string {
		if p == nil {
			return "<unknown>"
		}
		return fmt.Sprintf("%d%%", *p)
	}
	if now == nil {
		now = &autoscalingv2.MetricValueStatus{}
	}
	switch {
	case t.AverageValue != nil:
		return quantity(now.AverageValue) + "/" + quantity(t.AverageValue) + averaged
	case t.Value != nil:
		return quantity(now.Value) + "/" + quantity(t.Value)
	}
	current := percent(now.AverageUtilization)
	if t.AverageUtilization == nil {
		return current + "/<auto>"
	}
	return current + "/" + percent(t.AverageUtilization)
}
