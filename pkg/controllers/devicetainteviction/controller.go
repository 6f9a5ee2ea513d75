// Package devicetainteviction deletes pods whose devices have NoExecute taints
// that their claims do not tolerate, or no longer. Taints are a driver's, in its
// ResourceSlices, or an administrator's, in DeviceTaintRules. The object that a
// taint is from is asked for again before a pod goes.
package devicetainteviction

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/controllers/podset"
	"coracle/pkg/controllers/resourceclaim"
	"coracle/pkg/reconcile"
)

// byPool indexes slices by driver and pool.
const byPool = "device-pool"

// Controller reconciles pods. Make it with New.
type Controller struct {
	env                         reconcile.Env
	loop                        *reconcile.Loop
	pods, claims, slices, rules cache.SharedIndexInformer
}

// New registers the controller's informers.
func New(env reconcile.Env) (*Controller, error) {
	env = env.Defaulted()
	r := env.Informers.Resource().V1()
	c := &Controller{
		env: env, pods: env.Informers.Core().V1().Pods().Informer(), claims: r.ResourceClaims().Informer(),
		slices: r.ResourceSlices().Informer(), rules: r.DeviceTaintRules().Informer(),
	}
	if err := resourceclaim.AddClaimIndex(c.pods); err != nil {
		return nil, fmt.Errorf("index pods by their claims: %w", err)
	}
	if err := c.slices.AddIndexers(cache.Indexers{byPool: func(obj any) ([]string, error) {
		if s, ok := obj.(*resourcev1.ResourceSlice); ok {
			return []string{s.Spec.Driver + "/" + s.Spec.Pool.Name}, nil
		}
		return nil, nil
	}}); err != nil {
		return nil, fmt.Errorf("index slices by their pools: %w", err)
	}
	c.loop = env.Loop("device-taint-eviction", c.reconcile)
	reconcile.Watch(c.loop, c.pods, func(pod *corev1.Pod) []reconcile.Key {
		if pod.Spec.NodeName == "" || len(resourceclaim.ClaimsOf(pod)) == 0 {
			return nil
		}
		return reconcile.Self(pod)
	})
	reconcile.Watch(c.loop, c.claims, c.users)
	reconcile.Watch(c.loop, c.rules, func(rule *resourcev1.DeviceTaintRule) []reconcile.Key {
		return c.affected(func(r *resourcev1.DeviceRequestAllocationResult) bool { return ofRule(rule, r) != nil })
	})
	reconcile.Watch(c.loop, c.slices, func(slice *resourcev1.ResourceSlice) []reconcile.Key {
		return c.affected(func(r *resourcev1.DeviceRequestAllocationResult) bool { return len(ofSlice(slice, r)) > 0 })
	})
	return c, nil
}

// Run blocks until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// users are the keys of the pods that name a claim.
func (c *Controller) users(claim *resourcev1.ResourceClaim) []reconcile.Key {
	var keys []reconcile.Key
	for _, pod := range reconcile.Indexed[*corev1.Pod](c.pods, resourceclaim.ByClaim, claim.Namespace+"/"+claim.Name) {
		keys = append(keys, reconcile.KeyOf(pod))
	}
	return keys
}

// affected are the keys of the pods that have devices of which is says yes.
func (c *Controller) affected(is func(*resourcev1.DeviceRequestAllocationResult) bool) []reconcile.Key {
	var keys []reconcile.Key
	for _, obj := range c.claims.GetStore().List() {
		claim, ok := obj.(*resourcev1.ResourceClaim)
		if !ok || claim.Status.Allocation == nil {
			continue
		}
		for i := range claim.Status.Allocation.Devices.Results {
			if is(&claim.Status.Allocation.Devices.Results[i]) {
				keys = append(keys, c.users(claim)...)
				break
			}
		}
	}
	return keys
}

// causes are the taints of a device: of all rules, and of the newest generation
// of its pool.
func (c *Controller) causes(r *resourcev1.DeviceRequestAllocationResult) []cause {
	var out []cause
	for _, obj := range c.rules.GetStore().List() {
		if rule, ok := obj.(*resourcev1.DeviceTaintRule); ok {
			if taint := ofRule(rule, r); taint != nil {
				out = append(out, cause{taint: taint, rule: rule.Name})
			}
		}
	}
	pool := reconcile.Indexed[*resourcev1.ResourceSlice](c.slices, byPool, r.Driver+"/"+r.Pool)
	newest := int64(0)
	for _, s := range pool {
		newest = max(newest, s.Spec.Pool.Generation)
	}
	for _, s := range pool {
		if s.Spec.Pool.Generation == newest {
			for _, taint := range ofSlice(s, r) {
				out = append(out, cause{taint: taint, slice: s.Name})
			}
		}
	}
	return out
}

func (c *Controller) reconcile(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	pod := reconcile.Cached[*corev1.Pod](c.pods, req.Key)
	if pod == nil || pod.DeletionTimestamp != nil || pod.Spec.NodeName == "" {
		return reconcile.Result{}, nil
	}
	var claims []*resourcev1.ResourceClaim
	for _, name := range resourceclaim.ClaimsOf(pod) {
		if claim := reconcile.Cached[*resourcev1.ResourceClaim](c.claims, reconcile.Key{Namespace: pod.Namespace, Name: name}); claim != nil {
			claims = append(claims, claim)
		}
	}
	v := compute(pod.UID, claims, c.causes, c.env.Clock.Now())
	if !v.evict {
		return reconcile.Result{RequeueAfter: v.wait}, nil
	}
	stands, err := c.stands(ctx, &v.by)
	if err != nil {
		return reconcile.Result{}, err
	}
	if !stands {
		return reconcile.Result{}, reconcile.ErrStale
	}
	return reconcile.Result{}, c.evict(ctx, req, pod)
}

// stands asks the server whether a cause is still as the cache shows it.
func (c *Controller) stands(ctx context.Context, by *cause) (bool, error) {
	var had, has metav1.Object
	var err error
	if by.rule != "" {
		had = reconcile.Cached[*resourcev1.DeviceTaintRule](c.rules, reconcile.Key{Name: by.rule})
		has, err = c.env.Client.ResourceV1().DeviceTaintRules().Get(ctx, by.rule, metav1.GetOptions{})
	} else {
		had = reconcile.Cached[*resourcev1.ResourceSlice](c.slices, reconcile.Key{Name: by.slice})
		has, err = c.env.Client.ResourceV1().ResourceSlices().Get(ctx, by.slice, metav1.GetOptions{})
	}
	switch {
	case apierrors.IsNotFound(err):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("confirm the taint of a device by %s%s: %w", by.rule, by.slice, err)
	}
	return had.GetUID() == has.GetUID() && had.GetGeneration() == has.GetGeneration(), nil
}

// evict tells a pod why it goes, and deletes it.
func (c *Controller) evict(ctx context.Context, req *reconcile.Request, pod *corev1.Pod) error {
	why := podset.Disruption{Reason: "DeletionByDeviceTaintManager", Message: "Device Taint manager: deleting due to NoExecute taint"}
	err := podset.Evict(ctx, c.env.Client, pod, why, c.env.Clock.Now(), func() {
		c.env.Events.Eventf(pod, corev1.EventTypeNormal, "DeviceTaintManagerEviction", "Marking for deletion")
	})
	if err != nil {
		return err
	}
	req.Deleted(c.pods, pod)
	return nil
}
