package rbac

import (
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"

	"coracle/pkg/auth"
)

// RulesAllow says whether one of the rules allows the request. It is the plain
// reading of the rules; the Authorizer answers the same from its index.
func RulesAllow(a *auth.Attributes, rules []rbacv1.PolicyRule) bool {
	for i := range rules {
		if RuleAllows(a, &rules[i]) {
			return true
		}
	}
	return false
}

// RuleAllows says whether the rule allows the request.
func RuleAllows(a *auth.Attributes, r *rbacv1.PolicyRule) bool {
	if !hasOrAll(r.Verbs, a.Verb) {
		return false
	}
	if !a.ResourceRequest {
		return slices.ContainsFunc(r.NonResourceURLs, func(url string) bool { return urlMatches(url, a.Path) })
	}
	if !hasOrAll(r.APIGroups, a.APIGroup) {
		return false
	}
	if len(r.ResourceNames) > 0 && !slices.Contains(r.ResourceNames, a.Name) {
		return false
	}
	full := fullResource(a.Resource, a.Subresource)
	return slices.ContainsFunc(r.Resources, func(rule string) bool {
		return resourceMatches(rule, full, a.Subresource)
	})
}

func hasOrAll(list []string, s string) bool {
	return slices.ContainsFunc(list, func(e string) bool { return e == "*" || e == s })
}

func fullResource(resource, subresource string) string {
	if subresource == "" {
		return resource
	}
	return resource + "/" + subresource
}

// resourceMatches says whether a rule's resource means a request's, which is
// given with and without what is before the slash.
func resourceMatches(rule, full, subresource string) bool {
	if rule == "*" || rule == full {
		return true
	}
	rest, ok := strings.CutPrefix(rule, "*/")
	return ok && subresource != "" && rest == subresource
}

// urlMatches says whether a rule's URL means the path. The stars at its end
// stand for anything, also for nothing.
func urlMatches(rule, path string) bool {
	if rule == path {
		return true
	}
	return strings.HasSuffix(rule, "*") && strings.HasPrefix(path, strings.TrimRight(rule, "*"))
}
