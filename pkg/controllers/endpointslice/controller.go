// Package endpointslice keeps the EndpointSlices of every Service that selects
// pods: which addresses stand behind it, on which ports, and whether each is
// ready, serving or terminating.
package endpointslice

import (
	"context"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/controllers/endpointset"
	"coracle/pkg/reconcile"
)

// Manager is the value of the managed-by label on this controller's slices.
const Manager = "endpointslice-controller.k8s.io"

// Controller reconciles Services. Make it with New.
type Controller struct {
	env      reconcile.Env
	services cache.SharedIndexInformer
	pods     cache.SharedIndexInformer
	nodes    cache.SharedIndexInformer
	slices   cache.SharedIndexInformer
	loop     *reconcile.Loop

	mu     sync.Mutex
	causes map[reconcile.Key]*endpointset.Causes // guarded by mu; one per Service
}

// New registers the controller's informers.
func New(env reconcile.Env) *Controller {
	env = env.Defaulted()
	c := &Controller{
		env:      env,
		services: env.Informers.Core().V1().Services().Informer(),
		pods:     env.Informers.Core().V1().Pods().Informer(),
		nodes:    env.Informers.Core().V1().Nodes().Informer(),
		slices:   env.Informers.Discovery().V1().EndpointSlices().Informer(),
		causes:   map[reconcile.Key]*endpointset.Causes{},
	}
	endpointset.AddServiceIndex(c.slices)
	c.loop = env.Loop("endpointslice", c.reconcile)
	reconcile.Watch(c.loop, c.services, reconcile.Self[*corev1.Service])
	reconcile.Watch(c.loop, c.slices, endpointset.ServiceOf(Manager))
	c.loop.Handle(c.pods, endpointset.PodHandler(c.services, c.loop.Add))
	c.loop.Handle(c.nodes, cache.ResourceEventHandlerDetailedFuncs{
		AddFunc: func(obj any, first bool) {
			if n, ok := obj.(*corev1.Node); ok && !first && zone(n) != "" {
				c.queueAll()
			}
		},
		UpdateFunc: func(old, obj any) {
			was, ok := old.(*corev1.Node)
			is, ok2 := obj.(*corev1.Node)
			if ok && ok2 && zone(was) != zone(is) {
				c.queueAll()
			}
		},
	})
	return c
}

// Run blocks until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

func (c *Controller) queueAll() {
	for _, obj := range c.services.GetStore().List() {
		if svc, ok := obj.(*corev1.Service); ok {
			c.loop.Add(reconcile.KeyOf(svc))
		}
	}
}

func zone(n *corev1.Node) string { return n.Labels[corev1.LabelTopologyZone] }

func (c *Controller) reconcile(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	svc := reconcile.Cached[*corev1.Service](c.services, req.Key)
	if svc == nil {
		// The slices are the garbage collector's: they name their owner.
		c.forget(req.Key)
		return reconcile.Result{}, nil
	}
	if !endpointset.Selects(svc) || svc.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	pods := endpointset.PodsOf(c.pods, svc)
	have := reconcile.Indexed[*discoveryv1.EndpointSlice](c.slices, endpointset.ByService, endpointset.IndexValue(req.Key, Manager))
	changes := compute(svc, pods, have, func(node string) string {
		if n := reconcile.Cached[*corev1.Node](c.nodes, reconcile.Key{Name: node}); n != nil {
			return zone(n)
		}
		return ""
	}, c.cause(req.Key, svc, pods))
	if err := endpointset.Write(ctx, req, c.env.Client, c.slices, changes); err != nil {
		if !reconcile.Transient(err) {
			c.env.Events.Eventf(svc, corev1.EventTypeWarning, "FailedToUpdateEndpointSlices",
				"Error updating Endpoint Slices for Service %s/%s: %v", svc.Namespace, svc.Name, err)
		}
		return reconcile.Result{}, err
	}
	return reconcile.Result{}, nil
}

// cause returns when the oldest unpublished change happened.
func (c *Controller) cause(key reconcile.Key, svc *corev1.Service, pods []*corev1.Pod) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.causes[key] == nil {
		c.causes[key] = &endpointset.Causes{}
	}
	return c.causes[key].Next(svc, pods)
}

func (c *Controller) forget(key reconcile.Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.causes, key)
}
