package resource

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// checkWorkload validates what every owner of pods has: a selector that says
// something and the template that it must match. kind is for the messages,
// policies are the restart policies that its pods may have.
func checkWorkload(path *field.Path, kind string, sel *metav1.LabelSelector, t *corev1.PodTemplateSpec,
	policies ...corev1.RestartPolicy) field.ErrorList {
	var errs field.ErrorList
	p := path.Child("selector")
	selector, err := metav1.LabelSelectorAsSelector(sel)
	switch {
	case sel == nil:
		errs = append(errs, field.Required(p, ""))
	case len(sel.MatchLabels)+len(sel.MatchExpressions) == 0:
		errs = append(errs, field.Invalid(p, sel, "empty selector is invalid for "+kind))
	default:
		errs = append(errs, checkLabelSelector(p, sel)...)
	}
	if sel != nil && err != nil {
		errs = append(errs, field.Invalid(p, sel, "invalid label selector"))
	}
	p = path.Child("template")
	if err == nil && !selector.Empty() && sel != nil && !selector.Matches(labels.Set(t.Labels)) {
		errs = append(errs, field.Invalid(p.Child("metadata", "labels"), t.Labels, "`selector` does not match template `labels`"))
	}
	errs = append(errs, checkPodTemplate(p, t)...)
	return append(errs, checkTemplatePolicy(p.Child("spec", "restartPolicy"), t.Spec.RestartPolicy, policies)...)
}

func checkTemplatePolicy(path *field.Path, policy corev1.RestartPolicy, allowed []corev1.RestartPolicy) field.ErrorList {
	for _, a := range allowed {
		if policy == a {
			return nil
		}
	}
	return field.ErrorList{field.NotSupported(path, policy, allowed)}
}

// checkReplicated is checkWorkload for owners of pods that run for ever.
func checkReplicated(path *field.Path, kind, shown string, replicas *int32, sel *metav1.LabelSelector, t *corev1.PodTemplateSpec) field.ErrorList {
	errs := checkOptionalNotNegative(path.Child("replicas"), replicas)
	errs = append(errs, checkWorkload(path, kind, sel, t, corev1.RestartPolicyAlways)...)
	if t.Spec.ActiveDeadlineSeconds != nil {
		errs = append(errs, field.Forbidden(path.Child("template", "spec", "activeDeadlineSeconds"),
			"activeDeadlineSeconds in "+shown+" is not Supported"))
	}
	return errs
}

func validateReplicaSet(rs *appsv1.ReplicaSet) field.ErrorList {
	path := field.NewPath("spec")
	errs := checkNotNegative(path.Child("minReadySeconds"), rs.Spec.MinReadySeconds)
	return append(errs, checkReplicated(path, "replicaset", "ReplicaSet", rs.Spec.Replicas, rs.Spec.Selector, &rs.Spec.Template)...)
}

func validateReplicaSetUpdate(rs, old *appsv1.ReplicaSet) field.ErrorList {
	return checkImmutable(field.NewPath("spec", "selector"), rs.Spec.Selector, old.Spec.Selector)
}

func validateReplicaSetStatus(rs, _ *appsv1.ReplicaSet) field.ErrorList {
	s := &rs.Status
	errs := checkReplicaCounts(s.ObservedGeneration, s.Replicas, counts{
		"fullyLabeledReplicas": s.FullyLabeledReplicas, "readyReplicas": s.ReadyReplicas, "availableReplicas": s.AvailableReplicas,
	}, s.ReadyReplicas, s.AvailableReplicas)
	return append(errs, checkOptionalNotNegative(field.NewPath("status", "terminatingReplicas"), s.TerminatingReplicas)...)
}

// counts are numbers of replicas by the names of their status fields.
type counts map[string]int32

// checkReplicaCounts: none is negative or above the number of replicas, and
// what is available is ready.
func checkReplicaCounts(observed int64, replicas int32, parts counts, ready, available int32) field.ErrorList {
	path := field.NewPath("status")
	errs := checkNotNegative(path.Child("observedGeneration"), observed)
	errs = append(errs, checkNotNegative(path.Child("replicas"), replicas)...)
	for _, name := range sortedKeys(parts) {
		errs = append(errs, checkNotNegative(path.Child(name), parts[name])...)
		if parts[name] > replicas {
			errs = append(errs, field.Invalid(path.Child(name), parts[name], "cannot be greater than status.replicas"))
		}
	}
	if available > ready {
		errs = append(errs, field.Invalid(path.Child("availableReplicas"), available, "cannot be greater than readyReplicas"))
	}
	return errs
}

func validateDeployment(d *appsv1.Deployment) field.ErrorList {
	path, spec := field.NewPath("spec"), &d.Spec
	errs := checkReplicated(path, "deployment", "ReplicaSet", spec.Replicas, spec.Selector, &spec.Template)
	errs = append(errs, checkDeploymentStrategy(path.Child("strategy"), &spec.Strategy)...)
	errs = append(errs, checkNotNegative(path.Child("minReadySeconds"), spec.MinReadySeconds)...)
	errs = append(errs, checkOptionalNotNegative(path.Child("revisionHistoryLimit"), spec.RevisionHistoryLimit)...)
	if s := spec.ProgressDeadlineSeconds; s != nil {
		errs = append(errs, checkNotNegative(path.Child("progressDeadlineSeconds"), *s)...)
		if *s <= spec.MinReadySeconds {
			errs = append(errs, field.Invalid(path.Child("progressDeadlineSeconds"), *s, "must be greater than minReadySeconds"))
		}
	}
	return errs
}

func checkDeploymentStrategy(path *field.Path, s *appsv1.DeploymentStrategy) field.ErrorList {
	u := s.RollingUpdate
	switch s.Type {
	case appsv1.RecreateDeploymentStrategyType:
		if u != nil {
			return field.ErrorList{field.Forbidden(path.Child("rollingUpdate"), fmt.Sprintf("may not be specified when strategy `type` is '%s'", s.Type))}
		}
		return nil
	case appsv1.RollingUpdateDeploymentStrategyType:
		if u == nil || u.MaxSurge == nil || u.MaxUnavailable == nil {
			return field.ErrorList{field.Required(path.Child("rollingUpdate"), "this should be defaulted and never be nil")}
		}
		return checkRollingUpdate(path.Child("rollingUpdate"), *u.MaxUnavailable, *u.MaxSurge)
	}
	return field.ErrorList{field.NotSupported(path, s.Type,
		[]appsv1.DeploymentStrategyType{appsv1.RecreateDeploymentStrategyType, appsv1.RollingUpdateDeploymentStrategyType})}
}

// checkRollingUpdate: with neither a pod more nor one less nothing could move.
func checkRollingUpdate(path *field.Path, unavailable, surge intstr.IntOrString) field.ErrorList {
	errs := checkCountOrPercent(path.Child("maxUnavailable"), unavailable)
	errs = append(errs, checkCountOrPercent(path.Child("maxSurge"), surge)...)
	if isZero(unavailable) && isZero(surge) {
		errs = append(errs, field.Invalid(path.Child("maxUnavailable"), unavailable, "may not be 0 when `maxSurge` is 0"))
	}
	return append(errs, checkAtMostAll(path.Child("maxUnavailable"), unavailable)...)
}

func validateDeploymentUpdate(d, old *appsv1.Deployment) field.ErrorList {
	return checkImmutable(field.NewPath("spec", "selector"), d.Spec.Selector, old.Spec.Selector)
}

func validateDeploymentStatus(d, old *appsv1.Deployment) field.ErrorList {
	s, path := &d.Status, field.NewPath("status")
	errs := checkReplicaCounts(s.ObservedGeneration, s.Replicas, counts{
		"updatedReplicas": s.UpdatedReplicas, "readyReplicas": s.ReadyReplicas, "availableReplicas": s.AvailableReplicas,
	}, s.ReadyReplicas, s.AvailableReplicas)
	errs = append(errs, checkNotNegative(path.Child("unavailableReplicas"), s.UnavailableReplicas)...)
	errs = append(errs, checkOptionalNotNegative(path.Child("terminatingReplicas"), s.TerminatingReplicas)...)
	return append(errs, checkCollisions(path.Child("collisionCount"), s.CollisionCount, old.Status.CollisionCount)...)
}

// checkCollisions: names are made from the count, so that it never goes back.
func checkCollisions(path *field.Path, is, was *int32) field.ErrorList {
	errs := checkOptionalNotNegative(path, is)
	if was != nil && count(is, 0) < *was {
		errs = append(errs, field.Invalid(path, count(is, 0), "cannot be decremented"))
	}
	return errs
}
