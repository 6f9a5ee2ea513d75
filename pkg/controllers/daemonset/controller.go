// Package daemonset keeps one pod of each DaemonSet on every node that it is
// meant for, and rolls a changed template over them.
package daemonset

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/controllers/podset"
	"coracle/pkg/controllers/revision"
	"coracle/pkg/reconcile"
)

var kind = appsv1.SchemeGroupVersion.WithKind("DaemonSet")

// Controller reconciles DaemonSets. Make it with New.
type Controller struct {
	env       reconcile.Env
	sets      cache.SharedIndexInformer
	pods      cache.SharedIndexInformer
	nodes     cache.SharedIndexInformer
	manager   *podset.Manager
	revisions *revision.Keeper
	loop      *reconcile.Loop

	mu       sync.Mutex
	failures map[reconcile.Key]map[string]int // failed pods in a row, by set and node; guarded by mu
}

// New registers the controller's informers.
func New(env reconcile.Env) *Controller {
	env = env.Defaulted()
	c := &Controller{
		env:      env,
		sets:     env.Informers.Apps().V1().DaemonSets().Informer(),
		pods:     env.Informers.Core().V1().Pods().Informer(),
		nodes:    env.Informers.Core().V1().Nodes().Informer(),
		failures: map[reconcile.Key]map[string]int{},
	}
	c.manager = &podset.Manager{Client: env.Client, Events: env.Events, Informer: c.pods, Kind: kind}
	c.revisions = &revision.Keeper{Client: env.Client, Informer: env.Informers.Apps().V1().ControllerRevisions().Informer()}
	reconcile.AddControllerIndex(c.pods)
	reconcile.AddControllerIndex(c.revisions.Informer)
	c.loop = env.Loop("daemonset", c.reconcile)
	reconcile.Watch(c.loop, c.sets, reconcile.Self[*appsv1.DaemonSet])
	reconcile.Watch(c.loop, c.pods, c.setsOf)
	reconcile.Watch(c.loop, c.revisions.Informer, reconcile.Controller[*appsv1.ControllerRevision](kind.Kind))
	c.loop.Handle(c.nodes, cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { c.queueAll() },
		UpdateFunc: func(old, obj any) {
			was, ok := old.(*corev1.Node)
			is, ok2 := obj.(*corev1.Node)
			if ok && ok2 && (!equality.Semantic.DeepEqual(was.Labels, is.Labels) || !equality.Semantic.DeepEqual(was.Spec.Taints, is.Spec.Taints)) {
				c.queueAll()
			}
		},
		DeleteFunc: func(any) { c.queueAll() },
	})
	return c
}

// Run blocks until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

func (c *Controller) queueAll() {
	for _, obj := range c.sets.GetStore().List() {
		if ds, ok := obj.(*appsv1.DaemonSet); ok {
			c.loop.Add(reconcile.KeyOf(ds))
		}
	}
}

// setsOf maps a pod to its set, or an ownerless one to the sets that may
// adopt it.
func (c *Controller) setsOf(pod *corev1.Pod) []reconcile.Key {
	if metav1.GetControllerOfNoCopy(pod) != nil {
		return reconcile.Controller[*corev1.Pod](kind.Kind)(pod)
	}
	if !podset.Active(pod) || len(pod.Labels) == 0 {
		return nil
	}
	var keys []reconcile.Key
	for _, ds := range reconcile.Indexed[*appsv1.DaemonSet](c.sets, cache.NamespaceIndex, pod.Namespace) {
		if sel, err := metav1.LabelSelectorAsSelector(ds.Spec.Selector); err == nil && !sel.Empty() && sel.Matches(labels.Set(pod.Labels)) {
			keys = append(keys, reconcile.KeyOf(ds))
		}
	}
	return keys
}

func (c *Controller) reconcile(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	ds := reconcile.Cached[*appsv1.DaemonSet](c.sets, req.Key)
	if ds == nil {
		c.forget(req.Key)
		return reconcile.Result{}, nil
	}
	selector, err := metav1.LabelSelectorAsSelector(ds.Spec.Selector)
	if err != nil || selector.Empty() {
		return reconcile.Result{}, reconcile.Terminal(fmt.Errorf("daemon set %s selects all pods or none: give it a selector: %w", req.Key, err))
	}
	live := func() (metav1.Object, error) {
		return c.env.Client.AppsV1().DaemonSets(ds.Namespace).Get(ctx, ds.Name, metav1.GetOptions{})
	}
	candidates := reconcile.Indexed[*corev1.Pod](c.pods, reconcile.ByController, string(ds.UID))
	candidates = append(candidates, reconcile.Indexed[*corev1.Pod](c.pods, reconcile.ByController, reconcile.OrphansIn(ds.Namespace))...)
	pods, err := c.manager.Settle(ctx, req, ds, podset.Claim(ds, selector, candidates, podset.Active), live)
	if err != nil {
		return reconcile.Result{}, err
	}
	used := map[string]bool{}
	for _, pod := range pods {
		used[ds.Name+"-"+pod.Labels[revision.HashLabel]] = true
	}
	now, _, err := c.revisions.Sync(ctx, req, revision.Owner{
		Object: ds, Kind: kind, Selector: ds.Spec.Selector, Template: &ds.Spec.Template,
		Limit: ds.Spec.RevisionHistoryLimit, Collisions: ds.Status.CollisionCount,
		HashLabel: revision.HashLabel,
	}, used, live)
	var taken *revision.CollisionError
	if errors.As(err, &taken) {
		return reconcile.Result{}, errors.Join(err, c.countCollision(ctx, req, ds))
	}
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return reconcile.Result{}, nil
	}
	if err != nil {
		return reconcile.Result{}, err
	}
	p := compute(observed{
		set: ds, nodes: c.allNodes(), pods: pods, hash: now.Labels[revision.HashLabel],
		patience: func(node string) time.Duration { return c.patience(req.Key, node) },
	}, c.env.Clock.Now())
	return c.act(ctx, req, ds, now.Labels[revision.HashLabel], p)
}

// act executes p.
func (c *Controller) act(ctx context.Context, req *reconcile.Request, ds *appsv1.DaemonSet, hash string, p plan) (reconcile.Result, error) {
	var acted error
	if len(p.remove) > 0 {
		acted = c.remove(ctx, req, ds, p.remove)
	}
	if len(p.create) > 0 && acted == nil {
		pods := make([]*corev1.Pod, len(p.create))
		for i, node := range p.create {
			pods[i] = podFor(ds, node, hash)
		}
		_, acted = c.manager.Create(ctx, req, ds, pods)
	}
	return reconcile.Result{RequeueAfter: p.wake}, errors.Join(acted, c.writeStatus(ctx, req, ds, p.status))
}

// remove deletes pods after the server has confirmed what ds wants.
func (c *Controller) remove(ctx context.Context, req *reconcile.Request, ds *appsv1.DaemonSet, pods []*corev1.Pod) error {
	live, err := c.env.Client.AppsV1().DaemonSets(ds.Namespace).Get(ctx, ds.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("confirm daemon set: %w", err)
	}
	if live.UID != ds.UID || live.Generation != ds.Generation {
		return reconcile.ErrStale
	}
	for _, pod := range pods {
		c.count(req.Key, pod)
		if podset.Finished(pod) {
			c.env.Events.Eventf(ds, corev1.EventTypeWarning, "FailedDaemonPod", "Found failed daemon pod %s/%s on node %s, will try to kill it", pod.Namespace, pod.Name, pod.Spec.NodeName)
		}
	}
	return c.manager.Delete(ctx, req, ds, pods)
}

func (c *Controller) writeStatus(ctx context.Context, req *reconcile.Request, ds *appsv1.DaemonSet, s appsv1.DaemonSetStatus) error {
	if equality.Semantic.DeepEqual(ds.Status, s) {
		return nil
	}
	out := ds.DeepCopy()
	out.Status = s
	got, err := c.env.Client.AppsV1().DaemonSets(ds.Namespace).UpdateStatus(ctx, out, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("write status: %w", err)
	}
	req.Wrote(c.sets, got)
	return nil
}

func (c *Controller) countCollision(ctx context.Context, req *reconcile.Request, ds *appsv1.DaemonSet) error {
	s := *ds.Status.DeepCopy()
	n := int32(1)
	if s.CollisionCount != nil {
		n += *s.CollisionCount
	}
	s.CollisionCount = &n
	return c.writeStatus(ctx, req, ds, s)
}

func (c *Controller) allNodes() []*corev1.Node {
	objs := c.nodes.GetStore().List()
	out := make([]*corev1.Node, 0, len(objs))
	for _, obj := range objs {
		if n, ok := obj.(*corev1.Node); ok {
			out = append(out, n)
		}
	}
	return out
}

// Failed pods are replaced after a time that doubles with each failure in a
// row.
const (
	firstPatience = time.Second
	maxPatience   = 15 * time.Minute
)

func (c *Controller) patience(key reconcile.Key, node string) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.failures[key][node]
	if n == 0 {
		return 0
	}
	return min(firstPatience<<min(n-1, 10), maxPatience)
}

// count notes the removal of a pod: one that failed lengthens the patience
// with its node, one that was fine ends it.
func (c *Controller) count(key reconcile.Key, pod *corev1.Pod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failures[key] == nil {
		c.failures[key] = map[string]int{}
	}
	if podset.Finished(pod) {
		c.failures[key][nodeOf(pod)]++
	} else {
		delete(c.failures[key], nodeOf(pod))
	}
}

func (c *Controller) forget(key reconcile.Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.failures, key)
}
