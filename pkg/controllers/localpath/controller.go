// Package localpath provisions volumes that are folders of a node. See
// coracle/pkg/localpath for what it and the nodes' agents agree on. It is a
// provisioner like any other: it serves claims whose annotation names it, and
// touches no others.
package localpath

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/localpath"
	"coracle/pkg/reconcile"
	"coracle/pkg/volumebinding"
)

// Controller makes and deletes volumes. Make it with New. One loop serves both
// kinds: keys without a namespace are volumes.
type Controller struct {
	env                             reconcile.Env
	loop                            *reconcile.Loop
	claims, volumes, classes, nodes cache.SharedIndexInformer
}

// byNode lists the volumes of this provisioner by the name of their node.
const byNode = "localpath-node"

// New makes the controller and registers the informers it reads.
func New(env reconcile.Env) *Controller {
	env = env.Defaulted()
	core := env.Informers.Core().V1()
	c := &Controller{
		env:    env,
		claims: core.PersistentVolumeClaims().Informer(), volumes: core.PersistentVolumes().Informer(),
		classes: env.Informers.Storage().V1().StorageClasses().Informer(), nodes: core.Nodes().Informer(),
	}
	if err := c.volumes.AddIndexers(cache.Indexers{byNode: func(obj any) ([]string, error) {
		if v, ok := obj.(*corev1.PersistentVolume); ok && localpath.Made(v) {
			return []string{v.Annotations[localpath.Node]}, nil
		}
		return nil, nil
	}}); err != nil {
		panic("add indices before the informers stop: " + err.Error())
	}
	c.loop = env.Loop("local-path", c.reconcile)
	reconcile.Watch(c.loop, c.claims, func(claim *corev1.PersistentVolumeClaim) []reconcile.Key {
		switch {
		case claim.Annotations[volumebinding.Provisioner] != localpath.Provisioner:
			return nil
		case claim.Spec.VolumeName != "":
			return []reconcile.Key{{Name: claim.Spec.VolumeName}}
		}
		return []reconcile.Key{reconcile.KeyOf(claim)}
	})
	reconcile.Watch(c.loop, c.volumes, func(v *corev1.PersistentVolume) []reconcile.Key {
		if !localpath.Made(v) {
			return nil
		}
		return []reconcile.Key{{Name: v.Name}}
	})
	reconcile.Watch(c.loop, c.classes, c.waitingFor)
	c.loop.Handle(c.nodes, cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) { c.seeNode(nil, obj) },
		UpdateFunc: func(old, obj any) {
			before, _ := old.(*corev1.Node)
			c.seeNode(before, obj)
		},
		DeleteFunc: c.lostNode,
	})
	return c
}

// Run blocks until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// waitingFor are the claims of a class that have no volume yet.
func (c *Controller) waitingFor(class *storagev1.StorageClass) []reconcile.Key {
	if class.Provisioner != localpath.Provisioner {
		return nil
	}
	var keys []reconcile.Key
	for _, obj := range c.claims.GetStore().List() {
		if claim, ok := obj.(*corev1.PersistentVolumeClaim); ok && wants(claim) && volumebinding.ClassOf(claim) == class.Name {
			keys = append(keys, reconcile.KeyOf(claim))
		}
	}
	return keys
}

// seeNode looks at the volumes whose removal a node speaks of, and, when one
// is done with, at those that wait for room.
func (c *Controller) seeNode(before *corev1.Node, obj any) {
	node, ok := obj.(*corev1.Node)
	if !ok {
		return
	}
	now := localpath.Removals(node.Annotations)
	for name := range now {
		c.loop.Add(reconcile.Key{Name: name})
	}
	if before != nil && len(localpath.Removals(before.Annotations)) > len(now) {
		c.addVolumesOf(node.Name)
	}
}

func (c *Controller) lostNode(obj any) {
	if lost, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = lost.Obj
	}
	if node, ok := obj.(*corev1.Node); ok {
		c.addVolumesOf(node.Name)
	}
}

func (c *Controller) addVolumesOf(node string) {
	for _, v := range reconcile.Indexed[*corev1.PersistentVolume](c.volumes, byNode, node) {
		if v.DeletionTimestamp != nil {
			c.loop.Add(reconcile.Key{Name: v.Name})
		}
	}
}

func (c *Controller) reconcile(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	var err error
	if req.Namespace == "" {
		err = c.reconcileVolume(ctx, req)
	} else {
		err = c.reconcileClaim(ctx, req)
	}
	if apierrors.IsNotFound(err) {
		err = nil // it went meanwhile
	}
	return reconcile.Result{}, err
}

func (c *Controller) reconcileClaim(ctx context.Context, req *reconcile.Request) error {
	claim := reconcile.Cached[*corev1.PersistentVolumeClaim](c.claims, req.Key)
	if claim == nil || !wants(claim) {
		return nil
	}
	class := reconcile.Cached[*storagev1.StorageClass](c.classes, reconcile.Key{Name: volumebinding.ClassOf(claim)})
	if class == nil || reconcile.Cached[*corev1.PersistentVolume](c.volumes, reconcile.Key{Name: volumeName(claim)}) != nil {
		return nil
	}
	node := reconcile.Cached[*corev1.Node](c.nodes, reconcile.Key{Name: claim.Annotations[volumebinding.SelectedNode]})
	volume, refused := provision(claim, class, node)
	if refused != nil {
		c.env.Events.Eventf(claim, corev1.EventTypeWarning, "ProvisioningFailed", "failed to provision volume with StorageClass %q: %s", class.Name, refused.message)
		if refused.another {
			return c.giveBack(ctx, req, claim)
		}
		return nil
	}
	got, err := c.env.Client.CoreV1().PersistentVolumes().Create(ctx, volume, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("create the volume of claim %s: %w", req.Key, err)
	}
	req.Wrote(c.volumes, got)
	c.env.Events.Eventf(claim, corev1.EventTypeNormal, "ProvisioningSucceeded", "Successfully provisioned volume %s", got.Name)
	return nil
}

// giveBack lets the scheduler choose again.
func (c *Controller) giveBack(ctx context.Context, req *reconcile.Request, claim *corev1.PersistentVolumeClaim) error {
	next := claim.DeepCopy()
	delete(next.Annotations, volumebinding.SelectedNode)
	got, err := c.env.Client.CoreV1().PersistentVolumeClaims(claim.Namespace).Update(ctx, next, metav1.UpdateOptions{})
	if err != nil {
		return fmt.Errorf("give the node of claim %s back: %w", req.Key, err)
	}
	req.Wrote(c.claims, got)
	return nil
}

func (c *Controller) reconcileVolume(ctx context.Context, req *reconcile.Request) error {
	v := reconcile.Cached[*corev1.PersistentVolume](c.volumes, req.Key)
	if v == nil {
		return c.forget(ctx, req)
	}
	if !localpath.Made(v) {
		return nil
	}
	node := reconcile.Cached[*corev1.Node](c.nodes, reconcile.Key{Name: v.Annotations[localpath.Node]})
	claim := c.claimOf(v)
	volumes := c.env.Client.CoreV1().PersistentVolumes()
	switch decideVolume(v, claim, node) {
	case discard:
		err := volumes.Delete(ctx, v.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &v.UID, ResourceVersion: &v.ResourceVersion}})
		if err != nil {
			return fmt.Errorf("delete volume %s: %w", v.Name, err)
		}
		req.Deleted(c.volumes, v)
	case ask:
		if err := c.stillGoes(ctx, v); err != nil {
			return err
		}
		return c.annotate(ctx, req, node.Name, localpath.Wanted)
	case letGo:
		if node == nil {
			if err := c.isLost(ctx, v.Annotations[localpath.Node]); err != nil {
				return err
			}
		}
		next := v.DeepCopy()
		next.Finalizers = slices.DeleteFunc(next.Finalizers, func(f string) bool { return f == localpath.Finalizer })
		if _, err := volumes.Update(ctx, next, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("let volume %s go: %w", v.Name, err)
		}
	case grow:
		next := v.DeepCopy()
		next.Spec.Capacity = corev1.ResourceList{corev1.ResourceStorage: claim.Spec.Resources.Requests[corev1.ResourceStorage]}
		got, err := volumes.Update(ctx, next, metav1.UpdateOptions{})
		if err != nil {
			return fmt.Errorf("grow volume %s: %w", v.Name, err)
		}
		req.Wrote(c.volumes, got)
	case tellGrowth:
		next := claim.DeepCopy()
		next.Status.Capacity = v.Spec.Capacity
		got, err := c.env.Client.CoreV1().PersistentVolumeClaims(claim.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{})
		if err != nil {
			return fmt.Errorf("tell claim %s/%s its size: %w", claim.Namespace, claim.Name, err)
		}
		req.Wrote(c.claims, got)
		c.env.Events.Eventf(claim, corev1.EventTypeNormal, "VolumeResizeSuccessful", "Resize volume succeeded")
	}
	return nil
}

// stillGoes returns nil when the server agrees that the volume's data are to be
// removed.
func (c *Controller) stillGoes(ctx context.Context, v *corev1.PersistentVolume) error {
	now, err := c.env.Client.CoreV1().PersistentVolumes().Get(ctx, v.Name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("look at volume %s before its folder is removed: %w", v.Name, err)
	}
	if now.UID != v.UID || now.ResourceVersion != v.ResourceVersion {
		return reconcile.ErrStale
	}
	return nil
}

// isLost returns nil when the server has no such node: only then went the
// folders with it.
func (c *Controller) isLost(ctx context.Context, name string) error {
	_, err := c.env.Client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("look for node %s: %w", name, err)
	}
	return reconcile.ErrStale
}

// claimOf is the claim that has the volume, nil if none has.
func (c *Controller) claimOf(v *corev1.PersistentVolume) *corev1.PersistentVolumeClaim {
	ref := v.Spec.ClaimRef
	if ref == nil {
		return nil
	}
	claim := reconcile.Cached[*corev1.PersistentVolumeClaim](c.claims, reconcile.Key{Namespace: ref.Namespace, Name: ref.Name})
	if claim == nil || claim.UID != ref.UID || claim.Spec.VolumeName != v.Name {
		return nil
	}
	return claim
}

// forget takes what Nodes say about a volume that is gone off them.
func (c *Controller) forget(ctx context.Context, req *reconcile.Request) error {
	for _, obj := range c.nodes.GetStore().List() {
		node, ok := obj.(*corev1.Node)
		if !ok {
			continue
		}
		if _, told := node.Annotations[localpath.RemoveKey(req.Name)]; told {
			if err := c.annotate(ctx, req, node.Name, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// annotate writes what is to become of a volume; nil takes it off.
func (c *Controller) annotate(ctx context.Context, req *reconcile.Request, node string, value any) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{localpath.RemoveKey(req.Name): value}}})
	if err != nil {
		return err
	}
	got, err := c.env.Client.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		return fmt.Errorf("tell node %s about volume %s: %w", node, req.Name, err)
	}
	req.Wrote(c.nodes, got)
	return nil
}
