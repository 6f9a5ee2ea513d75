// Package localpath is what the control plane and the nodes' agents agree on
// about volumes that are folders of a node.
//
//   - An agent that can keep such volumes says where, in the annotation Folder
//     of its Node.
//   - The provisioner makes a persistent volume of the kind "local" whose path
//     is that folder and the volume's own name; nothing exists on the node yet.
//   - The agent makes the folder when a pod first mounts the volume.
//   - When the volume is to be deleted, the provisioner writes Wanted into the
//     Node's annotation RemoveKey(volume); the agent removes the folder with all
//     that is in it and writes Removed; then the volume loses its Finalizer and
//     the Node the annotation. A node that is away does it when it comes back.
//
// So agents need no right but that to their own Node, and no watch but that.
package localpath

import (
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// Provisioner is the name in StorageClasses.
	Provisioner = "coracle.dev/local-path"
	// ClassName is that of the class that local clusters begin with.
	ClassName = "local-path"
	// Finalizer keeps a volume until its folder is gone.
	Finalizer = "local-path.coracle.dev/data"
	// Node is the annotation of volumes that names their node.
	Node = "local-path.coracle.dev/node"
	// Folder is the annotation of Nodes that keep volumes.
	Folder = "local-path.coracle.dev/folder"

	removePrefix = "remove.local-path.coracle.dev/"
	// Wanted and Removed are the values of RemoveKey annotations.
	Wanted, Removed = "wanted", "removed"
)

// RemoveKey is the annotation of a Node about the removal of a volume.
func RemoveKey(volume string) string { return removePrefix + volume }

// Removals are the volumes that a Node's annotations are about, with their
// state.
func Removals(annotations map[string]string) map[string]string {
	var out map[string]string
	for key, state := range annotations {
		if volume, ok := strings.CutPrefix(key, removePrefix); ok {
			if out == nil {
				out = map[string]string{}
			}
			out[volume] = state
		}
	}
	return out
}

// ProvisionedBy is the annotation of volumes that names their provisioner.
const ProvisionedBy = "pv.kubernetes.io/provisioned-by"

// Made reports whether the volume is one of these.
func Made(v *corev1.PersistentVolume) bool { return v.Annotations[ProvisionedBy] == Provisioner }

// Path is where a volume is on a node whose volumes are in folder.
func Path(folder, volume string) string { return path.Join(folder, volume) }

// Class is the StorageClass that local clusters begin with: the default one,
// whose volumes are made where the first pod runs.
func Class() *storagev1.StorageClass {
	mode, policy := storagev1.VolumeBindingWaitForFirstConsumer, corev1.PersistentVolumeReclaimDelete
	return &storagev1.StorageClass{
		ObjectMeta: metav1.ObjectMeta{
			Name:        ClassName,
			Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"},
		},
		Provisioner: Provisioner, VolumeBindingMode: &mode, ReclaimPolicy: &policy, AllowVolumeExpansion: new(true),
	}
}
