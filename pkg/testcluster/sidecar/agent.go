package sidecar

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/attachment"
	"coracle/pkg/volumebinding"
)

// agent plays the part of a node's agent that is about this driver's volumes:
// it says what it uses, mounts what it may, and says that it does not use it
// any more when it has unmounted it.
func (d *Driver) agent(ctx context.Context, node *corev1.Node) error {
	if d.isOff(node.Name) {
		return nil
	}
	needs := d.needs(node.Name)
	d.change(func() {
		for handle, on := range d.mounted {
			if !slices.Contains(needs, handle) {
				d.mounted[handle] = without(on, node.Name)
			}
		}
	}, false)
	var use []corev1.UniqueVolumeName
	for _, handle := range needs {
		use = append(use, attachment.InStatus(d.name, handle))
	}
	api := d.client.CoreV1().Nodes()
	if !slices.Equal(use, node.Status.VolumesInUse) {
		return patch(ctx, api.Patch, node.Name, map[string]any{"status": map[string]any{"volumesInUse": use}}, "status")
	}
	if len(use) == 0 {
		return nil
	}
	// What it uses is known to the server: now it reads what it may mount.
	node, err := api.Get(ctx, node.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for i, handle := range needs {
		may := slices.ContainsFunc(node.Status.VolumesAttached, func(v corev1.AttachedVolume) bool { return v.Name == use[i] })
		if !may || d.isMounted(handle, node.Name) {
			continue
		}
		a, err := d.client.StorageV1().VolumeAttachments().Get(ctx, attachment.Name(d.name, handle, node.Name), metav1.GetOptions{})
		if err != nil {
			return err
		}
		if a.Status.Attached && a.DeletionTimestamp == nil {
			d.mount(handle, node.Name)
		}
	}
	return nil
}

// needs are the handles of the volumes that pods of the node need, sorted.
func (d *Driver) needs(node string) []string {
	var out []string
	for _, pod := range items[*corev1.Pod](d.pods) {
		if pod.Spec.NodeName != node || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
			continue
		}
		for _, name := range volumebinding.ClaimsOf(pod) {
			claim := find[*corev1.PersistentVolumeClaim](d.claims, pod.Namespace+"/"+name)
			if claim == nil {
				continue
			}
			v := find[*corev1.PersistentVolume](d.volumes, claim.Spec.VolumeName)
			if v != nil && v.Spec.CSI != nil && v.Spec.CSI.Driver == d.name {
				out = append(out, v.Spec.CSI.VolumeHandle)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (d *Driver) isOff(node string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.off[node]
}

func (d *Driver) isMounted(handle, node string) bool {
	return slices.Contains(d.Mounted(handle), node)
}

func (d *Driver) mount(handle, node string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.Contains(d.attached[handle], node) {
		d.wrong("node %s mounts %s, which is attached to %v", node, handle, d.attached[handle])
	}
	d.mounted[handle] = append(d.mounted[handle], node)
}
