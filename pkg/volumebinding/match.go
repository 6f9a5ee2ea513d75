package volumebinding

import (
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	schedulinghelper "k8s.io/component-helpers/scheduling/corev1"
)

// Query is what a volume is looked for.
type Query struct {
	Claim *corev1.PersistentVolumeClaim
	// Reserved are names of volumes that others are about to take.
	Reserved func(name string) bool
	// ReservedOnly finds nothing but a volume that names the claim already:
	// the claim waits for a pod, and the choice is the scheduler's.
	ReservedOnly bool
}

// Find returns the volume that suits the claim best, nil if none does: one
// that names the claim, else the one with the fewest access modes to spare,
// else the smallest. Equal ones go by name. An error means that the claim's
// selector cannot be read.
func Find(q Query, volumes []*corev1.PersistentVolume) (*corev1.PersistentVolume, error) {
	selector, err := selectorOf(q.Claim)
	if err != nil {
		return nil, err
	}
	var best *corev1.PersistentVolume
	for _, v := range volumes {
		if q.Reserved != nil && q.Reserved(v.Name) {
			continue
		}
		if Names(v, q.Claim) {
			if !usable(v, q.Claim) || !modesFit(v, q.Claim) {
				continue
			}
			return v, nil
		}
		if q.ReservedOnly || !free(v, q.Claim, selector) {
			continue
		}
		if best == nil || better(v, best) {
			best = v
		}
	}
	return best, nil
}

// Names reports whether the volume is set aside for the claim, or bound to it.
func Names(volume *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) bool {
	ref := volume.Spec.ClaimRef
	return ref != nil && ref.Name == claim.Name && ref.Namespace == claim.Namespace && (ref.UID == "" || ref.UID == claim.UID)
}

// usable is what holds for every volume that a claim is given.
func usable(v *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) bool {
	return v.DeletionTimestamp == nil && bigEnough(v, claim) && SameMode(v, claim) &&
		deref(v.Spec.VolumeAttributesClassName) == deref(claim.Spec.VolumeAttributesClassName)
}

// free is what holds for a volume that nobody has, and that the claim may take.
func free(v *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim, selector labels.Selector) bool {
	return v.Spec.ClaimRef == nil && v.Status.Phase == corev1.VolumeAvailable && usable(v, claim) &&
		VolumeClassOf(v) == ClassOf(claim) && modesFit(v, claim) && selector.Matches(labels.Set(v.Labels))
}

func better(a, b *corev1.PersistentVolume) bool {
	if n := len(a.Spec.AccessModes) - len(b.Spec.AccessModes); n != 0 {
		return n < 0
	}
	x, y := a.Spec.Capacity[corev1.ResourceStorage], b.Spec.Capacity[corev1.ResourceStorage]
	if c := x.Cmp(y); c != 0 {
		return c < 0
	}
	return a.Name < b.Name
}

// Check says why a claim may not have the volume that it asks for by name; nil
// if it may. The sentences are those of Kubernetes' VolumeMismatch events.
func Check(v *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) error {
	switch {
	case v.DeletionTimestamp != nil:
		return fmt.Errorf("the volume is marked for deletion %q", v.Name)
	case !bigEnough(v, claim):
		return errors.New("requested PV is too small")
	case VolumeClassOf(v) != ClassOf(claim):
		return errors.New("storageClassName does not match")
	case deref(v.Spec.VolumeAttributesClassName) != deref(claim.Spec.VolumeAttributesClassName):
		return errors.New("volumeAttributesClassName does not match")
	case !SameMode(v, claim):
		return errors.New("incompatible volumeMode")
	case !modesFit(v, claim):
		return errors.New("incompatible accessMode")
	}
	return nil
}

func bigEnough(v *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) bool {
	have, want := v.Spec.Capacity[corev1.ResourceStorage], claim.Spec.Resources.Requests[corev1.ResourceStorage]
	return have.Cmp(want) >= 0
}

func modesFit(v *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) bool {
	return !slices.ContainsFunc(claim.Spec.AccessModes, func(mode corev1.PersistentVolumeAccessMode) bool {
		return !slices.Contains(v.Spec.AccessModes, mode)
	})
}

// SameMode reports whether both are file systems, or both raw devices.
func SameMode(v *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) bool {
	return IsBlock(v.Spec.VolumeMode) == IsBlock(claim.Spec.VolumeMode)
}

// IsBlock reports whether a volume mode is that of raw devices.
func IsBlock(mode *corev1.PersistentVolumeMode) bool {
	return mode != nil && *mode == corev1.PersistentVolumeBlock
}

// Reaches reports whether pods on the node can use the volume.
func Reaches(v *corev1.PersistentVolume, node *corev1.Node) bool {
	if v.Spec.NodeAffinity == nil || v.Spec.NodeAffinity.Required == nil {
		return true
	}
	ok, err := schedulinghelper.MatchNodeSelectorTerms(node, v.Spec.NodeAffinity.Required)
	return err == nil && ok
}

// Bind returns the volume as bound to the claim, and whether that changes it.
func Bind(v *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) (*corev1.PersistentVolume, bool) {
	chosen := !Names(v, claim)
	if !chosen && v.Spec.ClaimRef.UID == claim.UID {
		return v, false
	}
	next := v.DeepCopy()
	next.Spec.ClaimRef = Reference(claim)
	if chosen {
		metav1.SetMetaDataAnnotation(&next.ObjectMeta, BoundByController, "yes")
	}
	return next, true
}

// Reference is what a volume's claimRef says of the claim.
func Reference(claim *corev1.PersistentVolumeClaim) *corev1.ObjectReference {
	return &corev1.ObjectReference{
		APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: claim.Namespace, Name: claim.Name,
		UID: claim.UID, ResourceVersion: claim.ResourceVersion,
	}
}

// Fitting are the volumes that a claim may have, the best first: those that
// name it and no others, if there are any.
func Fitting(claim *corev1.PersistentVolumeClaim, volumes []*corev1.PersistentVolume) ([]*corev1.PersistentVolume, error) {
	selector, err := selectorOf(claim)
	if err != nil {
		return nil, err
	}
	var own, others []*corev1.PersistentVolume
	for _, v := range volumes {
		switch {
		case Names(v, claim) && usable(v, claim) && modesFit(v, claim):
			own = append(own, v)
		case free(v, claim, selector):
			others = append(others, v)
		}
	}
	if len(own) > 0 {
		return own, nil
	}
	slices.SortFunc(others, func(a, b *corev1.PersistentVolume) int {
		switch {
		case better(a, b):
			return -1
		case better(b, a):
			return 1
		}
		return 0
	})
	return others, nil
}

func selectorOf(claim *corev1.PersistentVolumeClaim) (labels.Selector, error) {
	if claim.Spec.Selector == nil {
		return labels.Everything(), nil
	}
	selector, err := metav1.LabelSelectorAsSelector(claim.Spec.Selector)
	if err != nil {
		return nil, fmt.Errorf("the selector of claim %s/%s: %w", claim.Namespace, claim.Name, err)
	}
	return selector, nil
}
