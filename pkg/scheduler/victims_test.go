package scheduler

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	configv1 "k8s.io/kube-scheduler/config/v1"

	"coracle/pkg/scheduler/plugin"
)

// ranked is a pod of a priority that asks for cpu, in thousandths, and has run
// since a minute of the hour.
func ranked(name string, priority int32, cpu int64, minute int, change ...func(*corev1.Pod)) *corev1.Pod {
	p := benchPod(name, "sched-0", 0, nil)
	p.Name, p.UID = name, types.UID(name)
	p.Spec.Priority = &priority
	p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{"cpu": *resource.NewMilliQuantity(cpu, resource.DecimalSI)}
	p.Status.StartTime = &metav1.Time{Time: theHour.Add(time.Duration(minute) * time.Minute)}
	for _, f := range change {
		f(p)
	}
	return p
}

var theHour = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func app(name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Labels = map[string]string{"app": name} }
}

func hostPort(port int32) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: port, Protocol: corev1.ProtocolTCP}}
	}
}

// guard is a budget that leaves so many pods of an app.
func guard(name string, allowed int32, disrupted ...string) *budget {
	b := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "sched-0"}}
	b.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}
	b.Status.DisruptionsAllowed = allowed
	b.Status.DisruptedPods = map[string]metav1.Time{}
	for _, pod := range disrupted {
		b.Status.DisruptedPods[pod] = metav1.Time{}
	}
	return newBudget(b)
}

// preemptionFor looks for room for a pod on a node of 4 cpus with others.
func preemptionFor(t *testing.T, pod *corev1.Pod, there []*corev1.Pod, budgets ...*budget) (*preemption, *plugin.Node) {
	t.Helper()
	records, in := plugin.NewCluster(), plugin.NewInterner()
	profile, err := plugin.NewProfile([]plugin.Enabled{{Name: "NodePorts"}, {Name: "NodeResourcesFit"}}, plugin.Handles{})
	if err != nil {
		t.Fatal(err)
	}
	records.SetNode(plugin.FactsOf(benchNode(0, 0)))
	for _, q := range there {
		records.Place(in.Pod(q), "node-0")
	}
	percent, absolute := int32(10), int32(100)
	return &preemption{
		attempt: prepare(profile, records, in.Pod(pod)), budgets: budgets, now: theHour.Add(time.Hour), rand: rand.New(rand.NewPCG(1, 1)),
		args: &configv1.DefaultPreemptionArgs{MinCandidateNodesPercentage: &percent, MinCandidateNodesAbsolute: &absolute},
	}, records.Node("node-0")
}

func podNames(list []*plugin.Pod) []string {
	out := []string{}
	for _, p := range list {
		out = append(out, p.Name)
	}
	return out
}

// TestVictims: who goes, in which order, and how many of them a budget guards.
func TestVictims(t *testing.T) {
	none := []string{}
	for _, c := range []struct {
		name       string
		pod        *corev1.Pod
		there      []*corev1.Pod
		budgets    []*budget
		want       []string
		violations int
	}{
		{"the least important of equals in size", ranked("in", 5, 1000, 0), []*corev1.Pod{ranked("a", 1, 2000, 0), ranked("b", 2, 2000, 0)}, nil, []string{"a"}, 0},
		{"of one priority who started last", ranked("in", 5, 1000, 0), []*corev1.Pod{ranked("new", 1, 2000, 9), ranked("old", 1, 2000, 1)}, nil, []string{"new"}, 0},
		{"not more than needed", ranked("in", 5, 2000, 0), []*corev1.Pod{ranked("a", 1, 1500, 0), ranked("b", 1, 500, 1), ranked("c", 1, 2000, 2)}, nil, []string{"c"}, 0},
		{"the most important first", ranked("in", 5, 4000, 0), []*corev1.Pod{ranked("a", 1, 1000, 0), ranked("b", 3, 1000, 0), ranked("c", 2, 1000, 0)}, nil, []string{"b", "c", "a"}, 0},
		{"who has the port, not who has the cpu", ranked("in", 5, 100, 0, hostPort(80)), []*corev1.Pod{ranked("a", 1, 3000, 0), ranked("b", 2, 100, 0, hostPort(80))}, nil, []string{"b"}, 0},
		{"nobody of the same priority", ranked("in", 1, 3000, 0), []*corev1.Pod{ranked("a", 1, 3000, 0)}, nil, none, 0},
		{"nobody when it does not help", ranked("in", 5, 3000, 0), []*corev1.Pod{ranked("a", 1, 1000, 0), ranked("b", 9, 2000, 0)}, nil, none, 0},
		{"nobody when it fits", ranked("in", 5, 1000, 0), []*corev1.Pod{ranked("a", 1, 1000, 0)}, nil, none, 0},
		{"rather the more important than the guarded", ranked("in", 5, 2000, 0),
			[]*corev1.Pod{ranked("a", 1, 2000, 0, app("x")), ranked("b", 2, 2000, 0, app("y"))}, []*budget{guard("x", 0)}, []string{"b"}, 0},
		{"the guarded when all must go", ranked("in", 5, 4000, 0),
			[]*corev1.Pod{ranked("a", 1, 2000, 0, app("x")), ranked("b", 2, 2000, 0, app("y"))}, []*budget{guard("x", 0)}, []string{"b", "a"}, 1},
		{"the guarded within what is allowed", ranked("in", 5, 4000, 0),
			[]*corev1.Pod{ranked("a", 1, 2000, 0, app("x")), ranked("b", 2, 2000, 0, app("x"))}, []*budget{guard("x", 1)}, []string{"b", "a"}, 1},
	} {
		p, n := preemptionFor(t, c.pod, c.there, c.budgets...)
		got, verdict := p.victims(n)
		if got == nil {
			got = &candidate{}
			if verdict.OK() {
				t.Errorf("%s: no candidate and no reason", c.name)
			}
		}
		if names := podNames(got.victims); !slices.Equal(names, c.want) || got.violations != c.violations {
			t.Errorf("%s: victims %v, %d against a budget; want %v, %d", c.name, names, got.violations, c.want, c.violations)
		}
	}
}

// TestVictimsAreMinimal compares with all sets of survivors there are: the one
// kept is the first that leaves room, where who is guarded counts before who
// matters more. So none of the victims could stay.
func TestVictimsAreMinimal(t *testing.T) {
	r, outcomes := rand.New(rand.NewPCG(4, 2)), map[string]int{}
	for round := range 3000 {
		var there []*corev1.Pod
		for i := range r.IntN(8) {
			q := ranked(fmt.Sprintf("p%d", i), r.Int32N(5), 100*r.Int64N(15), r.IntN(4), app(string(rune('a'+r.IntN(3)))))
			if r.IntN(4) == 0 {
				hostPort(80 + r.Int32N(2))(q)
			}
			there = append(there, q)
		}
		in := ranked("in", 1+r.Int32N(5), 100*r.Int64N(45), 0)
		if r.IntN(3) == 0 {
			hostPort(80)(in)
		}
		p, n := preemptionFor(t, in, there, guard("a", r.Int32N(3)), guard("b", r.Int32N(2)))
		var lower, stays []*plugin.Pod
		for _, q := range n.Pods {
			if q.Priority < p.attempt.pod.Priority {
				lower = append(lower, q)
			} else {
				stays = append(stays, q)
			}
		}
		slices.SortFunc(lower, p.byImportance)
		protected, free := protect(lower, p.budgets)
		order := slices.Concat(protected, free)
		want := -1 // the survivors; the first of order is the highest bit
		for set := 1<<len(order) - 1; set >= 0; set-- {
			left := slices.Clone(stays)
			for i, q := range order {
				if set>>(len(order)-1-i)&1 == 1 {
					left = append(left, q)
				}
			}
			if roomBeside(p.attempt.pod, left) {
				want = set
				break
			}
		}
		got, _ := p.victims(n)
		switch impossible := want < 0 || want == 1<<len(order)-1; {
		case impossible != (got == nil):
			t.Fatalf("round %d: candidate %v, but survivors %b of %d", round, got, want, len(order))
		case impossible:
			outcomes["none"]++
			continue
		}
		violations := 0
		for i, q := range order {
			survives := want>>(len(order)-1-i)&1 == 1
			if survives == slices.Contains(got.victims, q) {
				t.Fatalf("round %d: victims %v of %v, but survivors are %b", round, podNames(got.victims), podNames(order), want)
			}
			if !survives && i < len(protected) {
				violations++
			}
		}
		if got.violations != violations || !slices.IsSortedFunc(got.victims, p.byImportance) {
			t.Fatalf("round %d: %d victims against a budget, want %d; in order %v", round, got.violations, violations, podNames(got.victims))
		}
		outcomes[fmt.Sprintf("%d against budgets", violations)]++
	}
	if outcomes["none"] < 100 || outcomes["0 against budgets"] < 100 || outcomes["1 against budgets"] < 100 {
		t.Errorf("the rounds say little: %v", outcomes)
	}
}

// roomBeside says that a node of 4 cpus and 110 pods takes a pod beside others.
func roomBeside(p *plugin.Pod, others []*plugin.Pod) bool {
	cpu := p.Shape.Requests.MilliCPU
	for _, q := range others {
		cpu += q.Shape.Requests.MilliCPU
		for _, port := range q.Shape.Ports {
			if slices.Contains(p.Shape.Ports, port) {
				return false
			}
		}
	}
	return p.Shape.Requests.MilliCPU == 0 || cpu <= 4000
}

// TestProtect: which pods a budget keeps from leaving, in order.
func TestProtect(t *testing.T) {
	in := plugin.NewInterner()
	var pods []*plugin.Pod
	for _, name := range []string{"a1", "b1", "a2", "bare", "a3"} {
		change := app(name[:1])
		if name == "bare" {
			change = func(*corev1.Pod) {}
		}
		pods = append(pods, in.Pod(ranked(name, 1, 100, 0, change)))
	}
	elsewhere := guard("a", 0)
	elsewhere.namespace = "sched-1"
	for _, c := range []struct {
		name    string
		budgets []*budget
		want    []string
	}{
		{"no budget", nil, []string{}},
		{"nothing allowed", []*budget{guard("a", 0)}, []string{"a1", "a2", "a3"}},
		{"the first may go", []*budget{guard("a", 1)}, []string{"a2", "a3"}},
		{"enough allowed", []*budget{guard("a", 3), guard("b", 1)}, []string{}},
		{"more are gone than allowed", []*budget{guard("b", -1)}, []string{"b1"}},
		{"who is on the way out takes nothing", []*budget{guard("a", 1, "a1")}, []string{"a3"}},
		{"two budgets", []*budget{guard("a", 2), guard("a", 1)}, []string{"a2", "a3"}},
		{"of another namespace", []*budget{elsewhere}, []string{}},
	} {
		protected, free := protect(pods, c.budgets)
		rest := slices.DeleteFunc(podNames(pods), func(n string) bool { return slices.Contains(c.want, n) })
		if !slices.Equal(podNames(protected), c.want) || !slices.Equal(podNames(free), rest) {
			t.Errorf("%s: %v are protected and %v are not, want %v and %v", c.name, podNames(protected), podNames(free), c.want, rest)
		}
	}
	for name, selector := range map[string]*metav1.LabelSelector{"no": nil, "empty": {}} {
		b := &policyv1.PodDisruptionBudget{Spec: policyv1.PodDisruptionBudgetSpec{Selector: selector}}
		b.Namespace = "sched-0"
		made := newBudget(b)
		if made == nil {
			continue
		}
		if protected, _ := protect(pods, []*budget{made}); len(protected) > 0 {
			t.Errorf("a budget with %s selector protects %v", name, podNames(protected))
		}
	}
}

// TestPick goes down the rules: each pair differs in one and all later ones
// speak for the other.
func TestPick(t *testing.T) {
	in := plugin.NewInterner()
	p := &preemption{now: theHour.Add(time.Hour)}
	made := 0
	of := func(violations int, victims ...[2]int) *candidate {
		c := &candidate{violations: violations}
		for _, v := range victims {
			made++
			c.victims = append(c.victims, in.Pod(ranked(fmt.Sprint("v", made), int32(v[0]), 100, v[1])))
		}
		return c
	}
	for _, c := range []struct {
		name         string
		better, than *candidate
	}{
		{"fewest against budgets", of(0, [2]int{9, 0}, [2]int{9, 0}), of(1, [2]int{1, 5})},
		{"lowest highest priority", of(0, [2]int{3, 0}, [2]int{3, 0}, [2]int{3, 0}), of(0, [2]int{4, 5})},
		{"lowest sum", of(0, [2]int{4, 0}, [2]int{-9, 0}), of(0, [2]int{4, 5}, [2]int{1, 5})},
		{"a second victim is never less", of(0, [2]int{4, 0}), of(0, [2]int{4, 5}, [2]int{-2000000000, 5})},
		{"who started last", of(0, [2]int{4, 7}, [2]int{1, 0}), of(0, [2]int{4, 6}, [2]int{1, 9})},
		{"the first of the most important counts", of(0, [2]int{4, 8}, [2]int{4, 7}), of(0, [2]int{4, 9}, [2]int{4, 6})},
	} {
		if got := p.pick([]*candidate{c.than, c.better}); got != c.better {
			t.Errorf("%s: the worse one was picked from behind", c.name)
		}
		if got := p.pick([]*candidate{c.better, c.than}); got != c.better {
			t.Errorf("%s: the worse one was picked from the front", c.name)
		}
	}
	if p.pick(nil) != nil {
		t.Error("something was picked of nothing")
	}
}

// TestNoSearchWithoutLowerPriority: nodes are not looked at when there is
// nobody to displace on any; those here cannot be.
func TestNoSearchWithoutLowerPriority(t *testing.T) {
	p, _ := preemptionFor(t, ranked("in", 5, 3000, 0), []*corev1.Pod{ranked("a", 5, 3000, 0), ranked("b", 6, 100, 0)})
	best, message := p.search(&diagnosis{nodes: 3, preemptible: []*plugin.Node{nil, nil}})
	const want = "0/3 nodes are available: 1 Preemption is not helpful for scheduling, 2 No preemption victims found for incoming pod."
	if best != nil || message != want {
		t.Errorf("found %v: %q, want nothing: %q", best, message, want)
	}
	// The answer is that of the search.
	p, n := preemptionFor(t, ranked("in", 5, 3000, 0), []*corev1.Pod{ranked("a", 5, 3000, 0)})
	p.attempt.cluster.Place(plugin.NewInterner().Pod(ranked("low", 1, 100, 0)), "not-known")
	const searched = "0/1 nodes are available: 1 No preemption victims found for incoming pod."
	if best, message := p.search(&diagnosis{nodes: 1, preemptible: []*plugin.Node{n}}); best != nil || message != searched {
		t.Errorf("found %v: %q, want nothing: %q", best, message, searched)
	}
}
