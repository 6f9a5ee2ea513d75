// Package devices is what the scheduler knows of devices: the ResourceClaims and
// ResourceSlices that informers show, and what it has promised to pods on their
// way to a node.
//
// Contract: a promise holds from when a decision is made until the informer
// shows what was written, or until it is given back, so that no device is given
// twice. Which devices suit a claim is decided by Kubernetes' own allocator,
// the only thing here that knows of CEL; it is made when a claim first needs it.
package devices

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"k8s.io/dynamic-resource-allocation/cel"
	"k8s.io/dynamic-resource-allocation/structured"

	"coracle/pkg/reconcile"
	"coracle/pkg/scheduler/plugin"
)

const (
	// maxPrograms bounds the selectors that are kept compiled.
	maxPrograms = 64
	// maxSearch bounds the search for devices on one node. It is exhaustive, and
	// nothing else is decided meanwhile.
	maxSearch = 500 * time.Millisecond
)

// features are what Kubernetes v1.37 has on by default, but for devices that
// want to be waited for when they were given (bindingConditions): those are
// not given to anybody.
func features() structured.Features {
	return structured.Features{
		AdminAccess: true, PrioritizedList: true, PartitionableDevices: true, DeviceTaints: true,
		ConsumableCapacity: true, FractionalCapacityRange: true,
	}
}

// Tracker knows claims and devices. Make it with New.
type Tracker struct {
	claims, slices, classes, rules cache.SharedIndexInformer
	log                            *slog.Logger

	mu       sync.Mutex
	promises map[types.UID]*promise // by claim; guarded by mu
	programs *cel.Cache             // guarded by mu; nil until needed
	// present are the slices with what taint rules say of their devices; guarded
	// by mu; nil when they are to be read anew.
	present []*resourcev1.ResourceSlice
	finder  *finder // guarded by mu; nil when something changed since
}

// promise is devices that a claim is about to get.
type promise struct {
	claim *resourcev1.ResourceClaim // with the allocation
	// version is that of the claim as it was written; empty until then.
	version string
}

// New makes a Tracker and registers what it reads.
func New(factory informers.SharedInformerFactory, log *slog.Logger) *Tracker {
	r := factory.Resource().V1()
	return &Tracker{
		claims: r.ResourceClaims().Informer(), slices: r.ResourceSlices().Informer(), classes: r.DeviceClasses().Informer(),
		rules: r.DeviceTaintRules().Informer(), log: log, promises: map[types.UID]*promise{},
	}
}

// Follow calls changed after every change of a kind that decisions read; either
// object may be nil. It returns what must have synced before the first
// decision.
func (t *Tracker) Follow(changed func(old, obj any)) ([]cache.InformerSynced, error) {
	var synced []cache.InformerSynced
	see := func(old, obj any) {
		if lost, ok := old.(cache.DeletedFinalStateUnknown); ok {
			old = lost.Obj
		}
		t.see(old, obj)
		changed(old, obj)
	}
	for _, informer := range []cache.SharedIndexInformer{t.claims, t.slices, t.classes, t.rules} {
		handle, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: func(obj any) { see(nil, obj) }, UpdateFunc: see, DeleteFunc: func(obj any) { see(obj, nil) },
		})
		if err != nil {
			return nil, err
		}
		synced = append(synced, handle.HasSynced)
	}
	return synced, nil
}

func (t *Tracker) see(old, obj any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	of := obj
	if of == nil {
		of = old
	}
	switch o := of.(type) {
	case *resourcev1.ResourceClaim:
		p := t.promises[o.UID]
		if p != nil && (obj == nil || p.version != "" && reached(o, p.version)) {
			delete(t.promises, o.UID)
			t.finder = nil
		}
		was, _ := old.(*resourcev1.ResourceClaim)
		if was == nil || obj == nil || (was.Status.Allocation == nil) != (o.Status.Allocation == nil) {
			t.finder = nil
		}
	case *resourcev1.ResourceSlice, *resourcev1.DeviceTaintRule:
		t.present, t.finder = nil, nil
	}
}

// reached says that a claim is as it was written, or newer.
func reached(claim *resourcev1.ResourceClaim, version string) bool {
	order, err := resourceversion.CompareResourceVersion(claim.ResourceVersion, version)
	return err != nil || order >= 0
}

var _ plugin.Devices = (*Tracker)(nil)

// Claim implements plugin.Devices.
func (t *Tracker) Claim(namespace, name string) *resourcev1.ResourceClaim {
	return reconcile.Cached[*resourcev1.ResourceClaim](t.claims, reconcile.Key{Namespace: namespace, Name: name})
}

// HasClass implements plugin.Devices.
func (t *Tracker) HasClass(name string) bool {
	return reconcile.Cached[*resourcev1.DeviceClass](t.classes, reconcile.Key{Name: name}) != nil
}

// Promised implements plugin.Devices.
func (t *Tracker) Promised(claim types.UID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.promises[claim] != nil
}

// Promise keeps what claims get from other pods, until Written and shown or
// Release.
func (t *Tracker) Promise(grants []plugin.DeviceGrant) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range grants {
		claim := *grants[i].Claim
		claim.Status.Allocation = &grants[i].Allocation
		t.promises[claim.UID] = &promise{claim: &claim}
		t.finder = nil
	}
}

// Written says that a promise was kept: the claim is what the server has.
func (t *Tracker) Written(claim *resourcev1.ResourceClaim) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.promises[claim.UID]
	if p == nil {
		return
	}
	p.version = claim.ResourceVersion
	now := reconcile.Cached[*resourcev1.ResourceClaim](t.claims, reconcile.Key{Namespace: claim.Namespace, Name: claim.Name})
	if now == nil || now.UID != claim.UID || reached(now, p.version) {
		// The informer was faster: no event will come. One that shows no claim has
		// seen it go, since it showed it when the promise was made.
		delete(t.promises, claim.UID)
		t.finder = nil
	}
}

// Release gives back the promises that were not written.
func (t *Tracker) Release(grants []plugin.DeviceGrant) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range grants {
		if p := t.promises[grants[i].Claim.UID]; p != nil && p.version == "" {
			delete(t.promises, grants[i].Claim.UID)
			t.finder = nil
		}
	}
}

// Finder implements plugin.Devices.
func (t *Tracker) Finder() (plugin.DeviceFinder, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.finder != nil {
		return t.finder, nil
	}
	if t.programs == nil {
		f := features()
		t.programs = cel.NewCache(maxPrograms, cel.Features{EnableConsumableCapacity: f.ConsumableCapacity, EnableListTypeAttributes: f.ListTypeAttributes})
	}
	if t.present == nil {
		t.present = t.readSlices()
	}
	allocator, err := structured.NewAllocator(context.Background(), features(), t.taken(), classes{t.classes}, t.present, t.programs)
	if err != nil {
		return nil, fmt.Errorf("look for devices: %w", err)
	}
	t.finder = &finder{allocator, t.log}
	return t.finder, nil
}

// taken are the devices that claims have, or are promised. t.mu is held.
func (t *Tracker) taken() structured.AllocatedState {
	s := newState()
	for _, obj := range t.claims.GetStore().List() {
		claim, ok := obj.(*resourcev1.ResourceClaim)
		if !ok || claim.Status.Allocation == nil {
			continue
		}
		s.add(claim)
	}
	for _, p := range t.promises {
		now := reconcile.Cached[*resourcev1.ResourceClaim](t.claims, reconcile.Key{Namespace: p.claim.Namespace, Name: p.claim.Name})
		if now != nil && now.UID == p.claim.UID && now.Status.Allocation != nil {
			continue // it is shown already: shares must not count twice
		}
		s.add(p.claim)
	}
	return s.AllocatedState
}

// classes are the DeviceClasses as the allocator asks for them.
type classes struct{ informer cache.SharedIndexInformer }

func (c classes) List() ([]*resourcev1.DeviceClass, error) {
	var list []*resourcev1.DeviceClass
	for _, obj := range c.informer.GetStore().List() {
		if class, ok := obj.(*resourcev1.DeviceClass); ok {
			list = append(list, class)
		}
	}
	return list, nil
}

func (c classes) Get(name string) (*resourcev1.DeviceClass, error) {
	if class := reconcile.Cached[*resourcev1.DeviceClass](c.informer, reconcile.Key{Name: name}); class != nil {
		return class, nil
	}
	return nil, apierrors.NewNotFound(resourcev1.Resource("deviceclasses"), name)
}

// finder finds devices in one state of things.
type finder struct {
	allocator structured.Allocator
	log       *slog.Logger
}

// Find implements plugin.DeviceFinder.
func (f *finder) Find(node *corev1.Node, claims []*resourcev1.ResourceClaim) ([]resourcev1.AllocationResult, string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), maxSearch)
	defer cancel()
	found, err := f.allocator.Allocate(ctx, node, claims)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		f.log.Warn("the search for devices was given up", "node", node.Name, "after", maxSearch)
		return nil, "timed out trying to allocate devices", nil
	case errors.Is(err, structured.ErrFailedAllocationOnNode):
		return nil, err.Error(), nil
	}
	return found, "", err
}

// readSlices are all slices, with the taints of rules on their devices.
func (t *Tracker) readSlices() []*resourcev1.ResourceSlice {
	var rules []*resourcev1.DeviceTaintRule
	for _, obj := range t.rules.GetStore().List() {
		if r, ok := obj.(*resourcev1.DeviceTaintRule); ok && r.Spec.DeviceSelector != nil {
			rules = append(rules, r)
		}
	}
	list := []*resourcev1.ResourceSlice{}
	for _, obj := range t.slices.GetStore().List() {
		if s, ok := obj.(*resourcev1.ResourceSlice); ok {
			list = append(list, tainted(s, rules))
		}
	}
	slices.SortFunc(list, func(a, b *resourcev1.ResourceSlice) int {
		switch {
		case a.Name < b.Name:
			return -1
		case a.Name > b.Name:
			return 1
		}
		return 0
	})
	return list
}
