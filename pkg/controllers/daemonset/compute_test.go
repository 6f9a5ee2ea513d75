package daemonset

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"coracle/pkg/controllers/revision"
)

var epoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func set(surge, unavailable int) *appsv1.DaemonSet {
	s, u := intstr.FromInt(surge), intstr.FromInt(unavailable)
	return &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: "ds", Namespace: "ns", UID: "ds"},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "ds"}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "ds"}}},
			UpdateStrategy: appsv1.DaemonSetUpdateStrategy{
				Type:          appsv1.RollingUpdateDaemonSetStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxSurge: &s, MaxUnavailable: &u},
			},
		},
	}
}

func node(name string, taints ...corev1.Taint) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"name": name}}, Spec: corev1.NodeSpec{Taints: taints}}
}

// world is a cluster reduced to a DaemonSet, nodes and pods.
type world struct {
	ds     *appsv1.DaemonSet
	nodes  []*corev1.Node
	pods   []*corev1.Pod
	hash   string
	broken map[string]bool // hashes whose pods never become ready
	now    time.Time
	made   int
}

func (w *world) observe() observed {
	return observed{set: w.ds, nodes: w.nodes, pods: w.pods, hash: w.hash, patience: func(string) time.Duration { return 0 }}
}

// step computes and executes once; it reports whether anything was to do.
func (w *world) step() bool {
	p := compute(w.observe(), w.now)
	for _, n := range p.create {
		w.made++
		pod := podFor(w.ds, n, w.hash)
		pod.Name, pod.UID = fmt.Sprint(w.made), types.UID(fmt.Sprint(w.made))
		pod.CreationTimestamp = metav1.Time{Time: w.now}
		w.pods = append(w.pods, pod)
	}
	for _, pod := range p.remove {
		pod.DeletionTimestamp = &metav1.Time{Time: w.now}
	}
	w.now = w.now.Add(time.Second)
	return len(p.create)+len(p.remove) > 0
}

// settle lets each pod take a step with the given chance.
func (w *world) settle(chance func() bool) {
	w.pods = slices.DeleteFunc(w.pods, func(p *corev1.Pod) bool { return p.DeletionTimestamp != nil && chance() })
	for _, p := range w.pods {
		if p.Status.Phase == "" && chance() {
			p.Spec.NodeName, p.Status.Phase = nodeOf(p), corev1.PodRunning
			ready := corev1.ConditionTrue
			if w.broken[p.Labels[revision.HashLabel]] {
				ready = corev1.ConditionFalse
			}
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready, LastTransitionTime: metav1.Time{Time: w.now}}}
		}
	}
}

func always() bool { return true }

func (w *world) run(t *testing.T) {
	t.Helper()
	for range 300 {
		did := w.step()
		w.settle(always)
		if !did && !w.step() {
			return
		}
	}
	t.Fatal("does not settle")
}

// where returns the nodes of active pods, sorted, with their hash.
func (w *world) where() (out []string) {
	for _, p := range w.pods {
		if p.DeletionTimestamp == nil {
			out = append(out, nodeOf(p)+" "+p.Labels[revision.HashLabel])
		}
	}
	slices.Sort(out)
	return out
}

func TestPlacement(t *testing.T) {
	dedicated := corev1.Taint{Key: "dedicated", Effect: corev1.TaintEffectNoSchedule}
	leave := corev1.Taint{Key: "leave", Effect: corev1.TaintEffectNoExecute}
	lost := corev1.Taint{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoExecute}
	cordon := corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}
	soft := corev1.Taint{Key: "soft", Effect: corev1.TaintEffectPreferNoSchedule}
	choosy := set(0, 1)
	choosy.Spec.Template.Spec.NodeSelector = map[string]string{"name": "a"}
	for _, tc := range []struct {
		name      string
		ds        *appsv1.DaemonSet
		node      *corev1.Node
		run, stay bool
	}{
		{"any node", set(0, 1), node("a"), true, true},
		{"chosen", choosy, node("a"), true, true},
		{"not chosen", choosy, node("b"), false, false},
		{"taint keeps new pods off", set(0, 1), node("a", dedicated), false, true},
		{"taint drives pods off", set(0, 1), node("a", leave), false, false},
		{"lost, cordoned and soft taints are borne", set(0, 1), node("a", lost, cordon, soft), true, true},
	} {
		if run, stay := placement(tc.ds, tc.node); run != tc.run || stay != tc.stay {
			t.Errorf("%s: run %v, stay %v, want %v, %v", tc.name, run, stay, tc.run, tc.stay)
		}
	}
}

func TestFollowsNodes(t *testing.T) {
	w := &world{ds: set(0, 1), nodes: []*corev1.Node{node("a"), node("b")}, hash: "1", now: epoch}
	w.run(t)
	w.nodes = append(w.nodes, node("c"))
	w.run(t)
	if diff := cmp.Diff([]string{"a 1", "b 1", "c 1"}, w.where()); diff != "" {
		t.Errorf("pods (-want +got):\n%s", diff)
	}
	w.ds.Spec.Template.Spec.NodeSelector = map[string]string{"name": "b"}
	w.run(t)
	if diff := cmp.Diff([]string{"b 1"}, w.where()); diff != "" {
		t.Errorf("pods (-want +got):\n%s", diff)
	}
	s := compute(w.observe(), w.now).status
	if s.DesiredNumberScheduled != 1 || s.CurrentNumberScheduled != 1 || s.NumberAvailable != 1 || s.UpdatedNumberScheduled != 1 || s.NumberMisscheduled != 0 {
		t.Errorf("status is %+v", s)
	}
}

func TestFailedPodWaitsForPatience(t *testing.T) {
	w := &world{ds: set(0, 1), nodes: []*corev1.Node{node("a")}, hash: "1", now: epoch}
	w.run(t)
	w.pods[0].Status.Phase = corev1.PodFailed
	o := w.observe()
	o.patience = func(string) time.Duration { return time.Minute }
	p := compute(o, w.pods[0].CreationTimestamp.Add(20*time.Second))
	if len(p.remove) != 0 || p.wake != 40*time.Second {
		t.Errorf("removes %d and wakes in %v, want to wait 40 s", len(p.remove), p.wake)
	}
	p = compute(o, w.pods[0].CreationTimestamp.Add(time.Minute))
	if len(p.remove) != 1 || len(p.create) != 0 {
		t.Errorf("removes %d and creates %v, want the failed pod to go first", len(p.remove), p.create)
	}
}

func TestBrokenUpdateStopsAndRollsBack(t *testing.T) {
	w := &world{ds: set(0, 1), nodes: []*corev1.Node{node("a"), node("b"), node("c")}, hash: "1", now: epoch, broken: map[string]bool{"2": true}}
	w.run(t)
	first := map[types.UID]bool{}
	for _, p := range w.pods {
		first[p.UID] = true
	}
	w.hash = "2"
	w.run(t)
	if diff := cmp.Diff([]string{"a 2", "b 1", "c 1"}, w.where()); diff != "" {
		t.Errorf("a broken update went on (-want +got):\n%s", diff)
	}
	w.hash = "1"
	w.run(t)
	kept := 0
	for _, p := range w.pods {
		if first[p.UID] {
			kept++
		}
	}
	if kept != 2 {
		t.Errorf("%d pods that were never updated are still there, want 2", kept)
	}
}

// TestUpdateInvariants rolls random updates over random clusters: available
// nodes never fall below what maxUnavailable allows because of the plan, a
// node never has more than one pod, or two with surge, and all ends updated.
func TestUpdateInvariants(t *testing.T) {
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(seed, 3))
		surge, unavailable := r.IntN(3), 0
		if surge == 0 {
			unavailable = 1 + r.IntN(3)
		}
		w := &world{ds: set(surge, unavailable), hash: "1", now: epoch, broken: map[string]bool{}}
		for i := range 1 + r.IntN(7) {
			w.nodes = append(w.nodes, node(fmt.Sprint(i)))
		}
		w.run(t)
		for i := range 80 {
			if r.IntN(10) == 0 {
				w.hash = fmt.Sprint(r.IntN(3))
			}
			before := w.available()
			w.step()
			if after := w.available(); after < min(before, len(w.nodes)-unavailable) {
				t.Fatalf("seed %d step %d: %d nodes are served, before %d of %d, unavailable %d", seed, i, after, before, len(w.nodes), unavailable)
			}
			per := map[string]int{}
			for _, p := range w.pods {
				if p.DeletionTimestamp == nil {
					per[nodeOf(p)]++
				}
			}
			for n, count := range per {
				if count > 2 || (surge == 0 && count > 1) {
					t.Fatalf("seed %d step %d: node %s has %d pods", seed, i, n, count)
				}
			}
			w.settle(func() bool { return r.IntN(2) == 0 })
		}
		w.run(t)
		var want []string
		for _, n := range w.nodes {
			want = append(want, n.Name+" "+w.hash)
		}
		if diff := cmp.Diff(want, w.where()); diff != "" {
			t.Fatalf("seed %d ends (-want +got):\n%s", seed, diff)
		}
	}
}

// available counts the nodes with an available pod.
func (w *world) available() int {
	nodes := map[string]bool{}
	for _, p := range w.pods {
		if p.DeletionTimestamp == nil && isAvailable(w.ds, p, w.now) {
			nodes[nodeOf(p)] = true
		}
	}
	return len(nodes)
}
