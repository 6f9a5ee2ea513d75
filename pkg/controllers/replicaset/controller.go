// Package replicaset keeps as many pods as each ReplicaSet asks for. It adopts
// matching pods that have no controller and releases those that stop matching.
// Scaling down deletes a pod only if it is still as the cache showed it and
// after the server has confirmed the set's wish.
package replicaset

import (
	"context"
	"errors"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/controllers/podset"
	"coracle/pkg/reconcile"
)

var kind = appsv1.SchemeGroupVersion.WithKind("ReplicaSet")

// Controller reconciles ReplicaSets. Make it with New.
type Controller struct {
	env     reconcile.Env
	sets    cache.SharedIndexInformer
	pods    cache.SharedIndexInformer
	manager *podset.Manager
	loop    *reconcile.Loop
}

// New registers the controller's informers.
func New(env reconcile.Env) *Controller {
	env = env.Defaulted()
	c := &Controller{
		env:  env,
		sets: env.Informers.Apps().V1().ReplicaSets().Informer(),
		pods: env.Informers.Core().V1().Pods().Informer(),
	}
	c.manager = &podset.Manager{Client: env.Client, Events: env.Events, Informer: c.pods, Kind: kind}
	reconcile.AddControllerIndex(c.sets)
	reconcile.AddControllerIndex(c.pods)
	c.loop = env.Loop("replicaset", c.reconcile)
	reconcile.Watch(c.loop, c.sets, reconcile.Self[*appsv1.ReplicaSet])
	reconcile.Watch(c.loop, c.pods, c.setsOf)
	return c
}

// Run blocks until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

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
	for _, rs := range reconcile.Indexed[*appsv1.ReplicaSet](c.sets, cache.NamespaceIndex, pod.Namespace) {
		if sel, err := metav1.LabelSelectorAsSelector(rs.Spec.Selector); err == nil && !sel.Empty() && sel.Matches(labels.Set(pod.Labels)) {
			keys = append(keys, reconcile.KeyOf(rs))
		}
	}
	return keys
}

func (c *Controller) reconcile(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	rs := reconcile.Cached[*appsv1.ReplicaSet](c.sets, req.Key)
	if rs == nil {
		return reconcile.Result{}, nil
	}
	selector, err := metav1.LabelSelectorAsSelector(rs.Spec.Selector)
	if err != nil {
		return reconcile.Result{}, reconcile.Terminal(fmt.Errorf("selector of replica set %s: %w", req.Key, err))
	}
	candidates := reconcile.Indexed[*corev1.Pod](c.pods, reconcile.ByController, string(rs.UID))
	candidates = append(candidates, reconcile.Indexed[*corev1.Pod](c.pods, reconcile.ByController, reconcile.OrphansIn(rs.Namespace))...)
	claims := podset.Claim(rs, selector, candidates, podset.Active)
	pods, err := c.manager.Settle(ctx, req, rs, claims, func() (metav1.Object, error) {
		return c.env.Client.AppsV1().ReplicaSets(rs.Namespace).Get(ctx, rs.Name, metav1.GetOptions{})
	})
	if err != nil {
		return reconcile.Result{}, err
	}
	p := compute(rs, pods, c.neighbours(rs, pods), c.env.Clock.Now())
	acted := c.act(ctx, req, rs, p)
	if apierrors.IsNotFound(acted) {
		return reconcile.Result{}, nil
	}
	failure := acted
	if reconcile.Transient(failure) {
		failure = nil
	}
	if err := c.writeStatus(ctx, req, rs, status(rs, pods, failure, c.env.Clock.Now())); err != nil {
		return reconcile.Result{}, errors.Join(acted, err)
	}
	return reconcile.Result{RequeueAfter: p.wake}, acted
}

func (c *Controller) act(ctx context.Context, req *reconcile.Request, rs *appsv1.ReplicaSet, p plan) error {
	if p.create > 0 {
		pods := make([]*corev1.Pod, p.create)
		for i := range pods {
			pods[i] = podset.FromTemplate(&rs.Spec.Template, rs, kind)
		}
		_, err := c.manager.Create(ctx, req, rs, pods)
		return err
	}
	if len(p.remove) == 0 {
		return nil
	}
	live, err := c.env.Client.AppsV1().ReplicaSets(rs.Namespace).Get(ctx, rs.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if live.UID != rs.UID || live.Generation != rs.Generation {
		return reconcile.ErrStale
	}
	return c.manager.Delete(ctx, req, rs, p.remove)
}

func (c *Controller) writeStatus(ctx context.Context, req *reconcile.Request, rs *appsv1.ReplicaSet, s appsv1.ReplicaSetStatus) error {
	if !changed(rs, s) {
		return nil
	}
	out := rs.DeepCopy()
	out.Status = s
	got, err := c.env.Client.AppsV1().ReplicaSets(rs.Namespace).UpdateStatus(ctx, out, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("write status: %w", err)
	}
	req.Wrote(c.sets, got)
	return nil
}

// neighbours counts by node the active pods of all sets that share rs's owner.
// It is needed only to choose victims.
func (c *Controller) neighbours(rs *appsv1.ReplicaSet, pods []*corev1.Pod) map[string]int {
	owner := metav1.GetControllerOfNoCopy(rs)
	if owner == nil || len(pods) <= int(*rs.Spec.Replicas) {
		return nil
	}
	count := map[string]int{}
	for _, sibling := range reconcile.Indexed[*appsv1.ReplicaSet](c.sets, reconcile.ByController, string(owner.UID)) {
		for _, pod := range reconcile.Indexed[*corev1.Pod](c.pods, reconcile.ByController, string(sibling.UID)) {
			if podset.Active(pod) {
				count[pod.Spec.NodeName]++
			}
		}
	}
	return count
}
