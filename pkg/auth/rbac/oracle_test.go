package rbac

import (
	"fmt"
	"math/rand/v2"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/auth"
)

// pick draws from small alphabets, so that rules and requests meet.
type pick struct{ *rand.Rand }

func (p pick) one(from ...string) string { return from[p.IntN(len(from))] }

func (p pick) some(from ...string) []string {
	var out []string
	for range 1 + p.IntN(3) {
		out = append(out, p.one(from...))
	}
	return out
}

func (p pick) rules() []rbacv1.PolicyRule {
	var rules []rbacv1.PolicyRule
	for range p.IntN(4) {
		r := rbacv1.PolicyRule{Verbs: p.some("get", "list", "*", "odd", "even", "create", "")}
		if p.IntN(4) == 0 {
			r.NonResourceURLs = p.some("/", "/a", "/a/*", "/a*", "*", "/b/**", "")
		} else {
			r.APIGroups = p.some("", "apps", "*", "batch")
			r.Resources = p.some("pods", "pods/log", "*", "*/log", "*/scale", "jobs", "pods/scale", "jobs/*", "*/*")
			if p.IntN(3) == 0 {
				r.ResourceNames = p.some("n1", "n2", "")
			}
		}
		rules = append(rules, r)
	}
	return rules
}

func (p pick) attributes(u *auth.User) auth.Attributes {
	a := auth.Attributes{User: u, Verb: p.one("get", "list", "odd", "even", "*", "create", "patch", "")}
	if p.IntN(4) == 0 {
		a.Path = p.one("/", "/a", "/a/x", "/ab", "/b/", "/b", "", "/a*")
		return a
	}
	a.ResourceRequest = true
	a.APIGroup = p.one("", "apps", "*", "batch", "x")
	a.Resource = p.one("pods", "jobs", "*", "pods/log", "nodes")
	a.Subresource = p.one("", "", "log", "scale", "*")
	a.Namespace = p.one("", "ns1", "ns2", "ns3")
	a.Name = p.one("", "n1", "n2", "n3")
	return a
}

// naive decides by reading all bindings and roles anew.
func naive(s *Store, a *auth.Attributes) bool {
	is := func(sub rbacv1.Subject, namespace string) bool {
		switch sub.Kind {
		case "User":
			return sub.Name == a.User.Name
		case "Group":
			return a.User.InGroup(sub.Name)
		}
		if sub.Namespace != "" {
			namespace = sub.Namespace
		}
		return namespace != "" && a.User.Name == "system:serviceaccount:"+namespace+":"+sub.Name
	}
	allows := func(ref rbacv1.RoleRef, subjects []rbacv1.Subject, namespace string) bool {
		for _, sub := range subjects {
			if rules, err := resolveRef(s, &ref, namespace); err == nil && is(sub, namespace) && RulesAllow(a, rules) {
				return true
			}
		}
		return false
	}
	for _, b := range s.ClusterRoleBindings() {
		if allows(b.RoleRef, b.Subjects, "") {
			return true
		}
	}
	if a.Namespace != "" {
		for _, b := range s.RoleBindings(a.Namespace) {
			if allows(b.RoleRef, b.Subjects, a.Namespace) {
				return true
			}
		}
	}
	return false
}

// TestIndexEqualsOracle: for random roles, bindings, changes and requests the
// index answers as the plain reading of all rules does.
func TestIndexEqualsOracle(t *testing.T) {
	allowed := 0
	for seed := range uint64(150) {
		p := pick{rand.New(rand.NewPCG(seed, 1))}
		s := &Store{}
		z := New(s)
		users := []*auth.User{
			{Name: "ann", Groups: []string{"g1", "g2"}},
			{Name: "bob"},
			{Name: "system:serviceaccount:ns1:sa", Groups: []string{"g2"}},
		}
		subjects := func() []rbacv1.Subject {
			var out []rbacv1.Subject
			for range p.IntN(3) {
				out = append(out, []rbacv1.Subject{
					userSubject("ann"), userSubject("bob"), groupSubject("g1"), groupSubject("g2"),
					accountSubject("", "sa"), accountSubject("ns1", "sa"), userSubject("system:serviceaccount:ns1:sa"), {Kind: "Odd", Name: "ann"},
				}[p.IntN(8)])
			}
			return out
		}
		for range 60 {
			role, name, namespace := p.one("r1", "r2", "r3", "r4"), fmt.Sprint("b", p.IntN(20)), p.one("ns1", "ns2")
			switch p.IntN(10) {
			case 0, 1:
				s.SetClusterRole(clusterRole(role, p.rules()...))
			case 2:
				s.DeleteClusterRole(role)
			case 3, 4:
				s.SetRole(&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: role}, Rules: p.rules()})
			case 5:
				s.DeleteRole(namespace, role)
			case 6:
				s.SetClusterRoleBinding(clusterBinding(name, role, subjects()...))
			case 7, 8:
				s.SetRoleBinding(roleBinding(namespace, name, p.one("Role", "ClusterRole", "Odd"), role, subjects()...))
			case 9:
				s.DeleteRoleBinding(namespace, name)
			}
			for range 20 {
				a := p.attributes(users[p.IntN(len(users))])
				d, reason, err := z.Authorize(t.Context(), a)
				want := naive(s, &a)
				if (d == auth.Allow) != want || err != nil || d == auth.Deny {
					t.Fatalf("seed %d: %+v: %v (%s), want allowed %v, err %v", seed, a, d, reason, want, err)
				}
				if want {
					allowed++
				}
			}
		}
	}
	if allowed < 1000 {
		t.Errorf("only %d requests were allowed: the test shows little", allowed)
	}
}

func FuzzRuleMatch(f *testing.F) {
	f.Add("get", "", "pods", "log", "n", "get", "", "pods/log", "n", "/a", "/a*", true)
	f.Add("*", "apps", "*", "", "", "get", "*", "*/scale", "", "", "*", true)
	f.Add("get", "", "", "", "", "get", "", "", "", "/livez/x", "/livez/*", false)
	f.Fuzz(func(t *testing.T, verb, group, resource, sub, name, rVerb, rGroup, rResource, rName, path, rURL string, isResource bool) {
		r := rbacv1.PolicyRule{Verbs: []string{rVerb}, APIGroups: []string{rGroup}, Resources: []string{rResource}, NonResourceURLs: []string{rURL}}
		if rName != "" {
			r.ResourceNames = []string{rName}
		}
		a := auth.Attributes{User: &auth.User{Name: "u"}, Verb: verb, APIGroup: group, Resource: resource, Subresource: sub, Name: name, Path: path, ResourceRequest: isResource}
		q := newRequest(&a)
		_, got := compile([]rbacv1.PolicyRule{r}).allows(&q)
		if want := RuleAllows(&a, &r); got != want {
			t.Errorf("rule %+v on %+v: index says %v, rule says %v", r, a, got, want)
		}
	})
}

// benchStore has n roles with their own bindings, and a user bound to many.
func benchStore(n int) (*Store, *auth.User) {
	s := &Store{}
	u := &auth.User{Name: "ann", Groups: []string{"dev", auth.GroupAuthenticated}}
	for i := range n {
		name := fmt.Sprint("role-", i)
		s.SetClusterRole(clusterRole(name, rule("get list watch create update", "", fmt.Sprintf("res%d res%d/status", i, i)), rule("get", "apps", "deployments", name)))
		s.SetClusterRoleBinding(clusterBinding(name, name, groupSubject("dev"), userSubject(name)))
		s.SetRoleBinding(roleBinding("ns", name, "ClusterRole", name, userSubject("ann")))
	}
	return s, u
}

func BenchmarkAuthorize(b *testing.B) {
	s, u := benchStore(1000)
	z := New(s)
	for _, tc := range []struct {
		name string
		a    auth.Attributes
	}{
		{"allow", ask(u, "get :res999/status ns x")},
		{"allow-named", ask(u, "get apps:deployments ns role-700")},
		{"deny", ask(u, "delete :res1 ns x")},
		{"few-bindings", ask(&auth.User{Name: "role-5"}, "get :res5 ns x")},
	} {
		b.Run(tc.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _, _ = z.Authorize(b.Context(), tc.a)
			}
		})
	}
}

// BenchmarkAuthorizeAfterChange is the first decision after any change.
func BenchmarkAuthorizeAfterChange(b *testing.B) {
	s, u := benchStore(1000)
	z := New(s)
	a := ask(u, "get :res999/status ns x")
	for b.Loop() {
		s.SetClusterRole(clusterRole("other"))
		_, _, _ = z.Authorize(b.Context(), a)
	}
}
