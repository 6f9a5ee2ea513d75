package controlplane

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"coracle/pkg/apiserver"
	"coracle/pkg/apiserver/fairness"
	"coracle/pkg/auth"
	"coracle/pkg/auth/policy"
	"coracle/pkg/registry"
)

// fairnessManager owns the status of flow schemas.
const fairnessManager = "api-priority-and-fairness-config-consumer-v1"

// upkeepEvery is the time between two looks at whether the default schemas and
// levels are as they should be. It is no shorter, since servers of different
// versions may disagree about that.
const upkeepEvery = time.Minute

var (
	flowSchemas    = flowcontrolv1.SchemeGroupVersion.WithResource("flowschemas")
	priorityLevels = flowcontrolv1.SchemeGroupVersion.WithResource("prioritylevelconfigurations")
)

// fairnessLoop gives the stored flow schemas and priority levels to the
// Controller, writes the schemas' conditions, and keeps the default objects.
type fairnessLoop struct {
	cp         *ControlPlane
	controller *fairness.Controller
	changed    chan struct{} // of one place: the objects are not what they were

	mu      sync.Mutex
	schemas map[string]*flowcontrolv1.FlowSchema                 // guarded by mu; shared objects
	levels  map[string]*flowcontrolv1.PriorityLevelConfiguration // guarded by mu; shared objects
}

func (cp *ControlPlane) newFairness() *fairnessLoop {
	if cp.cfg.NoFairness {
		return nil
	}
	seats := cmp.Or(cp.cfg.MaxRequests, apiserver.DefaultMaxReading) + cmp.Or(cp.cfg.MaxMutatingRequests, apiserver.DefaultMaxMutating)
	return &fairnessLoop{
		cp: cp, controller: fairness.New(seats), changed: make(chan struct{}, 1),
		schemas: map[string]*flowcontrolv1.FlowSchema{}, levels: map[string]*flowcontrolv1.PriorityLevelConfiguration{},
	}
}

// projections feed the loop. It begins when both are complete.
func (f *fairnessLoop) projections() []registry.Projection {
	return []registry.Projection{
		followed(f, flowSchemas, f.schemas), followed(f, priorityLevels, f.levels),
	}
}

func followed[T interface {
	runtime.Object
	GetName() string
}](f *fairnessLoop, gvr schema.GroupVersionResource, into map[string]T) registry.Projection {
	change := func(do func()) {
		f.mu.Lock()
		do()
		f.mu.Unlock()
		f.wake()
	}
	return f.cp.projection(gvr,
		func(o runtime.Object) { t := o.(T); change(func() { into[t.GetName()] = t }) },
		func(_, name string) { change(func() { delete(into, name) }) })
}

func (f *fairnessLoop) wake() {
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

// run works until ctx ends.
func (f *fairnessLoop) run(ctx context.Context) error {
	if f.cp.WaitReady(ctx) != nil {
		return nil
	}
	ctx = auth.WithUser(ctx, self())
	lend := f.cp.cfg.Clock.NewTicker(fairness.LendEvery)
	defer lend.Stop()
	upkeep := f.cp.cfg.Clock.NewTicker(upkeepEvery)
	defer upkeep.Stop()
	f.wake()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.changed:
			f.apply(ctx)
		case <-lend.C():
			f.controller.Lend(time.Now())
		case <-upkeep.C():
			f.keep(ctx)
			f.apply(ctx)
		}
	}
}

// state is what is stored, by name.
func (f *fairnessLoop) state() (map[string]*flowcontrolv1.FlowSchema, map[string]*flowcontrolv1.PriorityLevelConfiguration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.schemas), maps.Clone(f.levels)
}

// apply has the Controller work by what is stored, and only then says so in the
// schemas' conditions.
func (f *fairnessLoop) apply(ctx context.Context) {
	schemas, levels := f.state()
	f.controller.Configure(slices.Collect(maps.Values(schemas)), slices.Collect(maps.Values(levels)), time.Now())
	for _, s := range schemas {
		_, found := levels[s.Spec.PriorityLevelConfiguration.Name]
		if !fairness.Dangling(s.DeepCopy(), found, f.cp.cfg.Clock.Now()) {
			continue
		}
		if err := f.cp.writeBound(ctx, s.Name, func(string) bool { return found }); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) && ctx.Err() == nil {
			f.cp.cfg.Log.Warn("the condition of a FlowSchema could not be written and is tried again within a minute", "name", s.Name, "error", err)
		}
	}
}

// writeBound writes the condition of a schema that says whether its level is
// there, which found decides by the level's name.
func (cp *ControlPlane) writeBound(ctx context.Context, schema string, found func(level string) bool) error {
	req := registry.Request{Resource: cp.resource(flowSchemas), Subresource: "status", Name: schema}
	_, _, err := cp.registry.Update(ctx, req, func(current runtime.Object) (runtime.Object, error) {
		s := current.(*flowcontrolv1.FlowSchema)
		fairness.Dangling(s, found(s.Spec.PriorityLevelConfiguration.Name), cp.cfg.Clock.Now())
		return s, nil
	}, registry.UpdateOptions{WriteOptions: registry.WriteOptions{Manager: fairnessManager, Internal: true}})
	return err
}

// bindDefaults writes the conditions of the default schemas before anybody sees
// them without. What it does not manage, the loop does.
func (cp *ControlPlane) bindDefaults(ctx context.Context) {
	var wg sync.WaitGroup
	for _, s := range fairness.DefaultFlowSchemas() {
		wg.Go(func() {
			err := cp.writeBound(ctx, s.Name, func(level string) bool {
				_, err := cp.registry.Get(ctx, registry.Request{Resource: cp.resource(priorityLevels), Name: level}, "")
				return err == nil
			})
			if err != nil && ctx.Err() == nil {
				cp.cfg.Log.Debug("the condition of a default FlowSchema is written later", "name", s.Name, "error", err)
			}
		})
	}
	wg.Wait()
}

// keep creates and updates the default objects, and deletes those that were
// defaults of another version.
func (f *fairnessLoop) keep(ctx context.Context) {
	schemas, levels := f.state()
	defined := map[string]bool{}
	for _, w := range flowControl() {
		name := w.obj.(metav1.Object).GetName()
		defined[w.gvr.Resource+"/"+name] = true
		var stored runtime.Object
		if s, ok := schemas[name]; ok && w.gvr == flowSchemas {
			stored = s.DeepCopy()
		} else if l, ok := levels[name]; ok && w.gvr == priorityLevels {
			stored = l.DeepCopy()
		}
		if stored != nil {
			if _, action := w.merge(stored); action == policy.None {
				continue
			}
		}
		if err := f.cp.ensureOnce(ctx, w); err != nil && ctx.Err() == nil {
			f.cp.cfg.Log.Warn("a default object of priority and fairness could not be written and is tried again in a minute", "resource", w.gvr.Resource, "name", name, "error", err)
		}
	}
	for name, s := range schemas {
		f.remove(ctx, flowSchemas, &s.ObjectMeta, defined["flowschemas/"+name])
	}
	for name, l := range levels {
		f.remove(ctx, priorityLevels, &l.ObjectMeta, defined["prioritylevelconfigurations/"+name])
	}
}

// remove deletes an object that was a default and is none any more.
func (f *fairnessLoop) remove(ctx context.Context, gvr schema.GroupVersionResource, m *metav1.ObjectMeta, defined bool) {
	if !fairness.Obsolete(m, defined) {
		return
	}
	_, _, err := f.cp.registry.Delete(ctx, registry.Request{Resource: f.cp.resource(gvr), Name: m.Name}, registry.DeleteOptions{
		WriteOptions:  registry.WriteOptions{Manager: bootstrapManager, Internal: true},
		DeleteOptions: metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &m.UID, ResourceVersion: &m.ResourceVersion}},
	})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) && ctx.Err() == nil {
		f.cp.cfg.Log.Warn("an object that priority and fairness no longer defines could not be deleted", "resource", gvr.Resource, "name", m.Name, "error", err)
	}
}

// flowControl are the default flow schemas and priority levels.
func flowControl() []wantedObject {
	var out []wantedObject
	for _, p := range fairness.DefaultPriorityLevels() {
		out = append(out, wantedObject{gvr: priorityLevels, obj: p, merge: func(current runtime.Object) (runtime.Object, policy.Action) {
			return current, updateIf(fairness.ReviseLevel(current.(*flowcontrolv1.PriorityLevelConfiguration), p))
		}})
	}
	for _, s := range fairness.DefaultFlowSchemas() {
		out = append(out, wantedObject{gvr: flowSchemas, obj: s, merge: func(current runtime.Object) (runtime.Object, policy.Action) {
			return current, updateIf(fairness.ReviseSchema(current.(*flowcontrolv1.FlowSchema), s))
		}})
	}
	return out
}
