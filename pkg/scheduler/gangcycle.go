package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/scheduler/plugin"
	"coracle/pkg/scheduler/queue"
)

// gangPlugin refuses the members that would fit were it not for the others.
// Only the group itself can help them, and it wakes its members by name.
const gangPlugin = "GangScheduling"

// decided is a member and what came of its part of an attempt.
type decided struct {
	e *entry
	o outcome
	// stale says that its refusal is not about the nodes.
	stale bool
}

// gangOutcome is what came of an attempt for members of a group: all that could
// be placed are, or none is.
type gangOutcome struct {
	gang    *gang
	key     gangKey
	members []decided
	placed  bool
	// message is why none is placed; broken says that the group is wrong by
	// itself, so that the cluster cannot help it.
	message string
	broken  bool
	// filters are those that refused any member, sorted.
	filters []string
}

// attemptGang decides about the group of a popped pod. A group that is not
// satisfied is decided together: every member that waits takes part. c.mu is
// held.
func (c *cluster) attemptGang(g *gang, first *entry, clock func() time.Time) *gangOutcome {
	now := clock()
	entries := []*entry{first}
	if !g.satisfied() {
		for uid := range g.waiting {
			if g.gated(uid) {
				continue
			}
			if e := c.queue.Take(uid); e != nil {
				entries = append(entries, e)
			}
		}
		slices.SortFunc(entries, func(a, b *entry) int {
			if queue.Before(a, b) {
				return -1
			}
			return 1
		})
	}
	out := &gangOutcome{gang: g, key: g.key}
	if err := c.checkGang(g, entries); err != nil {
		out.broken = true
		c.refuseGang(out, entries, err.Error())
		return out
	}
	best, err := c.bestTrial(g, entries, clock)
	if err != nil {
		out.broken = true
		c.refuseGang(out, entries, err.Error())
		return out
	}
	out.members, out.message = best.members, best.message
	if out.message != "" {
		c.refuseGang(out, entries, out.message)
		return out
	}
	out.placed = true
	for _, m := range out.members {
		if m.o.node != "" {
			c.assume(m.e, m.o.at, now)
		}
	}
	// The others go their own way from now on, as far as their nodes are free.
	for i := range out.members {
		if m := &out.members[i]; m.o.node == "" && !m.stale && g.topologyKey() == "" {
			m.o.plan = c.preempt(m.o.profile, m.e.Pod, m.o.why, now)
		}
	}
	return out
}

// refuseGang notes that no member is placed, all for the same reason but those
// that no node could take. c.mu is held.
func (c *cluster) refuseGang(out *gangOutcome, entries []*entry, message string) {
	out.message = message
	had := out.members
	out.members = make([]decided, len(entries))
	out.gang.tried = map[types.UID]bool{}
	names := map[string]bool{gangPlugin: true}
	for i, e := range entries {
		m := decided{e: e, o: outcome{profile: c.profiles[e.Pod.Shape.Scheduler], nodes: c.records.Len()}}
		if i < len(had) && had[i].o.node == "" {
			m = had[i]
			for _, name := range m.o.why.filters {
				names[name] = true
			}
		} else {
			m.o.why = &diagnosis{nodes: m.o.nodes, filters: []string{gangPlugin}, said: message}
		}
		out.members[i] = m
		out.gang.tried[e.UID] = true
	}
	for name := range names {
		out.filters = append(out.filters, name)
	}
	slices.Sort(out.filters)
}

// checkGang finds members that cannot be decided together. c.mu is held.
func (c *cluster) checkGang(g *gang, entries []*entry) error {
	var priority int32
	if p := g.group.Spec.Priority; p != nil {
		priority = *p
	}
	first := entries[0].Pod
	check := func(p *plugin.Pod) error {
		switch {
		case p.Shape.Scheduler != first.Shape.Scheduler:
			return fmt.Errorf("all pods in a single pod group should have the same .spec.schedulerName set, got: %q and %q", p.Shape.Scheduler, first.Shape.Scheduler)
		case p.Priority != priority:
			return fmt.Errorf("all pods in a single pod group should have the same priority as the pod group's priority, got %d and %d", p.Priority, priority)
		case p.NeverPreempts != first.NeverPreempts:
			return fmt.Errorf("all pods in a single pod group should have the same preemption policy, got %v and %v", preemptionPolicy(p), preemptionPolicy(first))
		}
		return nil
	}
	for _, e := range entries {
		if err := check(e.Pod); err != nil {
			return err
		}
	}
	for uid := range g.placed {
		if p, _ := c.records.Placed(uid); p != nil {
			if err := check(p); err != nil {
				return err
			}
		}
	}
	return nil
}

func preemptionPolicy(p *plugin.Pod) corev1.PreemptionPolicy {
	if p.NeverPreempts {
		return corev1.PreemptNever
	}
	return corev1.PreemptLowerPriority
}

// gangTrial is one way to place members.
type gangTrial struct {
	members []decided // those looked at, in order
	fit     int       // how many of them have a node
	message string    // why the group cannot have it so, or ""
}

// bestTrial places as many members as it can when that is enough for the group,
// and otherwise leaves the records as they were. c.mu is held.
func (c *cluster) bestTrial(g *gang, entries []*entry, clock func() time.Time) (gangTrial, error) {
	key := g.topologyKey()
	if key == "" {
		t := c.try(g, entries, nil, clock)
		if t.message != "" {
			c.giveBack(&t)
		}
		return t, nil
	}
	domains, err := c.domains(g, key)
	if err != nil {
		return gangTrial{}, err
	}
	if len(domains) == 0 {
		return gangTrial{message: "no feasible placements found"}, nil
	}
	best := -1
	trials := make([]gangTrial, len(domains))
	for i, domain := range domains {
		within := func(n *plugin.Node) bool { value, ok := n.Labels[key]; return ok && value == domain }
		trials[i] = c.try(g, entries, within, clock)
		c.giveBack(&trials[i])
		if trials[i].message == "" && (best < 0 || trials[i].fit > trials[best].fit) {
			best = i
		}
	}
	if best < 0 {
		t := trials[0]
		t.message = fmt.Sprintf("0/%d placements are available, first placement status: pod group is unschedulable", len(domains))
		return t, nil
	}
	for _, m := range trials[best].members {
		if m.o.node != "" {
			c.promise(&m.o)
			c.records.PlaceOn(m.e.Pod, m.o.at)
		}
	}
	return trials[best], nil
}

// domains are the values of a label that the group may choose from, sorted: the
// one that its members are in, or all. c.mu is held.
func (c *cluster) domains(g *gang, key string) ([]string, error) {
	required := map[string]bool{}
	for uid := range g.placed {
		p, at := c.records.Placed(uid)
		if p == nil {
			continue
		}
		node := c.records.Node(at)
		if node == nil {
			return nil, fmt.Errorf("cannot determine domain for already scheduled pods: getting node for pod %s: node %s is not known", p.Key(), at)
		}
		value, ok := node.Labels[key]
		if !ok {
			return nil, fmt.Errorf("cannot determine domain for already scheduled pods: no topology domain found for pod %s", p.Key())
		}
		required[value] = true
	}
	if len(required) > 1 {
		return nil, fmt.Errorf("cannot determine domain for already scheduled pods: more than 1 domain found for pod group: %s", strings.Join(sorted(required), ", "))
	}
	all := map[string]bool{}
	for _, n := range c.records.Nodes() {
		if n == nil {
			continue
		}
		if value, ok := n.Labels[key]; ok && (len(required) == 0 || required[value]) {
			all[value] = true
		}
	}
	return sorted(all), nil
}

func sorted(set map[string]bool) []string { return slices.Sorted(maps.Keys(set)) }

// try places members one after the other, each as if those before it were
// running, until the group has all it can get or cannot be satisfied. c.mu is
// held.
func (c *cluster) try(g *gang, entries []*entry, within func(*plugin.Node) bool, clock func() time.Time) gangTrial {
	var t gangTrial
	placed, rest, least := len(g.placed), len(entries), g.minCount()
	short := func() string {
		if placed+rest >= least {
			return ""
		}
		return fmt.Sprintf("minCount (%d) cannot be satisfied: %d scheduled, %d remaining", least, placed, rest)
	}
	for _, e := range entries {
		if t.message = short(); t.message != "" {
			return t
		}
		o, stale := c.choose(e.Pod, within, clock)
		t.members = append(t.members, decided{e, o, stale})
		rest--
		if o.node != "" {
			c.records.PlaceOn(e.Pod, o.at)
			t.fit++
			placed++
		}
	}
	t.message = short()
	return t
}

// giveBack takes the members of a trial off their nodes again. c.mu is held.
func (c *cluster) giveBack(t *gangTrial) {
	for i := range t.members {
		if m := &t.members[i]; m.o.node != "" {
			c.records.Remove(m.e.UID)
			c.release(&m.o)
		}
	}
}
