package resource

import (
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The expressions of policies are not compiled here: whoever evaluates them
// does that, and refuses what does not compile.

func validatingAdmissionPolicies() *Resource {
	return define(Resource{
		Group: admissionGroup, Version: "v1", Kind: "ValidatingAdmissionPolicy", Plural: "validatingadmissionpolicies",
		Categories:    []string{"api-extensions"},
		HasStatus:     true,
		HasGeneration: true,
		New:           func() runtime.Object { return &admissionv1.ValidatingAdmissionPolicy{} },
		NewList:       func() runtime.Object { return &admissionv1.ValidatingAdmissionPolicyList{} },
		Columns:       columns("Name", "Validations:integer", "ParamKind", "Age"),
	}, hooks[*admissionv1.ValidatingAdmissionPolicy]{
		Default: func(p *admissionv1.ValidatingAdmissionPolicy) {
			if p.Spec.FailurePolicy == nil {
				p.Spec.FailurePolicy = new(admissionv1.Fail)
			}
			defaultMatchResources(p.Spec.MatchConstraints)
		},
		Validate:       validateAdmissionPolicy,
		ValidateStatus: validateAdmissionPolicyStatus,
		Row: func(p *admissionv1.ValidatingAdmissionPolicy, now time.Time) []any {
			return []any{p.Name, int64(len(p.Spec.Validations)), paramKindText(p.Spec.ParamKind), age(p.CreationTimestamp, now)}
		},
	})
}

func mutatingAdmissionPolicies() *Resource {
	return define(Resource{
		Group: admissionGroup, Version: "v1", Kind: "MutatingAdmissionPolicy", Plural: "mutatingadmissionpolicies",
		Categories:    []string{"api-extensions"},
		HasGeneration: true,
		New:           func() runtime.Object { return &admissionv1.MutatingAdmissionPolicy{} },
		NewList:       func() runtime.Object { return &admissionv1.MutatingAdmissionPolicyList{} },
		Columns:       columns("Name", "Mutations:integer", "ParamKind", "Age"),
	}, hooks[*admissionv1.MutatingAdmissionPolicy]{
		Default: func(p *admissionv1.MutatingAdmissionPolicy) {
			if p.Spec.FailurePolicy == nil {
				p.Spec.FailurePolicy = new(admissionv1.Fail)
			}
			defaultMatchResources(p.Spec.MatchConstraints)
		},
		Validate: validateMutatingPolicy,
		Row: func(p *admissionv1.MutatingAdmissionPolicy, now time.Time) []any {
			return []any{p.Name, int64(len(p.Spec.Mutations)), paramKindText(p.Spec.ParamKind), age(p.CreationTimestamp, now)}
		},
	})
}

func validatingAdmissionPolicyBindings() *Resource {
	return define(Resource{
		Group: admissionGroup, Version: "v1", Kind: "ValidatingAdmissionPolicyBinding", Plural: "validatingadmissionpolicybindings",
		Categories:    []string{"api-extensions"},
		HasGeneration: true,
		New:           func() runtime.Object { return &admissionv1.ValidatingAdmissionPolicyBinding{} },
		NewList:       func() runtime.Object { return &admissionv1.ValidatingAdmissionPolicyBindingList{} },
		Columns:       columns("Name", "PolicyName", "ParamRef", "Age"),
	}, hooks[*admissionv1.ValidatingAdmissionPolicyBinding]{
		Default: func(b *admissionv1.ValidatingAdmissionPolicyBinding) { defaultMatchResources(b.Spec.MatchResources) },
		Validate: func(b *admissionv1.ValidatingAdmissionPolicyBinding) field.ErrorList {
			errs := checkPolicyBinding(b.Spec.PolicyName, b.Spec.ParamRef, b.Spec.MatchResources)
			return append(errs, checkActions(field.NewPath("spec", "validationActions"), b.Spec.ValidationActions)...)
		},
		Row: func(b *admissionv1.ValidatingAdmissionPolicyBinding, now time.Time) []any {
			return []any{b.Name, b.Spec.PolicyName, paramRefText(b.Spec.ParamRef), age(b.CreationTimestamp, now)}
		},
	})
}

func mutatingAdmissionPolicyBindings() *Resource {
	return define(Resource{
		Group: admissionGroup, Version: "v1", Kind: "MutatingAdmissionPolicyBinding", Plural: "mutatingadmissionpolicybindings",
		Categories:    []string{"api-extensions"},
		HasGeneration: true,
		New:           func() runtime.Object { return &admissionv1.MutatingAdmissionPolicyBinding{} },
		NewList:       func() runtime.Object { return &admissionv1.MutatingAdmissionPolicyBindingList{} },
		Columns:       columns("Name", "PolicyName", "ParamRef", "Age"),
	}, hooks[*admissionv1.MutatingAdmissionPolicyBinding]{
		Default: func(b *admissionv1.MutatingAdmissionPolicyBinding) { defaultMatchResources(b.Spec.MatchResources) },
		Validate: func(b *admissionv1.MutatingAdmissionPolicyBinding) field.ErrorList {
			return checkPolicyBinding(b.Spec.PolicyName, b.Spec.ParamRef, b.Spec.MatchResources)
		},
		Row: func(b *admissionv1.MutatingAdmissionPolicyBinding, now time.Time) []any {
			return []any{b.Name, b.Spec.PolicyName, paramRefText(b.Spec.ParamRef), age(b.CreationTimestamp, now)}
		},
	})
}

func defaultMatchResources(m *admissionv1.MatchResources) {
	if m == nil {
		return
	}
	defaultMatch(&m.MatchPolicy, &m.NamespaceSelector, &m.ObjectSelector)
	for _, rules := range [][]admissionv1.NamedRuleWithOperations{m.ResourceRules, m.ExcludeResourceRules} {
		for i := range rules {
			defaultScope(&rules[i].Rule)
		}
	}
}

func paramKindText(k *admissionv1.ParamKind) string {
	if k == nil {
		return "<unset>"
	}
	return k.APIVersion + "/" + k.Kind
}

func paramRefText(r *admissionv1.ParamRef) string {
	switch {
	case r == nil:
		return "<unset>"
	case r.Namespace != "" && r.Name != "":
		return r.Namespace + "/" + r.Name
	case r.Name != "":
		return "*/" + r.Name
	}
	return "*"
}
