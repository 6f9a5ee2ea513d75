package scheduler

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	configv1 "k8s.io/kube-scheduler/config/v1"

	"coracle/pkg/scheduler/plugin"
)

// candidate is a node that could take a pod if the victims left it.
type candidate struct {
	node string
	// victims are the most important first.
	victims []*plugin.Pod
	// violations is how many of them a PodDisruptionBudget protects.
	violations int
}

// preemption looks for pods to displace in favour of one that no node can
// take. It is pure but for rand, from which node the search begins.
type preemption struct {
	attempt *attempt
	budgets []*budget
	args    *configv1.DefaultPreemptionArgs
	rand    *rand.Rand
	now     time.Time
}

// noVictims is the reason of nodes without a pod that may be displaced.
const noVictims = "No preemption victims found for incoming pod"

// search returns the best candidate, or why there is none, as users read it.
func (p *preemption) search(why *diagnosis) (*candidate, string) {
	var gentle, violating []*candidate
	refused := diagnosis{nodes: why.nodes, reasons: map[string]int{}}
	switch n := len(why.preemptible); {
	case n == 0:
	case !p.attempt.cluster.Outranks(p.attempt.pod.Priority):
		refused.reasons[noVictims] = n // whatever the node: none is looked at
	default:
		enough, offset := p.enough(n), p.rand.IntN(n)
		for i := range n {
			c, v := p.victims(why.preemptible[(offset+i)%n])
			switch {
			case c == nil:
				for _, reason := range v.Reasons {
					refused.reasons[reason]++
				}
			case c.violations == 0:
				gentle = append(gentle, c)
			default:
				violating = append(violating, c)
			}
			if len(gentle) > 0 && len(gentle)+len(violating) >= enough {
				break
			}
		}
	}
	if best := p.pick(append(gentle, violating...)); best != nil {
		return best, fmt.Sprintf("found a potential placement for pod on node %s, preempting %d victims", best.node, len(best.victims))
	}
	if rest := why.nodes - len(why.preemptible); rest > 0 {
		refused.reasons["Preemption is not helpful for scheduling"] = rest
	}
	return nil, refused.message()
}

// enough is how many candidates are compared.
func (p *preemption) enough(nodes int) int {
	return min(max(nodes*int(*p.args.MinCandidateNodesPercentage)/100, int(*p.args.MinCandidateNodesAbsolute)), nodes)
}

// trial is a node with pods taken away: as it would be, and as it would be
// with those pods as well that were promised room on it.
type trial struct {
	attempt *attempt
	views   []*plugin.View
}

func (a *attempt) trial(n *plugin.Node) *trial {
	t := &trial{attempt: a, views: []*plugin.View{plugin.ViewOf(n)}}
	if with := a.promised(n); with.Changed() {
		t.views = append(t.views, with)
	}
	return t
}

func (t *trial) remove(p *plugin.Pod) {
	for _, v := range t.views {
		v.Remove(p)
	}
}

func (t *trial) add(p *plugin.Pod) {
	for _, v := range t.views {
		v.Add(p)
	}
}

func (t *trial) check() plugin.Verdict {
	for i := len(t.views) - 1; i >= 0; i-- {
		if v := t.attempt.check(t.views[i]); !v.OK() {
			return v
		}
	}
	return plugin.Verdict{}
}

// victims are the fewest and least important pods whose leaving lets the pod
// onto a node. All that are less important go in thought; then one after the
// other comes back, those first that a budget protects and those that matter
// most, unless the pod would not fit then.
func (p *preemption) victims(n *plugin.Node) (*candidate, plugin.Verdict) {
	var lower []*plugin.Pod
	for _, q := range n.Pods {
		if q.Priority < p.attempt.pod.Priority {
			lower = append(lower, q)
		}
	}
	if len(lower) == 0 {
		return nil, plugin.Verdict{Code: plugin.Unresolvable, Reasons: []string{noVictims}}
	}
	t := p.attempt.trial(n)
	for _, q := range lower {
		t.remove(q)
	}
	if v := t.check(); !v.OK() {
		return nil, v
	}
	slices.SortFunc(lower, p.byImportance)
	protected, free := protect(lower, p.budgets)
	c := &candidate{node: n.Name}
	for i, q := range slices.Concat(protected, free) {
		t.add(q)
		if v := t.check(); v.OK() {
			continue
		}
		t.remove(q)
		c.victims = append(c.victims, q)
		if i < len(protected) {
			c.violations++
		}
	}
	if len(c.victims) == 0 {
		// The pod fits as it is: a change since the diagnosis. No need to harm.
		return nil, plugin.Verdict{Code: plugin.Unresolvable, Reasons: []string{noVictims}}
	}
	slices.SortFunc(c.victims, p.byImportance)
	return c, plugin.Verdict{}
}

// byImportance puts higher priority first, then what runs for longer.
func (p *preemption) byImportance(a, b *plugin.Pod) int {
	return cmp.Or(cmp.Compare(b.Priority, a.Priority), a.StartTime(p.now).Compare(b.StartTime(p.now)), cmp.Compare(a.UID, b.UID))
}

// pick chooses the candidate that does least harm: fewest protected victims,
// the lowest highest priority, the lowest sum of priorities, the fewest
// victims, and the most important of them started latest.
func (p *preemption) pick(all []*candidate) *candidate {
	if len(all) == 0 {
		return nil
	}
	return slices.MinFunc(all, func(a, b *candidate) int {
		return cmp.Or(
			cmp.Compare(a.violations, b.violations),
			cmp.Compare(a.victims[0].Priority, b.victims[0].Priority),
			cmp.Compare(a.sum(), b.sum()),
			cmp.Compare(len(a.victims), len(b.victims)),
			b.earliest(p.now).Compare(a.earliest(p.now)),
		)
	})
}

// sum adds up priorities, moved so that none is negative: more victims never
// count as less.
func (c *candidate) sum() int64 {
	var sum int64
	for _, q := range c.victims {
		sum += int64(q.Priority) + 1<<31
	}
	return sum
}

// earliest is when the first of the most important victims started.
func (c *candidate) earliest(now time.Time) time.Time {
	first := c.victims[0].StartTime(now)
	for _, q := range c.victims {
		if q.Priority == c.victims[0].Priority && q.StartTime(now).Before(first) {
			first = q.StartTime(now)
		}
	}
	return first
}
