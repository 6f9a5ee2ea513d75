package hpa

import (
	"errors"
	"fmt"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// reading is what the metrics APIs said of one metric: samples of pods for
// those that are about pods, else one value, or several of an external metric.
type reading struct {
	samples map[string]sample
	values  []int64 // in thousandths
}

// proposal is what one metric asks for.
type proposal struct {
	replicas int32
	name     string // of the metric, for people to read
	status   autoscalingv2.MetricStatus
	// err is why it asks for nothing. The condition then has reason and cause.
	err    error
	reason string
	cause  error
}

func failed(reason, what string, cause error) proposal {
	return proposal{reason: reason, cause: cause, err: fmt.Errorf("%s: %w", what, cause)}
}

// propose says how many replicas a metric asks for, given what was read of it,
// or the error that reading it met.
func (s *situation) propose(spec *autoscalingv2.MetricSpec, r reading, err error) proposal {
	switch spec.Type {
	case autoscalingv2.ResourceMetricSourceType:
		m := spec.Resource
		n, current, name, err := s.resource(m.Name, "", &m.Target, r, err)
		if err != nil {
			return failed("FailedGetResourceMetric", fmt.Sprintf("failed to get %s resource metric value", m.Name), err)
		}
		return proposal{replicas: n, name: name, status: autoscalingv2.MetricStatus{Type: spec.Type, Resource: &autoscalingv2.ResourceMetricStatus{Name: m.Name, Current: current}}}
	case autoscalingv2.ContainerResourceMetricSourceType:
		m := spec.ContainerResource
		n, current, name, err := s.resource(m.Name, m.Container, &m.Target, r, err)
		if err != nil {
			return failed("FailedGetContainerResourceMetric", fmt.Sprintf("failed to get %s container metric value", m.Container), err)
		}
		return proposal{replicas: n, name: name, status: autoscalingv2.MetricStatus{Type: spec.Type,
			ContainerResource: &autoscalingv2.ContainerResourceMetricStatus{Name: m.Name, Container: m.Container, Current: current}}}
	case autoscalingv2.PodsMetricSourceType:
		m := spec.Pods
		n, current, err := s.ofPods(m, r, err)
		if err != nil {
			return failed("FailedGetPodsMetric", "failed to get pods metric value", err)
		}
		return proposal{replicas: n, name: "pods metric " + m.Metric.Name, status: autoscalingv2.MetricStatus{Type: spec.Type,
			Pods: &autoscalingv2.PodsMetricStatus{Metric: m.Metric, Current: current}}}
	case autoscalingv2.ObjectMetricSourceType:
		m := spec.Object
		n, current, err := s.ofObject(m, r, err)
		if err != nil {
			return failed("FailedGetObjectMetric", "failed to get object metric value", err)
		}
		return proposal{replicas: n, name: m.DescribedObject.Kind + " metric " + m.Metric.Name, status: autoscalingv2.MetricStatus{Type: spec.Type,
			Object: &autoscalingv2.ObjectMetricStatus{DescribedObject: m.DescribedObject, Metric: m.Metric, Current: current}}}
	case autoscalingv2.ExternalMetricSourceType:
		m := spec.External
		n, current, err := s.external(m, r, err)
		if err != nil {
			return failed("FailedGetExternalMetric", fmt.Sprintf("failed to get %s external metric value", m.Metric.Name), err)
		}
		return proposal{replicas: n, name: fmt.Sprintf("external metric %s(%+v)", m.Metric.Name, m.Metric.Selector), status: autoscalingv2.MetricStatus{Type: spec.Type,
			External: &autoscalingv2.ExternalMetricStatus{Metric: m.Metric, Current: current}}}
	}
	cause := fmt.Errorf("unknown metric source type %q", string(spec.Type))
	return proposal{reason: "InvalidMetricSourceType", cause: cause, err: cause}
}

// resource is for what pods, or one container of each, use of a resource.
func (s *situation) resource(name corev1.ResourceName, container string, target *autoscalingv2.MetricTarget, r reading, err error) (int32, autoscalingv2.MetricValueStatus, string, error) {
	what := "usage"
	var status autoscalingv2.MetricValueStatus
	if target.AverageValue == nil {
		what = "utilization"
		if target.AverageUtilization == nil {
			return 0, status, "", errors.New("invalid resource metric source: neither an average utilization target nor an average value (usage) target was set")
		}
	}
	if err != nil {
		return 0, status, "", fmt.Errorf("failed to get %s %s: unable to get metrics for resource %s: %w", name, what, name, err)
	}
	var n int32
	if target.AverageValue != nil {
		n, status, err = s.plain(name, target.AverageValue, r.samples)
		status.AverageValue = quantity(name, status.AverageValue)
	} else {
		n, status, err = s.utilized(name, container, *target.AverageUtilization, r.samples)
	}
	if err != nil {
		return 0, status, "", fmt.Errorf("failed to get %s %s: %w", name, what, err)
	}
	switch {
	case target.AverageValue != nil:
		return n, status, fmt.Sprintf("%s resource", name), nil
	case container != "":
		return n, status, fmt.Sprintf("%s container resource utilization (percentage of request)", name), nil
	}
	return n, status, fmt.Sprintf("%s resource utilization (percentage of request)", name), nil
}

// quantity writes memory as people write it.
func quantity(name corev1.ResourceName, q *resource.Quantity) *resource.Quantity {
	if q != nil && name == corev1.ResourceMemory {
		return resource.NewMilliQuantity(q.MilliValue(), resource.BinarySI)
	}
	return q
}

func milli(v int64) *resource.Quantity { return resource.NewMilliQuantity(v, resource.DecimalSI) }

// utilized is for usage in percent of what pods request.
func (s *situation) utilized(name corev1.ResourceName, container string, target int32, samples map[string]sample) (n int32, status autoscalingv2.MetricValueStatus, err error) {
	if len(s.pods) == 0 {
		return 0, status, errNoPods
	}
	// Asked for once: what is missing matters only when there are metrics.
	var requests map[string]int64
	g := gauge{resource: name, samples: samples, full: func(pod string) int64 { return requests[pod] * int64(max(100, target)) / 100 }}
	g.ratio = func(now map[string]sample) (float64, error) {
		if requests == nil {
			if requests, err = requestsOf(s.pods, container, name); err != nil {
				return 0, err
			}
		}
		percent, average, err := utilization(now, requests)
		if err != nil {
			return 0, err
		}
		if status.AverageUtilization == nil { // the first look is at what is, the second at what is assumed
			status.AverageUtilization, status.AverageValue = &percent, quantity(name, milli(average))
		}
		return float64(percent) / float64(target), nil
	}
	n, err = s.fit(g)
	return n, status, err
}

// plain is for an average that pods are to have.
func (s *situation) plain(name corev1.ResourceName, target *resource.Quantity, samples map[string]sample) (n int32, status autoscalingv2.MetricValueStatus, err error) {
	wanted := target.MilliValue()
	n, err = s.fit(gauge{resource: name, samples: samples, full: func(string) int64 { return wanted }, ratio: func(now map[string]sample) (float64, error) {
		average := averageOf(now)
		if status.AverageValue == nil {
			status.AverageValue = milli(average)
		}
		return float64(average) / float64(wanted), nil
	}})
	return n, status, err
}

func (s *situation) ofPods(m *autoscalingv2.PodsMetricSource, r reading, err error) (int32, autoscalingv2.MetricValueStatus, error) {
	if err != nil {
		return 0, autoscalingv2.MetricValueStatus{}, fmt.Errorf("unable to get metric %s: %w", m.Metric.Name, err)
	}
	if m.Target.AverageValue == nil {
		return 0, autoscalingv2.MetricValueStatus{}, errors.New("invalid pods metric source: no average value target was set")
	}
	return s.plain("", m.Target.AverageValue, r.samples)
}

func (s *situation) ofObject(m *autoscalingv2.ObjectMetricSource, r reading, err error) (int32, autoscalingv2.MetricValueStatus, error) {
	if err != nil {
		return 0, autoscalingv2.MetricValueStatus{}, fmt.Errorf("unable to get metric %s on %s %s: %w", m.Metric.Name, m.DescribedObject.Kind, m.DescribedObject.Name, err)
	}
	switch {
	case m.Target.Type == autoscalingv2.ValueMetricType && m.Target.Value != nil:
		return s.total(r, m.Target.Value)
	case m.Target.Type == autoscalingv2.AverageValueMetricType && m.Target.AverageValue != nil:
		return s.average(r, m.Target.AverageValue)
	}
	return 0, autoscalingv2.MetricValueStatus{}, errors.New("invalid object metric source: neither a value target nor an average value target was set")
}

func (s *situation) external(m *autoscalingv2.ExternalMetricSource, r reading, err error) (int32, autoscalingv2.MetricValueStatus, error) {
	if err != nil {
		return 0, autoscalingv2.MetricValueStatus{}, fmt.Errorf("failed to get external metric %s: unable to get external metric %s/%s: %w",
			m.Metric.Name, m.Metric.Name, metav1.FormatLabelSelector(m.Metric.Selector), err)
	}
	switch {
	case m.Target.AverageValue != nil:
		return s.average(r, m.Target.AverageValue)
	case m.Target.Value != nil:
		return s.total(r, m.Target.Value)
	}
	return 0, autoscalingv2.MetricValueStatus{}, errors.New("invalid external metric source: neither a value target nor an average value target was set")
}

// total is for a value that the whole is to have.
func (s *situation) total(r reading, target *resource.Quantity) (int32, autoscalingv2.MetricValueStatus, error) {
	usage := sum(r.values)
	n, err := s.whole(usage, target.MilliValue())
	return n, autoscalingv2.MetricValueStatus{Value: milli(usage)}, err
}

// average is for a value that each replica is to have a share of.
func (s *situation) average(r reading, target *resource.Quantity) (int32, autoscalingv2.MetricValueStatus, error) {
	n, share := s.shared(sum(r.values), target.MilliValue())
	return n, autoscalingv2.MetricValueStatus{AverageValue: milli(share)}, nil
}
