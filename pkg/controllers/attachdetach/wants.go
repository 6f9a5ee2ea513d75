package attachdetach

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/attachment"
	"coracle/pkg/volumebinding"
)

// lookup finds what a pod's volumes lead to; nil for what is not there.
type lookup struct {
	claim  func(namespace, name string) (*corev1.PersistentVolumeClaim, error)
	volume func(name string) (*corev1.PersistentVolume, error)
	// attached says if volumes of a driver are attached to nodes at all.
	attached func(driver string) bool
}

// volumesOf are the volumes that must be attached to the pod's node. A pod
// without a node needs none, nor one whose containers have all ended. Volumes
// that a driver makes with the pod, inline, are never attached.
func volumesOf(pod *corev1.Pod, l lookup) ([]*corev1.PersistentVolume, error) {
	if pod.Spec.NodeName == "" || over(pod) {
		return nil, nil
	}
	var out []*corev1.PersistentVolume
	for i := range pod.Spec.Volumes {
		name, own := "", false
		switch v := &pod.Spec.Volumes[i]; {
		case v.PersistentVolumeClaim != nil:
			name = v.PersistentVolumeClaim.ClaimName
		case v.Ephemeral != nil:
			name, own = volumebinding.EphemeralName(pod, v.Name), true
		default:
			continue
		}
		claim, err := l.claim(pod.Namespace, name)
		if err != nil {
			return nil, err
		}
		if !usable(claim) || own && !metav1.IsControlledBy(claim, pod) {
			continue
		}
		volume, err := l.volume(claim.Spec.VolumeName)
		if err != nil {
			return nil, err
		}
		if gives(volume, claim.UID) && l.attached(volume.Spec.CSI.Driver) {
			out = append(out, volume)
		}
	}
	return out, nil
}

// usable says that the claim has a volume.
func usable(claim *corev1.PersistentVolumeClaim) bool {
	return claim != nil && claim.Status.Phase == corev1.ClaimBound && claim.Spec.VolumeName != ""
}

// gives says that the volume is a CSI driver's and the claim's own.
func gives(volume *corev1.PersistentVolume, claim types.UID) bool {
	return volume != nil && volume.Spec.CSI != nil && volume.Spec.ClaimRef != nil && volume.Spec.ClaimRef.UID == claim
}

// over says that no container of the pod runs any more.
func over(pod *corev1.Pod) bool {
	s := &pod.Status
	if s.Phase == corev1.PodFailed || s.Phase == corev1.PodSucceeded {
		return true
	}
	runs := func(c corev1.ContainerStatus) bool { return c.State.Terminated == nil && c.State.Waiting == nil }
	return pod.DeletionTimestamp != nil && !slices.ContainsFunc(slices.Concat(s.InitContainerStatuses, s.ContainerStatuses, s.EphemeralContainerStatuses), runs)
}

// shared says that a volume may be attached to many nodes at once. Without
// access modes nobody knows, and the attacher decides.
func shared(volume *corev1.PersistentVolume) bool {
	modes := volume.Spec.AccessModes
	return len(modes) == 0 || slices.Contains(modes, corev1.ReadWriteMany) || slices.Contains(modes, corev1.ReadOnlyMany)
}

// nameOf is the name of the volume's attachment to node.
func nameOf(volume *corev1.PersistentVolume, node string) string {
	return attachment.Name(volume.Spec.CSI.Driver, volume.Spec.CSI.VolumeHandle, node)
}

// want is that a volume be attached to a node.
type want struct {
	node   string
	volume *corev1.PersistentVolume
	pods   []*corev1.Pod // that need it, the oldest first; at least one
}

// gather brings the pods that need a volume together, by node. The node whose
// pod is the oldest comes first.
func gather(volumes []*corev1.PersistentVolume, podsOf func(*corev1.PersistentVolume) []*corev1.Pod) []want {
	var out []want
	for _, volume := range volumes {
		for _, pod := range podsOf(volume) {
			i := slices.IndexFunc(out, func(w want) bool { return w.node == pod.Spec.NodeName })
			if i < 0 {
				i = len(out)
				out = append(out, want{node: pod.Spec.NodeName, volume: volume})
			}
			if !slices.Contains(out[i].pods, pod) {
				out[i].pods = append(out[i].pods, pod)
			}
		}
	}
	for i := range out {
		slices.SortFunc(out[i].pods, older)
	}
	slices.SortFunc(out, func(a, b want) int { return older(a.pods[0], b.pods[0]) })
	return out
}

func older(a, b *corev1.Pod) int {
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}
