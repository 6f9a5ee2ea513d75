// Package servicecidr makes ranges of cluster addresses ready, and keeps one
// that is being deleted for as long as Services hold addresses of it.
package servicecidr

import (
	"context"
	"fmt"
	"net/netip"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/reconcile"
)

// Controller reconciles ServiceCIDRs. Make it with New.
type Controller struct {
	env       reconcile.Env
	cidrs     cache.SharedIndexInformer
	addresses cache.SharedIndexInformer
	loop      *reconcile.Loop
}

// New registers the controller's informers.
func New(env reconcile.Env) *Controller {
	env = env.Defaulted()
	c := &Controller{
		env:       env,
		cidrs:     env.Informers.Networking().V1().ServiceCIDRs().Informer(),
		addresses: env.Informers.Networking().V1().IPAddresses().Informer(),
	}
	c.loop = env.Loop("servicecidr", c.reconcile)
	// A range that comes or goes frees the others that it overlaps.
	reconcile.Watch(c.loop, c.cidrs, func(*networkingv1.ServiceCIDR) []reconcile.Key {
		return c.keys(func(*networkingv1.ServiceCIDR) bool { return true })
	})
	// Only what is being deleted waits for addresses.
	reconcile.Watch(c.loop, c.addresses, func(a *networkingv1.IPAddress) []reconcile.Key {
		ip, err := netip.ParseAddr(a.Name)
		if err != nil {
			return nil
		}
		return c.keys(func(cidr *networkingv1.ServiceCIDR) bool { return cidr.DeletionTimestamp != nil && covers(cidr, ip) })
	})
	return c
}

// Run blocks until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// keys are those of the ranges that want accepts.
func (c *Controller) keys(want func(*networkingv1.ServiceCIDR) bool) []reconcile.Key {
	var out []reconcile.Key
	for _, cidr := range everything[*networkingv1.ServiceCIDR](c.cidrs) {
		if want(cidr) {
			out = append(out, reconcile.KeyOf(cidr))
		}
	}
	return out
}

func everything[T any](informer cache.SharedIndexInformer) []T {
	var out []T
	for _, obj := range informer.GetStore().List() {
		if o, ok := obj.(T); ok {
			out = append(out, o)
		}
	}
	return out
}

func (c *Controller) reconcile(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	cidr := reconcile.Cached[*networkingv1.ServiceCIDR](c.cidrs, req.Key)
	if cidr == nil {
		return reconcile.Result{}, nil
	}
	now := c.env.Clock.Now()
	s := compute(cidr, everything[*networkingv1.ServiceCIDR](c.cidrs), everything[*networkingv1.IPAddress](c.addresses), now)
	client := c.env.Client.NetworkingV1().ServiceCIDRs()
	if s.finalizers != nil {
		next := cidr.DeepCopy()
		next.Finalizers = s.finalizers
		got, err := client.Update(ctx, next, metav1.UpdateOptions{})
		if err != nil {
			return reconcile.Result{}, wrap(cidr.Name, err)
		}
		req.Wrote(c.cidrs, got)
		cidr = got
	}
	if s.condition != nil {
		next := cidr.DeepCopy()
		s.condition.LastTransitionTime = metav1.Time{Time: now}
		meta.SetStatusCondition(&next.Status.Conditions, *s.condition)
		got, err := client.UpdateStatus(ctx, next, metav1.UpdateOptions{})
		if err != nil {
			return reconcile.Result{}, wrap(cidr.Name, err)
		}
		req.Wrote(c.cidrs, got)
	}
	return reconcile.Result{RequeueAfter: s.after}, nil
}

// wrap names the range; one that is gone needs nothing more.
func wrap(name string, err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return fmt.Errorf("update service CIDR %s: %w", name, err)
}
