package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// notAttached says that a volume cannot be mounted before somebody else has
// attached it. That is how things go, and no failure.
type notAttached struct{ error }

// asType finds an error of a type in the chain.
func asType[T error](err error) (T, bool) { return errors.AsType[T](err) }

// OnlyWaits reports whether nothing but the attachment of volumes, which is a
// controller's to do, keeps Mount from succeeding.
func OnlyWaits(err error) bool {
	if err == nil {
		return false
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all := joined.Unwrap()
		return len(all) > 0 && !slices.ContainsFunc(all, func(e error) bool { return !OnlyWaits(e) })
	}
	_, waits := asType[notAttached](err)
	return waits
}

// attached waits for nothing: it gives what the attachment tells the driver, or
// an error. A volume is used only after the Node says that it is in use, so that
// nobody detaches it, and that it is attached; a driver that attaches nothing
// needs neither.
func (m *Manager) attached(ctx context.Context, v *csiVolume, object *storagev1.CSIDriver) (map[string]string, error) {
	if !v.persistent() {
		return nil, nil
	}
	m.loadCSIUses() // which a release must not come before
	if object != nil && object.Spec.AttachRequired != nil && !*object.Spec.AttachRequired {
		m.csi.release(v.unique(), v.pod)
		return nil, nil
	}
	if m.csi.use(v.unique(), v.pod) {
		m.cfg.ReportInUse()
	}
	if err := m.nodeSaysAttached(v.unique()); err != nil {
		m.csi.setWaiting(v.pod)
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	a, err := m.cfg.Client.StorageV1().VolumeAttachments().Get(ctx, v.Attachment, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, notAttached{fmt.Errorf("volume %v has GET error for volume attachment %v: %w", v.Handle, v.Attachment, err)}
	case err != nil:
		return nil, fmt.Errorf("volumeattachment %q: %w", v.Attachment, answered(err))
	case a.DeletionTimestamp != nil:
		return nil, errors.New("volume attachment is being deleted")
	case a.Status.Attached:
		return a.Status.AttachmentMetadata, nil
	case a.Status.AttachError != nil:
		return nil, errors.New(a.Status.AttachError.Message)
	}
	return nil, notAttached{fmt.Errorf("volume %v is not attached for volume attachment %v", v.Handle, v.Attachment)}
}

func (m *Manager) nodeSaysAttached(name corev1.UniqueVolumeName) error {
	node := m.cfg.Node()
	if node == nil || !slices.Contains(node.Status.VolumesInUse, name) {
		return notAttached{fmt.Errorf("the node does not say yet that it uses volume %q", name)}
	}
	if !slices.ContainsFunc(node.Status.VolumesAttached, func(a corev1.AttachedVolume) bool { return a.Name == name }) {
		return notAttached{fmt.Errorf("volume not attached according to node status for volume %q", name)}
	}
	return nil
}

// NodeChanged calls OnChange for the pods that wait for an attachment. Call it
// when the Node's volumesInUse or volumesAttached have changed.
func (m *Manager) NodeChanged() {
	for _, pod := range m.csi.takeWaiting() {
		m.cfg.OnChange(pod)
	}
}
