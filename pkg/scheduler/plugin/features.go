package plugin

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/nodedeclaredfeatures/features"
	"k8s.io/component-helpers/nodedeclaredfeatures/types"
)

// requiredFeatures are the declared features of nodes that a pod needs; nil
// for most pods.
func requiredFeatures(pod *corev1.Pod) []string {
	info := types.PodInfo{Spec: &pod.Spec}
	var names []string
	for _, f := range features.AllFeatures {
		if f.InferForScheduling(&info) {
			names = append(names, f.Name())
		}
	}
	return names
}
