package testcluster_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"coracle/pkg/attachment"
	"coracle/pkg/testcluster"
	"coracle/pkg/testcluster/sidecar"
)

const disks = "disks.example.com"

// volumeWalk is one claim on its way, and what the steps have learned of it.
type volumeWalk struct {
	t      *testing.T
	c      kubernetes.Interface
	driver *sidecar.Driver
	volume string // the name of the claim's volume, once it has one
	handle string
}

// TestVolumeOfADriverFromClaimToDisk and back: scheduler, binder, attacher and
// the driver's sidecars each do their part, by what they tell each other in
// the objects, and at the end nothing is left.
func TestVolumeOfADriverFromClaimToDisk(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithRoles())
	w := &volumeWalk{t: t, c: c.Client, driver: sidecar.Start(t, c.Client, disks)}
	w.furnish()
	w.waitsForRoom()
	w.isBound()
	w.isAttached()
	w.grows()
	w.isDetached()
	w.goes()
	for _, wrong := range w.driver.Wrongs() {
		t.Error(wrong)
	}
}

func (w *volumeWalk) must(_ any, err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// furnish makes a node, what the driver publishes, a class, a claim and its
// pod.
func (w *volumeWalk) furnish() {
	ctx := w.t.Context()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1", Labels: map[string]string{"topology.example.com/rack": "r1"}}}
	w.must(w.c.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{}))
	const status = `{"status":{"conditions":[{"type":"Ready","status":"True"}],"capacity":{"cpu":"4","memory":"8Gi","pods":"10"},"allocatable":{"cpu":"4","memory":"8Gi","pods":"10"}}}`
	w.must(w.c.CoreV1().Nodes().Patch(ctx, "node-1", types.StrategicMergePatchType, []byte(status), metav1.PatchOptions{}, "status"))
	w.must(w.c.StorageV1().CSINodes().Create(ctx, &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: "node-1"}, Spec: storagev1.CSINodeSpec{
		Drivers: []storagev1.CSINodeDriver{{Name: disks, NodeID: "n1", TopologyKeys: []string{"topology.example.com/rack"}, Allocatable: &storagev1.VolumeNodeResources{Count: new(int32(2))}}}}}, metav1.CreateOptions{}))
	w.must(w.c.StorageV1().CSIDrivers().Create(ctx, &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: disks}, Spec: storagev1.CSIDriverSpec{StorageCapacity: new(true)}}, metav1.CreateOptions{}))
	waits, remove := storagev1.VolumeBindingWaitForFirstConsumer, corev1.PersistentVolumeReclaimDelete
	w.must(w.c.StorageV1().StorageClasses().Create(ctx, &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "disks"}, Provisioner: disks,
		VolumeBindingMode: &waits, ReclaimPolicy: &remove, AllowVolumeExpansion: new(true)}, metav1.CreateOptions{}))
	w.must(w.c.StorageV1().CSIStorageCapacities("kube-system").Create(ctx, &storagev1.CSIStorageCapacity{ObjectMeta: metav1.ObjectMeta{Name: "r1"}, StorageClassName: "disks",
		NodeTopology: &metav1.LabelSelector{MatchLabels: map[string]string{"topology.example.com/rack": "r1"}}, Capacity: new(resource.MustParse("1Mi"))}, metav1.CreateOptions{}))
	w.must(w.c.CoreV1().PersistentVolumeClaims("default").Create(ctx, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "data"}, Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: new("disks"),
		Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}}}}, metav1.CreateOptions{}))
	w.must(w.c.CoreV1().Pods("default").Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{
		Containers: []corev1.Container{{Name: "c", Image: "i"}},
		Volumes:    []corev1.Volume{{Name: "d", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}},
	}}, metav1.CreateOptions{}))
}

func (w *volumeWalk) claim() *corev1.PersistentVolumeClaim {
	w.t.Helper()
	claim, err := w.c.CoreV1().PersistentVolumeClaims("default").Get(w.t.Context(), "data", metav1.GetOptions{})
	w.must(claim, err)
	return claim
}

// waitsForRoom: the scheduler reads what the driver says it has room for.
func (w *volumeWalk) waitsForRoom() {
	ctx := w.t.Context()
	eventually(w.t, "the pod has no place", func(ctx context.Context) (bool, error) {
		pod, err := w.c.CoreV1().Pods("default").Get(ctx, "p", metav1.GetOptions{})
		return err == nil && slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && strings.Contains(c.Message, "did not have enough free storage")
		}), err
	})
	if node := w.claim().Annotations["volume.kubernetes.io/selected-node"]; node != "" {
		w.t.Errorf("node %s is selected, which has no room", node)
	}
	w.must(w.c.StorageV1().CSIStorageCapacities("kube-system").Patch(ctx, "r1", types.MergePatchType, []byte(`{"capacity":"100Gi"}`), metav1.PatchOptions{}))
}

// isBound: a node is selected, the provisioner makes the volume for it, and
// with it the pod is bound.
func (w *volumeWalk) isBound() {
	eventually(w.t, "the pod has its node", func(ctx context.Context) (bool, error) {
		pod, err := w.c.CoreV1().Pods("default").Get(ctx, "p", metav1.GetOptions{})
		return err == nil && pod.Spec.NodeName == "node-1", err
	})
	claim := w.claim()
	for key, want := range map[string]string{
		"volume.kubernetes.io/selected-node": "node-1", "volume.kubernetes.io/storage-provisioner": disks, "volume.beta.kubernetes.io/storage-provisioner": disks,
		"pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes",
	} {
		if got := claim.Annotations[key]; got != want {
			w.t.Errorf("the claim's annotation %s is %q, want %q", key, got, want)
		}
	}
	w.volume = claim.Spec.VolumeName
	volume, err := w.c.CoreV1().PersistentVolumes().Get(w.t.Context(), w.volume, metav1.GetOptions{})
	w.must(volume, err)
	if claim.Status.Phase != corev1.ClaimBound || volume.Status.Phase != corev1.VolumeBound || volume.Spec.ClaimRef.UID != claim.UID {
		w.t.Errorf("the claim is %s, the volume %s for %v", claim.Status.Phase, volume.Status.Phase, volume.Spec.ClaimRef)
	}
	for _, f := range []string{"kubernetes.io/pv-protection", "external-provisioner.volume.kubernetes.io/finalizer"} {
		if !slices.Contains(volume.Finalizers, f) {
			w.t.Errorf("the volume's finalizers %v lack %s", volume.Finalizers, f)
		}
	}
	w.handle = volume.Spec.CSI.VolumeHandle
}

func (w *volumeWalk) isAttached() {
	eventually(w.t, "the node has mounted the volume", func(context.Context) (bool, error) {
		return slices.Equal(w.driver.Mounted(w.handle), []string{"node-1"}), nil
	})
	ctx := w.t.Context()
	a, err := w.c.StorageV1().VolumeAttachments().Get(ctx, attachment.Name(disks, w.handle, "node-1"), metav1.GetOptions{})
	w.must(a, err)
	if !a.Status.Attached || a.Status.AttachmentMetadata["path"] == "" || !slices.Equal(a.Finalizers, []string{"external-attacher/" + disks}) {
		w.t.Errorf("the attachment has %v and says %+v", a.Finalizers, a.Status)
	}
	node, err := w.c.CoreV1().Nodes().Get(ctx, "node-1", metav1.GetOptions{})
	w.must(node, err)
	name := attachment.InStatus(disks, w.handle)
	if !slices.Equal(node.Status.VolumesInUse, []corev1.UniqueVolumeName{name}) || !slices.Equal(node.Status.VolumesAttached, []corev1.AttachedVolume{{Name: name}}) {
		w.t.Errorf("the node uses %v of %v", node.Status.VolumesInUse, node.Status.VolumesAttached)
	}
	volume, err := w.c.CoreV1().PersistentVolumes().Get(ctx, w.volume, metav1.GetOptions{})
	if w.must(volume, err); !slices.Contains(volume.Finalizers, "external-attacher/"+disks) {
		w.t.Errorf("the volume's finalizers are %v", volume.Finalizers)
	}
	w.must(w.c.CoreV1().Pods("default").Patch(ctx, "p", types.StrategicMergePatchType, []byte(`{"status":{"phase":"Running","containerStatuses":[{"name":"c","image":"i","imageID":"i","state":{"running":{}}}]}}`), metav1.PatchOptions{}, "status"))
}

// grows writes what an external resizer and then the node's agent write. The
// controllers of the cluster leave all of it to them.
func (w *volumeWalk) grows() {
	ctx, claims := w.t.Context(), w.c.CoreV1().PersistentVolumeClaims("default")
	patch := func(format string, args ...any) *corev1.PersistentVolumeClaim {
		w.t.Helper()
		claim, err := claims.Patch(ctx, "data", types.StrategicMergePatchType, fmt.Appendf(nil, format, args...), metav1.PatchOptions{}, "status")
		w.must(claim, err)
		return claim
	}
	w.must(claims.Patch(ctx, "data", types.MergePatchType, []byte(`{"spec":{"resources":{"requests":{"storage":"2Gi"}}}}`), metav1.PatchOptions{}))
	patch(`{"status":{"allocatedResources":{"storage":"2Gi"},"allocatedResourceStatuses":{"storage":"ControllerResizeInProgress"},"conditions":[{"type":"Resizing","status":"True"}]}}`)
	w.must(w.c.CoreV1().PersistentVolumes().Patch(ctx, w.volume, types.StrategicMergePatchType, []byte(`{"spec":{"capacity":{"storage":"2Gi"}}}`), metav1.PatchOptions{}))
	patch(`{"status":{"allocatedResourceStatuses":{"storage":"NodeResizePending"},"conditions":[{"type":"FileSystemResizePending","status":"True"},{"type":"Resizing","$patch":"delete"}]}}`)
	if claim := w.claim(); len(claim.Status.Conditions) != 1 || claim.Status.Conditions[0].Type != corev1.PersistentVolumeClaimFileSystemResizePending {
		w.t.Errorf("the conditions are %v", claim.Status.Conditions)
	}
	patch(`{"status":{"capacity":{"storage":"2Gi"},"allocatedResourceStatuses":null,"conditions":[{"type":"FileSystemResizePending","$patch":"delete"}]}}`)
	claim := w.claim()
	size := claim.Status.Capacity[corev1.ResourceStorage]
	if size.String() != "2Gi" || len(claim.Status.Conditions) != 0 || len(claim.Status.AllocatedResourceStatuses) != 0 {
		w.t.Errorf("the claim's status is %+v", claim.Status)
	}
	_, err := claims.Patch(ctx, "data", types.MergePatchType, []byte(`{"status":{"allocatedResourceStatuses":{"storage":"Someday"}}}`), metav1.PatchOptions{}, "status")
	if !apierrors.IsInvalid(err) {
		w.t.Errorf("a state of resizing that there is not: %v", err)
	}
}

// isDetached: the claim and the attachment wait for the pod, which ends.
func (w *volumeWalk) isDetached() {
	ctx := w.t.Context()
	w.must(nil, w.c.CoreV1().PersistentVolumeClaims("default").Delete(ctx, "data", metav1.DeleteOptions{}))
	if claim := w.claim(); claim.DeletionTimestamp == nil || !slices.Contains(claim.Finalizers, "kubernetes.io/pvc-protection") {
		w.t.Errorf("the claim in use has %v", claim.Finalizers)
	}
	w.must(nil, w.c.CoreV1().Pods("default").Delete(ctx, "p", metav1.DeleteOptions{}))
	w.must(nil, w.c.CoreV1().Pods("default").Delete(ctx, "p", metav1.DeleteOptions{GracePeriodSeconds: new(int64)}))
	eventually(w.t, "the disk is detached and nothing says otherwise", func(ctx context.Context) (bool, error) {
		list, err := w.c.StorageV1().VolumeAttachments().List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		node, err := w.c.CoreV1().Nodes().Get(ctx, "node-1", metav1.GetOptions{})
		return len(list.Items) == 0 && len(w.driver.Attached(w.handle)) == 0 && len(node.Status.VolumesAttached) == 0 && len(node.Status.VolumesInUse) == 0, err
	})
}

func (w *volumeWalk) goes() {
	eventually(w.t, "claim, volume and disk are gone", func(ctx context.Context) (bool, error) {
		_, err := w.c.CoreV1().PersistentVolumeClaims("default").Get(ctx, "data", metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			return false, err
		}
		_, err = w.c.CoreV1().PersistentVolumes().Get(ctx, w.volume, metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			return false, err
		}
		return w.driver.Disks() == 0, nil
	})
}
