package hpa

import (
	"encoding/json"
	"testing"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
)

// FuzzAnswers takes any answer of a metrics API for one about the pods: it is
// refused, or gives a number of replicas.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte(`{"items":[{"metadata":{"name":"a"},"timestamp":"2026-01-01T02:00:00Z","window":"30s","containers":[{"name":"main","usage":{"cpu":"1"}}]}]}`))
	f.Add([]byte(`{"items":[{"describedObject":{"name":"a"},"value":"9223372036854775807","windowSeconds":60},{"describedObject":{"name":"b"},"value":"-3","window":60}]}`))
	target := int32(50)
	byCPU := autoscalingv2.MetricSpec{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
		Name: corev1.ResourceCPU, Target: autoscalingv2.MetricTarget{AverageUtilization: &target}}}
	byPods := autoscalingv2.MetricSpec{Type: autoscalingv2.PodsMetricSourceType, Pods: &autoscalingv2.PodsMetricSource{
		Target: autoscalingv2.MetricTarget{AverageValue: quantityOf("10")}}}
	f.Fuzz(func(t *testing.T, data []byte) {
		s := &situation{spec: 2, status: 2, pods: []*corev1.Pod{pod("a"), pod("b")}, tolerances: tolerances{tolerance, tolerance}, now: now}
		var resources podMetrics
		if json.Unmarshal(data, &resources) == nil {
			if p := s.propose(&byCPU, reading{samples: resources.samples(corev1.ResourceCPU, "")}, nil); p.err == nil && p.replicas < 0 {
				t.Errorf("%d replicas by %s", p.replicas, data)
			}
		}
		var custom customMetrics
		if json.Unmarshal(data, &custom) == nil {
			if p := s.propose(&byPods, reading{samples: custom.samples()}, nil); p.err == nil && p.replicas < 0 {
				t.Errorf("%d replicas by %s", p.replicas, data)
			}
		}
	})
}
