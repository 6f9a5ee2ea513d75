package resource

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func persistentVolumes() *Resource {
	return define(Resource{
		Version: "v1", Kind: "PersistentVolume", Plural: "persistentvolumes", ShortNames: []string{"pv"},
		HasStatus:           true,
		UnconditionalUpdate: true,
		ReturnDeleted:       true,
		New:                 func() runtime.Object { return &corev1.PersistentVolume{} },
		NewList:             func() runtime.Object { return &corev1.PersistentVolumeList{} },
		Columns: columns("Name", "Capacity", "Access Modes", "Reclaim Policy", "Status", "Claim", "StorageClass",
			"VolumeAttributesClass", "Reason", "Age", "+VolumeMode"),
	}, hooks[*corev1.PersistentVolume]{
		Default: func(v *corev1.PersistentVolume) {
			if v.Status.Phase == "" {
				v.Status.Phase = corev1.VolumePending
			}
			defaultString((*string)(&v.Spec.PersistentVolumeReclaimPolicy), string(corev1.PersistentVolumeReclaimRetain))
			if v.Spec.VolumeMode == nil {
				v.Spec.VolumeMode = new(corev1.PersistentVolumeFilesystem)
			}
			if v.Spec.HostPath != nil && v.Spec.HostPath.Type == nil {
				v.Spec.HostPath.Type = new(corev1.HostPathUnset)
			}
			if i := v.Spec.ISCSI; i != nil {
				defaultString(&i.ISCSIInterface, "default")
			}
			if ref := v.Spec.ClaimRef; ref != nil {
				defaultString(&ref.Kind, "PersistentVolumeClaim")
				defaultString(&ref.APIVersion, "v1")
			}
			roundUp(v.Spec.Capacity)
		},
		Prepare: func(v, old *corev1.PersistentVolume) {
			if old == nil {
				// The phase's time is the binder's to set, at the first change.
				v.Status = corev1.PersistentVolumeStatus{Phase: corev1.VolumePending}
			}
		},
		Validate:       validateVolume,
		ValidateUpdate: validateVolumeUpdate,
		Row:            volumeRow,
	})
}

func validateVolume(v *corev1.PersistentVolume) field.ErrorList {
	path, spec := field.NewPath("spec"), &v.Spec
	errs := checkAccessModes(path.Child("accessModes"), spec.AccessModes)
	p := path.Child("capacity")
	if len(spec.Capacity) == 0 {
		errs = append(errs, field.Required(p, ""))
	} else if _, ok := spec.Capacity[corev1.ResourceStorage]; !ok || len(spec.Capacity) > 1 {
		errs = append(errs, field.NotSupported(p, sortedKeys(spec.Capacity), []corev1.ResourceName{corev1.ResourceStorage}))
	}
	for _, name := range sortedKeys(spec.Capacity) {
		q := spec.Capacity[name]
		errs = append(errs, checkQuantity(p.Key(string(name)), name, q)...)
		if q.Sign() == 0 {
			errs = append(errs, field.Invalid(p.Key(string(name)), q.String(), "must be greater than zero"))
		}
	}
	errs = append(errs, checkSet(path.Child("persistentVolumeReclaimPolicy"), spec.PersistentVolumeReclaimPolicy,
		corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRecycle, corev1.PersistentVolumeReclaimRetain)...)
	errs = append(errs, checkOptional(path.Child("volumeMode"), spec.VolumeMode, corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem)...)
	if spec.StorageClassName != "" {
		errs = append(errs, invalid(path.Child("storageClassName"), spec.StorageClassName, utilvalidation.IsDNS1123Subdomain(spec.StorageClassName))...)
	}
	if a := spec.NodeAffinity; a != nil {
		p := path.Child("nodeAffinity", "required")
		if a.Required == nil {
			errs = append(errs, field.Required(p, "must specify required node constraints"))
		} else {
			errs = append(errs, checkNodeSelector(p, a.Required)...)
		}
	}
	return append(errs, checkVolumeKind(path, spec)...)
}

// checkVolumeKind wants exactly one place for the data.
func checkVolumeKind(path *field.Path, spec *corev1.PersistentVolumeSpec) field.ErrorList {
	kinds := setFields(&spec.PersistentVolumeSource)
	if len(kinds) == 0 {
		return field.ErrorList{field.Required(path, "must specify a volume type")}
	}
	var errs field.ErrorList
	for _, kind := range kinds[1:] {
		errs = append(errs, field.Forbidden(path.Child(kind), "may not specify more than 1 volume type"))
	}
	p := path.Child(kinds[0])
	switch {
	case spec.HostPath != nil:
		errs = append(errs, checkHostPath(p, spec.HostPath)...)
	case spec.Local != nil:
		errs = append(errs, checkLocalVolume(path, spec)...)
	case spec.NFS != nil:
		errs = append(errs, append(required(p.Child("server"), spec.NFS.Server), required(p.Child("path"), spec.NFS.Path)...)...)
	case spec.CSI != nil:
		errs = append(errs, checkDriverName(p.Child("driver"), spec.CSI.Driver)...)
		errs = append(errs, required(p.Child("volumeHandle"), spec.CSI.VolumeHandle)...)
	}
	if spec.HostPath != nil && spec.HostPath.Path == "/" && spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle {
		errs = append(errs, field.Forbidden(path.Child("persistentVolumeReclaimPolicy"), "may not be 'recycle' for a hostPath mount of '/'"))
	}
	return errs
}

func checkLocalVolume(path *field.Path, spec *corev1.PersistentVolumeSpec) field.ErrorList {
	p := path.Child("local", "path")
	errs := required(p, spec.Local.Path)
	errs = append(errs, checkNoBackSteps(p, spec.Local.Path)...)
	if spec.NodeAffinity == nil || spec.NodeAffinity.Required == nil {
		errs = append(errs, field.Required(path.Child("nodeAffinity"), "Local volume requires node affinity"))
	}
	return errs
}

func validateVolumeUpdate(v, old *corev1.PersistentVolume) field.ErrorList {
	path := field.NewPath("spec")
	var errs field.ErrorList
	if !equality.Semantic.DeepEqual(v.Spec.PersistentVolumeSource, old.Spec.PersistentVolumeSource) {
		errs = append(errs, field.Forbidden(path.Child("persistentvolumesource"), "spec.persistentvolumesource is immutable after creation"))
	}
	errs = append(errs, checkImmutable(path.Child("volumeMode"), v.Spec.VolumeMode, old.Spec.VolumeMode)...)
	if old.Spec.NodeAffinity != nil {
		errs = append(errs, checkImmutable(path.Child("nodeAffinity"), v.Spec.NodeAffinity, old.Spec.NodeAffinity)...)
	}
	return errs
}

func volumeRow(v *corev1.PersistentVolume, now time.Time) []any {
	phase := string(v.Status.Phase)
	if v.DeletionTimestamp != nil {
		phase = "Terminating"
	}
	claim := ""
	if ref := v.Spec.ClaimRef; ref != nil {
		claim = ref.Namespace + "/" + ref.Name
	}
	class := v.Spec.StorageClassName
	if beta, ok := v.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		class = beta
	}
	q := v.Spec.Capacity[corev1.ResourceStorage]
	return []any{
		v.Name, q.String(), accessModesText(v.Spec.AccessModes), string(v.Spec.PersistentVolumeReclaimPolicy), phase, claim,
		class, unsetOr(v.Spec.VolumeAttributesClassName), v.Status.Reason, age(v.CreationTimestamp, now), unsetOr(v.Spec.VolumeMode),
	}
}
