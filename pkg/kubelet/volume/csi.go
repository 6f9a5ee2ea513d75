package volume

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/attachment"
	"coracle/pkg/kubelet/csi"
)

// csiVolume is one CSI volume as a pod asks for it.
type csiVolume struct {
	csiUse
	inPod          string // the pod's name for it
	readOnly       bool
	fsType         string
	attributes     map[string]string
	options        []string
	modes          []corev1.PersistentVolumeAccessMode // nil for inline volumes
	stageSecret    *corev1.SecretReference
	publishSecret  *corev1.SecretReference
	expandSecret   *corev1.SecretReference
	claimNamespace string // and claim: of a persistent volume
	claim          string
}

// csiKind is a volume of a CSI driver that lives and dies with its pod.
func csiKind() kind {
	return kind{
		is: func(v *corev1.VolumeSource) bool { return v.CSI != nil },
		mount: func(ctx context.Context, m *Manager, r request) (Source, error) {
			return m.mountCSI(ctx, r, m.inlineCSI(r))
		},
	}
}

func (m *Manager) inlineCSI(r request) csiVolume {
	src := r.volume.CSI
	v := csiVolume{
		csiUse:     m.newCSIUse(r, r.volume.Name, src.Driver, inlineHandle(r.pod.UID, r.volume.Name), storagev1.VolumeLifecycleEphemeral),
		inPod:      r.volume.Name,
		attributes: src.VolumeAttributes,
	}
	if src.ReadOnly != nil {
		v.readOnly = *src.ReadOnly
	}
	if src.FSType != nil {
		v.fsType = *src.FSType
	}
	if src.NodePublishSecretRef != nil {
		v.publishSecret = &corev1.SecretReference{Namespace: r.pod.Namespace, Name: src.NodePublishSecretRef.Name}
	}
	return v
}

func (m *Manager) persistentCSI(r request, pv *corev1.PersistentVolume, readOnly bool) csiVolume {
	src := pv.Spec.CSI
	v := csiVolume{
		csiUse:     m.newCSIUse(r, pv.Name, src.Driver, src.VolumeHandle, storagev1.VolumeLifecyclePersistent),
		inPod:      r.volume.Name,
		attributes: src.VolumeAttributes, readOnly: readOnly, fsType: src.FSType, options: pv.Spec.MountOptions, modes: pv.Spec.AccessModes,
		stageSecret: src.NodeStageSecretRef, publishSecret: src.NodePublishSecretRef, expandSecret: src.NodeExpandSecretRef,
		claimNamespace: pv.Spec.ClaimRef.Namespace, claim: pv.Spec.ClaimRef.Name,
	}
	v.block = isBlock(pv)
	return v
}

func (m *Manager) newCSIUse(r request, name, driver, handle string, lifecycle storagev1.VolumeLifecycleMode) csiUse {
	return csiUse{
		pod: r.pod.UID, Name: name, Driver: driver, Handle: handle, Lifecycle: lifecycle,
		Node: m.cfg.NodeName, Attachment: attachment.Name(driver, handle, m.cfg.NodeName),
	}
}

// csiError is a refusal of a driver: the next try waits, ever longer.
type csiError struct{ error }

func (e csiError) Unwrap() error { return e.error }

// mountCSI has a driver set the volume up for the pod. What this agent has set
// up already is not asked for again.
func (m *Manager) mountCSI(ctx context.Context, r request, v csiVolume) (Source, error) {
	if m.cfg.CSI == nil {
		return Source{}, errors.New("this node has no CSI drivers")
	}
	for _, name := range []string{v.Name, v.Driver} {
		if err := checkElement(name); err != nil {
			return Source{}, err
		}
	}
	unlock, err := m.csi.locks.lock(ctx, m.csiUsePath(&v.csiUse))
	if err != nil {
		return Source{}, err
	}
	defer unlock()
	src := Source{HostPath: m.csiTarget(&v.csiUse), ReadOnly: v.readOnly, Block: v.block}
	there, err := isMount(src.HostPath)
	there = there && err == nil
	if err := m.csi.due(&v.csiUse, there, m.cfg.Clock.Now()); err != nil {
		return Source{}, err
	}
	if m.csi.isPublished(&v.csiUse) {
		return src, nil
	}
	republish, err := m.setUpCSI(ctx, r, &v)
	m.csi.tried(v, republish, m.cfg.Clock.Now(), err)
	if err != nil && there && isUnreachable(err) {
		m.cfg.Log.Warn("a CSI volume is used as before, since the API server cannot be reached",
			"pod", r.pod.Name, "namespace", r.pod.Namespace, "volume", v.Name, "err", err)
		return src, nil
	}
	return src, err
}

// setUpCSI goes all the way to a published volume. Each step may be repeated.
// It reports whether the driver wants to be told again once in a while.
func (m *Manager) setUpCSI(ctx context.Context, r request, v *csiVolume) (republish bool, err error) {
	driver, object, caps, err := m.csiDriver(ctx, &v.csiUse)
	if err != nil {
		return false, err
	}
	if err := checkLifecycle(object, &v.csiUse); err != nil {
		return false, err
	}
	published, err := m.attached(ctx, v, object)
	if err != nil {
		return false, fmt.Errorf("MountVolume.WaitForAttach failed for volume %q : %w", v.Name, err)
	}
	group := fsGroup(r.pod)
	access := v.access(caps)
	if caps.MountGroup && !v.block {
		access.Group = group
	}
	staging, err := m.stageCSI(ctx, driver, caps, v, published, access)
	if err != nil {
		return false, fmt.Errorf("MountVolume.MountDevice failed for volume %q : %w", v.Name, err)
	}
	if err := m.publishCSI(ctx, r, driver, object, v, staging, published, access); err != nil {
		return false, fmt.Errorf("MountVolume.SetUp failed for volume %q : %w", v.Name, err)
	}
	if !caps.MountGroup && takesGroup(object, v, group) {
		if err := applyGroup(m.csiTarget(&v.csiUse), r.pod); err != nil {
			return false, fmt.Errorf("applyFSGroup failed for vol %s: %w", v.Handle, err)
		}
	}
	if v.block {
		m.cfg.Event(r.pod, corev1.EventTypeNormal, "SuccessfulMountVolume", fmt.Sprintf("MapVolume.MapPodDevice succeeded for volume %q", v.Name))
	}
	return object != nil && object.Spec.RequiresRepublish != nil && *object.Spec.RequiresRepublish, nil
}

// csiDriver finds the driver, its object, which is nil if there is none, and
// what it can do.
func (m *Manager) csiDriver(ctx context.Context, u *csiUse) (*csi.Driver, *storagev1.CSIDriver, csi.Capabilities, error) {
	var none csi.Capabilities
	driver, err := m.cfg.CSI.Find(u.Driver)
	if err != nil {
		return nil, nil, none, fmt.Errorf("MountVolume.SetUp failed for volume %q : kubernetes.io/csi: mounter.SetUpAt failed to get CSI client: %w", u.Name, err)
	}
	rctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	object, err := m.cfg.Client.StorageV1().CSIDrivers().Get(rctx, u.Driver, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		object, err = nil, nil
	}
	if err != nil {
		return nil, nil, none, fmt.Errorf("csidriver %q: %w", u.Driver, answered(err))
	}
	caps, err := driver.Capabilities(ctx)
	if err != nil {
		return nil, nil, none, csiError{fmt.Errorf("asking CSI driver %s what it can do: %w", u.Driver, err)}
	}
	return driver, object, caps, nil
}

// checkLifecycle refuses a use that the driver does not support. Without a
// CSIDriver object only persistent volumes are.
func checkLifecycle(object *storagev1.CSIDriver, u *csiUse) error {
	switch {
	case object == nil && u.persistent():
		return nil
	case object == nil:
		return fmt.Errorf("volume mode %q not supported by driver %s (no CSIDriver object)", u.Lifecycle, u.Driver)
	case slices.Contains(object.Spec.VolumeLifecycleModes, u.Lifecycle):
		return nil
	case u.persistent() && len(object.Spec.VolumeLifecycleModes) == 0:
		return nil // the default
	}
	return fmt.Errorf("volume mode %q not supported by driver %s (only supports %q)", u.Lifecycle, u.Driver, object.Spec.VolumeLifecycleModes)
}

func (v *csiVolume) access(caps csi.Capabilities) csi.Access {
	a := csi.Access{SingleWriter: caps.SingleWriter, Block: v.block, FSType: v.fsType, Options: v.options}
	if len(v.modes) > 0 {
		a.Mode = v.modes[0]
	}
	return a
}

// takesGroup decides whether the agent gives the volume to the pod's group.
func takesGroup(object *storagev1.CSIDriver, v *csiVolume, group *int64) bool {
	policy := storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy
	if object != nil && object.Spec.FSGroupPolicy != nil && *object.Spec.FSGroupPolicy != "" {
		policy = *object.Spec.FSGroupPolicy
	}
	if group == nil || v.readOnly || v.block || policy == storagev1.NoneFSGroupPolicy {
		return false
	}
	if policy == storagev1.FileFSGroupPolicy {
		return true
	}
	once := slices.Contains(v.modes, corev1.ReadWriteOnce) || slices.Contains(v.modes, corev1.ReadWriteOncePod)
	return v.fsType != "" && (once || !v.persistent())
}

// stageCSI notes the pod's use and has the volume staged, which is done once for
// all pods of the node, where the driver stages at all. It gives the place.
func (m *Manager) stageCSI(ctx context.Context, driver *csi.Driver, caps csi.Capabilities, v *csiVolume, published map[string]string, access csi.Access) (string, error) {
	unlock, err := m.csi.locks.lock(ctx, string(v.unique()))
	if err != nil {
		return "", err
	}
	defer unlock()
	if err := m.noteCSIUse(&v.csiUse); err != nil {
		return "", err
	}
	if !caps.Stage || !v.persistent() {
		return "", nil
	}
	path := m.csiStaging(&v.csiUse)
	if m.csi.isStaged(v.unique()) {
		return path, nil
	}
	secrets, err := m.csiSecrets(ctx, v.stageSecret)
	if err != nil {
		return "", err
	}
	if err := m.makeStaging(&v.csiUse); err != nil {
		return "", err
	}
	err = driver.Stage(ctx, csi.Stage{
		Volume: v.Handle, Path: path, PublishContext: published, VolumeContext: v.attributes, Secrets: secrets, Access: access,
	})
	if err == nil {
		m.csi.setStaged(v.unique(), true)
		return path, nil
	}
	if csi.IsFinal(err) {
		err = errors.Join(err, m.forgetFailedStage(&v.csiUse))
	}
	return "", csiError{err}
}

// publishCSI has the volume mounted for the pod.
func (m *Manager) publishCSI(ctx context.Context, r request, driver *csi.Driver, object *storagev1.CSIDriver, v *csiVolume, staging string, published map[string]string, access csi.Access) error {
	attributes, secrets, err := m.csiAttributes(ctx, r.pod, object, v)
	if err != nil {
		return err
	}
	target := m.csiTarget(&v.csiUse)
	if err := makeParent(target); err != nil {
		return err
	}
	err = driver.Publish(ctx, csi.Publish{
		Volume: v.Handle, StagingPath: staging, Path: target, ReadOnly: v.readOnly,
		PublishContext: published, VolumeContext: attributes, Secrets: secrets, Access: access,
	})
	if err != nil {
		// The note stays: the pod's end has the driver take down what it may
		// have done nevertheless.
		return csiError{err}
	}
	return nil
}

// csiAttributes is what the driver is told of volume and pod, and the secrets
// for it.
func (m *Manager) csiAttributes(ctx context.Context, pod *corev1.Pod, object *storagev1.CSIDriver, v *csiVolume) (attributes, secrets map[string]string, err error) {
	attributes = maps.Clone(v.attributes)
	if attributes == nil {
		attributes = map[string]string{}
	}
	if secrets, err = m.csiSecrets(ctx, v.publishSecret); err != nil || object == nil {
		return attributes, secrets, err
	}
	if object.Spec.PodInfoOnMount != nil && *object.Spec.PodInfoOnMount {
		maps.Copy(attributes, podInfo(pod, v.Lifecycle))
	}
	tokens, err := m.csiTokens(ctx, pod, object.Spec.TokenRequests)
	if err != nil || tokens == "" {
		return attributes, secrets, err
	}
	if object.Spec.ServiceAccountTokenInSecrets != nil && *object.Spec.ServiceAccountTokenInSecrets {
		if secrets == nil {
			secrets = map[string]string{}
		}
		secrets[csiTokensKey] = tokens
	} else {
		attributes[csiTokensKey] = tokens
	}
	return attributes, secrets, nil
}

// isCSIPath reports whether something is where CSI volumes of pods are.
func (m *Manager) isCSIPath(path string) bool {
	if filepath.Base(path) == csiMountFolder && filepath.Base(filepath.Dir(filepath.Dir(path))) == csiFolder {
		return true
	}
	rel, err := filepath.Rel(m.csiDir(), path)
	return err == nil && filepath.IsLocal(rel)
}
