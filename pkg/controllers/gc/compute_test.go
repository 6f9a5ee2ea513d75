package gc

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

func ref(kind, name, uid string, blocks bool) metav1.OwnerReference {
	return metav1.OwnerReference{APIVersion: "apps/v1", Kind: kind, Name: name, UID: types.UID(uid), BlockOwnerDeletion: &blocks}
}

func object(uid string, owners ...metav1.OwnerReference) *node {
	return &node{
		kind: schema.GroupKind{Group: "apps", Kind: "ReplicaSet"}, namespace: "ns", name: "rs-" + uid,
		uid: types.UID(uid), owners: owners,
	}
}

func foreground(n *node) *node { n.deleting, n.foreground = true, true; return n }

func TestDecide(t *testing.T) {
	a, b := ref("ReplicaSet", "a", "a", true), ref("ReplicaSet", "b", "b", true)
	for _, tc := range []struct {
		name       string
		owners     []metav1.OwnerReference
		states     []ownerState
		dependents []*node
		finalizers []string
		want       decision
	}{
		{name: "a living owner", owners: []metav1.OwnerReference{a}, states: []ownerState{solid}, want: decision{action: keep}},
		{name: "no owner left", owners: []metav1.OwnerReference{a, b}, states: []ownerState{absent, absent}, want: decision{action: deleteItem, policy: "Background"}},
		{name: "one of two is gone", owners: []metav1.OwnerReference{a, b}, states: []ownerState{absent, solid}, want: decision{action: drop, remove: []types.UID{"a"}}},
		{name: "one of two is awaited", owners: []metav1.OwnerReference{a, b}, states: []ownerState{solid, awaited}, want: decision{action: drop, remove: []types.UID{"b"}}},
		{name: "awaited, no dependents", owners: []metav1.OwnerReference{a}, states: []ownerState{awaited}, want: decision{action: deleteItem, policy: "Background"}},
		{name: "awaited, with dependents", owners: []metav1.OwnerReference{a}, states: []ownerState{awaited}, dependents: []*node{object("x")}, want: decision{action: deleteItem, policy: "Foreground"}},
		{name: "a circle is broken", owners: []metav1.OwnerReference{a}, states: []ownerState{awaited}, dependents: []*node{foreground(object("x"))}, want: decision{action: deleteItem, policy: "Foreground", unblock: true}},
		{name: "an earlier choice to orphan stays", owners: []metav1.OwnerReference{a}, states: []ownerState{absent}, finalizers: []string{"orphan"}, want: decision{action: deleteItem, policy: "Orphan"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			live := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{OwnerReferences: tc.owners, Finalizers: tc.finalizers}}
			got := decide(live, tc.states, tc.dependents)
			if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(decision{})); diff != "" {
				t.Errorf("decision (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOwnerIdentityIsMoreThanUID(t *testing.T) {
	owner := object("a")
	for _, tc := range []struct {
		name      string
		ref       metav1.OwnerReference
		namespace string
		want      bool
	}{
		{"the same", ref("ReplicaSet", "rs-a", "a", true), "ns", true},
		{"another namespace", ref("ReplicaSet", "rs-a", "a", true), "other", false},
		{"another kind", ref("Deployment", "rs-a", "a", true), "ns", false},
		{"another name", ref("ReplicaSet", "rs-b", "a", true), "ns", false},
		{"another UID", ref("ReplicaSet", "rs-a", "b", true), "ns", false},
	} {
		if got := owner.is(tc.ref, tc.namespace); got != tc.want {
			t.Errorf("%s: is=%v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestBlockingDependents(t *testing.T) {
	owner := object("a")
	blocks := object("1", ref("ReplicaSet", "rs-a", "a", true))
	free := object("2", ref("ReplicaSet", "rs-a", "a", false))
	if got := blocking(owner, []*node{blocks, free}); len(got) != 1 || got[0] != blocks {
		t.Errorf("blocking are %v, want the one that says so", got)
	}
}

// TestGraphDirt walks an owner and its dependents through their lives and
// checks who has to be looked at.
func TestGraphDirt(t *testing.T) {
	sorted := func(uids []types.UID) []types.UID {
		slices.Sort(uids)
		return slices.Compact(uids)
	}
	want := func(step string, got []types.UID, want ...types.UID) {
		t.Helper()
		if diff := cmp.Diff(want, sorted(got), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step, diff)
		}
	}
	g := newGraph()
	dep := func() *node { return object("d", ref("ReplicaSet", "rs-o", "o", true)) }
	want("dependent before its owner is questionable", g.put(dep()), "d")
	want("owner appears", g.put(object("o")))
	want("dependent changes", g.put(dep()))
	want("second dependent", g.put(object("e", ref("ReplicaSet", "rs-o", "o", true))))
	want("owner starts to wait", g.put(foreground(object("o"))), "d", "e", "o")
	want("dependent goes", g.drop("d"), "o")
	want("dependent lets go of its owner", g.put(object("e")), "o")
	want("owner goes, nobody depends", g.drop("o"))
	want("wrong kind of owner is questionable", func() []types.UID {
		g.put(object("p"))
		return g.put(object("f", ref("Deployment", "rs-p", "p", true)))
	}(), "f")
	want("its end is news to who names its UID", g.drop("p"), "f")
	want("a restart finds what is unsettled", g.unsettled(), "f")
	g.drop("f")
	g.drop("e")
	if len(g.nodes) != 0 || len(g.dependents) != 0 {
		t.Errorf("the empty graph holds %v and %v", g.nodes, g.dependents)
	}
}
