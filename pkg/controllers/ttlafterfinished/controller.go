// Package ttlafterfinished deletes Jobs whose ttlSecondsAfterFinished is over.
package ttlafterfinished

import (
	"context"
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/controllers/podset"
	"coracle/pkg/reconcile"
)

// Controller deletes Jobs. Make it with New.
type Controller struct {
	env  reconcile.Env
	jobs cache.SharedIndexInformer
	loop *reconcile.Loop
}

// New registers the controller's informers.
func New(env reconcile.Env) *Controller {
	env = env.Defaulted()
	c := &Controller{env: env, jobs: env.Informers.Batch().V1().Jobs().Informer()}
	c.loop = env.Loop("ttl-after-finished", c.reconcile)
	reconcile.Watch(c.loop, c.jobs, func(job *batchv1.Job) []reconcile.Key {
		if _, ok := expiry(job); !ok {
			return nil
		}
		return []reconcile.Key{reconcile.KeyOf(job)}
	})
	return c
}

// Run blocks until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// expiry returns when job is to be deleted, if ever by the look of it.
func expiry(job *batchv1.Job) (at time.Time, ok bool) {
	if job.Spec.TTLSecondsAfterFinished == nil || job.DeletionTimestamp != nil {
		return time.Time{}, false
	}
	for _, c := range job.Status.Conditions {
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue && !c.LastTransitionTime.IsZero() {
			return c.LastTransitionTime.Add(time.Duration(*job.Spec.TTLSecondsAfterFinished) * time.Second), true
		}
	}
	return time.Time{}, false
}

func (c *Controller) reconcile(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	job := reconcile.Cached[*batchv1.Job](c.jobs, req.Key)
	if job == nil {
		return reconcile.Result{}, nil
	}
	at, ok := expiry(job)
	if !ok {
		return reconcile.Result{}, nil
	}
	if left := at.Sub(c.env.Clock.Now()); left > 0 {
		return reconcile.Result{RequeueAfter: left}, nil
	}
	// The time may have been made longer meanwhile: the version of the job that
	// was looked at is a precondition of the delete.
	err := c.env.Client.BatchV1().Jobs(job.Namespace).Delete(ctx, job.Name, metav1.DeleteOptions{
		PropagationPolicy: new(metav1.DeletePropagationForeground), Preconditions: podset.Unchanged(job),
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return reconcile.Result{}, fmt.Errorf("delete job %s: %w", req.Key, err)
	}
	req.Deleted(c.jobs, job)
	return reconcile.Result{}, nil
}
