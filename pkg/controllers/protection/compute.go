package protection

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// verdict is what to do about an object's finalizer.
type verdict int

const (
	leave   verdict = iota
	protect         // it came before its protection: add the finalizer
	release         // it is being deleted: take the finalizer off unless it is in use
)

// decide says what an object may need by its metadata alone.
func decide(obj metav1.Object, finalizer string) verdict {
	has := slices.Contains(obj.GetFinalizers(), finalizer)
	switch deleting := obj.GetDeletionTimestamp() != nil; {
	case deleting && has:
		return release
	case !deleting && !has:
		return protect
	}
	return leave
}

// toggled are an object's finalizers with one more or one less.
func toggled(obj metav1.Object, finalizer string) []string {
	left := slices.DeleteFunc(slices.Clone(obj.GetFinalizers()), func(f string) bool { return f == finalizer })
	if len(left) == len(obj.GetFinalizers()) {
		left = append(left, finalizer)
	}
	return left
}

// claimsOf are the names of the claims that a pod's volumes need.
func claimsOf(pod *corev1.Pod) []string {
	var names []string
	for i := range pod.Spec.Volumes {
		switch v := &pod.Spec.Volumes[i]; {
		case v.PersistentVolumeClaim != nil:
			names = append(names, v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			names = append(names, pod.Name+"-"+v.Name)
		}
	}
	return names
}

// holds says that pod keeps claim from going. A pod without a node does not:
// no node's agent starts a pod whose claim is being deleted.
func holds(pod *corev1.Pod, claim *corev1.PersistentVolumeClaim) bool {
	if pod.Namespace != claim.Namespace || pod.Spec.NodeName == "" {
		return false
	}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == claim.Name {
			return true
		}
		if v.Ephemeral != nil && pod.Name+"-"+v.Name == claim.Name && metav1.IsControlledBy(claim, pod) && !shutDown(pod) {
			return true
		}
	}
	return false
}

// shutDown says that the pod's containers have ended, or that somebody has
// deleted it by force.
func shutDown(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp != nil && pod.DeletionGracePeriodSeconds != nil && *pod.DeletionGracePeriodSeconds == 0
}

// groupOf is the name of the group that the pod is a member of, and holds until
// it has ended; empty for none.
func groupOf(pod *corev1.Pod) string {
	over := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
	if g := pod.Spec.SchedulingGroup; g != nil && g.PodGroupName != nil && !over {
		return *g.PodGroupName
	}
	return ""
}

// bound says that a claim has the volume.
func bound(volume *corev1.PersistentVolume) bool { return volume.Status.Phase == corev1.VolumeBound }

// classesOf are the names of the volume attributes classes that a claim has,
// or is on its way to.
func classesOf(claim *corev1.PersistentVolumeClaim) []string {
	var names []string
	for _, name := range []*string{claim.Spec.VolumeAttributesClassName, claim.Status.CurrentVolumeAttributesClassName} {
		if name != nil && *name != "" {
			names = append(names, *name)
		}
	}
	if m := claim.Status.ModifyVolumeStatus; m != nil && m.TargetVolumeAttributesClassName != "" {
		names = append(names, m.TargetVolumeAttributesClassName)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// classOf is the name of a volume's attributes class, if it has one.
func classOf(volume *corev1.PersistentVolume) []string {
	if name := volume.Spec.VolumeAttributesClassName; name != nil && *name != "" {
		return []string{*name}
	}
	return nil
}
