package quota

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// claims measures PersistentVolumeClaims: their number and size, altogether
// and of each storage class.
type claims struct{}

var countClaims = CountName(schema.GroupResource{Resource: "persistentvolumeclaims"})

// ofClass follows the name of a storage class in the entries that bound it.
const ofClass = ".storageclass.storage.k8s.io/"

func (claims) Tracks(name corev1.ResourceName) bool {
	switch name {
	case countClaims, corev1.ResourcePersistentVolumeClaims, corev1.ResourceRequestsStorage:
		return true
	}
	return strings.HasSuffix(string(name), ofClass+string(corev1.ResourcePersistentVolumeClaims)) ||
		strings.HasSuffix(string(name), ofClass+string(corev1.ResourceRequestsStorage))
}

func (claims) Handles(subresource string, obj, old runtime.Object) bool {
	switch subresource {
	case "":
		return true
	case "status":
		is, ok := obj.(*corev1.PersistentVolumeClaim)
		was, had := old.(*corev1.PersistentVolumeClaim)
		return ok && had && (!Equal(is.Status.AllocatedResources, was.Status.AllocatedResources) ||
			!slices.Equal(attributesClasses(is), attributesClasses(was)))
	}
	return false
}

func (claims) Usage(obj runtime.Object, _ time.Time) corev1.ResourceList {
	claim := obj.(*corev1.PersistentVolumeClaim)
	out := corev1.ResourceList{countClaims: number(1), corev1.ResourcePersistentVolumeClaims: number(1)}
	if size, ok := claim.Spec.Resources.Requests[corev1.ResourceStorage]; ok {
		// A claim that shrank again still has what was allocated for it.
		if had := claim.Status.AllocatedResources[corev1.ResourceStorage]; had.Cmp(size) > 0 {
			size = had
		}
		size = size.DeepCopy()
		size.RoundUp(0) // whole bytes
		out[corev1.ResourceRequestsStorage] = size
	}
	if class := storageClass(claim); class != "" {
		for _, name := range []corev1.ResourceName{corev1.ResourcePersistentVolumeClaims, corev1.ResourceRequestsStorage} {
			if x, ok := out[name]; ok {
				out[corev1.ResourceName(class+ofClass)+name] = x
			}
		}
	}
	return out
}

func storageClass(claim *corev1.PersistentVolumeClaim) string {
	if class, ok := claim.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		return class
	}
	if claim.Spec.StorageClassName != nil {
		return *claim.Spec.StorageClassName
	}
	return ""
}

func (claims) InScope(s corev1.ScopedResourceSelectorRequirement, obj runtime.Object) bool {
	if s.ScopeName != corev1.ResourceQuotaScopeVolumeAttributesClass {
		return false
	}
	names := attributesClasses(obj.(*corev1.PersistentVolumeClaim))
	if len(names) == 0 {
		return selects(s, "")
	}
	return slices.ContainsFunc(names, func(name string) bool { return selects(s, name) })
}

// attributesClasses are the names of the classes that the claim has, had, or
// is on its way to; sorted.
func attributesClasses(claim *corev1.PersistentVolumeClaim) []string {
	var names []string
	for _, name := range []*string{claim.Spec.VolumeAttributesClassName, claim.Status.CurrentVolumeAttributesClassName} {
		if name != nil && *name != "" {
			names = append(names, *name)
		}
	}
	if m := claim.Status.ModifyVolumeStatus; m != nil && m.TargetVolumeAttributesClassName != "" {
		names = append(names, m.TargetVolumeAttributesClassName)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (claims) Missing([]corev1.ResourceName, runtime.Object) string { return "" }
