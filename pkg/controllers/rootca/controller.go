// Package rootca keeps the ConfigMap kube-root-ca.crt in every namespace: the
// certificate authority by which pods know the API server.
package rootca

import (
	"context"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/pki"
	"coracle/pkg/reconcile"
)

const (
	// configMapName is projected into every pod by the token volume.
	configMapName = "kube-root-ca.crt"
	// descriptionKey and description tell a reader what the object is for.
	descriptionKey = "kubernetes.io/description"
	description    = "The certificate authority of this cluster's API server, for pods to verify it by. The control plane keeps it up to date."
)

// Controller reconciles namespaces. Make it with New.
type Controller struct {
	env        reconcile.Env
	bundle     *pki.Bundle
	namespaces cache.SharedIndexInformer
	configMaps cache.SharedIndexInformer
	loop       *reconcile.Loop
}

// New registers the controller's informers. bundle is the authority in PEM.
func New(env reconcile.Env, bundle *pki.Bundle) *Controller {
	env = env.Defaulted()
	c := &Controller{
		env:        env,
		bundle:     bundle,
		namespaces: env.Informers.Core().V1().Namespaces().Informer(),
		configMaps: env.Informers.Core().V1().ConfigMaps().Informer(),
	}
	c.loop = env.Loop("rootca", c.reconcile)
	reconcile.Watch(c.loop, c.namespaces, reconcile.Self[*corev1.Namespace])
	reconcile.Watch(c.loop, c.configMaps, func(m *corev1.ConfigMap) []reconcile.Key {
		if m.Name != configMapName {
			return nil
		}
		return []reconcile.Key{{Name: m.Namespace}}
	})
	bundle.Follow(func() {
		for _, name := range c.namespaces.GetStore().ListKeys() {
			c.loop.Add(reconcile.Key{Name: name})
		}
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
	have := reconcile.Cached[*corev1.ConfigMap](c.configMaps, reconcile.Key{Namespace: ns.Name, Name: configMapName})
	want := compute(have, ns.Name, map[string]string{"ca.crt": string(c.bundle.Bytes())})
	if want == nil {
		return reconcile.Result{}, nil
	}
	client := c.env.Client.CoreV1().ConfigMaps(ns.Name)
	var got *corev1.ConfigMap
	var err error
	if have == nil {
		got, err = client.Create(ctx, want, metav1.CreateOptions{})
	} else {
		got, err = client.Update(ctx, want, metav1.UpdateOptions{})
	}
	switch {
	case err == nil:
		req.Wrote(c.configMaps, got)
	case apierrors.IsAlreadyExists(err), apierrors.IsNotFound(err), apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
	default:
		return reconcile.Result{}, fmt.Errorf("publish %s in %s: %w", configMapName, ns.Name, err)
	}
	return reconcile.Result{}, nil
}

// compute returns the ConfigMap to write, or nil when have is right.
func compute(have *corev1.ConfigMap, namespace string, data map[string]string) *corev1.ConfigMap {
	if have == nil {
		return &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{
				Name: configMapName, Namespace: namespace,
				Annotations: map[string]string{descriptionKey: description},
			},
			Data: data,
		}
	}
	if maps.Equal(have.Data, data) && len(have.BinaryData) == 0 {
		return nil
	}
	want := have.DeepCopy()
	want.Data, want.BinaryData = data, nil
	return want
}
