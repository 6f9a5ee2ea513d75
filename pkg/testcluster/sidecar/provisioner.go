package sidecar

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// The names that provisioners and the cluster agree on.
const (
	provisionerFinalizer = "external-provisioner.volume.kubernetes.io/finalizer"
	provisionedBy        = "pv.kubernetes.io/provisioned-by"
	wantsProvisioner     = "volume.kubernetes.io/storage-provisioner"
	selectedNode         = "volume.kubernetes.io/selected-node"
)

// claim makes the volume of a claim that waits for this driver.
func (d *Driver) claim(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	if claim.Spec.VolumeName != "" || claim.DeletionTimestamp != nil || claim.Annotations[wantsProvisioner] != d.name || claim.Spec.StorageClassName == nil {
		return nil
	}
	class := find[*storagev1.StorageClass](d.classes, *claim.Spec.StorageClassName)
	if class == nil {
		return nil
	}
	waits := class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
	if waits && claim.Annotations[selectedNode] == "" {
		return nil
	}
	handle := "disk-" + string(claim.UID)
	d.mu.Lock()
	d.disks[handle] = true
	d.mu.Unlock()
	_, err := d.client.CoreV1().PersistentVolumes().Create(ctx, &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name: "pvc-" + string(claim.UID), Annotations: map[string]string{provisionedBy: d.name}, Finalizers: []string{provisionerFinalizer},
		},
		Spec: corev1.PersistentVolumeSpec{
			Capacity: claim.Spec.Resources.Requests, AccessModes: claim.Spec.AccessModes, VolumeMode: claim.Spec.VolumeMode,
			StorageClassName: class.Name, PersistentVolumeReclaimPolicy: *class.ReclaimPolicy,
			ClaimRef: &corev1.ObjectReference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID, ResourceVersion: claim.ResourceVersion,
			},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: d.name, VolumeHandle: handle, FSType: "ext4"}},
		},
	}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// volume deletes a volume that nobody claims any more, and lets one go that
// nobody has attached.
func (d *Driver) volume(ctx context.Context, v *corev1.PersistentVolume) error {
	attached := slices.ContainsFunc(items[*storagev1.VolumeAttachment](d.attachments), func(a *storagev1.VolumeAttachment) bool {
		return a.Spec.Source.PersistentVolumeName != nil && *a.Spec.Source.PersistentVolumeName == v.Name
	})
	if attached {
		return nil
	}
	api, own := d.client.CoreV1().PersistentVolumes(), d.attacherFinalizer()
	if v.DeletionTimestamp != nil && slices.Contains(v.Finalizers, own) {
		return patch(ctx, api.Patch, v.Name, finalizersOf(v, without(v.Finalizers, own)))
	}
	if v.Annotations[provisionedBy] != d.name || v.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete || v.Status.Phase != corev1.VolumeReleased {
		return nil
	}
	d.mu.Lock()
	if on := d.attached[v.Spec.CSI.VolumeHandle]; len(on) > 0 {
		d.wrong("%s is deleted while it is attached to %v", v.Spec.CSI.VolumeHandle, on)
	}
	delete(d.disks, v.Spec.CSI.VolumeHandle)
	d.mu.Unlock()
	if v.DeletionTimestamp == nil {
		return api.Delete(ctx, v.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: new(types.UID(v.UID))}})
	}
	if !slices.Contains(v.Finalizers, provisionerFinalizer) {
		return nil
	}
	return patch(ctx, api.Patch, v.Name, finalizersOf(v, without(v.Finalizers, provisionerFinalizer)))
}
