package controlplane

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/util/workqueue"

	"coracle/pkg/auth"
	"coracle/pkg/registry"
	"coracle/pkg/registry/custom"
	"coracle/pkg/resource"
	"coracle/pkg/storage/cache"
)

// schemaMemory bounds what compiled schemas take, those that are used most.
const schemaMemory = 8 << 20

// definitions follows CustomResourceDefinitions and serves what they declare:
// it decides on their names and conditions, puts their resources into the
// table, and ends them when they are deleted. One goroutine does all of it but
// the deletion of objects, by name, so that everything is decided on the state
// of the moment.
type definitions struct {
	cp       *ControlPlane
	kind     *resource.Resource // CustomResourceDefinition
	schemas  *custom.Schemas
	webhooks *custom.HTTPWebhooks                         // convert between versions
	queue    workqueue.TypedRateLimitingInterface[string] // names; "" marks the end of the first state
	records  map[string]*record
	synced   bool          // the first state is served
	ending   chan struct{} // a place for each definition whose objects are being deleted
	enders   sync.WaitGroup
}

// record is what is known of one definition.
type record struct {
	uid     string
	group   string
	names   apiextensionsv1.CustomResourceDefinitionNames // accepted
	settled bool                                          // it has all names that it wants
	// current is the stored definition, read by the served resources.
	current    *atomic.Pointer[cache.Object]
	generation int64
	since      int64              // see custom.Source
	served     *custom.Definition // nil when not served
	prefix     string             // of the cached kind, "" when there is none
	fields     string             // what the cached kind is indexed by
	ending     atomic.Bool        // its objects are being deleted
}

func (cp *ControlPlane) newDefinitions() *definitions {
	return &definitions{
		cp: cp, kind: cp.resource(apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions")),
		webhooks: &custom.HTTPWebhooks{Client: cp.callouts}, schemas: &custom.Schemas{Limit: schemaMemory}, records: map[string]*record{}, ending: make(chan struct{}, maxEnding),
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[string]()),
	}
}

// projection tells the loop of definitions that changed.
func (d *definitions) projection() registry.Projection {
	return registry.Projection{
		Resource: d.kind,
		Raw: func(o *cache.Object) error {
			d.queue.Add(o.Name)
			return nil
		},
		Delete: func(_, name string) { d.queue.Add(name) },
		Synced: func() { d.queue.Add("") },
	}
}

// run serves definitions until ctx ends. synced is closed when those that are
// there at the start are served.
func (d *definitions) run(ctx context.Context, synced chan struct{}) error {
	ctx = auth.WithUser(ctx, self())
	stop := context.AfterFunc(ctx, d.queue.ShutDown)
	defer stop()
	for {
		name, down := d.queue.Get()
		if down {
			d.enders.Wait()
			return nil
		}
		if name == "" {
			if !d.synced {
				d.synced = true
				d.publish()
				close(synced)
			}
		} else if err := d.sync(ctx, name); err != nil && ctx.Err() == nil {
			d.cp.cfg.Log.Warn("a CustomResourceDefinition could not be served yet", "name", name, "error", err)
			d.queue.AddRateLimited(name)
		} else {
			d.queue.Forget(name)
		}
		d.queue.Done(name)
	}
}

// sync brings one definition to where its stored state says.
func (d *definitions) sync(ctx context.Context, name string) error {
	o, err := d.cp.registry.Get(ctx, registry.Request{Resource: d.kind, Name: name}, "0")
	if apierrors.IsNotFound(err) {
		d.remove(name)
		return nil
	}
	if err != nil {
		return err
	}
	crd, err := d.decode(o)
	if err != nil {
		return err
	}
	if r := d.records[name]; r != nil && r.uid != string(crd.UID) {
		d.remove(name)
	}
	r := d.records[name]
	if r == nil {
		r = &record{uid: string(crd.UID), group: crd.Spec.Group, current: &atomic.Pointer[cache.Object]{}}
		d.records[name] = r
	}
	r.current.Store(o)
	changed := custom.Settle(crd, d.taken(name, crd.Spec.Group), d.cp.cfg.Clock.Now())
	if !sameNames(&r.names, &crd.Status.AcceptedNames) {
		r.names = *crd.Status.AcceptedNames.DeepCopy()
		d.reconsider(name, r.group)
	}
	r.settled = sameNames(&r.names, &crd.Spec.Names)
	if established(crd) {
		if err := d.serve(ctx, r, crd, int64(o.Revision)); err != nil {
			return err
		}
	}
	if changed {
		// A conflict means that there is a newer state, of which the loop is told.
		if err := d.writeStatus(ctx, crd); err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return err
		}
	}
	if crd.DeletionTimestamp != nil && slices.Contains(crd.Finalizers, apiextensionsv1.CustomResourceCleanupFinalizer) {
		d.end(ctx, name, r)
	}
	return nil
}

func (d *definitions) decode(o *cache.Object) (*apiextensionsv1.CustomResourceDefinition, error) {
	obj, err := registry.Decode(d.kind, o.Value)
	if err != nil {
		return nil, err
	}
	crd, ok := obj.(*apiextensionsv1.CustomResourceDefinition)
	if !ok {
		return nil, fmt.Errorf("a CustomResourceDefinition is needed, not a %T", obj)
	}
	return crd, nil
}

func established(crd *apiextensionsv1.CustomResourceDefinition) bool {
	return slices.ContainsFunc(crd.Status.Conditions, func(c apiextensionsv1.CustomResourceDefinitionCondition) bool {
		return c.Type == apiextensionsv1.Established && c.Status == apiextensionsv1.ConditionTrue
	})
}

// taken are the names that other definitions of the group have.
func (d *definitions) taken(name, group string) *custom.Taken {
	t := &custom.Taken{}
	for other, r := range d.records {
		if other != name && r.group == group {
			t.Add(&r.names)
		}
	}
	return t
}

// reconsider looks again at the definitions of a group that want names which
// may have become free.
func (d *definitions) reconsider(name, group string) {
	for other, r := range d.records {
		if other != name && r.group == group && !r.settled {
			d.queue.Add(other)
		}
	}
}

func sameNames(a, b *apiextensionsv1.CustomResourceDefinitionNames) bool {
	return a.Plural == b.Plural && a.Singular == b.Singular && a.Kind == b.Kind && a.ListKind == b.ListKind &&
		slices.Equal(a.ShortNames, b.ShortNames) && slices.Equal(a.Categories, b.Categories)
}

// serve puts the resources of a definition into the table.
func (d *definitions) serve(ctx context.Context, r *record, crd *apiextensionsv1.CustomResourceDefinition, revision int64) error {
	if r.served != nil && r.served.ID() == custom.ID(crd) {
		return nil
	}
	if r.generation != crd.Generation {
		r.generation, r.since = crd.Generation, revision
	}
	next, err := custom.New(crd, custom.Source{
		Load:  func() (*apiextensionsv1.CustomResourceDefinition, error) { return d.decode(r.current.Load()) },
		Since: r.since, Schemas: d.schemas, Webhooks: d.webhooks,
	})
	if err != nil {
		return err
	}
	kind := registry.KindOf(next.Stored())
	fields := strings.Join(custom.FieldPaths(crd), ",")
	if r.prefix != "" && (r.prefix != kind.Prefix || r.fields != fields) {
		d.cp.cache.RemoveKind(r.prefix)
		r.prefix = ""
	}
	if r.prefix == "" {
		if err := d.cp.cache.AddKind(ctx, kind); err != nil {
			return err
		}
		r.prefix, r.fields = kind.Prefix, fields
	}
	if r.served != nil {
		d.schemas.Forget(r.served)
	}
	r.served = next
	d.publish()
	return nil
}

// publish makes the table of all definitions that are served.
func (d *definitions) publish() {
	if !d.synced {
		return // once, when all that are stored are there
	}
	var list []*resource.Resource
	for _, name := range slices.Sorted(maps.Keys(d.records)) {
		if r := d.records[name]; r.served != nil {
			list = append(list, r.served.Served()...)
		}
	}
	d.cp.registry.SetTable(d.cp.registry.Table().With(list))
	d.cp.registrar.look()
}

// remove takes a definition that is gone out of the table.
func (d *definitions) remove(name string) {
	r := d.records[name]
	if r == nil {
		return
	}
	delete(d.records, name)
	if r.served != nil {
		d.publish()
		d.schemas.Forget(r.served)
	}
	if r.prefix != "" {
		d.cp.cache.RemoveKind(r.prefix)
	}
	d.reconsider(name, r.group)
}

// writeStatus stores the status that was decided on, if the definition is still
// the one that it was decided for.
func (d *definitions) writeStatus(ctx context.Context, wanted *apiextensionsv1.CustomResourceDefinition) error {
	return d.update(ctx, wanted.Name, func(crd *apiextensionsv1.CustomResourceDefinition) error {
		if crd.UID != wanted.UID || crd.ResourceVersion != wanted.ResourceVersion {
			return apierrors.NewConflict(d.kind.GroupResource(), wanted.Name, errors.New("the definition has changed meanwhile"))
		}
		crd.Status = wanted.Status
		return nil
	})
}

func (d *definitions) update(ctx context.Context, name string, change func(*apiextensionsv1.CustomResourceDefinition) error) error {
	req := registry.Request{Resource: d.kind, Subresource: "status", Name: name}
	_, _, err := d.cp.registry.Update(ctx, req, func(current runtime.Object) (runtime.Object, error) {
		return current, change(current.(*apiextensionsv1.CustomResourceDefinition))
	}, registry.UpdateOptions{WriteOptions: registry.WriteOptions{Manager: bootstrapManager, Internal: true}})
	return err
}

// Bounds of the deletion of a definition's objects.
const (
	maxEnding  = 8                      // definitions at once
	endingPoll = 100 * time.Millisecond // of the cache, in memory
	endingWait = time.Minute            // for finalizers, then it is tried again
)

// end deletes the objects of a definition and lets go of it then.
func (d *definitions) end(ctx context.Context, name string, r *record) {
	if !r.ending.CompareAndSwap(false, true) {
		return
	}
	var stored *resource.Resource
	if r.served != nil {
		stored = r.served.Stored()
	}
	d.enders.Go(func() {
		select {
		case d.ending <- struct{}{}:
		case <-ctx.Done():
			return
		}
		err := d.finish(ctx, name, r.uid, stored)
		<-d.ending
		r.ending.Store(false)
		if err != nil && ctx.Err() == nil {
			d.cp.cfg.Log.Warn("the objects of a CustomResourceDefinition that is being deleted are still there", "name", name, "error", err)
			d.queue.AddRateLimited(name)
		}
	})
}

func (d *definitions) finish(ctx context.Context, name, uid string, stored *resource.Resource) error {
	step := func(ending custom.Ending, cause error) error {
		err := d.update(ctx, name, func(crd *apiextensionsv1.CustomResourceDefinition) error {
			if string(crd.UID) != uid {
				return apierrors.NewNotFound(d.kind.GroupResource(), name)
			}
			custom.SetEnding(crd, ending, cause, d.cp.cfg.Clock.Now())
			if ending == custom.EndingDone || ending == custom.EndingNever {
				crd.Finalizers = slices.DeleteFunc(crd.Finalizers, func(f string) bool { return f == apiextensionsv1.CustomResourceCleanupFinalizer })
			}
			return nil
		})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
	if stored == nil {
		return step(custom.EndingNever, nil)
	}
	if err := step(custom.EndingInProgress, nil); err != nil {
		return err
	}
	req := registry.Request{Resource: stored}
	_, err := d.cp.registry.DeleteCollection(ctx, req, registry.ListOptions{},
		registry.DeleteOptions{WriteOptions: registry.WriteOptions{Internal: true}})
	if err != nil {
		return errors.Join(err, step(custom.EndingFailed, err))
	}
	if err := d.waitEmpty(ctx, req); err != nil {
		return errors.Join(err, step(custom.EndingStuck, err))
	}
	return step(custom.EndingDone, nil)
}

// waitEmpty waits until a resource has no objects. It reads the cache only.
func (d *definitions) waitEmpty(ctx context.Context, req registry.Request) error {
	deadline := d.cp.cfg.Clock.After(endingWait)
	for {
		page, err := d.cp.registry.List(ctx, req, registry.ListOptions{Version: "0", Limit: 1})
		if err != nil {
			return err
		}
		if len(page.Items) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline:
			return fmt.Errorf("%s are left, which finalizers hold", req.Resource.Plural)
		case <-d.cp.cfg.Clock.After(endingPoll):
		}
	}
}
