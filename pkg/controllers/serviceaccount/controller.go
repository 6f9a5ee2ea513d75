// Package serviceaccount keeps the service account "default" in every
// namespace, which pods that name none run as.
package serviceaccount

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/reconcile"
)

// defaultName is the account that admission gives to pods that name none.
const defaultName = "default"

// Controller reconciles namespaces. Make it with New.
type Controller struct {
	env        reconcile.Env
	namespaces cache.SharedIndexInformer
	accounts   cache.SharedIndexInformer
	loop       *reconcile.Loop
}

// New registers the controller's informers.
func New(env reconcile.Env) *Controller {
	env = env.Defaulted()
	c := &Controller{
		env:        env,
		namespaces: env.Informers.Core().V1().Namespaces().Informer(),
		accounts:   env.Informers.Core().V1().ServiceAccounts().Informer(),
	}
	c.loop = env.Loop("serviceaccount", c.reconcile)
	reconcile.Watch(c.loop, c.namespaces, reconcile.Self[*corev1.Namespace])
	reconcile.Watch(c.loop, c.accounts, func(a *corev1.ServiceAccount) []reconcile.Key {
		if a.Name != defaultName {
			return nil
		}
		return []reconcile.Key{{Name: a.Namespace}}
	})
	return c
}

// Run blocks until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

func (c *Controller) reconcile(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	ns := reconcile.Cached[*corev1.Namespace](c.namespaces, req.Key)
	if ns == nil || ns.DeletionTimestamp != nil || ns.Status.Phase == corev1.NamespaceTerminating {
		return reconcile.Result{}, nil
	}
	if reconcile.Cached[*corev1.ServiceAccount](c.accounts, reconcile.Key{Namespace: ns.Name, Name: defaultName}) != nil {
		return reconcile.Result{}, nil
	}
	got, err := c.env.Client.CoreV1().ServiceAccounts(ns.Name).Create(ctx, &corev1.ServiceAccount{
		ObjectMeta: metav1.ObjectMeta{Name: defaultName, Namespace: ns.Name},
	}, metav1.CreateOptions{})
	switch {
	case err == nil:
		req.Wrote(c.accounts, got)
	case apierrors.IsAlreadyExists(err), apierrors.IsNotFound(err), apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
	default:
		return reconcile.Result{}, fmt.Errorf("create default service account in %s: %w", ns.Name, err)
	}
	return reconcile.Result{}, nil
}
