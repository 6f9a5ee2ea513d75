package scheduler

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/scheduler/plugin"
)

// TestOwners says what selects a pod by default.
func TestOwners(t *testing.T) {
	o := newOwners()
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "a", Name: name} }
	service := &corev1.Service{ObjectMeta: meta("s"), Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "web"}}}
	set := &appsv1.ReplicaSet{ObjectMeta: meta("r"), Spec: appsv1.ReplicaSetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"hash": "1"}}}}
	group := &plugin.Group{Namespace: "a", Labels: map[string]string{"app": "web", "hash": "1"}}
	owned := plugin.Owner{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "r"}
	expect := func(want string, owner plugin.Owner) {
		t.Helper()
		if got := o.Selector(group, owner).String(); got != want {
			t.Errorf("selector %q, want %q", got, want)
		}
	}
	expect("", owned)
	o.see(service, false)
	expect("app=web", plugin.Owner{})
	o.see(set, false)
	expect("app=web,hash=1", owned)
	was := o.Version()
	o.see(set.DeepCopy(), false)
	o.see(service.DeepCopy(), false)
	if o.Version() != was {
		t.Error("what did not change counts as a change")
	}
	o.see(service, true)
	expect("hash=1", owned)
	o.see(set, true)
	expect("", owned)
	if o.Version() != was+2 {
		t.Errorf("version %d after two deletions, want %d", o.Version(), was+2)
	}
}
