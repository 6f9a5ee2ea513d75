package volume

import (
	"context"
	"fmt"
	"os"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func claimKind() kind {
	return kind{
		is: func(v *corev1.VolumeSource) bool { return v.PersistentVolumeClaim != nil },
		mount: func(ctx context.Context, m *Manager, r request) (Source, error) {
			v := r.volume.PersistentVolumeClaim
			claim, err := m.claim(ctx, r.pod.Namespace, v.ClaimName)
			if err != nil {
				return Source{}, err
			}
			return m.mountClaim(ctx, r, claim, v.ReadOnly)
		},
	}
}

// ephemeralKind is a claim that was made for the pod and has its name.
func ephemeralKind() kind {
	return kind{
		is: func(v *corev1.VolumeSource) bool { return v.Ephemeral != nil },
		mount: func(ctx context.Context, m *Manager, r request) (Source, error) {
			claim, err := m.claim(ctx, r.pod.Namespace, r.pod.Name+"-"+r.volume.Name)
			if err != nil {
				return Source{}, err
			}
			if !metav1.IsControlledBy(claim, r.pod) {
				return Source{}, fmt.Errorf("claim %q was not made for this pod: delete it, or rename the pod", claim.Name)
			}
			return m.mountClaim(ctx, r, claim, false)
		},
	}
}

func (m *Manager) claim(ctx context.Context, namespace, name string) (*corev1.PersistentVolumeClaim, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	claim, err := m.cfg.Client.CoreV1().PersistentVolumeClaims(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("persistentvolumeclaim %q: %w", name, err)
	}
	return claim, nil
}

// mountClaim gives the place of the persistent volume that a claim is bound to.
func (m *Manager) mountClaim(ctx context.Context, r request, claim *corev1.PersistentVolumeClaim, readOnly bool) (Source, error) {
	if claim.Status.Phase != corev1.ClaimBound || claim.Spec.VolumeName == "" {
		return Source{}, fmt.Errorf("persistentvolumeclaim %q is not bound to a volume yet", claim.Name)
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	pv, err := m.cfg.Client.CoreV1().PersistentVolumes().Get(ctx, claim.Spec.VolumeName, metav1.GetOptions{})
	if err != nil {
		return Source{}, fmt.Errorf("persistentvolume %q: %w", claim.Spec.VolumeName, err)
	}
	// The volume has the last word: a claim alone must not open another's data.
	if ref := pv.Spec.ClaimRef; ref == nil || ref.UID != claim.UID {
		return Source{}, fmt.Errorf("persistentvolume %q is not bound to claim %q", pv.Name, claim.Name)
	}
	if mode := pv.Spec.VolumeMode; mode != nil && *mode == corev1.PersistentVolumeBlock {
		return Source{}, fmt.Errorf("persistentvolume %q is a raw block volume, which this node does not support", pv.Name)
	}
	src, err := m.persistent(r, pv)
	src.ReadOnly = src.ReadOnly || readOnly
	return src, err
}

func (m *Manager) persistent(r request, pv *corev1.PersistentVolume) (Source, error) {
	switch {
	case pv.Spec.HostPath != nil:
		return hostPath(pv.Spec.HostPath)
	case pv.Spec.Local != nil:
		path := pv.Spec.Local.Path
		info, err := os.Stat(path)
		if err != nil {
			return Source{}, fmt.Errorf("local volume %q: %w", pv.Name, err)
		}
		if !info.IsDir() {
			return Source{}, fmt.Errorf("local volume %q: %s is not a directory, and this node does not format devices", pv.Name, path)
		}
		if err := applyGroup(path, r.pod); err != nil {
			return Source{}, fmt.Errorf("local volume %q: %w", pv.Name, err)
		}
		return Source{HostPath: path}, nil
	}
	return Source{}, fmt.Errorf("persistentvolume %q is of a kind that this node does not support", pv.Name)
}
