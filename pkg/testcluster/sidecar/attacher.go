package sidecar

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// attacherFinalizer is what keeps volumes and attachments from going before
// the disk is detached.
func (d *Driver) attacherFinalizer() string { return "external-attacher/" + d.name }

// attachment does what one attachment asks for.
func (d *Driver) attachment(ctx context.Context, a *storagev1.VolumeAttachment) error {
	api, own := d.client.StorageV1().VolumeAttachments(), d.attacherFinalizer()
	has := slices.Contains(a.Finalizers, own)
	volume, err := d.client.CoreV1().PersistentVolumes().Get(ctx, *a.Spec.Source.PersistentVolumeName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err) && a.DeletionTimestamp != nil && has:
		return patch(ctx, api.Patch, a.Name, finalizersOf(a, without(a.Finalizers, own)))
	case err != nil:
		return err
	case volume.Spec.CSI == nil || a.DeletionTimestamp != nil && !has || d.silent():
		return nil
	case a.DeletionTimestamp != nil:
		d.detach(volume.Spec.CSI.VolumeHandle, a.Spec.NodeName)
		if err := patch(ctx, api.Patch, a.Name, map[string]any{"status": map[string]any{"attached": false, "attachmentMetadata": nil}}, "status"); err != nil {
			return err
		}
		return patch(ctx, api.Patch, a.Name, finalizersOf(a, without(a.Finalizers, own)))
	case a.Status.Attached:
		return nil
	}
	if !has {
		return patch(ctx, api.Patch, a.Name, finalizersOf(a, append(slices.Clone(a.Finalizers), own)))
	}
	if !slices.Contains(volume.Finalizers, own) {
		err := patch(ctx, d.client.CoreV1().PersistentVolumes().Patch, volume.Name, finalizersOf(volume, append(slices.Clone(volume.Finalizers), own)))
		if err != nil {
			return err
		}
	}
	status := map[string]any{"attached": true, "attachError": nil, "attachmentMetadata": map[string]string{"path": "/dev/vdb"}}
	if err := d.attach(volume, a.Spec.NodeName); err != nil {
		if a.Status.AttachError != nil && a.Status.AttachError.Message == err.Error() {
			return err
		}
		status = map[string]any{"attachError": storagev1.VolumeError{Time: metav1.NewTime(time.Now()), Message: err.Error()}}
	}
	return patch(ctx, api.Patch, a.Name, map[string]any{"status": status}, "status")
}

func (d *Driver) silent() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mute
}

func (d *Driver) attach(v *corev1.PersistentVolume, node string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	handle := v.Spec.CSI.VolumeHandle
	on := d.attached[handle]
	switch {
	case d.refusal != "":
		return fmt.Errorf("%s", d.refusal)
	case slices.Contains(on, node):
		return nil
	case len(on) > 0 && !slices.Contains(v.Spec.AccessModes, corev1.ReadWriteMany):
		d.wrong("%s is attached to %v and is to be attached to %s", handle, on, node)
		return fmt.Errorf("disk %s is attached to %v", handle, on)
	}
	d.attached[handle] = append(on, node)
	return nil
}

func (d *Driver) detach(handle, node string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if slices.Contains(d.mounted[handle], node) {
		d.wrong("%s is detached from %s, which has it mounted", handle, node)
	}
	d.attached[handle] = slices.DeleteFunc(d.attached[handle], func(n string) bool { return n == node })
}

// patched is the Patch of a typed client.
type patched[T any] func(ctx context.Context, name string, pt types.PatchType, data []byte, opts metav1.PatchOptions, subresources ...string) (T, error)

func patch[T any](ctx context.Context, do patched[T], name string, what map[string]any, subresources ...string) error {
	data, err := json.Marshal(what)
	if err == nil {
		_, err = do(ctx, name, types.MergePatchType, data, metav1.PatchOptions{}, subresources...)
	}
	return err
}

// finalizersOf is a patch that gives obj, if it is still this one, these
// finalizers.
func finalizersOf(obj metav1.Object, finalizers []string) map[string]any {
	return map[string]any{"metadata": map[string]any{"resourceVersion": obj.GetResourceVersion(), "finalizers": finalizers}}
}

func without(list []string, one string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == one })
}
