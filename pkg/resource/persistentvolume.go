package resource

import (
	pathpkg "path"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
				v.Status = corev1.PersistentVolumeStatus{Phase: corev1.VolumePending}
			}
		},
		Stamp:          stampVolume,
		Validate:       validateVolume,
		ValidateUpdate: validateVolumeUpdate,
		Row:            volumeRow,
	})
}

// stampVolume notes when the phase changed, unless the writer did.
func stampVolume(v, old *corev1.PersistentVolume, now metav1.Time) {
	s := &v.Status
	switch {
	case old == nil:
		s.LastPhaseTransitionTime = &now
	case old.Status.Phase == s.Phase && s.LastPhaseTransitionTime == nil:
		s.LastPhaseTransitionTime = old.Status.LastPhaseTransitionTime.DeepCopy()
	case old.Status.Phase != s.Phase && (s.LastPhaseTransitionTime == nil || s.LastPhaseTransitionTime.Equal(old.Status.LastPhaseTransitionTime)):
		s.LastPhaseTransitionTime = &now
	}
}

func validateVolume(v *corev1.PersistentVolume) field.ErrorList {
	path, spec := field.NewPath("spec"), &v.Spec
	errs := checkAccessModes(path.Child("accessModes"), spec.AccessModes, "")
	p := path.Child("capacity")
	if len(spec.Capacity) == 0 {
		errs = append(errs, field.Required(p, ""))
	}
	if _, ok := spec.Capacity[corev1.ResourceStorage]; !ok || len(spec.Capacity) > 1 {
		errs = append(errs, field.NotSupported(p, sortedKeys(spec.Capacity), []corev1.ResourceName{corev1.ResourceStorage}))
	}
	for _, name := range sortedKeys(spec.Capacity) {
		q := spec.Capacity[name]
		errs = append(errs, checkBasicQuantity(p.Key(string(name)), q)...)
		if q.Sign() <= 0 {
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
	if c := spec.VolumeAttributesClassName; c != nil {
		p := path.Child("volumeAttributesClassName")
		if *c == "" {
			errs = append(errs, field.Required(p, "an empty string is disallowed"))
		} else {
			errs = append(errs, invalid(p, *c, utilvalidation.IsDNS1123Subdomain(*c))...)
		}
		if spec.CSI == nil {
			errs = append(errs, field.Required(path.Child("csi"), "has to be specified when using volumeAttributesClassName"))
		}
	}
	return append(errs, checkPersistentKind(path, v.Name, spec)...)
}

// checkPersistentKind wants exactly one place for the data.
func checkPersistentKind(path *field.Path, name string, spec *corev1.PersistentVolumeSpec) field.ErrorList {
	kinds := setFields(&spec.PersistentVolumeSource)
	if len(kinds) == 0 {
		return field.ErrorList{field.Required(path, "must specify a volume type")}
	}
	var errs field.ErrorList
	for _, kind := range kinds[1:] {
		errs = append(errs, field.Forbidden(path.Child(kind), "may not specify more than 1 volume type"))
	}
	if kinds[0] == "local" {
		errs = append(errs, checkLocalVolume(path, spec)...)
	} else {
		errs = append(errs, checkPersistentSource(path, kinds[0], name, &spec.PersistentVolumeSource)...)
	}
	if spec.HostPath != nil && pathpkg.Clean(spec.HostPath.Path) == "/" && spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle {
		errs = append(errs, field.Forbidden(path.Child("persistentVolumeReclaimPolicy"), "may not be 'recycle' for a hostPath mount of '/'"))
	}
	return errs
}

func checkLocalVolume(path *field.Path, spec *corev1.PersistentVolumeSpec) field.ErrorList {
	p := path.Child("local", "path")
	errs := append(required(p, spec.Local.Path), checkNoBackSteps(p, spec.Local.Path)...)
	if spec.NodeAffinity == nil {
		errs = append(errs, field.Required(path.Child("nodeAffinity"), "Local volume requires node affinity"))
	}
	return errs
}

// validateVolumeUpdate: where the data is does not change. A secret that lets
// it grow may be added, and so may an affinity.
func validateVolumeUpdate(v, old *corev1.PersistentVolume) field.ErrorList {
	path := field.NewPath("spec")
	var errs field.ErrorList
	source := v.Spec.PersistentVolumeSource
	if was := old.Spec.CSI; source.CSI != nil && was != nil && was.ControllerExpandSecretRef == nil {
		source.CSI = source.CSI.DeepCopy()
		source.CSI.ControllerExpandSecretRef = nil
	}
	if !equality.Semantic.DeepEqual(source, old.Spec.PersistentVolumeSource) {
		errs = append(errs, field.Forbidden(path.Child("persistentvolumesource"), "spec.persistentvolumesource is immutable after creation"))
	}
	// Upstream's paths of these two lack the element "spec"; so do these.
	errs = append(errs, checkImmutable(field.NewPath("volumeMode"), v.Spec.VolumeMode, old.Spec.VolumeMode)...)
	if old.Spec.NodeAffinity != nil && !equality.Semantic.DeepEqual(newLabels(v.Spec.NodeAffinity), newLabels(old.Spec.NodeAffinity)) {
		errs = append(errs, field.Invalid(field.NewPath("nodeAffinity"), v.Spec.NodeAffinity,
			validation.FieldImmutableErrorMsg+", except for updating from beta label to GA"))
	}
	if old.Spec.VolumeAttributesClassName != nil && v.Spec.VolumeAttributesClassName == nil {
		errs = append(errs, field.Forbidden(path.Child("volumeAttributesClassName"), "update from non-nil value to nil is forbidden"))
	}
	return errs
}

// stableLabels are the names that labels of nodes have had since they left
// beta.
var stableLabels = map[string]string{
	corev1.LabelFailureDomainBetaZone: corev1.LabelTopologyZone, corev1.LabelFailureDomainBetaRegion: corev1.LabelTopologyRegion,
	"beta.kubernetes.io/os": corev1.LabelOSStable, "beta.kubernetes.io/arch": corev1.LabelArchStable,
	corev1.LabelInstanceType: corev1.LabelInstanceTypeStable,
}

// newLabels is a copy of a that names nodes' labels as they are named now.
func newLabels(a *corev1.VolumeNodeAffinity) *corev1.VolumeNodeAffinity {
	if a == nil || a.Required == nil {
		return a
	}
	a = a.DeepCopy()
	for i := range a.Required.NodeSelectorTerms {
		for _, list := range [][]corev1.NodeSelectorRequirement{
			a.Required.NodeSelectorTerms[i].MatchExpressions, a.Required.NodeSelectorTerms[i].MatchFields} {
			for j := range list {
				if name, ok := stableLabels[list[j].Key]; ok {
					list[j].Key = name
				}
			}
		}
	}
	return a
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
