package scheduler

import (
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/scheduler/plugin"
)

// cluster is what the scheduler knows: the nodes with their pods, and the pods
// that wait. Informer handlers and the deciding loop share it.
type cluster struct {
	mu       sync.Mutex
	records  *plugin.Cluster    // guarded by mu
	interner *plugin.Interner   // guarded by mu
	owners   *owners            // guarded by mu
	assumed  map[types.UID]bool // pods whose binding is under way; guarded by mu
	queue    *queue             // guarded by mu
	volumes  *volumes           // set before the first attempt
	// wakeup has room for one: the loop looks at the queue when it is filled.
	wakeup chan struct{}
}

func newCluster() *cluster {
	return &cluster{
		records: plugin.NewCluster(), interner: plugin.NewInterner(), owners: newOwners(), assumed: map[types.UID]bool{},
		queue: newQueue(), wakeup: make(chan struct{}, 1),
	}
}

func (c *cluster) signal() {
	select {
	case c.wakeup <- struct{}{}:
	default: // the loop has not looked since the last one
	}
}

func (c *cluster) setNode(node *corev1.Node, now time.Time) {
	facts := plugin.FactsOf(node)
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.records.SetNode(facts)
	if old == nil || plugin.Differs(old, facts) {
		c.queue.wake(now)
		c.signal()
	}
}

func (c *cluster) deleteNode(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.records.DeleteNode(name)
}

func (c *cluster) setNamespace(ns *corev1.Namespace, gone bool, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	of := ns.Labels
	switch {
	case gone:
		of = nil
	case of == nil:
		of = map[string]string{}
	}
	if c.records.SetNamespace(ns.Name, of) {
		c.queue.wake(now)
		c.signal()
	}
}

// setOwner takes over what selects pods.
func (c *cluster) setOwner(obj any, gone bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.owners.see(obj, gone)
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
		p := c.interner.Pod(pod)
		old, _ := c.records.Placed(pod.UID)
		c.records.Place(p, pod.Spec.NodeName)
		delete(c.assumed, pod.UID)
		if old != nil && old.Shape != p.Shape && p.Shape.Requests.Less(&old.Shape.Requests, &old.Shape.Requests) {
			c.queue.wake(now) // it was resized: the room it leaves may help others
			c.signal()
		}
	case pod.DeletionTimestamp != nil || len(pod.Spec.SchedulingGates) > 0 || !mine:
		c.queue.remove(pod.UID)
	default:
		if c.assumed[pod.UID] {
			return // its binding is under way
		}
		c.queue.add(c.interner.Pod(pod), now)
		c.signal()
	}
}

// forget drops a pod that is gone; the room it leaves may help others.
func (c *cluster) forget(uid types.UID, now time.Time) {
	c.queue.remove(uid)
	delete(c.assumed, uid)
	if c.records.Remove(uid) != nil {
		c.queue.wake(now)
		c.signal()
	}
}

func (c *cluster) deletePod(uid types.UID, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget(uid, now)
}

// outcome is what came of an attempt: a node or a diagnosis.
type outcome struct {
	node string // "" when no node can take the pod
	why  *diagnosis
	// facts are the node's, and volumes the work that comes before the binding.
	facts   *plugin.Facts
	volumes plugin.VolumeWork
}

// attempt pops a pod and decides. On success the pod is assumed to be on its
// node. ok is false when nothing waits; then next says when to look again.
func (c *cluster) attempt(d *decider, now time.Time) (e *entry, o outcome, began int, next time.Time, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e = c.queue.pop(now)
	if e == nil {
		return nil, outcome{}, 0, c.queue.next(), false
	}
	node := d.decide(e.pod)
	if node == nil {
		o.why = d.explain(e.pod)
		return e, o, c.queue.moves, time.Time{}, true
	}
	if len(e.pod.Claims) > 0 {
		work, refused := plugin.PlanVolumes(c.volumes, e.pod, node.Facts)
		if !refused.OK() { // what the informers show has changed since
			o.why = &diagnosis{nodes: c.records.Len(), refused: refused}
			return e, o, c.queue.moves, time.Time{}, true
		}
		c.volumes.promise(&work, node.Name)
		o.volumes = work
	}
	o.node, o.facts = node.Name, node.Facts
	c.records.Place(e.pod, node.Name)
	c.assumed[e.pod.UID] = true
	return e, o, c.queue.moves, time.Time{}, true
}

// isAssumed says that a pod's binding is still wanted.
func (c *cluster) isAssumed(uid types.UID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.assumed[uid]
}

// wakeClaims tries the pods with claims again: something about volumes changed.
func (c *cluster) wakeClaims(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.queue.wakeIf(now, func(p *plugin.Pod) bool { return len(p.Claims) > 0 }) {
		c.signal()
	}
}

// undo takes back an assumed pod whose binding failed.
func (c *cluster) undo(e *entry, began int, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.assumed[e.pod.UID] {
		delete(c.assumed, e.pod.UID)
		c.records.Remove(e.pod.UID)
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
