package resource

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/diff"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// validateClaimUpdate: a claim is for one thing. The binder names its volume
// once, a bound one may grow and change its class of attributes, and one
// without a storage class may be given one.
func validateClaimUpdate(c, old *corev1.PersistentVolumeClaim) field.ErrorList {
	path := field.NewPath("spec")
	rest, was := c.Spec.DeepCopy(), old.Spec.DeepCopy()
	if was.VolumeName == "" {
		was.VolumeName = rest.VolumeName
	}
	errs := checkClaimClass(c, old, rest, was)
	if c.Status.Phase == corev1.ClaimBound {
		if rest.Resources.Requests != nil {
			rest.Resources.Requests[corev1.ResourceStorage] = was.Resources.Requests[corev1.ResourceStorage]
		}
		if rest.VolumeAttributesClassName != nil {
			rest.VolumeAttributesClassName = was.VolumeAttributesClassName
		}
	}
	if !equality.Semantic.DeepEqual(rest, was) {
		errs = append(errs, field.Forbidden(path, fmt.Sprintf(
			"spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n%v", diff.Diff(*was, *rest))))
	}
	size, before := c.Spec.Resources.Requests[corev1.ResourceStorage], old.Spec.Resources.Requests[corev1.ResourceStorage]
	// A failed expansion may be taken back to above what is there.
	if size.Cmp(before) < 0 && size.Cmp(old.Status.Capacity[corev1.ResourceStorage]) <= 0 {
		errs = append(errs, field.Forbidden(path.Child("resources", "requests", "storage"), "field can not be less than status.capacity"))
	}
	// Upstream's path of this lacks the element "spec"; so does this.
	errs = append(errs, checkImmutable(field.NewPath("volumeMode"), c.Spec.VolumeMode, old.Spec.VolumeMode)...)
	if v := c.Spec.VolumeAttributesClassName; old.Spec.VolumeAttributesClassName != nil {
		p := path.Child("volumeAttributesClassName")
		if v == nil {
			errs = append(errs, field.Forbidden(p, "update from non-nil value to nil is forbidden"))
		} else if *v == "" && *old.Spec.VolumeAttributesClassName != "" {
			errs = append(errs, field.Forbidden(p, "update from non-nil value to an empty string is forbidden"))
		}
	}
	return errs
}

// checkClaimClass lets the storage class be moved from the annotation that
// once held it to its field, or be set where there was none. What is allowed
// is made equal in rest and was.
func checkClaimClass(c, old *corev1.PersistentVolumeClaim, rest, was *corev1.PersistentVolumeClaimSpec) field.ErrorList {
	const key = corev1.BetaStorageClassAnnotation
	noted, had := old.Annotations[key]
	note, has := c.Annotations[key]
	class := rest.StorageClassName
	moved := had && was.StorageClassName == nil && class != nil && *class == noted
	if moved && (!has || note == noted) {
		rest.StorageClassName = nil
		return nil
	}
	var errs field.ErrorList
	if note != noted {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "annotations").Key(key), note, "field is immutable"))
	}
	if class != nil && was.StorageClassName == nil && (!had || *class == noted) {
		rest.StorageClassName = nil
	}
	return errs
}

func validateClaimStatus(c, _ *corev1.PersistentVolumeClaim) field.ErrorList {
	path := field.NewPath("status")
	var errs field.ErrorList
	if len(c.Spec.AccessModes) == 0 {
		errs = append(errs, field.Required(field.NewPath("Spec", "accessModes"), ""))
	}
	for _, name := range sortedKeys(c.Status.Capacity) {
		errs = append(errs, checkBasicQuantity(path.Child("capacity").Key(string(name)), c.Status.Capacity[name])...)
	}
	phases := []corev1.ClaimResourceStatus{
		corev1.PersistentVolumeClaimControllerResizeInProgress, corev1.PersistentVolumeClaimControllerResizeInfeasible,
		corev1.PersistentVolumeClaimNodeResizePending, corev1.PersistentVolumeClaimNodeResizeInProgress,
		corev1.PersistentVolumeClaimNodeResizeInfeasible,
	}
	p := path.Child("allocatedResourceStatuses")
	for _, name := range sortedKeys(c.Status.AllocatedResourceStatuses) {
		errs = append(errs, checkClaimResource(p, name)...)
		if !slices.Contains(phases, c.Status.AllocatedResourceStatuses[name]) {
			errs = append(errs, field.NotSupported(p, name, phases))
		}
	}
	p = path.Child("allocatedResources")
	for _, name := range sortedKeys(c.Status.AllocatedResources) {
		if bad := checkClaimResource(p, name); len(bad) > 0 {
			errs = append(errs, bad...)
			continue
		}
		errs = append(errs, checkBasicQuantity(p.Key(string(name)), c.Status.AllocatedResources[name])...)
	}
	if h := c.Status.HealthStatus; h != nil {
		errs = append(errs, checkVolumeHealth(path.Child("healthStatus", "healthConditions"), h.HealthConditions)...)
	}
	return errs
}

// checkClaimResource: of Kubernetes' own resources a claim has storage alone.
func checkClaimResource(path *field.Path, name corev1.ResourceName) field.ErrorList {
	if msgs := utilvalidation.IsQualifiedName(string(name)); len(msgs) > 0 {
		return invalid(path, name, msgs)
	}
	if nativeResource(name) && name != corev1.ResourceStorage {
		return field.ErrorList{field.NotSupported(path, name, []corev1.ResourceName{corev1.ResourceStorage})}
	}
	return nil
}

const (
	maxHealthConditions = 16
	maxHealthReason     = 256
	maxHealthMessage    = 1024
)

// checkVolumeHealth: a list keyed by status and reason.
func checkVolumeHealth(path *field.Path, list []corev1.VolumeHealthCondition) field.ErrorList {
	if len(list) > maxHealthConditions {
		return field.ErrorList{field.TooMany(path, len(list), maxHealthConditions)}
	}
	var errs field.ErrorList
	type key struct {
		status corev1.VolumeHealthStatusType
		reason string
	}
	seen := map[key]bool{}
	for i, c := range list {
		p := path.Index(i)
		errs = append(errs, checkSet(p.Child("status"), c.Status, corev1.VolumeHealthDataLoss,
			corev1.VolumeHealthDegraded, corev1.VolumeHealthInaccessible)...)
		errs = append(errs, required(p.Child("reason"), c.Reason)...)
		if len(c.Reason) > maxHealthReason {
			errs = append(errs, field.TooLong(p.Child("reason"), c.Reason, maxHealthReason))
		}
		if len(c.Message) > maxHealthMessage {
			errs = append(errs, field.TooLong(p.Child("message"), c.Message, maxHealthMessage))
		}
		if k := (key{c.Status, c.Reason}); seen[k] {
			errs = append(errs, field.Duplicate(p, map[string]string{"status": string(c.Status), "reason": c.Reason}))
		} else {
			seen[k] = true
		}
	}
	return errs
}
