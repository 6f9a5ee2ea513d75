package rbac

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/auth"
)

func rule(verbs, groups, resources string, names ...string) rbacv1.PolicyRule {
	r := rbacv1.PolicyRule{Verbs: strings.Fields(verbs), APIGroups: strings.Split(groups, ","), Resources: strings.Fields(resources), ResourceNames: names}
	return r
}

func urlRule(verbs string, urls ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{Verbs: strings.Fields(verbs), NonResourceURLs: urls}
}

func clusterRole(name string, rules ...rbacv1.PolicyRule) *rbacv1.ClusterRole {
	return &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}
}

func clusterBinding(name, role string, subjects ...rbacv1.Subject) *rbacv1.ClusterRoleBinding {
	return &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   subjects,
	}
}

func roleBinding(namespace, name, kind, role string, subjects ...rbacv1.Subject) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: role},
		Subjects:   subjects,
	}
}

func userSubject(name string) rbacv1.Subject {
	return rbacv1.Subject{Kind: "User", APIGroup: rbacv1.GroupName, Name: name}
}
func groupSubject(name string) rbacv1.Subject {
	return rbacv1.Subject{Kind: "Group", APIGroup: rbacv1.GroupName, Name: name}
}
func accountSubject(namespace, name string) rbacv1.Subject {
	return rbacv1.Subject{Kind: "ServiceAccount", Namespace: namespace, Name: name}
}

// ask makes attributes of "verb group/resource/sub namespace name", with "-"
// for empty parts.
func ask(u *auth.User, text string) auth.Attributes {
	f := strings.Fields(text)
	for i := range f {
		if f[i] == "-" {
			f[i] = ""
		}
	}
	group, resource, _ := strings.Cut(f[1], ":")
	resource, sub, _ := strings.Cut(resource, "/")
	return auth.Attributes{User: u, Verb: f[0], APIGroup: group, Resource: resource, Subresource: sub, Namespace: f[2], Name: f[3], ResourceRequest: true}
}

func askURL(u *auth.User, verb, path string) auth.Attributes {
	return auth.Attributes{User: u, Verb: verb, Path: path}
}

func TestRuleAllows(t *testing.T) {
	u := &auth.User{Name: "x"}
	for _, tc := range []struct {
		name string
		rule rbacv1.PolicyRule
		yes  []auth.Attributes
		no   []auth.Attributes
	}{
		{"plain", rule("get list", "", "pods"),
			[]auth.Attributes{ask(u, "get :pods ns a"), ask(u, "list :pods - -")},
			[]auth.Attributes{ask(u, "delete :pods ns a"), ask(u, "get apps:pods ns a"), ask(u, "get :pods/log ns a"), ask(u, "get :nodes - a"), askURL(u, "get", "/pods")}},
		{"all verbs", rule("*", "", "pods"),
			[]auth.Attributes{ask(u, "get :pods ns a"), ask(u, "frobnicate :pods ns a")},
			[]auth.Attributes{ask(u, "get :pods/exec ns a")}},
		{"all resources include subresources", rule("get", "", "*"),
			[]auth.Attributes{ask(u, "get :pods ns a"), ask(u, "get :pods/exec ns a")},
			[]auth.Attributes{ask(u, "get apps:deployments ns a")}},
		{"all groups", rule("get", "*", "pods"),
			[]auth.Attributes{ask(u, "get :pods ns a"), ask(u, "get metrics.k8s.io:pods ns a")},
			[]auth.Attributes{ask(u, "get :services ns a")}},
		{"subresource", rule("get", "", "pods/log"),
			[]auth.Attributes{ask(u, "get :pods/log ns a")},
			[]auth.Attributes{ask(u, "get :pods ns a"), ask(u, "get :pods/exec ns a")}},
		{"subresource of all", rule("get", "apps", "*/scale"),
			[]auth.Attributes{ask(u, "get apps:deployments/scale ns a"), ask(u, "get apps:statefulsets/scale ns a")},
			[]auth.Attributes{ask(u, "get apps:deployments ns a"), ask(u, "get apps:deployments/status ns a"), ask(u, "get apps:scale ns a")}},
		{"names", rule("get create", "", "configmaps", "a", "b"),
			[]auth.Attributes{ask(u, "get :configmaps ns a"), ask(u, "get :configmaps ns b")},
			[]auth.Attributes{ask(u, "get :configmaps ns c"), ask(u, "create :configmaps ns -")}},
		{"url", urlRule("get", "/healthz", "/apis/*"),
			[]auth.Attributes{askURL(u, "get", "/healthz"), askURL(u, "get", "/apis/"), askURL(u, "get", "/apis/apps/v1")},
			[]auth.Attributes{askURL(u, "get", "/healthz/etcd"), askURL(u, "get", "/apis"), askURL(u, "post", "/healthz"), ask(u, "get :healthz - -")}},
		{"all urls", urlRule("*", "*"),
			[]auth.Attributes{askURL(u, "get", "/"), askURL(u, "post", "/x")}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, a := range tc.yes {
				if !RuleAllows(&a, &tc.rule) {
					t.Errorf("%+v is refused", a)
				}
			}
			for _, a := range tc.no {
				if RuleAllows(&a, &tc.rule) {
					t.Errorf("%+v is allowed", a)
				}
			}
		})
	}
}

func TestAuthorize(t *testing.T) {
	s := &Store{}
	s.SetClusterRole(clusterRole("viewer", rule("get list watch", "", "pods"), urlRule("get", "/metrics")))
	s.SetClusterRole(clusterRole("scaler", rule("update", "apps", "*/scale")))
	s.SetRole(&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "ns1", Name: "editor"}, Rules: []rbacv1.PolicyRule{rule("delete", "", "pods")}})
	s.SetClusterRoleBinding(clusterBinding("viewers", "viewer", groupSubject("dev"), accountSubject("ci", "bot")))
	s.SetRoleBinding(roleBinding("ns1", "editors", "Role", "editor", userSubject("ann"), accountSubject("", "local")))
	s.SetRoleBinding(roleBinding("ns1", "scalers", "ClusterRole", "scaler", userSubject("ann")))
	s.SetRoleBinding(roleBinding("ns1", "url", "ClusterRole", "viewer", userSubject("urls")))
	s.SetRoleBinding(roleBinding("ns2", "lost", "Role", "gone", userSubject("ann")))
	s.SetClusterRoleBinding(clusterBinding("lost", "nowhere", userSubject("lost")))
	z := New(s)

	ann := &auth.User{Name: "ann"}
	dev := &auth.User{Name: "joe", Groups: []string{"ops", "dev"}}
	bot := &auth.User{Name: auth.ServiceAccountName("ci", "bot")}
	local := &auth.User{Name: auth.ServiceAccountName("ns1", "local")}
	const lost = `RBAC: clusterrole.rbac.authorization.k8s.io "nowhere" not found`
	for _, tc := range []struct {
		a      auth.Attributes
		want   auth.Decision
		reason string
	}{
		{ask(dev, "get :pods any x"), auth.Allow, `RBAC: allowed by ClusterRoleBinding "viewers" of ClusterRole "viewer" to Group "dev"`},
		{ask(bot, "list :pods - -"), auth.Allow, `RBAC: allowed by ClusterRoleBinding "viewers" of ClusterRole "viewer" to ServiceAccount "bot/ci"`},
		{askURL(dev, "get", "/metrics"), auth.Allow, `RBAC: allowed by ClusterRoleBinding "viewers" of ClusterRole "viewer" to Group "dev"`},
		{ask(ann, "delete :pods ns1 x"), auth.Allow, `RBAC: allowed by RoleBinding "editors/ns1" of Role "editor" to User "ann"`},
		{ask(local, "delete :pods ns1 x"), auth.Allow, `RBAC: allowed by RoleBinding "editors/ns1" of Role "editor" to ServiceAccount "local/ns1"`},
		{ask(ann, "update apps:deployments/scale ns1 x"), auth.Allow, `RBAC: allowed by RoleBinding "scalers/ns1" of ClusterRole "scaler" to User "ann"`},
		{ask(ann, "delete :pods ns3 x"), auth.NoOpinion, ""},
		{ask(ann, "delete :pods - -"), auth.NoOpinion, ""},
		{ask(ann, "delete :pods ns2 x"), auth.NoOpinion, `RBAC: role.rbac.authorization.k8s.io "gone" not found`},
		{ask(&auth.User{Name: "lost"}, "get :pods ns1 x"), auth.NoOpinion, lost},
		{askURL(&auth.User{Name: "urls"}, "get", "/metrics"), auth.NoOpinion, ""},
		{ask(&auth.User{Name: "dev"}, "get :pods any x"), auth.NoOpinion, ""},
		{ask(&auth.User{Name: "nobody", Groups: []string{"ann"}}, "delete :pods ns1 x"), auth.NoOpinion, ""},
	} {
		d, reason, err := z.Authorize(t.Context(), tc.a)
		if d != tc.want || err != nil {
			t.Errorf("%+v: %v %v", tc.a, d, err)
		}
		if reason != tc.reason {
			t.Errorf("%+v:\nreason %q\nwant   %q", tc.a, reason, tc.reason)
		}
	}
}

func TestChangesCountAtOnce(t *testing.T) {
	s := &Store{}
	z := New(s)
	u := &auth.User{Name: "ann"}
	a := ask(u, "get :pods ns x")
	allowed := func() bool {
		d, _, _ := z.Authorize(t.Context(), a)
		return d == auth.Allow
	}
	expect := func(step string, want bool) {
		t.Helper()
		if allowed() != want {
			t.Fatalf("%s: allowed = %v", step, !want)
		}
	}
	expect("empty", false)
	s.SetRoleBinding(roleBinding("ns", "b", "Role", "r", userSubject("ann")))
	expect("binding without role", false)
	s.SetRole(&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "r"}, Rules: []rbacv1.PolicyRule{rule("get", "", "pods")}})
	expect("role", true)
	s.SetRole(&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "r"}, Rules: []rbacv1.PolicyRule{rule("get", "", "nodes")}})
	expect("changed role", false)
	s.SetClusterRole(clusterRole("c", rule("get", "", "pods")))
	s.SetClusterRoleBinding(clusterBinding("cb", "c", userSubject("ann")))
	expect("cluster binding", true)
	s.DeleteClusterRole("c")
	expect("cluster role gone", false)
	s.SetClusterRole(clusterRole("c", rule("get", "", "pods")))
	expect("cluster role back", true)
	s.DeleteClusterRoleBinding("cb")
	expect("cluster binding gone", false)
	s.SetRole(&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "r"}, Rules: []rbacv1.PolicyRule{rule("get", "", "pods")}})
	expect("role back", true)
	s.DeleteRoleBinding("ns", "b")
	expect("binding gone", false)
	s.SetRoleBinding(roleBinding("ns", "b", "Role", "r", userSubject("ann")))
	expect("binding back", true)
	s.DeleteRole("ns", "r")
	expect("role gone", false)
}

// TestConcurrentChanges: whoever has written a change sees it in the next
// decision, whatever others ask and write at the same time.
func TestConcurrentChanges(t *testing.T) {
	s := &Store{}
	z := New(s)
	s.SetClusterRole(clusterRole("r", rule("get", "", "pods")))
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			u := &auth.User{Name: fmt.Sprint("user", i)}
			namespace := fmt.Sprint("ns", i%2)
			a := ask(u, "get :pods "+namespace+" x")
			for round := range 200 {
				name := fmt.Sprint("b", i)
				s.SetRoleBinding(roleBinding(namespace, name, "ClusterRole", "r", userSubject(u.Name)))
				if d, reason, _ := z.Authorize(t.Context(), a); d != auth.Allow {
					t.Errorf("round %d: not seen: %v %s", round, d, reason)
				}
				s.DeleteRoleBinding(namespace, name)
				if d, reason, _ := z.Authorize(t.Context(), a); d == auth.Allow {
					t.Errorf("round %d: still allowed: %s", round, reason)
				}
			}
		})
	}
	wg.Wait()
}

func TestRulesFor(t *testing.T) {
	s := &Store{}
	s.SetClusterRole(clusterRole("a", rule("get", "", "pods", "one"), urlRule("get", "/x")))
	s.SetClusterRole(clusterRole("b", rule("list", "apps", "deployments")))
	s.SetClusterRoleBinding(clusterBinding("a", "a", userSubject("ann")))
	s.SetRoleBinding(roleBinding("ns", "b", "ClusterRole", "b", userSubject("ann")))
	got, err := New(s).RulesFor(t.Context(), &auth.User{Name: "ann"}, "ns")
	want := auth.Rules{
		Resource: []authorizationv1.ResourceRule{
			{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods"}, ResourceNames: []string{"one"}},
			{Verbs: []string{"list"}, APIGroups: []string{"apps"}, Resources: []string{"deployments"}},
		},
		NonResource: []authorizationv1.NonResourceRule{{Verbs: []string{"get"}, NonResourceURLs: []string{"/x"}}},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
}
