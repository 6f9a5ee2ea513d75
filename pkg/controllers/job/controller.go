// Package job runs the pods of each Job until as many have succeeded as it
// asks for, or too many have failed.
//
// Every pod is counted exactly once, whatever crashes: it carries a finalizer
// until the status has its UID, and the UID leaves the status when the counter
// goes up. Nothing is deleted before the server has confirmed what the job
// wants and that the pod is still as the cache showed it. A pod that was only
// too many loses its finalizer before it is deleted and counts for nothing.
//
// Jobs whose spec.managedBy names another controller are not touched.
package job

import (
	"context"
	"errors"
	"fmt"
	"sync"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/controllers/podset"
	"coracle/pkg/reconcile"
)

// Controller reconciles Jobs. Make it with New.
type Controller struct {
	env     reconcile.Env
	jobs    cache.SharedIndexInformer
	pods    cache.SharedIndexInformer
	manager *podset.Manager
	loop    *reconcile.Loop
	left    *reconcile.Loop // over pods that no job counts any more
	memory  memory
}

// New registers the controller's informers.
func New(env reconcile.Env) *Controller {
	env = env.Defaulted()
	c := &Controller{
		env:    env,
		jobs:   env.Informers.Batch().V1().Jobs().Informer(),
		pods:   env.Informers.Core().V1().Pods().Informer(),
		memory: memory{jobs: map[reconcile.Key]remembered{}},
	}
	c.manager = &podset.Manager{
		Client: env.Client, Events: env.Events, Informer: c.pods, Kind: kind,
		Finalizers: []string{batchv1.JobTrackingFinalizer},
	}
	reconcile.AddControllerIndex(c.pods)
	c.loop = env.Loop("job", c.reconcile)
	reconcile.Watch(c.loop, c.jobs, reconcile.Self[*batchv1.Job])
	reconcile.Watch(c.loop, c.pods, c.jobsOfPod)
	c.left = env.Loop("job-pods", c.letGo)
	reconcile.Watch(c.left, c.pods, func(pod *corev1.Pod) []reconcile.Key {
		if c.isLeft(pod) {
			return []reconcile.Key{reconcile.KeyOf(pod)}
		}
		return nil
	})
	reconcile.Watch(c.left, c.jobs, c.leftBy)
	return c
}

// Run blocks until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	return reconcile.RunAll(ctx, []reconcile.Named{{Name: "jobs", Runner: c.loop}, {Name: "pods of no job", Runner: c.left}})
}

// remembered is what is known of one job beyond what its pods tell.
type remembered struct {
	uid types.UID
	failures
}

// memory holds the failures of jobs that are not finished. It only makes the
// back-off outlast deleted pods: without it, the pods that are there tell.
type memory struct {
	mu   sync.Mutex
	jobs map[reconcile.Key]remembered // guarded by mu
}

func (m *memory) get(job *batchv1.Job) *failures {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r, ok := m.jobs[reconcile.KeyOf(job)]; ok && r.uid == job.UID {
		return &r.failures
	}
	return nil
}

func (m *memory) set(job *batchv1.Job, f failures) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.jobs[reconcile.KeyOf(job)] = remembered{job.UID, f}
}

func (m *memory) forget(key reconcile.Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.jobs, key)
}

// ours reports whether this controller, and no other, acts for job.
func ours(job *batchv1.Job) bool {
	return job.Spec.ManagedBy == nil || *job.Spec.ManagedBy == batchv1.JobControllerName
}

// jobsOfPod maps a pod to its job, or an ownerless one to the jobs that may
// adopt it.
func (c *Controller) jobsOfPod(pod *corev1.Pod) []reconcile.Key {
	if metav1.GetControllerOfNoCopy(pod) != nil {
		return reconcile.Controller[*corev1.Pod](kind.Kind)(pod)
	}
	if pod.DeletionTimestamp != nil || len(pod.Labels) == 0 {
		return nil
	}
	var keys []reconcile.Key
	for _, job := range reconcile.Indexed[*batchv1.Job](c.jobs, cache.NamespaceIndex, pod.Namespace) {
		if selector, err := selectorOf(job); err == nil && selector.Matches(labels.Set(pod.Labels)) {
			keys = append(keys, reconcile.KeyOf(job))
		}
	}
	return keys
}

func selectorOf(job *batchv1.Job) (labels.Selector, error) {
	selector, err := metav1.LabelSelectorAsSelector(job.Spec.Selector)
	if err == nil && selector.Empty() {
		err = errors.New("it is empty and would take every pod of the namespace")
	}
	return selector, err
}

func (c *Controller) reconcile(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	job := reconcile.Cached[*batchv1.Job](c.jobs, req.Key)
	if job == nil || !ours(job) || finished(job) {
		c.memory.forget(req.Key)
		return reconcile.Result{}, nil
	}
	selector, err := selectorOf(job)
	if err != nil {
		return reconcile.Result{}, reconcile.Terminal(fmt.Errorf("selector of job %s: %w", req.Key, err))
	}
	candidates := reconcile.Indexed[*corev1.Pod](c.pods, reconcile.ByController, string(job.UID))
	candidates = append(candidates, reconcile.Indexed[*corev1.Pod](c.pods, reconcile.ByController, reconcile.OrphansIn(job.Namespace))...)
	pods, err := c.manager.Settle(ctx, req, job, podset.Claim(job, selector, candidates, func(*corev1.Pod) bool { return true }),
		func() (metav1.Object, error) { return c.live(ctx, job) })
	if err != nil {
		return reconcile.Result{}, err
	}
	p := compute(observed{job: job, pods: pods, failures: c.memory.get(job)}, c.env.Clock.Now())
	if err := c.removePods(ctx, req, job, p); err != nil {
		return reconcile.Result{}, err
	}
	made, failure := c.manager.Create(ctx, req, job, p.create)
	p.status.Active -= int32(len(p.create) - made)
	if apierrors.IsNotFound(failure) { // the namespace is
		return reconcile.Result{}, nil
	}
	return reconcile.Result{RequeueAfter: p.wake}, errors.Join(failure, c.track(ctx, req, job, pods, p))
}

func (c *Controller) live(ctx context.Context, job *batchv1.Job) (*batchv1.Job, error) {
	return c.env.Client.BatchV1().Jobs(job.Namespace).Get(ctx, job.Name, metav1.GetOptions{})
}

func (c *Controller) removePods(ctx context.Context, req *reconcile.Request, job *batchv1.Job, p plan) error {
	if len(p.remove) == 0 {
		return nil
	}
	live, err := c.live(ctx, job)
	if err != nil {
		return fmt.Errorf("confirm job: %w", err)
	}
	if live.UID != job.UID || live.Generation != job.Generation {
		return reconcile.ErrStale
	}
	pods := p.remove
	if p.forget {
		if pods, err = c.manager.Unfinalize(ctx, req, pods, true); err != nil {
			return err
		}
	}
	return c.manager.Delete(ctx, req, job, pods)
}

// track writes the status, lets the pods go that it counts, and writes it once
// more with the counters that follow.
func (c *Controller) track(ctx context.Context, req *reconcile.Request, job *batchv1.Job, pods []*corev1.Pod, p plan) error {
	written, err := c.writeStatus(ctx, req, job, p.status)
	if err != nil || written == nil {
		return err
	}
	c.memory.set(job, p.failures)
	c.tell(job, p.notices)
	_, failure := c.manager.Unfinalize(ctx, req, p.release, false)
	if failure != nil {
		// What became of each pod is seen in the cache later.
		return failure
	}
	held := map[types.UID]bool{}
	for _, pod := range pods {
		held[pod.UID] = tracked(pod)
	}
	for _, pod := range p.release {
		held[pod.UID] = false
	}
	s := *written.Status.DeepCopy()
	settle(&s, held)
	var notices []notice
	if !p.more {
		notices = finish(written, &s, p.verdict, c.env.Clock.Now())
	}
	if written, err = c.writeStatus(ctx, req, written, s); err != nil || written == nil {
		return err
	}
	c.tell(job, notices)
	return nil
}

func (c *Controller) tell(job *batchv1.Job, notices []notice) {
	for _, n := range notices {
		c.env.Events.Eventf(job, n.eventType, n.reason, "%s", n.message)
	}
}

// writeStatus returns the job as it is then, or nil when it is gone.
func (c *Controller) writeStatus(ctx context.Context, req *reconcile.Request, job *batchv1.Job, s batchv1.JobStatus) (*batchv1.Job, error) {
	if equality.Semantic.DeepEqual(job.Status, s) {
		return job, nil
	}
	out := job.DeepCopy()
	out.Status = s
	got, err := c.env.Client.BatchV1().Jobs(job.Namespace).UpdateStatus(ctx, out, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("write status: %w", err)
	}
	req.Wrote(c.jobs, got)
	return got, nil
}
