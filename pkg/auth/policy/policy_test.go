package policy

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/auth"
	"coracle/pkg/auth/rbac"
)

func store(o *Objects) *rbac.Store {
	s := &rbac.Store{}
	for _, r := range o.ClusterRoles {
		s.SetClusterRole(r)
	}
	for _, b := range o.ClusterRoleBindings {
		s.SetClusterRoleBinding(b)
	}
	for _, r := range o.Roles {
		s.SetRole(r)
	}
	for _, b := range o.RoleBindings {
		s.SetRoleBinding(b)
	}
	return s
}

func TestDefaultsAreWhole(t *testing.T) {
	o := Default()
	names := map[string]bool{}
	check := func(kind string, m *metav1.ObjectMeta) {
		key := kind + " " + m.Namespace + "/" + m.Name
		if names[key] {
			t.Errorf("%s is there twice", key)
		}
		names[key] = true
		if m.Labels["kubernetes.io/bootstrapping"] != "rbac-defaults" || m.Annotations["rbac.authorization.kubernetes.io/autoupdate"] != "true" {
			t.Errorf("%s is not marked: %v %v", key, m.Labels, m.Annotations)
		}
	}
	s := store(o)
	checkRules := func(name string, rules []rbacv1.PolicyRule) {
		for _, r := range rules {
			if len(r.Verbs) == 0 || (len(r.Resources) == 0) == (len(r.NonResourceURLs) == 0) || (len(r.Resources) == 0) != (len(r.APIGroups) == 0) {
				t.Errorf("%s: rule %+v is not whole", name, r)
			}
		}
	}
	for _, r := range o.ClusterRoles {
		check("ClusterRole", &r.ObjectMeta)
		checkRules(r.Name, r.Rules)
		if len(r.Rules) == 0 {
			t.Errorf("%s has no rules", r.Name)
		}
	}
	for _, r := range o.Roles {
		check("Role", &r.ObjectMeta)
		checkRules(r.Name, r.Rules)
	}
	for _, b := range o.ClusterRoleBindings {
		check("ClusterRoleBinding", &b.ObjectMeta)
		if _, ok := s.ClusterRole(b.RoleRef.Name); !ok || b.RoleRef.Kind != "ClusterRole" {
			t.Errorf("%s refers to %+v", b.Name, b.RoleRef)
		}
		if len(b.Subjects) == 0 && b.Name != "system:node" {
			t.Errorf("%s binds nobody", b.Name)
		}
	}
	for _, b := range o.RoleBindings {
		check("RoleBinding", &b.ObjectMeta)
		if _, ok := s.Role(b.Namespace, b.RoleRef.Name); !ok {
			t.Errorf("%s/%s refers to %+v", b.Namespace, b.Name, b.RoleRef)
		}
	}
	for _, want := range []string{"cluster-admin", "admin", "edit", "view", "system:discovery", "system:basic-user", "system:public-info-viewer",
		"system:monitoring", "system:node", "system:node-proxier", "system:kube-dns", "system:kube-scheduler", "system:kube-controller-manager",
		"system:volume-scheduler", "system:auth-delegator", "system:node-bootstrapper", "system:kubelet-api-admin", "system:service-account-issuer-discovery",
		"system:controller:deployment-controller", "system:controller:replicaset-controller", "system:controller:generic-garbage-collector",
		"system:certificates.k8s.io:certificatesigningrequests:selfnodeclient"} {
		if !names["ClusterRole /"+want] {
			t.Errorf("ClusterRole %s is missing", want)
		}
	}
	if !names["Role kube-system/extension-apiserver-authentication-reader"] || !names["Role kube-public/system:controller:bootstrap-signer"] {
		t.Error("namespace roles are missing")
	}
}

func TestDefaultIsTheCallers(t *testing.T) {
	a := Default()
	for _, r := range a.ClusterRoles {
		for i := range r.Rules {
			r.Rules[i].Verbs[0] = "changed"
		}
	}
	b := Default()
	for _, r := range b.ClusterRoles {
		for i := range r.Rules {
			if r.Rules[i].Verbs[0] == "changed" {
				t.Fatalf("%s shares its rules", r.Name)
			}
		}
	}
}

// TestWhoMayWhat: the defaults as their users meet them.
func TestWhoMayWhat(t *testing.T) {
	o := Default()
	s := store(o)
	s.SetRoleBinding(&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "v"}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "view"}, Subjects: []rbacv1.Subject{user("viewer")}})
	s.SetRoleBinding(&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "e"}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "edit"}, Subjects: []rbacv1.Subject{user("editor")}})
	s.SetRoleBinding(&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "a"}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "admin"}, Subjects: []rbacv1.Subject{user("admin")}})
	authz := rbac.New(s)
	sa := func(name string) *auth.User {
		return &auth.User{Name: auth.ServiceAccountName("kube-system", name), Groups: append(auth.ServiceAccountGroups("kube-system"), auth.GroupAuthenticated)}
	}
	named := func(name string) *auth.User { return &auth.User{Name: name, Groups: []string{auth.GroupAuthenticated}} }
	node := &auth.User{Name: "system:node:n1", Groups: []string{auth.GroupNodes}}
	anonymous := &auth.User{Name: auth.UserAnonymous, Groups: []string{auth.GroupUnauthenticated}}
	for _, tc := range []struct {
		u    *auth.User
		what string
		want bool
	}{
		{anonymous, "get /livez", true},
		{anonymous, "get /version", true},
		{anonymous, "get /healthz/etcd", false},
		{anonymous, "get /api", false},
		{anonymous, "get /openapi/v2", false},
		{anonymous, "get /metrics", false},
		{anonymous, "get ns core pods", false},
		{named("joe"), "get /api", true},
		{named("joe"), "get /openapi/v3/apis/apps/v1", true},
		{named("joe"), "get /metrics", false},
		{named("joe"), "create - authorization.k8s.io selfsubjectaccessreviews", true},
		{named("joe"), "create - authentication.k8s.io selfsubjectreviews", true},
		{named("joe"), "create - authorization.k8s.io subjectaccessreviews", false},
		{named("joe"), "get ns core pods", false},
		{named("joe"), "get /openid/v1/jwks", false},
		{sa("default"), "get /openid/v1/jwks", true},
		{sa("default"), "get kube-system core secrets", false},
		{&auth.User{Name: "m", Groups: []string{"system:masters"}}, "delete - core nodes", true},
		{&auth.User{Name: "m", Groups: []string{"system:monitoring"}}, "get /metrics", true},
		{named("viewer"), "list ns core pods", true},
		{named("viewer"), "get ns core pods/log", true},
		{named("viewer"), "list ns discovery.k8s.io endpointslices", true},
		{named("viewer"), "list ns core secrets", false},
		{named("viewer"), "list ns rbac.authorization.k8s.io roles", false},
		{named("viewer"), "create ns core pods", false},
		{named("viewer"), "list other core pods", false},
		{named("editor"), "list ns core pods", true},
		{named("editor"), "create ns core secrets", true},
		{named("editor"), "get ns core secrets", true},
		{named("editor"), "create ns core pods/exec", true},
		{named("editor"), "create ns core pods/eviction", true},
		{named("editor"), "create ns core serviceaccounts/token", true},
		{named("editor"), "create ns core endpoints", false},
		{named("editor"), "update ns discovery.k8s.io endpointslices", false},
		{named("editor"), "create ns rbac.authorization.k8s.io rolebindings", false},
		{named("editor"), "update ns core resourcequotas", false},
		{named("editor"), "update ns core pods/status", false},
		{named("admin"), "create ns core pods", true},
		{named("admin"), "get ns core pods/log", true},
		{named("admin"), "create ns rbac.authorization.k8s.io rolebindings", true},
		{named("admin"), "update ns core resourcequotas", false},
		{named("admin"), "update - core namespaces", false},
		{named(auth.UserScheduler), "create ns core pods/binding", true},
		{named(auth.UserScheduler), "delete ns core pods", true},
		{named(auth.UserScheduler), "get ns core secrets", false},
		{named(auth.UserScheduler), "create ns core pods", false},
		{named(auth.UserManager), "list - apps deployments", true},
		{named(auth.UserManager), "update ns apps deployments", false},
		{named(auth.UserProxy), "watch - discovery.k8s.io endpointslices", true},
		{sa("deployment-controller"), "create ns apps replicasets", true},
		{sa("deployment-controller"), "update ns apps deployments/status", true},
		{sa("deployment-controller"), "create ns core pods", false},
		{sa("deployment-controller"), "get ns core secrets", false},
		{sa("replicaset-controller"), "create ns core pods", true},
		{sa("replicaset-controller"), "create ns apps replicasets", false},
		{sa("endpointslice-controller"), "create ns discovery.k8s.io endpointslices", true},
		{sa("namespace-controller"), "deletecollection ns example.com widgets", true},
		{sa("namespace-controller"), "create ns core pods", false},
		{sa("root-ca-cert-publisher"), "create ns core configmaps", true},
		{sa("root-ca-cert-publisher"), "get ns core secrets", false},
		{node, "get ns core secrets", false},
		{node, "list - core pods", false},
		{node, "watch - core nodes", true},
		{node, "get - core nodes/proxy", false},
		{node, "update - core nodes", false},
		{node, "list - discovery.k8s.io endpointslices", true},
		{node, "watch - core namespaces", true},
		{node, "create - core namespaces", false},
	} {
		f := strings.Fields(tc.what)
		a := auth.Attributes{User: tc.u, Verb: f[0]}
		if len(f) == 2 {
			a.Path = f[1]
		} else {
			a.ResourceRequest = true
			a.Namespace, a.APIGroup = strings.Trim(f[1], "-"), strings.TrimPrefix(f[2], "core")
			a.Resource, a.Subresource, _ = strings.Cut(f[3], "/")
			a.Name = "x"
		}
		d, reason, err := authz.Authorize(t.Context(), a)
		if (d == auth.Allow) != tc.want || err != nil {
			t.Errorf("%s: %s: %v %s %v", tc.u.Name, tc.what, d, reason, err)
		}
	}
}

// TestLeastRights: what no default role but cluster-admin and those named here
// may hold.
func TestLeastRights(t *testing.T) {
	may := map[string][]string{
		"wildcard verb":     {"cluster-admin", "system:kubelet-api-admin"},
		"wildcard resource": {"cluster-admin", "system:kube-controller-manager", "system:controller:generic-garbage-collector", "system:controller:namespace-controller", "system:controller:resourcequota-controller", "system:controller:storage-version-migrator-controller", "system:controller:horizontal-pod-autoscaler"},
		"escalate":          {"system:controller:clusterrole-aggregation-controller"},
		"bind":              {},
		"nodes/proxy":       {"system:kubelet-api-admin"},
		"impersonate":       {"admin", "edit", "system:aggregate-to-edit"},
		"endpoint writes":   {"system:controller:endpoint-controller", "system:controller:endpointslice-controller", "system:controller:endpointslicemirroring-controller"},
		"webhook writes":    {},
	}
	for _, r := range Default().ClusterRoles {
		for _, rule := range r.Rules {
			found := map[string]bool{
				"wildcard verb":     slices.Contains(rule.Verbs, "*"),
				"wildcard resource": slices.Contains(rule.Resources, "*"),
				"escalate":          slices.Contains(rule.Verbs, "escalate"),
				"bind":              slices.Contains(rule.Verbs, "bind"),
				"nodes/proxy":       slices.Contains(rule.Resources, "nodes/proxy"),
				"impersonate":       slices.Contains(rule.Verbs, "impersonate"),
				"endpoint writes": (slices.Contains(rule.Resources, "endpoints") || slices.Contains(rule.Resources, "endpointslices")) &&
					(slices.Contains(rule.Verbs, "create") || slices.Contains(rule.Verbs, "update") || slices.Contains(rule.Verbs, "patch")),
				"webhook writes": slices.ContainsFunc(rule.Resources, func(s string) bool { return strings.Contains(s, "webhookconfigurations") }),
			}
			for what, is := range found {
				if is && r.Name != "cluster-admin" && !slices.Contains(may[what], r.Name) {
					t.Errorf("%s has %s: %+v", r.Name, what, rule)
				}
			}
		}
	}
}

func TestReconcile(t *testing.T) {
	get := on("get", "core", "pods")
	list := on("list", "core", "pods")
	both := on("get list", "core", "pods")
	make := func(rules ...rbacv1.PolicyRule) *rbacv1.ClusterRole {
		r := role("r", rules...)
		stamp(&r.ObjectMeta)
		return r
	}
	with := func(r *rbacv1.ClusterRole, change func(*rbacv1.ClusterRole)) *rbacv1.ClusterRole {
		change(r)
		return r
	}
	for _, tc := range []struct {
		name             string
		existing, wanted *rbacv1.ClusterRole
		action           Action
		result           *rbacv1.ClusterRole
	}{
		{"new", nil, make(get), Create, make(get)},
		{"same", make(get), make(get), None, make(get)},
		{"wider stays", make(get, list), make(get), None, make(get, list)},
		{"covered in another form", make(get, list), make(both), None, make(get, list)},
		{"missing rule", make(get), make(get, list), Update, make(get, list)},
		{"partly missing rule", make(get), make(both), Update, make(get, both)},
		{"protected", with(make(), func(r *rbacv1.ClusterRole) { r.Annotations[rbacv1.AutoUpdateAnnotationKey] = "false" }), make(get), None,
			with(make(), func(r *rbacv1.ClusterRole) { r.Annotations[rbacv1.AutoUpdateAnnotationKey] = "false" })},
		{"no marks", role("r", get), make(get), Update, make(get)},
		{"own label stays", with(make(get), func(r *rbacv1.ClusterRole) { r.Labels[bootstrapLabel] = "own"; r.Labels["x"] = "y" }), make(get), None,
			with(make(get), func(r *rbacv1.ClusterRole) { r.Labels[bootstrapLabel] = "own"; r.Labels["x"] = "y" })},
		{"aggregated rules are not ours", with(make(get), func(r *rbacv1.ClusterRole) { r.AggregationRule = aggregate("r", "l").AggregationRule }),
			with(make(get, list), func(r *rbacv1.ClusterRole) { r.AggregationRule = aggregate("r", "l").AggregationRule }), None,
			with(make(get), func(r *rbacv1.ClusterRole) { r.AggregationRule = aggregate("r", "l").AggregationRule })},
		{"missing selector", with(make(get), func(r *rbacv1.ClusterRole) { r.AggregationRule = &rbacv1.AggregationRule{} }),
			with(make(get), func(r *rbacv1.ClusterRole) { r.AggregationRule = aggregate("r", "l").AggregationRule }), Update,
			with(make(get), func(r *rbacv1.ClusterRole) { r.AggregationRule = aggregate("r", "l").AggregationRule })},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := tc.existing.DeepCopy()
			got, action := ReconcileClusterRole(tc.existing, tc.wanted)
			if action != tc.action {
				t.Errorf("action %v, want %v", action, tc.action)
			}
			if diff := cmp.Diff(tc.result, got); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(before, tc.existing); diff != "" {
				t.Errorf("the existing role was changed: %s", diff)
			}
			if _, again := ReconcileClusterRole(got, tc.wanted); again != None {
				t.Errorf("a second time: %v", again)
			}
		})
	}
}

func TestReconcileBinding(t *testing.T) {
	wanted := bindCluster("b", user("a"), group("g"))
	stamp(&wanted.ObjectMeta)
	existing := wanted.DeepCopy()
	existing.Subjects = []rbacv1.Subject{user("mine"), group("g")}
	got, action := ReconcileClusterRoleBinding(existing, wanted)
	if action != Update || !slices.Equal(got.Subjects, []rbacv1.Subject{user("mine"), group("g"), user("a")}) {
		t.Errorf("%v %v", action, got.Subjects)
	}
	if _, action := ReconcileClusterRoleBinding(got, wanted); action != None {
		t.Errorf("a second time: %v", action)
	}
	existing.RoleRef.Name = "other"
	if got, action := ReconcileClusterRoleBinding(existing, wanted); action != Recreate || got != wanted {
		t.Errorf("%v", action)
	}
	if _, action := ReconcileClusterRoleBinding(nil, wanted); action != Create {
		t.Errorf("%v", action)
	}
	local := bindRole("ns", "b", "r", user("a"))
	other := bindRole("ns", "b", "r2", user("a"))
	if _, action := ReconcileRoleBinding(other, local); action != Recreate {
		t.Errorf("%v", action)
	}
	if _, action := ReconcileRoleBinding(bindRole("ns", "b", "r"), local); action != Update {
		t.Errorf("%v", action)
	}
	if _, action := ReconcileRole(namespaced("ns", "r"), namespaced("ns", "r", on("get", "core", "pods"))); action != Update {
		t.Errorf("%v", action)
	}
}

// TestDefaultsAreStable: a start of a cluster that has all changes nothing.
func TestDefaultsAreStable(t *testing.T) {
	a, b := Default(), Default()
	for i := range a.ClusterRoles {
		if _, action := ReconcileClusterRole(a.ClusterRoles[i], b.ClusterRoles[i]); action != None {
			t.Errorf("%s: %v", a.ClusterRoles[i].Name, action)
		}
	}
	for i := range a.ClusterRoleBindings {
		if _, action := ReconcileClusterRoleBinding(a.ClusterRoleBindings[i], b.ClusterRoleBindings[i]); action != None {
			t.Errorf("%s: %v", a.ClusterRoleBindings[i].Name, action)
		}
	}
}
