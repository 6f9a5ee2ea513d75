package volumebinder

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/volumebinding"
)

// volumePlan is what to do about a volume.
type volumePlan struct {
	phase   corev1.PersistentVolumePhase // to be the volume's; empty leaves it
	message string                       // of the phase
	event   event                        // news only if the phase changes
	// mismatch is said to the volume and to its claim, in turn.
	mismatch [2]event
	// unbind takes the claim from the volume before the phase is set.
	unbind bool
}

// decideVolume compares a volume with what it should be. claim is the one that
// its claimRef names, nil if there is none of that UID.
func decideVolume(volume *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) volumePlan {
	ref := volume.Spec.ClaimRef
	switch {
	case ref == nil, ref.UID == "":
		return volumePlan{phase: corev1.VolumeAvailable}
	case claim == nil:
		return released(volume)
	case claim.Spec.VolumeName == volume.Name:
		return volumePlan{phase: corev1.VolumeBound}
	case claim.Spec.VolumeName != "":
		// The claim has another volume.
		if _, made := volume.Annotations[volumebinding.ProvisionedBy]; made &&
			volume.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete {
			return released(volume)
		}
		return volumePlan{phase: corev1.VolumeAvailable, unbind: true}
	case !volumebinding.SameMode(volume, claim):
		return volumePlan{mismatch: [2]event{
			warning("VolumeMismatch", "Cannot bind PersistentVolume to requested PersistentVolumeClaim %q due to incompatible volumeMode.", claim.Name),
			warning("VolumeMismatch", "Cannot bind PersistentVolume %q to requested PersistentVolumeClaim due to incompatible volumeMode.", volume.Name),
		}}
	}
	return volumePlan{} // what is missing is the claim's to do
}

// released is about a volume whose claim is gone: its policy says what comes
// then.
func released(v *corev1.PersistentVolume) volumePlan {
	over := v.Status.Phase == corev1.VolumeReleased || v.Status.Phase == corev1.VolumeFailed
	plan := volumePlan{phase: corev1.VolumeReleased}
	if over {
		plan.phase = ""
	}
	fail := func(e event) volumePlan {
		return volumePlan{phase: corev1.VolumeFailed, message: e.message, event: e}
	}
	if v.Annotations[volumebinding.MigratedTo] != "" {
		return plan
	}
	switch v.Spec.PersistentVolumeReclaimPolicy {
	case corev1.PersistentVolumeReclaimRetain:
		return plan
	case corev1.PersistentVolumeReclaimRecycle:
		return fail(warning("VolumeFailedRecycle", "No recycler plugin found for the volume!"))
	case corev1.PersistentVolumeReclaimDelete:
		by := v.Annotations[volumebinding.ProvisionedBy]
		if v.Spec.CSI != nil || by != "" && !strings.HasPrefix(by, "kubernetes.io/") {
			return plan // its provisioner sees the phase and deletes it
		}
		return fail(warning("VolumeFailedDelete", "error getting deleter volume plugin for volume %q: no deletable volume plugin matched", v.Name))
	}
	return fail(warning("VolumeUnknownReclaimPolicy", "Volume has unrecognized PersistentVolumeReclaimPolicy"))
}

// unbound returns the volume without its claim. A claim that the user chose
// stays chosen.
func unbound(v *corev1.PersistentVolume) *corev1.PersistentVolume {
	next := v.DeepCopy()
	if _, ours := v.Annotations[volumebinding.BoundByController]; ours {
		next.Spec.ClaimRef = nil
		delete(next.Annotations, volumebinding.BoundByController)
	} else if next.Spec.ClaimRef != nil {
		next.Spec.ClaimRef.UID = ""
	}
	return next
}

// bound returns the claim as bound to the volume, and whether that changes it.
func bound(claim *corev1.PersistentVolumeClaim, volume string) (*corev1.PersistentVolumeClaim, bool) {
	if claim.Spec.VolumeName == volume && volumebinding.Complete(claim) {
		return claim, false
	}
	next := claim.DeepCopy()
	if claim.Spec.VolumeName != volume {
		next.Spec.VolumeName = volume
		metav1.SetMetaDataAnnotation(&next.ObjectMeta, volumebinding.BoundByController, "yes")
	}
	metav1.SetMetaDataAnnotation(&next.ObjectMeta, volumebinding.BindCompleted, "yes")
	return next, true
}

// provisionedBy returns the claim with its provisioner named, and whether that
// changes it.
func provisionedBy(claim *corev1.PersistentVolumeClaim, name string) (*corev1.PersistentVolumeClaim, bool) {
	if claim.Annotations[volumebinding.Provisioner] == name && claim.Annotations[volumebinding.BetaProvisioner] == name {
		return claim, false
	}
	next := claim.DeepCopy()
	metav1.SetMetaDataAnnotation(&next.ObjectMeta, volumebinding.Provisioner, name)
	metav1.SetMetaDataAnnotation(&next.ObjectMeta, volumebinding.BetaProvisioner, name)
	return next, true
}

func sameModes(a, b []corev1.PersistentVolumeAccessMode) bool { return slices.Equal(a, b) }

// finished reports whether the pod uses its volumes no more.
func finished(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}
