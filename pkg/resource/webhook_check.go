package resource

import (
	"net/url"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	maxWebhookTimeout  = 30
	maxMatchConditions = 64
)

func checkWebhook(path *field.Path, w *admissionv1.ValidatingWebhook, names map[string]bool) field.ErrorList {
	errs := utilvalidation.IsFullyQualifiedName(path.Child("name"), w.Name)
	if w.Name != "" && names[w.Name] {
		errs = append(errs, field.Duplicate(path.Child("name"), w.Name))
	}
	names[w.Name] = true
	errs = append(errs, checkClient(path.Child("clientConfig"), &w.ClientConfig)...)
	for i := range w.Rules {
		errs = append(errs, checkAdmissionRule(path.Child("rules").Index(i), &w.Rules[i])...)
	}
	errs = append(errs, checkOptional(path.Child("failurePolicy"), w.FailurePolicy, admissionv1.Fail, admissionv1.Ignore)...)
	errs = append(errs, checkOptional(path.Child("matchPolicy"), w.MatchPolicy, admissionv1.Equivalent, admissionv1.Exact)...)
	errs = append(errs, checkLabelSelector(path.Child("namespaceSelector"), w.NamespaceSelector)...)
	errs = append(errs, checkLabelSelector(path.Child("objectSelector"), w.ObjectSelector)...)
	if w.SideEffects == nil {
		errs = append(errs, field.Required(path.Child("sideEffects"), "must specify one of None, NoneOnDryRun"))
	} else {
		errs = append(errs, checkOptional(path.Child("sideEffects"), w.SideEffects, admissionv1.SideEffectClassNone, admissionv1.SideEffectClassNoneOnDryRun)...)
	}
	if s := w.TimeoutSeconds; s != nil && (*s < 1 || *s > maxWebhookTimeout) {
		errs = append(errs, field.Invalid(path.Child("timeoutSeconds"), *s, "the timeout value must be between 1 and 30 seconds"))
	}
	errs = append(errs, checkReviewVersions(path.Child("admissionReviewVersions"), w.AdmissionReviewVersions)...)
	return append(errs, checkConditions(path.Child("matchConditions"), w.MatchConditions)...)
}

func checkReviewVersions(path *field.Path, versions []string) field.ErrorList {
	if len(versions) == 0 {
		return field.ErrorList{field.Required(path, "must specify one of v1, v1beta1")}
	}
	var errs field.ErrorList
	known := false
	for i, v := range versions {
		if slices.Index(versions, v) < i {
			errs = append(errs, field.Invalid(path.Index(i), v, "duplicate version"))
			continue
		}
		errs = append(errs, invalid(path.Index(i), v, utilvalidation.IsDNS1035Label(v))...)
		known = known || v == "v1" || v == "v1beta1"
	}
	if !known {
		errs = append(errs, field.Invalid(path, versions, "must include at least one of v1, v1beta1"))
	}
	return errs
}

func checkClient(path *field.Path, c *admissionv1.WebhookClientConfig) field.ErrorList {
	switch {
	case (c.URL == nil) == (c.Service == nil):
		return field.ErrorList{field.Required(path, "exactly one of url or service is required")}
	case c.URL != nil:
		return checkWebhookURL(path.Child("url"), *c.URL)
	}
	p := path.Child("service")
	errs := append(required(p.Child("name"), c.Service.Name), required(p.Child("namespace"), c.Service.Namespace)...)
	if c.Service.Port == nil {
		errs = append(errs, field.Required(p.Child("port"), ""))
	} else {
		errs = append(errs, checkPortNumber(p.Child("port"), *c.Service.Port)...)
	}
	if path := c.Service.Path; path != nil {
		switch {
		case *path == "" || *path == "/":
		case !strings.HasPrefix(*path, "/"):
			errs = append(errs, field.Invalid(p.Child("path"), *path, "must start with a '/'"))
		case strings.Contains(*path, "//"):
			errs = append(errs, field.Invalid(p.Child("path"), *path, "segment may not be empty"))
		}
	}
	return errs
}

// checkWebhookURL: over TLS only, and nothing in it that a log should not show
// or that a request would add to.
func checkWebhookURL(path *field.Path, raw string) field.ErrorList {
	const form = "; desired format: https://host[/path]"
	u, err := url.Parse(raw)
	if err != nil {
		return field.ErrorList{field.Required(path, "url must be a valid URL: "+err.Error()+form)}
	}
	var errs field.ErrorList
	for _, c := range []struct {
		bad   bool
		value string
		text  string
	}{
		{u.Scheme != "https", u.Scheme, "'https' is the only allowed URL scheme"},
		{u.Host == "", u.Host, "host must be specified"},
		{u.User != nil, "user", "user information is not permitted in the URL"},
		{u.Fragment != "", u.Fragment, "fragments are not permitted in the URL"},
		{u.RawQuery != "", u.RawQuery, "query parameters are not permitted in the URL"},
	} {
		if c.bad {
			errs = append(errs, field.Invalid(path, c.value, c.text+form))
		}
	}
	return errs
}

func checkAdmissionRule(path *field.Path, r *admissionv1.RuleWithOperations) field.ErrorList {
	var errs field.ErrorList
	if len(r.Operations) == 0 {
		errs = append(errs, field.Required(path.Child("operations"), ""))
	}
	if len(r.Operations) > 1 && slices.Contains(r.Operations, admissionv1.OperationAll) {
		errs = append(errs, field.Invalid(path.Child("operations"), r.Operations, "if '*' is present, must not specify other operations"))
	}
	for i, op := range r.Operations {
		errs = append(errs, checkOptional(path.Child("operations").Index(i), &op, admissionv1.OperationAll, admissionv1.Connect,
			admissionv1.Create, admissionv1.Delete, admissionv1.Update)...)
	}
	for _, l := range []struct {
		name  string
		list  []string
		empty bool
	}{{"apiGroups", r.APIGroups, true}, {"apiVersions", r.APIVersions, false}} {
		p := path.Child(l.name)
		if len(l.list) == 0 {
			errs = append(errs, field.Required(p, ""))
		}
		if len(l.list) > 1 && slices.Contains(l.list, "*") {
			errs = append(errs, field.Invalid(p, l.list, "if '*' is present, must not specify other "+l.name))
		}
		for i, s := range l.list {
			if s == "" && !l.empty {
				errs = append(errs, field.Required(p.Index(i), ""))
			}
		}
	}
	errs = append(errs, checkRuleResources(path.Child("resources"), r.Resources)...)
	return append(errs, checkOptional(path.Child("scope"), r.Scope, admissionv1.AllScopes, admissionv1.ClusterScope, admissionv1.NamespacedScope)...)
}

// checkRuleResources wants resources, "resource/subresource", or a wildcard in
// the place of one or of both, that says nothing which another says, too.
func checkRuleResources(path *field.Path, list []string) field.ErrorList {
	if len(list) == 0 {
		return field.ErrorList{field.Required(path, "")}
	}
	var errs field.ErrorList
	all, every := map[string]bool{}, map[string]bool{} // the x of x/* and of */x
	plain := false
	for i, s := range list {
		if s == "" {
			errs = append(errs, field.Required(path.Index(i), ""))
			continue
		}
		kind, sub, ok := strings.Cut(s, "/")
		if !ok {
			plain = plain || s != "*"
			continue
		}
		if all[kind] {
			errs = append(errs, field.Invalid(path.Index(i), s, "if '"+kind+"/*' is present, must not specify "+s))
		}
		if every[sub] {
			errs = append(errs, field.Invalid(path.Index(i), s, "if '*/"+sub+"' is present, must not specify "+s))
		}
		all[kind] = all[kind] || sub == "*"
		every[sub] = every[sub] || kind == "*"
	}
	if len(list) > 1 && slices.Contains(list, "*/*") {
		errs = append(errs, field.Invalid(path, list, "if '*/*' is present, must not specify other resources"))
	}
	if plain && slices.Contains(list, "*") {
		errs = append(errs, field.Invalid(path, list, "if '*' is present, must not specify other resources without subresources"))
	}
	return errs
}

// checkConditions checks all but the expressions, which the caller compiles.
func checkConditions(path *field.Path, list []admissionv1.MatchCondition) field.ErrorList {
	var errs field.ErrorList
	if len(list) > maxMatchConditions {
		errs = append(errs, field.TooMany(path, len(list), maxMatchConditions))
	}
	names := map[string]bool{}
	for i, c := range list {
		p := path.Index(i)
		errs = append(errs, checkName(p.Child("name"), c.Name, utilvalidation.IsQualifiedName)...)
		if c.Name != "" && names[c.Name] {
			errs = append(errs, field.Duplicate(p.Child("name"), c.Name))
		}
		names[c.Name] = true
		errs = append(errs, required(p.Child("expression"), strings.TrimSpace(c.Expression))...)
	}
	return errs
}
