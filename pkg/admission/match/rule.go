package match

import (
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"coracle/pkg/admission"
)

// named says whether a list names a text, or everything.
func named(list []string, text string) bool {
	return slices.Contains(list, "*") || slices.Contains(list, text)
}

// covers says whether a rule is about a request, taken as one for the given
// resource.
func covers(r *admissionv1.NamedRuleWithOperations, a *admission.Attributes, gvr schema.GroupVersionResource) bool {
	if !inScope(r.Scope, a) || !named(r.APIGroups, gvr.Group) || !named(r.APIVersions, gvr.Version) {
		return false
	}
	if len(r.ResourceNames) > 0 && !slices.Contains(r.ResourceNames, a.Name) {
		return false
	}
	if !slices.Contains(r.Operations, admissionv1.OperationAll) && !slices.Contains(r.Operations, admissionv1.OperationType(a.Operation)) {
		return false
	}
	return slices.ContainsFunc(r.Resources, func(entry string) bool {
		kind, sub, _ := strings.Cut(entry, "/")
		return (kind == "*" || kind == gvr.Resource) && (sub == "*" || sub == a.Subresource)
	})
}

func inScope(scope *admissionv1.ScopeType, a *admission.Attributes) bool {
	if scope == nil || *scope == admissionv1.AllScopes {
		return true
	}
	return (*scope == admissionv1.NamespacedScope) == a.Resource.Namespaced
}

// Exempt says that nobody is asked about a request: about what configures
// these very questions, so that a mistake in it can be mended, and about what
// the server does itself.
func Exempt(a *admission.Attributes) bool {
	if a.Internal {
		return true
	}
	if a.Resource.Group != admissionv1.GroupName {
		return false
	}
	switch a.Resource.Plural {
	case "mutatingwebhookconfigurations", "validatingwebhookconfigurations",
		"validatingadmissionpolicies", "validatingadmissionpolicybindings",
		"mutatingadmissionpolicies", "mutatingadmissionpolicybindings":
		return true
	}
	return false
}
