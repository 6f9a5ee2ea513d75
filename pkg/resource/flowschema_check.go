package resource

import (
	"slices"
	"strings"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validateFlowSchemaStatus(f, _ *flowcontrolv1.FlowSchema) field.ErrorList {
	types := make([]string, len(f.Status.Conditions))
	for i := range types {
		types[i] = string(f.Status.Conditions[i].Type)
	}
	return checkConditionTypes(types)
}

// checkConditionTypes: of the conditions of a flow schema or a priority level
// only the types are checked.
func checkConditionTypes(types []string) field.ErrorList {
	var errs field.ErrorList
	for i, t := range types {
		p := field.NewPath("status", "conditions").Index(i).Child("type")
		if slices.Index(types, t) < i {
			errs = append(errs, field.Duplicate(p, t))
		}
		errs = append(errs, required(p, t)...)
	}
	return errs
}

func checkFlowRule(path *field.Path, r *flowcontrolv1.PolicyRulesWithSubjects) field.ErrorList {
	var errs field.ErrorList
	if len(r.Subjects) == 0 {
		errs = append(errs, field.Required(path.Child("subjects"), "subjects must contain at least one value"))
	}
	for i := range r.Subjects {
		errs = append(errs, checkFlowSubject(path.Child("subjects").Index(i), &r.Subjects[i])...)
	}
	if len(r.ResourceRules) == 0 && len(r.NonResourceRules) == 0 {
		errs = append(errs, field.Required(path, "at least one of resourceRules and nonResourceRules has to be non-empty"))
	}
	for i := range r.ResourceRules {
		errs = append(errs, checkFlowResources(path.Child("resourceRules").Index(i), &r.ResourceRules[i])...)
	}
	for i, nr := range r.NonResourceRules {
		p := path.Child("nonResourceRules").Index(i)
		errs = append(errs, checkFlowVerbs(p.Child("verbs"), nr.Verbs)...)
		urls := p.Child("nonResourceURLs")
		errs = append(errs, checkAllOrSome(urls, "non-resource URLs", nr.NonResourceURLs)...)
		for j, u := range nr.NonResourceURLs {
			if text := wrongURLPath(u); text != "" && u != "*" {
				errs = append(errs, field.Invalid(urls.Index(j), u, text))
			}
		}
	}
	return errs
}

// checkFlowSubject wants the one member that the kind names.
func checkFlowSubject(path *field.Path, s *flowcontrolv1.Subject) field.ErrorList {
	errs := checkOptional(path.Child("kind"), &s.Kind, flowcontrolv1.SubjectKindGroup,
		flowcontrolv1.SubjectKindServiceAccount, flowcontrolv1.SubjectKindUser)
	if len(errs) > 0 {
		return errs
	}
	for _, m := range []struct {
		name string
		kind flowcontrolv1.SubjectKind
		set  bool
	}{
		{"user", flowcontrolv1.SubjectKindUser, s.User != nil}, {"group", flowcontrolv1.SubjectKindGroup, s.Group != nil},
		{"serviceAccount", flowcontrolv1.SubjectKindServiceAccount, s.ServiceAccount != nil},
	} {
		switch is := m.kind == s.Kind; {
		case is && !m.set:
			errs = append(errs, field.Required(path.Child(m.name), m.name+" is required when subject kind is '"+string(m.kind)+"'"))
		case !is && m.set:
			errs = append(errs, field.Forbidden(path.Child(m.name), m.name+" is forbidden when subject kind is not '"+string(m.kind)+"'"))
		}
	}
	switch {
	case len(errs) > 0:
	case s.User != nil:
		errs = required(path.Child("user", "name"), s.User.Name)
	case s.Group != nil:
		errs = required(path.Child("group", "name"), s.Group.Name)
	default:
		a, p := s.ServiceAccount, path.Child("serviceAccount")
		if a.Name != "*" {
			errs = checkName(p.Child("name"), a.Name, func(n string) []string { return validation.ValidateServiceAccountName(n, false) })
		}
		errs = append(errs, checkName(p.Child("namespace"), a.Namespace, func(n string) []string { return validation.ValidateNamespaceName(n, false) })...)
	}
	return errs
}

func checkFlowResources(path *field.Path, r *flowcontrolv1.ResourcePolicyRule) field.ErrorList {
	errs := checkFlowVerbs(path.Child("verbs"), r.Verbs)
	errs = append(errs, checkAllOrSome(path.Child("apiGroups"), "api groups", r.APIGroups)...)
	errs = append(errs, checkAllOrSome(path.Child("resources"), "resources", r.Resources)...)
	p := path.Child("namespaces")
	if len(r.Namespaces) == 0 {
		if !r.ClusterScope {
			errs = append(errs, field.Required(p, "resource rules that are not cluster scoped must supply at least one namespace"))
		}
		return errs
	}
	errs = append(errs, checkAllOrSome(p, "namespaces", r.Namespaces)...)
	if slices.Contains(r.Namespaces, "*") {
		return errs
	}
	for i, n := range r.Namespaces {
		for _, text := range validation.ValidateNamespaceName(n, false) {
			errs = append(errs, field.Invalid(p.Index(i), n, "each member of this list must be '*' or a DNS-1123 label; "+text))
		}
	}
	return errs
}

func checkFlowVerbs(path *field.Path, verbs []string) field.ErrorList {
	known := []string{"create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"}
	errs := checkAllOrSome(path, "verbs", verbs)
	if slices.Contains(verbs, "*") {
		return errs
	}
	for _, v := range verbs {
		if !slices.Contains(known, v) {
			return append(errs, field.NotSupported(path, verbs, known))
		}
	}
	return errs
}

// checkAllOrSome wants values, or "*" alone.
func checkAllOrSome(path *field.Path, what string, values []string) field.ErrorList {
	switch {
	case len(values) == 0:
		return field.ErrorList{field.Required(path, what+" must contain at least one value")}
	case len(values) > 1 && slices.Contains(values, "*"):
		return field.ErrorList{field.Invalid(path, values, "if '*' is present, must not specify other "+what)}
	}
	return nil
}

// wrongURLPath says what is wrong with a path that may end in "/*".
func wrongURLPath(path string) string {
	switch stars := strings.Count(path, "*"); {
	case path == "":
		return "must not be empty"
	case !strings.HasPrefix(path, "/"):
		return "must start with slash"
	case strings.Contains(path, " "):
		return "must not contain white-space"
	case strings.Contains(path, "//"):
		return "must not contain double slash"
	case stars > 1 || stars == 1 && !strings.HasSuffix(path, "/*"):
		return "wildcard can only do suffix matching"
	}
	return ""
}
