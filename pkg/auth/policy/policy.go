// Package policy is the roles and bindings that every cluster has from its
// first start, as Kubernetes defines them, and the pure functions that bring
// what a cluster has up to them: missing rules and subjects are added, nothing
// is taken away, and an object whose autoupdate annotation is "false" is left
// alone.
package policy

import (
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/auth"
	"coracle/pkg/auth/rbac"
)

const (
	bootstrapLabel = "kubernetes.io/bootstrapping"
	bootstrapValue = "rbac-defaults"

	namespaceSystem = metav1.NamespaceSystem
	namespacePublic = metav1.NamespacePublic

	aggregateToAdmin = "rbac.authorization.k8s.io/aggregate-to-admin"
	aggregateToEdit  = "rbac.authorization.k8s.io/aggregate-to-edit"
	aggregateToView  = "rbac.authorization.k8s.io/aggregate-to-view"

	controllerPrefix = "system:controller:"

	read      = "get list watch"
	write     = "create delete deletecollection patch update"
	readWrite = read + " " + write
)

// Objects are the default roles and bindings.
type Objects struct {
	ClusterRoles        []*rbacv1.ClusterRole
	ClusterRoleBindings []*rbacv1.ClusterRoleBinding
	Roles               []*rbacv1.Role
	RoleBindings        []*rbacv1.RoleBinding
}

// Default returns the default roles and bindings. The rules of aggregated
// roles (admin, edit, view) are filled in, so that they count before the
// aggregation controller has run. The result is the caller's.
func Default() *Objects { return assemble(userRoles()) }

func assemble(users []*rbacv1.ClusterRole) *Objects {
	o := &Objects{ClusterRoles: slices.Concat(users, systemRoles(), controllerRoles())}
	for _, r := range o.ClusterRoles {
		if r.AggregationRule != nil {
			r.Rules = aggregated(r, o.ClusterRoles)
		}
	}
	o.ClusterRoleBindings = clusterRoleBindings()
	for _, r := range o.ClusterRoles {
		if sa, ok := strings.CutPrefix(r.Name, controllerPrefix); ok {
			o.ClusterRoleBindings = append(o.ClusterRoleBindings, bindCluster(r.Name, serviceAccount(sa)))
		}
	}
	o.Roles, o.RoleBindings = namespaceRoles(), namespaceRoleBindings()
	o.stamp()
	return o
}

// aggregated follows chains of aggregation: admin takes in edit, which takes
// in view.
func aggregated(role *rbacv1.ClusterRole, all []*rbacv1.ClusterRole) []rbacv1.PolicyRule {
	level := slices.Clone(all)
	for i, r := range level {
		if r.AggregationRule != nil && r.Name != role.Name && r.Rules == nil && selects(role, r) {
			c := r.DeepCopy()
			c.Rules = aggregated(r, all)
			level[i] = c
		}
	}
	// The selectors are literals of this package: they parse.
	rules, _ := rbac.Aggregate(role, level)
	return (&rbacv1.ClusterRole{Rules: rules}).DeepCopy().Rules
}

func selects(role, other *rbacv1.ClusterRole) bool {
	for _, s := range role.AggregationRule.ClusterRoleSelectors {
		for k, v := range s.MatchLabels {
			if other.Labels[k] == v {
				return true
			}
		}
	}
	return false
}

// stamp marks all objects as defaults that are kept up to date.
func (o *Objects) stamp() {
	for _, r := range o.ClusterRoles {
		stamp(&r.ObjectMeta)
	}
	for _, b := range o.ClusterRoleBindings {
		stamp(&b.ObjectMeta)
	}
	for _, r := range o.Roles {
		stamp(&r.ObjectMeta)
	}
	for _, b := range o.RoleBindings {
		stamp(&b.ObjectMeta)
	}
}

func stamp(m *metav1.ObjectMeta) {
	if m.Labels == nil {
		m.Labels = map[string]string{}
	}
	m.Labels[bootstrapLabel] = bootstrapValue
	m.Annotations = map[string]string{rbacv1.AutoUpdateAnnotationKey: "true"}
}

// on makes a rule; verbs, groups and resources are lists with spaces, and the
// group "core" is the one without a name.
func on(verbs, groups, resources string) rbacv1.PolicyRule {
	r := rbacv1.PolicyRule{Verbs: strings.Fields(verbs), APIGroups: strings.Fields(groups), Resources: strings.Fields(resources)}
	for i, g := range r.APIGroups {
		if g == "core" {
			r.APIGroups[i] = ""
		}
	}
	return r
}

// named is on for the objects of these names alone.
func named(verbs, groups, resources string, names ...string) rbacv1.PolicyRule {
	r := on(verbs, groups, resources)
	r.ResourceNames = names
	return r
}

func onURLs(verbs string, urls ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{Verbs: strings.Fields(verbs), NonResourceURLs: urls}
}

func recordEvents() rbacv1.PolicyRule {
	return on("create patch update", "core events.k8s.io", "events")
}

// checkAccess lets a component ask who its own clients are and what they may
// do.
func checkAccess() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		on("create", "authentication.k8s.io", "tokenreviews"),
		on("create", "authorization.k8s.io", "subjectaccessreviews"),
	}
}

func role(name string, rules ...rbacv1.PolicyRule) *rbacv1.ClusterRole {
	return &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}
}

func labelled(r *rbacv1.ClusterRole, label string) *rbacv1.ClusterRole {
	r.Labels = map[string]string{label: "true"}
	return r
}

func aggregate(name, label string) *rbacv1.ClusterRole {
	r := role(name)
	r.AggregationRule = &rbacv1.AggregationRule{
		ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{label: "true"}}},
	}
	return r
}

func user(name string) rbacv1.Subject {
	return rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}
}

func group(name string) rbacv1.Subject {
	return rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: name}
}

func serviceAccount(name string) rbacv1.Subject {
	return rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: namespaceSystem, Name: name}
}

func bindCluster(name string, subjects ...rbacv1.Subject) *rbacv1.ClusterRoleBinding {
	return &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
		Subjects:   subjects,
	}
}

func clusterRoleBindings() []*rbacv1.ClusterRoleBinding {
	return []*rbacv1.ClusterRoleBinding{
		bindCluster("cluster-admin", group(auth.GroupMasters)),
		bindCluster("system:monitoring", group(auth.GroupMonitoring)),
		bindCluster("system:discovery", group(auth.GroupAuthenticated)),
		bindCluster("system:basic-user", group(auth.GroupAuthenticated)),
		bindCluster("system:public-info-viewer", group(auth.GroupAuthenticated), group(auth.GroupUnauthenticated)),
		bindCluster("system:node-proxier", user(auth.UserProxy)),
		bindCluster("system:kube-controller-manager", user(auth.UserManager)),
		bindCluster("system:kube-dns", serviceAccount("kube-dns")),
		bindCluster("system:kube-scheduler", user(auth.UserScheduler)),
		bindCluster("system:volume-scheduler", user(auth.UserScheduler)),
		bindCluster("system:service-account-issuer-discovery", group(auth.GroupServiceAccounts)),
		bindCluster("system:cluster-trust-bundle-discovery", group(auth.GroupServiceAccounts)),
		bindCluster(nodeNetworkRole, group(auth.GroupNodes)),
		// What the API server shows to agents lets it into agents, and nowhere else.
		{
			ObjectMeta: metav1.ObjectMeta{Name: "coracle:kubelet-client"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "system:kubelet-api-admin"},
			Subjects:   []rbacv1.Subject{user(auth.UserKubeletClient)},
		},
		// Nodes are the Node authorizer's: the binding is there without
		// subjects, as in other clusters.
		bindCluster("system:node"),
	}
}
