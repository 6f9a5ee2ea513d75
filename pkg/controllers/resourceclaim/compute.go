package resourceclaim

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// maxBase is what a generated name leaves room for before its random end.
const maxBase = 57

// made is the name of the claim that was made for a pod's reference to a
// template. ok is false when none was recorded yet; an empty name with ok means
// that none is needed.
func made(pod *corev1.Pod, reference string) (name string, ok bool) {
	for i := range pod.Status.ResourceClaimStatuses {
		if s := &pod.Status.ResourceClaimStatuses[i]; s.Name == reference {
			if s.ResourceClaimName == nil {
				return "", true
			}
			return *s.ResourceClaimName, true
		}
	}
	return "", false
}

// ClaimsOf are the names of the claims that a pod uses, as far as they are made.
func ClaimsOf(pod *corev1.Pod) []string {
	var names []string
	for i := range pod.Spec.ResourceClaims {
		ref := &pod.Spec.ResourceClaims[i]
		switch {
		case ref.ResourceClaimName != nil:
			names = append(names, *ref.ResourceClaimName)
		case ref.ResourceClaimTemplateName != nil:
			if name, ok := made(pod, ref.Name); ok && name != "" {
				names = append(names, name)
			}
		}
	}
	if extended := pod.Status.ExtendedResourceClaimStatus; extended != nil && extended.ResourceClaimName != "" {
		names = append(names, extended.ResourceClaimName)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// templatesOf are the names of the templates that a pod's claims are made from.
func templatesOf(pod *corev1.Pod) []string {
	var names []string
	for i := range pod.Spec.ResourceClaims {
		if name := pod.Spec.ResourceClaims[i].ResourceClaimTemplateName; name != nil {
			names = append(names, *name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// lacking compares a pod's references to templates with the claims that there
// are: recorded by the names in the pod's status, and owned by the pod. found
// are claims that were made and not recorded, by reference; missing are the
// references for which there is none.
func lacking(pod *corev1.Pod, recorded map[string]*resourcev1.ResourceClaim, owned []*resourcev1.ResourceClaim) (found map[string]string, missing []*corev1.PodResourceClaim) {
	found = map[string]string{}
	for i := range pod.Spec.ResourceClaims {
		ref := &pod.Spec.ResourceClaims[i]
		if ref.ResourceClaimTemplateName == nil {
			continue
		}
		name, known := made(pod, ref.Name)
		if known && name == "" {
			continue
		}
		if claim := recorded[name]; known && claim != nil && metav1.IsControlledBy(claim, pod) {
			continue
		}
		at := slices.IndexFunc(owned, func(c *resourcev1.ResourceClaim) bool {
			return metav1.IsControlledBy(c, pod) && c.Annotations[resourcev1.PodResourceClaimAnnotation] == ref.Name
		})
		if at < 0 {
			missing = append(missing, ref)
			continue
		}
		found[ref.Name] = owned[at].Name
	}
	return found, missing
}

// claimOf is the claim of one of a pod's references, as its template says.
func claimOf(pod *corev1.Pod, reference string, template *resourcev1.ResourceClaimTemplate) *resourcev1.ResourceClaim {
	t := template.DeepCopy()
	annotations := t.Spec.Annotations
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[resourcev1.PodResourceClaimAnnotation] = reference
	owner := metav1.OwnerReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID, Controller: new(bool)}
	*owner.Controller = true
	return &resourcev1.ResourceClaim{
		ObjectMeta: metav1.ObjectMeta{
			GenerateName: baseName(pod.Name, reference), Namespace: pod.Namespace,
			Annotations: annotations, Labels: t.Spec.Labels, OwnerReferences: []metav1.OwnerReference{owner},
		},
		Spec: t.Spec.Spec,
	}
}

// baseName says both whose claim it is and which, however long their names are.
func baseName(pod, reference string) string {
	base := pod + "-" + reference + "-"
	if n := len(base); n > maxBase {
		base = pod[:len(pod)*maxBase/n] + "-" + reference[:len(reference)*maxBase/n]
	}
	return base
}

// statuses are what a pod's status is to say of its claims: what it says
// already, and what was found, by reference.
func statuses(pod *corev1.Pod, found map[string]string) []corev1.PodResourceClaimStatus {
	var out []corev1.PodResourceClaimStatus
	for i := range pod.Status.ResourceClaimStatuses {
		if s := &pod.Status.ResourceClaimStatuses[i]; s.ResourceClaimName != nil && found[s.Name] == "" {
			out = append(out, *s.DeepCopy())
		}
	}
	for name, claim := range found {
		out = append(out, corev1.PodResourceClaimStatus{Name: name, ResourceClaimName: &claim})
	}
	slices.SortFunc(out, func(a, b corev1.PodResourceClaimStatus) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// unreserved says that a pod, which has a node, uses a claim that is allocated
// and does not know of it: whoever bound the pod left that out.
func unreserved(pod *corev1.Pod, claim *resourcev1.ResourceClaim) bool {
	return claim.Status.Allocation != nil && !slices.ContainsFunc(claim.Status.ReservedFor, func(r resourcev1.ResourceClaimConsumerReference) bool {
		return r.UID == pod.UID
	})
}

// reserved is the claim with one more pod that uses it.
func reserved(pod *corev1.Pod, claim *resourcev1.ResourceClaim) *resourcev1.ResourceClaim {
	next := claim.DeepCopy()
	next.Status.ReservedFor = append(next.Status.ReservedFor, resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: pod.Name, UID: pod.UID})
	return next
}

// done says that a pod runs no containers and never will again.
func done(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed ||
		pod.DeletionTimestamp != nil && pod.Spec.NodeName == ""
}

// forPod says that a reservation is a pod's. Others are not this controller's.
func forPod(r *resourcev1.ResourceClaimConsumerReference) bool {
	return r.APIGroup == "" && r.Resource == "pods"
}

// protected says that a claim has the finalizer of allocated claims.
func protected(claim *resourcev1.ResourceClaim) bool {
	return slices.Contains(claim.Finalizers, resourcev1.Finalizer)
}

// released is what is left of a claim whose users are those in left: nobody
// keeps the devices of a claim that its last user has let go of. It is nil when
// nothing changes.
func released(claim *resourcev1.ResourceClaim, left []resourcev1.ResourceClaimConsumerReference) *resourcev1.ResourceClaim {
	last := len(left) < len(claim.Status.ReservedFor)
	deleted := claim.DeletionTimestamp != nil && claim.Status.Allocation != nil
	free := len(left) == 0 && protected(claim) && (last || deleted)
	if !last && !free {
		return nil
	}
	next := claim.DeepCopy()
	next.Status.ReservedFor = left
	if free {
		next.Status.Allocation = nil
	}
	return next
}

// unprotected is the claim without its finalizer, or nil if it is to stay.
// freed says that the allocation was taken off just now.
func unprotected(claim *resourcev1.ResourceClaim, freed bool) *resourcev1.ResourceClaim {
	idle := claim.Status.Allocation == nil && len(claim.Status.ReservedFor) == 0
	if !protected(claim) || !idle || !freed && claim.DeletionTimestamp == nil {
		return nil
	}
	next := claim.DeepCopy()
	next.Finalizers = slices.DeleteFunc(next.Finalizers, func(f string) bool { return f == resourcev1.Finalizer })
	return next
}

// owner is the reference of the pod that a claim was made for.
func owner(claim *resourcev1.ResourceClaim) *metav1.OwnerReference {
	ref := metav1.GetControllerOfNoCopy(claim)
	if ref == nil || ref.APIVersion != "v1" || ref.Kind != "Pod" {
		return nil
	}
	return ref
}

func notTheirs(pod *corev1.Pod, claim *resourcev1.ResourceClaim) error {
	return fmt.Errorf("ResourceClaim %s/%s was not created for Pod %s/%s (Pod is not owner)", claim.Namespace, claim.Name, pod.Namespace, pod.Name)
}
