package scheduler

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/scheduler/config"
	"coracle/pkg/scheduler/queue"
)

// gangWorld is a cluster whose API is played by the test: what is decided takes
// its time, and bindings may fail.
type gangWorld struct {
	t   *testing.T
	r   *rand.Rand
	c   *cluster
	now time.Time
	// what is true: rooms by node, groups, pods by UID.
	rooms  map[string]int
	groups map[string]*schedulingv1beta1.PodGroup
	pods   map[types.UID]*gangPod
	under  []func()
	serial int
	fails  int // of a hundred bindings
	gates  bool
}

type gangPod struct {
	*corev1.Pod
	node  string // assumed or bound
	bound bool
}

func newGangWorld(t *testing.T, seed uint64) *gangWorld {
	w := &gangWorld{
		t: t, r: rand.New(rand.NewPCG(seed, 1)), c: newCluster(config.Default()), now: time.Unix(1000, 0),
		rooms: map[string]int{}, groups: map[string]*schedulingv1beta1.PodGroup{}, pods: map[types.UID]*gangPod{},
	}
	profiles, err := newProfiles(config.Default(), w.c, w.r)
	if err != nil {
		t.Fatal(err)
	}
	w.c.profiles = profiles
	w.c.setNamespace(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, false, w.now)
	return w
}

func (w *gangWorld) addNode(rooms int) {
	w.serial++
	n := benchNode(w.serial, 0)
	n.Status.Allocatable[corev1.ResourceCPU] = *resource.NewQuantity(int64(rooms), resource.DecimalSI)
	w.rooms[n.Name] = rooms
	w.c.setNode(n, w.now)
}

func (w *gangWorld) setGroup(name string, minCount int32) {
	g := &schedulingv1beta1.PodGroup{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID(name)}}
	g.Spec.SchedulingPolicy.Gang = &schedulingv1beta1.GangSchedulingPolicy{MinCount: minCount}
	w.groups[name] = g
	w.c.setPodGroup(g, false, w.now)
}

func (w *gangWorld) addPod(group string) {
	w.serial++
	p := benchPod("pod", "default", w.serial, func(p *corev1.Pod, _ int) {
		p.Spec.SchedulerName = corev1.DefaultSchedulerName
		p.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU] = resource.MustParse("1")
		if group != "" {
			p.Spec.SchedulingGroup = &corev1.PodSchedulingGroup{PodGroupName: &group}
			if w.gates && w.r.IntN(3) == 0 {
				p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "wait"}}
			}
		}
	})
	w.pods[p.UID] = &gangPod{Pod: p}
	w.c.setPod(p, w.now)
}

// ungate takes the scheduling gates off a pod.
func (w *gangWorld) ungate() {
	for _, uid := range slices.Sorted(maps.Keys(w.pods)) {
		if p := w.pods[uid]; len(p.Spec.SchedulingGates) > 0 {
			p.Spec.SchedulingGates = nil
			w.c.setPod(p.Pod, w.now)
			return
		}
	}
}

func (w *gangWorld) deletePod(uid types.UID) {
	delete(w.pods, uid)
	w.c.deletePod(uid, w.now)
}

// members are the pods of a group that are on a node, or that are not
// and could be.
func (w *gangWorld) members(group string, placed bool) []*gangPod {
	var out []*gangPod
	for _, p := range w.pods {
		if g := p.Spec.SchedulingGroup; g != nil && *g.PodGroupName == group && (p.node != "") == placed && len(p.Spec.SchedulingGates) == 0 {
			out = append(out, p)
		}
	}
	return out
}

// attempt decides once and checks what was decided.
func (w *gangWorld) attempt() bool {
	e, o, _ := w.c.attempt(func() time.Time { return w.now })
	if e == nil {
		return false
	}
	if o.gang == nil {
		w.decided(e, &o)
		return true
	}
	if !o.gang.placed {
		for _, m := range o.gang.members {
			if m.o.node != "" || w.pods[m.e.UID].node != "" {
				w.t.Fatalf("%s of a refused group is on node %q", m.e.UID, m.o.node)
			}
		}
		w.under = append(w.under, func() { w.c.gangFailed(o.gang, w.now) })
		return true
	}
	for i := range o.gang.members {
		w.decided(o.gang.members[i].e, &o.gang.members[i].o)
	}
	group := w.groups[o.gang.key.name]
	if placed := len(w.members(group.Name, true)); placed < int(group.Spec.SchedulingPolicy.Gang.MinCount) {
		w.t.Fatalf("%d pods of %s are placed, at least %d at once are wanted", placed, group.Name, group.Spec.SchedulingPolicy.Gang.MinCount)
	}
	return true
}

func (w *gangWorld) decided(e *entry, o *outcome) {
	if o.node == "" {
		filters := o.why.filters
		w.under = append(w.under, func() { w.c.failed(e, queue.Refusal{Plugins: filters}, w.now) })
		return
	}
	w.pods[e.UID].node = o.node
	used := map[string]int{}
	for _, p := range w.pods {
		used[p.node]++
	}
	if used[o.node] > w.rooms[o.node] {
		w.t.Fatalf("%d pods are on node %s with room for %d", used[o.node], o.node, w.rooms[o.node])
	}
	w.under = append(w.under, func() {
		p := w.pods[e.UID]
		if p == nil || w.r.IntN(100) < w.fails {
			if p != nil {
				p.node = ""
			}
			w.c.undo(e, w.now)
			return
		}
		p.bound = true
		p.Spec.NodeName = p.node
		w.c.setPod(p.Pod, w.now)
	})
}

func (w *gangWorld) finish(i int) {
	do := w.under[i]
	w.under = slices.Delete(w.under, i, i+1)
	do()
}

func (w *gangWorld) anyGroup() string {
	return slices.Sorted(maps.Keys(w.groups))[w.r.IntN(len(w.groups))]
}

func (w *gangWorld) step() {
	switch w.r.IntN(14) {
	case 0:
		w.setGroup(w.anyGroup(), 1+w.r.Int32N(5))
	case 1, 2, 3:
		w.addPod(w.anyGroup())
	case 4:
		w.addPod("")
	case 5, 6:
		if uids := slices.Sorted(maps.Keys(w.pods)); len(uids) > 0 {
			w.deletePod(uids[w.r.IntN(len(uids))])
		}
	case 7:
		if len(w.rooms) < 5 {
			w.addNode(1 + w.r.IntN(3))
		}
	case 8:
		w.now = w.now.Add(time.Duration(w.r.IntN(3000)) * time.Millisecond)
	case 9, 10:
		w.attempt()
	case 11, 12:
		w.ungate()
	case 13:
		if len(w.under) > 0 {
			w.finish(w.r.IntN(len(w.under)))
		}
	}
}

// settle lets all come to rest, without the flush of what waited for long.
func (w *gangWorld) settle() {
	for range 5000 {
		if w.attempt() {
			continue
		}
		if len(w.under) > 0 {
			w.finish(w.r.IntN(len(w.under)))
			continue
		}
		next := w.c.queue.Next()
		if next.IsZero() || next.Sub(w.now) > queue.FlushAfter/2 {
			return
		}
		w.now = next
	}
	w.t.Fatal("the cluster does not come to rest")
}

// check finds groups that wait although there is room for them.
func (w *gangWorld) check() {
	free := 0
	for _, rooms := range w.rooms {
		free += rooms
	}
	for _, p := range w.pods {
		if p.node != "" {
			free--
		}
	}
	for name, g := range w.groups {
		waiting, placed, least := len(w.members(name, false)), len(w.members(name, true)), int(g.Spec.SchedulingPolicy.Gang.MinCount)
		if w.c.gangs.byKey[gangKey{"default", name}].gates > 0 {
			continue // nobody goes before all may
		}
		need := max(least-placed, 1)
		if waiting >= need && free >= need {
			w.t.Fatalf("%d pods of %s wait and %d are placed of at least %d, and there is room for %d", waiting, name, placed, least, free)
		}
	}
	for uid, p := range w.pods {
		if p.Spec.SchedulingGroup == nil && p.node == "" && free > 0 {
			w.t.Fatalf("%s waits beside room for %d", uid, free)
		}
	}
}

// TestGangsAllOrNothing runs random operations on groups that compete for the
// same room: what is placed of a group is never less than it wants at once, and
// at rest no group waits beside room enough for it.
func TestGangsAllOrNothing(t *testing.T) {
	for seed := range uint64(150) {
		w := newGangWorld(t, seed)
		w.fails, w.gates = 10, true
		w.addNode(2)
		for i := range 3 {
			w.setGroup(fmt.Sprint("group", i), 1+w.r.Int32N(5))
		}
		for range 4 {
			for range 50 {
				w.step()
			}
			w.settle()
			w.check()
		}
	}
}

// TestTwoGangsOneRoom: of two groups of which one has room, one is placed and
// the other one is not, whatever the order in which their pods come.
func TestTwoGangsOneRoom(t *testing.T) {
	for seed := range uint64(20) {
		w := newGangWorld(t, seed)
		for range 3 {
			w.addNode(2)
		}
		w.setGroup("a", 4)
		w.setGroup("b", 4)
		order := []string{"a", "a", "a", "a", "b", "b", "b", "b"}
		w.r.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for _, group := range order {
			w.addPod(group)
			if w.r.IntN(2) == 0 {
				w.attempt()
			}
		}
		w.settle()
		a, b := len(w.members("a", true)), len(w.members("b", true))
		if a+b != 4 || a*b != 0 {
			t.Fatalf("%d pods of one group and %d of the other are placed, want 4 and 0", a, b)
		}
		for uid, p := range w.pods {
			if p.node != "" {
				w.deletePod(uid)
			}
		}
		w.settle()
		if a+len(w.members("a", true)) != 4 || b+len(w.members("b", true)) != 4 {
			t.Fatalf("the other group is not placed when the first is gone")
		}
	}
}
