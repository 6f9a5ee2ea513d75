// Package volumebinder brings claims and volumes together.
//
// A claim gets the volume that names it, or the one that suits it best, or
// waits: for a pod where its class says so, for a provisioner where it has
// one, for an administrator otherwise. Both objects are written, the volume
// first: spec.claimRef with the claim's UID is what decides, and since each
// write compares the object's version, no volume is ever given twice. After a
// crash between the two writes the volume names the claim, and the claim finds
// it. A volume whose claim is gone is released, and then its policy counts.
//
// One loop serves both kinds: keys without a namespace are volumes.
package volumebinder

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/reconcile"
	"coracle/pkg/volumebinding"
)

// Controller binds claims and volumes. Make it with New.
type Controller struct {
	env     reconcile.Env
	loop    *reconcile.Loop
	claims  cache.SharedIndexInformer
	volumes cache.SharedIndexInformer
	classes cache.SharedIndexInformer
	pods    cache.SharedIndexInformer
	latest  *latest
	said    *said
}

// New makes the controller and registers the informers it reads.
func New(env reconcile.Env) *Controller {
	env = env.Defaulted()
	core := env.Informers.Core().V1()
	c := &Controller{
		env: env, latest: newLatest(), said: newSaid(),
		claims: core.PersistentVolumeClaims().Informer(), volumes: core.PersistentVolumes().Informer(),
		classes: env.Informers.Storage().V1().StorageClasses().Informer(), pods: core.Pods().Informer(),
	}
	addIndex(c.claims, byNeed, needs)
	addIndex(c.volumes, byClaim, claimOfVolume)
	addIndex(c.pods, byClaim, claimsOfPendingPod)
	c.loop = env.Loop("volume-binder", c.reconcile)
	reconcile.Watch(c.loop, c.claims, c.ofClaim)
	reconcile.Watch(c.loop, c.volumes, c.ofVolume)
	reconcile.Watch(c.loop, c.classes, func(class *storagev1.StorageClass) []reconcile.Key {
		keys := c.claimsUnder("class/" + class.Name)
		if volumebinding.DefaultClass([]*storagev1.StorageClass{class}) != nil {
			keys = append(keys, c.claimsUnder("class/")...)
		}
		return keys
	})
	reconcile.Watch(c.loop, c.pods, c.ofPod)
	return c
}

// Run blocks until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// ofClaim is the claim, its volume, and volumes that name it.
func (c *Controller) ofClaim(claim *corev1.PersistentVolumeClaim) []reconcile.Key {
	keys := []reconcile.Key{reconcile.KeyOf(claim)}
	if claim.Spec.VolumeName != "" {
		keys = append(keys, reconcile.Key{Name: claim.Spec.VolumeName})
	}
	for _, v := range reconcile.Indexed[*corev1.PersistentVolume](c.volumes, byClaim, claim.Namespace+"/"+claim.Name) {
		keys = append(keys, reconcile.Key{Name: v.Name})
	}
	return keys
}

// ofVolume is the volume, the claims that it or they name, and, while nobody
// has it, all that it may suit.
func (c *Controller) ofVolume(v *corev1.PersistentVolume) []reconcile.Key {
	keys := append(c.claimsUnder("volume/"+v.Name), reconcile.Key{Name: v.Name})
	if ref := v.Spec.ClaimRef; ref != nil {
		return append(keys, reconcile.Key{Namespace: ref.Namespace, Name: ref.Name})
	}
	if v.Status.Phase == corev1.VolumeAvailable {
		keys = append(keys, c.claimsUnder("class/"+volumebinding.VolumeClassOf(v))...)
	}
	return keys
}

// ofPod is the claims of a pod that wait for it.
func (c *Controller) ofPod(pod *corev1.Pod) []reconcile.Key {
	var keys []reconcile.Key
	for _, name := range volumebinding.ClaimsOf(pod) {
		key := reconcile.Key{Namespace: pod.Namespace, Name: name}
		if claim := reconcile.Cached[*corev1.PersistentVolumeClaim](c.claims, key); claim != nil && claim.Spec.VolumeName == "" {
			keys = append(keys, key)
		}
	}
	return keys
}

func (c *Controller) reconcile(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	var err error
	if req.Namespace == "" {
		err = c.reconcileVolume(ctx, req)
	} else {
		err = c.reconcileClaim(ctx, req)
	}
	if apierrors.IsNotFound(err) {
		err = nil // it went meanwhile; its event comes
	}
	return reconcile.Result{}, err
}

func (c *Controller) reconcileClaim(ctx context.Context, req *reconcile.Request) error {
	claim := reconcile.Cached[*corev1.PersistentVolumeClaim](c.claims, req.Key)
	if claim == nil {
		return nil
	}
	view := claimView{
		claim:    claim,
		class:    reconcile.Cached[*storagev1.StorageClass](c.classes, reconcile.Key{Name: volumebinding.ClassOf(claim)}),
		standard: volumebinding.DefaultClass(all[*storagev1.StorageClass](c.classes)),
		named:    c.latest.get(c.volumes, claim.Spec.VolumeName),
		waiting:  c.waiting(claim),
		find: func(q volumebinding.Query) (*corev1.PersistentVolume, error) {
			return c.latest.reserve(c.volumes, q)
		},
	}
	defer c.latest.release(claim.UID)
	plan, err := decideClaim(view)
	if err != nil {
		return reconcile.Terminal(err)
	}
	return c.carryOut(ctx, req, claim, plan)
}

// waiting are the names of the pods that use the claim and have no node.
func (c *Controller) waiting(claim *corev1.PersistentVolumeClaim) []string {
	var names []string
	for _, pod := range reconcile.Indexed[*corev1.Pod](c.pods, byClaim, claim.Namespace+"/"+claim.Name) {
		names = append(names, pod.Name)
	}
	slices.Sort(names)
	return names
}

func (c *Controller) carryOut(ctx context.Context, req *reconcile.Request, claim *corev1.PersistentVolumeClaim, plan claimPlan) error {
	if plan.class != "" {
		next := claim.DeepCopy()
		next.Spec.StorageClassName = &plan.class
		return c.updateClaim(ctx, req, next)
	}
	if plan.bind != nil {
		c.said.forget(claim.UID)
		return c.bind(ctx, req, plan.bind, claim)
	}
	news := !plan.event.empty() && (plan.once && claim.Status.Phase != plan.phase || !plan.once && c.said.isNew(claim.UID, plan.event))
	if plan.phase != "" {
		next, changed := claimStatus(claim, plan.phase, nil)
		if changed {
			got, err := c.env.Client.CoreV1().PersistentVolumeClaims(claim.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{})
			if err != nil {
				return fmt.Errorf("set the phase of claim %s: %w", req.Key, err)
			}
			req.Wrote(c.claims, got)
			claim = got
		}
	}
	if plan.provisioner != "" {
		if next, changed := provisionedBy(claim, plan.provisioner); changed {
			if err := c.updateClaim(ctx, req, next); err != nil {
				return err
			}
		}
	}
	if news {
		c.tell(claim, plan.event)
	}
	return plan.retry
}

func (c *Controller) updateClaim(ctx context.Context, req *reconcile.Request, next *corev1.PersistentVolumeClaim) error {
	got, err := c.env.Client.CoreV1().PersistentVolumeClaims(next.Namespace).Update(ctx, next, metav1.UpdateOptions{})
	if err != nil {
		return fmt.Errorf("update claim %s: %w", req.Key, err)
	}
	req.Wrote(c.claims, got)
	return nil
}

// bind has both sides say that they belong together. What they say already is
// not written again.
func (c *Controller) bind(ctx context.Context, req *reconcile.Request, volume *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) error {
	if next, changed := volumebinding.Bind(volume, claim); changed {
		got, err := c.updateVolume(ctx, req, next)
		if err != nil {
			return err
		}
		volume = got
	}
	if _, err := c.setVolumePhase(ctx, req, volume, corev1.VolumeBound, ""); err != nil {
		return err
	}
	api := c.env.Client.CoreV1().PersistentVolumeClaims(claim.Namespace)
	if next, changed := bound(claim, volume.Name); changed {
		got, err := api.Update(ctx, next, metav1.UpdateOptions{})
		if err != nil {
			return fmt.Errorf("bind claim %s to volume %s: %w", req.Key, volume.Name, err)
		}
		req.Wrote(c.claims, got)
		claim = got
	}
	if next, changed := claimStatus(claim, corev1.ClaimBound, volume); changed {
		got, err := api.UpdateStatus(ctx, next, metav1.UpdateOptions{})
		if err != nil {
			return fmt.Errorf("set the phase of claim %s: %w", req.Key, err)
		}
		req.Wrote(c.claims, got)
	}
	return nil
}

func (c *Controller) updateVolume(ctx context.Context, req *reconcile.Request, next *corev1.PersistentVolume) (*corev1.PersistentVolume, error) {
	got, err := c.env.Client.CoreV1().PersistentVolumes().Update(ctx, next, metav1.UpdateOptions{})
	if err != nil {
		return nil, fmt.Errorf("update volume %s: %w", next.Name, err)
	}
	c.latest.put(got)
	req.Wrote(c.volumes, got)
	return got, nil
}

func (c *Controller) setVolumePhase(ctx context.Context, req *reconcile.Request, v *corev1.PersistentVolume, phase corev1.PersistentVolumePhase, message string) (changed bool, err error) {
	if v.Status.Phase == phase {
		return false, nil
	}
	next := v.DeepCopy()
	next.Status.Phase, next.Status.Message = phase, message
	got, err := c.env.Client.CoreV1().PersistentVolumes().UpdateStatus(ctx, next, metav1.UpdateOptions{})
	if err != nil {
		return false, fmt.Errorf("set the phase of volume %s: %w", v.Name, err)
	}
	c.latest.put(got)
	req.Wrote(c.volumes, got)
	return true, nil
}

func (c *Controller) reconcileVolume(ctx context.Context, req *reconcile.Request) error {
	v := c.latest.get(c.volumes, req.Name)
	if v == nil {
		return nil
	}
	claim, err := c.claimOf(ctx, v)
	if err != nil {
		return err
	}
	plan := decideVolume(v, claim)
	for i, obj := range []runtime.Object{v, claim} {
		if e := plan.mismatch[i]; !e.empty() && c.said.isNew(uidOf(obj), e) {
			c.tell(obj, e)
		}
	}
	if plan.unbind {
		if v, err = c.updateVolume(ctx, req, unbound(v)); err != nil {
			return err
		}
	}
	if plan.phase == "" {
		return nil
	}
	changed, err := c.setVolumePhase(ctx, req, v, plan.phase, plan.message)
	if err == nil && changed && !plan.event.empty() {
		c.tell(v, plan.event)
	}
	return err
}

// claimOf is the claim that the volume is bound to, nil if that is gone. A
// volume is released only when the server itself says so.
func (c *Controller) claimOf(ctx context.Context, v *corev1.PersistentVolume) (*corev1.PersistentVolumeClaim, error) {
	ref := v.Spec.ClaimRef
	if ref == nil || ref.UID == "" {
		return nil, nil
	}
	claim := reconcile.Cached[*corev1.PersistentVolumeClaim](c.claims, reconcile.Key{Namespace: ref.Namespace, Name: ref.Name})
	if claim != nil && claim.UID == ref.UID {
		return claim, nil
	}
	if v.Status.Phase == corev1.VolumeReleased || v.Status.Phase == corev1.VolumeFailed {
		return nil, nil
	}
	claim, err := c.env.Client.CoreV1().PersistentVolumeClaims(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for the claim of volume %s: %w", v.Name, err)
	}
	if claim.UID != ref.UID {
		return nil, nil
	}
	return claim, nil
}

func (c *Controller) tell(obj runtime.Object, e event) {
	c.env.Events.Eventf(obj, e.kind, e.reason, "%s", e.message)
}

func uidOf(obj runtime.Object) types.UID {
	if o, ok := obj.(metav1.Object); ok {
		return o.GetUID()
	}
	return ""
}

func all[T any](informer cache.SharedIndexInformer) []T {
	list := informer.GetStore().List()
	out := make([]T, 0, len(list))
	for _, obj := range list {
		if o, ok := obj.(T); ok {
			out = append(out, o)
		}
	}
	return out
}
