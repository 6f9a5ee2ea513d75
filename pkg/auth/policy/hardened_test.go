package policy

import (
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"

	"coracle/pkg/auth"
)

// temptations are what leads from one's own rights to those of others.
func temptations(rule *rbacv1.PolicyRule) (found []string) {
	verb := func(verbs ...string) bool {
		return slices.ContainsFunc(verbs, func(v string) bool { return slices.Contains(rule.Verbs, v) || slices.Contains(rule.Verbs, "*") })
	}
	on := func(resources ...string) bool {
		return slices.ContainsFunc(resources, func(r string) bool {
			return slices.Contains(rule.Resources, r) || slices.Contains(rule.Resources, "*")
		})
	}
	write := []string{"create", "update", "patch", "delete", "deletecollection"}
	for what, is := range map[string]bool{
		"wildcard verb":     slices.Contains(rule.Verbs, "*"),
		"wildcard resource": slices.Contains(rule.Resources, "*") || slices.Contains(rule.APIGroups, "*"),
		"list of secrets":   on("secrets") && verb("list", "watch"),
		"nodes/proxy":       on("nodes/proxy"),
		"escalate":          verb("escalate"),
		"bind":              verb("bind"),
		"impersonate":       verb("impersonate"),
		"token":             on("serviceaccounts/token") && verb("create"),
		"approval":          on("certificatesigningrequests/approval") || verb("approve"),
		"webhook":           on("mutatingwebhookconfigurations", "validatingwebhookconfigurations") && verb(write...),
		"volume":            on("persistentvolumes") && verb(write...),
	} {
		if is {
			found = append(found, what)
		}
	}
	return found
}

// TestHardenedRoles: no role for users has what leads to more rights, and nobody
// but one user is bound to what has.
func TestHardenedRoles(t *testing.T) {
	o := Hardened()
	tempted := map[string]bool{}
	for _, r := range o.ClusterRoles {
		for i := range r.Rules {
			for _, what := range temptations(&r.Rules[i]) {
				tempted[r.Name] = true
				// The cluster's own parts do what users may not: collect what is left
				// of kinds that nobody knew, sign, make tokens and volumes.
				own := strings.HasPrefix(r.Name, "system:") && !strings.HasPrefix(r.Name, "system:aggregate")
				aggregator := r.Name == "system:controller:clusterrole-aggregation-controller"
				if r.Name != "cluster-admin" && (!own || what == "wildcard verb" || what == "escalate" && !aggregator) {
					t.Errorf("%s has a %s: %+v", r.Name, what, r.Rules[i])
				}
			}
		}
	}
	if !tempted["cluster-admin"] || !tempted["system:controller:certificate-controller"] || !tempted["system:kubelet-api-admin"] {
		t.Errorf("the test finds nothing in roles that have it all: %v", tempted)
	}
	for _, b := range o.ClusterRoleBindings {
		for _, s := range b.Subjects {
			own := s.Kind == rbacv1.ServiceAccountKind && s.Namespace == "kube-system" || strings.HasPrefix(s.Name, "system:") && s.Kind == rbacv1.UserKind ||
				s.Name == auth.UserKubeletClient || b.RoleRef.Name == "cluster-admin" && s == user(auth.UserAdmin)
			if tempted[b.RoleRef.Name] && !own {
				t.Errorf("%s gives %s to %+v", b.Name, b.RoleRef.Name, s)
			}
		}
	}
}

// TestHardenedRolesStillServe: what is left is enough to work with, and is less
// than by default.
func TestHardenedRolesStillServe(t *testing.T) {
	find := func(o *Objects, name string) []rbacv1.PolicyRule {
		for _, r := range o.ClusterRoles {
			if r.Name == name {
				return r.Rules
			}
		}
		t.Fatalf("there is no role %s", name)
		return nil
	}
	allows := func(rules []rbacv1.PolicyRule, verb, group, resource string) bool {
		return slices.ContainsFunc(rules, func(r rbacv1.PolicyRule) bool {
			return slices.Contains(r.Verbs, verb) && slices.Contains(r.APIGroups, group) && slices.Contains(r.Resources, resource)
		})
	}
	for _, name := range []string{"admin", "edit"} {
		hard, soft := find(Hardened(), name), find(Default(), name)
		for _, c := range []struct {
			verb, group, resource string
			want                  bool
		}{
			{"get", "", "secrets", true}, {"create", "", "secrets", true}, {"list", "", "secrets", false}, {"watch", "", "secrets", false},
			{"list", "", "pods", true}, {"create", "", "pods/exec", true}, {"update", "apps", "deployments", true}, {"list", "", "services/proxy", true},
			{"impersonate", "", "serviceaccounts", false}, {"create", "", "serviceaccounts/token", false}, {"create", "", "serviceaccounts", true},
		} {
			if got := allows(hard, c.verb, c.group, c.resource); got != c.want {
				t.Errorf("%s: %s %s is %v", name, c.verb, c.resource, got)
			}
			if !allows(soft, c.verb, c.group, c.resource) {
				t.Errorf("%s: %s %s is not allowed by default", name, c.verb, c.resource)
			}
		}
	}
}
