package attachdetach

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/attachment"
	"coracle/pkg/reconcile"
)

// attach asks the driver to attach a volume to a node.
func (c *Controller) attach(ctx context.Context, req *reconcile.Request, w want) error {
	if !shared(w.volume) {
		if err := c.trust(ctx); err != nil {
			return err
		}
	}
	api, name := c.env.Client.StorageV1().VolumeAttachments(), nameOf(w.volume, w.node)
	made, err := api.Create(ctx, &storagev1.VolumeAttachment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: storagev1.VolumeAttachmentSpec{
			Attacher: w.volume.Spec.CSI.Driver, NodeName: w.node,
			Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: &w.volume.Name},
		},
	}, metav1.CreateOptions{})
	switch {
	case err == nil:
		req.Wrote(c.attachments, made)
		return nil
	case apierrors.IsAlreadyExists(err) || reconcile.Lost(err):
		req.Unsure(func(ctx context.Context, r *reconcile.Request) error {
			got, err := api.Get(ctx, name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return nil
			}
			if err == nil {
				r.Wrote(c.attachments, got)
			}
			return err
		})
		if apierrors.IsAlreadyExists(err) {
			return reconcile.ErrStale
		}
	default:
		for _, pod := range w.pods {
			c.env.Events.Eventf(pod, corev1.EventTypeWarning, "FailedAttachVolume", "%s", about("AttachVolume.Attach failed", w.volume, ": "+err.Error()))
		}
	}
	return fmt.Errorf("attach volume %s to node %s: %w", w.volume.Name, w.node, err)
}

// detach ends an attachment: the node is told not to mount the volume, and,
// unless forced, must not have it mounted.
func (c *Controller) detach(ctx context.Context, req *reconcile.Request, d detachment) error {
	a := d.attachment
	c.memory.leave(a.UID)
	err := c.checkAndDelete(ctx, req, d)
	if err != nil && !reconcile.Lost(err) && c.memory.stay(a.UID) {
		c.loop.Add(reconcile.Key{Name: a.Spec.NodeName})
	}
	return err
}

func (c *Controller) checkAndDelete(ctx context.Context, req *reconcile.Request, d detachment) error {
	a, api := d.attachment, c.env.Client.StorageV1().VolumeAttachments()
	if needed, err := c.isNeeded(ctx, a); err != nil || needed {
		if needed {
			err = reconcile.ErrStale
		}
		return err
	}
	node, err := c.env.Client.CoreV1().Nodes().Get(ctx, a.Spec.NodeName, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("look at node %s: %w", a.Spec.NodeName, err)
	}
	if err == nil {
		if !d.force && uses(node, a.Name) {
			return reconcile.ErrStale
		}
		if node, err = c.report(ctx, req, node); err != nil {
			return err
		}
		// What the node says after the write counts: it has read the other
		// list before, or it will read the new one.
		if !d.force && uses(node, a.Name) {
			return reconcile.ErrStale
		}
	}
	if d.force {
		c.env.Log.Warn("detach a volume that its node may have mounted", "attachment", a.Name, "node", a.Spec.NodeName)
	}
	err = api.Delete(ctx, a.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &a.UID}})
	switch {
	case err == nil || apierrors.IsNotFound(err):
		req.Deleted(c.attachments, a)
		return nil
	case apierrors.IsConflict(err):
		return reconcile.ErrStale // another attachment has the name now
	case reconcile.Lost(err):
		req.Unsure(func(ctx context.Context, r *reconcile.Request) error {
			got, err := api.Get(ctx, a.Name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) || err == nil && (got.UID != a.UID || got.DeletionTimestamp != nil) {
				r.Deleted(c.attachments, a)
				return nil
			}
			return err
		})
	}
	return fmt.Errorf("delete the attachment %s: %w", a.Name, err)
}

// reportAgain has a volume that stays after all be listed by its node again.
func (c *Controller) reportAgain(attachments []*storagev1.VolumeAttachment, uid types.UID) {
	for _, a := range attachments {
		if a.UID == uid {
			c.loop.Add(reconcile.Key{Name: a.Spec.NodeName})
		}
	}
}

// report writes which volumes the node may mount, where its status says
// otherwise, and returns the node as it is then. What is leaving is not on a
// list that is written after leave.
func (c *Controller) report(ctx context.Context, req *reconcile.Request, node *corev1.Node) (*corev1.Node, error) {
	if node == nil {
		return nil, nil
	}
	lock := c.reporting.of(node.Name)
	lock.Lock()
	defer lock.Unlock()
	attachments := reconcile.Indexed[*storagev1.VolumeAttachment](c.attachments, byNode, node.Name)
	list := reported(node, attachments, c.nameIn, c.memory.isLeaving)
	if slices.Equal(list, node.Status.VolumesAttached) {
		return node, nil
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": node.UID}, "status": map[string]any{"volumesAttached": list},
	})
	if err != nil {
		return nil, fmt.Errorf("write the volumes of node %s: %w", node.Name, err)
	}
	got, err := c.env.Client.CoreV1().Nodes().Patch(ctx, node.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	if apierrors.IsNotFound(err) {
		return node, nil
	}
	if err != nil {
		return nil, fmt.Errorf("tell node %s which volumes are attached: %w", node.Name, err)
	}
	req.Wrote(c.nodes, got)
	c.announce(node, list, attachments)
	return got, nil
}

// nameIn is what an attachment is called in its node's status.
func (c *Controller) nameIn(a *storagev1.VolumeAttachment) corev1.UniqueVolumeName {
	if name := a.Spec.Source.PersistentVolumeName; name != nil {
		if v := c.volume(*name); v != nil && v.Spec.CSI != nil {
			return attachment.InStatus(v.Spec.CSI.Driver, v.Spec.CSI.VolumeHandle)
		}
	}
	return ""
}

// announce tells the pods of volumes that are newly on the list.
func (c *Controller) announce(node *corev1.Node, list []corev1.AttachedVolume, attachments []*storagev1.VolumeAttachment) {
	for _, a := range attachments {
		isIt := func(v corev1.AttachedVolume) bool { return names(v.Name, node.Name, a.Name) }
		if !slices.ContainsFunc(list, isIt) || slices.ContainsFunc(node.Status.VolumesAttached, isIt) || a.Spec.Source.PersistentVolumeName == nil {
			continue
		}
		volume := c.volume(*a.Spec.Source.PersistentVolumeName)
		if volume == nil {
			continue
		}
		for _, pod := range c.podsOf(volume) {
			if pod.Spec.NodeName == node.Name {
				c.env.Events.Eventf(pod, corev1.EventTypeNormal, "SuccessfulAttachVolume", "%s", about("AttachVolume.Attach succeeded", volume, ""))
			}
		}
	}
}
