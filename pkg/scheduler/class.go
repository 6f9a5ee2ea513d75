package scheduler

import (
	"math/rand/v2"

	"coracle/pkg/scheduler/plugin"
)

// class is what was found out for pods of one class: their plans, and the nodes
// that may take them, in bands. It is brought up to date before each use, by
// looking again at the nodes that changed.
type class struct {
	key  string // of decider.classes
	gone bool   // forgotten: not to be used any more
	// shape is the pods'; it is held so that key names no other.
	shape *plugin.Shape
	// built says that the plugins were asked; what follows is theirs.
	built bool
	mark  plugin.Mark // of the cluster when it was last up to date
	used  uint64      // of the decider, for the choice of what to forget

	// single says that pods of this class are decided one by one.
	single bool
	quick  []plugin.QuickCheck // asked per node
	local  []plugin.Check      // likewise
	banded []plugin.BandCheck  // asked per band; the first parts of band keys
	nodes  []weighedNodes
	bands  []weighedBands  // the further parts of band keys
	podly  []plugin.Filter // asked anew for each pod
	counts bool            // some score looks at how many nodes a band has

	ranking *ranking
	view    plugin.View // scratch

	// why is the diagnosis of the last failure, good at whyMark.
	why     *diagnosis
	whyMark plugin.Mark
}

type weighedNodes struct {
	plugin.NodeScore
	weight int64
}

type weighedBands struct {
	plugin.BandScore
	weight int64
}

// build asks the plugins about a pod of the class and looks at all nodes.
func (k *class) build(profile *plugin.Profile, c *plugin.Cluster, p *plugin.Pod, r *rand.Rand) {
	*k = class{key: k.key, shape: k.shape, built: true, mark: c.Mark()}
	var among []int32 // the nodes to look at, nil for all
	for _, f := range profile.Filters {
		plan := f.PreFilter(c, p)
		if plan.PerPod {
			k.podly = append(k.podly, f) // what it says of this pod says nothing of others
			continue
		}
		k.single = k.single || plan.Nodes != nil || !plan.Refuse.OK()
		if plan.Among != nil && (among == nil || len(plan.Among) < len(among)) {
			among = plan.Among
		}
		switch check := plan.Check.(type) {
		case nil:
		case plugin.BandCheck:
			k.banded = append(k.banded, check)
		case plugin.QuickCheck:
			k.quick = append(k.quick, check)
		default:
			k.local = append(k.local, check)
		}
	}
	for i, s := range profile.Scores {
		plan := s.PreScore(c, p)
		k.single, k.counts = k.single || plan.PerPod, k.counts || plan.CountsNodes
		if plan.Node != nil {
			k.nodes = append(k.nodes, weighedNodes{plan.Node, profile.Weights[i]})
		}
		if plan.Band != nil {
			k.bands = append(k.bands, weighedBands{plan.Band, profile.Weights[i]})
		}
	}
	k.single = k.single || len(k.banded)+len(k.bands) > maxParts
	if k.single {
		return
	}
	k.ranking = newRanking()
	k.fill(c, among, r)
}

// fill looks at all nodes, or those that are named, and ranks equals in an order
// of chance.
func (k *class) fill(c *plugin.Cluster, among []int32, r *rand.Rand) {
	type found struct {
		score      int64
		node, band int32
	}
	all := len(among)
	if among == nil {
		all = len(c.Nodes())
	}
	fit := make([]found, 0, all)
	for i := range all {
		f := found{node: int32(i)}
		if among != nil {
			f.node = among[i]
		}
		var ok bool
		if f.band, f.score, ok = k.rate(c, f.node); ok {
			fit = append(fit, f)
		}
	}
	r.Shuffle(len(fit), func(i, j int) { fit[i], fit[j] = fit[j], fit[i] })
	for _, f := range fit {
		k.ranking.put(f.band, f.score, f.node)
	}
}

// refresh looks again at what changed. It is false when all has to be looked
// at anew.
func (k *class) refresh(c *plugin.Cluster) bool {
	if !k.built {
		return false
	}
	if k.single {
		return c.Since(k.mark, func(int32) {})
	}
	if !c.Since(k.mark, func(node int32) { k.look(c, node) }) {
		return false
	}
	k.mark = c.Mark()
	return true
}

// look finds out anew about one node. It comes after its equals then: scores are
// coarse, and who was lucky once must not be lucky again before the rest of equal
// score.
func (k *class) look(c *plugin.Cluster, node int32) {
	if band, score, ok := k.rate(c, node); ok {
		k.ranking.put(band, score, node)
	} else {
		k.ranking.drop(node)
	}
}

// rate is the band and the score of a node; ok is false when it cannot take the
// pods.
func (k *class) rate(c *plugin.Cluster, node int32) (band int32, score int64, ok bool) {
	n := c.Nodes()[node]
	if n == nil { // it is gone, or was never there
		return 0, 0, false
	}
	for _, check := range k.quick {
		if !check.Fits(n) {
			return 0, 0, false
		}
	}
	k.view.Node = n
	for _, check := range k.local {
		if v := check.Check(&k.view); !v.OK() {
			return 0, 0, false
		}
	}
	var key bandKey
	for i, check := range k.banded {
		key[i] = check.Band(n)
	}
	for i := range k.bands {
		key[len(k.banded)+i] = k.bands[i].Band(n)
	}
	for i := range k.nodes {
		score += k.nodes[i].Score(n) * k.nodes[i].weight
	}
	return k.ranking.of(&key), score, true
}

// liveBand is a band whose nodes can take a pod.
type liveBand struct {
	key   bandKey
	best  int32 // its best node
	nodes int   // how many of its nodes can
	total int64
}

// choose is the best node for a pod of the class that passes, or none.
func (k *class) choose(d *decider, passes func(node int32) bool) int32 {
	live := d.live[:0]
	for _, b := range k.ranking.bands {
		if b.size == 0 || !k.open(b) {
			continue
		}
		l := liveBand{key: b.key, nodes: b.size}
		if passes != nil && k.counts {
			// The number of nodes that pass matters: ask each.
			l.nodes, l.best, l.total = k.ranking.count(b, passes)
		} else {
			l.best, l.total = k.ranking.first(b, passes)
		}
		if l.best == none {
			continue
		}
		live = append(live, l)
	}
	d.live = live
	if len(live) == 0 {
		return none
	}
	if len(live) > 1 {
		k.compare(d, live)
	}
	best, ties := 0, 1
	for i := 1; i < len(live); i++ {
		switch {
		case live[i].total > live[best].total:
			best, ties = i, 1
		case live[i].total == live[best].total:
			ties++
			if d.rand.IntN(ties) == 0 {
				best = i
			}
		}
	}
	return live[best].best
}

// open says that the nodes of a band can take the pods as far as the rest of
// the cluster goes.
func (k *class) open(b *band) bool {
	for i, check := range k.banded {
		if check.CheckBand(b.key[i]) != plugin.Fits {
			return false
		}
	}
	return true
}

// compare adds what the bands are worth against each other.
func (k *class) compare(d *decider, live []liveBand) {
	for len(d.scores) < len(live) {
		d.scores = append(d.scores, 0)
	}
	for i := range k.bands {
		d.asked = bandsOf(len(k.banded)+i, live, d.asked)
		k.bands[i].Scores(d.asked, d.scores[:len(live)])
		for j := range live {
			live[j].total += d.scores[j] * k.bands[i].weight
		}
	}
}
