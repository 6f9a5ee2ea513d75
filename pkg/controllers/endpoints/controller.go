//lint:file-ignore SA1019 Endpoints are deprecated, and serving those who still use them is what this package is for.

// Package endpoints keeps the Endpoints object of every Service that selects
// pods, for clients that do not read EndpointSlices.
package endpoints

import (
	"context"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/controllers/endpointset"
	"coracle/pkg/reconcile"
)

// Controller reconciles Services. Make it with New.
type Controller struct {
	env       reconcile.Env
	services  cache.SharedIndexInformer
	pods      cache.SharedIndexInformer
	endpoints cache.SharedIndexInformer
	loop      *reconcile.Loop

	mu     sync.Mutex
	causes map[reconcile.Key]*endpointset.Causes // guarded by mu; one per Service
}

// New registers the controller's informers.
func New(env reconcile.Env) *Controller {
	env = env.Defaulted()
	c := &Controller{
		env:       env,
		services:  env.Informers.Core().V1().Services().Informer(),
		pods:      env.Informers.Core().V1().Pods().Informer(),
		endpoints: env.Informers.Core().V1().Endpoints().Informer(),
		causes:    map[reconcile.Key]*endpointset.Causes{},
	}
	c.loop = env.Loop("endpoints", c.reconcile)
	reconcile.Watch(c.loop, c.services, reconcile.Self[*corev1.Service])
	reconcile.Watch(c.loop, c.endpoints, func(e *corev1.Endpoints) []reconcile.Key {
		return []reconcile.Key{reconcile.KeyOf(e)}
	})
	c.loop.Handle(c.pods, endpointset.PodHandler(c.services, c.loop.Add))
	return c
}

// Run blocks until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

func (c *Controller) reconcile(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	svc := reconcile.Cached[*corev1.Service](c.services, req.Key)
	have := reconcile.Cached[*corev1.Endpoints](c.endpoints, req.Key)
	if svc == nil {
		return reconcile.Result{}, c.clean(ctx, req, have)
	}
	if !endpointset.Selects(svc) {
		return reconcile.Result{}, nil
	}
	pods := endpointset.PodsOf(c.pods, svc)
	want := compute(svc, pods, have, c.cause(req.Key, svc, pods))
	if want == nil {
		return reconcile.Result{}, nil
	}
	client := c.env.Client.CoreV1().Endpoints(svc.Namespace)
	var got *corev1.Endpoints
	var err error
	if have == nil {
		got, err = client.Create(ctx, want, metav1.CreateOptions{})
	} else {
		got, err = client.Update(ctx, want, metav1.UpdateOptions{})
	}
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return reconcile.Result{}, nil
	}
	if err != nil {
		c.tell(want, have == nil, err)
		return reconcile.Result{}, fmt.Errorf("write endpoints: %w", err)
	}
	req.Wrote(c.endpoints, got)
	return reconcile.Result{}, nil
}

// tell records that the Endpoints of a Service could not be written.
func (c *Controller) tell(want *corev1.Endpoints, create bool, err error) {
	switch {
	case reconcile.Transient(err):
	case create:
		c.env.Events.Eventf(want, corev1.EventTypeWarning, "FailedToCreateEndpoint", "Failed to create endpoint for service %s/%s: %v", want.Namespace, want.Name, err)
	default:
		c.env.Events.Eventf(want, corev1.EventTypeWarning, "FailedToUpdateEndpoint", "Failed to update endpoint %s/%s: %v", want.Namespace, want.Name, err)
	}
}

// clean removes the Endpoints of a Service that is gone. Hand-made objects,
// which may come before their Service, stay; the server confirms that the
// Service is gone, for the cache may be behind.
func (c *Controller) clean(ctx context.Context, req *reconcile.Request, have *corev1.Endpoints) error {
	c.mu.Lock()
	_, known := c.causes[req.Key]
	delete(c.causes, req.Key)
	c.mu.Unlock()
	if have == nil || (!known && have.Labels[managedByLabel] != manager) {
		return nil
	}
	_, err := c.env.Client.CoreV1().Services(req.Namespace).Get(ctx, req.Name, metav1.GetOptions{})
	if err == nil {
		return reconcile.ErrStale
	}
	if !apierrors.IsNotFound(err) {
		return fmt.Errorf("confirm that service %s is gone: %w", req.Key, err)
	}
	err = c.env.Client.CoreV1().Endpoints(req.Namespace).Delete(ctx, req.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &have.UID},
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete endpoints of a service that is gone: %w", err)
	}
	req.Deleted(c.endpoints, have)
	return nil
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
