package scheduler

import (
	"fmt"
	"slices"
	"strings"

	"coracle/pkg/placement"
	"coracle/pkg/scheduler/plugin"
)

// attempt is what the filters of a profile plan for one pod. It is good for as
// long as the cluster does not change.
type attempt struct {
	cluster *plugin.Cluster
	pod     *plugin.Pod
	checks  []namedCheck
	// refused, when not OK, refuses the pod whatever the node.
	refused plugin.Verdict
	// limited says that only the nodes named in only can do, as limiters, the
	// names of filters, say.
	limited  bool
	only     []string
	limiters []string
	// within, when not nil, admits the nodes that are looked at at all.
	within func(*plugin.Node) bool
	// view is the node that is looked at, as it is.
	view plugin.View
}

type namedCheck struct {
	name         string
	plugin.Check // nil when there is nothing to say about unchanged nodes
	changed      plugin.Check
}

// prepare asks the filters about a pod.
func prepare(profile *plugin.Profile, c *plugin.Cluster, p *plugin.Pod) *attempt {
	a := &attempt{cluster: c, pod: p, checks: make([]namedCheck, 0, len(profile.Filters))}
	for _, f := range profile.Filters {
		plan := f.PreFilter(c, p)
		if !plan.Refuse.OK() {
			if a.refused.OK() || plan.Refuse.Code == plugin.Unresolvable {
				a.refused = plan.Refuse
				a.refused.Plugin = f.Name()
			}
			if plan.Refuse.Code == plugin.Unresolvable {
				return a // preemption will not help: no need to look further
			}
			continue
		}
		if plan.Nodes != nil {
			a.limit(f.Name(), plan.Nodes)
			if !a.refused.OK() {
				return a
			}
		}
		if changed := plan.Changed; plan.Check != nil || changed != nil {
			if changed == nil {
				changed = plan.Check
			}
			a.checks = append(a.checks, namedCheck{f.Name(), plan.Check, changed})
		}
	}
	return a
}

// limit narrows the nodes that can do.
func (a *attempt) limit(by string, nodes []string) {
	if a.limited {
		a.only = slices.DeleteFunc(slices.Clone(a.only), func(n string) bool { return !slices.Contains(nodes, n) })
	} else {
		a.only = nodes
	}
	a.limited, a.limiters = true, append(a.limiters, by)
	if len(a.only) > 0 {
		return
	}
	slices.Sort(a.limiters)
	reason := fmt.Sprintf("node(s) didn't satisfy plugin(s) %v simultaneously", a.limiters)
	if len(a.limiters) == 1 {
		reason = "node(s) didn't satisfy plugin " + a.limiters[0]
	}
	a.refused = plugin.Verdict{Code: plugin.Unresolvable, Plugin: by, Reasons: []string{reason}}
}

// check is the first refusal of a node that may differ from the real one.
func (a *attempt) check(v *plugin.View) plugin.Verdict {
	changed := v.Changed()
	for i := range a.checks {
		check := a.checks[i].Check
		if changed {
			check = a.checks[i].changed
		}
		if check == nil {
			continue
		}
		if verdict := check.Check(v); !verdict.OK() {
			verdict.Plugin = a.checks[i].name
			return verdict
		}
	}
	return plugin.Verdict{}
}

// node is the verdict about a node as it is. Where room is promised to pods of
// the same or a higher priority, the pod has to fit with them there and, for
// they may go elsewhere, without. A Detail of the verdict is good until the next
// call.
func (a *attempt) node(n *plugin.Node) plugin.Verdict {
	if len(n.Nominated) > 0 {
		if v := a.promised(n); v.Changed() {
			if verdict := a.check(v); !verdict.OK() {
				return verdict
			}
		}
	}
	a.view.Node = n
	return a.check(&a.view)
}

// promised is a node with the pods on it that were promised room there and
// that the pod may not outdo.
func (a *attempt) promised(n *plugin.Node) *plugin.View {
	v := plugin.ViewOf(n)
	for _, q := range n.Nominated {
		if q.UID != a.pod.UID && q.Priority >= a.pod.Priority {
			if on, _ := a.cluster.Placed(q.UID); on == nil {
				v.Add(q)
			}
		}
	}
	return v
}

// candidates are the nodes to look at.
func (a *attempt) candidates() []*plugin.Node {
	nodes := a.admitted()
	if a.within == nil {
		return nodes
	}
	var list []*plugin.Node
	for _, n := range nodes {
		if n != nil && a.within(n) {
			list = append(list, n)
		}
	}
	return list
}

// total is how many nodes there are to look at.
func (a *attempt) total() int {
	if a.within == nil {
		return a.cluster.Len()
	}
	total := 0
	for _, n := range a.cluster.Nodes() {
		if n != nil && a.within(n) {
			total++
		}
	}
	return total
}

// admitted are the nodes that the filters' plans leave.
func (a *attempt) admitted() []*plugin.Node {
	if !a.refused.OK() {
		return nil
	}
	if !a.limited {
		return a.cluster.Nodes()
	}
	var list []*plugin.Node
	for _, name := range a.only {
		if n := a.cluster.Node(name); n != nil {
			list = append(list, n)
		}
	}
	return list
}

// admits says that a node is among the only ones that can do.
func (a *attempt) admits(node string) bool { return slices.Contains(a.only, node) }

// absent is the reason of the nodes that are not.
func (a *attempt) absent() string {
	return fmt.Sprintf("node(s) didn't satisfy plugin(s) %v", a.limiters)
}

// diagnosis is why no node can take a pod.
type diagnosis struct {
	// nodes is how many there are.
	nodes int
	// refused, when not OK, refused the pod whatever the node.
	refused plugin.Verdict
	// reasons counts, for each reason, the nodes that gave it.
	reasons map[string]int
	// filters are the names of those that refused, sorted: what they say may
	// help makes another attempt worth while.
	filters []string
	// preemptible are the nodes that could take the pod if others went away.
	preemptible []*plugin.Node
	// groups are the nodes by who refused and why.
	groups []placement.Refusal
	// said, when not empty, is the message.
	said string
}

// diagnose asks about each node again, filter by filter in order.
func (a *attempt) diagnose() diagnosis {
	d := diagnosis{nodes: a.total(), refused: a.refused, reasons: map[string]int{}}
	if !a.refused.OK() {
		d.filters = []string{a.refused.Plugin}
		d.groups = []placement.Refusal{{Plugin: a.refused.Plugin, Reasons: a.refused.Reasons}}
		return d
	}
	seen, groups := 0, refusals{pod: a.pod}
	for _, n := range a.candidates() {
		if n == nil {
			continue
		}
		seen++
		v := a.node(n)
		if v.OK() {
			continue
		}
		groups.add(n, &v)
		if v.Code == plugin.Unschedulable {
			d.preemptible = append(d.preemptible, n)
		}
	}
	names := map[string]bool{}
	for _, g := range groups.groups {
		names[g.Plugin] = true
		for _, reason := range g.reasons {
			d.reasons[reason] += g.Nodes
		}
	}
	if absent := d.nodes - seen; absent > 0 {
		d.reasons[a.absent()] += absent
		for _, name := range a.limiters {
			names[name] = true
		}
	}
	for name := range names {
		d.filters = append(d.filters, name)
	}
	slices.Sort(d.filters)
	d.groups = groups.list()
	return d
}

// message is the sentence that users know from pending pods.
func (d *diagnosis) message() string {
	if d.said != "" {
		return d.said
	}
	if d.nodes == 0 {
		return "no nodes available to schedule pods"
	}
	lines := d.refused.Reasons
	if d.refused.OK() {
		for reason, n := range d.reasons {
			lines = append(lines, fmt.Sprintf("%d %s", n, reason))
		}
		slices.Sort(lines)
	}
	return fmt.Sprintf("0/%d nodes are available: %s.", d.nodes, strings.Join(lines, ", "))
}
