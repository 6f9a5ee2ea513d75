package scheduler

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	"coracle/pkg/scheduler/plugin"
)

// decider chooses nodes. It is pure but for rand, which settles ties. It looks
// at the cluster, so whoever uses it holds the cluster still.
type decider struct {
	profile *plugin.Profile
	cluster *plugin.Cluster
	rand    *rand.Rand
	signers []plugin.Signer
	classes map[string]*class // by shape and what the signers say
	signed  map[likeness]signature
	uses    uint64 // grows with each decision

	live   []liveBand // scratch
	scores []int64
	asked  []plugin.Band
	key    []byte
}

// likeness is what is certain to be one class for as long as the versions of
// the signers stay.
type likeness struct {
	shape *plugin.Shape
	group *plugin.Group
}

type signature struct {
	version uint64
	class   *class
}

// maxSigned bounds the signatures that are remembered.
const maxSigned = 1 << 14

func newDecider(profile *plugin.Profile, c *plugin.Cluster, r *rand.Rand) *decider {
	d := &decider{profile: profile, cluster: c, rand: r, classes: map[string]*class{}, signed: map[likeness]signature{}}
	seen := map[plugin.Signer]bool{}
	add := func(p plugin.Plugin) {
		if s, ok := p.(plugin.Signer); ok && !seen[s] {
			seen[s] = true
			d.signers = append(d.signers, s)
		}
	}
	for _, f := range profile.Filters {
		add(f)
	}
	for _, s := range profile.Scores {
		add(s)
	}
	return d
}

// maxSlots bounds what is kept of classes, in places for nodes.
const maxSlots = 4 << 20

// class is what is known of the pod's class, up to date.
func (d *decider) class(p *plugin.Pod) *class {
	d.uses++
	k := d.classOf(p)
	if !k.refresh(d.cluster) {
		k.build(d.profile, d.cluster, p, d.rand)
	}
	k.used = d.uses
	return k
}

// classOf finds the class of a pod, a new one that is to be built when there is
// none.
func (d *decider) classOf(p *plugin.Pod) *class {
	var version uint64 // versions only grow, so equal sums are equal versions
	for _, s := range d.signers {
		version += s.Version(d.cluster)
	}
	like := likeness{p.Shape, p.Group}
	if s, ok := d.signed[like]; ok && s.version == version && !s.class.gone {
		return s.class
	}
	d.key = fmt.Appendf(d.key[:0], "%p", p.Shape)
	for _, s := range d.signers {
		d.key = s.Sign(d.cluster, p, d.key)
		d.key = append(d.key, 0)
	}
	k := d.classes[string(d.key)]
	if k == nil {
		if len(d.classes) >= max(16, maxSlots/max(len(d.cluster.Nodes()), 1)) {
			d.forget()
		}
		k = &class{key: string(d.key), shape: p.Shape}
		d.classes[k.key] = k
	}
	if len(d.signed) >= maxSigned {
		clear(d.signed)
	}
	d.signed[like] = signature{version, k}
	return k
}

// forget drops the half of the classes that was not used for longest.
func (d *decider) forget() {
	uses := make([]uint64, 0, len(d.classes))
	for _, k := range d.classes {
		uses = append(uses, k.used)
	}
	slices.Sort(uses)
	limit := uses[len(uses)/2]
	maps.DeleteFunc(d.classes, func(_ string, k *class) bool {
		k.gone = k.gone || k.used <= limit
		return k.gone
	})
}

// decide is the best node for a pod, or nil.
func (d *decider) decide(p *plugin.Pod) *plugin.Node {
	if p.Node != "" || p.Pin != "" {
		return d.decideAlone(p)
	}
	k := d.class(p)
	if k.single {
		return d.decideAlone(p)
	}
	checks := make([]plugin.Check, 0, len(k.podly))
	for _, f := range k.podly {
		plan := f.PreFilter(d.cluster, p)
		if plan.Nodes != nil || !plan.Refuse.OK() {
			return d.decideAlone(p)
		}
		if plan.Check != nil {
			checks = append(checks, plan.Check)
		}
	}
	if node := k.choose(d, d.passes(p, checks)); node != none {
		return d.cluster.Nodes()[node]
	}
	return nil
}

// passes asks what is not known from the class; nil when there is nothing to
// ask.
func (d *decider) passes(p *plugin.Pod, checks []plugin.Check) func(node int32) bool {
	if len(checks) == 0 && !d.cluster.Promised() {
		return nil
	}
	var a *attempt
	return func(node int32) bool {
		n := d.cluster.Nodes()[node]
		if len(n.Nominated) > 0 {
			if a == nil {
				a = prepare(d.profile, d.cluster, p)
			}
			v := a.node(n)
			return v.OK()
		}
		for _, check := range checks {
			if v := check.Check(plugin.ViewOf(n)); !v.OK() {
				return false
			}
		}
		return true
	}
}

// explain says why no node can take a pod for which decide found none.
func (d *decider) explain(p *plugin.Pod) *diagnosis {
	k := d.classOf(p)
	mark := d.cluster.Mark()
	shared := k.ranking != nil && len(k.podly) == 0 && p.Node == "" && p.Pin == "" && !d.cluster.Promised()
	if shared && k.why != nil && k.whyMark == mark {
		return k.why
	}
	why := prepare(d.profile, d.cluster, p).diagnose()
	if shared {
		k.why, k.whyMark = &why, mark
	}
	return &why
}

// explainWithin says why none of the nodes that within admits can take a pod.
func (d *decider) explainWithin(p *plugin.Pod, within func(*plugin.Node) bool) *diagnosis {
	a := prepare(d.profile, d.cluster, p)
	a.within = within
	why := a.diagnose()
	return &why
}

// decideAlone looks at each node that may take the pod.
func (d *decider) decideAlone(p *plugin.Pod) *plugin.Node { return d.decideWithin(p, nil) }

// decideWithin looks at each node that may take the pod and that within, when
// not nil, admits.
func (d *decider) decideWithin(p *plugin.Pod, within func(*plugin.Node) bool) *plugin.Node {
	a := prepare(d.profile, d.cluster, p)
	a.within = within
	var feasible []*plugin.Node
	for _, n := range a.candidates() {
		if n == nil {
			continue
		}
		if v := a.node(n); v.OK() {
			feasible = append(feasible, n)
		}
	}
	switch len(feasible) {
	case 0:
		return nil
	case 1:
		return feasible[0]
	}
	return d.best(feasible, totals(d.profile, d.cluster, p, feasible))
}

// best is a node with the highest total; ties fall at random, so that equal
// nodes fill evenly.
func (d *decider) best(nodes []*plugin.Node, totals []int64) *plugin.Node {
	best, ties := 0, 1
	for i := 1; i < len(nodes); i++ {
		switch {
		case totals[i] > totals[best]:
			best, ties = i, 1
		case totals[i] == totals[best]:
			ties++
			if d.rand.IntN(ties) == 0 {
				best = i
			}
		}
	}
	return nodes[best]
}

// totals are the weighted sums of the scores of nodes that can take a pod.
func totals(profile *plugin.Profile, c *plugin.Cluster, p *plugin.Pod, nodes []*plugin.Node) []int64 {
	totals := make([]int64, len(nodes))
	for i, s := range profile.Scores {
		plan := s.PreScore(c, p)
		if plan.Node != nil {
			for j, n := range nodes {
				totals[j] += plan.Node.Score(n) * profile.Weights[i]
			}
		}
		if plan.Band != nil {
			for j, score := range bandScores(plan.Band, nodes) {
				totals[j] += score * profile.Weights[i]
			}
		}
	}
	return totals
}

// bandScores are the scores of nodes by their bands.
func bandScores(s plugin.BandScore, nodes []*plugin.Node) []int64 {
	at := map[int32]int{} // place in bands
	var bands []plugin.Band
	of := make([]int, len(nodes))
	for i, n := range nodes {
		id := s.Band(n)
		j, ok := at[id]
		if !ok {
			j = len(bands)
			at[id] = j
			bands = append(bands, plugin.Band{ID: id})
		}
		bands[j].Nodes++
		of[i] = j
	}
	scores, out := make([]int64, len(bands)), make([]int64, len(nodes))
	s.Scores(bands, scores)
	for i, j := range of {
		out[i] = scores[j]
	}
	return out
}
