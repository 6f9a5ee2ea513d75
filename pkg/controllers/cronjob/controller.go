// Package cronjob starts a Job for each time that a CronJob's schedule names,
// and removes old ones.
//
// The name of a job says which time it is for, so that no time gets two, also
// when a crash came between the start and the note of it in the status. Of the
// times that were missed, only the last is made up for: however a clock jumps,
// there is no burst of jobs.
package cronjob

import (
	"context"
	"errors"
	"fmt"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/reconcile"
)

// Controller reconciles CronJobs. Make it with New.
type Controller struct {
	env   reconcile.Env
	crons cache.SharedIndexInformer
	jobs  cache.SharedIndexInformer
	loop  *reconcile.Loop
}

// New registers the controller's informers.
func New(env reconcile.Env) *Controller {
	env = env.Defaulted()
	c := &Controller{
		env:   env,
		crons: env.Informers.Batch().V1().CronJobs().Informer(),
		jobs:  env.Informers.Batch().V1().Jobs().Informer(),
	}
	reconcile.AddControllerIndex(c.jobs)
	c.loop = env.Loop("cronjob", c.reconcile)
	reconcile.Watch(c.loop, c.crons, reconcile.Self[*batchv1.CronJob])
	reconcile.Watch(c.loop, c.jobs, reconcile.Controller[*batchv1.Job](kind.Kind))
	return c
}

// Run blocks until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

func (c *Controller) reconcile(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	cron := reconcile.Cached[*batchv1.CronJob](c.crons, req.Key)
	if cron == nil {
		return reconcile.Result{}, nil
	}
	o := observed{cron: cron, jobs: reconcile.Indexed[*batchv1.Job](c.jobs, reconcile.ByController, string(cron.UID))}
	var err error
	if o.gone, err = c.missing(ctx, cron, o.jobs); err != nil {
		return reconcile.Result{}, err
	}
	p := compute(o, c.env.Clock.Now())
	for _, n := range p.notices {
		c.env.Events.Eventf(cron, n.eventType, n.reason, "%s", n.message)
	}
	failure := c.remove(ctx, req, cron, &p)
	if failure == nil && p.start != nil {
		failure = c.start(ctx, req, cron, &p)
	}
	return reconcile.Result{RequeueAfter: p.wake}, errors.Join(failure, c.writeStatus(ctx, req, cron, p.status))
}

// missing asks the server for the active jobs that the cache does not have:
// the status may have come sooner than they.
func (c *Controller) missing(ctx context.Context, cron *batchv1.CronJob, jobs []*batchv1.Job) (map[types.UID]bool, error) {
	known := map[types.UID]bool{}
	for _, job := range jobs {
		known[job.UID] = true
	}
	gone := map[types.UID]bool{}
	for _, ref := range cron.Status.Active {
		if known[ref.UID] {
			continue
		}
		job, err := c.env.Client.BatchV1().Jobs(cron.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err) || err == nil && job.UID != ref.UID:
			gone[ref.UID] = true
		case err != nil:
			return nil, fmt.Errorf("look for active job %s: %w", ref.Name, err)
		}
	}
	return gone, nil
}

// remove deletes jobs after the server has confirmed what the cron job wants.
func (c *Controller) remove(ctx context.Context, req *reconcile.Request, cron *batchv1.CronJob, p *plan) error {
	if len(p.remove) == 0 {
		return nil
	}
	live, err := c.env.Client.BatchV1().CronJobs(cron.Namespace).Get(ctx, cron.Name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("confirm cron job: %w", err)
	}
	if live.UID != cron.UID || live.Generation != cron.Generation {
		return reconcile.ErrStale
	}
	var errs []error
	for _, job := range p.remove {
		err := c.env.Client.BatchV1().Jobs(job.Namespace).Delete(ctx, job.Name, metav1.DeleteOptions{
			PropagationPolicy: new(metav1.DeletePropagationBackground), Preconditions: &metav1.Preconditions{UID: &job.UID},
		})
		if err != nil && !apierrors.IsNotFound(err) {
			c.env.Events.Eventf(cron, corev1.EventTypeWarning, "FailedDelete", "Deleted job: %v", err)
			errs = append(errs, fmt.Errorf("delete job %s: %w", job.Name, err))
			continue
		}
		req.Deleted(c.jobs, job)
		p.drop(job.UID)
		c.env.Events.Eventf(cron, corev1.EventTypeNormal, "SuccessfulDelete", "Deleted job %v", job.Name)
	}
	return errors.Join(errs...)
}

// start creates the job, or finds that it was created before.
func (c *Controller) start(ctx context.Context, req *reconcile.Request, cron *batchv1.CronJob, p *plan) error {
	client := c.env.Client.BatchV1().Jobs(cron.Namespace)
	job, err := client.Create(ctx, p.start, metav1.CreateOptions{})
	switch {
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return nil
	case apierrors.IsAlreadyExists(err):
		if job, err = client.Get(ctx, p.start.Name, metav1.GetOptions{}); err != nil {
			return fmt.Errorf("get job %s, which exists: %w", p.start.Name, err)
		}
		if !metav1.IsControlledBy(job, cron) {
			return nil // somebody else has the name, and this time of the schedule
		}
	case err != nil:
		c.env.Events.Eventf(cron, corev1.EventTypeWarning, "FailedCreate", "Error creating job: %v", err)
		return fmt.Errorf("create job %s: %w", p.start.Name, err)
	default:
		c.env.Events.Eventf(cron, corev1.EventTypeNormal, "SuccessfulCreate", "Created job %v", job.Name)
	}
	req.Wrote(c.jobs, job)
	p.started(job)
	return nil
}

func (c *Controller) writeStatus(ctx context.Context, req *reconcile.Request, cron *batchv1.CronJob, s batchv1.CronJobStatus) error {
	if equality.Semantic.DeepEqual(cron.Status, s) {
		return nil
	}
	out := cron.DeepCopy()
	out.Status = s
	got, err := c.env.Client.BatchV1().CronJobs(cron.Namespace).UpdateStatus(ctx, out, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("write status: %w", err)
	}
	req.Wrote(c.crons, got)
	return nil
}
