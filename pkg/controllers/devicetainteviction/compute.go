package devicetainteviction

import (
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
)

// cause is a NoExecute taint of a device, and the object that it is from: a
// rule, or the slice that lists the device.
type cause struct {
	taint       *resourcev1.DeviceTaint
	rule, slice string // one of them is the object's name
}

// verdict says what the taints of its devices mean for a pod.
type verdict struct {
	evict bool          // delete it now
	wait  time.Duration // otherwise, when positive, look again after this time
	by    cause         // what to confirm before it is evicted
}

// compute judges a pod by the claims that are reserved for it: each taint that
// is not tolerated, or no longer, evicts it.
func compute(pod types.UID, claims []*resourcev1.ResourceClaim, causes func(r *resourcev1.DeviceRequestAllocationResult) []cause, now time.Time) verdict {
	var first time.Time
	var by cause
	found := false
	for _, claim := range claims {
		if claim.Status.Allocation == nil || !usedBy(claim, pod) {
			continue
		}
		results := claim.Status.Allocation.Devices.Results
		for i := range results {
			for _, c := range causes(&results[i]) {
				at, never := evictedAt(results[i].Tolerations, c.taint)
				if !never && (!found || at.Before(first)) {
					first, by, found = at, c, true
				}
			}
		}
	}
	switch left := first.Sub(now); {
	case !found:
		return verdict{}
	case left > 0:
		return verdict{wait: left}
	}
	return verdict{evict: true, by: by}
}

func usedBy(claim *resourcev1.ResourceClaim, pod types.UID) bool {
	for i := range claim.Status.ReservedFor {
		if claim.Status.ReservedFor[i].UID == pod {
			return true
		}
	}
	return false
}

// evictedAt is when a taint ends those who tolerate it so long, the shortest
// toleration deciding; never says that one has no end.
func evictedAt(tolerations []resourcev1.DeviceToleration, taint *resourcev1.DeviceTaint) (at time.Time, never bool) {
	if taint.TimeAdded != nil {
		at = taint.TimeAdded.Time
	}
	limit, found := time.Duration(0), false
	for i := range tolerations {
		t := &tolerations[i]
		if t.Effect != resourcev1.DeviceTaintEffectNoExecute || !tolerates(t, taint) {
			continue
		}
		if t.TolerationSeconds == nil {
			return time.Time{}, true
		}
		if d := time.Duration(max(*t.TolerationSeconds, 0)) * time.Second; !found || d < limit {
			limit, found = d, true
		}
	}
	return at.Add(limit), false
}

func tolerates(t *resourcev1.DeviceToleration, taint *resourcev1.DeviceTaint) bool {
	if t.Key != "" && t.Key != taint.Key {
		return false
	}
	return t.Operator == resourcev1.DeviceTolerationOpExists ||
		(t.Operator == "" || t.Operator == resourcev1.DeviceTolerationOpEqual) && t.Value == taint.Value
}

// ofRule is what a rule says of a device, nil if nothing that evicts.
func ofRule(rule *resourcev1.DeviceTaintRule, r *resourcev1.DeviceRequestAllocationResult) *resourcev1.DeviceTaint {
	s := rule.Spec.DeviceSelector
	if s == nil || rule.Spec.Taint.Effect != resourcev1.DeviceTaintEffectNoExecute ||
		s.Driver != nil && *s.Driver != r.Driver || s.Pool != nil && *s.Pool != r.Pool || s.Device != nil && *s.Device != r.Device {
		return nil
	}
	return &rule.Spec.Taint
}

// ofSlice are the evicting taints of a device that a slice lists.
func ofSlice(slice *resourcev1.ResourceSlice, r *resourcev1.DeviceRequestAllocationResult) []*resourcev1.DeviceTaint {
	if slice.Spec.Driver != r.Driver || slice.Spec.Pool.Name != r.Pool {
		return nil
	}
	var out []*resourcev1.DeviceTaint
	for i := range slice.Spec.Devices {
		d := &slice.Spec.Devices[i]
		if d.Name != r.Device {
			continue
		}
		for j := range d.Taints {
			if d.Taints[j].Effect == resourcev1.DeviceTaintEffectNoExecute {
				out = append(out, &d.Taints[j])
			}
		}
	}
	return out
}
