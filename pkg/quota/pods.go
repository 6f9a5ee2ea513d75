package quota

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	resourcehelper "k8s.io/component-helpers/resource"
)

// pods measures pods: their number, and what they ask for while they live.
type pods struct{}

var countPods = CountName(schema.GroupResource{Resource: "pods"})

const requests = corev1.DefaultResourceRequestsPrefix

func (pods) Tracks(name corev1.ResourceName) bool {
	switch name {
	case countPods, corev1.ResourcePods, corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage,
		corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory, corev1.ResourceRequestsEphemeralStorage,
		corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory, corev1.ResourceLimitsEphemeralStorage:
		return true
	}
	s := string(name)
	if strings.HasPrefix(s, corev1.ResourceHugePagesPrefix) || strings.HasPrefix(s, corev1.ResourceRequestsHugePagesPrefix) {
		return true
	}
	asked, ok := strings.CutPrefix(s, requests)
	return ok && countable(asked)
}

// countable says that a resource is a thing of which a node has some: not one
// of Kubernetes' own, but for those that stand for a class of devices.
func countable(name string) bool {
	return strings.HasPrefix(name, resourcev1.ResourceDeviceClassPrefix) ||
		strings.Contains(name, "/") && !strings.Contains(name, corev1.ResourceDefaultNamespacePrefix)
}

func (pods) Handles(subresource string, obj, old runtime.Object) bool {
	switch {
	case subresource == "resize":
		return old != nil
	case subresource != "":
		return false
	case old == nil:
		return true
	}
	return terminating(obj.(*corev1.Pod)) != terminating(old.(*corev1.Pod))
}

func (pods) Usage(obj runtime.Object, now time.Time) corev1.ResourceList {
	pod := obj.(*corev1.Pod)
	out := corev1.ResourceList{countPods: number(1)}
	if !Live(pod, now) {
		return out
	}
	opts := resourcehelper.PodResourcesOptions{UseStatusResources: true}
	ask(out, resourcehelper.PodRequests(pod, opts), resourcehelper.PodLimits(pod, opts))
	return out
}

// Live says that a pod is one that takes room: one that has ended does not,
// nor one whose node did not end it in the time it had.
func Live(pod *corev1.Pod, now time.Time) bool {
	if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return false
	}
	if pod.DeletionTimestamp == nil || pod.DeletionGracePeriodSeconds == nil {
		return true
	}
	grace := time.Duration(*pod.DeletionGracePeriodSeconds) * time.Second
	return !now.After(pod.DeletionTimestamp.Add(grace))
}

// ask adds to out what requests and limits are called in quotas.
func ask(out, asked, limits corev1.ResourceList) {
	out[corev1.ResourcePods] = number(1)
	for name, x := range asked {
		switch s := string(name); {
		case name == corev1.ResourceCPU, name == corev1.ResourceMemory, name == corev1.ResourceEphemeralStorage,
			strings.HasPrefix(s, corev1.ResourceHugePagesPrefix):
			out[name], out[requests+name] = x, x
		case countable(s):
			out[requests+name] = x
		}
	}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
		if x, ok := limits[name]; ok {
			out["limits."+name] = x
		}
	}
}

// mandatory are the names which every container has to state once a quota
// bounds them.
var mandatory = []corev1.ResourceName{
	corev1.ResourceCPU, corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory,
	corev1.ResourceMemory, corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory,
}

func (pods) Missing(names []corev1.ResourceName, obj runtime.Object) string {
	pod := obj.(*corev1.Pod)
	if resourcehelper.IsPodLevelResourcesSet(pod) {
		return ""
	}
	var parts []string
	for _, name := range mandatory {
		if !slices.Contains(names, name) {
			continue
		}
		var lacking []string
		for _, c := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
			has := corev1.ResourceList{}
			ask(has, c.Resources.Requests, c.Resources.Limits)
			if _, ok := has[name]; !ok {
				lacking = append(lacking, c.Name)
			}
		}
		if len(lacking) > 0 {
			slices.Sort(lacking)
			parts = append(parts, fmt.Sprintf("%s for: %s", name, strings.Join(slices.Compact(lacking), ",")))
		}
	}
	return strings.Join(parts, "; ")
}

func (pods) InScope(s corev1.ScopedResourceSelectorRequirement, obj runtime.Object) bool {
	pod := obj.(*corev1.Pod)
	switch s.ScopeName {
	case corev1.ResourceQuotaScopeTerminating:
		return terminating(pod)
	case corev1.ResourceQuotaScopeNotTerminating:
		return !terminating(pod)
	case corev1.ResourceQuotaScopeBestEffort:
		return bestEffort(pod)
	case corev1.ResourceQuotaScopeNotBestEffort:
		return !bestEffort(pod)
	case corev1.ResourceQuotaScopePriorityClass:
		return selects(s, pod.Spec.PriorityClassName)
	case corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
		return crossesNamespaces(pod)
	}
	return false
}

// selects applies a selector to a value; the empty one is none.
func selects(s corev1.ScopedResourceSelectorRequirement, value string) bool {
	switch s.Operator {
	case corev1.ScopeSelectorOpExists:
		return value != ""
	case corev1.ScopeSelectorOpDoesNotExist:
		return value == ""
	case corev1.ScopeSelectorOpIn:
		return value != "" && slices.Contains(s.Values, value)
	case corev1.ScopeSelectorOpNotIn:
		return value == "" || !slices.Contains(s.Values, value)
	}
	return false
}

// terminating: the pod ends by itself.
func terminating(pod *corev1.Pod) bool {
	return pod.Spec.ActiveDeadlineSeconds != nil && *pod.Spec.ActiveDeadlineSeconds >= 0
}

// bestEffort: neither the pod nor any container of it asks for CPU or memory.
func bestEffort(pod *corev1.Pod) bool {
	idle := func(r *corev1.ResourceRequirements) bool {
		for _, list := range []corev1.ResourceList{r.Requests, r.Limits} {
			for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
				if x := list[name]; x.Sign() > 0 {
					return false
				}
			}
		}
		return true
	}
	if r := pod.Spec.Resources; r != nil && (len(r.Requests) > 0 || len(r.Limits) > 0) {
		return idle(r)
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if !idle(&list[i].Resources) {
				return false
			}
		}
	}
	return true
}

// crossesNamespaces: the pod's affinity looks at pods of other namespaces.
func crossesNamespaces(pod *corev1.Pod) bool {
	a := pod.Spec.Affinity
	if a == nil {
		return false
	}
	var terms []corev1.PodAffinityTerm
	add := func(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm) {
		terms = append(terms, required...)
		for i := range preferred {
			terms = append(terms, preferred[i].PodAffinityTerm)
		}
	}
	if p := a.PodAffinity; p != nil {
		add(p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if p := a.PodAntiAffinity; p != nil {
		add(p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	return slices.ContainsFunc(terms, func(t corev1.PodAffinityTerm) bool {
		return len(t.Namespaces) > 0 || t.NamespaceSelector != nil
	})
}
