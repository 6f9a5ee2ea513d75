package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// shape is one workload of upstream's scheduler_perf, of Kubernetes v1.37.2,
// with its numbers of nodes and pods.
type shape struct {
	name string
	// floor is upstream's own threshold in pods per second, 0 where it has none.
	floor float64
	nodes []nodes
	// namespaces are made beside "default"; names with "team-" have the label
	// that selectors of namespaces ask for.
	namespaces []string
	// prepare makes whatever else there is to be.
	prepare func(context.Context, *stage) error
	// first are placed before it is measured, parked only created.
	first, parked []pods
	// refused has a scheduler refuse the parked pods before it is measured, so
	// that their conditions say so.
	refused bool
	// measured are created while no scheduler runs, and then placed.
	measured pods
	// beside is done again and again while it is measured.
	beside *churn
	// live creates the measured pods while the scheduler runs.
	live bool
	// even: all nodes and pods are alike, so that an exhaustive scorer's balance
	// can be compared.
	even bool
}

type nodes struct {
	count int
	make  func(i int) *corev1.Node
	fixed bool // not changed by -nodes and -scale
}

type pods struct {
	count     int
	namespace string // "default" if empty; with a %d, one of "over" namespaces
	over      int
	make      func() *corev1.Pod
	claims    claims
}

// claims says which volume each pod of a batch has.
type claims int

const (
	noClaims claims = iota
	inTreeClaims
	csiClaims
)

type churn struct {
	every time.Duration
	do    func(ctx context.Context, s *stage, i int) error
}

func make1(options ...podOption) func() *corev1.Pod {
	return func() *corev1.Pod { return pod(options...) }
}

var (
	twoNamespaces = []string{"sched-0", "sched-1"}
	moons         = []string{"moon-1", "moon-2", "moon-3"}
	teams         = func() (out []string) {
		for i := range 100 {
			out = append(out, fmt.Sprintf("team-%d", i))
		}
		return append(out, "team-measure")
	}()
)

// affinity is a shape of pods that care about each other.
func affinity(name string, floor float64, first, measured int, makes func() *corev1.Pod, node func(int) *corev1.Node) shape {
	return shape{name: name, floor: floor, nodes: []nodes{{count: 5000, make: node}}, namespaces: twoNamespaces,
		first: []pods{{count: first, namespace: "sched-0", make: makes}}, measured: pods{count: measured, namespace: "sched-1", make: makes}}
}

// teamAffinity is one whose pods are in a hundred namespaces.
func teamAffinity(name string, floor float64, nodeCount, each, measured int, makes func() *corev1.Pod, node func(int) *corev1.Node) shape {
	return shape{name: name, floor: floor, nodes: []nodes{{count: nodeCount, make: node}}, namespaces: teams,
		first: []pods{{count: 100 * each, namespace: "team-%d", over: 100, make: makes}}, measured: pods{count: measured, namespace: "team-measure", make: makes}}
}

// shapes are all, in the order in which they run.
func shapes() []shape {
	basic := make1()
	plain := func(n int) []nodes { return []nodes{{count: n, make: plainNode}} }
	red, green, yellow, blue := make1(near("red", false, false)), make1(apart("green", true, false)), make1(apart("yellow", false, false)), make1(near("blue", true, false))
	inMoons := []nodes{{count: 5000, make: zoned(moons...)}}
	five := pods{count: 5000, make: basic}
	lowPriority := make1(asks("cpu", "900m", "memory", "500Mi"), class(low))
	return []shape{
		{name: "basic", floor: 680, even: true, nodes: plain(5000), first: []pods{{count: 1000, make: basic}}, measured: pods{count: 10000, make: basic}},
		{name: "basic-live", floor: 680, live: true, nodes: plain(5000), first: []pods{{count: 1000, make: basic}}, measured: pods{count: 10000, make: basic}},
		{name: "basic-50k", floor: 790, even: true, nodes: plain(5000), first: []pods{five}, measured: pods{count: 50000, make: basic}},
		{name: "basic-1k-nodes", even: true, nodes: []nodes{{count: 1000, make: plainNode, fixed: true}}, measured: pods{count: 10000, make: basic}},
		{name: "basic-15k-nodes", even: true, nodes: []nodes{{count: 15000, make: plainNode, fixed: true}}, measured: pods{count: 10000, make: basic}},
		{name: "large", floor: 790, even: true, nodes: []nodes{{count: 15000, make: plainNode, fixed: true}}, first: []pods{five}, measured: pods{count: 30000, make: basic}},
		{name: "node-affinity", floor: 540, nodes: []nodes{{count: 5000, make: zoned("zone1")}}, first: []pods{five}, measured: pods{count: 10000, make: make1(inZones("zone1", "zone2"))}},
		affinity("pod-affinity", 70, 5000, 5000, blue, zoned("zone1")),
		affinity("pod-anti-affinity", 180, 1000, 2000, green, plainNode),
		{name: "matching-anti-affinity", floor: 540, nodes: plain(5000), namespaces: twoNamespaces,
			first: []pods{{count: 1000, namespace: "sched-0", make: green}}, measured: pods{count: 5000, namespace: "sched-1", make: make1(labelled("color", "green"))}},
		affinity("preferred-affinity", 160, 5000, 5000, red, plainNode),
		affinity("preferred-anti-affinity", 190, 5000, 5000, yellow, plainNode),
		{name: "mixed", floor: 540, nodes: []nodes{{count: 5000, make: zoned("zone1")}}, namespaces: twoNamespaces, first: []pods{
			{count: 2000, namespace: "sched-0", make: basic}, {count: 2000, namespace: "sched-0", make: blue}, {count: 2000, namespace: "sched-0", make: green},
			{count: 2000, namespace: "sched-0", make: red}, {count: 2000, namespace: "sched-0", make: yellow}}, measured: five},
		teamAffinity("ns-anti-affinity", 140, 6000, 40, 2000, make1(apart("green", true, true)), plainNode),
		teamAffinity("ns-preferred-anti-affinity", 180, 5000, 40, 2000, make1(apart("yellow", false, true)), plainNode),
		teamAffinity("ns-affinity", 180, 5000, 50, 2000, make1(near("blue", true, true)), zoned("zone1")),
		teamAffinity("ns-preferred-affinity", 190, 5000, 50, 5000, make1(near("red", false, true)), plainNode),
		{name: "spread", floor: 460, nodes: inMoons, first: []pods{five}, measured: pods{count: 5000, make: make1(spread(zoneKey, 5, corev1.DoNotSchedule, "color", "blue"))}},
		{name: "preferred-spread", floor: 340, nodes: inMoons, first: []pods{five}, measured: pods{count: 5000, make: make1(spread(zoneKey, 5, corev1.ScheduleAnyway, "color", "blue"))}},
		{name: "default-spread", floor: 160, nodes: inMoons, namespaces: []string{"service-ns"}, prepare: theService, first: []pods{five},
			measured: pods{count: 50000, namespace: "service-ns", make: make1(light, labelled("app", "scheduler-perf"))}},
		{name: "spread-inclusion", floor: 270, nodes: []nodes{{count: 4000, make: plainNode}, {count: 1000, make: taintedNode}},
			measured: pods{count: 4000, make: make1(spread(hostKey, 1, corev1.DoNotSchedule, "foo", "bar"), honoured)}},
		{name: "secrets", floor: 790, nodes: plain(5000), prepare: theSecret, first: []pods{{count: 1000, make: make1(secretVolume)}}, measured: pods{count: 10000, make: make1(secretVolume)}},
		{name: "in-tree-pvs", floor: 290, nodes: plain(5000), first: []pods{{count: 1000, make: basic, claims: inTreeClaims}}, measured: pods{count: 2000, make: basic, claims: inTreeClaims}},
		{name: "csi-pvs", floor: 100, nodes: plain(5000), prepare: csiNodes, first: []pods{{count: 5000, make: basic, claims: csiClaims}}, measured: pods{count: 5000, make: basic, claims: csiClaims}},
		{name: "preemption", nodes: plain(1000), first: []pods{{count: 4000, make: lowPriority}}, measured: pods{count: 1000, make: make1(asks("cpu", "3970m", "memory", "500Mi"), class(high))}},
		{name: "preemption-async", floor: 570, nodes: plain(5000), first: []pods{{count: 20000, make: lowPriority}}, measured: five,
			beside: &churn{every: 200 * time.Millisecond, do: onePod(make1(asks("cpu", "3970m", "memory", "500Mi"), class(high)))}},
		{name: "unschedulable", floor: 590, even: true, nodes: plain(5000), first: []pods{{count: 100, make: basic}}, measured: pods{count: 10000, make: basic},
			beside: &churn{every: 200 * time.Millisecond, do: onePod(make1(asks("cpu", "9", "memory", "500Mi"), class(high)))}},
		{name: "unschedulable-20k", floor: 600, even: true, nodes: plain(5000), first: []pods{{count: 20000, make: basic}}, measured: pods{count: 10000, make: basic},
			beside: &churn{every: 200 * time.Millisecond, do: onePod(make1(asks("cpu", "9", "memory", "500Mi"), class(high)))}},
		{name: "unschedulable-queue", floor: 590, even: true, refused: true, nodes: plain(5000), first: []pods{{count: 1000, make: basic}}, parked: []pods{{count: 2000, make: make1(asks("cpu", "9", "memory", "500Mi"), class(high))}},
			measured: pods{count: 10000, make: basic}},
		{name: "gated", floor: 910, nodes: []nodes{{count: 1, make: roomyNode, fixed: true}}, parked: []pods{{count: 10000, make: make1(light, gated)}}, measured: pods{count: 20000, make: make1(light)}},
		{name: "gated-affinity", floor: 750, nodes: []nodes{{count: 1, make: roomyNode, fixed: true}},
			parked:   []pods{{count: 10000, make: make1(light, near("blue", true, false), gated)}},
			measured: pods{count: 20000, make: make1(light, labelled("color", "blue"))}},
		{name: "mixed-churn", floor: 710, nodes: plain(5000), measured: pods{count: 10000, make: basic}, beside: &churn{every: time.Second, do: recreate}},
		{name: "deleted-with-finalizers", floor: 830, nodes: plain(5000), prepare: deletedPods, measured: pods{count: 5000, make: make1(light)}},
		{name: "daemonset", floor: 1100, nodes: []nodes{{count: 1, make: roomyNode, fixed: true}, {count: 15000, make: plainNode}}, measured: pods{count: 30000, make: make1(light, onNode(lastName))}},
		{name: "extended-resources", floor: 180, nodes: []nodes{{count: 5000, make: extendedNode}}, measured: pods{count: 5000, make: basic}, prepare: eachItsOwn},
	}
}

// chosen are the shapes with the names, all for none.
func chosen(names string) ([]shape, error) {
	all := shapes()
	if names == "" {
		return all, nil
	}
	var out []shape
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(all, func(s shape) bool { return s.name == name })
		if i < 0 {
			var known []string
			for _, s := range all {
				known = append(known, s.name)
			}
			return nil, fmt.Errorf("there is no shape %q: there are %s", name, strings.Join(known, ", "))
		}
		out = append(out, all[i])
	}
	return out, nil
}

func theService(ctx context.Context, s *stage) error {
	_, err := s.admin.CoreV1().Services("service-ns").Create(ctx, service("service"), metav1.CreateOptions{})
	return err
}

func service(name string) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{
		Selector: map[string]string{"app": "scheduler-perf"}, Ports: []corev1.ServicePort{{Port: 80}},
	}}
}

func theSecret(ctx context.Context, s *stage) error {
	_, err := s.admin.CoreV1().Secrets("default").Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "secret"}}, metav1.CreateOptions{})
	return err
}

func csiNodes(ctx context.Context, s *stage) error {
	return s.each(ctx, len(s.nodeNames), func(ctx context.Context, i int) error {
		_, err := s.admin.StorageV1().CSINodes().Create(ctx, csiNode(s.nodeNames[i]), metav1.CreateOptions{})
		return err
	})
}

// eachItsOwn has each measured pod ask for a resource that one node has.
func eachItsOwn(_ context.Context, s *stage) error {
	s.change = func(p *corev1.Pod, i int) {
		name := corev1.ResourceName(fmt.Sprintf("foo.com/bar-%d", i%len(s.nodeNames)))
		one := corev1.ResourceList{name: quantities("n", "1")["n"]}
		p.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: one, Limits: one}
		p.Spec.Containers[0].Ports = nil
	}
	return nil
}

// deletedPods leaves pods that wait for a finalizer.
func deletedPods(ctx context.Context, s *stage) error {
	return s.each(ctx, s.scaled(5000), func(ctx context.Context, i int) error {
		p := pod(light)
		p.Name, p.Finalizers, p.Spec.SchedulerName = fmt.Sprintf("deleted-%d", i), []string{"scheduler-perf.test.k8s.io/hold"}, "nobody"
		if _, err := s.admin.CoreV1().Pods("default").Create(ctx, p, metav1.CreateOptions{}); err != nil {
			return err
		}
		return s.admin.CoreV1().Pods("default").Delete(ctx, p.Name, metav1.DeleteOptions{})
	})
}

func onePod(makes func() *corev1.Pod) func(context.Context, *stage, int) error {
	return func(ctx context.Context, s *stage, i int) error {
		p := makes()
		p.Name = fmt.Sprintf("beside-%d", i)
		_, err := s.admin.CoreV1().Pods("default").Create(ctx, p, metav1.CreateOptions{})
		return err
	}
}

// recreate replaces a node, a pod that fits nowhere and a service.
func recreate(ctx context.Context, s *stage, i int) error {
	now := metav1.NewDeleteOptions(0)
	core := s.admin.CoreV1()
	if i > 0 {
		last := fmt.Sprintf("beside-%d", i-1)
		for _, err := range []error{core.Nodes().Delete(ctx, last, *now), core.Pods("default").Delete(ctx, last, *now), core.Services("default").Delete(ctx, last, *now)} {
			if err != nil && !apierrors.IsNotFound(err) {
				return err
			}
		}
	}
	name := fmt.Sprintf("beside-%d", i)
	// As upstream's, the node is not ready: nothing is placed there.
	n := node(name)
	n.Spec.Unschedulable = true
	if _, err := core.Nodes().Create(ctx, n, metav1.CreateOptions{}); err != nil {
		return err
	}
	if err := onePod(make1(asks("cpu", "9", "memory", "500Mi"), class(high)))(ctx, s, i); err != nil {
		return err
	}
	_, err := core.Services("default").Create(ctx, service(name), metav1.CreateOptions{})
	return err
}
