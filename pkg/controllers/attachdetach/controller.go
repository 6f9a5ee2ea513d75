// Package attachdetach has volumes of CSI drivers attached to the nodes whose
// pods need them. What attaches is the driver's own program: it is asked by a
// VolumeAttachment object and answers in its status.
//
// A node mounts only what its status.volumesAttached lists, and lists before
// it does so what it mounts in status.volumesInUse. So a volume that nobody
// needs is taken off the first list, then the second is read from the server,
// and only when it is not there either is its attachment deleted. A node that
// does not answer keeps it for six minutes, one that is marked out of service
// not at all. A volume that only one node may have is not attached anywhere
// while another attachment of it exists, even one that is being deleted.
//
// Nothing that is destroyed is decided by caches alone. Nothing has to be
// remembered: after a crash at any point the objects say how to go on.
//
// One loop serves three kinds of keys: a volume is named by its driver and
// handle, a node by its name alone, and an attachment whose volume is gone by
// its name under orphans.
package attachdetach

import (
	"context"
	"fmt"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/attachment"
	"coracle/pkg/reconcile"
)

// orphans is no driver's name.
const orphans = "/"

// Controller attaches and detaches. Make it with New.
type Controller struct {
	env         reconcile.Env
	loop        *reconcile.Loop
	pods        cache.SharedIndexInformer
	claims      cache.SharedIndexInformer
	volumes     cache.SharedIndexInformer
	nodes       cache.SharedIndexInformer
	attachments cache.SharedIndexInformer
	drivers     cache.SharedIndexInformer
	memory      *memory
	// reporting is held while a node's list of attached volumes is written.
	reporting locks
	// trusted is set once the cache has been seen to have all attachments.
	// From then on this controller's own are the only new ones.
	trusted atomic.Bool
}

// New makes the controller and registers the informers it reads.
func New(env reconcile.Env) *Controller {
	env = env.Defaulted()
	core, storage := env.Informers.Core().V1(), env.Informers.Storage().V1()
	c := &Controller{
		env: env, memory: newMemory(),
		pods: core.Pods().Informer(), claims: core.PersistentVolumeClaims().Informer(),
		volumes: core.PersistentVolumes().Informer(), nodes: core.Nodes().Informer(),
		attachments: storage.VolumeAttachments().Informer(), drivers: storage.CSIDrivers().Informer(),
	}
	addIndices(c.pods, cache.Indexers{byClaim: claimsOfPod, byNode: nodeOfPod})
	addIndices(c.attachments, cache.Indexers{byVolume: volumeOfAttachment, byNode: nodeOfAttachment})
	addIndices(c.volumes, cache.Indexers{byHandle: handleOfVolume})
	c.loop = env.Loop("attach-detach", c.reconcile)
	reconcile.Watch(c.loop, c.pods, c.ofPod)
	reconcile.Watch(c.loop, c.claims, func(claim *corev1.PersistentVolumeClaim) []reconcile.Key {
		return keysOf(c.volume(claim.Spec.VolumeName))
	})
	reconcile.Watch(c.loop, c.volumes, c.ofVolume)
	reconcile.Watch(c.loop, c.attachments, c.ofAttachment)
	reconcile.Watch(c.loop, c.nodes, c.ofNode)
	reconcile.Watch(c.loop, c.drivers, c.ofDriver)
	c.loop.Handle(c.attachments, cache.ResourceEventHandlerFuncs{DeleteFunc: func(obj any) {
		if lost, ok := obj.(cache.DeletedFinalStateUnknown); ok {
			obj = lost.Obj
		}
		if a, ok := obj.(*storagev1.VolumeAttachment); ok {
			c.memory.forget(a.UID)
		}
	}})
	return c
}

// Run blocks until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

func (c *Controller) volume(name string) *corev1.PersistentVolume {
	if name == "" {
		return nil
	}
	return reconcile.Cached[*corev1.PersistentVolume](c.volumes, reconcile.Key{Name: name})
}

// keysOf is the key of a CSI driver's volume; none for others and nil.
func keysOf(v *corev1.PersistentVolume) []reconcile.Key {
	if v == nil || v.Spec.CSI == nil {
		return nil
	}
	return []reconcile.Key{{Namespace: v.Spec.CSI.Driver, Name: v.Spec.CSI.VolumeHandle}}
}

func (c *Controller) ofPod(pod *corev1.Pod) []reconcile.Key {
	var keys []reconcile.Key
	names, err := claimsOfPod(pod)
	if err != nil {
		return nil
	}
	for _, name := range names {
		namespace, name, err := cache.SplitMetaNamespaceKey(name)
		if err != nil {
			continue
		}
		if claim := reconcile.Cached[*corev1.PersistentVolumeClaim](c.claims, reconcile.Key{Namespace: namespace, Name: name}); claim != nil {
			keys = append(keys, keysOf(c.volume(claim.Spec.VolumeName))...)
		}
	}
	return keys
}

// ofVolume is the volume, what it leaves behind, and the nodes that can name it
// in their status now that it is there.
func (c *Controller) ofVolume(v *corev1.PersistentVolume) []reconcile.Key {
	keys := keysOf(v)
	for _, a := range reconcile.Indexed[*storagev1.VolumeAttachment](c.attachments, byVolume, v.Name) {
		keys = append(keys, reconcile.Key{Namespace: orphans, Name: a.Name}, reconcile.Key{Name: a.Spec.NodeName})
	}
	return keys
}

func (c *Controller) ofAttachment(a *storagev1.VolumeAttachment) []reconcile.Key {
	keys := []reconcile.Key{{Name: a.Spec.NodeName}}
	if name := a.Spec.Source.PersistentVolumeName; name != nil {
		if v := c.volume(*name); v != nil {
			return append(keys, keysOf(v)...)
		}
		keys = append(keys, reconcile.Key{Namespace: orphans, Name: a.Name})
	}
	return keys
}

// ofNode is the node and all volumes that may come to it or leave it.
func (c *Controller) ofNode(node *corev1.Node) []reconcile.Key {
	keys := []reconcile.Key{{Name: node.Name}}
	for _, a := range reconcile.Indexed[*storagev1.VolumeAttachment](c.attachments, byNode, node.Name) {
		keys = append(keys, c.ofAttachment(a)[1:]...)
	}
	if reconcile.Cached[*corev1.Node](c.nodes, reconcile.Key{Name: node.Name}) == nil {
		return keys
	}
	for _, pod := range reconcile.Indexed[*corev1.Pod](c.pods, byNode, node.Name) {
		keys = append(keys, c.ofPod(pod)...)
	}
	return keys
}

func (c *Controller) ofDriver(driver *storagev1.CSIDriver) []reconcile.Key {
	var keys []reconcile.Key
	for _, obj := range c.volumes.GetStore().List() {
		if v, ok := obj.(*corev1.PersistentVolume); ok && v.Spec.CSI != nil && v.Spec.CSI.Driver == driver.Name {
			keys = append(keys, keysOf(v)...)
		}
	}
	return keys
}

func (c *Controller) reconcile(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	switch req.Namespace {
	case "":
		_, err := c.report(ctx, req, reconcile.Cached[*corev1.Node](c.nodes, req.Key))
		return reconcile.Result{}, err
	case orphans:
		return c.reconcileOrphan(ctx, req)
	}
	return c.reconcileVolume(ctx, req)
}

func (c *Controller) reconcileVolume(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	volumes := reconcile.Indexed[*corev1.PersistentVolume](c.volumes, byHandle, req.Namespace+"^"+req.Name)
	now := c.env.Clock.Now()
	v := view{wants: gather(volumes, c.podsOf), node: c.node, now: now}
	v.attachments = c.attachmentsOf(req, volumes, v.wants)
	v.unwanted = c.since(now)
	p := decide(v)
	for _, uid := range p.wanted {
		if c.memory.wanted(uid) {
			c.reportAgain(v.attachments, uid)
		}
	}
	for _, l := range p.lines {
		if c.memory.isNew(req.Name, l) {
			c.env.Events.Eventf(l.pod, corev1.EventTypeWarning, "FailedAttachVolume", "%s", l.message)
		}
	}
	for _, d := range p.detach {
		if err := c.detach(ctx, req, d); err != nil {
			return reconcile.Result{}, err
		}
	}
	for _, w := range p.attach {
		if err := c.attach(ctx, req, w); err != nil {
			return reconcile.Result{}, err
		}
	}
	return reconcile.Result{RequeueAfter: p.after}, nil
}

// reconcileOrphan ends an attachment whose volume is gone.
func (c *Controller) reconcileOrphan(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	a := reconcile.Cached[*storagev1.VolumeAttachment](c.attachments, reconcile.Key{Name: req.Name})
	if a == nil || a.DeletionTimestamp != nil || a.Spec.Source.PersistentVolumeName == nil || !attachment.IsName(a.Name) {
		return reconcile.Result{}, nil
	}
	if v := c.volume(*a.Spec.Source.PersistentVolumeName); v != nil {
		for _, key := range keysOf(v) {
			c.loop.Add(key)
		}
		return reconcile.Result{}, nil
	}
	wanted, err := c.neededBy(reconcile.Indexed[*corev1.Pod](c.pods, byNode, a.Spec.NodeName), a, c.cached())
	if err != nil || wanted {
		return reconcile.Result{}, err
	}
	now := c.env.Clock.Now()
	d, after := release(a, c.node(a.Spec.NodeName), c.since(now)(a.UID), now)
	if d != nil {
		err = c.detach(ctx, req, *d)
	}
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("end the attachment of a volume that is gone: %w", err)
	}
	return reconcile.Result{RequeueAfter: after}, nil
}
