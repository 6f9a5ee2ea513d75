package volume

import corev1 "k8s.io/api/core/v1"

// references names the objects that the pod's volumes show.
func references(pod *corev1.Pod) map[objectKey]bool {
	keys := make(map[objectKey]bool)
	add := func(resource resourceName, name string) {
		keys[objectKey{resource, pod.Namespace, name}] = true
	}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		switch {
		case v.ConfigMap != nil:
			add(configMaps, v.ConfigMap.Name)
		case v.Secret != nil:
			add(secrets, v.Secret.SecretName)
		case v.Projected != nil:
			for j := range v.Projected.Sources {
				src := &v.Projected.Sources[j]
				if src.ConfigMap != nil {
					add(configMaps, src.ConfigMap.Name)
				}
				if src.Secret != nil {
					add(secrets, src.Secret.Name)
				}
			}
		}
	}
	return keys
}
