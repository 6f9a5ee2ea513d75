package plugin

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
)

// What a container without a request for cpu or memory is taken to ask for when
// nodes are compared.
const (
	floorMilliCPU = 100
	floorMemory   = 200 << 20
)

// requestsOf is what a pod asks for, without and with the floors.
func requestsOf(pod *corev1.Pod) (requests, nonZero Resources) {
	if requests, nonZero, plain := plainRequests(pod); plain {
		return requests, nonZero
	}
	options := resourcehelper.PodResourcesOptions{UseStatusResources: true, InPlacePodLevelResourcesVerticalScalingEnabled: true}
	requests = ResourcesOf(resourcehelper.PodRequests(pod, options))
	options.NonMissingContainerRequests = floors()
	return requests, ResourcesOf(resourcehelper.PodRequests(pod, options))
}

// floors are the floors as a list.
func floors() corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewMilliQuantity(floorMilliCPU, resource.DecimalSI),
		corev1.ResourceMemory: *resource.NewQuantity(floorMemory, resource.BinarySI),
	}
}

// plainRequests are the sums over the containers of a pod for which they are
// all there is to know: most of those that wait for a node. Each pod comes this
// way twice, and the general sums build a dozen maps.
func plainRequests(pod *corev1.Pod) (requests, nonZero Resources, plain bool) {
	if s := &pod.Spec; len(s.InitContainers) > 0 || s.Overhead != nil || s.Resources != nil || len(s.ResourceClaims) > 0 {
		return Resources{}, Resources{}, false
	}
	resizes := func(c corev1.PodCondition) bool { return c.Type == corev1.PodResizePending }
	if s := &pod.Status; len(s.ContainerStatuses) > 0 || s.Resources != nil || s.AllocatedResources != nil || slices.ContainsFunc(s.Conditions, resizes) {
		return Resources{}, Resources{}, false
	}
	var floored Resources // what the floors add
	for i := range pod.Spec.Containers {
		list := pod.Spec.Containers[i].Resources.Requests
		for name, q := range list {
			// The API stores thousandths of a CPU; all else is whole but for oddities,
			// which are to be rounded once, when they are summed up.
			if _, whole := q.AsInt64(); !whole && name != corev1.ResourceCPU {
				return Resources{}, Resources{}, false
			}
		}
		r := ResourcesOf(list)
		requests.Add(&r, 1)
		if _, asks := list[corev1.ResourceCPU]; !asks {
			floored.MilliCPU += floorMilliCPU
		}
		if _, asks := list[corev1.ResourceMemory]; !asks {
			floored.Memory += floorMemory
		}
	}
	nonZero.Add(&requests, 1)
	nonZero.Add(&floored, 1)
	return requests, nonZero, true
}
