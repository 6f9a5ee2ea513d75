package lifecycle

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
)

// ReasonResize is why a container stops that must be started anew to take
// other resources.
const ReasonResize = "Resize"

// Pending says why the node has not set aside what the pod's spec asks for.
type Pending struct {
	Reason  string // corev1.PodReasonDeferred or corev1.PodReasonInfeasible
	Message string
}

// resizable are the resources that can change while a container runs.
func resizable() []corev1.ResourceName {
	return []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory}
}

// resize brings cgroup and containers of a pod that runs to what it was
// allocated: first the cgroup is made wide enough for what was before and for
// what comes, then containers change, then, by a later decision, the cgroup is
// narrowed to what they need.
func (c *computation) resize() {
	var ids []string
	for _, m := range c.members {
		if m.outdated() && !m.resizeRestarts() && !c.busy(StartContainer, m.spec.Name) && !c.busy(StopContainer, m.latest.ID) {
			ids = append(ids, m.latest.ID)
		}
	}
	if len(ids) == 0 && c.fitted() {
		return
	}
	if c.retryable(Key{Kind: ResizePod}) {
		c.do(Action{Kind: ResizePod, Cgroup: c.wantedCgroup(), Containers: ids})
	}
}

// wantedCgroup is the version of the pod that its cgroup should leave room for
// now. It is not narrowed while a container is being started, perhaps with
// what was allocated before.
func (c *computation) wantedCgroup() *corev1.Pod {
	out := Widest(c.Pod, c.Containers, c.Cgroup)
	if c.Cgroup != nil && c.starting() && !SameResources(c.Cgroup, out) {
		return union(c.Cgroup, out)
	}
	return out
}

// fitted tells whether the pod's cgroup has the limits that it should have now.
func (c *computation) fitted() bool {
	return c.Cgroup == nil || SameResources(c.Cgroup, c.wantedCgroup())
}

// roomy tells whether a container made with what is allocated fits into the
// pod's cgroup, and will.
func (c *computation) roomy() bool {
	if c.busy(ResizePod, "") {
		return false
	}
	return c.fitted() || SameResources(c.Cgroup, union(c.wantedCgroup(), c.Cgroup))
}

// union returns pod with the higher of what it and other have.
func union(other, pod *corev1.Pod) *corev1.Pod {
	out := pod.DeepCopy()
	if other.Spec.Resources != nil && out.Spec.Resources != nil {
		*out.Spec.Resources = wider(*other.Spec.Resources, *out.Spec.Resources)
	}
	was := map[string]*corev1.Container{}
	for _, c := range Containers(other) {
		was[c.Name] = c
	}
	for _, list := range [][]corev1.Container{out.Spec.InitContainers, out.Spec.Containers} {
		for i := range list {
			if old := was[list[i].Name]; old != nil {
				list[i].Resources = wider(old.Resources, list[i].Resources)
			}
		}
	}
	return out
}

// resizing tells whether something of the pod does not have yet what the node
// has set aside for it.
func (c *computation) resizing() bool {
	if c.busy(ResizePod, "") || !c.fitted() {
		return true
	}
	for _, m := range c.members {
		if m.outdated() || m.ended() && m.latest.Replaced {
			return true
		}
	}
	return false
}

// outdated tells whether a container runs with other resources than allocated.
func (m *member) outdated() bool {
	return (m.kind == app || m.kind == sidecar) && m.running() && m.latest.Resources != nil &&
		!sameAmounts(m.latest.Resources, &m.spec.Resources)
}

// resizeRestarts tells whether a container can take its new resources by a
// restart only.
func (m *member) resizeRestarts() bool {
	for _, p := range m.spec.ResizePolicy {
		if p.RestartPolicy == corev1.RestartContainer && !sameAmount(m.latest.Resources, &m.spec.Resources, p.ResourceName) {
			return true
		}
	}
	return false
}

func sameAmounts(a, b *corev1.ResourceRequirements) bool {
	for _, name := range resizable() {
		if !sameAmount(a, b, name) {
			return false
		}
	}
	return true
}

// sameAmount compares one resource; none and zero are the same.
func sameAmount(a, b *corev1.ResourceRequirements, name corev1.ResourceName) bool {
	same := func(a, b corev1.ResourceList) bool {
		x, y := a[name], b[name]
		return x.Cmp(y) == 0
	}
	return same(a.Requests, b.Requests) && same(a.Limits, b.Limits)
}

// SameResources tells whether two versions of a pod ask for the same.
func SameResources(a, b *corev1.Pod) bool {
	if a == b {
		return true
	}
	if !apiequality.Semantic.DeepEqual(a.Spec.Resources, b.Spec.Resources) {
		return false
	}
	same := func(a, b []corev1.Container) bool {
		for i := range a {
			if i >= len(b) || !apiequality.Semantic.DeepEqual(a[i].Resources, b[i].Resources) {
				return false
			}
		}
		return len(a) == len(b)
	}
	return same(a.Spec.InitContainers, b.Spec.InitContainers) && same(a.Spec.Containers, b.Spec.Containers)
}

// Widest returns pod with the resources that its cgroup must leave room for:
// what is allocated or, where a container still runs with more, that. As long
// as one does, limits of the pod as a whole stay at before's where they were
// higher; before may be nil.
func Widest(pod *corev1.Pod, containers []Container, before *corev1.Pod) *corev1.Pod {
	running := map[string]*corev1.ResourceRequirements{}
	for i := range containers {
		if a := &containers[i]; a.live() && a.Resources != nil {
			running[a.Name] = a.Resources
		}
	}
	var out *corev1.Pod
	widen := func(list func(*corev1.Pod) []corev1.Container) {
		for i, c := range list(pod) {
			has := running[c.Name]
			if has == nil || sameAmounts(has, &c.Resources) {
				continue
			}
			if out == nil {
				out = pod.DeepCopy()
			}
			list(out)[i].Resources = wider(*has, c.Resources)
		}
	}
	widen(func(p *corev1.Pod) []corev1.Container { return p.Spec.InitContainers })
	widen(func(p *corev1.Pod) []corev1.Container { return p.Spec.Containers })
	if out == nil {
		return pod
	}
	if before != nil && before.Spec.Resources != nil && out.Spec.Resources != nil {
		r := wider(*before.Spec.Resources, *out.Spec.Resources)
		out.Spec.Resources = &r
	}
	return out
}

// wider returns the higher of each request and limit; having no limit is the
// highest limit.
func wider(a, b corev1.ResourceRequirements) corev1.ResourceRequirements {
	out := *b.DeepCopy()
	for name, q := range a.Requests {
		if has := out.Requests[name]; has.Cmp(q) < 0 {
			if out.Requests == nil {
				out.Requests = corev1.ResourceList{}
			}
			out.Requests[name] = q
		}
	}
	for name, q := range out.Limits {
		switch was, limited := a.Limits[name]; {
		case !limited:
			delete(out.Limits, name)
		case was.Cmp(q) > 0:
			out.Limits[name] = was
		}
	}
	return out
}

// Allocated returns pod with the resources that were set aside for an earlier
// version of it: by container name, and for the pod as a whole.
func Allocated(pod *corev1.Pod, of map[string]corev1.ResourceRequirements, whole *corev1.ResourceRequirements) *corev1.Pod {
	out := pod.DeepCopy()
	out.Spec.Resources = whole.DeepCopy()
	for _, list := range [][]corev1.Container{out.Spec.InitContainers, out.Spec.Containers} {
		for i := range list {
			if r, known := of[list[i].Name]; known {
				list[i].Resources = *r.DeepCopy()
			}
		}
	}
	return out
}

// Weigh decides about a resize: wanted and had are what the pod requests now
// and what it was allocated, used is what the other pods of the node were
// allocated. Nil means that the node can set aside what is wanted. What does
// not grow is never refused.
func Weigh(wanted, had, used, allocatable corev1.ResourceList) *Pending {
	var deferred *Pending
	for _, name := range resizable() {
		want, old := wanted[name], had[name]
		room, known := allocatable[name]
		if !known || want.Cmp(old) <= 0 {
			continue
		}
		if want.Cmp(room) > 0 {
			return &Pending{Reason: corev1.PodReasonInfeasible, Message: fmt.Sprintf(
				"Node didn't have enough capacity: %s, requested: %d, capacity: %d", name, amount(name, want), amount(name, room))}
		}
		others := used[name]
		sum := others.DeepCopy()
		sum.Add(want)
		if deferred == nil && sum.Cmp(room) > 0 {
			deferred = &Pending{Reason: corev1.PodReasonDeferred, Message: fmt.Sprintf(
				"Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d",
				name, amount(name, want), amount(name, others), amount(name, room))}
		}
	}
	return deferred
}

// amount is a quantity as messages show it: thousandths of a CPU, or bytes.
func amount(name corev1.ResourceName, q resource.Quantity) int64 {
	if name == corev1.ResourceCPU {
		return q.MilliValue()
	}
	return q.Value()
}

// resizeConditions tells of a resize that waits, and of one under way.
func (c *computation) resizeConditions() []corev1.PodCondition {
	if !c.decision.StoppingSince.IsZero() {
		return nil
	}
	var out []corev1.PodCondition
	if c.Pending != nil {
		out = append(out, corev1.PodCondition{
			Type: corev1.PodResizePending, Status: corev1.ConditionTrue, Reason: c.Pending.Reason, Message: c.Pending.Message,
		})
	}
	if c.resizing() {
		cond := corev1.PodCondition{Type: corev1.PodResizeInProgress, Status: corev1.ConditionTrue, ObservedGeneration: c.AllocatedGeneration}
		if t, failed := c.Trouble[Key{Kind: ResizePod}]; failed {
			cond.Reason, cond.Message = corev1.PodReasonError, t.Message
		}
		out = append(out, cond)
	}
	return out
}
