package main

import (
	"container/heap"
	"math"

	corev1 "k8s.io/api/core/v1"
)

// balance is the standard deviation of the nodes' CPU utilisation in percent,
// and what it would be if each pod, in order, had been given the node that is
// used least: what a scorer finds that looks at all nodes each time.
func balance(nodes []corev1.Node, pods []corev1.Pod) (got, exhaustive float64) {
	has := map[string]float64{}
	used := map[string]float64{}
	var order leastUsed
	for i := range nodes {
		cpu := nodes[i].Status.Allocatable[corev1.ResourceCPU]
		has[nodes[i].Name], used[nodes[i].Name] = float64(cpu.MilliValue()), 0
		order = append(order, &usage{has: float64(cpu.MilliValue())})
	}
	heap.Init(&order)
	for i := range pods {
		p := &pods[i]
		if _, known := has[p.Spec.NodeName]; !known {
			continue
		}
		asks := requests(p)[corev1.ResourceCPU]
		used[p.Spec.NodeName] += float64(asks.MilliValue())
		order[0].used += float64(asks.MilliValue())
		heap.Fix(&order, 0)
	}
	var real, best []float64
	for name := range has {
		real = append(real, used[name]/has[name])
	}
	for _, u := range order {
		best = append(best, u.used/u.has)
	}
	return 100 * deviation(real), 100 * deviation(best)
}

func deviation(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	var sum, squares float64
	for _, v := range values {
		sum += v
		squares += v * v
	}
	mean := sum / float64(len(values))
	return math.Sqrt(max(0, squares/float64(len(values))-mean*mean))
}

type usage struct{ used, has float64 }

type leastUsed []*usage

func (l leastUsed) Len() int           { return len(l) }
func (l leastUsed) Less(i, j int) bool { return l[i].used/l[i].has < l[j].used/l[j].has }
func (l leastUsed) Swap(i, j int)      { l[i], l[j] = l[j], l[i] }
func (l *leastUsed) Push(x any)        { *l = append(*l, x.(*usage)) }
func (l *leastUsed) Pop() any {
	last := (*l)[len(*l)-1]
	*l = (*l)[:len(*l)-1]
	return last
}
