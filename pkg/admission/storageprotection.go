package admission

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// The finalizers that keep storage which is in use; the protection
// controllers take them off.
const (
	claimProtection  = "kubernetes.io/pvc-protection"
	volumeProtection = "kubernetes.io/pv-protection"
	vacProtection    = "kubernetes.io/vac-protection"
)

// StorageObjectInUseProtection puts a finalizer on new claims, volumes and
// volume attributes classes, so that none goes while something uses it.
type StorageObjectInUseProtection struct{}

// Name implements Plugin.
func (StorageObjectInUseProtection) Name() string { return "StorageObjectInUseProtection" }

// Handles implements Selective.
func (StorageObjectInUseProtection) Handles(r schema.GroupResource) bool {
	return r.Group == "" && r.Resource == "persistentvolumeclaims" || r.Group == "" && r.Resource == "persistentvolumes" || r.Group == storagev1.GroupName && r.Resource == "volumeattributesclasses"
}

// Admit implements Mutator.
func (StorageObjectInUseProtection) Admit(_ context.Context, a *Attributes) error {
	if a.Operation != Create || a.Subresource != "" {
		return nil
	}
	switch obj := a.Object.(type) {
	case *corev1.PersistentVolumeClaim:
		addFinalizer(obj, claimProtection)
	case *corev1.PersistentVolume:
		addFinalizer(obj, volumeProtection)
	case *storagev1.VolumeAttributesClass:
		addFinalizer(obj, vacProtection)
	}
	return nil
}

func addFinalizer(obj metav1.Object, name string) {
	if !slices.Contains(obj.GetFinalizers(), name) {
		obj.SetFinalizers(append(obj.GetFinalizers(), name))
	}
}
