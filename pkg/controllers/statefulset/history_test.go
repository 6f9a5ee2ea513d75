package statefulset

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// history is a set whose pods live on simulated nodes, and a user who changes
// his mind.
type history struct {
	t    *testing.T
	rand *rand.Rand
	set  *appsv1.StatefulSet
	pods map[string]*corev1.Pod
	// templates are the revisions, by name; their image is their name.
	templates map[string]*corev1.PodTemplateSpec
	update    string
	uids      int
	log       []string
}

func newHistory(t *testing.T, seed uint64) *history {
	h := &history{
		t: t, rand: rand.New(rand.NewPCG(seed, 1)),
		pods: map[string]*corev1.Pod{}, templates: map[string]*corev1.PodTemplateSpec{},
	}
	h.set = newSet(int32(h.rand.IntN(5)), from(int32(h.rand.IntN(2)*3)))
	if h.rand.IntN(2) == 0 {
		parallel(h.set)
	}
	h.set.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable = new(intstr.FromInt32(1 + int32(h.rand.IntN(3))))
	h.change("r0")
	return h
}

func (h *history) change(revision string) {
	template := template(revision)
	h.templates[revision], h.update = &template, revision
	h.set.Spec.Template = template
}

func (h *history) say(format string, args ...any) {
	h.log = append(h.log, fmt.Sprintf(format, args...))
}

// chance lets a node, the user or bad luck act.
func (h *history) chance() {
	switch h.rand.IntN(10) {
	case 0:
		h.set.Spec.Replicas = new(int32(h.rand.IntN(6)))
		h.say("scale to %d", *h.set.Spec.Replicas)
	case 1:
		h.change(fmt.Sprint("r", h.rand.IntN(3)))
		h.say("update to %s", h.update)
	case 2:
		h.set.Spec.UpdateStrategy.RollingUpdate.Partition = new(int32(h.rand.IntN(3)))
		h.say("partition %d", *h.set.Spec.UpdateStrategy.RollingUpdate.Partition)
	case 3, 4:
		if p := h.any(); p != nil && p.DeletionTimestamp == nil {
			if h.rand.IntN(2) == 0 {
				p.Status.Phase = corev1.PodFailed
			} else {
				p.Status.Conditions = nil
			}
			h.say("%s is %s and not ready", p.Name, p.Status.Phase)
		}
	default:
		if p := h.any(); p != nil {
			h.advance(p)
		}
	}
}

func (h *history) any() *corev1.Pod {
	names := sortedNames(h.pods)
	if len(names) == 0 {
		return nil
	}
	return h.pods[names[h.rand.IntN(len(names))]]
}

// advance is what a node does with a pod.
func (h *history) advance(p *corev1.Pod) {
	switch {
	case p.DeletionTimestamp != nil:
		delete(h.pods, p.Name)
		h.say("%s is gone", p.Name)
	case p.Status.Phase == corev1.PodFailed:
	default:
		p.Status.Phase = corev1.PodRunning
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Time{Time: now}}}
	}
}

func (h *history) observe() observed {
	o := observed{
		set: h.set, update: version{h.update, h.templates[h.update]},
		claim: func(string) *corev1.PersistentVolumeClaim { return nil },
	}
	o.current = o.update
	if have := h.templates[h.set.Status.CurrentRevision]; have != nil {
		o.current = version{h.set.Status.CurrentRevision, have}
	}
	for _, name := range sortedNames(h.pods) {
		o.pods = append(o.pods, h.pods[name].DeepCopy())
	}
	return o
}

// step computes once, checks the plan and does it, or the part of it that was
// done before a crash.
func (h *history) step() {
	o := h.observe()
	p := compute(o, now)
	h.check(o, p)
	for _, pod := range p.create {
		if h.rand.IntN(8) == 0 {
			return // crashed
		}
		h.uids++
		pod.UID = types.UID(fmt.Sprint(h.uids))
		pod.Status.Phase = corev1.PodPending
		h.pods[pod.Name] = pod
		h.say("create %s of %s", pod.Name, pod.Labels[revisionLabel])
	}
	for _, pod := range p.remove {
		if h.rand.IntN(8) == 0 {
			return
		}
		h.pods[pod.Name].DeletionTimestamp = &metav1.Time{Time: now}
		h.say("delete %s", pod.Name)
	}
	h.set.Status = p.status
}

func (h *history) check(o observed, p plan) {
	s := slotsOf(o, now)
	ordered := h.set.Spec.PodManagementPolicy != appsv1.ParallelPodManagement
	down := 0
	for i, pod := range s.replicas {
		if pod == nil || unavailable(h.set, pod, now) {
			down++
		}
		for _, made := range p.create {
			if ordered && ordinalOf(h.set, made.Name) > s.start+i && (pod == nil || unavailable(h.set, pod, now)) {
				h.t.Errorf("%s is made before ordinal %d is available", made.Name, s.start+i)
			}
		}
	}
	seen := map[string]bool{}
	for _, pod := range p.create {
		if seen[pod.Name] || h.pods[pod.Name] != nil {
			h.t.Errorf("%s is made a second time", pod.Name)
		}
		seen[pod.Name] = true
		if v := versionFor(o, ordinalOf(h.set, pod.Name)); pod.Labels[revisionLabel] != v.name || pod.Spec.Containers[0].Image != v.name {
			h.t.Errorf("%s is made of %s, want %s", pod.Name, pod.Spec.Containers[0].Image, v.name)
		}
	}
	h.checkRemovals(o, p, s, ordered, down, seen)
}

func (h *history) checkRemovals(o observed, p plan, s slots, ordered bool, down int, seen map[string]bool) {
	disrupted, surplus := 0, 0
	for _, pod := range p.remove {
		if seen[pod.Name] || pod.DeletionTimestamp != nil {
			h.t.Errorf("%s is removed twice or with its own making", pod.Name)
		}
		seen[pod.Name] = true
		i := ordinalOf(h.set, pod.Name) - s.start
		if i < 0 || i >= len(s.replicas) {
			surplus++
			if ordered && (down > 0 || pod != s.surplus[0]) {
				h.t.Errorf("%s goes out of order with %d down", pod.Name, down)
			}
			continue
		}
		if pod.Status.Phase == corev1.PodFailed {
			continue
		}
		if pod.Labels[revisionLabel] == o.update.name || i < int(*h.set.Spec.UpdateStrategy.RollingUpdate.Partition) {
			h.t.Errorf("%s of %s is removed by an update to %s", pod.Name, pod.Labels[revisionLabel], o.update.name)
		}
		if available(h.set, pod, now) {
			disrupted++
		}
	}
	if most := max(maxUnavailable(h.set)-down, 0); disrupted > most {
		h.t.Errorf("an update takes %d pods down while %d are, at most %d may be", disrupted, down, maxUnavailable(h.set))
	}
	if ordered && len(p.create)+surplus > 1 {
		h.t.Errorf("an ordered set makes %v and removes %v at once", podNames(p.create), podNames(p.remove))
	}
}

// settle lets nodes work until nothing is left to do. The user deletes what an
// ordered set leaves to him: here pods become ready again instead.
func (h *history) settle() {
	for range 200 {
		for _, name := range sortedNames(h.pods) {
			h.advance(h.pods[name])
		}
		h.step()
	}
	p := compute(h.observe(), now)
	if len(p.create)+len(p.remove)+len(p.repair) > 0 {
		h.t.Errorf("at the end it still makes %v, removes %v and repairs %v", podNames(p.create), podNames(p.remove), podNames(p.repair))
	}
	var want []string
	for i := range int(*h.set.Spec.Replicas) {
		want = append(want, podName(h.set, start(h.set)+i))
	}
	slices.Sort(want)
	if got := sortedNames(h.pods); !slices.Equal(got, want) {
		h.t.Errorf("at the end there are %v, want %v", got, want)
	}
	bound := int(*h.set.Spec.UpdateStrategy.RollingUpdate.Partition)
	for name, pod := range h.pods {
		if ordinalOf(h.set, name) >= start(h.set)+bound && pod.Labels[revisionLabel] != h.update {
			h.t.Errorf("at the end %s has %s, want %s", name, pod.Labels[revisionLabel], h.update)
		}
	}
	if n := *h.set.Spec.Replicas; bound == 0 && (p.status.CurrentRevision != h.update || p.status.CurrentReplicas != n) {
		h.t.Errorf("at the end the status is %+v", p.status)
	}
}
