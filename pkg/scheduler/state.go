package scheduler

import (
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/placement"
	"coracle/pkg/scheduler/config"
	"coracle/pkg/scheduler/devices"
	"coracle/pkg/scheduler/plugin"
	"coracle/pkg/scheduler/queue"
)

// entry is a pod that waits for a node.
type entry = queue.Entry[*plugin.Pod]

// cluster is what the scheduler knows: the nodes with their pods, and the pods
// that wait. Informer handlers and the deciding loop share it.
type cluster struct {
	profiles map[string]*profile // by schedulerName; set before anything runs
	mu       sync.Mutex
	records  *plugin.Cluster                         // guarded by mu
	interner *plugin.Interner                        // guarded by mu
	owners   *owners                                 // guarded by mu
	assumed  map[types.UID]bool                      // pods whose binding is under way; guarded by mu
	queue    *queue.Queue[*plugin.Pod, plugin.Event] // guarded by mu
	volumes  *volumes                                // set before the first attempt
	devices  *devices.Tracker                        // likewise
	scores   scorekeeper                             // guarded by mu
	// nominated are the promises of room to pods that wait, displaced the pods
	// that preemption is taking off their nodes; guarded by mu.
	nominated map[types.UID]nomination
	displaced map[types.UID]bool
	budgets   map[types.UID]*budget // guarded by mu
	gangs     gangs                 // guarded by mu
	// wakeup has room for one: the loop looks at the queue when it is filled.
	wakeup chan struct{}
}

func newCluster(cfg config.Config) *cluster {
	c := &cluster{
		records: plugin.NewCluster(), interner: plugin.NewInterner(), owners: newOwners(), assumed: map[types.UID]bool{}, wakeup: make(chan struct{}, 1),
		nominated: map[types.UID]nomination{}, displaced: map[types.UID]bool{}, budgets: map[types.UID]*budget{},
		gangs: newGangs(),
	}
	c.queue = queue.New(queue.Config[*plugin.Pod, plugin.Event]{
		InitialBackoff: cfg.InitialBackoff, MaxBackoff: cfg.MaxBackoff, MayHelp: c.mayHelp, Concerns: concerns,
	})
	return c
}

// waitClass is what pods have in common that are refused alike.
type waitClass struct {
	shape         *plugin.Shape
	group         *plugin.Group
	node, pin     string
	neverPreempts bool
	uid           types.UID // of a pod like no other, since its claims are its own
	claims        string    // which ResourceClaims it has by now
	podGroup      string    // members of a group are refused for the sake of each other
}

func item(p *plugin.Pod, gated bool) queue.Item[*plugin.Pod] {
	class := waitClass{shape: p.Shape, group: p.Group, node: p.Node, pin: p.Pin, neverPreempts: p.NeverPreempts, podGroup: p.PodGroup}
	if len(p.Claims)+len(p.Devices) > 0 {
		class.uid = p.UID
	}
	for _, r := range p.Devices {
		class.claims += r.Claim + " "
	}
	return queue.Item[*plugin.Pod]{UID: p.UID, Priority: p.Priority, Class: class, Gated: gated, Pod: p}
}

func (c *cluster) signal() {
	select {
	case c.wakeup <- struct{}{}:
	default: // the loop has not looked since the last one
	}
}

// tell wakes the pods that an event may help. c.mu is held.
func (c *cluster) tell(e plugin.Event, now time.Time) {
	c.queue.Event(e, now)
	c.signal()
}

func (c *cluster) setNode(node *corev1.Node, now time.Time) {
	facts := plugin.FactsOf(node)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch old := c.records.SetNode(facts); {
	case old == nil:
		c.tell(plugin.Event{Kind: plugin.NodeAdded, Node: facts}, now)
	case plugin.Differs(old, facts):
		c.tell(plugin.Event{Kind: plugin.NodeUpdated, OldNode: old, Node: facts}, now)
	}
}

func (c *cluster) deleteNode(name string, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.records.DeleteNode(name); old != nil {
		c.tell(plugin.Event{Kind: plugin.NodeDeleted, OldNode: old}, now)
	}
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
		c.tell(plugin.Event{Kind: plugin.NamespaceChanged}, now)
	}
}

// setOwner takes over what selects pods.
func (c *cluster) setOwner(obj any, gone bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.owners.see(obj, gone)
}

// setPod takes over a pod as the API shows it.
func (c *cluster) setPod(pod *corev1.Pod, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	profile := c.profiles[pod.Spec.SchedulerName]
	done := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
	switch {
	case done:
		c.forget(pod.UID, now)
	case pod.Spec.NodeName != "":
		if displaced(pod) {
			c.displaced[pod.UID] = true
		}
		c.queue.Remove(pod.UID, now)
		c.setPlaced(c.interner.Pod(pod), pod.Spec.NodeName, now)
	case pod.DeletionTimestamp != nil || profile == nil:
		c.queue.Remove(pod.UID, now)
		c.unnominate(pod.UID, now)
		c.leaveGang(pod.UID, now)
		c.signal()
	case c.assumed[pod.UID]: // its binding is under way
	default:
		p := c.interner.Pod(pod)
		c.seeNomination(p, now)
		c.queue.Add(item(p, c.joinGang(p, profile.Gates && len(pod.Spec.SchedulingGates) > 0, now)), now)
		c.signal()
	}
}

// setPlaced takes over a pod that is on a node. c.mu is held.
func (c *cluster) setPlaced(p *plugin.Pod, node string, now time.Time) {
	old, _ := c.records.Placed(p.UID)
	c.records.Place(p, node)
	c.placeGang(p, now)
	assumed := c.assumed[p.UID]
	delete(c.assumed, p.UID)
	c.unnominate(p.UID, now)
	switch {
	case old == nil || assumed:
		c.tell(plugin.Event{Kind: plugin.PodAdded, Pod: p}, now)
	case old.Shape != p.Shape && p.Shape.Requests.Less(&old.Shape.Requests, &old.Shape.Requests):
		c.tell(plugin.Event{Kind: plugin.PodScaledDown, OldPod: old, Pod: p}, now)
	case old.Group != p.Group:
		c.tell(plugin.Event{Kind: plugin.PodRelabelled, OldPod: old, Pod: p}, now)
	}
}

// forget drops a pod that is gone; the room it leaves may help others.
func (c *cluster) forget(uid types.UID, now time.Time) {
	c.queue.Remove(uid, now)
	c.unnominate(uid, now)
	c.leaveGang(uid, now)
	delete(c.assumed, uid)
	delete(c.displaced, uid)
	if old := c.records.Remove(uid); old != nil {
		c.tell(plugin.Event{Kind: plugin.PodDeleted, OldPod: old}, now)
	}
	c.signal()
}

func (c *cluster) deletePod(uid types.UID, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget(uid, now)
}

// outcome is what came of an attempt: a node or a diagnosis.
type outcome struct {
	began   time.Time // when the attempt began
	profile *profile
	node    string // "" when no node can take the pod
	why     *diagnosis
	plan    plan                  // how room is made, when it can be
	nodes   int                   // how many there were
	scores  []placement.NodeScore // of the best, when they were kept
	// at is the node's record; it is good for as long as the lock is held under
	// which it was chosen.
	at *plugin.Node
	// facts are the node's; volumes and devices the work that comes before the
	// binding.
	facts   *plugin.Facts
	volumes plugin.VolumeWork
	devices plugin.DeviceWork
	// gang, when not nil, is all there is: the pod's group was decided about.
	gang *gangOutcome
}

// attempt pops a pod and decides. On success the pod is assumed to be on its
// node. e is nil when nothing waits; then next says when to look again.
func (c *cluster) attempt(clock func() time.Time) (e *entry, o outcome, next time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := clock()
	e = c.queue.Pop(now)
	if e == nil {
		return nil, outcome{}, c.queue.Next()
	}
	if g := c.gangs.of[e.UID]; g != nil {
		o.gang = c.attemptGang(g, e, clock)
		return e, o, time.Time{}
	}
	o, stale := c.choose(e.Pod, nil, clock)
	switch {
	case o.node != "":
		c.assume(e, o.at, now)
	case !stale:
		o.plan = c.preempt(o.profile, e.Pod, o.why, now)
	}
	return e, o, time.Time{}
}

// choose decides about a pod, among the nodes that within, when not nil,
// admits, and promises the volumes and devices that come with the node. stale
// says that what was found first held no more on a second look. c.mu is held.
func (c *cluster) choose(p *plugin.Pod, within func(*plugin.Node) bool, clock func() time.Time) (o outcome, stale bool) {
	o.profile, o.nodes = c.profiles[p.Shape.Scheduler], c.records.Len()
	d := o.profile.decider
	node := c.promisedNode(d, p, within)
	switch {
	case node != nil:
	case within != nil:
		node = d.decideWithin(p, within)
	default:
		node = d.decide(p)
	}
	switch {
	case node != nil:
	case within != nil:
		o.why = d.explainWithin(p, within)
		return o, false
	default:
		o.why = d.explain(p)
		return o, false
	}
	if len(p.Claims) > 0 {
		work, refused := plugin.PlanVolumes(c.volumes, p, node.Facts)
		if !refused.OK() { // what the informers show has changed since
			o.why = &diagnosis{nodes: o.nodes, refused: refused}
			return o, true
		}
		c.volumes.promise(&work, node.Name)
		o.volumes = work
	}
	if len(p.Devices) > 0 {
		work, refused := plugin.PlanDevices(c.devices, p, node.Facts)
		if !refused.OK() {
			c.volumes.release(&o.volumes)
			o.volumes, o.why = plugin.VolumeWork{}, &diagnosis{nodes: o.nodes, refused: refused}
			return o, true
		}
		c.devices.Promise(work.Grant)
		o.devices = work
	}
	o.node, o.at, o.facts = node.Name, node, node.Facts
	if within == nil {
		o.scores = c.scores.keep(d, p, node, clock)
	}
	return o, false
}

// promise keeps the volumes and devices of a decision from others, again. c.mu
// is held.
func (c *cluster) promise(o *outcome) {
	if !o.volumes.Empty() {
		c.volumes.promise(&o.volumes, o.node)
	}
	if len(o.devices.Grant) > 0 {
		c.devices.Promise(o.devices.Grant)
	}
}

// release gives back what was promised. c.mu is held.
func (c *cluster) release(o *outcome) {
	if !o.volumes.Empty() {
		c.volumes.release(&o.volumes)
	}
	if len(o.devices.Grant) > 0 {
		c.devices.Release(o.devices.Grant)
	}
}

// assume puts a popped pod on its node before it is bound there. c.mu is held.
func (c *cluster) assume(e *entry, node *plugin.Node, now time.Time) {
	c.records.PlaceOn(e.Pod, node)
	c.unnominate(e.UID, now)
	c.assumed[e.UID] = true
	c.queue.Done(e, now)
	c.placeGang(e.Pod, now)
}

// isAssumed says that a pod's binding is still wanted.
func (c *cluster) isAssumed(uid types.UID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.assumed[uid]
}

// objectChanged tries pods again that a change of another kind of object may
// help. nil is for what was or is not there.
func (c *cluster) objectChanged(old, obj any, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tell(plugin.Event{Kind: plugin.ObjectChanged, OldObject: old, Object: obj}, now)
}

// undo takes back an assumed pod whose binding failed.
func (c *cluster) undo(e *entry, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.assumed[e.UID] {
		delete(c.assumed, e.UID)
		if old := c.records.Remove(e.UID); old != nil {
			c.tell(plugin.Event{Kind: plugin.PodDeleted, OldPod: old}, now)
		}
		if e.Pod.PodGroup != "" {
			c.queue.Add(item(e.Pod, c.joinGang(e.Pod, false, now)), now)
		}
	}
	c.queue.Fail(e, queue.Refusal{Error: true}, now)
	c.regroup(e.UID, now)
	c.signal()
}

// failed gives back a pod that no node can take.
func (c *cluster) failed(e *entry, r queue.Refusal, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue.Fail(e, r, now)
	c.regroup(e.UID, now)
	c.signal()
}
