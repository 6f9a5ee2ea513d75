package resource

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// highestUserPriority bounds what classes without the system- prefix may have
// (API doc of PriorityClass).
const highestUserPriority = 1_000_000_000

func priorityClasses() *Resource {
	return define(Resource{
		Group: schedulingv1.GroupName, Version: "v1", Kind: "PriorityClass", Plural: "priorityclasses", ShortNames: []string{"pc"},
		UnconditionalUpdate: true,
		New:                 func() runtime.Object { return &schedulingv1.PriorityClass{} },
		NewList:             func() runtime.Object { return &schedulingv1.PriorityClassList{} },
		Columns:             columns("Name", "Value:integer", "Global-Default:boolean", "Age", "PreemptionPolicy"),
	}, hooks[*schedulingv1.PriorityClass]{
		Default: func(pc *schedulingv1.PriorityClass) {
			if pc.PreemptionPolicy == nil {
				pc.PreemptionPolicy = new(corev1.PreemptLowerPriority)
			}
		},
		Validate: func(pc *schedulingv1.PriorityClass) field.ErrorList {
			var errs field.ErrorList
			if strings.HasPrefix(pc.Name, "system-") {
				if pc.Name != "system-node-critical" && pc.Name != "system-cluster-critical" {
					errs = append(errs, field.Forbidden(field.NewPath("metadata", "name"),
						"priority class names with 'system-' prefix are reserved for system use only"))
				}
			} else if pc.Value > highestUserPriority {
				errs = append(errs, field.Forbidden(field.NewPath("value"), "maximum allowed value of a user defined priority is 1000000000"))
			}
			if p := pc.PreemptionPolicy; p != nil && *p != corev1.PreemptLowerPriority && *p != corev1.PreemptNever {
				errs = append(errs, field.NotSupported(field.NewPath("preemptionPolicy"), *p,
					[]corev1.PreemptionPolicy{corev1.PreemptLowerPriority, corev1.PreemptNever}))
			}
			return errs
		},
		ValidateUpdate: func(pc, old *schedulingv1.PriorityClass) field.ErrorList {
			var errs field.ErrorList
			if pc.Value != old.Value {
				errs = append(errs, field.Forbidden(field.NewPath("value"), "may not be changed in an update."))
			}
			if pc.PreemptionPolicy != nil && old.PreemptionPolicy != nil && *pc.PreemptionPolicy != *old.PreemptionPolicy {
				errs = append(errs, field.Invalid(field.NewPath("preemptionPolicy"), *pc.PreemptionPolicy, "field is immutable"))
			}
			return errs
		},
		Row: func(pc *schedulingv1.PriorityClass, now time.Time) []any {
			policy := string(corev1.PreemptLowerPriority)
			if pc.PreemptionPolicy != nil {
				policy = string(*pc.PreemptionPolicy)
			}
			return []any{pc.Name, int64(pc.Value), pc.GlobalDefault, age(pc.CreationTimestamp, now), policy}
		},
	})
}
