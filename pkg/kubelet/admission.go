package kubelet

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/resource"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"coracle/pkg/kubelet/lifecycle"
	"coracle/pkg/kubelet/node"
)

// labelsTimeout bounds the look at the node's labels for a pod that wants some.
const labelsTimeout = 5 * time.Second

// admit says why the node cannot take a pod that it sees for the first time;
// nil means it can. The scheduler asked the same, but others may bind pods
// too, and two schedulers may have used the same room. k.mu must be held, so
// that two pods are not weighed at once.
func (k *Kubelet) admit(pod *corev1.Pod) *lifecycle.Verdict {
	if pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed ||
		pod.Status.StartTime != nil {
		return nil // already taken once, or over
	}
	if v := forbiddenSysctl(pod); v != nil {
		return v
	}
	if err := k.pressure.Load().Refuses(pod, lifecycle.QOS(pod)); err != nil {
		return &lifecycle.Verdict{Reason: "Evicted", Message: err.Error()}
	}
	if v := portTaken(pod, k.claims(pod.UID)); v != nil {
		return v
	}
	return fits(pod, k.claims(pod.UID), k.allocatable())
}

// hostPort is a port of the node that a pod wants for itself.
type hostPort struct {
	protocol corev1.Protocol
	port     int32
}

// hostPorts are the node's ports that a pod wants, by the addresses on which it
// wants them; no address means all. Init containers have ports only while they
// run beside the others.
func hostPorts(pod *corev1.Pod) map[hostPort][]string {
	out := map[hostPort][]string{}
	add := func(c *corev1.Container) {
		for _, p := range c.Ports {
			if p.HostPort == 0 {
				continue
			}
			at, ip := hostPort{p.Protocol, p.HostPort}, p.HostIP
			if at.protocol == "" {
				at.protocol = corev1.ProtocolTCP
			}
			if ip == "0.0.0.0" || ip == "::" {
				ip = ""
			}
			out[at] = append(out[at], ip)
		}
	}
	for i := range pod.Spec.Containers {
		add(&pod.Spec.Containers[i])
	}
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			add(c)
		}
	}
	return out
}

// portTaken refuses a pod that wants a port of the node which another has.
func portTaken(pod *corev1.Pod, others []*corev1.Pod) *lifecycle.Verdict {
	wanted := hostPorts(pod)
	if len(wanted) == 0 {
		return nil
	}
	for _, other := range others {
		for at, theirs := range hostPorts(other) {
			for _, ip := range wanted[at] {
				if ip == "" || slices.Contains(theirs, "") || slices.Contains(theirs, ip) {
					return &lifecycle.Verdict{
						Reason:  "NodePorts",
						Message: "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
					}
				}
			}
		}
	}
	return nil
}

// fits weighs the pod's requests against what the others leave.
func fits(pod *corev1.Pod, others []*corev1.Pod, allocatable corev1.ResourceList) *lifecycle.Verdict {
	if room := allocatable.Pods(); !room.IsZero() && int64(len(others)) >= room.Value() {
		return outOf(corev1.ResourcePods, 1, int64(len(others)), room.Value())
	}
	wanted := resource.PodRequests(pod, resource.PodResourcesOptions{})
	names := make([]corev1.ResourceName, 0, len(wanted))
	for name, q := range wanted {
		if !q.IsZero() {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	used := corev1.ResourceList{}
	for _, other := range others {
		addRequests(used, other)
	}
	for _, name := range names {
		room, known := allocatable[name]
		if !known && (name == corev1.ResourceEphemeralStorage || name == corev1.ResourceMemory || node.Extended(name)) {
			continue // could not be measured, or is the scheduler's alone to count
		}
		want, have := wanted[name], used[name]
		sum := have.DeepCopy()
		sum.Add(want)
		if sum.Cmp(room) > 0 {
			if name == corev1.ResourceCPU {
				return outOf(name, want.MilliValue(), have.MilliValue(), room.MilliValue())
			}
			return outOf(name, want.Value(), have.Value(), room.Value())
		}
	}
	return nil
}

// addRequests adds what a pod was allocated to sums.
func addRequests(sums corev1.ResourceList, pod *corev1.Pod) {
	for name, q := range resource.PodRequests(pod, resource.PodResourcesOptions{}) {
		sum := sums[name]
		sum.Add(q)
		sums[name] = sum
	}
}

func outOf(name corev1.ResourceName, requested, used, capacity int64) *lifecycle.Verdict {
	return &lifecycle.Verdict{
		Reason: "OutOf" + string(name),
		Message: fmt.Sprintf("Pod was rejected: Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d",
			name, requested, used, capacity),
	}
}

// safeSysctls may be set by any pod: they are namespaced, and bounded by the
// pod's own limits.
func safeSysctls() []string {
	return []string{
		"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range",
		"net.ipv4.ip_unprivileged_port_start", "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time",
		"net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
	}
}

func forbiddenSysctl(pod *corev1.Pod) *lifecycle.Verdict {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	for _, s := range pod.Spec.SecurityContext.Sysctls {
		name := strings.ReplaceAll(s.Name, "/", ".")
		forbidden := !slices.Contains(safeSysctls(), name) ||
			pod.Spec.HostNetwork && strings.HasPrefix(name, "net.") || pod.Spec.HostIPC && strings.HasPrefix(name, "kernel.")
		if forbidden {
			return &lifecycle.Verdict{Reason: "SysctlForbidden", Message: fmt.Sprintf("Pod was rejected: forbidden sysctl: %q not allowlisted", s.Name)}
		}
	}
	return nil
}

// checkAffinity refuses a pod whose node selector does not match the node. It
// asks the API server for the labels, so it is not for the loop.
func (k *Kubelet) checkAffinity(ctx context.Context, pod *corev1.Pod) *lifecycle.Verdict {
	affinity := pod.Spec.Affinity
	if len(pod.Spec.NodeSelector) == 0 && (affinity == nil || affinity.NodeAffinity == nil) || pod.Status.StartTime != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, labelsTimeout)
	defer cancel()
	node, err := k.cfg.Client.CoreV1().Nodes().Get(ctx, k.cfg.NodeName, metav1.GetOptions{})
	if err != nil {
		return nil // cannot be judged now; the scheduler has judged it
	}
	if ok, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(node); err != nil || ok {
		return nil
	}
	return &lifecycle.Verdict{
		Reason:  "NodeAffinity",
		Message: "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
	}
}
