// Package aggregation fills the rules of ClusterRoles that are made of others.
package aggregation

import (
	"context"
	"fmt"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/reconcile"
)

// Controller reconciles ClusterRoles. Make it with New.
type Controller struct {
	env   reconcile.Env
	roles cache.SharedIndexInformer
	loop  *reconcile.Loop
}

// New registers the controller's informers.
func New(env reconcile.Env) *Controller {
	env = env.Defaulted()
	c := &Controller{env: env, roles: env.Informers.Rbac().V1().ClusterRoles().Informer()}
	c.loop = env.Loop("aggregation", c.reconcile)
	// Any role may be, or have been, part of any aggregated one.
	reconcile.Watch(c.loop, c.roles, func(*rbacv1.ClusterRole) []reconcile.Key { return c.aggregated() })
	return c
}

// Run blocks until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

func (c *Controller) all() []*rbacv1.ClusterRole {
	objs := c.roles.GetStore().List()
	out := make([]*rbacv1.ClusterRole, 0, len(objs))
	for _, obj := range objs {
		if r, ok := obj.(*rbacv1.ClusterRole); ok {
			out = append(out, r)
		}
	}
	return out
}

func (c *Controller) aggregated() []reconcile.Key {
	var keys []reconcile.Key
	for _, r := range c.all() {
		if r.AggregationRule != nil {
			keys = append(keys, reconcile.KeyOf(r))
		}
	}
	return keys
}

func (c *Controller) reconcile(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	role := reconcile.Cached[*rbacv1.ClusterRole](c.roles, req.Key)
	if role == nil || role.AggregationRule == nil || role.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	rules, changed, err := compute(role, c.all())
	if err != nil {
		return reconcile.Result{}, reconcile.Terminal(err)
	}
	if !changed {
		return reconcile.Result{}, nil
	}
	out := role.DeepCopy()
	out.Rules = rules
	got, err := c.env.Client.RbacV1().ClusterRoles().Update(ctx, out, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return reconcile.Result{}, nil
	}
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("write aggregated rules: %w", err)
	}
	req.Wrote(c.roles, got)
	return reconcile.Result{}, nil
}
