package resource

import (
	"math"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// What an attacher may note of an attachment, in bytes.
const (
	maxAttachmentMetadata = 256 * 1024
	maxVolumeErrorMessage = 1024
)

func volumeAttachments() *Resource {
	return define(Resource{
		Group: "storage.k8s.io", Version: "v1", Kind: "VolumeAttachment", Plural: "volumeattachments",
		HasStatus:     true,
		ReturnDeleted: true,
		New:           func() runtime.Object { return &storagev1.VolumeAttachment{} },
		NewList:       func() runtime.Object { return &storagev1.VolumeAttachmentList{} },
		Columns:       columns("Name", "Attacher", "PV", "Node", "Attached:boolean", "Age"),
	}, hooks[*storagev1.VolumeAttachment]{
		Validate:       validateVolumeAttachment,
		ValidateCreate: validateNewVolumeAttachment,
		ValidateUpdate: func(a, old *storagev1.VolumeAttachment) field.ErrorList {
			return checkImmutable(field.NewPath("spec"), a.Spec, old.Spec)
		},
		ValidateStatus: func(a, _ *storagev1.VolumeAttachment) field.ErrorList { return validateVolumeAttachment(a) },
		Row: func(a *storagev1.VolumeAttachment, now time.Time) []any {
			pv := ""
			if a.Spec.Source.PersistentVolumeName != nil {
				pv = *a.Spec.Source.PersistentVolumeName
			}
			return []any{a.Name, a.Spec.Attacher, pv, a.Spec.NodeName, a.Status.Attached, age(a.CreationTimestamp, now)}
		},
	})
}

// validateNewVolumeAttachment is what older attachments need not meet.
func validateNewVolumeAttachment(a *storagev1.VolumeAttachment) field.ErrorList {
	path := field.NewPath("spec")
	errs := checkDriverName(path.Child("attacher"), a.Spec.Attacher)
	if n := a.Spec.Source.PersistentVolumeName; n != nil {
		errs = append(errs, invalid(path.Child("source", "persistentVolumeName"), *n, utilvalidation.IsDNS1123Subdomain(*n))...)
	}
	return errs
}

// validateVolumeAttachment checks spec and status whichever is written: the
// other is the stored one.
func validateVolumeAttachment(a *storagev1.VolumeAttachment) field.ErrorList {
	path, src := field.NewPath("spec"), &a.Spec.Source
	errs := required(path.Child("attacher"), a.Spec.Attacher)
	errs = append(errs, invalid(path.Child("nodeName"), a.Spec.NodeName, utilvalidation.IsDNS1123Subdomain(a.Spec.NodeName))...)
	const one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
	switch {
	case src.InlineVolumeSpec == nil && src.PersistentVolumeName == nil:
		errs = append(errs, field.Required(path.Child("source"), one))
	case src.InlineVolumeSpec != nil && src.PersistentVolumeName != nil:
		errs = append(errs, field.Forbidden(path.Child("source"), one))
	case src.PersistentVolumeName != nil:
		errs = append(errs, required(path.Child("source", "persistentVolumeName"), *src.PersistentVolumeName)...)
	default:
		errs = append(errs, checkInlineVolume(path.Child("source", "inlineVolumeSpec"), src.InlineVolumeSpec)...)
	}
	size := 0
	for k, v := range a.Status.AttachmentMetadata {
		size += len(k) + len(v)
	}
	path = field.NewPath("status")
	if size > maxAttachmentMetadata {
		errs = append(errs, field.TooLong(path.Child("attachmentMetadata"), "", maxAttachmentMetadata))
	}
	errs = append(errs, checkVolumeError(path.Child("attachError"), a.Status.AttachError)...)
	return append(errs, checkVolumeError(path.Child("detachError"), a.Status.DetachError)...)
}

// checkInlineVolume checks a volume that a pod brings itself: one of CSI, of
// which nothing is said that binding would need.
func checkInlineVolume(path *field.Path, spec *corev1.PersistentVolumeSpec) field.ErrorList {
	const text = "may not be specified in the context of inline volumes"
	errs := checkAccessModes(path.Child("accessModes"), spec.AccessModes, "")
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"claimRef", spec.ClaimRef != nil}, {"capacity", len(spec.Capacity) > 0}, {"storageClassName", spec.StorageClassName != ""},
	} {
		if f.set {
			errs = append(errs, field.Forbidden(path.Child(f.name), text))
		}
	}
	if spec.CSI == nil {
		errs = append(errs, field.Required(path.Child("csi"), "has to be specified in the context of inline volumes"))
	}
	if p := spec.PersistentVolumeReclaimPolicy; p != "" && p != corev1.PersistentVolumeReclaimRetain {
		errs = append(errs, field.Forbidden(path.Child("persistentVolumeReclaimPolicy"), "may only be Retain in the context of inline volumes"))
	}
	if m := spec.VolumeMode; m != nil && *m != corev1.PersistentVolumeFilesystem {
		errs = append(errs, field.Forbidden(path.Child("volumeMode"), "may not specify volumeMode other than Filesystem in the context of inline volumes"))
	}
	if a := spec.NodeAffinity; a != nil && a.Required != nil {
		errs = append(errs, checkNodeSelector(path.Child("nodeAffinity", "required"), a.Required)...)
	}
	return append(errs, checkPersistentKind(path, "", spec)...)
}

func checkVolumeError(path *field.Path, e *storagev1.VolumeError) field.ErrorList {
	if e == nil {
		return nil
	}
	var errs field.ErrorList
	if len(e.Message) > maxVolumeErrorMessage {
		errs = append(errs, field.TooLong(path.Child("message"), "", maxVolumeErrorMessage))
	}
	if c := e.ErrorCode; c != nil && *c < 0 {
		errs = append(errs, field.Invalid(path.Child("errorCode"), *c, utilvalidation.InclusiveRangeError(0, math.MaxInt32)))
	}
	return errs
}
