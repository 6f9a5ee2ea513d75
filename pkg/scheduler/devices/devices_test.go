package devices

import (
	"log/slog"
	"testing"

	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"coracle/pkg/scheduler/plugin"
)

func claim(name, version string, devices ...string) *resourcev1.ResourceClaim {
	c := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name, UID: types.UID(name), ResourceVersion: version}}
	if len(devices) > 0 {
		c.Status.Allocation = allocation(devices...)
	}
	return c
}

func allocation(devices ...string) *resourcev1.AllocationResult {
	a := &resourcev1.AllocationResult{}
	for _, d := range devices {
		a.Devices.Results = append(a.Devices.Results, resourcev1.DeviceRequestAllocationResult{Driver: "d", Pool: "p", Device: d})
	}
	return a
}

// show is an event of the informer.
func (t *Tracker) show(old, now *resourcev1.ResourceClaim) {
	if now == nil {
		_ = t.claims.GetStore().Delete(old)
		t.see(old, nil)
		return
	}
	_ = t.claims.GetStore().Add(now)
	if old == nil {
		t.see(nil, now)
		return
	}
	t.see(old, now)
}

func (t *Tracker) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.taken().AllocatedDevices)
}

// TestPromiseHoldsUntilItIsShown: at no moment between the decision and the
// event is a device free.
func TestPromiseHoldsUntilItIsShown(t *testing.T) {
	made := func() (*Tracker, *resourcev1.ResourceClaim, []plugin.DeviceGrant) {
		tr := New(informers.NewSharedInformerFactory(fake.NewClientset(), 0), slog.New(slog.DiscardHandler))
		c := claim("c", "5")
		tr.show(nil, c)
		grants := []plugin.DeviceGrant{{Claim: c, Allocation: *allocation("x")}}
		tr.Promise(grants)
		if !tr.Promised("c") || tr.count() != 1 {
			t.Fatal("the promise does not hold")
		}
		return tr, c, grants
	}
	t.Run("shown after it was written", func(t *testing.T) {
		tr, c, grants := made()
		tr.show(c, claim("c", "6")) // somebody's label
		tr.Written(claim("c", "8", "x"))
		tr.Release(grants)
		tr.show(claim("c", "6"), claim("c", "7")) // the finalizer
		if !tr.Promised("c") || tr.count() != 1 {
			t.Error("the promise went before what was written came")
		}
		tr.show(claim("c", "7"), claim("c", "8", "x"))
		if tr.Promised("c") || tr.count() != 1 {
			t.Error("promise and claim are not the same")
		}
		tr.show(claim("c", "8", "x"), claim("c", "9"))
		if tr.count() != 0 {
			t.Error("a device that was given back is taken")
		}
	})
	t.Run("shown before", func(t *testing.T) {
		tr, c, grants := made()
		tr.show(c, claim("c", "8", "x"))
		tr.Written(claim("c", "8", "x"))
		tr.Release(grants)
		if tr.Promised("c") || tr.count() != 1 {
			t.Error("the promise stays though it was shown")
		}
	})
	t.Run("not written", func(t *testing.T) {
		tr, _, grants := made()
		tr.Release(grants)
		if tr.Promised("c") || tr.count() != 0 {
			t.Error("what was given back is taken")
		}
	})
	t.Run("deleted meanwhile", func(t *testing.T) {
		tr, c, grants := made()
		tr.show(c, nil)
		tr.Release(grants)
		if tr.Promised("c") || tr.count() != 0 {
			t.Error("a claim that is gone has a device")
		}
	})
}

func TestTaken(t *testing.T) {
	yes, share := true, types.UID("s")
	c := claim("c", "1", "own", "watched", "shared")
	c.Status.Allocation.Devices.Results[1].AdminAccess = &yes
	c.Status.Allocation.Devices.Results[2].ShareID = &share
	s := newState()
	s.add(c)
	if len(s.AllocatedDevices) != 1 || len(s.AllocatedSharedDeviceIDs) != 1 {
		t.Errorf("devices %v, shares %v", s.AllocatedDevices, s.AllocatedSharedDeviceIDs)
	}
}
