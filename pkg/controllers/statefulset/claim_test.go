package statefulset

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func keeping(deleted, scaled appsv1.PersistentVolumeClaimRetentionPolicyType) func(*appsv1.StatefulSet) {
	return func(set *appsv1.StatefulSet) {
		set.Spec.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{{
			ObjectMeta: metav1.ObjectMeta{Name: "data", Labels: map[string]string{"size": "small", "app": "other"}},
		}}
		set.Spec.PersistentVolumeClaimRetentionPolicy = &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{WhenDeleted: deleted, WhenScaled: scaled}
	}
}

const (
	retain = appsv1.RetainPersistentVolumeClaimRetentionPolicyType
	remove = appsv1.DeletePersistentVolumeClaimRetentionPolicyType
)

func TestOwners(t *testing.T) {
	for _, tc := range []struct {
		name            string
		deleted, scaled appsv1.PersistentVolumeClaimRetentionPolicyType
		have            []string
		surplus         bool
		want            []string
		changed         bool
		conflict        bool
	}{
		{name: "kept for ever", deleted: retain, scaled: retain},
		{name: "kept for ever again", deleted: retain, scaled: retain, have: []string{"set"}, changed: true},
		{name: "goes with the set", deleted: remove, scaled: retain, want: []string{"set"}, changed: true},
		{name: "goes with the set already", deleted: remove, scaled: retain, have: []string{"set"}, want: []string{"set"}},
		{name: "goes with the set and not with the pod", deleted: remove, scaled: retain, have: []string{"set"}, surplus: true, want: []string{"set"}},
		{name: "goes with a pod too many", deleted: retain, scaled: remove, surplus: true, want: []string{"pod"}, changed: true},
		{name: "stays with a pod that is wanted", deleted: retain, scaled: remove, have: []string{"pod"}, changed: true},
		{name: "goes with either", deleted: remove, scaled: remove, have: []string{"set"}, surplus: true, want: []string{"pod"}, changed: true},
		{name: "goes with either back", deleted: remove, scaled: remove, have: []string{"pod"}, want: []string{"set"}, changed: true},
		{name: "others stay", deleted: remove, scaled: retain, have: []string{"other"}, want: []string{"other", "set"}, changed: true},
		{name: "another controller", deleted: remove, scaled: retain, have: []string{"boss"}, want: []string{"boss"}, conflict: true},
		{name: "another controller and us", deleted: remove, scaled: retain, have: []string{"set", "boss"}, want: []string{"boss"}, changed: true, conflict: true},
		{name: "another controller and no policy", deleted: retain, scaled: retain, have: []string{"boss"}, want: []string{"boss"}},
		{name: "an earlier set's", deleted: remove, scaled: retain, have: []string{"set before"}, want: []string{"set before"}},
		{name: "an earlier pod's", deleted: remove, scaled: remove, have: []string{"pod before"}, want: []string{"pod before"}},
		{name: "ours but not controlling", deleted: remove, scaled: retain, have: []string{"weak set"}, want: []string{"set"}, changed: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			set := newSet(3, keeping(tc.deleted, tc.scaled))
			p := pod(set, 1, "new")
			refs := map[string]metav1.OwnerReference{
				"set": *metav1.NewControllerRef(set, kind), "pod": *metav1.NewControllerRef(p, podKind),
				"other": {APIVersion: "v1", Kind: "ConfigMap", Name: "web", UID: "cm"},
				"boss":  *metav1.NewControllerRef(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "boss", UID: "boss"}}, podKind),
			}
			for name, of := range map[string]string{"set before": "set", "pod before": "pod"} {
				ref := refs[of]
				ref.UID = "before"
				refs[name] = ref
			}
			weak := refs["set"]
			weak.Controller = nil
			refs["weak set"] = weak
			claim := &corev1.PersistentVolumeClaim{}
			for _, name := range tc.have {
				claim.OwnerReferences = append(claim.OwnerReferences, refs[name])
			}
			got, changed, conflict := owners(set, claim, p, tc.surplus)
			var want []metav1.OwnerReference
			for _, name := range tc.want {
				want = append(want, refs[name])
			}
			if diff := cmp.Diff(want, got); diff != "" || changed != tc.changed || conflict != tc.conflict {
				t.Errorf("changed %v, conflict %v, owners (-want +got):\n%s", changed, conflict, diff)
			}
			claim.OwnerReferences = got
			if _, again, _ := owners(set, claim, p, tc.surplus); again {
				t.Error("they would be written again and again")
			}
		})
	}
}

func TestClaimsAreMadeBeforeTheirPod(t *testing.T) {
	set := newSet(2, keeping(remove, remove))
	o := look(set)
	p := compute(o, now)
	if len(p.claims) != 1 || p.claims[0].pod != "web-0" || len(p.create) != 1 || len(p.waits) != 0 {
		t.Fatalf("it makes claims %+v, pods %v and waits for %v", p.claims, podNames(p.create), p.waits)
	}
	c := p.claims[0].claim
	if diff := cmp.Diff(map[string]string{"size": "small", "app": "web"}, c.Labels); diff != "" || c.Name != "data-web-0" || c.Namespace != "ns" || !metav1.IsControlledBy(c, set) {
		t.Errorf("the claim is %+v", c.ObjectMeta)
	}
	c.DeletionTimestamp = &metav1.Time{Time: now}
	o.claim = func(name string) *corev1.PersistentVolumeClaim {
		return map[string]*corev1.PersistentVolumeClaim{c.Name: c}[name]
	}
	if p := compute(o, now); len(p.create) != 0 || p.waits["web-0"] != "pvc data-web-0 is being deleted" {
		t.Errorf("with a claim that goes it makes %v, waits %v", podNames(p.create), p.waits)
	}
	c.DeletionTimestamp = nil
	c.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web-0", UID: "before"}}, podKind)}
	if p := compute(o, now); len(p.create) != 0 || p.waits["web-0"] == "" {
		t.Errorf("with a claim of an earlier pod it makes %v, waits %v", podNames(p.create), p.waits)
	}
	c.OwnerReferences = nil
	if p := compute(o, now); len(p.create) != 1 || len(p.claims) != 0 {
		t.Errorf("with its claim there it makes %v and claims %v", podNames(p.create), p.claims)
	}
}

// TestSurplusTakesItsClaim: the claim knows before the pod goes.
func TestSurplusTakesItsClaim(t *testing.T) {
	set := newSet(1, keeping(retain, remove))
	extra := pod(set, 1, "new")
	o := look(set, pod(set, 0, "new"), extra)
	o.claim = func(name string) *corev1.PersistentVolumeClaim {
		return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns"}}
	}
	p := compute(o, now)
	if len(p.own) != 1 || p.own[0].Name != "data-web-1" || !metav1.IsControlledBy(p.own[0], extra) {
		t.Fatalf("claims with new owners: %+v", p.own)
	}
	if diff := cmp.Diff([]string{"web-1"}, podNames(p.remove)); diff != "" {
		t.Errorf("removes (-want +got):\n%s", diff)
	}
}
