package scheduler

import (
	"math/rand/v2"

	"coracle/pkg/scheduler/plugin"
)

// decider chooses nodes. It is pure but for rand, which settles ties.
type decider struct {
	profile *plugin.Profile
	cluster *plugin.Cluster
	rand    *rand.Rand
}

// decide is the best node for a pod, or nil. The attempt says why there is
// none.
func (d *decider) decide(p *plugin.Pod) (*plugin.Node, *attempt) {
	a := prepare(d.profile, d.cluster, p)
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
		return nil, a
	case 1:
		return feasible[0], a
	}
	return d.best(feasible, totals(d.profile, d.cluster, p, feasible)), a
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
