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
	turn    uint32      // of the last node that changed; falls
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
	if among != nil {
		for _, node := range among {
			k.look(c, node, firstTurns|r.Uint32())
		}
		return
	}
	for i := range c.Nodes() {
		k.look(c, int32(i), firstTurns|r.Uint32())
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
	changed := func(node int32) {
		k.turn--
		k.look(c, node, k.turn%firstTurns)
	}
	if !c.Since(k.mark, changed) {
		return false
	}
	k.mark = c.Mark()
	return true
}

// firstTurns are the turns of nodes that did not change since the class was
// built, in an order of chance. A node that changes, for a pod was placed there,
// has its turn after all others: scores are coarse, and who was lucky once must
// not be lucky again before the rest of equal score.
const firstTurns = 1 << 31

// look finds out anew about one node, which has the turn among its equals.
func (k *class) look(c *plugin.Cluster, node int32, turn uint32) {
	n := c.Nodes()[node]
	if n == nil { // it is gone, or was never there
		k.ranking.drop(node)
		return
	}
	for _, check := range k.quick {
		if !check.Fits(n) {
			k.ranking.drop(node)
			return
		}
	}
	k.view.Node = n
	for _, check := range k.local {
		if v := check.Check(&k.view); !v.OK() {
			k.ranking.drop(node)
			return
		}
	}
	var key bandKey
	for i, check := range k.banded {
		key[i] = check.Band(n)
	}
	for i := range k.bands {
		key[len(k.banded)+i] = k.bands[i].Band(n)
	}
	var score int64
	for i := range k.nodes {
		score += k.nodes[i].Score(n) * k.nodes[i].weight
	}
	k.ranking.put(&key, rated{score, turn, node})
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
		if len(b.heap) == 0 || !k.open(b) {
			continue
		}
		nodes, best := len(b.heap), (*rated)(nil)
		if passes != nil && k.counts {
			// The number of nodes that pass matters: ask each.
			nodes, best = count(b, passes)
		} else {
			best = k.ranking.first(b, passes)
		}
		if best == nil {
			continue
		}
		live = append(live, liveBand{key: b.key, best: best.node, nodes: nodes, total: best.score})
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

// count is how many nodes of a band pass, and the best of them.
func count(b *band, passes func(node int32) bool) (nodes int, best *rated) {
	for i := range b.heap {
		n := &b.heap[i]
		if !passes(n.node) {
			continue
		}
		nodes++
		if best == nil || n.better(best) {
			best = n
		}
	}
	return nodes, best
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
