package admission

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// PersistentVolumeClaimResize lets a claim grow only once it is bound, and
// only when its class says that its volumes can.
type PersistentVolumeClaimResize struct{ Objects Objects }

// Name implements Plugin.
func (PersistentVolumeClaimResize) Name() string { return "PersistentVolumeClaimResize" }

// Handles implements Selective.
func (PersistentVolumeClaimResize) Handles(r schema.GroupResource) bool {
	return r.Group == "" && r.Resource == "persistentvolumeclaims"
}

// Validate implements Validator.
func (p PersistentVolumeClaimResize) Validate(ctx context.Context, a *Attributes) error {
	claim, ok := a.Object.(*corev1.PersistentVolumeClaim)
	if !ok || a.Operation != Update || a.Subresource != "" {
		return nil
	}
	old, ok := a.Old().(*corev1.PersistentVolumeClaim)
	if !ok {
		return nil
	}
	had, wants := old.Spec.Resources.Requests[corev1.ResourceStorage], claim.Spec.Resources.Requests[corev1.ResourceStorage]
	if wants.Cmp(had) <= 0 {
		return nil
	}
	if old.Status.Phase != corev1.ClaimBound {
		//lint:ignore ST1005 clients know this sentence
		return forbidden(a, errors.New("Only bound persistent volume claims can be expanded"))
	}
	if !p.expandable(ctx, claimClass(claim), claimClass(old)) {
		return forbidden(a, errors.New("only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"))
	}
	return nil
}

func (p PersistentVolumeClaimResize) expandable(ctx context.Context, name, old string) bool {
	if name == "" || name != old {
		return false
	}
	class, err := get[*storagev1.StorageClass](ctx, p.Objects, storageClassGVR, "", name)
	return err == nil && class.AllowVolumeExpansion != nil && *class.AllowVolumeExpansion
}

// claimClass is the name of a claim's StorageClass, or empty.
func claimClass(claim *corev1.PersistentVolumeClaim) string {
	if class, ok := claim.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		return class
	}
	if claim.Spec.StorageClassName != nil {
		return *claim.Spec.StorageClassName
	}
	return ""
}
