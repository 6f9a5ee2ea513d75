package kubelet

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestPortTaken: who binds pods past the scheduler may not give a node's port
// to two of them.
func TestPortTaken(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	pod := func(ports ...corev1.ContainerPort) *corev1.Pod {
		return &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Ports: ports}}}}
	}
	sidecar := func(policy *corev1.ContainerRestartPolicy, p corev1.ContainerPort) *corev1.Pod {
		return &corev1.Pod{Spec: corev1.PodSpec{InitContainers: []corev1.Container{{RestartPolicy: policy, Ports: []corev1.ContainerPort{p}}}}}
	}
	web := corev1.ContainerPort{ContainerPort: 80, HostPort: 8080}
	at := func(ip string) corev1.ContainerPort { return corev1.ContainerPort{HostPort: 8080, HostIP: ip} }
	for _, c := range []struct {
		name       string
		pod, other *corev1.Pod
		taken      bool
	}{
		{"the same port", pod(web), pod(web), true},
		{"no port of the node", pod(corev1.ContainerPort{ContainerPort: 80}), pod(corev1.ContainerPort{ContainerPort: 80}), false},
		{"another port", pod(corev1.ContainerPort{HostPort: 8081}), pod(web), false},
		{"another protocol", pod(corev1.ContainerPort{HostPort: 8080, Protocol: corev1.ProtocolUDP}), pod(web), false},
		{"TCP is the default", pod(corev1.ContainerPort{HostPort: 8080, Protocol: corev1.ProtocolTCP}), pod(web), true},
		{"other addresses", pod(at("127.0.0.1")), pod(at("10.0.0.1")), false},
		{"one address", pod(at("10.0.0.1")), pod(at("10.0.0.1")), true},
		{"all addresses hold one", pod(at("10.0.0.1")), pod(at("0.0.0.0")), true},
		{"one address is of all", pod(web), pod(at("10.0.0.1")), true},
		{"a sidecar's port", pod(web), sidecar(&always, web), true},
		{"an init container's port is free again", pod(web), sidecar(nil, web), false},
	} {
		v := portTaken(c.pod, []*corev1.Pod{pod(), c.other})
		if (v != nil) != c.taken {
			t.Errorf("%s: %v, want taken %v", c.name, v, c.taken)
		}
		if v != nil && v.Reason != "NodePorts" {
			t.Errorf("%s: the reason is %s", c.name, v.Reason)
		}
	}
}
