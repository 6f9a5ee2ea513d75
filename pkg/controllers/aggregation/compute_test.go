package aggregation

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func role(name, label string, resources ...string) *rbacv1.ClusterRole {
	r := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{label: "true"}}}
	for _, res := range resources {
		r.Rules = append(r.Rules, rbacv1.PolicyRule{Verbs: []string{"get"}, Resources: []string{res}})
	}
	return r
}

func TestCompute(t *testing.T) {
	view := role("view", "to-edit", "stale")
	view.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{
		{MatchLabels: map[string]string{"to-view": "true"}}, {MatchLabels: map[string]string{"also": "true"}},
	}}
	all := []*rbacv1.ClusterRole{view, role("c", "to-view", "pods"), role("b", "also", "nodes", "pods"), role("a", "to-view", "services"), role("x", "other", "secrets")}
	rules, changed, err := compute(view, all)
	if err != nil || !changed {
		t.Fatalf("changed %v, err %v", changed, err)
	}
	var got []string
	for _, r := range rules {
		got = append(got, r.Resources...)
	}
	if diff := cmp.Diff([]string{"services", "pods", "nodes"}, got); diff != "" {
		t.Errorf("resources (-want +got):\n%s", diff)
	}
	view.Rules = rules
	if _, again, _ := compute(view, all); again {
		t.Error("complete rules change again")
	}
}
