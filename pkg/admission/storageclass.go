package admission

import (
	"context"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var storageClassGVR = storagev1.SchemeGroupVersion.WithResource("storageclasses")

// The annotations that make a StorageClass the default; the second is old.
const (
	defaultStorageClassAnnotation = "storageclass.kubernetes.io/is-default-class"
	betaDefaultStorageClass       = "storageclass.beta.kubernetes.io/is-default-class"
)

// DefaultStorageClass gives claims that name no class the newest default one.
type DefaultStorageClass struct{ Objects Objects }

// Name implements Plugin.
func (DefaultStorageClass) Name() string { return "DefaultStorageClass" }

// Handles implements Selective.
func (DefaultStorageClass) Handles(r schema.GroupResource) bool {
	return r.Group == "" && r.Resource == "persistentvolumeclaims"
}

// Admit implements Mutator.
func (p DefaultStorageClass) Admit(ctx context.Context, a *Attributes) error {
	claim, ok := a.Object.(*corev1.PersistentVolumeClaim)
	if !ok || a.Operation != Create || a.Subresource != "" {
		return nil
	}
	if _, named := claim.Annotations[corev1.BetaStorageClassAnnotation]; named || claim.Spec.StorageClassName != nil {
		return nil // also the empty name is a choice
	}
	classes, err := list[*storagev1.StorageClass](ctx, p.Objects, storageClassGVR, "")
	if err != nil {
		return forbidden(a, err)
	}
	def := newest(classes, func(c *storagev1.StorageClass) bool {
		return c.Annotations[defaultStorageClassAnnotation] == "true" || c.Annotations[betaDefaultStorageClass] == "true"
	})
	if def != nil {
		claim.Spec.StorageClassName = new(def.Name)
	}
	return nil
}

// newest is the youngest of the objects that count, of several the first by
// name; the zero T when none does.
func newest[T interface {
	comparable
	metav1.Object
}](objs []T, counts func(T) bool) T {
	var best, none T
	for _, o := range objs {
		if !counts(o) {
			continue
		}
		if best == none {
			best = o
			continue
		}
		at, have := o.GetCreationTimestamp(), best.GetCreationTimestamp()
		if have.Before(&at) || at.Equal(&have) && strings.Compare(o.GetName(), best.GetName()) < 0 {
			best = o
		}
	}
	return best
}
