package scheduler

import (
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/scheduler/plugin"
)

// cluster is what the scheduler knows: nodes with the sums over their pods,
// and the pods that wait. Informer handlers and the deciding loop share it.
type cluster struct {
	mu    sync.Mutex
	nodes map[string]*plugin.Node // guarded by mu
	list  []*plugin.Node          // the nodes whose object is known; guarded by mu
	pods  map[types.UID]*placed   // pods that are on nodes; guarded by mu
	queue *queue                  // guarded by mu
	// wakeup has room for one: the loop looks at the queue when it is filled.
	wakeup chan struct{}
}

// placed is a pod on a node: bound, or assumed while its binding is under way.
type placed struct {
	pod     *plugin.Pod
	node    string
	assumed bool
}

func newCluster() *cluster {
	return &cluster{
		nodes: map[string]*plugin.Node{}, pods: map[types.UID]*placed{}, queue: newQueue(), wakeup: make(chan struct{}, 1),
	}
}

func (c *cluster) signal() {
	select {
	case c.wakeup <- struct{}{}:
	default: // the loop has not looked since the last one
	}
}

// node returns the record of a name, also before its object is known, since a
// pod may be seen on a node first.
func (c *cluster) node(name string) *plugin.Node {
	n, ok := c.nodes[name]
	if !ok {
		n = recordNode(&corev1.Node{})
		n.Name, n.Object = name, nil
		c.nodes[name] = n
	}
	return n
}

func (c *cluster) setNode(node *corev1.Node, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.node(node.Name)
	old := n.Object
	updateNode(n, node)
	if old == nil {
		c.list = append(c.list, n)
	}
	if old == nil || mayHelp(old, node) {
		c.queue.wake(now)
		c.signal()
	}
}

// mayHelp says that a changed node may take pods that it could not before.
func mayHelp(old, node *corev1.Node) bool {
	return old.Spec.Unschedulable != node.Spec.Unschedulable ||
		!equality.Semantic.DeepEqual(old.Spec.Taints, node.Spec.Taints) ||
		!equality.Semantic.DeepEqual(old.Labels, node.Labels) ||
		!equality.Semantic.DeepEqual(old.Status.Allocatable, node.Status.Allocatable)
}

func (c *cluster) deleteNode(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, ok := c.nodes[name]
	if !ok {
		return
	}
	n.Object = nil
	for i, have := range c.list {
		if have == n {
			c.list = append(c.list[:i], c.list[i+1:]...)
			break
		}
	}
	if n.Pods == 0 {
		delete(c.nodes, name)
	}
}

// setPod takes over a pod as the API shows it. mine says that it is this
// scheduler's to place.
func (c *cluster) setPod(pod *corev1.Pod, mine bool, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	done := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
	switch {
	case done:
		c.forget(pod.UID, now)
	case pod.Spec.NodeName != "":
		c.queue.remove(pod.UID)
		p := recordPod(pod)
		old, known := c.pods[pod.UID]
		c.put(p, pod.Spec.NodeName, false)
		if known && (p.Requests.MilliCPU < old.pod.Requests.MilliCPU || p.Requests.Memory < old.pod.Requests.Memory) {
			c.queue.wake(now) // it was resized: the room it leaves may help others
			c.signal()
		}
	case pod.DeletionTimestamp != nil || len(pod.Spec.SchedulingGates) > 0 || !mine:
		c.queue.remove(pod.UID)
	default:
		if p, ok := c.pods[pod.UID]; ok && p.assumed {
			return // its binding is under way
		}
		c.queue.add(recordPod(pod), now)
		c.signal()
	}
}

// forget drops a pod that is gone; the room it leaves may help others.
func (c *cluster) forget(uid types.UID, now time.Time) {
	c.queue.remove(uid)
	if c.take(uid) {
		c.queue.wake(now)
		c.signal()
	}
}

func (c *cluster) deletePod(uid types.UID, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget(uid, now)
}

// put places a pod on a node, or moves it there.
func (c *cluster) put(p *plugin.Pod, node string, assumed bool) {
	c.take(p.UID)
	c.pods[p.UID] = &placed{p, node, assumed}
	place(c.node(node), p, +1)
}

// take removes a pod from its node.
func (c *cluster) take(uid types.UID) bool {
	old, ok := c.pods[uid]
	if !ok {
		return false
	}
	delete(c.pods, uid)
	n := c.node(old.node)
	place(n, old.pod, -1)
	if n.Pods == 0 && n.Object == nil {
		delete(c.nodes, old.node)
	}
	return true
}

// attempt pops a pod and decides. On success the pod is assumed to be on its
// node. ok is false when nothing waits; then next says when to look again.
func (c *cluster) attempt(f *framework, s *Scheduler) (e *entry, v verdict, began int, next time.Time, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e = c.queue.pop(s.cfg.Clock.Now())
	if e == nil {
		return nil, verdict{}, 0, c.queue.next(), false
	}
	v = f.decide(e.pod, c.list, s.rand)
	if v.node != nil {
		c.put(e.pod, v.node.Name, true)
	}
	return e, v, c.queue.moves, time.Time{}, true
}

// undo takes back an assumed pod whose binding failed.
func (c *cluster) undo(e *entry, began int, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p, ok := c.pods[e.pod.UID]; ok && p.assumed {
		c.take(e.pod.UID)
		c.queue.wake(now)
	}
	c.queue.fail(e, began, true, now)
	c.signal()
}

// failed gives back a pod that no node can take.
func (c *cluster) failed(e *entry, began int, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue.fail(e, began, false, now)
	c.signal()
}
