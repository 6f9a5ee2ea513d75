// Package disruption computes how many pods of each PodDisruptionBudget may be
// evicted. The API server spends that number: both write the budget's status
// with the resourceVersion that they read, so that none is spent twice. A
// budget that cannot be computed allows nothing.
//
// A pod whose eviction was granted and did not happen counts again after two
// minutes, and no longer says of itself that it is about to go.
package disruption

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/reconcile"
)

// Controller reconciles budgets, and pods that were to be evicted. Make it
// with New.
type Controller struct {
	env     reconcile.Env
	budgets cache.SharedIndexInformer
	pods    cache.SharedIndexInformer
	// Of owners of pods, whose scale budgets may be a share of.
	controllers, replicaSets, deployments, statefulSets cache.SharedIndexInformer

	budgetLoop *reconcile.Loop
	podLoop    *reconcile.Loop
}

// New registers the controller's informers.
func New(env reconcile.Env) *Controller {
	env = env.Defaulted()
	apps := env.Informers.Apps().V1()
	c := &Controller{
		env:          env,
		budgets:      env.Informers.Policy().V1().PodDisruptionBudgets().Informer(),
		pods:         env.Informers.Core().V1().Pods().Informer(),
		controllers:  env.Informers.Core().V1().ReplicationControllers().Informer(),
		replicaSets:  apps.ReplicaSets().Informer(),
		deployments:  apps.Deployments().Informer(),
		statefulSets: apps.StatefulSets().Informer(),
	}
	c.budgetLoop = env.Loop("disruption", c.reconcileBudget)
	reconcile.Watch(c.budgetLoop, c.budgets, reconcile.Self[*policyv1.PodDisruptionBudget])
	reconcile.Watch(c.budgetLoop, c.pods, c.budgetsOf)
	for _, owners := range []cache.SharedIndexInformer{c.controllers, c.replicaSets, c.deployments, c.statefulSets} {
		c.watchOwners(owners)
	}
	c.podLoop = env.Loop("disrupted-pods", c.reconcilePod)
	reconcile.Watch(c.podLoop, c.pods, func(pod *corev1.Pod) []reconcile.Key {
		if yes, _ := untouched(pod, env.Clock.Now()); !yes {
			return nil
		}
		return reconcile.Self(pod)
	})
	return c
}

// Run blocks until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	return reconcile.RunAll(ctx, []reconcile.Named{{Name: "budgets", Runner: c.budgetLoop}, {Name: "pods", Runner: c.podLoop}})
}

func (c *Controller) queueNamespace(namespace string) {
	for _, b := range reconcile.Indexed[*policyv1.PodDisruptionBudget](c.budgets, cache.NamespaceIndex, namespace) {
		if needsScale(b) {
			c.budgetLoop.Add(reconcile.KeyOf(b))
		}
	}
}

// budgetsOf maps a pod to the budgets that select it.
func (c *Controller) budgetsOf(pod *corev1.Pod) []reconcile.Key {
	var keys []reconcile.Key
	for _, b := range reconcile.Indexed[*policyv1.PodDisruptionBudget](c.budgets, cache.NamespaceIndex, pod.Namespace) {
		if sel, err := metav1.LabelSelectorAsSelector(b.Spec.Selector); err == nil && sel.Matches(labels.Set(pod.Labels)) {
			keys = append(keys, reconcile.KeyOf(b))
		}
	}
	if len(keys) > 1 {
		c.env.Events.Eventf(pod, corev1.EventTypeWarning, "MultiplePodDisruptionBudgets",
			"Pod %q/%q matches multiple PodDisruptionBudgets: it cannot be evicted.", pod.Namespace, pod.Name)
	}
	return keys
}

func (c *Controller) reconcileBudget(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	b := reconcile.Cached[*policyv1.PodDisruptionBudget](c.budgets, req.Key)
	if b == nil || b.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	p, unmanaged, err := c.plan(ctx, b)
	if err != nil {
		return reconcile.Result{}, c.fail(ctx, req, b, err)
	}
	if !equality.Semantic.DeepEqual(b.Status, p.status) {
		c.tell(b, p, unmanaged)
	}
	return reconcile.Result{RequeueAfter: p.wake}, c.writeStatus(ctx, req, b, p.status)
}

// fail makes b allow nothing. What only a change of some object can cure is
// not tried again before there is one.
func (c *Controller) fail(ctx context.Context, req *reconcile.Request, b *policyv1.PodDisruptionBudget, cause error) error {
	s := failed(b, cause, c.env.Clock.Now())
	if !equality.Semantic.DeepEqual(b.Status, s) {
		c.env.Events.Eventf(b, corev1.EventTypeWarning, "CalculateExpectedPodCountFailed", "Failed to calculate the number of expected pods: %v", cause)
	}
	var lasting lastingError
	if errors.As(cause, &lasting) {
		cause = nil
	}
	return errors.Join(cause, c.writeStatus(ctx, req, b, s))
}

func (c *Controller) plan(ctx context.Context, b *policyv1.PodDisruptionBudget) (p plan, unmanaged []string, err error) {
	selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
	if err != nil {
		return plan{}, nil, lastingError{fmt.Errorf("selector: %w", err)}
	}
	o := observed{budget: b}
	for _, pod := range reconcile.Indexed[*corev1.Pod](c.pods, cache.NamespaceIndex, b.Namespace) {
		if selector.Matches(labels.Set(pod.Labels)) {
			o.pods = append(o.pods, pod)
		}
	}
	if needsScale(b) {
		if o.scale, unmanaged, err = c.scaleOf(ctx, o.pods); err != nil {
			return plan{}, nil, err
		}
	}
	p, err = compute(o, c.env.Clock.Now())
	return p, unmanaged, err
}

// tell says what users should know about a budget whose numbers changed.
func (c *Controller) tell(b *policyv1.PodDisruptionBudget, p plan, unmanaged []string) {
	if p.status.ExpectedPods == 0 && p.status.CurrentHealthy == 0 {
		c.env.Events.Eventf(b, corev1.EventTypeNormal, "NoPods", "No matching pods found")
	}
	if len(unmanaged) > 0 {
		c.env.Events.Eventf(b, corev1.EventTypeWarning, "UnmanagedPods", "Pods selected by this PodDisruptionBudget (selector: %v) were found "+
			"to be unmanaged. As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. "+
			"To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value.", metav1.FormatLabelSelector(b.Spec.Selector))
	}
	for _, pod := range p.spared {
		c.env.Events.Eventf(pod, corev1.EventTypeWarning, "NotDeleted", "Pod was expected by PDB %s/%s to be deleted but it wasn't", b.Namespace, b.Name)
	}
}

func (c *Controller) writeStatus(ctx context.Context, req *reconcile.Request, b *policyv1.PodDisruptionBudget, s policyv1.PodDisruptionBudgetStatus) error {
	if equality.Semantic.DeepEqual(b.Status, s) {
		return nil
	}
	out := b.DeepCopy()
	out.Status = s
	got, err := c.env.Client.PolicyV1().PodDisruptionBudgets(b.Namespace).UpdateStatus(ctx, out, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("write status: %w", err)
	}
	req.Wrote(c.budgets, got)
	return nil
}

// reconcilePod takes the announcement of a disruption back that did not
// happen.
func (c *Controller) reconcilePod(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	pod := reconcile.Cached[*corev1.Pod](c.pods, req.Key)
	if pod == nil {
		return reconcile.Result{}, nil
	}
	now := c.env.Clock.Now()
	yes, wait := untouched(pod, now)
	if !yes || wait > 0 {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	got, err := c.env.Client.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, spare(pod, now), metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return reconcile.Result{}, nil
	}
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("take back condition DisruptionTarget: %w", err)
	}
	req.Wrote(c.pods, got)
	return reconcile.Result{}, nil
}
