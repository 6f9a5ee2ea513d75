package volume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/kubelet/csi"
)

// refreshCSI tells drivers again of the volumes of a pod, where they want to be
// told, and has those grow whose claims were given more.
func (m *Manager) refreshCSI(ctx context.Context, pod *corev1.Pod) error {
	var errs []error
	for _, t := range m.csi.published(pod.UID) {
		v := t.volume
		if t.republish {
			errs = append(errs, m.republishCSI(ctx, pod, &v))
		}
		if v.persistent() {
			errs = append(errs, m.expandCSI(ctx, pod, &v))
		}
	}
	return errors.Join(errs...)
}

// republishCSI publishes a volume that is published: its tokens may be new. A
// failure leaves what the pod has.
func (m *Manager) republishCSI(ctx context.Context, pod *corev1.Pod, v *csiVolume) error {
	driver, object, caps, err := m.csiDriver(ctx, &v.csiUse)
	if err != nil {
		return err
	}
	published, err := m.attached(ctx, v, object)
	if err != nil {
		return err
	}
	staging := ""
	if caps.Stage && v.persistent() {
		staging = m.csiStaging(&v.csiUse)
	}
	access := v.access(caps)
	if caps.MountGroup && !v.block {
		access.Group = fsGroup(pod)
	}
	if err := m.publishCSI(ctx, request{pod: pod}, driver, object, v, staging, published, access); err != nil {
		return fmt.Errorf("volume %q was not published again: %w", v.Name, err)
	}
	return nil
}

// expandCSI has the driver make the volume on the node as large as it is where
// it is stored, and tells the claim.
func (m *Manager) expandCSI(ctx context.Context, pod *corev1.Pod, v *csiVolume) error {
	if v.readOnly {
		return nil
	}
	claim, err := m.claim(ctx, v.claimNamespace, v.claim)
	if err != nil || !growsOnNode(claim) {
		return err
	}
	pv, err := m.volume(ctx, v.Name)
	if err != nil {
		return err
	}
	size := pv.Spec.Capacity[corev1.ResourceStorage]
	driver, _, caps, err := m.csiDriver(ctx, &v.csiUse)
	if err != nil {
		return err
	}
	if caps.Expand {
		if err := m.expandWith(ctx, driver, caps, v, size); err != nil {
			m.cfg.Event(pod, corev1.EventTypeWarning, "VolumeResizeFailed", fmt.Sprintf("NodeExpandVolume.NodeExpandVolume failed for volume %q : %v", v.Name, err))
			return fmt.Errorf("volume %q did not grow: %w", v.Name, err)
		}
		m.cfg.Event(pod, corev1.EventTypeNormal, "FileSystemResizeSuccessful", fmt.Sprintf("MountVolume.NodeExpandVolume succeeded for volume %q %s", v.Name, m.cfg.NodeName))
	}
	patch, err := grownPatch(claim, size)
	if err != nil {
		return err
	}
	rctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	_, err = m.cfg.Client.CoreV1().PersistentVolumeClaims(claim.Namespace).Patch(rctx, claim.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil {
		return fmt.Errorf("telling claim %q that it has grown: %w", claim.Name, err)
	}
	return nil
}

func (m *Manager) expandWith(ctx context.Context, driver *csi.Driver, caps csi.Capabilities, v *csiVolume, size resource.Quantity) error {
	secrets, err := m.csiSecrets(ctx, v.expandSecret)
	if err != nil {
		return err
	}
	e := csi.Expand{Volume: v.Handle, Path: m.csiTarget(&v.csiUse), Bytes: size.Value(), Secrets: secrets, Access: v.access(caps)}
	if caps.Stage {
		e.StagingPath = m.csiStaging(&v.csiUse)
	}
	return driver.Expand(ctx, e)
}

// growsOnNode reports whether the claim waits for the node to do its part of an
// expansion.
func growsOnNode(claim *corev1.PersistentVolumeClaim) bool {
	switch claim.Status.AllocatedResourceStatuses[corev1.ResourceStorage] {
	case corev1.PersistentVolumeClaimNodeResizePending, corev1.PersistentVolumeClaimNodeResizeInProgress:
		return true
	case "":
		for _, c := range claim.Status.Conditions {
			if c.Type == corev1.PersistentVolumeClaimFileSystemResizePending && c.Status == corev1.ConditionTrue {
				return true
			}
		}
	}
	return false
}

// grownPatch is the status of a claim whose expansion is complete.
func grownPatch(claim *corev1.PersistentVolumeClaim, size resource.Quantity) ([]byte, error) {
	conditions := []corev1.PersistentVolumeClaimCondition{}
	for _, c := range claim.Status.Conditions {
		switch c.Type {
		case corev1.PersistentVolumeClaimFileSystemResizePending, corev1.PersistentVolumeClaimResizing,
			corev1.PersistentVolumeClaimControllerResizeError, corev1.PersistentVolumeClaimNodeResizeError:
		default:
			conditions = append(conditions, c)
		}
	}
	return json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": claim.ResourceVersion},
		"status": map[string]any{
			"capacity":                  map[string]any{string(corev1.ResourceStorage): size},
			"conditions":                conditions,
			"allocatedResourceStatuses": map[string]any{string(corev1.ResourceStorage): nil},
		},
	})
}
