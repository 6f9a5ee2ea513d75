package scheduler

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/scheduler/plugin"
)

// shape is a workload of upstream's scheduler_perf: pods that are there when
// the measurement begins, and pods that are measured.
type shape struct {
	name           string
	nodes          int
	zones          int // 0 means that nodes have no zone
	init, measured int
	first, then    func(p *corev1.Pod, i int)
	namespaces     int  // that init pods are spread over, labelled team=devops
	service        bool // a Service selects the pods
	fail           bool // the measured pods fit nowhere
	churn          int  // after each so many pods, one is deleted and a node changes
	cordons        bool // that node is also tainted, or no more
	alone          bool // each pod needs a node of its own: there are as many more as there are nodes
}

func benchNode(i, zones int) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("node-%d", i)}}
	n.Labels = map[string]string{corev1.LabelHostname: n.Name, corev1.LabelOSStable: "linux", corev1.LabelArchStable: "amd64"}
	if zones > 0 {
		n.Labels[corev1.LabelTopologyZone] = fmt.Sprintf("zone%d", i%zones+1)
	}
	n.Status.Allocatable = corev1.ResourceList{"cpu": resource.MustParse("4"), "memory": resource.MustParse("32Gi"), "pods": resource.MustParse("110"), "example.com/gpu": resource.MustParse("4")}
	return n
}

func benchPod(name, namespace string, i int, change func(*corev1.Pod, int)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%d", name, i), Namespace: namespace, UID: types.UID(fmt.Sprintf("%s-%s-%d", namespace, name, i))}}
	p.Spec.Containers = []corev1.Container{{Name: "pause", Image: "registry.k8s.io/pause:3.10.2", Resources: corev1.ResourceRequirements{
		Requests: corev1.ResourceList{"cpu": resource.MustParse("100m"), "memory": resource.MustParse("500Mi")}}}}
	if change != nil {
		change(p, i)
	}
	return p
}

func labelled(color string) func(*corev1.Pod, int) {
	return func(p *corev1.Pod, _ int) { p.Labels = map[string]string{"color": color} }
}

func both(fs ...func(*corev1.Pod, int)) func(*corev1.Pod, int) {
	return func(p *corev1.Pod, i int) {
		for _, f := range fs {
			f(p, i)
		}
	}
}

// near and apart give a pod a term of affinity or anti-affinity to a color.
func near(color, key string, preferred bool, teams bool) func(*corev1.Pod, int) {
	return func(p *corev1.Pod, _ int) {
		p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{}}
		a := p.Spec.Affinity.PodAffinity
		if t := colorTerm(color, key, teams); preferred {
			a.PreferredDuringSchedulingIgnoredDuringExecution = []corev1.WeightedPodAffinityTerm{{Weight: 1, PodAffinityTerm: t}}
		} else {
			a.RequiredDuringSchedulingIgnoredDuringExecution = []corev1.PodAffinityTerm{t}
		}
	}
}

func apart(color, key string, preferred bool, teams bool) func(*corev1.Pod, int) {
	return func(p *corev1.Pod, _ int) {
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{}}
		a := p.Spec.Affinity.PodAntiAffinity
		if t := colorTerm(color, key, teams); preferred {
			a.PreferredDuringSchedulingIgnoredDuringExecution = []corev1.WeightedPodAffinityTerm{{Weight: 1, PodAffinityTerm: t}}
		} else {
			a.RequiredDuringSchedulingIgnoredDuringExecution = []corev1.PodAffinityTerm{t}
		}
	}
}

func colorTerm(color, key string, teams bool) corev1.PodAffinityTerm {
	t := corev1.PodAffinityTerm{TopologyKey: key, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"color": color}}}
	if teams {
		t.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "devops"}}
	} else {
		t.Namespaces = []string{"sched-0", "sched-1"}
	}
	return t
}

func spreadBy(action corev1.UnsatisfiableConstraintAction) func(*corev1.Pod, int) {
	return func(p *corev1.Pod, _ int) {
		p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{MaxSkew: 5, TopologyKey: corev1.LabelTopologyZone, WhenUnsatisfiable: action,
			LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"color": "blue"}}}}
	}
}

func shapes() []shape {
	const host, zone = corev1.LabelHostname, corev1.LabelTopologyZone
	cpu := func(q string) func(*corev1.Pod, int) {
		return func(p *corev1.Pod, _ int) { p.Spec.Containers[0].Resources.Requests["cpu"] = resource.MustParse(q) }
	}
	list := []shape{
		{name: "Basic", init: 1000, measured: 10000},
		{name: "NodeAffinity", zones: 4, init: 5000, measured: 10000, then: func(p *corev1.Pod, _ int) {
			p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: zone, Operator: corev1.NodeSelectorOpIn, Values: []string{"zone1", "zone2"}}}}}}}}
		}},
		{name: "PodAffinity", zones: 1, init: 5000, measured: 5000, first: both(labelled("blue"), near("blue", zone, false, false))},
		{name: "PodAntiAffinity", alone: true, init: 1000, measured: 2000, first: both(labelled("green"), apart("green", host, false, false))},
		{name: "PodMatchingAntiAffinity", alone: true, init: 1000, measured: 5000, first: both(labelled("green"), apart("green", host, false, false)), then: labelled("green")},
		{name: "PreferredPodAffinity", init: 5000, measured: 5000, first: both(labelled("red"), near("red", host, true, false))},
		{name: "PreferredPodAntiAffinity", init: 5000, measured: 5000, first: both(labelled("yellow"), apart("yellow", host, true, false))},
		{name: "RequiredAntiAffinityNSSelector", alone: true, init: 4000, measured: 1000, namespaces: 100, first: both(labelled("green"), apart("green", host, false, true))},
		{name: "PreferredAntiAffinityNSSelector", init: 4000, measured: 2000, namespaces: 100, first: both(labelled("yellow"), apart("yellow", host, true, true))},
		{name: "RequiredAffinityNSSelector", zones: 1, init: 5000, measured: 2000, namespaces: 100, first: both(labelled("blue"), near("blue", zone, false, true))},
		{name: "PreferredAffinityNSSelector", init: 5000, measured: 5000, namespaces: 100, first: both(labelled("red"), near("red", host, true, true))},
		{name: "TopologySpread", zones: 3, init: 5000, measured: 5000, then: both(labelled("blue"), spreadBy(corev1.DoNotSchedule))},
		{name: "PreferredTopologySpread", zones: 3, init: 5000, measured: 5000, then: both(labelled("blue"), spreadBy(corev1.ScheduleAnyway))},
		{name: "DefaultTopologySpread", zones: 3, init: 5000, measured: 50000, service: true, then: labelled("blue")},
		{name: "ExtendedResource", init: 1000, measured: 4000, then: func(p *corev1.Pod, _ int) {
			p.Spec.Containers[0].Resources.Requests["example.com/gpu"] = resource.MustParse("1")
		}},
		{name: "Unschedulable", init: 1000, measured: 5000, then: cpu("9"), fail: true},
		{name: "MixedChurn", init: 1000, measured: 10000, churn: 1},
		{name: "NodeChurn", zones: 3, init: 1000, measured: 10000, churn: 1, cordons: true, then: both(labelled("blue"), spreadBy(corev1.DoNotSchedule))},
		{name: "DaemonSet", alone: true, nodes: 15000, measured: 15000, then: func(p *corev1.Pod, i int) {
			p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{fmt.Sprintf("node-%d", i%15000)}}}}}}}}
		}},
		{name: "StatefulLabels", zones: 3, init: 1000, measured: 2000, service: true, then: func(p *corev1.Pod, i int) {
			p.Labels = map[string]string{"color": "blue", "statefulset.kubernetes.io/pod-name": p.Name, "apps.kubernetes.io/pod-index": fmt.Sprint(i)}
		}},
	}
	for i := range list {
		if list[i].nodes == 0 {
			list[i].nodes = 5000
		}
		if list[i].then == nil {
			list[i].then = list[i].first
		}
	}
	return list
}

type benchOwners struct{ on bool }

func (o benchOwners) Version() uint64 { return 0 }

func (o benchOwners) Selector(g *plugin.Group, _ plugin.Owner) labels.Selector {
	if s := labels.SelectorFromSet(labels.Set{"color": "blue"}); o.on && s.Matches(g.Labels) {
		return s
	}
	return labels.NewSelector()
}

// start makes the cluster of a shape with its first pods, and the others.
func (s *shape) start(b testing.TB) (*decider, []*plugin.Pod) {
	c, in := plugin.NewCluster(), plugin.NewInterner()
	profile, err := plugin.NewProfile(defaultPlugins(), plugin.Handles{Owners: benchOwners{s.service}})
	if err != nil {
		b.Fatal(err)
	}
	for _, ns := range []string{"sched-0", "sched-1"} {
		c.SetNamespace(ns, map[string]string{"team": "devops"})
	}
	for i := range s.namespaces {
		c.SetNamespace(fmt.Sprintf("init-%d", i), map[string]string{"team": "devops"})
	}
	for i := range s.nodes {
		c.SetNode(plugin.FactsOf(benchNode(i, s.zones)))
	}
	d := newDecider(profile, c, rand.New(rand.NewPCG(1, 2)))
	for i := range s.init {
		ns := "sched-0"
		if s.namespaces > 0 {
			ns = fmt.Sprintf("init-%d", i%s.namespaces)
		}
		p := in.Pod(benchPod("init", ns, i, s.first))
		n := d.decide(p)
		if n == nil {
			b.Fatalf("init pod %d has no node: %s", i, d.explain(p).message())
		}
		c.Place(p, n.Name)
	}
	var pods []*plugin.Pod
	for i := range s.measured {
		pods = append(pods, in.Pod(benchPod("measured", "sched-1", i, s.then)))
	}
	return d, pods
}

// run places the pods.
func (s *shape) run(b testing.TB, d *decider, pods []*plugin.Pod) {
	changed := plugin.FactsOf(benchNode(0, s.zones))
	for i, p := range pods {
		n := d.decide(p)
		if (n == nil) != s.fail {
			b.Fatalf("pod %d: node %v", i, n)
		}
		if n == nil {
			d.explain(p)
			continue
		}
		d.cluster.PlaceOn(p, n)
		if s.churn > 0 && i%s.churn == 0 && i > 0 {
			again := *changed
			again.MaxPods += int64(i)
			if s.cordons && i%2 == 0 {
				again.Taints = []corev1.Taint{{Key: "k", Effect: corev1.TaintEffectNoSchedule}}
			}
			d.cluster.SetNode(&again)
			d.cluster.Remove(pods[i-1].UID)
		}
	}
}

// on is the shape on another number of nodes.
func (s shape) on(nodes int) shape {
	if s.alone {
		s.init, s.measured = s.init*nodes/s.nodes, s.measured*nodes/s.nodes
	}
	s.nodes, s.measured = nodes, min(s.measured, 20*nodes)
	return s
}

// sizes are the numbers of nodes that each shape is measured with.
var sizes = []int{1000, 5000, 15000}

// cpuTime is what the process has used, which other processes do not lengthen.
func cpuTime(b *testing.B) time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// BenchmarkShapes measures decisions alone: records in, placements out, with
// what is found out first about each node.
func BenchmarkShapes(b *testing.B) {
	for _, s := range shapes() {
		for _, nodes := range sizes {
			b.Run(fmt.Sprintf("%s/%d", s.name, nodes), func(b *testing.B) {
				s, placed, cpu := s.on(nodes), 0, time.Duration(0)
				for b.Loop() {
					b.StopTimer()
					d, pods := s.start(b)
					runtime.GC()
					before := cpuTime(b)
					b.StartTimer()
					s.run(b, d, pods)
					cpu += cpuTime(b) - before
					placed += len(pods)
				}
				b.ReportMetric(float64(placed)/cpu.Seconds(), "pods/cpu-s")
				b.ReportMetric(float64(placed)/b.Elapsed().Seconds(), "pods/s")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// BenchmarkMemory reports what the records of a pod take, with names and UIDs
// of their own and labels shared by a hundred.
func BenchmarkMemory(b *testing.B) {
	const pods = 100_000
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for b.Loop() {
		s := shape{nodes: 5000, zones: 3, service: true}
		d, _ := s.start(b)
		in := plugin.NewInterner()
		before := heap()
		for i := range pods {
			p := in.Pod(benchPod("p", "sched-0", i, func(p *corev1.Pod, i int) {
				p.Labels = map[string]string{"color": "blue", "app": fmt.Sprint(i / 100)}
			}))
			if i%100 < 40 {
				d.cluster.Place(p, fmt.Sprintf("node-%d", i%5000))
			} else if n := d.decide(p); n != nil {
				d.cluster.Place(p, n.Name)
			}
		}
		b.ReportMetric(float64(heap()-before)/pods, "B/pod")
		runtime.KeepAlive(d)
	}
}
