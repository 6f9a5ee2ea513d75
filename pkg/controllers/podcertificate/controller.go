// Package podcertificate deletes PodCertificateRequests that are older than
// anybody waits for: an agent asks anew long before.
package podcertificate

import (
	"context"
	"fmt"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/reconcile"
)

// lifetime is how long a request is kept, answered or not.
const lifetime = 15 * time.Minute

// Cleaner deletes old requests. Make it with NewCleaner.
type Cleaner struct {
	env      reconcile.Env
	requests cache.SharedIndexInformer
	loop     *reconcile.Loop
}

// NewCleaner registers the cleaner's informer.
func NewCleaner(env reconcile.Env) *Cleaner {
	env = env.Defaulted()
	c := &Cleaner{env: env, requests: env.Informers.Certificates().V1().PodCertificateRequests().Informer()}
	c.loop = env.Loop("pod-certificate-requests", c.reconcile)
	reconcile.Watch(c.loop, c.requests, reconcile.Self[*certificatesv1.PodCertificateRequest])
	return c
}

// Run blocks until ctx ends.
func (c *Cleaner) Run(ctx context.Context) error { return c.loop.Run(ctx) }

func (c *Cleaner) reconcile(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	r := reconcile.Cached[*certificatesv1.PodCertificateRequest](c.requests, req.Key)
	if r == nil || r.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	if left := left(r, c.env.Clock.Now()); left > 0 {
		return reconcile.Result{RequeueAfter: left}, nil
	}
	err := c.env.Client.CertificatesV1().PodCertificateRequests(r.Namespace).Delete(ctx, r.Name, *metav1.NewPreconditionDeleteOptions(string(r.UID)))
	if err != nil && !apierrors.IsNotFound(err) {
		return reconcile.Result{}, fmt.Errorf("delete old request %s: %w", req.Key, err)
	}
	req.Deleted(c.requests, r)
	return reconcile.Result{}, nil
}

// left is how long a request may still be there.
func left(r *certificatesv1.PodCertificateRequest, now time.Time) time.Duration {
	return r.CreationTimestamp.Add(lifetime).Sub(now)
}
