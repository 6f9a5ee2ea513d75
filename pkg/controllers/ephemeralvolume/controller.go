// Package ephemeralvolume makes the claims of pods' ephemeral volumes. Each
// belongs to its pod, so that the garbage collector takes it away with the pod.
// A claim of that name that belongs to somebody else is left alone, and the pod
// waits and says so.
package ephemeralvolume

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/reconcile"
)

// Controller makes claims. Make it with New.
type Controller struct {
	env          reconcile.Env
	loop         *reconcile.Loop
	pods, claims cache.SharedIndexInformer
}

// New makes the controller and registers the informers it reads.
func New(env reconcile.Env) *Controller {
	env = env.Defaulted()
	core := env.Informers.Core().V1()
	c := &Controller{env: env, pods: core.Pods().Informer(), claims: core.PersistentVolumeClaims().Informer()}
	c.loop = env.Loop("ephemeral-volume", c.reconcile)
	reconcile.Watch(c.loop, c.pods, func(pod *corev1.Pod) []reconcile.Key {
		for i := range pod.Spec.Volumes {
			if pod.Spec.Volumes[i].Ephemeral != nil {
				return reconcile.Self(pod)
			}
		}
		return nil
	})
	// A claim that went is made again while its pod is there.
	reconcile.Watch(c.loop, c.claims, reconcile.Controller[*corev1.PersistentVolumeClaim]("Pod"))
	return c
}

// Run blocks until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

func (c *Controller) reconcile(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	pod := reconcile.Cached[*corev1.Pod](c.pods, req.Key)
	if pod == nil {
		return reconcile.Result{}, nil
	}
	claims, refused := missing(pod, func(name string) *corev1.PersistentVolumeClaim {
		return reconcile.Cached[*corev1.PersistentVolumeClaim](c.claims, reconcile.Key{Namespace: pod.Namespace, Name: name})
	})
	for _, claim := range claims {
		got, err := c.env.Client.CoreV1().PersistentVolumeClaims(pod.Namespace).Create(ctx, claim, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			return reconcile.Result{}, reconcile.ErrStale
		}
		if err != nil {
			c.env.Events.Eventf(pod, corev1.EventTypeWarning, "FailedBinding", "create PVC %s: %v", claim.Name, err)
			return reconcile.Result{}, fmt.Errorf("create claim %s of pod %s: %w", claim.Name, req.Key, err)
		}
		req.Wrote(c.claims, got)
	}
	if refused != nil {
		c.env.Events.Eventf(pod, corev1.EventTypeWarning, "FailedBinding", "ephemeral volume %s: %s", refused.volume, refused.message)
		return reconcile.Result{}, fmt.Errorf("ephemeral volume %s of pod %s: %s", refused.volume, req.Key, refused.message)
	}
	return reconcile.Result{}, nil
}
