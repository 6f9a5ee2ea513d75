//lint:file-ignore SA1019 Endpoints are deprecated, and serving those who still use them is what this package is for.

// Package endpointmirror copies hand-made Endpoints of Services without a
// selector into EndpointSlices, which is all that proxies and DNS read.
package endpointmirror

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/controllers/endpointset"
	"coracle/pkg/reconcile"
)

// Manager is the value of the managed-by label on this controller's slices.
const Manager = "endpointslicemirroring-controller.k8s.io"

// Controller reconciles Endpoints. Make it with New.
type Controller struct {
	env       reconcile.Env
	services  cache.SharedIndexInformer
	endpoints cache.SharedIndexInformer
	slices    cache.SharedIndexInformer
	loop      *reconcile.Loop
}

// New registers the controller's informers.
func New(env reconcile.Env) *Controller {
	env = env.Defaulted()
	c := &Controller{
		env:       env,
		services:  env.Informers.Core().V1().Services().Informer(),
		endpoints: env.Informers.Core().V1().Endpoints().Informer(),
		slices:    env.Informers.Discovery().V1().EndpointSlices().Informer(),
	}
	endpointset.AddServiceIndex(c.slices)
	c.loop = env.Loop("endpointmirror", c.reconcile)
	reconcile.Watch(c.loop, c.services, reconcile.Self[*corev1.Service])
	reconcile.Watch(c.loop, c.endpoints, reconcile.Self[*corev1.Endpoints])
	reconcile.Watch(c.loop, c.slices, endpointset.ServiceOf(Manager))
	return c
}

// Run blocks until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

func (c *Controller) reconcile(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	svc := reconcile.Cached[*corev1.Service](c.services, req.Key)
	e := reconcile.Cached[*corev1.Endpoints](c.endpoints, req.Key)
	have := reconcile.Indexed[*discoveryv1.EndpointSlice](c.slices, endpointset.ByService, endpointset.IndexValue(req.Key, Manager))
	changes := endpointset.Changes{Delete: have}
	if mirrored(svc, e) {
		changes = compute(e, have)
	}
	err := endpointset.Write(ctx, req, c.env.Client, c.slices, changes)
	if err != nil && e != nil && !reconcile.Transient(err) {
		c.env.Events.Eventf(e, corev1.EventTypeWarning, "FailedToUpdateEndpointSlices",
			"Error updating Endpoint Slices for Endpoints %s/%s: %v", e.Namespace, e.Name, err)
	}
	return reconcile.Result{}, err
}
