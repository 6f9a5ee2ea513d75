package devicetainteviction

import (
	"testing"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestCompute(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	taint := &resourcev1.DeviceTaint{Key: "broken", Value: "yes", Effect: resourcev1.DeviceTaintEffectNoExecute, TimeAdded: &metav1.Time{Time: now.Add(-time.Minute)}}
	tolerate := func(value string, seconds ...int64) resourcev1.DeviceToleration {
		t := resourcev1.DeviceToleration{Key: "broken", Operator: resourcev1.DeviceTolerationOpEqual, Value: value, Effect: resourcev1.DeviceTaintEffectNoExecute}
		if len(seconds) > 0 {
			t.TolerationSeconds = &seconds[0]
		}
		return t
	}
	for _, tt := range []struct {
		name        string
		others      bool // the claim is not the pod's
		taint       *resourcev1.DeviceTaint
		tolerations []resourcev1.DeviceToleration
		evict       bool
		wait        time.Duration
	}{
		{name: "no taint"},
		{name: "not tolerated", taint: taint, evict: true},
		{name: "somebody else's claim", taint: taint, others: true},
		{name: "another value is tolerated", taint: taint, tolerations: []resourcev1.DeviceToleration{tolerate("no")}, evict: true},
		{name: "tolerated for ever", taint: taint, tolerations: []resourcev1.DeviceToleration{tolerate("yes", 5), tolerate("yes")}},
		{name: "tolerated for 100 s", taint: taint, tolerations: []resourcev1.DeviceToleration{tolerate("yes", 300), tolerate("yes", 100)}, wait: 40 * time.Second},
		{name: "time is up", taint: taint, tolerations: []resourcev1.DeviceToleration{tolerate("yes", 60)}, evict: true},
		{name: "a toleration of another effect", taint: taint, evict: true, tolerations: []resourcev1.DeviceToleration{
			{Operator: resourcev1.DeviceTolerationOpExists, Effect: resourcev1.DeviceTaintEffectNoSchedule}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			claim := &resourcev1.ResourceClaim{}
			claim.Status.Allocation = &resourcev1.AllocationResult{}
			claim.Status.Allocation.Devices.Results = []resourcev1.DeviceRequestAllocationResult{{Device: "d", Tolerations: tt.tolerations}}
			if !tt.others {
				claim.Status.ReservedFor = []resourcev1.ResourceClaimConsumerReference{{Resource: "pods", UID: "p"}}
			}
			got := compute("p", []*resourcev1.ResourceClaim{claim}, func(*resourcev1.DeviceRequestAllocationResult) []cause {
				if tt.taint == nil {
					return nil
				}
				return []cause{{taint: tt.taint, rule: "r"}}
			}, now)
			if got.evict != tt.evict || got.wait != tt.wait {
				t.Errorf("got %+v, want evict %v after %v", got, tt.evict, tt.wait)
			}
		})
	}
}
