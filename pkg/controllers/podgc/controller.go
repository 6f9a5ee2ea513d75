// Package podgc removes pods that nobody else will: those of nodes that no
// longer exist or were declared out of service, those deleted before they had
// a node, and the oldest of too many finished ones.
package podgc

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/controllers/podset"
	"coracle/pkg/reconcile"
)

// Config sets the limits. The zero value of a field means its default.
type Config struct {
	// Finished is how many finished pods may stay; default 12500, negative for
	// all of them.
	Finished int
	// Quarantine is how long a node must be missing before its pods go;
	// default 40 s.
	Quarantine time.Duration
	// Period is the time between sweeps; default 20 s or half of Quarantine,
	// the shorter.
	Period time.Duration
}

func (c *Config) setDefaults() {
	if c.Finished == 0 {
		c.Finished = 12500
	}
	if c.Quarantine <= 0 {
		c.Quarantine = 40 * time.Second
	}
	if c.Period <= 0 {
		c.Period = min(20*time.Second, c.Quarantine/2)
	}
}

// Controller sweeps pods. Make it with New.
type Controller struct {
	env     reconcile.Env
	cfg     Config
	nodes   cache.SharedIndexInformer
	pods    cache.SharedIndexInformer
	loop    *reconcile.Loop
	missing map[string]time.Time // by node; only the sweep uses it
}

// sweepKey is the only key of the loop.
var sweepKey = reconcile.Key{Name: "sweep"}

// New registers the controller's informers.
func New(env reconcile.Env, cfg Config) *Controller {
	env = env.Defaulted()
	cfg.setDefaults()
	c := &Controller{
		env: env, cfg: cfg,
		nodes: env.Informers.Core().V1().Nodes().Informer(),
		pods:  env.Informers.Core().V1().Pods().Informer(),
	}
	c.loop = env.Loop("podgc", c.sweep)
	c.loop.Handle(c.nodes, cache.ResourceEventHandlerFuncs{
		// Starts the quarantine, whose end the sweep plans itself.
		DeleteFunc: func(any) { c.loop.Add(sweepKey) },
	})
	// A pod is swept once it is deleted without a node to end it.
	reconcile.Watch(c.loop, c.pods, func(p *corev1.Pod) []reconcile.Key {
		if p.DeletionTimestamp != nil && p.Spec.NodeName == "" {
			return []reconcile.Key{sweepKey}
		}
		return nil
	})
	return c
}

// Run blocks until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	c.loop.Add(sweepKey)
	return c.loop.Run(ctx)
}

func (c *Controller) sweep(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	now := c.env.Clock.Now()
	o := observed{nodes: map[string]*corev1.Node{}, missing: c.missing}
	for _, obj := range c.nodes.GetStore().List() {
		if n, ok := obj.(*corev1.Node); ok {
			o.nodes[n.Name] = n
		}
	}
	for _, obj := range c.pods.GetStore().List() {
		if p, ok := obj.(*corev1.Pod); ok {
			o.pods = append(o.pods, p)
		}
	}
	o.missing = missingNodes(o, now)
	c.missing = o.missing
	var errs []error
	gone := map[string]bool{}
	for _, it := range compute(o, limits{finished: c.cfg.Finished, quarantine: c.cfg.Quarantine}, now) {
		errs = append(errs, c.collect(ctx, req, it, gone))
	}
	if err := errors.Join(errs...); err != nil {
		return reconcile.Result{}, err
	}
	return reconcile.Result{RequeueAfter: c.cfg.Period}, nil
}

// collect removes one pod. gone remembers which nodes the server said do not
// exist.
func (c *Controller) collect(ctx context.Context, req *reconcile.Request, it item, gone map[string]bool) error {
	name := it.pod.Spec.NodeName
	if it.why == orphaned && !gone[name] {
		_, err := c.env.Client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err == nil {
			delete(c.missing, name)
			return nil // the cache was behind
		}
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("confirm that node %s is gone: %w", name, err)
		}
		gone[name] = true
	}
	if it.why == orphaned || it.why == outOfAction {
		// The pod's node cannot record its end.
		why := podset.Disruption{Reason: "DeletionByPodGC", Message: "PodGC: node no longer exists", Failed: true}
		err := podset.Disrupt(ctx, c.env.Client, it.pod, why, c.env.Clock.Now())
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return err
		}
	}
	var zero int64
	err := c.env.Client.CoreV1().Pods(it.pod.Namespace).Delete(ctx, it.pod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: &zero,
		Preconditions:      &metav1.Preconditions{UID: &it.pod.UID},
	})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("collect pod %s/%s: %w", it.pod.Namespace, it.pod.Name, err)
	}
	req.Deleted(c.pods, it.pod)
	return nil
}
