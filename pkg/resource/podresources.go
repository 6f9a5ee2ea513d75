package resource

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
)

// QOSClass derives a pod's quality of service from cpu and memory alone:
// BestEffort names neither, Guaranteed limits both in every container with
// requests equal to limits, Burstable is the rest.
func QOSClass(spec *corev1.PodSpec) corev1.PodQOSClass {
	requests, limits := corev1.ResourceList{}, corev1.ResourceList{}
	guaranteed := true
	add := func(r *corev1.ResourceRequirements) {
		addPositive(requests, r.Requests)
		if n := addPositive(limits, r.Limits); n < 2 {
			guaranteed = false
		}
	}
	if r := spec.Resources; r != nil && (len(r.Requests) > 0 || len(r.Limits) > 0) {
		add(r)
	} else {
		for i := range spec.InitContainers {
			add(&spec.InitContainers[i].Resources)
		}
		for i := range spec.Containers {
			add(&spec.Containers[i].Resources)
		}
	}
	if len(requests) == 0 && len(limits) == 0 {
		return corev1.PodQOSBestEffort
	}
	if !guaranteed || len(requests) != len(limits) {
		return corev1.PodQOSBurstable
	}
	for name, req := range requests {
		if limit, ok := limits[name]; !ok || limit.Cmp(req) != 0 {
			return corev1.PodQOSBurstable
		}
	}
	return corev1.PodQOSGuaranteed
}

// addPositive adds cpu and memory of list to sum where they are above zero
// and returns how many of the two were.
func addPositive(sum, list corev1.ResourceList) int {
	n := 0
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		q, ok := list[name]
		if !ok || q.Sign() <= 0 {
			continue
		}
		n++
		total := sum[name]
		total.Add(q)
		sum[name] = total
	}
	return n
}

// requestsFromLimits gives each container the requests that it leaves unset
// but limits. Only Pods get this, not templates.
func requestsFromLimits(containers []corev1.Container) {
	for i := range containers {
		r := &containers[i].Resources
		if r.Limits == nil {
			continue
		}
		if r.Requests == nil {
			r.Requests = make(corev1.ResourceList, len(r.Limits))
		}
		addMissing(r.Requests, r.Limits, func(corev1.ResourceName) bool { return true })
	}
}

// addMissing copies entries of from that to lacks and want accepts.
func addMissing(to, from corev1.ResourceList, want func(corev1.ResourceName) bool) {
	for name, q := range from {
		if _, set := to[name]; !set && want(name) {
			to[name] = q.DeepCopy()
		}
	}
}

// defaultPodLevelResources completes partly set pod-level resources from the
// containers' (KEP-2837). Containers must have their own defaults already.
func defaultPodLevelResources(pod *corev1.Pod) {
	r := pod.Spec.Resources
	if r == nil || (len(r.Limits) == 0 && len(r.Requests) == 0) {
		return
	}
	options := resourcehelper.PodResourcesOptions{}
	limits, requests := r.Limits, r.Requests
	if limits == nil {
		limits = corev1.ResourceList{}
	}
	if requests == nil {
		requests = corev1.ResourceList{}
	}
	addMissing(limits, resourcehelper.AggregateContainerLimits(pod, options), func(name corev1.ResourceName) bool {
		_, requested := requests[name]
		return isHugePages(name) && resourcehelper.IsSupportedPodLevelResource(name) && !requested
	})
	if len(limits) == 0 {
		return
	}
	r.Limits = limits
	addMissing(requests, resourcehelper.AggregateContainerRequests(pod, options), func(name corev1.ResourceName) bool {
		return !isHugePages(name) && resourcehelper.IsSupportedPodLevelResource(name)
	})
	addMissing(requests, limits, resourcehelper.IsSupportedPodLevelResource)
	if len(requests) > 0 {
		r.Requests = requests
	}
}

func isHugePages(name corev1.ResourceName) bool {
	return strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
}
