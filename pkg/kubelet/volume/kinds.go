package volume

import (
	"context"
	"fmt"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// kind is one kind of volume.
type kind struct {
	// folder is where volumes of this kind live below the pod's volumes
	// folder; empty for kinds that live elsewhere on the node.
	folder string
	// is reports whether the volume is of this kind.
	is func(*corev1.VolumeSource) bool
	// mount sets the volume up and is idempotent. It must leave the content of
	// a volume that containers may have written to alone.
	mount func(ctx context.Context, m *Manager, r request) (Source, error)
	// live is set for kinds whose content follows API objects: Refresh mounts
	// them again.
	live bool
}

// kinds lists every kind of volume that this node can set up, in the order in
// which they are tried.
func kinds() []kind {
	return []kind{
		emptyDirKind(),
		hostPathKind(),
		configMapKind(),
		secretKind(),
		projectedKind(),
		downwardKind(),
		claimKind(),
		ephemeralKind(),
		csiKind(),
		imageKind(),
	}
}

// request is one volume of one pod that is to be set up.
type request struct {
	pod    *corev1.Pod
	volume *corev1.Volume
	facts  PodFacts
	// dir is the volume's folder, for kinds that have one. It may not exist.
	dir string
}

// find gives the kind of a volume.
func find(v *corev1.Volume) (kind, error) {
	for _, k := range kinds() {
		if k.is(&v.VolumeSource) {
			return k, nil
		}
	}
	return kind{}, fmt.Errorf("volume %q is of a kind that this node does not support", v.Name)
}

// request checks what becomes part of a path before it builds one.
func (m *Manager) request(pod *corev1.Pod, v *corev1.Volume, k kind, facts PodFacts) (request, error) {
	if err := checkElement(string(pod.UID)); err != nil {
		return request{}, fmt.Errorf("pod UID: %w", err)
	}
	if errs := validation.IsDNS1123Label(v.Name); len(errs) > 0 {
		return request{}, fmt.Errorf("volume name %q: %s", v.Name, errs[0])
	}
	r := request{pod: pod, volume: v, facts: facts}
	if k.folder != "" {
		r.dir = filepath.Join(m.PodDir(pod.UID), volumesDir, k.folder, v.Name)
	}
	return r, nil
}
