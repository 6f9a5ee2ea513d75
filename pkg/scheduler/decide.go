package scheduler

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"coracle/pkg/scheduler/plugin"
)

// framework is the plugins that decide.
type framework struct {
	filters []plugin.Filter
	scores  []plugin.Score
}

// verdict is the outcome of one decision.
type verdict struct {
	node *plugin.Node // nil when no node can take the pod
	// reasons counts, for each reason, the nodes that gave it.
	reasons map[string]int
	nodes   int // how many were looked at
}

// decide chooses the node for a pod, or says why there is none. It is pure
// but for rand, which settles ties.
func (f *framework) decide(p *plugin.Pod, nodes []*plugin.Node, r *rand.Rand) verdict {
	v := verdict{nodes: len(nodes)}
	var feasible []*plugin.Node
	for _, n := range nodes {
		if reason := f.check(p, n); reason != "" {
			v.count(reason)
			continue
		}
		feasible = append(feasible, n)
	}
	if len(feasible) > 0 {
		v.node = f.best(p, feasible, r)
	}
	return v
}

// check is the first filter's refusal.
func (f *framework) check(p *plugin.Pod, n *plugin.Node) string {
	for _, filter := range f.filters {
		if reason := filter.Check(p, n); reason != "" {
			return reason
		}
	}
	return ""
}

func (v *verdict) count(reason string) {
	if v.reasons == nil {
		v.reasons = map[string]int{}
	}
	for one := range strings.SplitSeq(reason, ", ") {
		v.reasons[one]++
	}
}

// best is the node with the highest weighted sum; ties fall at random, so
// that equal nodes fill evenly.
func (f *framework) best(p *plugin.Pod, nodes []*plugin.Node, r *rand.Rand) *plugin.Node {
	if len(nodes) == 1 {
		return nodes[0]
	}
	totals, raw := make([]int64, len(nodes)), make([]int64, len(nodes))
	for _, s := range f.scores {
		for i, n := range nodes {
			raw[i] = s.Score(p, n)
		}
		if norm, ok := s.(plugin.Normalizer); ok {
			norm.Normalize(raw)
		}
		for i := range raw {
			totals[i] += raw[i] * s.Weight()
		}
	}
	best, ties := 0, 1
	for i := 1; i < len(nodes); i++ {
		switch {
		case totals[i] > totals[best]:
			best, ties = i, 1
		case totals[i] == totals[best]:
			ties++
			if r.IntN(ties) == 0 {
				best = i
			}
		}
	}
	return nodes[best]
}

// message is the sentence that users know from pending pods.
func (v *verdict) message() string {
	if v.nodes == 0 {
		return "no nodes available to schedule pods"
	}
	lines := make([]string, 0, len(v.reasons))
	for reason, n := range v.reasons {
		lines = append(lines, fmt.Sprintf("%d %s", n, reason))
	}
	slices.Sort(lines)
	return fmt.Sprintf("0/%d nodes are available: %s.", v.nodes, strings.Join(lines, ", "))
}
