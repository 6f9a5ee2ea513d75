// Package trustbundle publishes the authority of the API server's serving
// certificate as a ClusterTrustBundle, for pods that project it. Other bundles of
// the same signer are removed; those of others are not touched.
package trustbundle

import (
	"context"
	"fmt"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	listers "k8s.io/client-go/listers/certificates/v1"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/pki"
	"coracle/pkg/reconcile"
)

// Controller keeps the one bundle. Make it with New.
type Controller struct {
	env      reconcile.Env
	anchors  *pki.Bundle
	informer cache.SharedIndexInformer
	bundles  listers.ClusterTrustBundleLister
	loop     *reconcile.Loop
}

// New registers the controller's informer. anchors is the authority in PEM.
func New(env reconcile.Env, anchors *pki.Bundle) *Controller {
	env = env.Defaulted()
	bundles := env.Informers.Certificates().V1().ClusterTrustBundles()
	c := &Controller{env: env, anchors: anchors, informer: bundles.Informer(), bundles: bundles.Lister()}
	c.loop = env.Loop("trustbundle", c.reconcile)
	reconcile.Watch(c.loop, c.informer, func(b *certificatesv1.ClusterTrustBundle) []reconcile.Key {
		if b.Spec.SignerName != signer {
			return nil
		}
		return []reconcile.Key{all}
	})
	anchors.Follow(func() { c.loop.Add(all) })
	c.loop.Add(all) // there may be none yet to tell of
	return c
}

// all is the one key: the bundles of the signer.
var all = reconcile.Key{Name: signer}

// Run blocks until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

func (c *Controller) reconcile(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	have, err := c.bundles.List(labels.Everything())
	if err != nil {
		return reconcile.Result{}, err
	}
	a, client := compute(have, string(c.anchors.Bytes())), c.env.Client.CertificatesV1().ClusterTrustBundles()
	var got *certificatesv1.ClusterTrustBundle
	switch {
	case a.create != nil:
		got, err = client.Create(ctx, a.create, metav1.CreateOptions{})
	case a.update != nil:
		got, err = client.Update(ctx, a.update, metav1.UpdateOptions{})
	}
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return reconcile.Result{}, fmt.Errorf("publish the API server's authority: %w", err)
	}
	if err == nil && got != nil {
		req.Wrote(c.informer, got)
	}
	for _, b := range a.remove {
		err := client.Delete(ctx, b.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &b.UID}})
		switch {
		case err == nil:
			req.Deleted(c.informer, b)
		case !apierrors.IsNotFound(err) && !apierrors.IsConflict(err):
			return reconcile.Result{}, fmt.Errorf("remove the old ClusterTrustBundle %s: %w", b.Name, err)
		}
	}
	return reconcile.Result{}, nil
}
