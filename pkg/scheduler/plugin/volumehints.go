package plugin

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
)

// MayHelp implements Hinter.
func (VolumeBinding) MayHelp(p *Pod, e *Event) bool {
	if len(p.Claims) == 0 {
		return false
	}
	switch e.Kind {
	case NodeAdded:
		return true
	case NodeUpdated: // volumes and classes name nodes by their labels
		return !maps.Equal(e.OldNode.Labels, e.Node.Labels)
	case ObjectChanged:
		return binds(p, e)
	}
	return false
}

// binds says that a change of an object may give a pod's claims volumes.
func binds(p *Pod, e *Event) bool {
	if e.Object == nil {
		driver, ok := e.OldObject.(*storagev1.CSIDriver)
		return e.OldObject == nil || ok && limits(driver)
	}
	switch o := e.Object.(type) {
	case *corev1.PersistentVolumeClaim:
		return p.claims(o)
	case *corev1.PersistentVolume:
		return p.mayHave(o)
	case *storagev1.StorageClass:
		old, ok := e.OldObject.(*storagev1.StorageClass)
		return !ok || !equality.Semantic.DeepEqual(old.AllowedTopologies, o.AllowedTopologies)
	case *storagev1.CSIDriver:
		old, ok := e.OldObject.(*storagev1.CSIDriver)
		return ok && limits(old) && !limits(o)
	case *storagev1.CSIStorageCapacity:
		old, ok := e.OldObject.(*storagev1.CSIStorageCapacity)
		return !ok || grew(old, o)
	}
	return false
}

// limits says that a driver publishes how much room there is, and so refuses.
func limits(d *storagev1.CSIDriver) bool {
	return d.Spec.StorageCapacity != nil && *d.Spec.StorageCapacity
}

func grew(old, now *storagev1.CSIStorageCapacity) bool {
	was, is := LargestVolume(old), LargestVolume(now)
	return is != nil && (was == nil || is.Cmp(*was) > 0)
}

// LargestVolume is the size of the largest volume that there is room for; nil
// when that is not known.
func LargestVolume(c *storagev1.CSIStorageCapacity) *resource.Quantity {
	if c.MaximumVolumeSize != nil {
		return c.MaximumVolumeSize
	}
	return c.Capacity
}

// claims says that one of the pod's claims is this one.
func (p *Pod) claims(c *corev1.PersistentVolumeClaim) bool {
	return c.Namespace == p.Namespace() && slices.Contains(p.Claims, c.Name)
}

// mayHave says that a volume is free or that of a claim of the pod.
func (p *Pod) mayHave(v *corev1.PersistentVolume) bool {
	ref := v.Spec.ClaimRef
	return ref == nil || ref.Namespace == p.Namespace() && slices.Contains(p.Claims, ref.Name)
}

// MayHelp implements Hinter.
func (VolumeZone) MayHelp(p *Pod, e *Event) bool {
	if len(p.Claims) == 0 {
		return false
	}
	switch e.Kind {
	case NodeAdded:
		return true
	case NodeUpdated:
		return !maps.Equal(e.OldNode.Labels, e.Node.Labels)
	case ObjectChanged:
		if e.OldObject == nil && e.Object == nil {
			return true
		}
		switch o := e.Object.(type) {
		case *corev1.PersistentVolumeClaim:
			return p.claims(o)
		case *corev1.PersistentVolume:
			old, ok := e.OldObject.(*corev1.PersistentVolume)
			return p.mayHave(o) && (!ok || !maps.Equal(old.Labels, o.Labels))
		}
	}
	return false
}

// MayHelp implements Hinter: who had one of the claims has gone. Nodes do not
// matter, for the claim is in use wherever the pod would go.
func (VolumeRestrictions) MayHelp(p *Pod, e *Event) bool {
	switch e.Kind {
	case PodDeleted:
		return e.OldPod.Namespace() == p.Namespace() &&
			slices.ContainsFunc(e.OldPod.Claims, func(name string) bool { return slices.Contains(p.Claims, name) })
	case ObjectChanged:
		claim, ok := e.Object.(*corev1.PersistentVolumeClaim)
		return len(p.Claims) > 0 && (e.OldObject == nil && e.Object == nil || ok && p.claims(claim))
	}
	return false
}
