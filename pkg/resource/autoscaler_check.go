package resource

import (
	"fmt"
	"maps"
	"slices"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Longest times of a scaling rule, in seconds.
const (
	maxStabilization = 3600
	maxPolicyPeriod  = 1800
)

func validateAutoscaler(h *autoscalingv2.HorizontalPodAutoscaler) field.ErrorList {
	path, spec := field.NewPath("spec"), &h.Spec
	var errs field.ErrorList
	if spec.MinReplicas != nil && *spec.MinReplicas < 0 {
		errs = append(errs, field.Invalid(path.Child("minReplicas"), *spec.MinReplicas, "must be greater than or equal to 0"))
	}
	if spec.MinReplicas != nil && *spec.MinReplicas == 0 && !slices.ContainsFunc(spec.Metrics, wakes) {
		errs = append(errs, field.Forbidden(path.Child("metrics"), "must specify at least one Object or External metric to support scaling to zero replicas"))
	}
	switch {
	case spec.MaxReplicas == 0:
		errs = append(errs, field.Required(path.Child("maxReplicas"), "must be set and greater than 0"))
	case spec.MaxReplicas < 0:
		errs = append(errs, field.Invalid(path.Child("maxReplicas"), spec.MaxReplicas, "must be greater than or equal to 1"))
	}
	if spec.MinReplicas != nil && spec.MaxReplicas < *spec.MinReplicas {
		errs = append(errs, field.Invalid(path.Child("maxReplicas"), spec.MaxReplicas, "must be greater than or equal to `minReplicas`"))
	}
	errs = append(errs, checkScaled(path.Child("scaleTargetRef"), &spec.ScaleTargetRef)...)
	for i := range spec.Metrics {
		errs = append(errs, checkMetric(path.Child("metrics").Index(i), &spec.Metrics[i])...)
	}
	if b := spec.Behavior; b != nil {
		errs = append(errs, checkScalingRules(path.Child("behavior", "scaleUp"), b.ScaleUp)...)
		errs = append(errs, checkScalingRules(path.Child("behavior", "scaleDown"), b.ScaleDown)...)
	}
	return errs
}

// wakes says whether a metric speaks where there are no pods.
func wakes(m autoscalingv2.MetricSpec) bool {
	return m.Type == autoscalingv2.ObjectMetricSourceType || m.Type == autoscalingv2.ExternalMetricSourceType
}

// checkScaled wants a reference whose parts can stand in a URL.
func checkScaled(path *field.Path, ref *autoscalingv2.CrossVersionObjectReference) field.ErrorList {
	return append(checkName(path.Child("kind"), ref.Kind, content.IsPathSegmentName),
		checkName(path.Child("name"), ref.Name, content.IsPathSegmentName)...)
}

// checkMetric wants the one source that the type names. Of several sources the
// first is looked into.
func checkMetric(path *field.Path, m *autoscalingv2.MetricSpec) field.ErrorList {
	var errs field.ErrorList
	if m.Type == "" {
		errs = append(errs, field.Required(path.Child("type"), "must specify a metric source type"))
	}
	known := map[autoscalingv2.MetricSourceType]string{
		autoscalingv2.ContainerResourceMetricSourceType: "containerResource", autoscalingv2.ExternalMetricSourceType: "external",
		autoscalingv2.ObjectMetricSourceType: "object", autoscalingv2.PodsMetricSourceType: "pods",
		autoscalingv2.ResourceMetricSourceType: "resource",
	}
	want, ok := known[m.Type]
	if !ok {
		errs = append(errs, field.NotSupported(path.Child("type"), m.Type, slices.Sorted(maps.Keys(known))))
	}
	errs = append(errs, checkMetricSource(path, m)...)
	set := setFields(m)
	if ok && !slices.Contains(set, want) {
		errs = append(errs, field.Required(path.Child(want), "must populate information for the given metric source"))
	}
	if len(set) == 1 {
		return errs
	}
	for _, name := range set {
		if name != want {
			errs = append(errs, field.Forbidden(path.Child(name), "must populate the given metric source only"))
		}
	}
	return errs
}

func checkMetricSource(path *field.Path, m *autoscalingv2.MetricSpec) field.ErrorList {
	switch {
	case m.Object != nil:
		p, o := path.Child("object"), m.Object
		errs := checkScaled(p.Child("describedObject"), &o.DescribedObject)
		errs = append(errs, checkMetricName(p.Child("metric", "name"), o.Metric.Name)...)
		errs = append(errs, checkTarget(p.Child("target"), &o.Target)...)
		if o.Target.Value == nil && o.Target.AverageValue == nil {
			errs = append(errs, field.Required(p.Child("target", "averageValue"), "must set either a target value or averageValue"))
		}
		return errs
	case m.External != nil:
		p, e := path.Child("external"), m.External
		errs := checkMetricName(p.Child("metric", "name"), e.Metric.Name)
		errs = append(errs, checkTarget(p.Child("target"), &e.Target)...)
		switch {
		case e.Target.Value == nil && e.Target.AverageValue == nil:
			errs = append(errs, field.Required(p.Child("target", "averageValue"), "must set either a target value for metric or a per-pod target"))
		case e.Target.Value != nil && e.Target.AverageValue != nil:
			errs = append(errs, field.Forbidden(p.Child("target", "value"), "may not set both a target value for metric and a per-pod target"))
		}
		return errs
	case m.Pods != nil:
		p := path.Child("pods")
		errs := checkMetricName(p.Child("metric", "name"), m.Pods.Metric.Name)
		errs = append(errs, checkTarget(p.Child("target"), &m.Pods.Target)...)
		if m.Pods.Target.AverageValue == nil {
			errs = append(errs, field.Required(p.Child("target", "averageValue"), "must specify a positive target averageValue"))
		}
		return errs
	case m.Resource != nil:
		p := path.Child("resource")
		errs := checkMetricResource(p.Child("name"), m.Resource.Name, nil)
		return append(errs, checkResourceTarget(p.Child("target"), &m.Resource.Target)...)
	case m.ContainerResource != nil:
		p, c := path.Child("containerResource"), m.ContainerResource
		errs := checkMetricResource(p.Child("name"), c.Name, checkContainerResource)
		if c.Container == "" {
			errs = append(errs, field.Required(p.Child("container"), "must specify a container"))
		} else {
			errs = append(errs, invalid(p.Child("container"), c.Container, utilvalidation.IsDNS1123Label(c.Container))...)
		}
		return append(errs, checkResourceTarget(p.Child("target"), &c.Target)...)
	}
	return nil
}

func checkMetricName(path *field.Path, name string) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "must specify a metric name")}
	}
	return invalid(path, name, content.IsPathSegmentName(name))
}

func checkMetricResource(path *field.Path, name corev1.ResourceName, rule func(*field.Path, corev1.ResourceName) field.ErrorList) field.ErrorList {
	switch {
	case name == "":
		return field.ErrorList{field.Required(path, "must specify a resource name")}
	case rule == nil:
		return nil
	}
	return rule(path, name)
}

func checkTarget(path *field.Path, t *autoscalingv2.MetricTarget) field.ErrorList {
	var errs field.ErrorList
	switch t.Type {
	case autoscalingv2.AverageValueMetricType, autoscalingv2.UtilizationMetricType, autoscalingv2.ValueMetricType:
	case "":
		errs = append(errs, field.Required(path.Child("type"), "must specify a metric target type"))
		fallthrough
	default:
		errs = append(errs, field.Invalid(path.Child("type"), t.Type, "must be either Utilization, Value, or AverageValue"))
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

// checkResourceTarget: of a resource one wants a share of what pods request or
// an amount.
func checkResourceTarget(path *field.Path, t *autoscalingv2.MetricTarget) field.ErrorList {
	errs := checkTarget(path, t)
	switch {
	case t.AverageUtilization == nil && t.AverageValue == nil:
		errs = append(errs, field.Required(path.Child("averageUtilization"), "must set either a target raw value or a target utilization"))
	case t.AverageUtilization != nil && t.AverageValue != nil:
		errs = append(errs, field.Forbidden(path.Child("averageValue"), "may not set both a target raw value and a target utilization"))
	}
	return errs
}

func checkScalingRules(path *field.Path, r *autoscalingv2.HPAScalingRules) field.ErrorList {
	if r == nil {
		return nil
	}
	var errs field.ErrorList
	if w := r.StabilizationWindowSeconds; w != nil {
		if *w < 0 {
			errs = append(errs, field.Invalid(path.Child("stabilizationWindowSeconds"), *w, "must be greater than or equal to zero"))
		}
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
		errs = append(errs, checkOptional(ip.Child("type"), &policy.Type, autoscalingv2.PercentScalingPolicy, autoscalingv2.PodsScalingPolicy)...)
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
