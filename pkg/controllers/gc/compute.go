package gc

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// ownerState is what the server said about one owner of an object.
type ownerState int

const (
	solid   ownerState = iota // exists, and is not waiting for its dependents
	absent                    // does not exist, or has another UID
	awaited                   // is being deleted in the foreground
)

// action is what happens to an object.
type action int

const (
	keep       action = iota
	drop              // remove the references in decision.remove
	deleteItem        // delete it with decision.policy
)

type decision struct {
	action action
	remove []types.UID // owners whose reference goes
	policy metav1.DeletionPropagation
	// unblock, when set, first stops the object from blocking its owners: it
	// and a dependent of it wait for each other otherwise.
	unblock bool
}

// decide says what happens to live, given the state of each of its owners, in
// the order of its references. dependents are those the graph knows.
func decide(live *metav1.PartialObjectMetadata, owners []ownerState, dependents []*node) decision {
	var gone []types.UID
	var nSolid, nAwaited int
	for i, ref := range live.OwnerReferences {
		switch owners[i] {
		case solid:
			nSolid++
		case awaited:
			nAwaited++
			gone = append(gone, ref.UID)
		case absent:
			gone = append(gone, ref.UID)
		}
	}
	switch {
	case len(gone) == 0:
		return decision{action: keep}
	case nSolid > 0:
		// Somebody still wants it: only the dead references go.
		return decision{action: drop, remove: gone}
	case nAwaited > 0 && len(dependents) > 0:
		return decision{
			action: deleteItem, policy: metav1.DeletePropagationForeground,
			unblock: slices.ContainsFunc(dependents, (*node).awaits),
		}
	}
	return decision{action: deleteItem, policy: policyOf(live.Finalizers)}
}

// policyOf keeps the policy that an earlier delete request chose.
func policyOf(finalizers []string) metav1.DeletionPropagation {
	switch {
	case slices.Contains(finalizers, metav1.FinalizerOrphanDependents):
		return metav1.DeletePropagationOrphan
	case slices.Contains(finalizers, metav1.FinalizerDeleteDependents):
		return metav1.DeletePropagationForeground
	}
	return metav1.DeletePropagationBackground
}

// blocking returns the dependents that keep owner in foreground deletion.
func blocking(owner *node, dependents []*node) []*node {
	var out []*node
	for _, d := range dependents {
		if slices.ContainsFunc(d.owners, func(ref metav1.OwnerReference) bool {
			return owner.is(ref, d.namespace) && ref.BlockOwnerDeletion != nil && *ref.BlockOwnerDeletion
		}) {
			out = append(out, d)
		}
	}
	return out
}

// without returns refs except those to the given owners.
func without(refs []metav1.OwnerReference, owners []types.UID) []metav1.OwnerReference {
	out := []metav1.OwnerReference{} // never nil: a merge patch must say []
	for _, ref := range refs {
		if !slices.Contains(owners, ref.UID) {
			out = append(out, ref)
		}
	}
	return out
}
