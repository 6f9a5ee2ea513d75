// Package loadbalancer gives Services of type LoadBalancer addresses of the
// network that the cluster's nodes are on. Which node answers for an address is
// decided by the nodes themselves (coracle/pkg/network/announce); the service
// proxy of each carries the traffic.
//
// Contract: an address is in the status of one service at a time. Nothing but
// the stored statuses says which are taken, so that a restart changes nothing.
// Services with the class of somebody else are not touched.
package loadbalancer

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/reconcile"
)

// everything is the only key: services compete for addresses, so one decision
// is about all of them.
var everything = reconcile.Key{Name: "all"}

// Controller allocates addresses. Make it with New.
type Controller struct {
	env      reconcile.Env
	pool     netip.Prefix
	services cache.SharedIndexInformer
	loop     *reconcile.Loop
	told     refusals // reconcile's own: there is one key
}

// New makes the controller of the addresses in pool, of which the last of an
// IPv4 range is left out, and registers its informer.
func New(env reconcile.Env, pool netip.Prefix) *Controller {
	env = env.Defaulted()
	c := &Controller{env: env, pool: pool.Masked(), services: env.Informers.Core().V1().Services().Informer(), told: refusals{}}
	c.loop = env.Loop("load-balancer", c.reconcile)
	reconcile.Watch(c.loop, c.services, func(svc *corev1.Service) []reconcile.Key {
		if concerns(svc) {
			return []reconcile.Key{everything}
		}
		return nil
	})
	return c
}

// concerns says whether a service has, wants or had an address.
func concerns(svc *corev1.Service) bool {
	return svc.Spec.Type == corev1.ServiceTypeLoadBalancer || slices.Contains(svc.Finalizers, finalizer)
}

// Run blocks until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

func (c *Controller) reconcile(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	var services []*corev1.Service
	for _, obj := range c.services.GetStore().List() {
		if svc, ok := obj.(*corev1.Service); ok && concerns(svc) {
			services = append(services, svc)
		}
	}
	var errs []error
	for _, s := range c.told.fresh(compute(services, c.pool)) {
		errs = append(errs, c.do(ctx, req, &s))
	}
	return reconcile.Result{}, errors.Join(errs...)
}

// do carries out a step. One that fails does not keep the others from theirs.
func (c *Controller) do(ctx context.Context, req *reconcile.Request, s *step) error {
	svc, tell := s.service, c.env.Events.Eventf
	switch s.action {
	case refuse:
		tell(svc, corev1.EventTypeWarning, "SyncLoadBalancerFailed", "Error syncing load balancer: %s", s.reason)
		return nil
	case assign:
		tell(svc, corev1.EventTypeNormal, "EnsuringLoadBalancer", "Ensuring load balancer")
	case release:
		tell(svc, corev1.EventTypeNormal, "DeletingLoadBalancer", "Deleting load balancer")
	}
	got, err := c.env.Client.CoreV1().Services(svc.Namespace).UpdateStatus(ctx, s.carried(), metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		if !apierrors.IsConflict(err) {
			tell(svc, corev1.EventTypeWarning, "SyncLoadBalancerFailed", "Error syncing load balancer: %v", err)
		}
		return fmt.Errorf("write the load balancer of service %s/%s: %w", svc.Namespace, svc.Name, err)
	}
	if s.action == assign {
		tell(svc, corev1.EventTypeNormal, "EnsuredLoadBalancer", "Ensured load balancer")
	} else {
		tell(svc, corev1.EventTypeNormal, "DeletedLoadBalancer", "Deleted load balancer")
	}
	req.Wrote(c.services, got)
	return nil
}
