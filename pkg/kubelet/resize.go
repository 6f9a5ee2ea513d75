package kubelet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"coracle/pkg/kubelet/cri"
	"coracle/pkg/kubelet/criconfig"
	"coracle/pkg/kubelet/lifecycle"
)

// given is what one container is to get by a resize.
type given struct {
	id   string
	had  *corev1.ResourceRequirements
	spec *corev1.Container
}

// resizePod writes down what was set aside, widens or narrows the pod's cgroup
// and then gives running containers their new resources.
func (w *podLoop) resizePod(ctx context.Context, a lifecycle.Action) func() func() {
	pod := w.in.Pod
	record := &grantedResources{
		Generation: w.in.AllocatedGeneration, Pod: pod.Spec.Resources, Containers: resourcesOf(pod), Applied: map[string]corev1.ResourceRequirements{},
	}
	for id, r := range w.applied {
		if _, exists := w.containers[id]; exists {
			record.Applied[id] = r
		}
	}
	var todo []given
	for _, id := range a.Containers {
		c := w.containers[id]
		todo = append(todo, given{id: id, had: c.Resources, spec: findContainer(pod, c.Name)})
	}
	return func() func() {
		fitted := false
		err := w.k.grants.save(w.uid, record)
		if err == nil {
			err = w.k.cgroups.Create(a.Cgroup)
			fitted = err == nil
		}
		if err == nil && len(todo) > 0 {
			if err = w.k.resizeContainers(ctx, pod, todo, record.Applied); len(record.Applied) > 0 {
				err = errors.Join(err, w.k.grants.save(w.uid, record))
			}
		}
		return func() {
			if fitted {
				w.in.Cgroup = a.Cgroup
			}
			w.applied = record.Applied
			for id, c := range w.containers {
				w.learnResources(&c)
				w.containers[id] = c
			}
			w.settle(a.Key(), err, func() {})
		}
	}
}

// resizeContainers goes on with the others where one fails, and notes in
// applied what was done.
func (k *Kubelet) resizeContainers(ctx context.Context, pod *corev1.Pod, todo []given, applied map[string]corev1.ResourceRequirements) error {
	var errs []error
	for _, g := range todo {
		err := k.roomForUse(ctx, g)
		if err == nil {
			err = k.runtime.UpdateContainerResources(ctx, g.id, criconfig.Resources(pod, g.spec, k.facts))
		}
		switch {
		case cri.IsNotFound(err): // it has gone: the next attempt is made with the new resources
		case err != nil:
			errs = append(errs, fmt.Errorf("resizing container %q: %w", g.spec.Name, err))
		default:
			applied[g.id] = g.spec.Resources
		}
	}
	return errors.Join(errs...)
}

// roomForUse refuses to lower a memory limit below what is used: the kernel
// would either refuse it too, or kill.
func (k *Kubelet) roomForUse(ctx context.Context, g given) error {
	limit := g.spec.Resources.Limits.Memory()
	if had := g.had.Limits.Memory(); limit.IsZero() || !had.IsZero() && had.Cmp(*limit) <= 0 {
		return nil
	}
	stats, err := k.runtime.ListContainerStats(ctx, &runtimeapi.ContainerStatsFilter{Id: g.id})
	if err != nil {
		return fmt.Errorf("asking how much memory is used: %w", err)
	}
	for _, s := range stats {
		if used := s.GetMemory().GetWorkingSetBytes().GetValue(); s.GetAttributes().GetId() == g.id && used > uint64(max(limit.Value(), 0)) {
			return fmt.Errorf("the memory limit of %d bytes is below the %d bytes that are in use", limit.Value(), used)
		}
	}
	return nil
}

// learnResources completes what the runtime shows of a container by what the
// agent has done with it. One made by an agent that noted nothing has what was
// set aside for it then.
func (w *podLoop) learnResources(c *containerRecord) {
	if r, ok := w.applied[c.ID]; ok {
		c.Resources = &r
	}
	if c.Resources == nil {
		if spec := findContainer(w.in.Pod, c.Name); spec != nil {
			c.Resources = spec.Resources.DeepCopy()
		}
	}
	c.Replaced = w.replaced[c.ID]
}

// resizeEvent is what an Event tells of a resize, as JSON.
type resizeEvent struct {
	Containers []resizeEventContainer `json:"containers"`
	Generation int64                  `json:"generation,omitempty"`
	Error      string                 `json:"error,omitempty"`
}

type resizeEventContainer struct {
	Name      string                      `json:"name"`
	Type      string                      `json:"type,omitempty"` // "init" for a sidecar
	Resources corev1.ResourceRequirements `json:"resources"`
}

func describeResize(pod *corev1.Pod, generation int64, problem string) string {
	e := resizeEvent{Generation: generation, Error: problem}
	for _, c := range pod.Spec.InitContainers {
		if c.RestartPolicy != nil {
			e.Containers = append(e.Containers, resizeEventContainer{c.Name, "init", c.Resources})
		}
	}
	for _, c := range pod.Spec.Containers {
		e.Containers = append(e.Containers, resizeEventContainer{Name: c.Name, Resources: c.Resources})
	}
	text, err := json.Marshal(e)
	if err != nil {
		return problem
	}
	return string(text)
}

// announceResize makes Events of a resize that is put off, begins, fails or is
// done.
func (w *podLoop) announceResize(last, now *corev1.PodStatus) {
	if last == nil {
		last = &w.in.Pod.Status
	}
	turned := func(t corev1.PodConditionType) (was, is *corev1.PodCondition, news bool) {
		was, is = condition(last, t), condition(now, t)
		news = is != nil && (was == nil || was.Reason != is.Reason || was.ObservedGeneration != is.ObservedGeneration)
		return was, is, news
	}
	if _, is, news := turned(corev1.PodResizePending); news {
		w.event("", corev1.EventTypeWarning, "Resize"+is.Reason, "Pod resize "+is.Reason+": "+describeResize(w.wanted, is.ObservedGeneration, is.Message))
	}
	switch was, is, news := turned(corev1.PodResizeInProgress); {
	case news && is.Reason == corev1.PodReasonError:
		w.event("", corev1.EventTypeWarning, "ResizeError", "Pod resize error: "+describeResize(w.in.Pod, is.ObservedGeneration, is.Message))
	case news && (was == nil || was.ObservedGeneration != is.ObservedGeneration):
		w.event("", corev1.EventTypeNormal, "ResizeStarted", "Pod resize started: "+describeResize(w.in.Pod, is.ObservedGeneration, ""))
	case was != nil && is == nil && w.in.StoppingSince.IsZero():
		w.event("", corev1.EventTypeNormal, "ResizeCompleted", "Pod resize completed: "+describeResize(w.in.Pod, was.ObservedGeneration, ""))
	}
}

func condition(s *corev1.PodStatus, t corev1.PodConditionType) *corev1.PodCondition {
	for i := range s.Conditions {
		if s.Conditions[i].Type == t {
			return &s.Conditions[i]
		}
	}
	return nil
}
