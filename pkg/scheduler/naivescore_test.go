package scheduler

import (
	"math"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// scores are the weighted sums of the default profile for feasible nodes.
func (w *naive) scores(p *corev1.Pod, nodes []*corev1.Node) []int64 {
	sums := make([]int64, len(nodes))
	add := func(weight int64, scores []int64) {
		for i := range scores {
			sums[i] += weight * scores[i]
		}
	}
	each := func(f func(n *corev1.Node) int64) []int64 {
		out := make([]int64, len(nodes))
		for i, n := range nodes {
			out[i] = f(n)
		}
		return out
	}
	add(3, scaled(each(func(n *corev1.Node) int64 { return w.softTaints(p, n) }), true))
	if a := p.Spec.Affinity; a != nil && a.NodeAffinity != nil && a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution != nil {
		terms, _ := nodeaffinity.NewPreferredSchedulingTerms(a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
		add(2, scaled(each(terms.Score), false))
	}
	add(1, each(func(n *corev1.Node) int64 { return w.leastAllocated(p, n) }))
	if request(p, "cpu", 0)+request(p, "memory", 0) > 0 {
		add(1, each(func(n *corev1.Node) int64 { return 50 + (50+w.balance(p, n, 1)-w.balance(p, n, 0))/2 }))
	}
	add(1, each(func(n *corev1.Node) int64 { return w.imageScore(p, n) }))
	add(2, w.evenness(p, nodes))
	add(2, w.company(p, nodes))
	return sums
}

func scaled(raw []int64, reverse bool) []int64 {
	var top int64
	for _, v := range raw {
		top = max(top, v)
	}
	out := make([]int64, len(raw))
	for i, v := range raw {
		if top > 0 {
			out[i] = 100 * v / top
		}
		if reverse {
			out[i] = 100 - out[i]
		}
	}
	return out
}

func (w *naive) softTaints(p *corev1.Pod, n *corev1.Node) int64 {
	var count int64
	for i := range n.Spec.Taints {
		if t := &n.Spec.Taints[i]; t.Effect == corev1.TaintEffectPreferNoSchedule && !tolerates(p, t) {
			count++
		}
	}
	return count
}

func (w *naive) leastAllocated(p *corev1.Pod, n *corev1.Node) int64 {
	var sum, weights int64
	for name, floor := range floorsOf {
		capacity := allocatable(n, name)
		if capacity == 0 {
			continue
		}
		used := request(p, name, floor)
		for _, q := range w.on(n) {
			used += request(q, name, floor)
		}
		if used <= capacity {
			sum += (capacity - used) * 100 / capacity
		}
		weights++
	}
	if weights == 0 {
		return 0
	}
	return sum / weights
}

func (w *naive) balance(p *corev1.Pod, n *corev1.Node, times int64) int64 {
	var fractions []float64
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		capacity := allocatable(n, name)
		if capacity == 0 {
			continue
		}
		used := request(p, name, 0) * times
		for _, q := range w.on(n) {
			used += request(q, name, 0)
		}
		fractions = append(fractions, min(float64(used)/float64(capacity), 1))
	}
	if len(fractions) < 2 {
		return 100
	}
	return int64((1 - math.Abs((fractions[0]-fractions[1])/2)) * 100)
}

func (w *naive) imageScore(p *corev1.Pod, n *corev1.Node) int64 {
	has := func(m *corev1.Node) int64 {
		for _, image := range m.Status.Images {
			if image.Names[0] == p.Spec.Containers[0].Image+":latest" {
				return image.SizeBytes
			}
		}
		return 0
	}
	nodes, size := 0, has(n)
	for _, m := range w.nodes {
		if has(m) > 0 {
			nodes++
		}
	}
	sum := int64(float64(size) * (float64(nodes) / float64(len(w.nodes))))
	return 100 * (min(max(sum, 23<<20), 1000<<20) - 23<<20) / (977 << 20)
}

func (w *naive) evenness(p *corev1.Pod, nodes []*corev1.Node) []int64 {
	list, own := w.constraints(p, corev1.ScheduleAnyway)
	out := make([]int64, len(nodes))
	if len(list) == 0 {
		return out
	}
	ignored := func(n *corev1.Node) bool { return own && !hasAll(n, list) }
	raw := make([]float64, len(nodes))
	for i := range list {
		c := &list[i]
		host := c.TopologyKey == corev1.LabelHostname
		values, kept := map[string]int64{}, 0
		for _, n := range nodes {
			if !ignored(n) {
				kept++
				values[n.Labels[c.TopologyKey]] = 0
			}
		}
		size := len(values)
		if host {
			size = kept
		}
		for _, m := range w.nodes {
			if !ignored(m) && w.included(p, m, c) {
				if _, ok := values[m.Labels[c.TopologyKey]]; ok {
					values[m.Labels[c.TopologyKey]] += w.matching(m, c, p.Namespace)
				}
			}
		}
		for j, n := range nodes {
			value, ok := n.Labels[c.TopologyKey]
			if !ok || ignored(n) {
				continue
			}
			count := values[value]
			if host {
				count = w.matching(n, c, p.Namespace)
			}
			raw[j] += float64(count)*math.Log(float64(size+2)) + float64(c.MaxSkew-1)
		}
	}
	least, most := int64(math.MaxInt64), int64(0)
	for j, n := range nodes {
		if !ignored(n) {
			v := int64(math.Round(raw[j]))
			least, most = min(least, v), max(most, v)
		}
	}
	for j, n := range nodes {
		switch {
		case ignored(n):
		case most == 0:
			out[j] = 100
		default:
			out[j] = 100 * (most + least - int64(math.Round(raw[j]))) / most
		}
	}
	return out
}

func (w *naive) company(p *corev1.Pod, nodes []*corev1.Node) []int64 {
	raw, out := make([]int64, len(nodes)), make([]int64, len(nodes))
	with, away := affinityOf(p)
	for _, m := range w.nodes {
		for _, q := range w.on(m) {
			count := func(holder *corev1.Pod, t *corev1.PodAffinityTerm, about *corev1.Pod, weight int64) {
				value, ok := m.Labels[t.TopologyKey]
				if !ok || !w.means(holder, t, about) {
					return
				}
				for j, n := range nodes {
					if v, ok := n.Labels[t.TopologyKey]; ok && v == value {
						raw[j] += weight
					}
				}
			}
			for _, t := range with.PreferredDuringSchedulingIgnoredDuringExecution {
				count(p, &t.PodAffinityTerm, q, int64(t.Weight))
			}
			for _, t := range away.PreferredDuringSchedulingIgnoredDuringExecution {
				count(p, &t.PodAffinityTerm, q, -int64(t.Weight))
			}
			theirs, aways := affinityOf(q)
			for _, t := range theirs.RequiredDuringSchedulingIgnoredDuringExecution {
				count(q, &t, p, 1)
			}
			for _, t := range theirs.PreferredDuringSchedulingIgnoredDuringExecution {
				count(q, &t.PodAffinityTerm, p, int64(t.Weight))
			}
			for _, t := range aways.PreferredDuringSchedulingIgnoredDuringExecution {
				count(q, &t.PodAffinityTerm, p, -int64(t.Weight))
			}
		}
	}
	least, most := int64(math.MaxInt64), int64(math.MinInt64)
	for _, v := range raw {
		least, most = min(least, v), max(most, v)
	}
	for j, v := range raw {
		if most > least {
			out[j] = int64(100 * (float64(v-least) / float64(most-least)))
		}
	}
	return out
}
