package devices

import (
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/dynamic-resource-allocation/structured"
)

// state is which devices are taken, as the allocator wants to know it.
type state struct{ structured.AllocatedState }

func newState() state {
	return state{structured.AllocatedState{
		AllocatedDevices:         sets.New[structured.DeviceID](),
		AllocatedSharedDeviceIDs: sets.New[structured.SharedDeviceID](),
		AggregatedCapacity:       structured.NewConsumedCapacityCollection(),
	}}
}

// add counts the devices of an allocated claim. Those that it has for
// administration, others may have as well.
func (s *state) add(claim *resourcev1.ResourceClaim) {
	results := claim.Status.Allocation.Devices.Results
	for i := range results {
		r := &results[i]
		if r.AdminAccess != nil && *r.AdminAccess {
			continue
		}
		id := structured.MakeDeviceID(r.Driver, r.Pool, r.Device)
		if r.ShareID == nil {
			s.AllocatedDevices.Insert(id)
			continue
		}
		s.AllocatedSharedDeviceIDs.Insert(structured.MakeSharedDeviceID(id, r.ShareID))
		if r.ConsumedCapacity != nil {
			s.AggregatedCapacity.Insert(structured.NewDeviceConsumedCapacity(id, r.ConsumedCapacity))
		}
	}
}

// tainted is a slice with what rules say of its devices; the slice itself when
// none is about it.
func tainted(s *resourcev1.ResourceSlice, rules []*resourcev1.DeviceTaintRule) *resourcev1.ResourceSlice {
	out := s
	for _, rule := range rules {
		for i := range s.Spec.Devices {
			if !selects(rule.Spec.DeviceSelector, s, s.Spec.Devices[i].Name) {
				continue
			}
			if out == s {
				out = s.DeepCopy()
			}
			out.Spec.Devices[i].Taints = append(out.Spec.Devices[i].Taints, rule.Spec.Taint)
		}
	}
	return out
}

// selects says that a rule is about a device: all that it names must be so.
func selects(by *resourcev1.DeviceTaintSelector, s *resourcev1.ResourceSlice, device string) bool {
	return (by.Driver == nil || *by.Driver == s.Spec.Driver) &&
		(by.Pool == nil || *by.Pool == s.Spec.Pool.Name) &&
		(by.Device == nil || *by.Device == device)
}
