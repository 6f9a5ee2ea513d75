package statefulset

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var podKind = corev1.SchemeGroupVersion.WithKind("Pod")

// claimName is the name of an ordinal's claim of a template.
func claimName(set *appsv1.StatefulSet, template string, ordinal int) string {
	return template + "-" + podName(set, ordinal)
}

// ownsClaim reports whether name is one that the set gives to its claims.
func ownsClaim(set *appsv1.StatefulSet, name string) bool {
	for i := range set.Spec.VolumeClaimTemplates {
		if pod, ok := strings.CutPrefix(name, set.Spec.VolumeClaimTemplates[i].Name+"-"); ok && ordinalOf(set, pod) >= 0 {
			return true
		}
	}
	return false
}

// retention is which of a set's claims go with what.
type retention struct{ deleted, scaled bool }

func retentionOf(set *appsv1.StatefulSet) retention {
	p := set.Spec.PersistentVolumeClaimRetentionPolicy
	if p == nil {
		return retention{}
	}
	const goes = appsv1.DeletePersistentVolumeClaimRetentionPolicyType
	return retention{deleted: p.WhenDeleted == goes, scaled: p.WhenScaled == goes}
}

// claimsFor plans the missing claims of a pod, which may not exist yet. It
// says why the pod has to wait when one of them cannot be used: it is being
// deleted, or it goes with an earlier pod of this name.
func (p *plan) claimsFor(o observed, pod *corev1.Pod, ordinal int) (wait string) {
	for i := range o.set.Spec.VolumeClaimTemplates {
		t := &o.set.Spec.VolumeClaimTemplates[i]
		name := claimName(o.set, t.Name, ordinal)
		have := o.claim(name)
		switch {
		case have == nil:
			p.claims = append(p.claims, missing{pod.Name, newClaim(o.set, t, name)})
		case have.DeletionTimestamp != nil:
			wait = fmt.Sprintf("pvc %s is being deleted", name)
		case pod.UID == "" && retentionOf(o.set).scaled && refersTo(have, podKind, pod.Name):
			wait = fmt.Sprintf("pvc %s goes with an earlier pod of this name", name)
		}
	}
	return wait
}

// newClaim makes the claim of a template for one pod. Its owner is the set
// when it is to go with it.
func newClaim(set *appsv1.StatefulSet, template *corev1.PersistentVolumeClaim, name string) *corev1.PersistentVolumeClaim {
	c := template.DeepCopy()
	c.Name, c.Namespace = name, set.Namespace
	if c.Labels == nil {
		c.Labels = map[string]string{}
	}
	maps.Copy(c.Labels, set.Spec.Selector.MatchLabels)
	c.Status = corev1.PersistentVolumeClaimStatus{}
	if retentionOf(set).deleted {
		c.OwnerReferences = append(c.OwnerReferences, *metav1.NewControllerRef(set, kind))
	}
	return c
}

// ownClaims plans the owner references of a pod's claims, by which the garbage
// collector makes them go with the set, or with a pod that is too much.
func (p *plan) ownClaims(o observed, pod *corev1.Pod, surplus bool) {
	ordinal := ordinalOf(o.set, pod.Name)
	for i := range o.set.Spec.VolumeClaimTemplates {
		have := o.claim(claimName(o.set, o.set.Spec.VolumeClaimTemplates[i].Name, ordinal))
		if have == nil || have.DeletionTimestamp != nil {
			continue
		}
		refs, changed, conflict := owners(o.set, have, pod, surplus)
		if changed && conflict {
			p.conflicts = append(p.conflicts, have.Name)
		}
		if changed {
			out := have.DeepCopy()
			out.OwnerReferences = refs
			p.own = append(p.own, out)
		}
	}
}

// owners returns the owner references that a claim should have. Those of
// others stay. A claim that an earlier set or pod of the name owned is left to
// the garbage collector, and to one that another controller manages nothing
// is added: that is a conflict.
func owners(set *appsv1.StatefulSet, claim *corev1.PersistentVolumeClaim, pod *corev1.Pod, surplus bool) (refs []metav1.OwnerReference, changed, conflict bool) {
	r := retentionOf(set)
	wantPod := r.scaled && surplus
	wantSet := r.deleted && !wantPod
	var hasSet, hasPod, weak bool
	for _, ref := range claim.OwnerReferences {
		controls := ref.Controller != nil && *ref.Controller
		switch {
		case names(ref, kind, set.Name):
			if ref.UID != set.UID {
				return claim.OwnerReferences, false, false
			}
			hasSet, weak = true, weak || !controls
		case names(ref, podKind, pod.Name):
			if ref.UID != pod.UID {
				return claim.OwnerReferences, false, false
			}
			hasPod, weak = true, weak || !controls
		default:
			refs = append(refs, ref)
			conflict = conflict || controls && (r.deleted || r.scaled)
		}
	}
	if conflict {
		return refs, hasSet || hasPod, true
	}
	if hasSet == wantSet && hasPod == wantPod && !weak {
		return claim.OwnerReferences, false, false
	}
	if wantSet {
		refs = append(refs, *metav1.NewControllerRef(set, kind))
	}
	if wantPod {
		refs = append(refs, *metav1.NewControllerRef(pod, podKind))
	}
	return refs, true, false
}

// names reports whether ref is to an object of this kind and name, whatever
// its UID.
func names(ref metav1.OwnerReference, kind schema.GroupVersionKind, name string) bool {
	return ref.APIVersion == kind.GroupVersion().String() && ref.Kind == kind.Kind && ref.Name == name
}

func refersTo(claim *corev1.PersistentVolumeClaim, kind schema.GroupVersionKind, name string) bool {
	return slices.ContainsFunc(claim.OwnerReferences, func(ref metav1.OwnerReference) bool { return names(ref, kind, name) })
}
