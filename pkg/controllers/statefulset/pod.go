package statefulset

import (
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"coracle/pkg/controllers/podset"
)

// revisionLabel is the pods' label with the name of their revision.
const revisionLabel = appsv1.StatefulSetRevisionLabel

// start is the ordinal of a set's first pod.
func start(set *appsv1.StatefulSet) int {
	if set.Spec.Ordinals == nil {
		return 0
	}
	return int(set.Spec.Ordinals.Start)
}

func podName(set *appsv1.StatefulSet, ordinal int) string {
	return set.Name + "-" + strconv.Itoa(ordinal)
}

// ordinalOf returns the ordinal that a pod's name says, or -1 when it is not a
// name of this set's pods.
func ordinalOf(set *appsv1.StatefulSet, name string) int {
	digits, ok := strings.CutPrefix(name, set.Name+"-")
	if !ok {
		return -1
	}
	n, err := strconv.ParseInt(digits, 10, 32)
	// "web-01" and "web-+1" are no names that this set gives.
	if err != nil || n < 0 || podName(set, int(n)) != name {
		return -1
	}
	return int(n)
}

// versionFor is the revision that a new pod of an ordinal gets: below the
// partition the current one, so that a pod lost during an update comes back as
// it was.
func versionFor(o observed, ordinal int) version {
	u := o.set.Spec.UpdateStrategy
	if u.Type != appsv1.RollingUpdateStatefulSetStrategyType {
		return o.update
	}
	bound := int(o.set.Status.CurrentReplicas)
	if u.RollingUpdate != nil {
		bound = 0
		if u.RollingUpdate.Partition != nil {
			bound = int(*u.RollingUpdate.Partition)
		}
	}
	if ordinal < start(o.set)+bound {
		return o.current
	}
	return o.update
}

// podFor makes the pod of an ordinal, with its stable name, its place in the
// governing Service's domain and its own claims.
func podFor(o observed, ordinal int) *corev1.Pod {
	v := versionFor(o, ordinal)
	pod := podset.FromTemplate(v.template, o.set, kind)
	pod.GenerateName, pod.Name = "", podName(o.set, ordinal)
	setIdentity(pod, ordinal)
	pod.Labels[revisionLabel] = v.name
	pod.Spec.Hostname, pod.Spec.Subdomain = pod.Name, o.set.Spec.ServiceName
	setVolumes(o.set, pod, ordinal)
	return pod
}

func setIdentity(pod *corev1.Pod, ordinal int) {
	if pod.Labels == nil {
		pod.Labels = map[string]string{}
	}
	pod.Labels[appsv1.StatefulSetPodNameLabel] = pod.Name
	pod.Labels[appsv1.PodIndexLabel] = strconv.Itoa(ordinal)
}

// setVolumes puts the ordinal's claims in place of what the template has
// under the same names.
func setVolumes(set *appsv1.StatefulSet, pod *corev1.Pod, ordinal int) {
	volumes := make([]corev1.Volume, 0, len(set.Spec.VolumeClaimTemplates)+len(pod.Spec.Volumes))
	for i := range set.Spec.VolumeClaimTemplates {
		name := set.Spec.VolumeClaimTemplates[i].Name
		volumes = append(volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claimName(set, name, ordinal)},
		}})
	}
	for _, v := range pod.Spec.Volumes {
		if !slices.ContainsFunc(volumes, func(have corev1.Volume) bool { return have.Name == v.Name }) {
			volumes = append(volumes, v)
		}
	}
	pod.Spec.Volumes = volumes
}

// identified returns pod with the identity and claims of its ordinal, or nil
// when it has them.
func identified(set *appsv1.StatefulSet, pod *corev1.Pod, ordinal int) *corev1.Pod {
	named := pod.Labels[appsv1.StatefulSetPodNameLabel] == pod.Name && pod.Labels[appsv1.PodIndexLabel] == strconv.Itoa(ordinal)
	if named && hasClaims(set, pod, ordinal) {
		return nil
	}
	out := pod.DeepCopy()
	setIdentity(out, ordinal)
	if !hasClaims(set, pod, ordinal) {
		setVolumes(set, out, ordinal)
	}
	return out
}

func hasClaims(set *appsv1.StatefulSet, pod *corev1.Pod, ordinal int) bool {
	for i := range set.Spec.VolumeClaimTemplates {
		name := set.Spec.VolumeClaimTemplates[i].Name
		if !slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool {
			return v.Name == name && v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == claimName(set, name, ordinal)
		}) {
			return false
		}
	}
	return true
}
