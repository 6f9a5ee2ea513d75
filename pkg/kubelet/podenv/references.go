package podenv

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// References names the ConfigMaps and Secrets that the environments of the
// pod's containers are made from, sorted, each once. Optional ones are among
// them; the caller leaves out of Input those that do not exist.
func References(pod *corev1.Pod) (configMaps, secrets []string) {
	cms, secs := make(map[string]bool), make(map[string]bool)
	visit := func(from []corev1.EnvFromSource, env []corev1.EnvVar) {
		for i := range from {
			if ref := from[i].ConfigMapRef; ref != nil {
				cms[ref.Name] = true
			}
			if ref := from[i].SecretRef; ref != nil {
				secs[ref.Name] = true
			}
		}
		for i := range env {
			src := env[i].ValueFrom
			if src == nil {
				continue
			}
			if src.ConfigMapKeyRef != nil {
				cms[src.ConfigMapKeyRef.Name] = true
			}
			if src.SecretKeyRef != nil {
				secs[src.SecretKeyRef.Name] = true
			}
		}
	}
	for i := range pod.Spec.InitContainers {
		visit(pod.Spec.InitContainers[i].EnvFrom, pod.Spec.InitContainers[i].Env)
	}
	for i := range pod.Spec.Containers {
		visit(pod.Spec.Containers[i].EnvFrom, pod.Spec.Containers[i].Env)
	}
	for i := range pod.Spec.EphemeralContainers {
		c := &pod.Spec.EphemeralContainers[i].EphemeralContainerCommon
		visit(c.EnvFrom, c.Env)
	}
	return slices.Sorted(maps.Keys(cms)), slices.Sorted(maps.Keys(secs))
}
