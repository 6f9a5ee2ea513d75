package policy

import (
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"

	"coracle/pkg/auth"
)

// Hardened returns the roles and bindings of a hardened cluster. The roles for
// users hold nothing by which they get the rights of others: no lists of
// secrets, no impersonation, no tokens of service accounts. cluster-admin is
// bound to one user. Roles of the cluster's own parts are as everywhere.
func Hardened() *Objects {
	users := userRoles()
	for _, r := range users {
		if r.Name == "cluster-admin" {
			continue
		}
		var rules []rbacv1.PolicyRule
		for _, rule := range r.Rules {
			rules = append(rules, narrowed(rule)...)
		}
		r.Rules = rules
	}
	o := assemble(users)
	for _, r := range o.ClusterRoles {
		if r.Name == "system:kubelet-api-admin" {
			for i := range r.Rules {
				if slices.Equal(r.Rules[i].Verbs, []string{"*"}) {
					r.Rules[i].Verbs = []string{"create", "delete", "get", "patch", "update"}
				}
			}
		}
	}
	for _, b := range o.ClusterRoleBindings {
		if b.Name == "cluster-admin" {
			b.Subjects = []rbacv1.Subject{user(auth.UserAdmin)}
		}
	}
	return o
}

// narrowed is a rule without what leads to the rights of others. It may be
// nothing.
func narrowed(rule rbacv1.PolicyRule) []rbacv1.PolicyRule {
	rule.Verbs = slices.DeleteFunc(slices.Clone(rule.Verbs), func(v string) bool {
		return v == "impersonate" || v == "escalate" || v == "bind"
	})
	var out []rbacv1.PolicyRule
	if i := slices.Index(rule.Resources, "secrets"); i >= 0 {
		secrets := rule
		secrets.Resources = []string{"secrets"}
		secrets.Verbs = slices.DeleteFunc(slices.Clone(rule.Verbs), func(v string) bool { return v == "list" || v == "watch" })
		rule.Resources = slices.Delete(slices.Clone(rule.Resources), i, i+1)
		out = append(out, secrets)
	}
	rule.Resources = slices.DeleteFunc(slices.Clone(rule.Resources), func(r string) bool {
		return r == "serviceaccounts/token" || r == "nodes/proxy"
	})
	out = append(out, rule)
	return slices.DeleteFunc(out, func(r rbacv1.PolicyRule) bool {
		return len(r.Verbs) == 0 || len(r.Resources) == 0 && len(r.NonResourceURLs) == 0
	})
}
