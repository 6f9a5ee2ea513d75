package resource

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
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
			errs := checkImmutable(field.NewPath("spec", "scopes"), scopeSet(q.Spec.Scopes), scopeSet(old.Spec.Scopes))
			return append(errs, checkImmutable(field.NewPath("spec", "scopeSelector"), q.Spec.ScopeSelector, old.Spec.ScopeSelector)...)
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
	if errs := invalid(path, name, utilvalidation.IsQualifiedName(string(name))); len(errs) > 0 {
		return errs
	}
	if !strings.Contains(string(name), "/") && !standardResource(name) && !strings.HasPrefix(string(name), "requests.") {
		return field.ErrorList{field.Invalid(path, name, "must be a standard resource for quota")}
	}
	return nil
}

var quotaScopes = []corev1.ResourceQuotaScope{
	corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating, corev1.ResourceQuotaScopeBestEffort,
	corev1.ResourceQuotaScopeNotBestEffort, corev1.ResourceQuotaScopePriorityClass, corev1.ResourceQuotaScopeCrossNamespacePodAffinity,
	corev1.ResourceQuotaScopeVolumeAttributesClass,
}

func checkQuotaScopes(spec *corev1.ResourceQuotaSpec) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec", "scopes")
	has := map[corev1.ResourceQuotaScope]bool{}
	for _, s := range spec.Scopes {
		has[s] = true
		if !slices.Contains(quotaScopes, s) {
			errs = append(errs, field.Invalid(path, spec.Scopes, "unsupported scope"))
		} else {
			errs = append(errs, checkScopeTracks(path, s, spec)...)
		}
	}
	for _, pair := range [][2]corev1.ResourceQuotaScope{
		{corev1.ResourceQuotaScopeBestEffort, corev1.ResourceQuotaScopeNotBestEffort},
		{corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating},
	} {
		if has[pair[0]] && has[pair[1]] {
			errs = append(errs, field.Invalid(path, spec.Scopes, "conflicting scopes"))
		}
	}
	if spec.ScopeSelector == nil {
		return errs
	}
	for i, r := range spec.ScopeSelector.MatchExpressions {
		p := field.NewPath("spec", "scopeSelector", "matchExpressions").Index(i)
		if !slices.Contains(quotaScopes, r.ScopeName) {
			errs = append(errs, field.Invalid(p.Child("scopeName"), r.ScopeName, "unsupported scope"))
		}
		switch r.Operator {
		case corev1.ScopeSelectorOpIn, corev1.ScopeSelectorOpNotIn:
			if len(r.Values) == 0 {
				errs = append(errs, field.Required(p.Child("values"), "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"))
			}
			if r.ScopeName != corev1.ResourceQuotaScopePriorityClass && r.ScopeName != corev1.ResourceQuotaScopeVolumeAttributesClass {
				errs = append(errs, field.Invalid(p.Child("operator"), r.Operator, "must be 'Exist' only operator when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"))
			}
		case corev1.ScopeSelectorOpExists, corev1.ScopeSelectorOpDoesNotExist:
			if len(r.Values) > 0 {
				errs = append(errs, field.Invalid(p.Child("values"), r.Values, "must be no value when `operator` is 'Exists' or 'DoesNotExist' for scope selector"))
			}
		default:
			errs = append(errs, field.Invalid(p.Child("operator"), r.Operator, "not a valid selector operator"))
		}
	}
	return errs
}

// checkScopeTracks: a scope of pods can bound only what pods use.
func checkScopeTracks(path *field.Path, s corev1.ResourceQuotaScope, spec *corev1.ResourceQuotaSpec) field.ErrorList {
	for _, name := range sortedKeys(spec.Hard) {
		ok := name == corev1.ResourcePods
		if s != corev1.ResourceQuotaScopeBestEffort {
			_, last, _ := strings.Cut(string(name), ".")
			ok = ok || name == corev1.ResourceCPU || name == corev1.ResourceMemory || name == corev1.ResourceEphemeralStorage ||
				last == "cpu" || last == "memory" || last == "ephemeral-storage" || strings.Contains(string(name), "/") || strings.Contains(string(name), "hugepages-")
		}
		if !ok && s != corev1.ResourceQuotaScopeVolumeAttributesClass {
			return field.ErrorList{field.Invalid(path, spec.Scopes, "unsupported scope applied to resource")}
		}
	}
	return nil
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
