package rbac

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/auth/rbac/validation"

	"coracle/pkg/auth"
)

func TestCovers(t *testing.T) {
	for _, tc := range []struct {
		name         string
		held, wanted []rbacv1.PolicyRule
		covered      bool
	}{
		{"same", []rbacv1.PolicyRule{rule("get", "", "pods")}, []rbacv1.PolicyRule{rule("get", "", "pods")}, true},
		{"more verbs", []rbacv1.PolicyRule{rule("get", "", "pods")}, []rbacv1.PolicyRule{rule("get list", "", "pods")}, false},
		{"over two rules", []rbacv1.PolicyRule{rule("get", "", "pods"), rule("list", "", "pods")}, []rbacv1.PolicyRule{rule("get list", "", "pods")}, true},
		{"star is not the sum", []rbacv1.PolicyRule{rule("get list watch create update patch delete", "", "pods")}, []rbacv1.PolicyRule{rule("*", "", "pods")}, false},
		{"star covers", []rbacv1.PolicyRule{rule("*", "*", "*")}, []rbacv1.PolicyRule{rule("odd", "x,y", "a b/c", "n")}, true},
		{"resource star does not cover urls", []rbacv1.PolicyRule{rule("*", "*", "*")}, []rbacv1.PolicyRule{urlRule("get", "/x")}, false},
		{"names narrow", []rbacv1.PolicyRule{rule("get", "", "pods", "a")}, []rbacv1.PolicyRule{rule("get", "", "pods")}, false},
		{"names of a wider one", []rbacv1.PolicyRule{rule("get", "", "pods")}, []rbacv1.PolicyRule{rule("get", "", "pods", "a")}, true},
		{"subresource star", []rbacv1.PolicyRule{rule("get", "", "*/scale")}, []rbacv1.PolicyRule{rule("get", "", "pods/scale")}, true},
		{"url prefix", []rbacv1.PolicyRule{urlRule("get", "/api/*")}, []rbacv1.PolicyRule{urlRule("get", "/api/v1", "/api/*")}, true},
		{"url wider", []rbacv1.PolicyRule{urlRule("get", "/api/*")}, []rbacv1.PolicyRule{urlRule("get", "/*")}, false},
		{"nothing wanted", nil, nil, true},
	} {
		missing, err := Covers(tc.held, tc.wanted)
		if err != nil || (len(missing) == 0) != tc.covered {
			t.Errorf("%s: missing %v, err %v", tc.name, missing, err)
		}
	}
}

// TestCoversEqualsLibrary compares with the comparison that Kubernetes itself
// publishes.
func TestCoversEqualsLibrary(t *testing.T) {
	for seed := range uint64(3000) {
		p := pick{rand.New(rand.NewPCG(seed, 2))}
		held, wanted := p.rules(), p.rules()
		missing, err := Covers(held, wanted)
		if err != nil {
			t.Fatal(err)
		}
		want, _ := validation.Covers(held, wanted)
		if (len(missing) == 0) != want {
			t.Fatalf("seed %d:\nheld   %v\nwanted %v\nmissing %v, library says covered = %v", seed, held, wanted, missing, want)
		}
	}
}

func TestCoversIsBounded(t *testing.T) {
	var many []string
	for i := range 2000 {
		many = append(many, strings.Repeat("v", 1+i%7)+string(rune('a'+i%26)))
	}
	big := rbacv1.PolicyRule{Verbs: many, APIGroups: many, Resources: many}
	if _, err := Covers(nil, []rbacv1.PolicyRule{big}); !errors.Is(err, ErrTooManyCombinations) {
		t.Errorf("err %v", err)
	}
}

func TestGuard(t *testing.T) {
	s := &Store{}
	s.SetClusterRole(clusterRole("pods", rule("get list", "", "pods")))
	s.SetClusterRole(clusterRole("secrets", rule("get", "", "secrets")))
	s.SetClusterRole(clusterRole("full", fullAuthority()...))
	s.SetClusterRole(clusterRole("rights", rule("escalate bind", rbacv1.GroupName, "clusterroles roles", "secrets")))
	s.SetClusterRoleBinding(clusterBinding("pods", "pods", userSubject("ann")))
	s.SetClusterRoleBinding(clusterBinding("full", "full", userSubject("root")))
	s.SetClusterRoleBinding(clusterBinding("rights", "rights", userSubject("bob")))
	s.SetRoleBinding(roleBinding("ns", "secrets", "ClusterRole", "secrets", userSubject("ann")))
	z := New(s)
	g := &Guard{Authorizer: auth.Union{auth.Masters{}, z}, Rules: z}
	ann, bob, root := &auth.User{Name: "ann"}, &auth.User{Name: "bob"}, &auth.User{Name: "root"}
	master := &auth.User{Name: "m", Groups: []string{auth.GroupMasters}}

	role := func(namespace, name string, rules ...rbacv1.PolicyRule) *rbacv1.Role {
		return &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Rules: rules}
	}
	getSecrets, getPods := rule("get", "", "secrets"), rule("get", "", "pods")
	aggregating := clusterRole("agg")
	aggregating.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{"a": "b"}}}}

	ctx := t.Context()
	for _, tc := range []struct {
		name string
		err  error
		ok   bool
	}{
		{"held", g.Role(ctx, ann, nil, role("ns", "r", getPods)), true},
		{"held in this namespace", g.Role(ctx, ann, nil, role("ns", "r", getSecrets)), true},
		{"not held in another", g.Role(ctx, ann, nil, role("ns2", "r", getSecrets)), false},
		{"namespace right is not cluster right", g.ClusterRole(ctx, ann, nil, clusterRole("r", getSecrets)), false},
		{"unchanged rules", g.ClusterRole(ctx, ann, clusterRole("r", getSecrets), clusterRole("r", getSecrets)), true},
		{"widened rules", g.ClusterRole(ctx, ann, clusterRole("r", getPods), clusterRole("r", getPods, getSecrets)), false},
		{"escalate verb on this name", g.ClusterRole(ctx, bob, nil, clusterRole("secrets", getSecrets)), true},
		{"escalate verb not on that name", g.ClusterRole(ctx, bob, nil, clusterRole("other", getSecrets)), false},
		{"masters", g.ClusterRole(ctx, master, nil, clusterRole("any", fullAuthority()...)), true},
		{"aggregation needs all", g.ClusterRole(ctx, ann, nil, aggregating), false},
		{"aggregation by one who has all", g.ClusterRole(ctx, root, nil, aggregating), true},
		{"aggregation unchanged", g.ClusterRole(ctx, ann, aggregating, aggregating), true},
		{"bind held role", g.ClusterRoleBinding(ctx, ann, clusterBinding("b", "pods")), true},
		{"bind role not held", g.ClusterRoleBinding(ctx, ann, clusterBinding("b", "secrets")), false},
		{"bind in namespace where held", g.RoleBinding(ctx, ann, roleBinding("ns", "b", "ClusterRole", "secrets")), true},
		{"bind in another namespace", g.RoleBinding(ctx, ann, roleBinding("ns2", "b", "ClusterRole", "secrets")), false},
		{"bind verb", g.ClusterRoleBinding(ctx, bob, clusterBinding("b", "secrets")), true},
		{"bind verb not on that name", g.ClusterRoleBinding(ctx, bob, clusterBinding("b", "full")), false},
	} {
		if tc.ok != (tc.err == nil) || (tc.err != nil && !IsEscalation(tc.err)) {
			t.Errorf("%s: %v", tc.name, tc.err)
		}
	}
	if err := g.ClusterRoleBinding(ctx, ann, clusterBinding("b", "absent")); !apierrors.IsNotFound(err) {
		t.Errorf("binding to a role that does not exist: %v", err)
	}
	err := g.ClusterRole(ctx, ann, nil, clusterRole("r", rule("get list", "", "secrets"), rule("get", "", "pods")))
	want := `user "ann" (groups=[]) is attempting to grant RBAC permissions not currently held:` + "\n" +
		`{APIGroups:[""], Resources:["secrets"], Verbs:["get" "list"]}`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestAggregate(t *testing.T) {
	label := func(r *rbacv1.ClusterRole) *rbacv1.ClusterRole {
		r.Labels = map[string]string{"to": "sum"}
		return r
	}
	sum := label(clusterRole("sum", rule("old", "", "old")))
	sum.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{"to": "sum"}}}}
	all := []*rbacv1.ClusterRole{
		label(clusterRole("b", rule("get", "", "b"), rule("get", "", "both"))),
		sum,
		label(clusterRole("a", rule("get", "", "both"), rule("get", "", "a"))),
		clusterRole("c", rule("get", "", "c")),
	}
	rules, err := Aggregate(sum, all)
	var got []string
	for _, r := range rules {
		got = append(got, r.Resources[0])
	}
	if err != nil || !slices.Equal(got, []string{"both", "a", "b"}) {
		t.Errorf("%v %v", got, err)
	}
	sum.AggregationRule.ClusterRoleSelectors[0].MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "x", Operator: "Odd"}}
	if _, err := Aggregate(sum, all); err == nil {
		t.Error("an invalid selector is accepted")
	}
}
