package scheduler

import (
	"time"

	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/scheduler/plugin"
)

// gangKey names a PodGroup.
type gangKey struct{ namespace, name string }

// gang is the pods that name one PodGroup, and what the group wants of them.
type gang struct {
	key gangKey
	// group is the object as the API shows it, never changed; nil while there is
	// none.
	group *schedulingv1beta1.PodGroup
	// waiting are the members without a node, true for those that have scheduling
	// gates of their own; placed are those on a node or on their way there.
	waiting map[types.UID]bool
	placed  map[types.UID]struct{}
	gates   int // of those waiting, how many have gates
	// open says that members may be tried, as the queue was told last.
	open bool
	// tried are the members whose common refusal is being written. Until then no
	// other member is tried: it would find its fellows gone. again says that
	// what the group wants has changed meanwhile.
	tried map[types.UID]bool
	again bool
}

// gangs are all groups that pods name or that exist. They belong to a cluster
// and are guarded by its lock.
type gangs struct {
	byKey map[gangKey]*gang
	of    map[types.UID]*gang // by member
}

func newGangs() gangs { return gangs{byKey: map[gangKey]*gang{}, of: map[types.UID]*gang{}} }

func (s *gangs) get(key gangKey) *gang {
	g := s.byKey[key]
	if g == nil {
		g = &gang{key: key, waiting: map[types.UID]bool{}, placed: map[types.UID]struct{}{}}
		s.byKey[key] = g
	}
	return g
}

// tidy drops a gang that nobody knows of.
func (s *gangs) tidy(g *gang) {
	if g.group == nil && len(g.waiting)+len(g.placed)+len(g.tried) == 0 {
		delete(s.byKey, g.key)
	}
}

// minCount is how many members have to be placed at once. One is as good as any
// number for a group whose pods are placed one by one.
func (g *gang) minCount() int {
	if p := g.group.Spec.SchedulingPolicy.Gang; p != nil {
		return int(p.MinCount)
	}
	return 1
}

// topologyKey is the label whose value all nodes of the group shall share, or "".
func (g *gang) topologyKey() string {
	if c := g.group.Spec.SchedulingConstraints; c != nil && len(c.Topology) > 0 {
		return c.Topology[0].Key
	}
	return ""
}

// complete says that there are members enough to try them, and that nobody
// keeps one of them back.
func (g *gang) complete() bool {
	return g.group != nil && g.gates == 0 && len(g.waiting)+len(g.placed) >= g.minCount()
}

// await notes a member without a node.
func (g *gang) await(uid types.UID, gates bool) {
	g.drop(uid)
	g.waiting[uid] = gates
	if gates {
		g.gates++
	}
}

// drop forgets a member.
func (g *gang) drop(uid types.UID) {
	if g.waiting[uid] {
		g.gates--
	}
	delete(g.waiting, uid)
	delete(g.placed, uid)
}

// satisfied says that the rest of the members can go one by one.
func (g *gang) satisfied() bool { return g.group != nil && len(g.placed) >= g.minCount() }

// gated says that the queue shall keep a waiting member back.
func (g *gang) gated(uid types.UID) bool {
	return !g.open || g.tried != nil && !g.tried[uid]
}

// joinGang notes a pending pod's group and returns whether it is to be kept
// back. c.mu is held.
func (c *cluster) joinGang(p *plugin.Pod, gates bool, now time.Time) bool {
	if p.PodGroup == "" {
		return gates
	}
	g := c.gangs.get(gangKey{p.Namespace(), p.PodGroup})
	g.await(p.UID, gates)
	c.gangs.of[p.UID] = g
	c.regate(g, now)
	return g.gated(p.UID)
}

// placeGang notes that a pod is on a node. c.mu is held.
func (c *cluster) placeGang(p *plugin.Pod, now time.Time) {
	if p.PodGroup == "" {
		return
	}
	g := c.gangs.get(gangKey{p.Namespace(), p.PodGroup})
	g.drop(p.UID)
	g.placed[p.UID] = struct{}{}
	c.gangs.of[p.UID] = g
	c.regate(g, now)
}

// leaveGang forgets a pod that is gone or not to be placed any more. c.mu is
// held.
func (c *cluster) leaveGang(uid types.UID, now time.Time) {
	g := c.gangs.of[uid]
	if g == nil {
		return
	}
	delete(c.gangs.of, uid)
	g.drop(uid)
	c.regate(g, now)
	c.gangs.tidy(g)
}

// setPodGroup takes over what a group wants.
func (c *cluster) setPodGroup(group *schedulingv1beta1.PodGroup, gone bool, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.gangs.get(gangKey{group.Namespace, group.Name})
	if gone {
		if g.group != nil && g.group.UID == group.UID {
			g.group = nil
			c.regate(g, now)
		}
		c.gangs.tidy(g)
		return
	}
	old := g.group
	before := 0
	if old != nil {
		before = g.minCount()
	}
	g.group = group
	c.regate(g, now)
	if old != nil && (old.UID != group.UID || g.minCount() < before) {
		g.again = g.tried != nil
		c.wakeGang(g, now)
	}
}

// wakeGang tries a gang again, whatever refused it. c.mu is held.
func (c *cluster) wakeGang(g *gang, now time.Time) {
	for uid := range g.waiting {
		c.queue.Activate(uid, now)
	}
	c.signal()
}

// regate opens or closes the queue for the members when they have become enough
// or too few. c.mu is held.
func (c *cluster) regate(g *gang, now time.Time) {
	if open := g.complete(); open != g.open {
		g.open = open
		c.tellGates(g, now)
	}
}

// tellGates tells the queue who is to be kept back. c.mu is held.
func (c *cluster) tellGates(g *gang, now time.Time) {
	for uid := range g.waiting {
		if e := c.queue.Get(uid); e != nil {
			c.queue.Add(item(e.Pod, g.gated(uid)), now)
		}
	}
	c.signal()
}
