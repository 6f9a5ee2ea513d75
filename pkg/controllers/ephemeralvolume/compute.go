package ephemeralvolume

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/volumebinding"
)

// refusal says why a volume of a pod cannot have its claim.
type refusal struct{ volume, message string }

// missing are the claims that a pod's ephemeral volumes need and that are not
// there yet. have returns the claim of a name, nil if there is none. The first
// volume whose name another claim has taken ends the list.
func missing(pod *corev1.Pod, have func(name string) *corev1.PersistentVolumeClaim) (claims []*corev1.PersistentVolumeClaim, refused *refusal) {
	if pod.DeletionTimestamp != nil {
		return nil, nil
	}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.Ephemeral == nil || v.Ephemeral.VolumeClaimTemplate == nil {
			continue
		}
		name := volumebinding.EphemeralName(pod, v.Name)
		switch claim := have(name); {
		case claim == nil:
			claims = append(claims, claimOf(pod, name, v.Ephemeral.VolumeClaimTemplate))
		case !metav1.IsControlledBy(claim, pod):
			return claims, &refusal{v.Name, fmt.Sprintf("PVC %s/%s was not created for pod %s/%s (pod is not owner)",
				claim.Namespace, claim.Name, pod.Namespace, pod.Name)}
		}
	}
	return claims, nil
}

// claimOf is a claim that lives as long as its pod.
func claimOf(pod *corev1.Pod, name string, template *corev1.PersistentVolumeClaimTemplate) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: pod.Namespace, Annotations: template.Annotations, Labels: template.Labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(pod, corev1.SchemeGroupVersion.WithKind("Pod"))},
		},
		Spec: template.Spec,
	}
}
