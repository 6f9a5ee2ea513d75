package plugin

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
)

// Facts is what a Node object says. Immutable: an update makes a new one.
type Facts struct {
	Name          string
	Labels        map[string]string
	Taints        []corev1.Taint
	Unschedulable bool
	Allocatable   Resources
	MaxPods       int64
	// Images are sizes by name.
	Images map[string]int64
	// Features are status.declaredFeatures, sorted.
	Features []string
	// Object holds name and labels only, for matching node selectors.
	Object *corev1.Node
}

// Node is what plugins need to know of a node: its facts and the sums over its
// pods, bound or on their way.
type Node struct {
	*Facts
	// Index is the node's place in Cluster.Nodes.
	Index int32
	// Used and NonZero are the sums of the pods' Requests and NonZero.
	Used, NonZero Resources
	// Ports counts pods by the host port they take; nil when none does.
	Ports map[Port]int
	// Pods are in no order.
	Pods []*Pod
	// Nominated are pods that wait for room on this node, made by preemption.
	Nominated []*Pod

	unknown string // the name while Facts is nil
	// domains has, by topology key in use, the node's domain, noDomain when the
	// node lacks the key; shared with views, which may be older than a key.
	domains *[]int32
}

// FactsOf reads a Node object.
func FactsOf(node *corev1.Node) *Facts {
	f := &Facts{
		Name: node.Name, Labels: node.Labels, Taints: node.Spec.Taints, Unschedulable: node.Spec.Unschedulable,
		Allocatable: ResourcesOf(node.Status.Allocatable), Features: node.Status.DeclaredFeatures,
		Object: &corev1.Node{},
	}
	f.Object.Name, f.Object.Labels = node.Name, node.Labels
	pods := node.Status.Allocatable[corev1.ResourcePods]
	f.MaxPods = pods.Value()
	if len(node.Status.Images) > 0 {
		f.Images = make(map[string]int64, len(node.Status.Images))
	}
	for _, image := range node.Status.Images {
		for _, name := range image.Names {
			f.Images[name] = image.SizeBytes
		}
	}
	return f
}

// sum adds a pod to the sums, or takes it away with sign -1.
func (n *Node) sum(p *Pod, sign int64) {
	n.Used.Add(&p.Shape.Requests, sign)
	n.NonZero.Add(&p.Shape.NonZero, sign)
	for _, port := range p.Shape.Ports {
		if n.Ports == nil {
			n.Ports = map[Port]int{}
		}
		if n.Ports[port] += int(sign); n.Ports[port] <= 0 {
			delete(n.Ports, port)
		}
	}
}

func (n *Node) drop(p *Pod) {
	for i, have := range n.Pods {
		if have.UID == p.UID {
			last := len(n.Pods) - 1
			n.Pods[i] = n.Pods[last]
			n.Pods[last] = nil
			n.Pods = n.Pods[:last]
			return
		}
	}
}

// View is a node as it is or as it would be with some pods added and taken
// away. It is cheap: the node itself is not touched.
type View struct {
	*Node
	// Added and Removed are the differences from the real node.
	Added, Removed []*Pod
}

// ViewOf is the node as it is.
func ViewOf(n *Node) *View { return &View{Node: n} }

// Add puts a pod on the node that is not there, in this view only.
func (v *View) Add(p *Pod) {
	v.own()
	v.Node.sum(p, +1)
	v.Node.Pods = append(v.Node.Pods, p)
	if !forget(&v.Removed, p) {
		v.Added = append(v.Added, p)
	}
}

// Remove takes a pod off the node, in this view only.
func (v *View) Remove(p *Pod) {
	v.own()
	v.Node.sum(p, -1)
	v.Node.drop(p)
	if !forget(&v.Added, p) {
		v.Removed = append(v.Removed, p)
	}
}

// Changed says that the view differs from the node.
func (v *View) Changed() bool { return len(v.Added)+len(v.Removed) > 0 }

// own makes the copy that Add and Remove change.
func (v *View) own() {
	if v.Added != nil || v.Removed != nil {
		return
	}
	n := *v.Node
	n.Used.Others, n.NonZero.Others = maps.Clone(n.Used.Others), maps.Clone(n.NonZero.Others)
	n.Ports = maps.Clone(n.Ports)
	n.Pods = append(make([]*Pod, 0, len(n.Pods)+1), n.Pods...)
	v.Node = &n
	v.Added = []*Pod{}
}

func forget(list *[]*Pod, p *Pod) bool {
	for i, have := range *list {
		if have.UID == p.UID {
			*list = append((*list)[:i], (*list)[i+1:]...)
			return true
		}
	}
	return false
}
