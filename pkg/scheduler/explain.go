package scheduler

import (
	"cmp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/placement"
	"coracle/pkg/scheduler/plugin"
)

const (
	// maxExamples is how many nodes of a group are named, maxScored how many of
	// the best nodes keep their scores.
	maxExamples = 3
	maxScored   = 3
	// scoreShare is the part of the time that may go into scores that are kept
	// for readers: one in scoreShare.
	scoreShare = 100
)

// refusals groups the nodes that refused a pod by plugin and reasons.
type refusals struct {
	pod    *plugin.Pod
	groups map[string]*refusalGroup
	last   *refusalGroup // that a node was added to: the next is often alike
}

type refusalGroup struct {
	placement.Refusal
	reasons []string // of the verdicts, where Reasons has their details
	lacks   map[corev1.ResourceName]int64
}

// add counts a node's refusal.
func (r *refusals) add(n *plugin.Node, v *plugin.Verdict) {
	g := r.last
	if g == nil || v.Detail != nil || g.Plugin != v.Plugin || g.Preemptible != (v.Code == plugin.Unschedulable) || !slices.Equal(g.Reasons, v.Reasons) {
		g = r.group(v)
	}
	r.last = g
	g.Nodes++
	if len(g.Examples) < maxExamples {
		g.Examples = append(g.Examples, n.Name)
	}
	for _, reason := range v.Reasons {
		if name, short := strings.CutPrefix(reason, "Insufficient "); short {
			g.lack(corev1.ResourceName(name), r.pod, n)
		}
	}
}

// group is the one that a verdict belongs to.
func (r *refusals) group(v *plugin.Verdict) *refusalGroup {
	shown := v.Reasons
	if v.Detail != nil {
		shown = []string{v.Detail()}
	}
	key := v.Plugin + "\x00" + strings.Join(shown, "\x00") + "\x00\x00" + strings.Join(v.Reasons, "\x00")
	if v.Code == plugin.Unschedulable {
		key += "\x00+"
	}
	g := r.groups[key]
	if g == nil {
		if r.groups == nil {
			r.groups = map[string]*refusalGroup{}
		}
		g = &refusalGroup{
			Refusal: placement.Refusal{Plugin: v.Plugin, Reasons: shown, Preemptible: v.Code == plugin.Unschedulable}, reasons: v.Reasons,
		}
		r.groups[key] = g
	}
	return g
}

// lack notes the least that is missing of a resource.
func (g *refusalGroup) lack(name corev1.ResourceName, p *plugin.Pod, n *plugin.Node) {
	missing := p.Shape.Requests.Get(name) - (n.Allocatable.Get(name) - n.Used.Get(name))
	if missing <= 0 {
		return // room that is promised to others is missing, not used
	}
	if g.lacks == nil {
		g.lacks = map[corev1.ResourceName]int64{}
	}
	if have, ok := g.lacks[name]; !ok || missing < have {
		g.lacks[name] = missing
	}
}

// list is the groups, largest first.
func (r *refusals) list() []placement.Refusal {
	var out []placement.Refusal
	for _, g := range r.groups {
		for name, missing := range g.lacks {
			g.Lacks = append(g.Lacks, placement.Lack{Resource: string(name), Amount: amount(name, missing)})
		}
		slices.SortFunc(g.Lacks, func(a, b placement.Lack) int { return strings.Compare(a.Resource, b.Resource) })
		out = append(out, g.Refusal)
	}
	slices.SortFunc(out, func(a, b placement.Refusal) int {
		return cmp.Or(cmp.Compare(b.Nodes, a.Nodes), strings.Compare(a.Plugin, b.Plugin), slices.Compare(a.Reasons, b.Reasons))
	})
	return out
}

// amount is a quantity as users write it.
func amount(name corev1.ResourceName, v int64) string {
	switch {
	case name == corev1.ResourceCPU:
		return resource.NewMilliQuantity(v, resource.DecimalSI).String()
	case name == corev1.ResourceMemory || name == corev1.ResourceEphemeralStorage || strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix):
		return resource.NewQuantity(v, resource.BinarySI).String()
	}
	return resource.NewQuantity(v, resource.DecimalSI).String()
}

// verdict is an outcome as readers see it.
func (o *outcome) verdict(e *entry, message string, now time.Time) *placement.Status {
	s := &placement.Status{
		Result: placement.Placed, NodeName: o.node, SchedulerName: e.Pod.Shape.Scheduler, Attempts: e.Attempts,
		Nodes: o.nodes, Message: message, Time: metav1.Time{Time: now}, Scores: o.scores,
	}
	if o.node == "" {
		s.Result, s.Refusals = placement.Unschedulable, o.why.groups
		if o.plan.node != "" {
			s.Result, s.NodeName = placement.Preempting, o.plan.node
		}
	}
	return s
}

// scorekeeper decides when scores are kept: never for more than a share of the
// time, so that explaining does not slow deciding down.
type scorekeeper struct{ next time.Time }

// keep returns the scores of the best nodes for a pod that is about to be
// placed on one of them, when it is time.
func (k *scorekeeper) keep(d *decider, p *plugin.Pod, chosen *plugin.Node, now func() time.Time) []placement.NodeScore {
	began := now()
	if began.Before(k.next) {
		return nil
	}
	scores := bestScores(d.profile, d.cluster, p, chosen)
	ended := now()
	k.next = ended.Add(scoreShare * ended.Sub(began))
	return scores
}

// bestScores are the scores by plugin of the chosen node and the next best.
func bestScores(profile *plugin.Profile, c *plugin.Cluster, p *plugin.Pod, chosen *plugin.Node) []placement.NodeScore {
	a := prepare(profile, c, p)
	var nodes []*plugin.Node
	for _, n := range a.candidates() {
		if n == nil {
			continue
		}
		if v := a.node(n); v.OK() {
			nodes = append(nodes, n)
		}
	}
	all := make([]placement.NodeScore, len(nodes))
	for i, n := range nodes {
		all[i].Node = n.Name
	}
	for i, s := range profile.Scores {
		plan := s.PreScore(c, p)
		values := make([]int64, len(nodes))
		if plan.Band != nil {
			values = bandScores(plan.Band, nodes)
		}
		for j, n := range nodes {
			if plan.Node != nil {
				values[j] += plan.Node.Score(n)
			}
			all[j].Total += values[j] * profile.Weights[i]
			if plan.Band != nil || plan.Node != nil {
				all[j].Plugins = append(all[j].Plugins, placement.PluginScore{Plugin: s.Name(), Score: values[j], Weight: profile.Weights[i]})
			}
		}
	}
	slices.SortFunc(all, func(a, b placement.NodeScore) int {
		return cmp.Or(cmp.Compare(b.Total, a.Total), cmp.Compare(rank(a, chosen), rank(b, chosen)), strings.Compare(a.Node, b.Node))
	})
	return slices.Clone(all[:min(len(all), maxScored)])
}

// rank puts the chosen node before its equals.
func rank(s placement.NodeScore, chosen *plugin.Node) int {
	if s.Node == chosen.Name {
		return 0
	}
	return 1
}
