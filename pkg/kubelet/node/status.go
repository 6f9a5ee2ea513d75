package node

import (
	"net"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// maxImages bounds the images listed in a Node's status.
const maxImages = 50

func quantity(n int64) *resource.Quantity { return resource.NewQuantity(n, resource.DecimalSI) }

// Extended tells of a resource that somebody else than Kubernetes named. The
// agent does not measure those: who writes them into a Node's status counts
// them, and what the agent has not yet heard of, or what a cluster has as a
// whole, is no reason to refuse a pod.
func Extended(name corev1.ResourceName) bool {
	return strings.Contains(string(name), "/") && !strings.Contains(string(name), corev1.ResourceDefaultNamespacePrefix)
}

// status builds the Node's status. What others have written into old, such as
// the network's condition and extended resources, is kept.
func (m *Manager) status(old *corev1.NodeStatus) corev1.NodeStatus {
	var s corev1.NodeStatus
	if old != nil {
		s = *old.DeepCopy()
	}
	m.mu.Lock()
	h := m.health
	m.mu.Unlock()
	extended := s.Capacity
	s.Capacity, s.Allocatable = m.Capacity(), m.Allocatable()
	for name, q := range extended {
		if _, own := s.Capacity[name]; !own && Extended(name) {
			s.Capacity[name], s.Allocatable[name] = q, q
		}
	}
	if m.cfg.VolumesInUse != nil {
		if names, known := m.cfg.VolumesInUse(); known {
			s.VolumesInUse = names
		}
	}
	s.Addresses = m.addresses()
	if m.cfg.Port > 0 {
		s.DaemonEndpoints.KubeletEndpoint.Port = m.cfg.Port
	}
	s.NodeInfo = m.info
	s.NodeInfo.ContainerRuntimeVersion = h.Runtime
	s.Images, s.RuntimeHandlers = h.Images, h.Handlers
	if len(s.Images) > maxImages {
		s.Images = s.Images[:maxImages]
	}
	now := metav1.NewTime(m.cfg.Clock.Now())
	for _, c := range conditions(h) {
		c.LastHeartbeatTime, c.LastTransitionTime = now, now
		s.Conditions = with(s.Conditions, c)
	}
	return s
}

func (m *Manager) addresses() []corev1.NodeAddress {
	var out []corev1.NodeAddress
	for _, ip := range m.cfg.IPs {
		if net.ParseIP(ip) != nil {
			out = append(out, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip})
		}
	}
	return append(out, corev1.NodeAddress{Type: corev1.NodeHostName, Address: m.cfg.Name})
}

// with puts a condition into a list, dating its transition only if it turned.
func with(list []corev1.NodeCondition, c corev1.NodeCondition) []corev1.NodeCondition {
	for i := range list {
		if list[i].Type != c.Type {
			continue
		}
		if list[i].Status == c.Status {
			c.LastTransitionTime = list[i].LastTransitionTime
		}
		list[i] = c
		return list
	}
	return append(list, c)
}

// conditions are those the agent owns, in the order users are used to.
func conditions(h Health) []corev1.NodeCondition {
	ready := corev1.NodeCondition{
		Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", Message: "kubelet is posting ready status",
	}
	if h.Err != nil {
		ready.Status, ready.Reason, ready.Message = corev1.ConditionFalse, "KubeletNotReady", h.Err.Error()
	}
	return []corev1.NodeCondition{
		pressure(corev1.NodeMemoryPressure, h.MemoryPressure, "KubeletHasInsufficientMemory", "kubelet has insufficient memory available",
			"KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
		pressure(corev1.NodeDiskPressure, h.DiskPressure, "KubeletHasDiskPressure", "kubelet has disk pressure",
			"KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
		pressure(corev1.NodePIDPressure, h.PIDPressure, "KubeletHasInsufficientPID", "kubelet has insufficient PID available",
			"KubeletHasSufficientPID", "kubelet has sufficient PID available"),
		ready,
	}
}

func pressure(t corev1.NodeConditionType, is bool, badReason, badMessage, goodReason, goodMessage string) corev1.NodeCondition {
	if is {
		return corev1.NodeCondition{Type: t, Status: corev1.ConditionTrue, Reason: badReason, Message: badMessage}
	}
	return corev1.NodeCondition{Type: t, Status: corev1.ConditionFalse, Reason: goodReason, Message: goodMessage}
}
