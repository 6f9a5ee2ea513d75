// Package replicas keeps as many equal pods as their owner asks for, whatever
// the owner's kind: replicaset and replicationcontroller say how theirs are
// read and written. An owner adopts matching pods that have no controller and
// releases those that stop matching. Scaling down deletes a pod only if it is
// still as the cache showed it and after the server has confirmed the owner's
// wish.
package replicas

import (
	"context"
	"errors"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/controllers/podset"
	"coracle/pkg/reconcile"
)

// Owner is a kind of owner, a pointer to its type.
type Owner interface {
	podset.Owner
	comparable
}

// Kind says how owners of one kind are read and written. All is required.
type Kind[T Owner] struct {
	// Name is the controller's, for its log.
	Name string
	// Kind is what the pods' owner references say.
	Kind schema.GroupVersionKind
	// Informer delivers the owners.
	Informer cache.SharedIndexInformer
	// Describe tells what an owner wants. It fails for one whose selector
	// cannot be used.
	Describe func(T) (Set, error)
	// Live fetches an owner from the server.
	Live func(ctx context.Context, key reconcile.Key) (T, error)
	// WriteStatus stores s as the status of a copy of the owner.
	WriteStatus func(ctx context.Context, owner T, s appsv1.ReplicaSetStatus) (T, error)
}

// Controller reconciles the owners of one kind. Make it with New.
type Controller[T Owner] struct {
	env     reconcile.Env
	kind    Kind[T]
	pods    cache.SharedIndexInformer
	manager *podset.Manager
	loop    *reconcile.Loop
}

// New registers the controller's informers. env has its defaults.
func New[T Owner](env reconcile.Env, kind Kind[T]) *Controller[T] {
	c := &Controller[T]{env: env, kind: kind, pods: env.Informers.Core().V1().Pods().Informer()}
	c.manager = &podset.Manager{Client: env.Client, Events: env.Events, Informer: c.pods, Kind: kind.Kind}
	reconcile.AddControllerIndex(kind.Informer)
	reconcile.AddControllerIndex(c.pods)
	c.loop = env.Loop(kind.Name, c.reconcile)
	reconcile.Watch(c.loop, kind.Informer, reconcile.Self[T])
	reconcile.Watch(c.loop, c.pods, c.ownersOf)
	return c
}

// Run blocks until ctx ends.
func (c *Controller[T]) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// ownersOf maps a pod to its owner, or an ownerless one to the owners that may
// adopt it.
func (c *Controller[T]) ownersOf(pod *corev1.Pod) []reconcile.Key {
	if metav1.GetControllerOfNoCopy(pod) != nil {
		return reconcile.Controller[*corev1.Pod](c.kind.Kind.Kind)(pod)
	}
	if !podset.Active(pod) || len(pod.Labels) == 0 {
		return nil
	}
	var keys []reconcile.Key
	for _, owner := range reconcile.Indexed[T](c.kind.Informer, cache.NamespaceIndex, pod.Namespace) {
		if set, err := c.kind.Describe(owner); err == nil && set.Selector.Matches(labels.Set(pod.Labels)) {
			keys = append(keys, reconcile.KeyOf(owner))
		}
	}
	return keys
}

func (c *Controller[T]) reconcile(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	var none T
	owner := reconcile.Cached[T](c.kind.Informer, req.Key)
	if owner == none {
		return reconcile.Result{}, nil
	}
	set, err := c.kind.Describe(owner)
	if err != nil {
		return reconcile.Result{}, reconcile.Terminal(fmt.Errorf("selector of %s %s: %w", c.kind.Kind.Kind, req.Key, err))
	}
	candidates := reconcile.Indexed[*corev1.Pod](c.pods, reconcile.ByController, string(owner.GetUID()))
	candidates = append(candidates, reconcile.Indexed[*corev1.Pod](c.pods, reconcile.ByController, reconcile.OrphansIn(req.Namespace))...)
	claims := podset.Claim(owner, set.Selector, candidates, podset.Active)
	pods, err := c.manager.Settle(ctx, req, owner, claims, func() (metav1.Object, error) { return c.kind.Live(ctx, req.Key) })
	if err != nil {
		return reconcile.Result{}, err
	}
	p := compute(set, pods, c.neighbours(set, pods), c.env.Clock.Now())
	acted := c.act(ctx, req, set, p)
	if apierrors.IsNotFound(acted) {
		return reconcile.Result{}, nil
	}
	failure := acted
	if reconcile.Transient(failure) {
		failure = nil
	}
	if err := c.writeStatus(ctx, req, owner, set, status(set, pods, failure, c.env.Clock.Now())); err != nil {
		return reconcile.Result{}, errors.Join(acted, err)
	}
	return reconcile.Result{RequeueAfter: p.wake}, acted
}

func (c *Controller[T]) act(ctx context.Context, req *reconcile.Request, set Set, p plan) error {
	if p.create > 0 {
		pods := make([]*corev1.Pod, p.create)
		for i := range pods {
			pods[i] = podset.FromTemplate(set.Template, set.Object, c.kind.Kind)
		}
		_, err := c.manager.Create(ctx, req, set.Object, pods)
		return err
	}
	if len(p.remove) == 0 {
		return nil
	}
	live, err := c.kind.Live(ctx, req.Key)
	if err != nil {
		return err
	}
	if live.GetUID() != set.Object.GetUID() || live.GetGeneration() != set.Object.GetGeneration() {
		return reconcile.ErrStale
	}
	return c.manager.Delete(ctx, req, set.Object, p.remove)
}

func (c *Controller[T]) writeStatus(ctx context.Context, req *reconcile.Request, owner T, set Set, s appsv1.ReplicaSetStatus) error {
	if !changed(set, s) {
		return nil
	}
	got, err := c.kind.WriteStatus(ctx, owner, s)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("write status: %w", err)
	}
	req.Wrote(c.kind.Informer, got)
	return nil
}

// neighbours counts by node the active pods of all sets that share the set's
// own owner. It is needed only to choose victims.
func (c *Controller[T]) neighbours(set Set, pods []*corev1.Pod) map[string]int {
	owner := metav1.GetControllerOfNoCopy(set.Object)
	if owner == nil || len(pods) <= set.Replicas {
		return nil
	}
	count := map[string]int{}
	for _, sibling := range reconcile.Indexed[T](c.kind.Informer, reconcile.ByController, string(owner.UID)) {
		for _, pod := range reconcile.Indexed[*corev1.Pod](c.pods, reconcile.ByController, string(sibling.GetUID())) {
			if podset.Active(pod) {
				count[pod.Spec.NodeName]++
			}
		}
	}
	return count
}
