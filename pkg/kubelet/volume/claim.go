package volume

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/localpath"
)

func claimKind() kind {
	return kind{
		is: func(v *corev1.VolumeSource) bool { return v.PersistentVolumeClaim != nil },
		mount: func(ctx context.Context, m *Manager, r request) (Source, error) {
			v := r.volume.PersistentVolumeClaim
			claim, err := m.claim(ctx, r.pod.Namespace, v.ClaimName)
			if err != nil {
				return m.recall(r, err)
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
				return m.recall(r, err)
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
		return nil, fmt.Errorf("persistentvolumeclaim %q: %w", name, answered(err))
	}
	return claim, nil
}

// mountClaim gives the place of the persistent volume that a claim is bound to.
func (m *Manager) mountClaim(ctx context.Context, r request, claim *corev1.PersistentVolumeClaim, readOnly bool) (Source, error) {
	if claim.Status.Phase != corev1.ClaimBound || claim.Spec.VolumeName == "" {
		return Source{}, fmt.Errorf("persistentvolumeclaim %q is not bound to a volume yet", claim.Name)
	}
	pv, err := m.volume(ctx, claim.Spec.VolumeName)
	if err != nil {
		return m.recall(r, err)
	}
	// The volume has the last word: a claim alone must not open another's data.
	if ref := pv.Spec.ClaimRef; ref == nil || ref.UID != claim.UID {
		return Source{}, fmt.Errorf("persistentvolume %q is not bound to claim %q", pv.Name, claim.Name)
	}
	if isBlock(pv) && pv.Spec.CSI == nil {
		return Source{}, fmt.Errorf("persistentvolume %q is a raw block volume, which this node supports of CSI drivers only", pv.Name)
	}
	if localpath.Made(pv) {
		if err := m.takeLocal(r, pv, readOnly); err != nil {
			return Source{}, fmt.Errorf("local volume %q: %w", pv.Name, err)
		}
	}
	src, err := m.persistent(ctx, r, pv, readOnly)
	if err != nil {
		return Source{}, err
	}
	src.ReadOnly = src.ReadOnly || readOnly
	return src, m.remember(r, src)
}

// claimFile is where the place of a claimed volume is kept: the API server may
// be away when the pod's containers have to be started again.
func (m *Manager) claimFile(r request) string {
	return filepath.Join(m.PodDir(r.pod.UID), "claims", r.volume.Name)
}

func (m *Manager) remember(r request, src Source) error {
	data, err := json.Marshal(src)
	if err != nil {
		return err
	}
	return replaceFile(m.claimFile(r), data)
}

// recall gives what was remembered if the cause is that the API server cannot
// be reached, else the cause.
func (m *Manager) recall(r request, cause error) (Source, error) {
	if !isUnreachable(cause) {
		return Source{}, cause
	}
	data, err := os.ReadFile(m.claimFile(r))
	if err != nil {
		return Source{}, cause
	}
	var src Source
	if err := json.Unmarshal(data, &src); err != nil || src.HostPath == "" {
		return Source{}, cause
	}
	if m.isCSIPath(src.HostPath) {
		// A driver's mounts do not outlive the machine, as folders do.
		if mounted, err := isMount(src.HostPath); err != nil || !mounted {
			return Source{}, cause
		}
	}
	m.cfg.Log.Warn("a claimed volume is used as before, since the API server cannot be reached",
		"pod", r.pod.Name, "namespace", r.pod.Namespace, "volume", r.volume.Name, "err", cause)
	return src, nil
}

func isBlock(pv *corev1.PersistentVolume) bool {
	return pv.Spec.VolumeMode != nil && *pv.Spec.VolumeMode == corev1.PersistentVolumeBlock
}

func (m *Manager) volume(ctx context.Context, name string) (*corev1.PersistentVolume, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	pv, err := m.cfg.Client.CoreV1().PersistentVolumes().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("persistentvolume %q: %w", name, answered(err))
	}
	return pv, nil
}

func (m *Manager) persistent(ctx context.Context, r request, pv *corev1.PersistentVolume, readOnly bool) (Source, error) {
	switch {
	case pv.Spec.CSI != nil:
		v := m.persistentCSI(r, pv, readOnly)
		src, err := m.mountCSI(ctx, r, v)
		if err == nil {
			if err := m.expandCSI(ctx, r.pod, &v); err != nil {
				m.cfg.Log.Warn("a volume has not grown yet, will try again", "pod", r.pod.Name, "namespace", r.pod.Namespace, "volume", pv.Name, "err", err)
			}
		}
		return src, err
	case pv.Spec.HostPath != nil:
		return hostPath(pv.Spec.HostPath)
	case pv.Spec.Local != nil:
		return m.localVolume(r, pv)
	}
	return Source{}, fmt.Errorf("persistentvolume %q is of a kind that this node does not support", pv.Name)
}
