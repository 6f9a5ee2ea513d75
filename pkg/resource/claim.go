package resource

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func persistentVolumeClaims() *Resource {
	return define(Resource{
		Version: "v1", Kind: "PersistentVolumeClaim", Plural: "persistentvolumeclaims", ShortNames: []string{"pvc"},
		Namespaced:          true,
		HasStatus:           true,
		UnconditionalUpdate: true,
		ReturnDeleted:       true,
		New:                 func() runtime.Object { return &corev1.PersistentVolumeClaim{} },
		NewList:             func() runtime.Object { return &corev1.PersistentVolumeClaimList{} },
		Columns: columns("Name", "Status", "Volume", "Capacity", "Access Modes", "StorageClass",
			"VolumeAttributesClass", "Age", "+VolumeMode"),
	}, hooks[*corev1.PersistentVolumeClaim]{
		Default: defaultClaim,
		Prepare: func(c, old *corev1.PersistentVolumeClaim) {
			if old == nil {
				c.Status = corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending}
			}
		},
		Validate: func(c *corev1.PersistentVolumeClaim) field.ErrorList {
			return checkClaimSpec(field.NewPath("spec"), &c.Spec)
		},
		ValidateUpdate: validateClaimUpdate,
		ValidateStatus: validateClaimStatus,
		Row:            claimRow,
	})
}

func defaultClaim(c *corev1.PersistentVolumeClaim) {
	if c.Status.Phase == "" {
		c.Status.Phase = corev1.ClaimPending
	}
	defaultClaimSpec(&c.Spec)
	roundUp(c.Status.Capacity)
	roundUp(c.Status.AllocatedResources)
}

// accessModesText is the short form of modes, in a fixed order.
func accessModesText(modes []corev1.PersistentVolumeAccessMode) string {
	var out []string
	for _, m := range []struct {
		mode  corev1.PersistentVolumeAccessMode
		short string
	}{
		{corev1.ReadWriteOnce, "RWO"}, {corev1.ReadOnlyMany, "ROX"}, {corev1.ReadWriteMany, "RWX"}, {corev1.ReadWriteOncePod, "RWOP"},
	} {
		for _, has := range modes {
			if has == m.mode {
				out = append(out, m.short)
				break
			}
		}
	}
	return strings.Join(out, ",")
}

func unsetOr[T ~string](s *T) string {
	if s == nil {
		return "<unset>"
	}
	return string(*s)
}

func claimRow(c *corev1.PersistentVolumeClaim, now time.Time) []any {
	phase := string(c.Status.Phase)
	if c.DeletionTimestamp != nil {
		phase = "Terminating"
	}
	size, modes := "", ""
	if c.Spec.VolumeName != "" {
		q := c.Status.Capacity[corev1.ResourceStorage]
		size, modes = q.String(), accessModesText(c.Status.AccessModes)
	}
	class := ""
	if beta, ok := c.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		class = beta
	} else if c.Spec.StorageClassName != nil {
		class = *c.Spec.StorageClassName
	}
	return []any{
		c.Name, phase, c.Spec.VolumeName, size, modes, class, unsetOr(c.Spec.VolumeAttributesClassName),
		age(c.CreationTimestamp, now), unsetOr(c.Spec.VolumeMode),
	}
}
