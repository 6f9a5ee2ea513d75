// Package gc deletes objects whose owners are gone, and carries out foreground
// and orphaning deletion.
//
// An owner is who a reference says in full: kind, name and the dependent's own
// namespace as well as UID. That one is gone is never concluded from a cache
// or from discovery: the API server is asked for it, and it must answer that
// there is no such object or that the name has another UID. An owner whose kind
// is not served counts as unknown, and what it owns is kept.
package gc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/lru"

	"coracle/pkg/reconcile"
)

const (
	// discoveryPeriod is how soon a new custom resource is followed.
	discoveryPeriod = 30 * time.Second
	// syncPatience is how long the start waits for types that do not list.
	syncPatience = 30 * time.Second
	// incompleteWait is how soon a deletion that needs the whole graph is tried
	// again while a type is not known.
	incompleteWait = 2 * time.Second
	// absentMemory bounds the owners that are known to be gone.
	absentMemory = 4096
	// parallel is how many objects are looked at at a time: each waits for the
	// store, whose syncs serve all that wait.
	parallel = 64
)

// Controller collects garbage. Make it with New.
type Controller struct {
	env      reconcile.Env
	metadata metadata.Interface
	graph    *graph
	monitors *monitors
	loop     *reconcile.Loop
	absent   *lru.Cache // ownerID; a UID that is gone never comes back

	mu    sync.Mutex
	types catalogue // guarded by mu
}

// ownerID is an owner in full.
type ownerID struct {
	resource  schema.GroupVersionResource
	namespace string
	name      string
	uid       types.UID
}

// New makes the controller. client reads and deletes objects of any type,
// under the controller's own identity. Types that env.Informers follows are
// read from there.
func New(env reconcile.Env, client metadata.Interface) *Controller {
	env = env.Defaulted()
	c := &Controller{env: env, metadata: client, graph: newGraph(), absent: lru.New(absentMemory)}
	c.loop = reconcile.New(reconcile.Config{
		Name: "gc", Workers: parallel, Reconcile: c.reconcile, Clock: env.Clock, Log: env.Log,
	})
	c.monitors = &monitors{
		metadata: client, factory: env.Informers, events: c.handler,
		running: map[schema.GroupVersionResource]*monitor{},
	}
	return c
}

// Run blocks until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	defer c.monitors.close()
	c.discover(ctx)
	c.monitors.wait(ctx, syncPatience)
	// What was deleted while nobody watched shows only now.
	c.queue(c.graph.unsettled())
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-c.env.Clock.After(discoveryPeriod):
				c.discover(ctx)
			}
		}
	})
	return c.loop.Run(ctx)
}

// discover brings types and monitors up to date.
func (c *Controller) discover(ctx context.Context) {
	c.mu.Lock()
	known := c.types
	c.mu.Unlock()
	found, err := discover(c.env.Client.Discovery(), known)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		c.env.Log.Warn("garbage collection goes on without some API groups", "err", err)
	}
	c.mu.Lock()
	c.types = found
	c.mu.Unlock()
	if err := c.monitors.sync(ctx, found); err != nil && ctx.Err() == nil {
		c.env.Log.Warn("garbage collection goes on without some types", "err", err)
	}
}

func (c *Controller) queue(uids []types.UID) {
	for _, uid := range uids {
		c.loop.Add(reconcile.Key{Name: string(uid)})
	}
}

// handler feeds events of one type into the graph.
func (c *Controller) handler(kind schema.GroupKind, resource schema.GroupVersionResource) cache.ResourceEventHandler {
	put := func(obj any) {
		if o, ok := obj.(metav1.Object); ok {
			c.queue(c.graph.put(nodeOf(o, kind, resource)))
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc: put,
		UpdateFunc: func(old, obj any) {
			if was, ok := old.(metav1.Object); ok {
				// Deleted and created again between two events.
				if is, ok := obj.(metav1.Object); ok && is.GetUID() != was.GetUID() {
					c.queue(c.graph.drop(was.GetUID()))
				}
			}
			put(obj)
		},
		DeleteFunc: func(obj any) {
			if lost, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = lost.Obj
			}
			if o, ok := obj.(metav1.Object); ok {
				c.queue(c.graph.drop(o.GetUID()))
			}
		},
	}
}

func nodeOf(o metav1.Object, kind schema.GroupKind, resource schema.GroupVersionResource) *node {
	return &node{
		resource: resource, kind: kind, namespace: o.GetNamespace(), name: o.GetName(), uid: o.GetUID(),
		version: o.GetResourceVersion(), finalizers: o.GetFinalizers(),
		owners:     o.GetOwnerReferences(),
		deleting:   o.GetDeletionTimestamp() != nil,
		foreground: slices.Contains(o.GetFinalizers(), metav1.FinalizerDeleteDependents),
		orphan:     slices.Contains(o.GetFinalizers(), metav1.FinalizerOrphanDependents),
	}
}

func (c *Controller) reconcile(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	n, dependents := c.graph.get(types.UID(req.Name))
	switch {
	case n == nil:
		return reconcile.Result{}, nil
	case n.deleting && n.orphan:
		return c.orphanDependents(ctx, n, dependents)
	case n.awaits():
		return c.awaitDependents(ctx, n, dependents)
	case n.deleting || len(n.owners) == 0:
		return reconcile.Result{}, nil
	}
	return reconcile.Result{}, c.judge(ctx, n, dependents)
}

func (c *Controller) client(n *node) metadata.ResourceInterface {
	return c.metadata.Resource(n.resource).Namespace(n.namespace)
}

// live asks the server for n; it returns nil when n is gone.
func (c *Controller) live(ctx context.Context, n *node) (*metav1.PartialObjectMetadata, error) {
	got, err := c.client(n).Get(ctx, n.name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || (err == nil && got.UID != n.uid) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look at %s %s/%s: %w", n.resource.GroupResource(), n.namespace, n.name, err)
	}
	return got, nil
}

// judge deletes n, or its dead references, when its owners are gone. Of n it
// believes the graph, for what it does holds only at the version that the graph
// shows: n that has changed is a conflict, and looked at again.
func (c *Controller) judge(ctx context.Context, n *node, dependents []*node) error {
	live := n.metadata()
	owners := make([]ownerState, len(live.OwnerReferences))
	var err error
	for i, ref := range live.OwnerReferences {
		if owners[i], err = c.ownerState(ctx, n, ref); err != nil {
			return err
		}
	}
	d := decide(live, owners, dependents)
	switch d.action {
	case drop:
		return c.patchOwners(ctx, n, live, without(live.OwnerReferences, d.remove))
	case deleteItem:
		if d.unblock {
			if err := c.unblock(ctx, n, live); err != nil {
				return err
			}
			// The patch changed its version: the event of it comes back here.
			return nil
		}
		return c.remove(ctx, n, live, d.policy)
	}
	return nil
}

// ownerState asks the server about one owner of n.
func (c *Controller) ownerState(ctx context.Context, n *node, ref metav1.OwnerReference) (ownerState, error) {
	known, _ := c.graph.get(ref.UID)
	if known != nil && known.is(ref, n.namespace) && !known.deleting {
		return solid, nil
	}
	id, err := c.resolve(n, ref)
	if err != nil {
		return solid, err
	}
	if _, ok := c.absent.Get(id); ok {
		return absent, nil
	}
	got, err := c.metadata.Resource(id.resource).Namespace(id.namespace).Get(ctx, id.name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err), err == nil && got.UID != ref.UID:
		c.absent.Add(id, struct{}{})
		if known != nil && known.namespace != "" && known.namespace != n.namespace {
			c.env.Events.Eventf(reference(n), corev1.EventTypeWarning, "OwnerRefInvalidNamespace",
				"ownerRef %s %s (uid: %s) does not exist in namespace %q", ref.Kind, ref.Name, ref.UID, n.namespace)
		}
		return absent, nil
	case err != nil:
		return solid, fmt.Errorf("look at owner %s %s: %w", ref.Kind, ref.Name, err)
	case got.DeletionTimestamp != nil && slices.Contains(got.Finalizers, metav1.FinalizerDeleteDependents):
		return awaited, nil
	}
	return solid, nil
}

// errUnknownKind keeps what belongs to a kind that is not served.
var errUnknownKind = errors.New("the owner's kind is not served: nothing is concluded about it")

// resolve finds where an owner lives. A namespaced owner is sought in the
// dependent's namespace.
func (c *Controller) resolve(n *node, ref metav1.OwnerReference) (ownerID, error) {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return ownerID{}, reconcile.Terminal(fmt.Errorf("owner of %s %s/%s: %w", n.kind, n.namespace, n.name, err))
	}
	c.mu.Lock()
	t, ok := c.types[gv.WithKind(ref.Kind)]
	c.mu.Unlock()
	if !ok {
		return ownerID{}, fmt.Errorf("owner %s %s of %s %s/%s: %w", gv.WithKind(ref.Kind), ref.Name, n.kind, n.namespace, n.name, errUnknownKind)
	}
	id := ownerID{resource: t.resource, name: ref.Name, uid: ref.UID}
	if t.namespaced {
		if n.namespace == "" {
			c.env.Events.Eventf(reference(n), corev1.EventTypeWarning, "OwnerRefInvalidNamespace",
				"cluster-scoped %s cannot be owned by namespaced %s %s", n.kind.Kind, ref.Kind, ref.Name)
			return ownerID{}, reconcile.Terminal(fmt.Errorf("%s %s is cluster-scoped and names the namespaced owner %s %s: it is kept", n.kind, n.name, ref.Kind, ref.Name))
		}
		id.namespace = n.namespace
	}
	return id, nil
}

func reference(n *node) *corev1.ObjectReference {
	return &corev1.ObjectReference{
		APIVersion: schema.GroupVersion{Group: n.kind.Group, Version: n.resource.Version}.String(),
		Kind:       n.kind.Kind, Namespace: n.namespace, Name: n.name, UID: n.uid,
	}
}

func (c *Controller) remove(ctx context.Context, n *node, live *metav1.PartialObjectMetadata, policy metav1.DeletionPropagation) error {
	err := c.client(n).Delete(ctx, n.name, metav1.DeleteOptions{
		Preconditions:     &metav1.Preconditions{UID: &live.UID, ResourceVersion: &live.ResourceVersion},
		PropagationPolicy: &policy,
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete %s %s/%s, whose owners are gone: %w", n.resource.GroupResource(), n.namespace, n.name, err)
	}
	return nil
}

// patchOwners sets n's references if it is still at live's version.
func (c *Controller) patchOwners(ctx context.Context, n *node, live *metav1.PartialObjectMetadata, refs []metav1.OwnerReference) error {
	return c.patch(ctx, n, live, map[string]any{"ownerReferences": refs})
}

func (c *Controller) unblock(ctx context.Context, n *node, live *metav1.PartialObjectMetadata) error {
	refs := slices.Clone(live.OwnerReferences)
	for i := range refs {
		refs[i].BlockOwnerDeletion = nil
	}
	return c.patchOwners(ctx, n, live, refs)
}

func (c *Controller) patch(ctx context.Context, n *node, live *metav1.PartialObjectMetadata, change map[string]any) error {
	change["uid"], change["resourceVersion"] = live.UID, live.ResourceVersion
	data, err := json.Marshal(map[string]any{"metadata": change})
	if err != nil {
		return err
	}
	_, err = c.client(n).Patch(ctx, n.name, types.MergePatchType, data, metav1.PatchOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("patch %s %s/%s: %w", n.resource.GroupResource(), n.namespace, n.name, err)
	}
	return nil
}

// complete reports whether every type is followed. Without one, the dependents
// of an object are not known for certain.
func (c *Controller) complete(n *node) bool {
	missing := c.monitors.unsynced()
	if len(missing) == 0 {
		return true
	}
	c.env.Log.Warn("deletion waits until all types are known",
		"resource", n.resource.GroupResource().String(), "namespace", n.namespace, "name", n.name,
		"missing", strings.Join(missing, ","))
	return false
}

// awaitDependents lets n go when nothing blocks it, else sees to those that do.
func (c *Controller) awaitDependents(ctx context.Context, n *node, dependents []*node) (reconcile.Result, error) {
	if !c.complete(n) {
		return reconcile.Result{RequeueAfter: incompleteWait}, nil
	}
	blockers := blocking(n, dependents)
	if len(blockers) == 0 {
		return reconcile.Result{}, c.dropFinalizer(ctx, n, metav1.FinalizerDeleteDependents)
	}
	for _, d := range blockers {
		if !d.deleting {
			c.loop.Add(reconcile.Key{Name: string(d.uid)})
		}
	}
	return reconcile.Result{}, nil
}

// orphanDependents removes all references to n, then lets n go.
func (c *Controller) orphanDependents(ctx context.Context, n *node, dependents []*node) (reconcile.Result, error) {
	if !c.complete(n) {
		return reconcile.Result{RequeueAfter: incompleteWait}, nil
	}
	var errs []error
	for _, d := range dependents {
		live, err := c.live(ctx, d)
		if err == nil && live != nil {
			if refs := without(live.OwnerReferences, []types.UID{n.uid}); len(refs) != len(live.OwnerReferences) {
				err = c.patchOwners(ctx, d, live, refs)
			}
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return reconcile.Result{}, fmt.Errorf("orphan dependents of %s %s/%s: %w", n.resource.GroupResource(), n.namespace, n.name, err)
	}
	return reconcile.Result{}, c.dropFinalizer(ctx, n, metav1.FinalizerOrphanDependents)
}

func (c *Controller) dropFinalizer(ctx context.Context, n *node, name string) error {
	live, err := c.live(ctx, n)
	if err != nil || live == nil || !slices.Contains(live.Finalizers, name) {
		return err
	}
	left := slices.DeleteFunc(slices.Clone(live.Finalizers), func(f string) bool { return f == name })
	return c.patch(ctx, n, live, map[string]any{"finalizers": left})
}
