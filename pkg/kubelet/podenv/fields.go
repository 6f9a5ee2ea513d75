package podenv

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Addresses are the addresses that field references can ask for, the primary
// one of each list first.
type Addresses struct {
	PodIPs, HostIPs []string
}

// Field gives the value of a downward API field reference. All fields that
// environment variables or volumes may name are known; the API server has
// already refused those that the place of the reference does not allow.
func Field(pod *corev1.Pod, addr Addresses, path string) (string, error) {
	if name, key, ok := subscript(path); ok {
		switch name {
		case "metadata.labels":
			return pod.Labels[key], nil
		case "metadata.annotations":
			return pod.Annotations[key], nil
		}
		return "", fmt.Errorf("field %q cannot be read by key", path)
	}
	switch path {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "metadata.labels":
		return formatMap(pod.Labels), nil
	case "metadata.annotations":
		return formatMap(pod.Annotations), nil
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.podIP":
		return first(addr.PodIPs), nil
	case "status.podIPs":
		return strings.Join(addr.PodIPs, ","), nil
	case "status.hostIP":
		return first(addr.HostIPs), nil
	case "status.hostIPs":
		return strings.Join(addr.HostIPs, ","), nil
	}
	return "", fmt.Errorf("field %q is not one that a pod can be told", path)
}

// subscript splits "a.b['key']" into "a.b" and "key".
func subscript(path string) (name, key string, ok bool) {
	rest, found := strings.CutSuffix(path, "']")
	if !found {
		return "", "", false
	}
	name, key, ok = strings.Cut(rest, "['")
	return name, key, ok && name != ""
}

// formatMap writes a map as lines key="value" in the order of the keys,
// without a newline at the end.
func formatMap(m map[string]string) string {
	lines := make([]string, 0, len(m))
	for k, v := range m {
		lines = append(lines, k+"="+strconv.Quote(v))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}
