package scheduler

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/scheduler/plugin"
)

// world drives a decider and the naive one through the same events.
type world struct {
	t *testing.T
	r *rand.Rand
	naive
	records  *plugin.Cluster
	interner *plugin.Interner
	decider  *decider
	version  uint64
	made     int
	restless int // percent of the steps in which a node changes instead of a pod
}

func newWorld(t *testing.T, seed uint64, narrow int) *world {
	w := &world{t: t, r: rand.New(rand.NewPCG(seed, 1)), records: plugin.NewCluster(), interner: plugin.NewInterner()}
	w.records.Narrow = narrow
	w.namespaces = map[string]map[string]string{}
	profile, err := plugin.NewProfile(defaultPlugins(), plugin.Handles{Owners: w})
	if err != nil {
		t.Fatal(err)
	}
	w.decider = newDecider(profile, w.records, w.r)
	for _, ns := range []string{"a", "b", "c"} {
		w.setNamespace(ns)
	}
	return w
}

// Selector implements plugin.Owners.
func (w *world) Selector(g *plugin.Group, _ plugin.Owner) labels.Selector {
	all := labels.Set{}
	for _, s := range w.services {
		if s.Namespace == g.Namespace && labels.SelectorFromSet(s.Spec.Selector).Matches(g.Labels) {
			all = labels.Merge(all, s.Spec.Selector)
		}
	}
	return all.AsSelector()
}

// Version implements plugin.Owners.
func (w *world) Version() uint64 { return w.version }

func (w *world) one(of ...string) string { return of[w.r.IntN(len(of))] }

func (w *world) chance(percent int) bool { return w.r.IntN(100) < percent }

func (w *world) setNamespace(name string) {
	of := map[string]string{"team": w.one("x", "y")}
	w.namespaces[name] = of
	w.records.SetNamespace(name, of)
}

func (w *world) nodeObject(name string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{}}}
	if w.chance(90) {
		n.Labels[corev1.LabelHostname] = name
	}
	if w.chance(85) {
		n.Labels[corev1.LabelTopologyZone] = w.one("z1", "z2", "z3")
	}
	if w.chance(80) {
		n.Labels["rack"] = w.one("r1", "r2", "r3", "r4", "r5")
	}
	n.Labels["disk"] = w.one("ssd", "hdd")
	n.Spec.Unschedulable = w.chance(5)
	for _, effect := range []corev1.TaintEffect{corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule} {
		if w.chance(15) {
			n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: "k", Value: w.one("v", "w"), Effect: effect})
		}
	}
	n.Status.Allocatable = corev1.ResourceList{
		"cpu": resource.MustParse(w.one("1", "2", "4")), "memory": resource.MustParse(w.one("2Gi", "4Gi")),
		"pods": resource.MustParse(w.one("3", "6", "20")), "example.com/gpu": resource.MustParse(w.one("0", "2")),
	}
	if w.chance(40) {
		n.Status.Images = []corev1.ContainerImage{{Names: []string{"big:latest"}, SizeBytes: 800 << 20}}
	}
	return n
}

func (w *world) setNode(name string) {
	n := w.nodeObject(name)
	if i := slices.IndexFunc(w.nodes, func(m *corev1.Node) bool { return m.Name == name }); i >= 0 {
		if w.chance(60) { // change little
			changed := w.nodes[i].DeepCopy()
			changed.Status.Allocatable = n.Status.Allocatable
			n = changed
		}
		w.nodes[i] = n
	} else {
		w.nodes = append(w.nodes, n)
	}
	w.records.SetNode(plugin.FactsOf(n))
}

func (w *world) selector() *metav1.LabelSelector {
	switch w.r.IntN(6) {
	case 0:
		return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: metav1.LabelSelectorOpIn, Values: []string{"a", "b"}}}}
	case 1:
		return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"a"}}}}
	case 2:
		return &metav1.LabelSelector{}
	}
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": w.one("a", "b", "c")}}
}

func (w *world) term() corev1.PodAffinityTerm {
	t := corev1.PodAffinityTerm{TopologyKey: w.one(corev1.LabelHostname, corev1.LabelTopologyZone, "rack"), LabelSelector: w.selector()}
	switch w.r.IntN(4) {
	case 0:
		t.Namespaces = []string{w.one("a", "b")}
	case 1:
		t.NamespaceSelector = &metav1.LabelSelector{}
		if w.chance(70) {
			t.NamespaceSelector.MatchLabels = map[string]string{"team": w.one("x", "y")}
		}
	}
	return t
}

func (w *world) podObject() *corev1.Pod {
	w.made++
	name := fmt.Sprintf("p%d", w.made)
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: w.one("a", "b", "c"), UID: types.UID(name), Labels: map[string]string{"app": w.one("a", "b", "c")}}}
	p.Spec.Containers = []corev1.Container{{Name: "c", Image: w.one("big", "small")}}
	c := &p.Spec.Containers[0]
	c.Resources.Requests = corev1.ResourceList{}
	if w.chance(70) {
		c.Resources.Requests["cpu"] = resource.MustParse(w.one("100m", "500m", "1"))
	}
	if w.chance(50) {
		c.Resources.Requests["memory"] = resource.MustParse(w.one("100Mi", "1Gi"))
	}
	if w.chance(10) {
		c.Resources.Requests["example.com/gpu"] = resource.MustParse("1")
	}
	if w.chance(10) {
		c.Ports = []corev1.ContainerPort{{HostPort: int32(80 + w.r.IntN(2)), Protocol: corev1.ProtocolTCP}}
	}
	if w.chance(20) {
		p.Spec.Tolerations = []corev1.Toleration{{Key: "k", Operator: corev1.TolerationOpEqual, Value: w.one("v", "w")}}
	}
	if w.chance(15) {
		p.Spec.NodeSelector = map[string]string{"disk": w.one("ssd", "hdd")}
	}
	w.wish(p)
	return p
}

// wish gives a pod some of what refers to other pods or prefers nodes.
func (w *world) wish(p *corev1.Pod) {
	a := &corev1.Affinity{}
	if w.chance(10) {
		a.NodeAffinity = &corev1.NodeAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{Weight: 5,
			Preference: corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "disk", Operator: corev1.NodeSelectorOpIn, Values: []string{"ssd"}}}}}}}
	}
	if w.chance(20) {
		a.PodAffinity = &corev1.PodAffinity{}
		for range 1 + w.r.IntN(2) {
			if w.chance(50) {
				a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution = append(a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution, w.term())
			} else {
				a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution = append(a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution,
					corev1.WeightedPodAffinityTerm{Weight: int32(1 + w.r.IntN(50)), PodAffinityTerm: w.term()})
			}
		}
	}
	if w.chance(20) {
		a.PodAntiAffinity = &corev1.PodAntiAffinity{}
		if w.chance(50) {
			a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution = []corev1.PodAffinityTerm{w.term()}
		} else {
			a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution = []corev1.WeightedPodAffinityTerm{{Weight: 10, PodAffinityTerm: w.term()}}
		}
	}
	if *a != (corev1.Affinity{}) {
		p.Spec.Affinity = a
	}
	for range w.r.IntN(3) {
		if !w.chance(40) {
			continue
		}
		c := corev1.TopologySpreadConstraint{
			MaxSkew: int32(1 + w.r.IntN(2)), TopologyKey: w.one(corev1.LabelHostname, corev1.LabelTopologyZone, "rack"), LabelSelector: w.selector(),
			WhenUnsatisfiable: corev1.UnsatisfiableConstraintAction(w.one(string(corev1.DoNotSchedule), string(corev1.ScheduleAnyway))),
		}
		if w.chance(20) {
			c.MatchLabelKeys = []string{"app"}
		}
		if c.WhenUnsatisfiable == corev1.DoNotSchedule && w.chance(30) {
			c.MinDomains = new(int32)
			*c.MinDomains = int32(1 + w.r.IntN(4))
		}
		honor, ignore := corev1.NodeInclusionPolicyHonor, corev1.NodeInclusionPolicyIgnore
		if w.chance(20) {
			c.NodeAffinityPolicy = &ignore
		}
		if w.chance(30) {
			c.NodeTaintsPolicy = &honor
		}
		p.Spec.TopologySpreadConstraints = append(p.Spec.TopologySpreadConstraints, c)
	}
}

// place decides for a pod, compares with the naive decision, and puts it there.
func (w *world) place(p *corev1.Pod) {
	w.t.Helper()
	record := w.interner.Pod(p)
	got := w.decider.decide(record)
	var feasible []*corev1.Node
	reasons := map[string]int{}
	for _, n := range w.nodes {
		if why := w.filter(p, n); len(why) == 0 {
			feasible = append(feasible, n)
		} else {
			for _, reason := range why {
				reasons[reason]++
			}
		}
	}
	if len(feasible) == 0 {
		if got != nil {
			w.t.Fatalf("%s goes to %s, which refuses: %v\npod %+v", p.Name, got.Name, reasons, p.Spec)
		}
		if why := w.decider.explain(record); !maps.Equal(why.reasons, reasons) && len(w.nodes) > 0 {
			w.t.Fatalf("%s is refused because of %v, want %v\npod %+v", p.Name, why.reasons, reasons, p.Spec)
		}
		return
	}
	if got == nil {
		w.t.Fatalf("%s has no node, want one of %d: %v\npod %+v", p.Name, len(feasible), w.decider.explain(record).reasons, p.Spec)
	}
	i := slices.IndexFunc(feasible, func(n *corev1.Node) bool { return n.Name == got.Name })
	if i < 0 {
		w.t.Fatalf("%s goes to %s, which refuses: %v\npod %+v", p.Name, got.Name, w.filter(p, got.Object), p.Spec)
	}
	if scores := w.scores(p, feasible); len(feasible) > 1 && scores[i] != slices.Max(scores) {
		var names []string
		for _, n := range feasible {
			names = append(names, n.Name)
		}
		w.t.Fatalf("%s goes to %s with score %d, best is %d: %v %v\npod %+v", p.Name, got.Name, scores[i], slices.Max(scores), names, scores, p.Spec)
	}
	p.Spec.NodeName = got.Name
	w.pods = append(w.pods, p)
	w.records.Place(record, got.Name)
}

// whatIf asks whether a pod could go to a node without some of the pods there,
// and with another one.
func (w *world) whatIf() {
	w.t.Helper()
	if len(w.nodes) == 0 {
		return
	}
	n := w.nodes[w.r.IntN(len(w.nodes))]
	p, added := w.podObject(), w.podObject()
	v := plugin.ViewOf(w.records.Node(n.Name))
	was := slices.Clone(w.pods)
	defer func() { w.pods = was }()
	w.pods = slices.DeleteFunc(slices.Clone(w.pods), func(q *corev1.Pod) bool {
		gone := q.Spec.NodeName == n.Name && w.chance(50) && q.DeletionTimestamp == nil
		if gone {
			record, _ := w.records.Placed(q.UID)
			v.Remove(record)
		}
		return gone
	})
	if w.chance(50) {
		v.Add(w.interner.Pod(added))
		added.Spec.NodeName = n.Name
		w.pods = append(w.pods, added)
	}
	got := prepare(w.decider.profile, w.records, w.interner.Pod(p)).check(v)
	if want := w.filter(p, n); !slices.Equal(got.Reasons, want) {
		w.t.Fatalf("what if, on %s, %d pods less and %d more: %q, want %q\npod %+v", n.Name, len(v.Removed), len(v.Added), got.Reasons, want, p.Spec)
	}
}

func (w *world) step() {
	w.t.Helper()
	w.whatIf()
	switch dice := w.r.IntN(100); {
	case dice < 70-w.restless:
		p := w.podObject()
		for range 1 + w.r.IntN(4) { // several of one shape
			w.made++
			q := p.DeepCopy()
			q.Name, q.UID = fmt.Sprintf("p%d", w.made), types.UID(fmt.Sprintf("p%d", w.made))
			w.place(q)
		}
	case dice < 85-w.restless && len(w.pods) > 0:
		i := w.r.IntN(len(w.pods))
		if p := w.pods[i]; w.chance(20) { // it is being deleted
			now := metav1.Now()
			p.DeletionTimestamp = &now
			w.records.Place(w.interner.Pod(p), p.Spec.NodeName)
		} else {
			w.records.Remove(p.UID)
			w.pods = slices.Delete(w.pods, i, i+1)
		}
	case dice < 92:
		w.setNode(fmt.Sprintf("n%d", w.r.IntN(12)))
	case dice < 94 && len(w.nodes) > 2:
		i := w.r.IntN(len(w.nodes))
		w.records.DeleteNode(w.nodes[i].Name)
		w.nodes = slices.Delete(w.nodes, i, i+1)
	case dice < 97:
		w.setNamespace(w.one("a", "b", "c"))
	default:
		w.services = []*corev1.Service{{ObjectMeta: metav1.ObjectMeta{Namespace: w.one("a", "b", "c")}, Spec: corev1.ServiceSpec{Selector: map[string]string{"app": w.one("a", "b")}}}}
		w.version++
	}
}

// TestAgreesWithNaive: over random clusters, pods and events, with topologies
// narrow and wide, the decision is one that the naive evaluator would make.
func TestAgreesWithNaive(t *testing.T) {
	for seed := range uint64(40) {
		for _, narrow := range []int{64, 0, 3} {
			t.Run(fmt.Sprintf("%d/%d", seed, narrow), func(t *testing.T) {
				w := newWorld(t, seed, narrow)
				w.restless = 30 * int(seed%2)
				for i := range 3 + w.r.IntN(9) {
					w.setNode(fmt.Sprintf("n%d", i))
				}
				for range 60 {
					w.step()
				}
			})
		}
	}
}
