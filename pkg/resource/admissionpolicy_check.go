package resource

import (
	"fmt"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	maxAuditAnnotations = 20
	maxAuditExpression  = 5 * 1024
)

func validateAdmissionPolicy(p *admissionv1.ValidatingAdmissionPolicy) field.ErrorList {
	path, spec := field.NewPath("spec"), &p.Spec
	errs := checkPolicyCommon(path, spec.FailurePolicy, spec.ParamKind, spec.MatchConstraints, spec.MatchConditions, spec.Variables)
	if len(spec.Validations) == 0 && len(spec.AuditAnnotations) == 0 {
		const text = "validations or auditAnnotations must contain at least one item"
		errs = append(errs, field.Required(path.Child("validations"), text), field.Required(path.Child("auditAnnotations"), text))
	}
	for i, v := range spec.Validations {
		errs = append(errs, checkValidation(path.Child("validations").Index(i), &v)...)
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
		ep, expression := ap.Index(i).Child("valueExpression"), strings.TrimSpace(a.ValueExpression)
		errs = append(errs, required(ep, expression)...)
		if len(expression) > maxAuditExpression {
			errs = append(errs, field.Required(ep, fmt.Sprintf("must not exceed %d bytes in length", maxAuditExpression)))
		}
	}
	return errs
}

func checkValidation(path *field.Path, v *admissionv1.Validation) field.ErrorList {
	errs := required(path.Child("expression"), strings.TrimSpace(v.Expression))
	if v.MessageExpression != "" && strings.TrimSpace(v.MessageExpression) == "" {
		errs = append(errs, field.Invalid(path.Child("messageExpression"), v.MessageExpression, "must be non-empty if specified"))
	}
	switch message := strings.TrimSpace(v.Message); {
	case v.Message != "" && message == "":
		errs = append(errs, field.Invalid(path.Child("message"), v.Message, "message must be non-empty if specified"))
	case strings.ContainsAny(message, "\n\r"):
		errs = append(errs, field.Invalid(path.Child("message"), v.Message, "message must not contain line breaks"))
	}
	return append(errs, checkOptional(path.Child("reason"), v.Reason, "Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized")...)
}

func validateAdmissionPolicyStatus(p, _ *admissionv1.ValidatingAdmissionPolicy) field.ErrorList {
	path := field.NewPath("status")
	errs := metav1validation.ValidateConditions(p.Status.Conditions, path.Child("conditions"))
	if c := p.Status.TypeChecking; c != nil {
		for i, w := range c.ExpressionWarnings {
			wp := path.Child("typeChecking", "expressionWarnings").Index(i)
			errs = append(errs, required(wp.Child("warning"), w.Warning)...)
			errs = append(errs, required(wp.Child("fieldRef"), strings.TrimSpace(w.FieldRef))...)
		}
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
		errs = append(errs, checkParamKind(path.Child("paramKind"), kind)...)
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
	for i, v := range variables {
		p := path.Child("variables").Index(i)
		switch {
		case strings.TrimSpace(v.Name) == "":
			errs = append(errs, field.Required(p.Child("name"), "name is not specified"))
		case !celIdentifier(v.Name):
			errs = append(errs, field.Invalid(p.Child("name"), v.Name, "name is not a valid CEL identifier"))
		}
		errs = append(errs, required(p.Child("expression"), strings.TrimSpace(v.Expression))...)
	}
	return errs
}

func celIdentifier(name string) bool {
	reserved := []string{"true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if",
		"import", "let", "loop", "package", "namespace", "return", "var", "void", "while"}
	return len(utilvalidation.IsCIdentifier(name)) == 0 && !slices.Contains(reserved, name)
}

func checkParamKind(path *field.Path, kind *admissionv1.ParamKind) field.ErrorList {
	var errs field.ErrorList
	p := path.Child("apiVersion")
	gv, err := schema.ParseGroupVersion(kind.APIVersion)
	switch {
	case kind.APIVersion == "":
		errs = append(errs, field.Required(p, ""))
	case err != nil:
		errs = append(errs, field.Invalid(p, kind.APIVersion, err.Error()))
	default:
		if gv.Group != "" {
			errs = append(errs, invalid(p, gv.Group, utilvalidation.IsDNS1123Subdomain(gv.Group))...)
		}
		if gv.Version == "" {
			errs = append(errs, field.Invalid(p, kind.APIVersion, "version must be specified"))
		} else {
			errs = append(errs, invalid(p, gv.Version, utilvalidation.IsDNS1035Label(gv.Version))...)
		}
	}
	if kind.Kind == "" {
		return append(errs, field.Required(path.Child("kind"), ""))
	}
	for _, text := range utilvalidation.IsDNS1035Label(strings.ToLower(kind.Kind)) {
		errs = append(errs, field.Invalid(path.Child("kind"), kind.Kind, "may have mixed case, but should otherwise match: "+text))
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
				errs = append(errs, invalid(p.Child("resourceNames").Index(j), name, content.IsPathSegmentName(name))...)
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
		const text = "name and selector are mutually exclusive"
		errs = append(errs, field.Forbidden(p.Child("name"), text), field.Forbidden(p.Child("selector"), text))
	case ref.Name == "" && ref.Selector == nil:
		errs = append(errs, field.Required(p, "one of name or selector must be specified"))
	}
	if ref.Name != "" {
		errs = append(errs, invalid(p.Child("name"), ref.Name, content.IsPathSegmentName(ref.Name))...)
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
		errs = append(errs, checkOptional(path.Index(i), &a, admissionv1.Audit, admissionv1.Deny, admissionv1.Warn)...)
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
