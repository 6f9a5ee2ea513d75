package quota

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// devices measures ResourceClaims: their number, and the most devices of each
// class that they may be given.
type devices struct{}

var countDevices = CountName(schema.GroupResource{Group: resourcev1.GroupName, Resource: "resourceclaims"})

func (devices) Tracks(name corev1.ResourceName) bool {
	return name == countDevices || strings.HasSuffix(string(name), corev1.ResourceClaimsPerClass)
}

func (devices) Handles(subresource string, _, _ runtime.Object) bool { return subresource == "" }

func (devices) Usage(obj runtime.Object, _ time.Time) corev1.ResourceList {
	claim := obj.(*resourcev1.ResourceClaim)
	out := corev1.ResourceList{countDevices: number(1)}
	for i := range claim.Spec.Devices.Requests {
		r := &claim.Spec.Devices.Requests[i]
		most := map[string]int64{}
		for j := range r.FirstAvailable {
			sub := &r.FirstAvailable[j]
			most[sub.DeviceClassName] = max(most[sub.DeviceClassName], devicesOf(sub.AllocationMode, sub.Count))
		}
		if e := r.Exactly; e != nil && len(r.FirstAvailable) == 0 {
			most[e.DeviceClassName] = devicesOf(e.AllocationMode, e.Count)
		}
		for class, n := range most {
			name := corev1.ResourceName(class + corev1.ResourceClaimsPerClass)
			sum := out[name]
			sum.Add(number(int(n)))
			out[name] = sum
		}
	}
	return out
}

// devicesOf is the most devices that a request can be given.
func devicesOf(mode resourcev1.DeviceAllocationMode, count int64) int64 {
	switch mode {
	case resourcev1.DeviceAllocationModeExactCount:
		return count
	case resourcev1.DeviceAllocationModeAll:
		return resourcev1.AllocationResultsMaxSize
	}
	return 0
}

func (devices) InScope(corev1.ScopedResourceSelectorRequirement, runtime.Object) bool { return false }

func (devices) Missing([]corev1.ResourceName, runtime.Object) string { return "" }
