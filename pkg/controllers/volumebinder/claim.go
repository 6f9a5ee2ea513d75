package volumebinder

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"coracle/pkg/volumebinding"
)

// event is what users are told about an object.
type event struct {
	kind, reason, message string // kind is Normal or Warning
}

func (e event) empty() bool { return e.reason == "" }

func normal(reason, format string, args ...any) event {
	return event{corev1.EventTypeNormal, reason, fmt.Sprintf(format, args...)}
}

func warning(reason, format string, args ...any) event {
	return event{corev1.EventTypeWarning, reason, fmt.Sprintf(format, args...)}
}

// claimView is what there is to know about a claim.
type claimView struct {
	claim *corev1.PersistentVolumeClaim
	// class is the one that the claim names, standard the one of claims that
	// name none; nil when there is no such class.
	class, standard *storagev1.StorageClass
	// named is the volume of spec.volumeName, nil when it is not there.
	named *corev1.PersistentVolume
	// find looks for a volume; it is asked at most once, and only for claims
	// without one.
	find func(volumebinding.Query) (*corev1.PersistentVolume, error)
	// waiting are the names of pods that use the claim and have no node yet.
	waiting []string
}

// claimPlan is what to do about a claim, in the order of the fields.
type claimPlan struct {
	// class is to become the claim's; nothing else is done then.
	class string
	// provisioner is to be named in the claim's annotations.
	provisioner string
	// bind is the volume that the claim gets, or has: both sides are to say so.
	bind *corev1.PersistentVolume
	// phase is to be the claim's, without a volume; empty leaves it.
	phase corev1.PersistentVolumeClaimPhase
	event event
	// once says that the event is news only if the phase changes.
	once bool
	// retry says that something is wrong that nobody here can cure.
	retry error
}

// decideClaim compares a claim with what it should be.
func decideClaim(v claimView) (claimPlan, error) {
	switch {
	case volumebinding.Complete(v.claim):
		return decideBound(v), nil
	case v.claim.Spec.VolumeName != "":
		return decideNamed(v), nil
	}
	return decideUnbound(v)
}

// decideBound is about a claim that was bound once.
func decideBound(v claimView) claimPlan {
	lost := func(reason, message string) claimPlan {
		return claimPlan{phase: corev1.ClaimLost, event: warning(reason, "%s", message), once: true}
	}
	switch {
	case v.claim.Spec.VolumeName == "":
		return lost("ClaimLost", "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!")
	case v.named == nil:
		return lost("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!")
	case v.named.Spec.ClaimRef != nil && v.named.Spec.ClaimRef.UID != v.claim.UID:
		return lost("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")
	}
	return claimPlan{bind: v.named}
}

// decideNamed is about a claim that asks for one volume by name.
func decideNamed(v claimView) claimPlan {
	plan := claimPlan{phase: corev1.ClaimPending}
	switch {
	case v.named == nil: // it may come yet
	case v.named.Spec.ClaimRef == nil:
		if err := volumebinding.Check(v.named, v.claim); err != nil {
			plan.event = warning("VolumeMismatch", "Cannot bind to requested volume %q: %s", v.named.Name, err)
			return plan
		}
		return claimPlan{bind: v.named}
	case volumebinding.Names(v.named, v.claim):
		return claimPlan{bind: v.named}
	default:
		plan.event = warning("FailedBinding", "volume %q already bound to a different claim.", v.named.Name)
		if _, ours := v.claim.Annotations[volumebinding.BoundByController]; ours {
			plan.phase = ""
			plan.retry = fmt.Errorf("claim %s/%s was given volume %s, which has another claim: delete one of the claims",
				v.claim.Namespace, v.claim.Name, v.named.Name)
		}
	}
	return plan
}

// decideUnbound is about a claim that takes what suits it.
func decideUnbound(v claimView) (claimPlan, error) {
	waits := volumebinding.Waits(v.class)
	// A claim that is going gets nothing new.
	volume, err := v.find(volumebinding.Query{Claim: v.claim, ReservedOnly: waits || v.claim.DeletionTimestamp != nil})
	switch {
	case err != nil:
		return claimPlan{}, err
	case volume != nil:
		return claimPlan{bind: volume}, nil
	case v.claim.DeletionTimestamp != nil:
		return claimPlan{}, nil
	case !volumebinding.HasClass(v.claim) && v.standard != nil:
		return claimPlan{class: v.standard.Name}, nil
	}
	plan := claimPlan{phase: corev1.ClaimPending}
	_, chosen := v.claim.Annotations[volumebinding.SelectedNode]
	name := volumebinding.ClassOf(v.claim)
	switch {
	case waits && !chosen:
		plan.event = waitEvent(v.waiting)
	case name == "":
		plan.event = normal("FailedBinding", "no persistent volumes available for this claim and no storage class is set")
	case v.class == nil:
		plan.event = warning("ProvisioningFailed", "storageclass.storage.k8s.io %q not found", name)
	case strings.HasPrefix(v.class.Provisioner, "kubernetes.io/"):
		// The plugins of these names were part of Kubernetes once.
		plan.event = warning("ProvisioningFailed", "no volume plugin matched name: %s", v.class.Provisioner)
	default:
		plan.provisioner = v.class.Provisioner
		plan.event = normal("ExternalProvisioning", "Waiting for a volume to be created either by the external provisioner '%s' "+
			"or manually by the system administrator. If volume creation is delayed, please verify that "+
			"the provisioner is running and correctly registered.", v.class.Provisioner)
	}
	return plan, nil
}

func waitEvent(pods []string) event {
	switch len(pods) {
	case 0:
		return normal("WaitForFirstConsumer", "waiting for first consumer to be created before binding")
	case 1:
		return normal("WaitForPodScheduled", "waiting for pod %s to be scheduled", pods[0])
	}
	return normal("WaitForPodScheduled", "waiting for pods %s to be scheduled", strings.Join(pods, ","))
}

// claimStatus returns the claim with its phase, and with what it has of its
// volume, which may be nil; false when that changes nothing. While a claim is
// bound, its capacity is for those to say who resize volumes.
func claimStatus(claim *corev1.PersistentVolumeClaim, phase corev1.PersistentVolumeClaimPhase, volume *corev1.PersistentVolume) (*corev1.PersistentVolumeClaim, bool) {
	next := claim.DeepCopy()
	next.Status.Phase = phase
	if volume == nil {
		next.Status.AccessModes, next.Status.Capacity, next.Status.CurrentVolumeAttributesClassName = nil, nil, nil
		return next, claim.Status.Phase != phase || claim.Status.AccessModes != nil || claim.Status.Capacity != nil ||
			claim.Status.CurrentVolumeAttributesClassName != nil
	}
	next.Status.AccessModes = volume.Spec.AccessModes
	changed := !sameModes(claim.Status.AccessModes, volume.Spec.AccessModes)
	if claim.Status.Phase != phase {
		changed = true
		next.Status.Capacity = volume.Spec.Capacity
		if claim.Status.Phase == corev1.ClaimPending {
			next.Status.CurrentVolumeAttributesClassName = volume.Spec.VolumeAttributesClassName
		}
	}
	return next, changed
}
