// Package deployment rolls Deployments: one ReplicaSet per pod template, the
// current one growing and the old ones shrinking within maxSurge and
// maxUnavailable, or one after the other with Recreate. It scales all of them
// in proportion while a rollout is under way or paused, numbers revisions,
// keeps a limited history to roll back to, and reports progress.
package deployment

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
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

var kind = appsv1.SchemeGroupVersion.WithKind("Deployment")

// Controller reconciles Deployments. Make it with New.
type Controller struct {
	env         reconcile.Env
	deployments cache.SharedIndexInformer
	sets        cache.SharedIndexInformer
	pods        cache.SharedIndexInformer
	loop        *reconcile.Loop
}

// New registers the controller's informers.
func New(env reconcile.Env) *Controller {
	env = env.Defaulted()
	c := &Controller{
		env:         env,
		deployments: env.Informers.Apps().V1().Deployments().Informer(),
		sets:        env.Informers.Apps().V1().ReplicaSets().Informer(),
		pods:        env.Informers.Core().V1().Pods().Informer(),
	}
	reconcile.AddControllerIndex(c.sets)
	reconcile.AddControllerIndex(c.pods)
	c.loop = env.Loop("deployment", c.reconcile)
	reconcile.Watch(c.loop, c.deployments, reconcile.Self[*appsv1.Deployment])
	reconcile.Watch(c.loop, c.sets, c.deploymentsOf)
	// Recreate waits for the last pod of the old sets.
	c.loop.Handle(c.pods, cache.ResourceEventHandlerFuncs{DeleteFunc: c.podGone})
	return c
}

// Run blocks until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// deploymentsOf maps a set to its Deployment, or an ownerless one to the
// Deployments that may adopt it.
func (c *Controller) deploymentsOf(rs *appsv1.ReplicaSet) []reconcile.Key {
	if metav1.GetControllerOfNoCopy(rs) != nil {
		return reconcile.Controller[*appsv1.ReplicaSet](kind.Kind)(rs)
	}
	if len(rs.Labels) == 0 {
		return nil
	}
	var keys []reconcile.Key
	for _, d := range reconcile.Indexed[*appsv1.Deployment](c.deployments, cache.NamespaceIndex, rs.Namespace) {
		if sel, err := metav1.LabelSelectorAsSelector(d.Spec.Selector); err == nil && !sel.Empty() && sel.Matches(labels.Set(rs.Labels)) {
			keys = append(keys, reconcile.KeyOf(d))
		}
	}
	return keys
}

func (c *Controller) podGone(obj any) {
	if lost, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = lost.Obj
	}
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return
	}
	for _, key := range reconcile.Controller[*corev1.Pod]("ReplicaSet")(pod) {
		rs := reconcile.Cached[*appsv1.ReplicaSet](c.sets, key)
		if rs == nil {
			continue
		}
		for _, key := range reconcile.Controller[*appsv1.ReplicaSet](kind.Kind)(rs) {
			d := reconcile.Cached[*appsv1.Deployment](c.deployments, key)
			if d != nil && d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
				c.loop.Add(key)
			}
		}
	}
}

func (c *Controller) reconcile(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	d := reconcile.Cached[*appsv1.Deployment](c.deployments, req.Key)
	if d == nil {
		return reconcile.Result{}, nil
	}
	selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
	if err != nil {
		return reconcile.Result{}, reconcile.Terminal(fmt.Errorf("selector of deployment %s: %w", req.Key, err))
	}
	if selector.Empty() {
		c.env.Events.Eventf(d, corev1.EventTypeWarning, "SelectingAll", "This deployment is selecting all pods. A non-empty selector is required.")
		status := *d.Status.DeepCopy()
		status.ObservedGeneration = d.Generation
		return reconcile.Result{}, c.writeStatus(ctx, req, d, status)
	}
	sets, err := c.claim(ctx, req, d, selector)
	if err != nil {
		return reconcile.Result{}, err
	}
	p := compute(observed{deployment: d, sets: sets, podsOf: func(rs *appsv1.ReplicaSet) []*corev1.Pod {
		return reconcile.Indexed[*corev1.Pod](c.pods, reconcile.ByController, string(rs.UID))
	}}, c.env.Clock.Now())
	if err := c.act(ctx, req, d, sets, p); err != nil {
		return reconcile.Result{}, err
	}
	return reconcile.Result{RequeueAfter: p.wake}, nil
}

// claim adopts and releases sets and returns those that d owns.
func (c *Controller) claim(ctx context.Context, req *reconcile.Request, d *appsv1.Deployment, selector labels.Selector) ([]*appsv1.ReplicaSet, error) {
	candidates := reconcile.Indexed[*appsv1.ReplicaSet](c.sets, reconcile.ByController, string(d.UID))
	candidates = append(candidates, reconcile.Indexed[*appsv1.ReplicaSet](c.sets, reconcile.ByController, reconcile.OrphansIn(d.Namespace))...)
	claims := podset.Claim(d, selector, candidates, func(*appsv1.ReplicaSet) bool { return true })
	if len(claims.Adopt) > 0 {
		if err := podset.MayAdopt(d, func() (metav1.Object, error) {
			return c.env.Client.AppsV1().Deployments(d.Namespace).Get(ctx, d.Name, metav1.GetOptions{})
		}); err != nil {
			return nil, err
		}
	}
	owned := claims.Owned
	for _, rs := range claims.Adopt {
		got, err := c.patchSet(ctx, req, rs, podset.AdoptPatch(d, kind, rs.UID))
		if err != nil {
			return nil, fmt.Errorf("adopt replica set %s: %w", rs.Name, err)
		}
		if got != nil {
			owned = append(owned, got)
		}
	}
	for _, rs := range claims.Release {
		if _, err := c.patchSet(ctx, req, rs, podset.ReleasePatch(d.UID, rs.UID)); err != nil {
			return nil, fmt.Errorf("release replica set %s: %w", rs.Name, err)
		}
	}
	return owned, nil
}

// patchSet returns nil without an error when the set is gone.
func (c *Controller) patchSet(ctx context.Context, req *reconcile.Request, rs *appsv1.ReplicaSet, data []byte) (*appsv1.ReplicaSet, error) {
	got, err := c.env.Client.AppsV1().ReplicaSets(rs.Namespace).Patch(ctx, rs.Name, types.StrategicMergePatchType, data, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	req.Wrote(c.sets, got)
	return got, nil
}

// act executes p.
func (c *Controller) act(ctx context.Context, req *reconcile.Request, d *appsv1.Deployment, sets []*appsv1.ReplicaSet, p plan) error {
	if p.create != nil {
		if err := c.create(ctx, req, d, p); err != nil {
			return err
		}
	}
	for _, rs := range p.update {
		got, err := c.env.Client.AppsV1().ReplicaSets(rs.Namespace).Update(ctx, rs, metav1.UpdateOptions{})
		if err != nil {
			return fmt.Errorf("update replica set %s: %w", rs.Name, err)
		}
		req.Wrote(c.sets, got)
		c.tellScaled(d, sets, rs)
	}
	for _, rs := range p.remove {
		err := c.env.Client.AppsV1().ReplicaSets(rs.Namespace).Delete(ctx, rs.Name, metav1.DeleteOptions{Preconditions: podset.Unchanged(rs)})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete old replica set %s: %w", rs.Name, err)
		}
		req.Deleted(c.sets, rs)
	}
	if p.revision != "" {
		got, err := c.annotateRevision(ctx, req, d, p.revision)
		if err != nil {
			return err
		}
		d = got
	}
	return c.writeStatus(ctx, req, d, p.status)
}

func (c *Controller) tellScaled(d *appsv1.Deployment, sets []*appsv1.ReplicaSet, rs *appsv1.ReplicaSet) {
	for _, was := range sets {
		if was.Name != rs.Name || replicas(was) == replicas(rs) {
			continue
		}
		direction := "up"
		if replicas(rs) < replicas(was) {
			direction = "down"
		}
		c.env.Events.Eventf(d, corev1.EventTypeNormal, "ScalingReplicaSet",
			"Scaled %s replica set %s from %d to %d", direction, rs.Name, replicas(was), replicas(rs))
	}
}

// create makes the current set. A set of that name with another template or
// owner is a hash collision: the next attempt hashes differently.
func (c *Controller) create(ctx context.Context, req *reconcile.Request, d *appsv1.Deployment, p plan) error {
	got, err := c.env.Client.AppsV1().ReplicaSets(d.Namespace).Create(ctx, p.create, metav1.CreateOptions{})
	switch {
	case err == nil:
		req.Wrote(c.sets, got)
		c.env.Events.Eventf(d, corev1.EventTypeNormal, "ScalingReplicaSet",
			"Scaled up replica set %s from 0 to %d", got.Name, replicas(got))
		return nil
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return nil // it goes with everything in it
	case apierrors.IsAlreadyExists(err):
		return c.collide(ctx, req, d, p, err)
	}
	status := p.status
	if hasDeadline(d) {
		setCondition(&status, progressing(corev1.ConditionFalse, reasonCreateError, err.Error()), c.env.Clock.Now())
	}
	c.env.Events.Eventf(d, corev1.EventTypeWarning, reasonCreateError, "Failed to create new replica set %q: %v", p.create.Name, err)
	return errors.Join(fmt.Errorf("create replica set %s: %w", p.create.Name, err), c.writeStatus(ctx, req, d, status))
}

func (c *Controller) collide(ctx context.Context, req *reconcile.Request, d *appsv1.Deployment, p plan, cause error) error {
	have, err := c.env.Client.AppsV1().ReplicaSets(d.Namespace).Get(ctx, p.create.Name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("look at replica set %s, whose name is taken: %w", p.create.Name, err)
	}
	if metav1.IsControlledBy(have, d) && sameTemplate(&have.Spec.Template, &d.Spec.Template) {
		// An earlier create succeeded without our knowing; wait to see it.
		req.Wrote(c.sets, have)
		return fmt.Errorf("replica set %s: %w", have.Name, reconcile.ErrStale)
	}
	status := *d.Status.DeepCopy()
	n := int32(1)
	if status.CollisionCount != nil {
		n += *status.CollisionCount
	}
	status.CollisionCount = &n
	return errors.Join(
		fmt.Errorf("replica set name %s is taken, trying another (collision %s): %w", p.create.Name, strconv.Itoa(int(n)), cause),
		c.writeStatus(ctx, req, d, status))
}

func (c *Controller) annotateRevision(ctx context.Context, req *reconcile.Request, d *appsv1.Deployment, revision string) (*appsv1.Deployment, error) {
	out := d.DeepCopy()
	if out.Annotations == nil {
		out.Annotations = map[string]string{}
	}
	out.Annotations[revisionAnnotation] = revision
	got, err := c.env.Client.AppsV1().Deployments(d.Namespace).Update(ctx, out, metav1.UpdateOptions{})
	if err != nil {
		return nil, fmt.Errorf("write revision %s: %w", revision, err)
	}
	req.Wrote(c.deployments, got)
	return got, nil
}

func (c *Controller) writeStatus(ctx context.Context, req *reconcile.Request, d *appsv1.Deployment, status appsv1.DeploymentStatus) error {
	if equality.Semantic.DeepEqual(d.Status, status) {
		return nil
	}
	out := d.DeepCopy()
	out.Status = status
	got, err := c.env.Client.AppsV1().Deployments(d.Namespace).UpdateStatus(ctx, out, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("write status: %w", err)
	}
	req.Wrote(c.deployments, got)
	return nil
}
