package scheduler

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	resourcehelper "k8s.io/component-helpers/resource"
	schedulinghelper "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"coracle/pkg/scheduler/plugin"
)

// What a pod without requests is taken to use when nodes are compared.
const (
	floorMilliCPU = 100
	floorMemory   = 200 << 20
)

// recordPod makes the compact record that plugins see.
func recordPod(pod *corev1.Pod) *plugin.Pod {
	p := &plugin.Pod{
		UID: pod.UID, Namespace: pod.Namespace, Name: pod.Name,
		Requests:    plugin.ResourcesOf(resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{UseStatusResources: true})),
		NodeName:    pod.Spec.NodeName,
		Tolerations: pod.Spec.Tolerations,
		Required:    nodeaffinity.GetRequiredNodeAffinity(pod),
		Owner:       owner(pod),
		Priority:    schedulinghelper.PodPriority(pod),
	}
	p.Weight = plugin.Resources{MilliCPU: max(p.Requests.MilliCPU, floorMilliCPU), Memory: max(p.Requests.Memory, floorMemory)}
	if a := pod.Spec.Affinity; a != nil && a.NodeAffinity != nil && len(a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution) > 0 {
		// A term that cannot be parsed is left out: it is a preference only.
		if terms, err := nodeaffinity.NewPreferredSchedulingTerms(a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution); err == nil {
			p.Preferred = terms
		}
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			addContainer(p, &list[i])
		}
	}
	return p
}

func addContainer(p *plugin.Pod, c *corev1.Container) {
	p.Images = append(p.Images, c.Image)
	for _, port := range c.Ports {
		if port.HostPort > 0 {
			p.Ports = append(p.Ports, plugin.Port{IP: port.HostIP, Protocol: port.Protocol, Port: port.HostPort})
		}
	}
}

func owner(pod *corev1.Pod) types.UID {
	if ref := metav1.GetControllerOf(pod); ref != nil {
		return ref.UID
	}
	return pod.UID
}

// recordNode makes the record of a node without pods.
func recordNode(node *corev1.Node) *plugin.Node {
	n := &plugin.Node{
		Name: node.Name, Ports: map[plugin.Port]int{}, Owners: map[types.UID]int{},
	}
	updateNode(n, node)
	return n
}

// updateNode takes over what the Node object says; the sums over pods stay.
func updateNode(n *plugin.Node, node *corev1.Node) {
	n.Object = node
	n.Allocatable = plugin.ResourcesOf(node.Status.Allocatable)
	pods := node.Status.Allocatable[corev1.ResourcePods]
	n.MaxPods = pods.Value()
	n.Images = make(map[string]int64, len(node.Status.Images))
	for _, image := range node.Status.Images {
		for _, name := range image.Names {
			n.Images[name] = image.SizeBytes
		}
	}
}

// place adds a pod to a node's sums, or takes it away with sign -1.
func place(n *plugin.Node, p *plugin.Pod, sign int64) {
	n.Used.Add(&p.Requests, sign)
	n.Weight.Add(&p.Weight, sign)
	n.Pods += sign
	count(n.Owners, p.Owner, int(sign))
	for _, port := range p.Ports {
		count(n.Ports, port, int(sign))
	}
}

func count[K comparable](m map[K]int, k K, d int) {
	if m[k] += d; m[k] <= 0 {
		delete(m, k)
	}
}
