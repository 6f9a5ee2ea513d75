package rbac

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"coracle/pkg/auth"
)

// EscalationError says that a user tries to grant what it does not hold: a
// 403.
type EscalationError struct {
	User *auth.User
	// Missing are the rights not held; empty when Detail says it all.
	Missing []rbacv1.PolicyRule
	// Detail names what went wrong besides, such as roles of the user that do
	// not exist.
	Detail string
}

func (e *EscalationError) Error() string {
	if len(e.Missing) == 0 {
		return e.Detail
	}
	lines := make([]string, 0, len(e.Missing))
	for _, r := range compact(e.Missing) {
		lines = append(lines, ruleText(&r))
	}
	slices.Sort(lines)
	text := fmt.Sprintf("user %q (groups=%q) is attempting to grant RBAC permissions not currently held:\n%s",
		e.User.Name, e.User.Groups, strings.Join(lines, "\n"))
	if e.Detail != "" {
		text += "; resolution errors: " + e.Detail
	}
	return text
}

// Guard keeps users from granting, by writing roles and bindings, more than
// they hold. Each method returns nil, an *EscalationError, or for a binding
// the NotFound of the role it refers to. It is the caller's to skip writes
// that only change metadata.
type Guard struct {
	// Authorizer is the whole chain, so that members of system:masters pass.
	Authorizer auth.Authorizer
	// Rules tells what users hold.
	Rules *Authorizer
}

// Role checks a Role that is created (old is nil) or updated.
func (g *Guard) Role(ctx context.Context, u *auth.User, old, role *rbacv1.Role) error {
	if old != nil && equality.Semantic.DeepEqual(old.Rules, role.Rules) {
		return nil
	}
	if g.may(ctx, u, "escalate", "roles", role.Namespace, role.Name) {
		return nil
	}
	return g.confirm(u, role.Namespace, role.Rules)
}

// ClusterRole checks a ClusterRole that is created (old is nil) or updated.
func (g *Guard) ClusterRole(ctx context.Context, u *auth.User, old, role *rbacv1.ClusterRole) error {
	if old != nil && equality.Semantic.DeepEqual(old.Rules, role.Rules) && equality.Semantic.DeepEqual(old.AggregationRule, role.AggregationRule) {
		return nil
	}
	if g.may(ctx, u, "escalate", "clusterroles", "", role.Name) {
		return nil
	}
	if err := g.confirm(u, "", role.Rules); err != nil {
		return err
	}
	aggregates := role.AggregationRule != nil && len(role.AggregationRule.ClusterRoleSelectors) > 0
	if !aggregates || (old != nil && equality.Semantic.DeepEqual(old.AggregationRule, role.AggregationRule)) {
		return nil
	}
	// What an aggregated role will hold is not known, so it may be anything.
	if g.confirm(u, "", fullAuthority()) != nil {
		return &EscalationError{User: u, Detail: "must have cluster-admin privileges to use the aggregationRule"}
	}
	return nil
}

// RoleBinding checks a RoleBinding that is created or updated.
func (g *Guard) RoleBinding(ctx context.Context, u *auth.User, b *rbacv1.RoleBinding) error {
	return g.binding(ctx, u, &b.RoleRef, b.Namespace)
}

// ClusterRoleBinding checks a ClusterRoleBinding that is created or updated.
func (g *Guard) ClusterRoleBinding(ctx context.Context, u *auth.User, b *rbacv1.ClusterRoleBinding) error {
	return g.binding(ctx, u, &b.RoleRef, "")
}

func (g *Guard) binding(ctx context.Context, u *auth.User, ref *rbacv1.RoleRef, namespace string) error {
	resource := "clusterroles"
	if ref.Kind == "Role" {
		resource = "roles"
	}
	if g.may(ctx, u, "bind", resource, namespace, ref.Name) {
		return nil
	}
	rules, err := resolveRef(g.Rules.source, ref, namespace)
	if err != nil {
		return err
	}
	return g.confirm(u, namespace, rules)
}

// may asks for a verb of its own on the role, which lifts the check.
func (g *Guard) may(ctx context.Context, u *auth.User, verb, resource, namespace, name string) bool {
	if u.InGroup(auth.GroupMasters) {
		return true
	}
	d, _, _ := g.Authorizer.Authorize(ctx, auth.Attributes{
		User:            u,
		Verb:            verb,
		Namespace:       namespace,
		APIGroup:        rbacv1.GroupName,
		APIVersion:      "*",
		Resource:        resource,
		Name:            name,
		ResourceRequest: true,
	})
	return d == auth.Allow
}

// confirm says whether the user holds the rules in the namespace itself.
func (g *Guard) confirm(u *auth.User, namespace string, rules []rbacv1.PolicyRule) error {
	held, resolveErr := g.Rules.PolicyRules(u, namespace)
	return ConfirmNoEscalation(u, held, rules, resolveErr)
}

// ConfirmNoEscalation returns an *EscalationError unless held covers wanted.
// resolveErr, if any, is what kept held from being complete, and is told.
func ConfirmNoEscalation(u *auth.User, held, wanted []rbacv1.PolicyRule, resolveErr error) error {
	missing, err := Covers(held, wanted)
	if err != nil {
		return &EscalationError{User: u, Detail: err.Error()}
	}
	if len(missing) == 0 {
		return nil
	}
	e := &EscalationError{User: u, Missing: missing}
	if resolveErr != nil {
		e.Detail = resolveErr.Error()
	}
	return e
}

// IsEscalation says whether err is or wraps an *EscalationError.
func IsEscalation(err error) bool {
	var e *EscalationError
	return errors.As(err, &e)
}

func fullAuthority() []rbacv1.PolicyRule {
	all := []string{"*"}
	return []rbacv1.PolicyRule{
		{Verbs: all, APIGroups: all, Resources: all},
		{Verbs: all, NonResourceURLs: all},
	}
}

// compact joins single rights on the same group, resource and name into one
// rule with all their verbs, for people to read.
func compact(parts []rbacv1.PolicyRule) []rbacv1.PolicyRule {
	at := map[string]int{}
	var out []rbacv1.PolicyRule
	for _, p := range parts {
		key := fmt.Sprintf("%q %q %q %q", p.APIGroups, p.Resources, p.ResourceNames, p.NonResourceURLs)
		if i, ok := at[key]; ok {
			if !slices.Contains(out[i].Verbs, p.Verbs[0]) {
				out[i].Verbs = append(out[i].Verbs, p.Verbs[0])
			}
			continue
		}
		at[key] = len(out)
		p.Verbs = slices.Clone(p.Verbs)
		out = append(out, p)
	}
	return out
}

func ruleText(r *rbacv1.PolicyRule) string {
	var fields []string
	add := func(name string, values []string) {
		if len(values) > 0 {
			fields = append(fields, fmt.Sprintf("%s:%q", name, values))
		}
	}
	add("APIGroups", r.APIGroups)
	add("Resources", r.Resources)
	add("NonResourceURLs", r.NonResourceURLs)
	add("ResourceNames", r.ResourceNames)
	add("Verbs", r.Verbs)
	return "{" + strings.Join(fields, ", ") + "}"
}
