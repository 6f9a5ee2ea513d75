package plugin

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// Cluster is the nodes with the pods on them, and what is counted about them.
// It is not safe for concurrent use.
type Cluster struct {
	// Narrow is how many domains a topology may have before nodes are told apart
	// by what is counted in their domains and not by the domains; 64 unless set
	// before nodes are.
	Narrow int

	// nodes has a place for each node; nil ones are free.
	nodes  []*Node
	free   []int32
	byName map[string]*Node
	// places are the pods on nodes, also on those whose object is not known yet.
	places map[types.UID]place
	// priorities counts those pods by priority.
	priorities map[int32]int
	images     map[string]*image
	// offering are the nodes that have some of an extended resource, by index.
	offering map[corev1.ResourceName][]int32
	log      changes
	// promised counts the nodes with nominated pods.
	promised int

	namespaces map[string]labels.Set
	topologies []*topology
	// matchers count pods by what somebody asks of them, holding by the terms
	// they have. The versions count how often there was one more or less.
	matchers       map[string]*matcher
	matchersBy     index[*matcher]
	matcherVersion uint64
	holding        map[holderKey]*holder
	holdersBy      [kinds]index[*holder]
	holderVersion  uint64
	holdingSweep   int
	spreads        map[spreadKey]*spread
}

type place struct {
	pod  *Pod
	node *Node
}

// NewCluster returns an empty Cluster.
func NewCluster() *Cluster {
	return &Cluster{
		Narrow: 64,
		byName: map[string]*Node{}, places: map[types.UID]place{}, priorities: map[int32]int{}, images: map[string]*image{},
		namespaces: map[string]labels.Set{}, matchers: map[string]*matcher{}, matchersBy: index[*matcher]{}, matcherVersion: 1,
		holding: map[holderKey]*holder{}, holdersBy: [kinds]index[*holder]{{}, {}, {}, {}}, holdingSweep: maxHolders,
		spreads: map[spreadKey]*spread{}, offering: map[corev1.ResourceName][]int32{},
	}
}

// Len is the number of nodes.
func (c *Cluster) Len() int { return len(c.nodes) - len(c.free) }

// Nodes are all nodes by index; the nil ones are free places.
func (c *Cluster) Nodes() []*Node { return c.nodes }

// Node is the node of a name, or nil.
func (c *Cluster) Node(name string) *Node {
	if n := c.byName[name]; n != nil && n.Facts != nil {
		return n
	}
	return nil
}

// Placed is the pod of a UID and the name of the node it is on; nil when it is
// on none.
func (c *Cluster) Placed(uid types.UID) (*Pod, string) {
	at, ok := c.places[uid]
	if !ok {
		return nil, ""
	}
	return at.pod, at.node.name()
}

// record returns the record of a name, also before its object is known, since
// a pod may be seen on a node first.
func (c *Cluster) record(name string) *Node {
	n, ok := c.byName[name]
	if !ok {
		n = &Node{Index: -1, unknown: name, domains: new([]int32)}
		c.byName[name] = n
	}
	return n
}

func (n *Node) name() string {
	if n.Facts != nil {
		return n.Facts.Name
	}
	return n.unknown
}

// SetNode takes over what a node says and returns what it said before, or nil.
func (c *Cluster) SetNode(f *Facts) *Facts {
	n := c.record(f.Name)
	old := n.Facts
	switch {
	case old == nil:
		c.settle(n)
		n.Facts = f
		c.enter(n)
		c.touch(n)
	case maps.Equal(old.Labels, f.Labels) && equality.Semantic.DeepEqual(old.Taints, f.Taints):
		n.Facts = f
		if !sameRoom(old, f) {
			c.touch(n)
		}
	default:
		c.leave(n, f)
		n.Facts = f
		c.enter(n)
		c.touch(n)
	}
	c.offer(n.Index, old, f)
	return old
}

// offer takes into account what a node has and no more what it had; nil is
// nothing.
func (c *Cluster) offer(node int32, had, has *Facts) {
	if had != nil {
		c.countImages(had, -1)
	}
	if has != nil {
		c.countImages(has, +1)
		for name, amount := range has.Allocatable.Others {
			if at, there := slices.BinarySearch(c.offering[name], node); amount > 0 && !there {
				c.offering[name] = slices.Insert(c.offering[name], at, node)
			}
		}
	}
	if had == nil {
		return
	}
	for name, amount := range had.Allocatable.Others {
		if amount <= 0 || has != nil && has.Allocatable.Others[name] > 0 {
			continue
		}
		at, _ := slices.BinarySearch(c.offering[name], node)
		if c.offering[name] = slices.Delete(c.offering[name], at, at+1); len(c.offering[name]) == 0 {
			delete(c.offering, name)
		}
	}
}

// sameRoom says that facts with equal labels and taints differ in nothing that
// a plugin looks at.
func sameRoom(a, b *Facts) bool {
	return a.Unschedulable == b.Unschedulable && a.MaxPods == b.MaxPods && equality.Semantic.DeepEqual(a.Allocatable, b.Allocatable) &&
		maps.Equal(a.Images, b.Images) && slices.Equal(a.Features, b.Features)
}

// Differs says that the change from a to b matters to some plugin.
func Differs(a, b *Facts) bool {
	return !maps.Equal(a.Labels, b.Labels) || !equality.Semantic.DeepEqual(a.Taints, b.Taints) || !sameRoom(a, b)
}

// settle gives a node a place.
func (c *Cluster) settle(n *Node) {
	if last := len(c.free) - 1; last >= 0 {
		n.Index, c.free = c.free[last], c.free[:last]
		c.nodes[n.Index] = n
		return
	}
	n.Index = int32(len(c.nodes))
	c.nodes = append(c.nodes, n)
}

// DeleteNode drops a node and returns what it said, or nil. Pods on it are
// kept, for it may come back.
func (c *Cluster) DeleteNode(name string) *Facts {
	n := c.Node(name)
	if n == nil {
		return nil
	}
	c.touch(n)
	c.leave(n, nil)
	old := n.Facts
	c.offer(n.Index, old, nil)
	c.nodes[n.Index] = nil
	c.free = append(c.free, n.Index)
	n.Facts, n.Index, n.unknown = nil, -1, name
	c.release(n)
	return old
}

// release forgets a node of which nothing is known.
func (c *Cluster) release(n *Node) {
	if n.Facts == nil && len(n.Pods) == 0 && len(n.Nominated) == 0 {
		delete(c.byName, n.unknown)
	}
}

// Place puts a pod on a node, or moves or updates it.
func (c *Cluster) Place(p *Pod, node string) { c.PlaceOn(p, c.record(node)) }

// PlaceOn is Place for who has the node. Among many nodes, finding one by its name
// is the dearest part of placing a pod.
func (c *Cluster) PlaceOn(p *Pod, n *Node) {
	if old, ok := c.places[p.UID]; ok {
		if old.node == n && old.pod.Shape == p.Shape && old.pod.Group == p.Group {
			c.replace(old.node, p)
			return
		}
		c.Remove(p.UID)
		n = c.record(n.name()) // it may have been dropped with its last pod
	}
	c.places[p.UID] = place{p, n}
	c.rank(p, +1)
	n.sum(p, +1)
	n.Pods = append(n.Pods, p)
	c.count(n, p, +1)
	c.touch(n)
}

// replace takes over a pod that differs from the old record in nothing that is
// counted.
func (c *Cluster) replace(n *Node, p *Pod) {
	c.rank(c.places[p.UID].pod, -1)
	c.rank(p, +1)
	c.places[p.UID] = place{p, n}
	for i, have := range n.Pods {
		if have.UID == p.UID {
			n.Pods[i] = p
		}
	}
}

// Remove takes a pod off its node and returns it, or nil.
func (c *Cluster) Remove(uid types.UID) *Pod {
	old, ok := c.places[uid]
	if !ok {
		return nil
	}
	delete(c.places, uid)
	c.rank(old.pod, -1)
	old.node.sum(old.pod, -1)
	old.node.drop(old.pod)
	c.count(old.node, old.pod, -1)
	c.touch(old.node)
	c.release(old.node)
	return old.pod
}

func (c *Cluster) rank(p *Pod, sign int) {
	if c.priorities[p.Priority] += sign; c.priorities[p.Priority] == 0 {
		delete(c.priorities, p.Priority)
	}
}

// Outranks says that some pod on a node has a lower priority. It costs by the
// number of priorities in use, not by that of pods.
func (c *Cluster) Outranks(priority int32) bool {
	for have := range c.priorities {
		if have < priority {
			return true
		}
	}
	return false
}

// Nominate notes that a waiting pod was promised room on a node; pods of lower
// priority leave it free.
func (c *Cluster) Nominate(p *Pod, node string) {
	n := c.record(node)
	if len(n.Nominated) == 0 {
		c.promised++
	}
	n.Nominated = append(slices.DeleteFunc(n.Nominated, func(q *Pod) bool { return q.UID == p.UID }), p)
	c.touch(n)
}

// Promised says that there are nominated pods.
func (c *Cluster) Promised() bool { return c.promised > 0 }

// Unnominate takes a promise back.
func (c *Cluster) Unnominate(uid types.UID, node string) {
	n := c.byName[node]
	if n == nil || len(n.Nominated) == 0 {
		return
	}
	n.Nominated = slices.DeleteFunc(n.Nominated, func(q *Pod) bool { return q.UID == uid })
	if len(n.Nominated) == 0 {
		c.promised--
	}
	c.touch(n)
	c.release(n)
}

func (c *Cluster) touch(n *Node) {
	if n.Index >= 0 {
		c.log.touch(n.Index)
	}
}
