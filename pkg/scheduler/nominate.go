package scheduler

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/scheduler/plugin"
)

// nomination is room on a node that was promised to a pod that waits.
type nomination struct {
	pod  *plugin.Pod
	node string
}

// nominate promises a pod room on a node, or nothing any more when node is "".
// c.mu is held.
func (c *cluster) nominate(p *plugin.Pod, node string, now time.Time) {
	old, had := c.nominated[p.UID]
	if had && old.node == node && old.pod.Shape == p.Shape && old.pod.Group == p.Group || !had && node == "" {
		return
	}
	if had {
		c.records.Unnominate(p.UID, old.node)
		delete(c.nominated, p.UID)
	}
	if node != "" {
		c.nominated[p.UID] = nomination{p, node}
		c.records.Nominate(p, node)
		return
	}
	if on, at := c.records.Placed(p.UID); on == nil || at != old.node {
		// The room is there for others.
		c.tell(plugin.Event{Kind: plugin.PodDeleted, OldPod: old.pod}, now)
	}
}

// unnominate is for a pod that is placed or gone. c.mu is held.
func (c *cluster) unnominate(uid types.UID, now time.Time) {
	if n, ok := c.nominated[uid]; ok {
		c.nominate(n.pod, "", now)
	}
}

// seeNomination takes over what the API says of a pending pod's nomination,
// when it is something new. c.mu is held.
func (c *cluster) seeNomination(p *plugin.Pod, now time.Time) {
	if e := c.queue.Get(p.UID); e == nil || e.Pod.Nominated != p.Nominated {
		c.nominate(p, p.Nominated, now)
	}
}

// promisedNode is the node on which a pod was promised room, if it fits there
// by now and within, when not nil, admits it. c.mu is held.
func (c *cluster) promisedNode(d *decider, p *plugin.Pod, within func(*plugin.Node) bool) *plugin.Node {
	n, ok := c.nominated[p.UID]
	if !ok {
		return nil
	}
	a := prepare(d.profile, d.cluster, p)
	a.within = within
	for _, node := range a.candidates() {
		if node != nil && node.Name == n.node {
			if v := a.node(node); v.OK() {
				return node
			}
		}
	}
	return nil
}

// displaced says that preemption already takes a pod off its node.
func displaced(pod *corev1.Pod) bool {
	if pod.DeletionTimestamp == nil {
		return false
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.DisruptionTarget {
			return c.Status == corev1.ConditionTrue && c.Reason == corev1.PodReasonPreemptionByScheduler
		}
	}
	return false
}

// plan is what shall happen to make room for a pod. The zero plan leaves all
// as it is.
type plan struct {
	// message is added to why the pod waits.
	message string
	// nominate says that status.nominatedNodeName shall be node.
	nominate bool
	node     string
	victims  []*plugin.Pod
	// outdone are pods of lower priority whose promise of the node is taken back.
	outdone []*plugin.Pod
}

// preempt looks for room that a pod may take from others and notes the promise.
// c.mu is held.
func (c *cluster) preempt(pr *profile, p *plugin.Pod, why *diagnosis, now time.Time) plan {
	if !pr.Preempts || why.nodes == 0 {
		return plan{}
	}
	a := prepare(pr.decider.profile, c.records, p)
	if message := c.ineligible(a); message != "" {
		return plan{message: "preemption: " + message}
	}
	search := preemption{attempt: a, args: &pr.Args.DefaultPreemption, rand: pr.decider.rand, now: now}
	for _, b := range c.budgets {
		search.budgets = append(search.budgets, b)
	}
	best, message := search.search(why)
	out := plan{message: "preemption: " + message, nominate: true}
	if best != nil {
		out.node, out.victims = best.node, best.victims
		out.outdone = c.outdo(p, best.node, now)
	}
	c.nominate(p, out.node, now)
	return out
}

// ineligible is why a pod may not preempt, or "".
func (c *cluster) ineligible(a *attempt) string {
	if a.pod.NeverPreempts {
		return "not eligible due to preemptionPolicy=Never."
	}
	n := c.records.Node(c.nominated[a.pod.UID].node)
	if n == nil {
		return ""
	}
	if v := a.node(n); v.Code == plugin.Unresolvable {
		return "" // the promise is worth nothing
	}
	for _, q := range n.Pods {
		if q.Priority < a.pod.Priority && c.displaced[q.UID] {
			return "not eligible due to a terminating pod on the nominated node."
		}
	}
	return ""
}

// outdo takes a node back from waiting pods of lower priority.
func (c *cluster) outdo(p *plugin.Pod, node string, now time.Time) []*plugin.Pod {
	var out []*plugin.Pod
	for uid, n := range c.nominated {
		if n.node == node && n.pod.Priority < p.Priority {
			out = append(out, n.pod)
			c.records.Unnominate(uid, node)
			delete(c.nominated, uid)
			c.queue.Activate(uid, now)
		}
	}
	return out
}

func (c *cluster) setBudget(b *policyv1.PodDisruptionBudget, gone bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if made := newBudget(b); made != nil && !gone {
		c.budgets[b.UID] = made
	} else {
		delete(c.budgets, b.UID)
	}
}
