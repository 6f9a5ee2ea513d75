package resource

import (
	"slices"
	"strings"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// rbacName accepts any name that can stand in a URL, as upstream does: role
// names have colons.
func rbacName(name string, prefix bool) []string {
	if prefix {
		return content.IsPathSegmentPrefix(name)
	}
	return content.IsPathSegmentName(name)
}

func rbacKind(kind, plural string, namespaced bool, newObj, newList func() runtime.Object) Resource {
	return Resource{
		Group: rbacv1.GroupName, Version: "v1", Kind: kind, Plural: plural, Namespaced: namespaced,
		UnconditionalUpdate: true, AllowCreateOnUpdate: true, ValidateName: rbacName, New: newObj, NewList: newList,
	}
}

func roles() *Resource {
	r := rbacKind("Role", "roles", true,
		func() runtime.Object { return &rbacv1.Role{} }, func() runtime.Object { return &rbacv1.RoleList{} })
	r.Columns = columns("Name", "Created At:date")
	return define(r, hooks[*rbacv1.Role]{
		Validate: func(o *rbacv1.Role) field.ErrorList { return checkRules(o.Rules, true) },
		Row: func(o *rbacv1.Role, _ time.Time) []any {
			return []any{o.Name, o.CreationTimestamp.UTC().Format(time.RFC3339)}
		},
	})
}

func clusterRoles() *Resource {
	r := rbacKind("ClusterRole", "clusterroles", false,
		func() runtime.Object { return &rbacv1.ClusterRole{} }, func() runtime.Object { return &rbacv1.ClusterRoleList{} })
	r.Columns = columns("Name", "Created At:date")
	return define(r, hooks[*rbacv1.ClusterRole]{
		Validate: func(o *rbacv1.ClusterRole) field.ErrorList {
			return append(checkRules(o.Rules, false), checkAggregation(o.AggregationRule)...)
		},
		Row: func(o *rbacv1.ClusterRole, _ time.Time) []any {
			return []any{o.Name, o.CreationTimestamp.UTC().Format(time.RFC3339)}
		},
	})
}

func checkAggregation(rule *rbacv1.AggregationRule) field.ErrorList {
	if rule == nil {
		return nil
	}
	p := field.NewPath("aggregationRule", "clusterRoleSelectors")
	if len(rule.ClusterRoleSelectors) == 0 {
		return field.ErrorList{field.Required(p, "at least one clusterRoleSelector required if aggregationRule is non-nil")}
	}
	var errs field.ErrorList
	for i := range rule.ClusterRoleSelectors {
		errs = append(errs, checkLabelSelector(p.Index(i), &rule.ClusterRoleSelectors[i])...)
	}
	return errs
}

// checkRules holds the API doc of PolicyRule: verbs always, and either
// resources with their groups or URLs, which only cluster roles may have.
func checkRules(rules []rbacv1.PolicyRule, namespaced bool) field.ErrorList {
	var errs field.ErrorList
	for i, rule := range rules {
		p := field.NewPath("rules").Index(i)
		if len(rule.Verbs) == 0 {
			errs = append(errs, field.Required(p.Child("verbs"), "verbs must contain at least one value"))
		}
		if len(rule.NonResourceURLs) > 0 {
			if namespaced {
				errs = append(errs, field.Invalid(p.Child("nonResourceURLs"), rule.NonResourceURLs, "namespaced rules cannot apply to non-resource URLs"))
			}
			if len(rule.APIGroups) > 0 || len(rule.Resources) > 0 || len(rule.ResourceNames) > 0 {
				errs = append(errs, field.Invalid(p.Child("nonResourceURLs"), rule.NonResourceURLs, "rules cannot apply to both regular resources and non-resource URLs"))
			}
			continue
		}
		if len(rule.APIGroups) == 0 {
			errs = append(errs, field.Required(p.Child("apiGroups"), "resource rules must supply at least one api group"))
		}
		if len(rule.Resources) == 0 {
			errs = append(errs, field.Required(p.Child("resources"), "resource rules must supply at least one resource"))
		}
	}
	return errs
}

func roleBindings() *Resource {
	r := rbacKind("RoleBinding", "rolebindings", true,
		func() runtime.Object { return &rbacv1.RoleBinding{} }, func() runtime.Object { return &rbacv1.RoleBindingList{} })
	r.Columns = bindingColumns()
	return define(r, hooks[*rbacv1.RoleBinding]{
		Default: func(o *rbacv1.RoleBinding) { defaultBinding(&o.RoleRef, o.Subjects) },
		Validate: func(o *rbacv1.RoleBinding) field.ErrorList {
			return checkBinding(o.RoleRef, o.Subjects, true)
		},
		ValidateUpdate: func(o, old *rbacv1.RoleBinding) field.ErrorList { return checkSameRole(o.RoleRef, old.RoleRef) },
		Row: func(o *rbacv1.RoleBinding, now time.Time) []any {
			return bindingRow(o.Name, o.RoleRef, age(o.CreationTimestamp, now), o.Subjects)
		},
	})
}

func clusterRoleBindings() *Resource {
	r := rbacKind("ClusterRoleBinding", "clusterrolebindings", false,
		func() runtime.Object { return &rbacv1.ClusterRoleBinding{} }, func() runtime.Object { return &rbacv1.ClusterRoleBindingList{} })
	r.Columns = bindingColumns()
	return define(r, hooks[*rbacv1.ClusterRoleBinding]{
		Default: func(o *rbacv1.ClusterRoleBinding) { defaultBinding(&o.RoleRef, o.Subjects) },
		Validate: func(o *rbacv1.ClusterRoleBinding) field.ErrorList {
			return checkBinding(o.RoleRef, o.Subjects, false)
		},
		ValidateUpdate: func(o, old *rbacv1.ClusterRoleBinding) field.ErrorList { return checkSameRole(o.RoleRef, old.RoleRef) },
		Row: func(o *rbacv1.ClusterRoleBinding, now time.Time) []any {
			return bindingRow(o.Name, o.RoleRef, age(o.CreationTimestamp, now), o.Subjects)
		},
	})
}

func defaultBinding(ref *rbacv1.RoleRef, subjects []rbacv1.Subject) {
	if ref.APIGroup == "" {
		ref.APIGroup = rbacv1.GroupName
	}
	for i := range subjects {
		if subjects[i].APIGroup == "" && (subjects[i].Kind == rbacv1.UserKind || subjects[i].Kind == rbacv1.GroupKind) {
			subjects[i].APIGroup = rbacv1.GroupName
		}
	}
}

func checkBinding(ref rbacv1.RoleRef, subjects []rbacv1.Subject, namespaced bool) field.ErrorList {
	var errs field.ErrorList
	p := field.NewPath("roleRef")
	if ref.APIGroup != rbacv1.GroupName {
		errs = append(errs, field.NotSupported(p.Child("apiGroup"), ref.APIGroup, []string{rbacv1.GroupName}))
	}
	kinds := []string{"ClusterRole"}
	if namespaced {
		kinds = []string{"ClusterRole", "Role"}
	}
	if !slices.Contains(kinds, ref.Kind) {
		errs = append(errs, field.NotSupported(p.Child("kind"), ref.Kind, kinds))
	}
	if ref.Name == "" {
		errs = append(errs, field.Required(p.Child("name"), ""))
	} else {
		for _, msg := range rbacName(ref.Name, false) {
			errs = append(errs, field.Invalid(p.Child("name"), ref.Name, msg))
		}
	}
	for i, s := range subjects {
		errs = append(errs, checkSubject(field.NewPath("subjects").Index(i), s, namespaced)...)
	}
	return errs
}

func checkSubject(p *field.Path, s rbacv1.Subject, namespaced bool) field.ErrorList {
	var errs field.ErrorList
	if s.Name == "" {
		errs = append(errs, field.Required(p.Child("name"), ""))
	}
	group := rbacv1.GroupName
	switch s.Kind {
	case rbacv1.ServiceAccountKind:
		group = ""
		if s.Name != "" {
			errs = append(errs, invalid(p.Child("name"), s.Name, validation.NameIsDNSSubdomain(s.Name, false))...)
		}
		if !namespaced && s.Namespace == "" {
			errs = append(errs, field.Required(p.Child("namespace"), ""))
		}
	case rbacv1.UserKind, rbacv1.GroupKind:
	default:
		return append(errs, field.NotSupported(p.Child("kind"), s.Kind, []string{rbacv1.ServiceAccountKind, rbacv1.UserKind, rbacv1.GroupKind}))
	}
	if s.APIGroup != group {
		errs = append(errs, field.NotSupported(p.Child("apiGroup"), s.APIGroup, []string{group}))
	}
	return errs
}

func checkSameRole(ref, old rbacv1.RoleRef) field.ErrorList {
	if equality.Semantic.DeepEqual(ref, old) {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("roleRef"), ref, "cannot change roleRef")}
}

func bindingColumns() []metav1.TableColumnDefinition {
	return columns("Name", "Role", "Age", "+Users", "+Groups", "+ServiceAccounts")
}

// bindingRow shows a binding as kubectl does.
func bindingRow(name string, ref rbacv1.RoleRef, age string, subjects []rbacv1.Subject) []any {
	var users, groups, accounts []string
	for _, s := range subjects {
		switch s.Kind {
		case rbacv1.UserKind:
			users = append(users, s.Name)
		case rbacv1.GroupKind:
			groups = append(groups, s.Name)
		case rbacv1.ServiceAccountKind:
			accounts = append(accounts, s.Namespace+"/"+s.Name)
		}
	}
	return []any{name, ref.Kind + "/" + ref.Name, age,
		strings.Join(users, ", "), strings.Join(groups, ", "), strings.Join(accounts, ", ")}
}
