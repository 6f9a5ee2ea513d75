package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// bound is a pod that was bound to a node as the n-th.
func bound(p *corev1.Pod, n int, node string) corev1.Pod {
	p.Name, p.Namespace, p.ResourceVersion, p.Spec.NodeName = fmt.Sprint("p", n), "default", strconv.Itoa(n), node
	return *p
}

// TestReplay plants a breach of each rule among bindings that keep it.
func TestReplay(t *testing.T) {
	alike := func(n int, change func(i int, n *corev1.Node)) (out []corev1.Node) {
		for i := range n {
			made := plainNode(i)
			change(i, made)
			out = append(out, *made)
		}
		return out
	}
	asIs := func(int, *corev1.Node) {}
	zone := func(i int, n *corev1.Node) { n.Labels[zoneKey] = fmt.Sprint("z", i%2) }
	port := func(p *corev1.Pod) { p.Spec.Containers[0].Ports[0].HostPort = 80 }
	blueHere := func(p *corev1.Pod) {
		near("blue", true, false)(p)
		p.Spec.Affinity.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution[0].Namespaces = nil
	}
	greenHere := func(p *corev1.Pod) {
		apart("green", true, false)(p)
		p.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution[0].Namespaces = nil
	}
	skewed := spread(zoneKey, 1, corev1.DoNotSchedule, "color", "blue")
	for _, tt := range []struct {
		name  string
		nodes []corev1.Node
		pods  []*corev1.Pod
		on    []int // numbers of nodes
		want  []int // numbers of pods that are wrong
	}{
		{"room", alike(2, asIs), []*corev1.Pod{pod(asks("cpu", "3")), pod(asks("cpu", "1")), pod(asks("cpu", "1")), pod(asks("cpu", "4"))}, []int{0, 0, 0, 1}, []int{2}},
		{"number", alike(1, func(_ int, n *corev1.Node) { n.Status.Allocatable["pods"] = quantities("n", "1")["n"] }), []*corev1.Pod{pod(), pod()}, []int{0, 0}, []int{1}},
		{"taint", alike(2, func(i int, n *corev1.Node) {
			if i == 1 {
				n.Spec.Taints = taintedNode(0).Spec.Taints
			}
		}), []*corev1.Pod{pod(), pod()}, []int{0, 1}, []int{1}},
		{"unschedulable", alike(1, func(_ int, n *corev1.Node) { n.Spec.Unschedulable = true }), []*corev1.Pod{pod()}, []int{0}, []int{0}},
		{"node affinity", alike(2, zone), []*corev1.Pod{pod(inZones("z0")), pod(inZones("z0")), pod(onNode(nodeName(1)))}, []int{0, 1, 1}, []int{1}},
		{"host port", alike(2, asIs), []*corev1.Pod{pod(port), pod(port), pod(port)}, []int{0, 1, 1}, []int{2}},
		{"affinity", alike(4, zone), []*corev1.Pod{pod(blueHere), pod(blueHere), pod(blueHere)}, []int{0, 2, 1}, []int{2}},
		{"anti-affinity", alike(2, asIs), []*corev1.Pod{pod(greenHere), pod(greenHere), pod(greenHere)}, []int{0, 1, 0}, []int{2}},
		{"anti-affinity of the other", alike(2, asIs), []*corev1.Pod{pod(greenHere), pod(labelled("color", "green")), pod(labelled("color", "green"))}, []int{0, 1, 0}, []int{2}},
		{"spreading", alike(2, zone), []*corev1.Pod{pod(skewed), pod(skewed), pod(skewed), pod(skewed)}, []int{0, 1, 0, 0}, []int{3}},
		{"no node", nil, []*corev1.Pod{pod()}, []int{0}, []int{0}},
	} {
		var pods []corev1.Pod
		for i, p := range tt.pods {
			pods = append(pods, bound(p, i, nodeName(tt.on[i])))
		}
		slices.Reverse(pods) // the order of the store is what counts
		var got []string
		for _, why := range replay(tt.nodes, nil, pods, nil) {
			got = append(got, strings.Fields(why)[0])
		}
		var want []string
		for _, n := range tt.want {
			want = append(want, fmt.Sprint("default/p", n))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v are wrong, want %v", tt.name, got, want)
		}
	}
}

// TestReplayTogether: what was under way together has no order.
func TestReplayTogether(t *testing.T) {
	nodes := []corev1.Node{*plainNode(0), *plainNode(1)}
	skewed := spread(hostKey, 1, corev1.DoNotSchedule, "color", "blue")
	pods := []corev1.Pod{bound(pod(skewed), 0, nodeName(0)), bound(pod(skewed), 1, nodeName(0)), bound(pod(skewed), 2, nodeName(1))}
	at := func(ms ...int) span {
		return span{time.UnixMilli(int64(ms[0])), time.UnixMilli(int64(ms[1]))}
	}
	together := map[string]span{"default/p0": at(0, 10), "default/p1": at(20, 40), "default/p2": at(20, 50)}
	if got := replay(nodes, nil, pods, together); len(got) != 0 {
		t.Errorf("under way together, but %v", got)
	}
	after := map[string]span{"default/p0": at(0, 10), "default/p1": at(20, 40), "default/p2": at(41, 50)}
	if got := replay(nodes, nil, pods, after); len(got) != 1 {
		t.Errorf("one after another, but %v", got)
	}
}

func TestBalance(t *testing.T) {
	nodes := []corev1.Node{*plainNode(0), *plainNode(1)}
	even := []corev1.Pod{bound(pod(), 0, nodeName(0)), bound(pod(), 1, nodeName(1))}
	if got, best := balance(nodes, even); got != 0 || best != 0 {
		t.Errorf("one pod on each: %v, exhaustive %v", got, best)
	}
	uneven := []corev1.Pod{bound(pod(), 0, nodeName(0)), bound(pod(), 1, nodeName(0))}
	if got, best := balance(nodes, uneven); math.Abs(got-2.5) > 1e-9 || best != 0 {
		t.Errorf("both on one, 5 %% and nothing: %v, want 2.5; exhaustive %v", got, best)
	}
}

// TestShapes: each can be asked for, and its pods of different batches can be
// told apart by their first letter.
func TestShapes(t *testing.T) {
	seen := map[string]bool{}
	for _, sh := range shapes() {
		if seen[sh.name] || sh.name == "" {
			t.Errorf("two shapes are named %q", sh.name)
		}
		seen[sh.name] = true
		if len(sh.nodes) == 0 || sh.measured.count == 0 || sh.measured.make == nil {
			t.Errorf("%s: nothing to measure", sh.name)
		}
		if one, err := chosen(sh.name); err != nil || len(one) != 1 || one[0].name != sh.name {
			t.Errorf("%s cannot be chosen: %v", sh.name, err)
		}
	}
	if _, err := chosen("none"); err == nil || !strings.Contains(err.Error(), "basic") {
		t.Errorf("an unknown shape: %v, want it to name those that there are", err)
	}
}

func TestBindings(t *testing.T) {
	b := &bindings{at: map[string]span{}}
	end := time.UnixMilli(5)
	for _, path := range []string{"/api/v1/namespaces/a/pods/measured-1/binding", "/api/v1/namespaces/a/pods/measured-1/binding", "/api/v1/namespaces/a/pods/first-1/binding", "/x"} {
		b.add(path, span{time.UnixMilli(1), end})
	}
	if n, last := b.count("measured"); n != 1 || !last.Equal(end) {
		t.Errorf("%d measured pods are bound, the last at %v", n, last)
	}
}

func TestLine(t *testing.T) {
	f := figures{nodes: 5000, wanted: 10000, bound: 10000, rate: 6800, spread: 0.5, best: 0.4, events: 7, eventsThen: 3}
	got := f.result(&shape{name: "basic", floor: 680}, ceiling{bind: 13600}).line(false, ceiling{})
	for _, want := range []string{"basic ", "5000 nodes", "10000 pods", "6800 pods/s", "floor  680 x  10.0", "0.50 of raw", "events 3 then 7", "violations 0", "balance 0.500 % (exhaustive 0.400 %)"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
}
