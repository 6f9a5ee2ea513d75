package resource

import (
	"time"

	policyv1 "k8s.io/api/policy/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func podDisruptionBudgets() *Resource {
	return define(Resource{
		Group: "policy", Version: "v1", Kind: "PodDisruptionBudget", Plural: "poddisruptionbudgets", ShortNames: []string{"pdb"},
		Namespaced:    true,
		HasStatus:     true,
		HasGeneration: true,
		New:           func() runtime.Object { return &policyv1.PodDisruptionBudget{} },
		NewList:       func() runtime.Object { return &policyv1.PodDisruptionBudgetList{} },
		Columns:       columns("Name", "Min Available", "Max Unavailable", "Allowed Disruptions:integer", "Age"),
	}, hooks[*policyv1.PodDisruptionBudget]{
		Validate: validateBudget,
		ValidateStatus: func(b, _ *policyv1.PodDisruptionBudget) field.ErrorList {
			s, path := &b.Status, field.NewPath("status")
			errs := metav1validation.ValidateConditions(s.Conditions, path.Child("conditions"))
			for _, f := range []struct {
				name  string
				value int32
			}{
				{"disruptionsAllowed", s.DisruptionsAllowed}, {"currentHealthy", s.CurrentHealthy},
				{"desiredHealthy", s.DesiredHealthy}, {"expectedPods", s.ExpectedPods},
			} {
				errs = append(errs, checkNotNegative(path.Child(f.name), f.value)...)
			}
			return errs
		},
		Row: func(b *policyv1.PodDisruptionBudget, now time.Time) []any {
			least, most := "N/A", "N/A"
			if b.Spec.MinAvailable != nil {
				least = b.Spec.MinAvailable.String()
			}
			if b.Spec.MaxUnavailable != nil {
				most = b.Spec.MaxUnavailable.String()
			}
			return []any{b.Name, least, most, int64(b.Status.DisruptionsAllowed), age(b.CreationTimestamp, now)}
		},
	})
}

func validateBudget(b *policyv1.PodDisruptionBudget) field.ErrorList {
	path, spec := field.NewPath("spec"), &b.Spec
	var errs field.ErrorList
	if spec.MinAvailable != nil && spec.MaxUnavailable != nil {
		errs = append(errs, field.Invalid(path, b.Spec, "minAvailable and maxUnavailable cannot be both set"))
	}
	if v := spec.MinAvailable; v != nil {
		errs = append(errs, checkCountOrPercent(path.Child("minAvailable"), *v)...)
		errs = append(errs, checkAtMostAll(path.Child("minAvailable"), *v)...)
	}
	if v := spec.MaxUnavailable; v != nil {
		errs = append(errs, checkCountOrPercent(path.Child("maxUnavailable"), *v)...)
		errs = append(errs, checkAtMostAll(path.Child("maxUnavailable"), *v)...)
	}
	errs = append(errs, checkLabelSelector(path.Child("selector"), spec.Selector)...)
	return append(errs, checkOptional(path.Child("unhealthyPodEvictionPolicy"), spec.UnhealthyPodEvictionPolicy,
		policyv1.AlwaysAllow, policyv1.IfHealthyBudget)...)
}
