package resource

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func daemonSets() *Resource {
	return define(Resource{
		Group: "apps", Version: "v1", Kind: "DaemonSet", Plural: "daemonsets", ShortNames: []string{"ds"},
		Categories:          []string{"all"},
		Namespaced:          true,
		HasStatus:           true,
		HasGeneration:       true,
		UnconditionalUpdate: true,
		New:                 func() runtime.Object { return &appsv1.DaemonSet{} },
		NewList:             func() runtime.Object { return &appsv1.DaemonSetList{} },
		Columns: columns("Name", "Desired:integer", "Current:integer", "Ready:integer", "Up-to-date:integer",
			"Available:integer", "Node Selector", "Age", "+Containers", "+Images", "+Selector"),
	}, hooks[*appsv1.DaemonSet]{
		Default:  defaultDaemonSet,
		Validate: validateDaemonSet,
		ValidateUpdate: func(d, old *appsv1.DaemonSet) field.ErrorList {
			return checkImmutable(field.NewPath("spec", "selector"), d.Spec.Selector, old.Spec.Selector)
		},
		ValidateStatus: validateDaemonSetStatus,
		Warnings: func(obj, old *appsv1.DaemonSet) []string {
			if old != nil && old.Generation == obj.Generation {
				return nil
			}
			return podSpecWarnings(field.NewPath("spec", "template", "spec"), &obj.Spec.Template.Spec)
		},
		Row: func(d *appsv1.DaemonSet, now time.Time) []any {
			names, images := containerCells(d.Spec.Template.Spec.Containers)
			s := &d.Status
			return []any{
				d.Name, int64(s.DesiredNumberScheduled), int64(s.CurrentNumberScheduled), int64(s.NumberReady),
				int64(s.UpdatedNumberScheduled), int64(s.NumberAvailable),
				labels.FormatLabels(d.Spec.Template.Spec.NodeSelector), age(d.CreationTimestamp, now),
				names, images, metav1.FormatLabelSelector(d.Spec.Selector),
			}
		},
	})
}

func defaultDaemonSet(d *appsv1.DaemonSet) {
	spec := &d.Spec
	defaultPodTemplate(&spec.Template)
	defaultCount(&spec.RevisionHistoryLimit, 10)
	u := &spec.UpdateStrategy
	if u.Type == "" {
		u.Type = appsv1.RollingUpdateDaemonSetStrategyType
	}
	if u.Type != appsv1.RollingUpdateDaemonSetStrategyType {
		return
	}
	if u.RollingUpdate == nil {
		u.RollingUpdate = &appsv1.RollingUpdateDaemonSet{}
	}
	if u.RollingUpdate.MaxUnavailable == nil {
		u.RollingUpdate.MaxUnavailable = new(intstr.FromInt32(1))
	}
	if u.RollingUpdate.MaxSurge == nil {
		u.RollingUpdate.MaxSurge = new(intstr.FromInt32(0))
	}
}

func validateDaemonSet(d *appsv1.DaemonSet) field.ErrorList {
	path, spec := field.NewPath("spec"), &d.Spec
	errs := checkWorkload(path, "daemonset", spec.Selector, &spec.Template, corev1.RestartPolicyAlways)
	if spec.Template.Spec.ActiveDeadlineSeconds != nil {
		errs = append(errs, field.Forbidden(path.Child("template", "spec", "activeDeadlineSeconds"), "activeDeadlineSeconds in DaemonSet is not Supported"))
	}
	errs = append(errs, checkNotNegative(path.Child("minReadySeconds"), spec.MinReadySeconds)...)
	errs = append(errs, checkOptionalNotNegative(path.Child("revisionHistoryLimit"), spec.RevisionHistoryLimit)...)
	p := path.Child("updateStrategy")
	u := &spec.UpdateStrategy
	switch u.Type {
	case appsv1.OnDeleteDaemonSetStrategyType:
	case appsv1.RollingUpdateDaemonSetStrategyType:
		if u.RollingUpdate == nil || u.RollingUpdate.MaxSurge == nil || u.RollingUpdate.MaxUnavailable == nil {
			return append(errs, field.Required(p.Child("rollingUpdate"), ""))
		}
		errs = append(errs, checkDaemonUpdate(p.Child("rollingUpdate"), *u.RollingUpdate.MaxUnavailable, *u.RollingUpdate.MaxSurge)...)
	default:
		errs = append(errs, field.NotSupported(p, u.Type, []appsv1.DaemonSetUpdateStrategyType{appsv1.OnDeleteDaemonSetStrategyType, appsv1.RollingUpdateDaemonSetStrategyType}))
	}
	return errs
}

// checkDaemonUpdate: a node either waits for the new pod or loses the old one
// first, never both.
func checkDaemonUpdate(path *field.Path, unavailable, surge intstr.IntOrString) field.ErrorList {
	errs := checkCountOrPercent(path.Child("maxUnavailable"), unavailable)
	errs = append(errs, checkAtMostAll(path.Child("maxUnavailable"), unavailable)...)
	errs = append(errs, checkCountOrPercent(path.Child("maxSurge"), surge)...)
	errs = append(errs, checkAtMostAll(path.Child("maxSurge"), surge)...)
	switch {
	case !isZero(unavailable) && !isZero(surge):
		errs = append(errs, field.Invalid(path.Child("maxSurge"), surge, "may not be set when maxUnavailable is non-zero"))
	case isZero(unavailable) && isZero(surge):
		errs = append(errs, field.Required(path.Child("maxUnavailable"), "cannot be 0 when maxSurge is 0"))
	}
	return errs
}

func validateDaemonSetStatus(d, old *appsv1.DaemonSet) field.ErrorList {
	s, path := &d.Status, field.NewPath("status")
	errs := checkNotNegative(path.Child("observedGeneration"), s.ObservedGeneration)
	for _, f := range []struct {
		name  string
		value int32
	}{
		{"currentNumberScheduled", s.CurrentNumberScheduled}, {"numberMisscheduled", s.NumberMisscheduled},
		{"desiredNumberScheduled", s.DesiredNumberScheduled}, {"numberReady", s.NumberReady},
		{"updatedNumberScheduled", s.UpdatedNumberScheduled}, {"numberAvailable", s.NumberAvailable},
		{"numberUnavailable", s.NumberUnavailable},
	} {
		errs = append(errs, checkNotNegative(path.Child(f.name), f.value)...)
	}
	return append(errs, checkCollisions(path.Child("collisionCount"), s.CollisionCount, old.Status.CollisionCount)...)
}
