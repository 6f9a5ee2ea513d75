package criconfig

import (
	"maps"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"coracle/pkg/kubelet/cri"
	"coracle/pkg/kubelet/lifecycle"
)

// SandboxInput is what the configuration of a sandbox depends on.
type SandboxInput struct {
	Pod          *corev1.Pod
	Attempt      uint32
	Hostname     string // empty for a pod on the node's network
	DNS          *runtimeapi.DNSConfig
	LogRoot      string // folder of all pods' logs
	CgroupParent string // empty leaves the choice to the runtime
	SeccompRoot  string // folder of localhost seccomp profiles
}

// LogDir returns the folder of a pod's logs below root.
func LogDir(root string, pod *corev1.Pod) string {
	return filepath.Join(root, pod.Namespace+"_"+pod.Name+"_"+string(pod.UID))
}

// Sandbox translates the pod as a whole.
func Sandbox(in SandboxInput) *runtimeapi.PodSandboxConfig {
	pod := in.Pod
	config := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: pod.Name, Namespace: pod.Namespace, Uid: string(pod.UID), Attempt: in.Attempt},
		Hostname:     in.Hostname,
		LogDirectory: LogDir(in.LogRoot, pod),
		DnsConfig:    in.DNS,
		Labels:       sandboxLabels(pod),
		Annotations:  maps.Clone(pod.Annotations),
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent:    in.CgroupParent,
			SecurityContext: sandboxSecurity(in),
			Sysctls:         sysctls(pod),
		},
	}
	if !pod.Spec.HostNetwork {
		config.PortMappings = portMappings(pod)
	}
	return config
}

func sandboxLabels(pod *corev1.Pod) map[string]string {
	labels := maps.Clone(pod.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[cri.LabelPodName] = pod.Name
	labels[cri.LabelPodNamespace] = pod.Namespace
	labels[cri.LabelPodUID] = string(pod.UID)
	return labels
}

func sandboxSecurity(in SandboxInput) *runtimeapi.LinuxSandboxSecurityContext {
	pod := in.Pod
	out := &runtimeapi.LinuxSandboxSecurityContext{
		NamespaceOptions: namespaces(pod, ""),
		Seccomp:          &runtimeapi.SecurityProfile{ProfileType: sandboxSeccomp(pod)},
	}
	for _, c := range lifecycle.Containers(pod) {
		if sc := c.SecurityContext; sc != nil && sc.Privileged != nil && *sc.Privileged {
			out.Privileged = true
		}
	}
	sc := pod.Spec.SecurityContext
	if sc == nil {
		return out
	}
	if sc.RunAsUser != nil {
		out.RunAsUser = &runtimeapi.Int64Value{Value: *sc.RunAsUser}
		if sc.RunAsGroup != nil { // valid only beside a user
			out.RunAsGroup = &runtimeapi.Int64Value{Value: *sc.RunAsGroup}
		}
	}
	out.SupplementalGroups, out.SupplementalGroupsPolicy = groups(pod)
	out.SelinuxOptions = selinux(sc.SELinuxOptions)
	return out
}

// sandboxSeccomp confines the sandbox's own process, which does nothing but
// sleep, where any container of the pod is confined: with a shared process
// namespace it would be a way around their filters. Where none is, a filter
// would only cost the time to compile it, 30 to 100 ms of each pod's start.
func sandboxSeccomp(pod *corev1.Pod) runtimeapi.SecurityProfile_ProfileType {
	confined := func(p *corev1.SeccompProfile) bool { return p != nil && p.Type != corev1.SeccompProfileTypeUnconfined }
	if sc := pod.Spec.SecurityContext; sc != nil && confined(sc.SeccompProfile) {
		return runtimeapi.SecurityProfile_RuntimeDefault
	}
	for _, c := range lifecycle.Containers(pod) {
		if sc := c.SecurityContext; sc != nil && confined(sc.SeccompProfile) {
			return runtimeapi.SecurityProfile_RuntimeDefault
		}
	}
	return runtimeapi.SecurityProfile_Unconfined
}

// namespaces says which namespaces of the node a pod shares. target is the
// container whose processes an ephemeral container wants to see, if any.
func namespaces(pod *corev1.Pod, target string) *runtimeapi.NamespaceOption {
	out := &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}
	if pod.Spec.HostNetwork {
		out.Network = runtimeapi.NamespaceMode_NODE
	}
	if pod.Spec.HostIPC {
		out.Ipc = runtimeapi.NamespaceMode_NODE
	}
	switch {
	case pod.Spec.HostPID:
		out.Pid = runtimeapi.NamespaceMode_NODE
	case pod.Spec.ShareProcessNamespace != nil && *pod.Spec.ShareProcessNamespace:
		out.Pid = runtimeapi.NamespaceMode_POD
	case target != "":
		out.Pid, out.TargetId = runtimeapi.NamespaceMode_TARGET, target
	}
	return out
}

// groups are the supplemental groups of every process of the pod; the group of
// its volumes is one of them.
func groups(pod *corev1.Pod) ([]int64, runtimeapi.SupplementalGroupsPolicy) {
	sc := pod.Spec.SecurityContext
	if sc == nil {
		return nil, runtimeapi.SupplementalGroupsPolicy_Merge
	}
	out := append([]int64(nil), sc.SupplementalGroups...)
	if sc.FSGroup != nil {
		out = append(out, *sc.FSGroup)
	}
	if sc.SupplementalGroupsPolicy != nil && *sc.SupplementalGroupsPolicy == corev1.SupplementalGroupsPolicyStrict {
		return out, runtimeapi.SupplementalGroupsPolicy_Strict
	}
	return out, runtimeapi.SupplementalGroupsPolicy_Merge
}

func sysctls(pod *corev1.Pod) map[string]string {
	if pod.Spec.SecurityContext == nil || len(pod.Spec.SecurityContext.Sysctls) == 0 {
		return nil
	}
	out := map[string]string{}
	for _, s := range pod.Spec.SecurityContext.Sysctls {
		out[strings.ReplaceAll(s.Name, "/", ".")] = s.Value
	}
	return out
}

func portMappings(pod *corev1.Pod) []*runtimeapi.PortMapping {
	var out []*runtimeapi.PortMapping
	for _, c := range lifecycle.Containers(pod) {
		for _, p := range c.Ports {
			if p.HostPort > 0 {
				out = append(out, &runtimeapi.PortMapping{
					Protocol: protocol(p.Protocol), ContainerPort: p.ContainerPort, HostPort: p.HostPort, HostIp: p.HostIP,
				})
			}
		}
	}
	return out
}

func protocol(p corev1.Protocol) runtimeapi.Protocol {
	switch p {
	case corev1.ProtocolUDP:
		return runtimeapi.Protocol_UDP
	case corev1.ProtocolSCTP:
		return runtimeapi.Protocol_SCTP
	}
	return runtimeapi.Protocol_TCP
}
