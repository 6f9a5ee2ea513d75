package resource

import (
	"fmt"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	maxStabilization = 3600
	maxPolicyPeriod  = 1800
)

func validateAutoscaler(h *autoscalingv2.HorizontalPodAutoscaler) field.ErrorList {
	path, spec := field.NewPath("spec"), &h.Spec
	var errs field.ErrorList
	if spec.MinReplicas != nil && *spec.MinReplicas < 1 {
		errs = append(errs, field.Invalid(path.Child("minReplicas"), *spec.MinReplicas, "must be greater than or equal to 1"))
	}
	if spec.MaxReplicas < 1 {
		errs = append(errs, field.Invalid(path.Child("maxReplicas"), spec.MaxReplicas, "must be greater than 0"))
	}
	if spec.MinReplicas != nil && spec.MaxReplicas < *spec.MinReplicas {
		errs = append(errs, field.Invalid(path.Child("maxReplicas"), spec.MaxReplicas, "must be greater than or equal to `minReplicas`"))
	}
	p := path.Child("scaleTargetRef")
	errs = append(errs, required(p.Child("kind"), spec.ScaleTargetRef.Kind)...)
	errs = append(errs, required(p.Child("name"), spec.ScaleTargetRef.Name)...)
	for i := range spec.Metrics {
		errs = append(errs, checkMetric(path.Child("metrics").Index(i), &spec.Metrics[i])...)
	}
	if b := spec.Behavior; b != nil {
		errs = append(errs, checkScalingRules(path.Child("behavior", "scaleUp"), b.ScaleUp)...)
		errs = append(errs, checkScalingRules(path.Child("behavior", "scaleDown"), b.ScaleDown)...)
	}
	return errs
}

// checkMetric wants the one source that the type names.
func checkMetric(path *field.Path, m *autoscalingv2.MetricSpec) field.ErrorList {
	errs := checkSet(path.Child("type"), m.Type, autoscalingv2.ContainerResourceMetricSourceType, autoscalingv2.ExternalMetricSourceType,
		autoscalingv2.ObjectMetricSourceType, autoscalingv2.PodsMetricSourceType, autoscalingv2.ResourceMetricSourceType)
	fields := map[autoscalingv2.MetricSourceType]string{
		autoscalingv2.ContainerResourceMetricSourceType: "containerResource", autoscalingv2.ExternalMetricSourceType: "external",
		autoscalingv2.ObjectMetricSourceType: "object", autoscalingv2.PodsMetricSourceType: "pods",
		autoscalingv2.ResourceMetricSourceType: "resource",
	}
	set := setFields(m)
	want, known := fields[m.Type]
	found := false
	for _, name := range set {
		if name == want {
			found = true
		} else {
			errs = append(errs, field.Forbidden(path.Child(name), "must populate the given metric source only"))
		}
	}
	if known && !found {
		return append(errs, field.Required(path.Child(want), "must populate information for the given metric source"))
	}
	switch {
	case m.Resource != nil:
		errs = append(errs, required(path.Child("resource", "name"), string(m.Resource.Name))...)
		errs = append(errs, checkTarget(path.Child("resource", "target"), &m.Resource.Target)...)
	case m.ContainerResource != nil:
		errs = append(errs, required(path.Child("containerResource", "name"), string(m.ContainerResource.Name))...)
		errs = append(errs, required(path.Child("containerResource", "container"), m.ContainerResource.Container)...)
		errs = append(errs, checkTarget(path.Child("containerResource", "target"), &m.ContainerResource.Target)...)
	case m.Pods != nil:
		errs = append(errs, required(path.Child("pods", "metric", "name"), m.Pods.Metric.Name)...)
		errs = append(errs, checkTarget(path.Child("pods", "target"), &m.Pods.Target)...)
	case m.Object != nil:
		errs = append(errs, required(path.Child("object", "metric", "name"), m.Object.Metric.Name)...)
		errs = append(errs, required(path.Child("object", "describedObject", "kind"), m.Object.DescribedObject.Kind)...)
		errs = append(errs, required(path.Child("object", "describedObject", "name"), m.Object.DescribedObject.Name)...)
		errs = append(errs, checkTarget(path.Child("object", "target"), &m.Object.Target)...)
	case m.External != nil:
		errs = append(errs, required(path.Child("external", "metric", "name"), m.External.Metric.Name)...)
		errs = append(errs, checkTarget(path.Child("external", "target"), &m.External.Target)...)
	}
	return errs
}

func checkTarget(path *field.Path, t *autoscalingv2.MetricTarget) field.ErrorList {
	errs := checkSet(path.Child("type"), t.Type, autoscalingv2.AverageValueMetricType, autoscalingv2.UtilizationMetricType, autoscalingv2.ValueMetricType)
	if t.Value == nil && t.AverageValue == nil && t.AverageUtilization == nil {
		errs = append(errs, field.Required(path.Child("averageUtilization"), "must set either a target raw value or a target utilization"))
	}
	if t.AverageUtilization != nil && *t.AverageUtilization < 1 {
		errs = append(errs, field.Invalid(path.Child("averageUtilization"), *t.AverageUtilization, "must be greater than 0"))
	}
	if t.Value != nil && t.Value.Sign() != 1 {
		errs = append(errs, field.Invalid(path.Child("value"), t.Value.String(), "must be positive"))
	}
	if t.AverageValue != nil && t.AverageValue.Sign() != 1 {
		errs = append(errs, field.Invalid(path.Child("averageValue"), t.AverageValue.String(), "must be positive"))
	}
	return errs
}

func checkScalingRules(path *field.Path, r *autoscalingv2.HPAScalingRules) field.ErrorList {
	if r == nil {
		return nil
	}
	var errs field.ErrorList
	if w := r.StabilizationWindowSeconds; w != nil {
		errs = append(errs, checkNotNegative(path.Child("stabilizationWindowSeconds"), *w)...)
		if *w > maxStabilization {
			errs = append(errs, field.Invalid(path.Child("stabilizationWindowSeconds"), *w, fmt.Sprintf("must be less than or equal to %v", maxStabilization)))
		}
	}
	errs = append(errs, checkOptional(path.Child("selectPolicy"), r.SelectPolicy, autoscalingv2.DisabledPolicySelect,
		autoscalingv2.MaxChangePolicySelect, autoscalingv2.MinChangePolicySelect)...)
	if r.Tolerance != nil && r.Tolerance.Sign() < 0 {
		errs = append(errs, field.Invalid(path.Child("tolerance"), r.Tolerance.String(), "must be greater than or equal to 0"))
	}
	p := path.Child("policies")
	if len(r.Policies) == 0 {
		errs = append(errs, field.Required(p, "must specify at least one Policy"))
	}
	for i, policy := range r.Policies {
		ip := p.Index(i)
		errs = append(errs, checkSet(ip.Child("type"), policy.Type, autoscalingv2.PercentScalingPolicy, autoscalingv2.PodsScalingPolicy)...)
		if policy.Value <= 0 {
			errs = append(errs, field.Invalid(ip.Child("value"), policy.Value, "must be greater than zero"))
		}
		if policy.PeriodSeconds <= 0 {
			errs = append(errs, field.Invalid(ip.Child("periodSeconds"), policy.PeriodSeconds, "must be greater than zero"))
		}
		if policy.PeriodSeconds > maxPolicyPeriod {
			errs = append(errs, field.Invalid(ip.Child("periodSeconds"), policy.PeriodSeconds, fmt.Sprintf("must be less than or equal to %v", maxPolicyPeriod)))
		}
	}
	return errs
}

func validateAutoscalerStatus(h, _ *autoscalingv2.HorizontalPodAutoscaler) field.ErrorList {
	path := field.NewPath("status")
	errs := checkNotNegative(path.Child("currentReplicas"), h.Status.CurrentReplicas)
	return append(errs, checkNotNegative(path.Child("desiredReplicas"), h.Status.DesiredReplicas)...)
}
