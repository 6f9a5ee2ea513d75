package resource

import (
	"fmt"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const maxAuditAnnotations = 20

func validateAdmissionPolicy(p *admissionv1.ValidatingAdmissionPolicy) field.ErrorList {
	path, spec := field.NewPath("spec"), &p.Spec
	errs := checkPolicyCommon(path, spec.FailurePolicy, spec.ParamKind, spec.MatchConstraints, spec.MatchConditions, spec.Variables)
	if len(spec.Validations) == 0 && len(spec.AuditAnnotations) == 0 {
		errs = append(errs, field.Required(path.Child("validations"), "validations or auditAnnotations must contain at least one item"))
	}
	for i, v := range spec.Validations {
		vp := path.Child("validations").Index(i)
		errs = append(errs, required(vp.Child("expression"), strings.TrimSpace(v.Expression))...)
		if strings.Contains(v.Message, "\n") {
			errs = append(errs, field.Invalid(vp.Child("message"), v.Message, "message must not contain line breaks"))
		}
		if strings.Contains(v.Expression, "\n") && strings.TrimSpace(v.Message) == "" {
			errs = append(errs, field.Required(vp.Child("message"), "message must be specified if expression contains line breaks"))
		}
		if v.Reason != nil {
			errs = append(errs, checkSet(vp.Child("reason"), *v.Reason, "Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized")...)
		}
	}
	ap := path.Child("auditAnnotations")
	if len(spec.AuditAnnotations) > maxAuditAnnotations {
		errs = append(errs, field.Invalid(ap, spec.AuditAnnotations, fmt.Sprintf("must not have more than %d auditAnnotations", maxAuditAnnotations)))
	}
	keys := map[string]bool{}
	for i, a := range spec.AuditAnnotations {
		errs = append(errs, invalid(ap.Index(i).Child("key"), a.Key, utilvalidation.IsQualifiedName(p.Name+"/"+a.Key))...)
		if keys[a.Key] {
			errs = append(errs, field.Duplicate(ap.Index(i).Child("key"), a.Key))
		}
		keys[a.Key] = true
		errs = append(errs, required(ap.Index(i).Child("valueExpression"), strings.TrimSpace(a.ValueExpression))...)
	}
	return errs
}

func validateMutatingPolicy(p *admissionv1.MutatingAdmissionPolicy) field.ErrorList {
	path, spec := field.NewPath("spec"), &p.Spec
	errs := checkPolicyCommon(path, spec.FailurePolicy, spec.ParamKind, spec.MatchConstraints, spec.MatchConditions, spec.Variables)
	if len(spec.Mutations) == 0 {
		errs = append(errs, field.Required(path.Child("mutations"), "mutations must contain at least one item"))
	}
	for i, m := range spec.Mutations {
		mp := path.Child("mutations").Index(i)
		errs = append(errs, checkSet(mp.Child("patchType"), m.PatchType, admissionv1.PatchTypeApplyConfiguration, admissionv1.PatchTypeJSONPatch)...)
		switch m.PatchType {
		case admissionv1.PatchTypeApplyConfiguration:
			if m.ApplyConfiguration == nil || strings.TrimSpace(m.ApplyConfiguration.Expression) == "" {
				errs = append(errs, field.Required(mp.Child("applyConfiguration", "expression"), ""))
			}
			if m.JSONPatch != nil {
				errs = append(errs, field.Forbidden(mp.Child("jsonPatch"), "must not be set when patchType is ApplyConfiguration"))
			}
		case admissionv1.PatchTypeJSONPatch:
			if m.JSONPatch == nil || strings.TrimSpace(m.JSONPatch.Expression) == "" {
				errs = append(errs, field.Required(mp.Child("jsonPatch", "expression"), ""))
			}
			if m.ApplyConfiguration != nil {
				errs = append(errs, field.Forbidden(mp.Child("applyConfiguration"), "must not be set when patchType is JSONPatch"))
			}
		}
	}
	return append(errs, checkSet(path.Child("reinvocationPolicy"), spec.ReinvocationPolicy,
		admissionv1.IfNeededReinvocationPolicy, admissionv1.NeverReinvocationPolicy)...)
}

func checkPolicyCommon(path *field.Path, failure *admissionv1.FailurePolicyType, kind *admissionv1.ParamKind,
	match *admissionv1.MatchResources, conditions []admissionv1.MatchCondition, variables []admissionv1.Variable) field.ErrorList {
	errs := checkOptional(path.Child("failurePolicy"), failure, admissionv1.Fail, admissionv1.Ignore)
	if kind != nil {
		p := path.Child("paramKind")
		errs = append(errs, required(p.Child("kind"), kind.Kind)...)
		if gv, err := schema.ParseGroupVersion(kind.APIVersion); kind.APIVersion == "" {
			errs = append(errs, field.Required(p.Child("apiVersion"), ""))
		} else if err != nil || gv.Version == "" {
			errs = append(errs, field.Invalid(p.Child("apiVersion"), kind.APIVersion, "must be a group and version, such as apps/v1"))
		}
	}
	if p := path.Child("matchConstraints"); match == nil {
		errs = append(errs, field.Required(p, ""))
	} else {
		errs = append(errs, checkMatchResources(p, match)...)
		if len(match.ResourceRules) == 0 {
			errs = append(errs, field.Required(p.Child("resourceRules"), ""))
		}
	}
	errs = append(errs, checkConditions(path.Child("matchConditions"), conditions)...)
	names := map[string]bool{}
	for i, v := range variables {
		p := path.Child("variables").Index(i)
		errs = append(errs, required(p.Child("name"), v.Name)...)
		if names[v.Name] {
			errs = append(errs, field.Duplicate(p.Child("name"), v.Name))
		}
		names[v.Name] = true
		errs = append(errs, required(p.Child("expression"), strings.TrimSpace(v.Expression))...)
	}
	return errs
}

func checkMatchResources(path *field.Path, m *admissionv1.MatchResources) field.ErrorList {
	errs := checkLabelSelector(path.Child("namespaceSelector"), m.NamespaceSelector)
	errs = append(errs, checkLabelSelector(path.Child("objectSelector"), m.ObjectSelector)...)
	errs = append(errs, checkOptional(path.Child("matchPolicy"), m.MatchPolicy, admissionv1.Equivalent, admissionv1.Exact)...)
	for _, l := range []struct {
		name  string
		rules []admissionv1.NamedRuleWithOperations
	}{{"resourceRules", m.ResourceRules}, {"excludeResourceRules", m.ExcludeResourceRules}} {
		for i := range l.rules {
			p := path.Child(l.name).Index(i)
			errs = append(errs, checkAdmissionRule(p, &l.rules[i].RuleWithOperations)...)
			for j, name := range l.rules[i].ResourceNames {
				if slices.Index(l.rules[i].ResourceNames, name) < j {
					errs = append(errs, field.Duplicate(p.Child("resourceNames").Index(j), name))
				}
			}
		}
	}
	return errs
}

func checkPolicyBinding(policy string, ref *admissionv1.ParamRef, match *admissionv1.MatchResources) field.ErrorList {
	path := field.NewPath("spec")
	errs := checkName(path.Child("policyName"), policy, utilvalidation.IsDNS1123Subdomain)
	if match != nil {
		errs = append(errs, checkMatchResources(path.Child("matchResources"), match)...)
	}
	if ref == nil {
		return errs
	}
	p := path.Child("paramRef")
	switch {
	case ref.Name != "" && ref.Selector != nil:
		errs = append(errs, field.Forbidden(p.Child("name"), "name and selector are mutually exclusive"))
	case ref.Name == "" && ref.Selector == nil:
		errs = append(errs, field.Required(p, "one of name or selector must be specified"))
	}
	errs = append(errs, checkLabelSelector(p.Child("selector"), ref.Selector)...)
	if ref.ParameterNotFoundAction == nil {
		return append(errs, field.Required(p.Child("parameterNotFoundAction"), ""))
	}
	return append(errs, checkSet(p.Child("parameterNotFoundAction"), *ref.ParameterNotFoundAction, admissionv1.AllowAction, admissionv1.DenyAction)...)
}

func checkActions(path *field.Path, actions []admissionv1.ValidationAction) field.ErrorList {
	if len(actions) == 0 {
		return field.ErrorList{field.Required(path, "at least one validation action is required")}
	}
	var errs field.ErrorList
	for i, a := range actions {
		errs = append(errs, checkSet(path.Index(i), a, admissionv1.Audit, admissionv1.Deny, admissionv1.Warn)...)
		if slices.Index(actions, a) < i {
			errs = append(errs, field.Duplicate(path.Index(i), a))
		}
	}
	// Denied requests are not warned about: the client would be told twice.
	if slices.Contains(actions, admissionv1.Deny) && slices.Contains(actions, admissionv1.Warn) {
		errs = append(errs, field.Invalid(path, actions, "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)"))
	}
	return errs
}
