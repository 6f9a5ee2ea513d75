package resource

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func resourceQuotas() *Resource {
	return define(Resource{
		Version: "v1", Kind: "ResourceQuota", Plural: "resourcequotas", ShortNames: []string{"quota"},
		Namespaced:          true,
		HasStatus:           true,
		UnconditionalUpdate: true,
		ReturnDeleted:       true,
		New:                 func() runtime.Object { return &corev1.ResourceQuota{} },
		NewList:             func() runtime.Object { return &corev1.ResourceQuotaList{} },
		Columns:             columns("Name", "Request", "Limit", "Age"),
	}, hooks[*corev1.ResourceQuota]{
		Default: func(q *corev1.ResourceQuota) {
			roundUp(q.Spec.Hard)
			roundUp(q.Status.Hard)
			roundUp(q.Status.Used)
		},
		Validate: func(q *corev1.ResourceQuota) field.ErrorList {
			return append(checkQuotaList(field.NewPath("spec", "hard"), q.Spec.Hard), checkQuotaScopes(&q.Spec)...)
		},
		ValidateUpdate: func(q, old *corev1.ResourceQuota) field.ErrorList {
			return checkImmutable(field.NewPath("spec", "scopes"), scopeSet(q.Spec.Scopes), scopeSet(old.Spec.Scopes))
		},
		ValidateStatus: func(q, _ *corev1.ResourceQuota) field.ErrorList {
			return append(checkQuotaList(field.NewPath("status", "hard"), q.Status.Hard),
				checkQuotaList(field.NewPath("status", "used"), q.Status.Used)...)
		},
		Row: quotaRow,
	})
}

func scopeSet(scopes []corev1.ResourceQuotaScope) []corev1.ResourceQuotaScope {
	return slices.Compact(slices.Sorted(slices.Values(scopes)))
}

func checkQuotaList(path *field.Path, list corev1.ResourceList) field.ErrorList {
	var errs field.ErrorList
	for _, name := range sortedKeys(list) {
		p := path.Key(string(name))
		errs = append(errs, checkQuotaName(p, name)...)
		errs = append(errs, checkQuantity(p, name, list[name])...)
	}
	return errs
}

func checkQuotaName(path *field.Path, name corev1.ResourceName) field.ErrorList {
	errs := checkResourceName(path, name)
	if !strings.Contains(string(name), "/") && !quotaResource(name) {
		errs = append(errs, field.Invalid(path, name, "must be a standard resource for quota"))
	}
	return errs
}

// quotaResource: what of Kubernetes' own a quota can bound: all but storage,
// which is requested.
func quotaResource(name corev1.ResourceName) bool {
	return name != corev1.ResourceStorage && standardResource(name)
}

var quotaScopes = []corev1.ResourceQuotaScope{
	corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating, corev1.ResourceQuotaScopeBestEffort,
	corev1.ResourceQuotaScopeNotBestEffort, corev1.ResourceQuotaScopePriorityClass, corev1.ResourceQuotaScopeCrossNamespacePodAffinity,
	corev1.ResourceQuotaScopeVolumeAttributesClass,
}

func checkQuotaScopes(spec *corev1.ResourceQuotaSpec) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec", "scopes")
	for _, s := range spec.Scopes {
		if !slices.Contains(quotaScopes, s) {
			errs = append(errs, field.Invalid(path, spec.Scopes, "unsupported scope"))
		}
		errs = append(errs, checkScopeTracks(path, s, spec)...)
	}
	errs = append(errs, checkScopePairs(path, spec.Scopes)...)
	if spec.ScopeSelector == nil {
		return errs
	}
	// Upstream's paths of these lack the index; so do these.
	path = field.NewPath("spec", "scopeSelector", "matchExpressions")
	var scopes []corev1.ResourceQuotaScope
	for i := range spec.ScopeSelector.MatchExpressions {
		r := &spec.ScopeSelector.MatchExpressions[i]
		scopes = append(scopes, r.ScopeName)
		errs = append(errs, checkScopeRequirement(path, r)...)
		errs = append(errs, checkScopeTracks(path, r.ScopeName, spec)...)
	}
	return append(errs, checkScopePairs(path, scopes)...)
}

func checkScopeRequirement(path *field.Path, r *corev1.ScopedResourceSelectorRequirement) field.ErrorList {
	var errs field.ErrorList
	valued := r.ScopeName == corev1.ResourceQuotaScopePriorityClass || r.ScopeName == corev1.ResourceQuotaScopeVolumeAttributesClass
	if !slices.Contains(quotaScopes, r.ScopeName) {
		errs = append(errs, field.Invalid(path.Child("scopeName"), r.ScopeName, "unsupported scope"))
	} else if !valued && r.Operator != corev1.ScopeSelectorOpExists {
		errs = append(errs, field.Invalid(path.Child("operator"), r.Operator,
			"must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, "+
				"ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"))
	}
	switch r.Operator {
	case corev1.ScopeSelectorOpIn, corev1.ScopeSelectorOpNotIn:
		if len(r.Values) == 0 {
			errs = append(errs, field.Required(path.Child("values"), "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"))
		}
	case corev1.ScopeSelectorOpExists, corev1.ScopeSelectorOpDoesNotExist:
		if len(r.Values) > 0 {
			errs = append(errs, field.Invalid(path.Child("values"), r.Values, "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"))
		}
	default:
		errs = append(errs, field.Invalid(path.Child("operator"), r.Operator, "not a valid selector operator"))
	}
	return errs
}

// checkScopePairs: nothing is both of a kind and not of it.
func checkScopePairs(path *field.Path, scopes []corev1.ResourceQuotaScope) field.ErrorList {
	var errs field.ErrorList
	for _, pair := range [][2]corev1.ResourceQuotaScope{
		{corev1.ResourceQuotaScopeBestEffort, corev1.ResourceQuotaScopeNotBestEffort},
		{corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating},
	} {
		if slices.Contains(scopes, pair[0]) && slices.Contains(scopes, pair[1]) {
			errs = append(errs, field.Invalid(path, scopes, "conflicting scopes"))
		}
	}
	return errs
}

// checkScopeTracks: a scope can bound only what has it.
func checkScopeTracks(path *field.Path, s corev1.ResourceQuotaScope, spec *corev1.ResourceQuotaSpec) field.ErrorList {
	tracked := []corev1.ResourceName{corev1.ResourcePods}
	switch s {
	case corev1.ResourceQuotaScopeBestEffort:
	case corev1.ResourceQuotaScopeVolumeAttributesClass:
		tracked = []corev1.ResourceName{corev1.ResourcePersistentVolumeClaims, corev1.ResourceRequestsStorage}
	default:
		if !slices.Contains(quotaScopes, s) {
			return nil
		}
		tracked = append(tracked, corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceRequestsCPU,
			corev1.ResourceRequestsMemory, corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory)
	}
	var errs field.ErrorList
	for _, name := range sortedKeys(spec.Hard) {
		if quotaResource(name) && !slices.Contains(tracked, name) {
			errs = append(errs, field.Invalid(path, spec.Scopes, "unsupported scope applied to resource"))
		}
	}
	return errs
}

func quotaRow(q *corev1.ResourceQuota, now time.Time) []any {
	var requests, limits []string
	for _, name := range sortedKeys(q.Status.Hard) {
		used, hard := q.Status.Used[name], q.Status.Hard[name]
		text := fmt.Sprintf("%s: %s/%s", name, used.String(), hard.String())
		if strings.HasPrefix(string(name), "limits") {
			limits = append(limits, text)
		} else {
			requests = append(requests, text)
		}
	}
	return []any{q.Name, strings.Join(requests, ", "), strings.Join(limits, ", "), age(q.CreationTimestamp, now)}
}
