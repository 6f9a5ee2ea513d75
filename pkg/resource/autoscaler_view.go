package resource

import (
	"encoding/json"
	"fmt"
	"maps"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// What autoscaling/v1 has no field for travels in these annotations, so that
// an object read and written at v1 loses nothing.
const (
	metricsAnnotation        = "autoscaling.alpha.kubernetes.io/metrics"
	currentMetricsAnnotation = "autoscaling.alpha.kubernetes.io/current-metrics"
	conditionsAnnotation     = "autoscaling.alpha.kubernetes.io/conditions"
	behaviorAnnotation       = "autoscaling.alpha.kubernetes.io/behavior"
)

// isCPU says whether a metric is the one that v1 has a field for.
func isCPU(m *autoscalingv2.ResourceMetricSource) bool {
	return m != nil && m.Name == corev1.ResourceCPU && m.Target.AverageUtilization != nil
}

func autoscalerToView(obj runtime.Object) (runtime.Object, error) {
	h, ok := obj.(*autoscalingv2.HorizontalPodAutoscaler)
	if !ok {
		return nil, fmt.Errorf("an autoscaling/v2 HorizontalPodAutoscaler is wanted to make one of v1, not %T", obj)
	}
	h = h.DeepCopy()
	out := &autoscalingv1.HorizontalPodAutoscaler{
		ObjectMeta: h.ObjectMeta,
		Spec: autoscalingv1.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv1.CrossVersionObjectReference(h.Spec.ScaleTargetRef),
			MinReplicas:    h.Spec.MinReplicas, MaxReplicas: h.Spec.MaxReplicas,
		},
		Status: autoscalingv1.HorizontalPodAutoscalerStatus{
			ObservedGeneration: h.Status.ObservedGeneration, LastScaleTime: h.Status.LastScaleTime,
			CurrentReplicas: h.Status.CurrentReplicas, DesiredReplicas: h.Status.DesiredReplicas,
		},
	}
	out.Annotations = maps.Clone(h.Annotations)
	var metrics []autoscalingv2.MetricSpec
	for _, m := range h.Spec.Metrics {
		if isCPU(m.Resource) && out.Spec.TargetCPUUtilizationPercentage == nil {
			out.Spec.TargetCPUUtilizationPercentage = m.Resource.Target.AverageUtilization
			continue
		}
		metrics = append(metrics, m)
	}
	var current []autoscalingv2.MetricStatus
	for _, m := range h.Status.CurrentMetrics {
		if r := m.Resource; r != nil && r.Name == corev1.ResourceCPU && r.Current.AverageUtilization != nil && out.Status.CurrentCPUUtilizationPercentage == nil {
			out.Status.CurrentCPUUtilizationPercentage = r.Current.AverageUtilization
		}
		current = append(current, m)
	}
	for _, a := range []struct {
		key   string
		value any
		empty bool
	}{
		{metricsAnnotation, metrics, len(metrics) == 0},
		{currentMetricsAnnotation, current, len(current) == 0},
		{conditionsAnnotation, h.Status.Conditions, len(h.Status.Conditions) == 0},
		{behaviorAnnotation, h.Spec.Behavior, h.Spec.Behavior == nil},
	} {
		if a.empty {
			continue
		}
		data, err := json.Marshal(a.value)
		if err != nil {
			return nil, fmt.Errorf("put %s into an annotation: %w", a.key, err)
		}
		if out.Annotations == nil {
			out.Annotations = map[string]string{}
		}
		out.Annotations[a.key] = string(data)
	}
	return out, nil
}

func autoscalerFromView(obj runtime.Object) (runtime.Object, error) {
	h, ok := obj.(*autoscalingv1.HorizontalPodAutoscaler)
	if !ok {
		return nil, fmt.Errorf("an autoscaling/v1 HorizontalPodAutoscaler is wanted to make one of v2, not %T", obj)
	}
	h = h.DeepCopy()
	out := &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: h.ObjectMeta,
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference(h.Spec.ScaleTargetRef),
			MinReplicas:    h.Spec.MinReplicas, MaxReplicas: h.Spec.MaxReplicas,
		},
		Status: autoscalingv2.HorizontalPodAutoscalerStatus{
			ObservedGeneration: h.Status.ObservedGeneration, LastScaleTime: h.Status.LastScaleTime,
			CurrentReplicas: h.Status.CurrentReplicas, DesiredReplicas: h.Status.DesiredReplicas,
		},
	}
	out.Annotations = maps.Clone(h.Annotations)
	for key, into := range map[string]any{
		metricsAnnotation: &out.Spec.Metrics, currentMetricsAnnotation: &out.Status.CurrentMetrics,
		conditionsAnnotation: &out.Status.Conditions, behaviorAnnotation: &out.Spec.Behavior,
	} {
		text, ok := out.Annotations[key]
		if !ok {
			continue
		}
		delete(out.Annotations, key)
		// An annotation that a person broke is dropped, as upstream does.
		_ = json.Unmarshal([]byte(text), into)
	}
	if len(out.Annotations) == 0 {
		out.Annotations = nil
	}
	if p := h.Spec.TargetCPUUtilizationPercentage; p != nil {
		out.Spec.Metrics = append([]autoscalingv2.MetricSpec{utilization(*p)}, out.Spec.Metrics...)
	}
	return out, nil
}
