package policy

import (
	"maps"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/auth/rbac"
)

// Action is what must be done to bring an object up to its default.
type Action int

// The actions.
const (
	// None: it holds all that it should.
	None Action = iota
	// Create: it does not exist.
	Create
	// Update: something is added to it.
	Update
	// Recreate: it must be deleted and created again, since a binding's role
	// cannot be changed.
	Recreate
)

func (a Action) String() string {
	return [...]string{"none", "create", "update", "recreate"}[a]
}

// ReconcileClusterRole returns what to do with a ClusterRole and what it should
// then be. existing is nil when there is none, and is not changed.
func ReconcileClusterRole(existing, wanted *rbacv1.ClusterRole) (*rbacv1.ClusterRole, Action) {
	if existing == nil {
		return wanted, Create
	}
	if isProtected(&existing.ObjectMeta) {
		return existing, None
	}
	result := existing.DeepCopy()
	changed := addMeta(&result.ObjectMeta, &wanted.ObjectMeta)
	if wanted.AggregationRule != nil {
		// The rules are the aggregation controller's.
		changed = addSelectors(result, wanted.AggregationRule) || changed
	} else if result.AggregationRule == nil {
		changed = addRules(&result.Rules, wanted.Rules) || changed
	}
	return result, updateIf(changed)
}

// ReconcileRole is ReconcileClusterRole for a Role.
func ReconcileRole(existing, wanted *rbacv1.Role) (*rbacv1.Role, Action) {
	if existing == nil {
		return wanted, Create
	}
	if isProtected(&existing.ObjectMeta) {
		return existing, None
	}
	result := existing.DeepCopy()
	changed := addMeta(&result.ObjectMeta, &wanted.ObjectMeta)
	changed = addRules(&result.Rules, wanted.Rules) || changed
	return result, updateIf(changed)
}

// ReconcileClusterRoleBinding is ReconcileClusterRole for a binding.
func ReconcileClusterRoleBinding(existing, wanted *rbacv1.ClusterRoleBinding) (*rbacv1.ClusterRoleBinding, Action) {
	if existing == nil {
		return wanted, Create
	}
	if isProtected(&existing.ObjectMeta) {
		return existing, None
	}
	if existing.RoleRef != wanted.RoleRef {
		return wanted, Recreate
	}
	result := existing.DeepCopy()
	changed := addMeta(&result.ObjectMeta, &wanted.ObjectMeta)
	changed = addSubjects(&result.Subjects, wanted.Subjects) || changed
	return result, updateIf(changed)
}

// ReconcileRoleBinding is ReconcileClusterRole for a binding in a namespace.
func ReconcileRoleBinding(existing, wanted *rbacv1.RoleBinding) (*rbacv1.RoleBinding, Action) {
	if existing == nil {
		return wanted, Create
	}
	if isProtected(&existing.ObjectMeta) {
		return existing, None
	}
	if existing.RoleRef != wanted.RoleRef {
		return wanted, Recreate
	}
	result := existing.DeepCopy()
	changed := addMeta(&result.ObjectMeta, &wanted.ObjectMeta)
	changed = addSubjects(&result.Subjects, wanted.Subjects) || changed
	return result, updateIf(changed)
}

func updateIf(changed bool) Action {
	if changed {
		return Update
	}
	return None
}

// isProtected says that the cluster's owner has taken the object over.
func isProtected(m *metav1.ObjectMeta) bool {
	return m.Annotations[rbacv1.AutoUpdateAnnotationKey] == "false"
}

// addMeta adds labels and annotations that are missing; those there keep their
// values.
func addMeta(have, wanted *metav1.ObjectMeta) bool {
	add := func(into *map[string]string, from map[string]string) (changed bool) {
		for k, v := range from {
			if _, ok := (*into)[k]; ok {
				continue
			}
			if *into == nil {
				*into = map[string]string{}
			}
			(*into)[k] = v
			changed = true
		}
		return changed
	}
	labels := add(&have.Labels, wanted.Labels)
	annotations := add(&have.Annotations, maps.Clone(wanted.Annotations))
	return labels || annotations
}

// addRules appends the wanted rules that are not covered yet, whole.
func addRules(have *[]rbacv1.PolicyRule, wanted []rbacv1.PolicyRule) (changed bool) {
	for i := range wanted {
		missing, err := rbac.Covers(*have, wanted[i:i+1])
		if err == nil && len(missing) == 0 {
			continue
		}
		*have = append(*have, *wanted[i].DeepCopy())
		changed = true
	}
	return changed
}

func addSelectors(r *rbacv1.ClusterRole, wanted *rbacv1.AggregationRule) (changed bool) {
	if r.AggregationRule == nil {
		r.AggregationRule = &rbacv1.AggregationRule{}
		changed = true
	}
	for _, s := range wanted.ClusterRoleSelectors {
		if !slices.ContainsFunc(r.AggregationRule.ClusterRoleSelectors, func(have metav1.LabelSelector) bool { return equality.Semantic.DeepEqual(have, s) }) {
			r.AggregationRule.ClusterRoleSelectors = append(r.AggregationRule.ClusterRoleSelectors, *s.DeepCopy())
			changed = true
		}
	}
	return changed
}

func addSubjects(have *[]rbacv1.Subject, wanted []rbacv1.Subject) (changed bool) {
	for _, s := range wanted {
		if !slices.Contains(*have, s) {
			*have = append(*have, s)
			changed = true
		}
	}
	return changed
}
