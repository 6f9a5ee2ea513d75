package rbac

import (
	"errors"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
)

// maxCombinations bounds the work of Covers: a role with more combinations of
// verb, group, resource and name that no single rule covers is too large to be
// compared.
const maxCombinations = 200_000

// ErrTooManyCombinations is returned by Covers for rules too large to compare.
var ErrTooManyCombinations = errors.New("the rules have too many combinations of verbs, groups, resources and names to be checked: split the role")

// Covers returns the parts of wanted that held does not allow, one verb, group,
// resource and name in each; none means that a holder of held may grant
// wanted.
func Covers(held, wanted []rbacv1.PolicyRule) (missing []rbacv1.PolicyRule, err error) {
	budget := maxCombinations
	for i := range wanted {
		w := &wanted[i]
		if slices.ContainsFunc(held, func(h rbacv1.PolicyRule) bool { return ruleCovers(&h, w) }) {
			continue
		}
		err := eachPart(w, func(part *rbacv1.PolicyRule) error {
			if budget--; budget < 0 {
				return ErrTooManyCombinations
			}
			if !slices.ContainsFunc(held, func(h rbacv1.PolicyRule) bool { return ruleCovers(&h, part) }) {
				missing = append(missing, *part.DeepCopy())
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return missing, nil
}

// eachPart calls f with every single right that the rule is made of. The part
// is only valid during the call.
func eachPart(r *rbacv1.PolicyRule, f func(*rbacv1.PolicyRule) error) error {
	names := [][]string{nil}
	if len(r.ResourceNames) > 0 {
		names = names[:0]
		for i := range r.ResourceNames {
			names = append(names, r.ResourceNames[i:i+1])
		}
	}
	for v := range r.Verbs {
		verb := r.Verbs[v : v+1]
		for g := range r.APIGroups {
			for s := range r.Resources {
				for _, name := range names {
					part := rbacv1.PolicyRule{Verbs: verb, APIGroups: r.APIGroups[g : g+1], Resources: r.Resources[s : s+1], ResourceNames: name}
					if err := f(&part); err != nil {
						return err
					}
				}
			}
		}
		for u := range r.NonResourceURLs {
			part := rbacv1.PolicyRule{Verbs: verb, NonResourceURLs: r.NonResourceURLs[u : u+1]}
			if err := f(&part); err != nil {
				return err
			}
		}
	}
	return nil
}

// ruleCovers says whether everything w allows, h allows too.
func ruleCovers(h, w *rbacv1.PolicyRule) bool {
	return containsAll(h.Verbs, w.Verbs) &&
		(len(w.Resources) == 0 || containsAll(h.APIGroups, w.APIGroups)) &&
		(len(w.Resources) == 0 || namesCover(h.ResourceNames, w.ResourceNames)) &&
		all(w.Resources, func(r string) bool {
			return slices.ContainsFunc(h.Resources, func(rule string) bool { return resourceCovers(rule, r) })
		}) &&
		all(w.NonResourceURLs, func(u string) bool {
			return slices.ContainsFunc(h.NonResourceURLs, func(rule string) bool { return urlMatches(rule, u) })
		})
}

func containsAll(held, wanted []string) bool {
	return slices.Contains(held, "*") || all(wanted, func(s string) bool { return slices.Contains(held, s) })
}

// namesCover: no names means all names.
func namesCover(held, wanted []string) bool {
	if len(held) == 0 {
		return true
	}
	return len(wanted) > 0 && all(wanted, func(s string) bool { return slices.Contains(held, s) })
}

func resourceCovers(rule, resource string) bool {
	if rule == "*" || rule == resource {
		return true
	}
	sub, ok := strings.CutPrefix(rule, "*/")
	if !ok {
		return false
	}
	_, wanted, ok := strings.Cut(resource, "/")
	return ok && wanted == sub
}

func all(list []string, f func(string) bool) bool {
	return !slices.ContainsFunc(list, func(s string) bool { return !f(s) })
}
