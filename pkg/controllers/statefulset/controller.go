// Package statefulset gives each StatefulSet its pods: numbered, each with a
// name, a place in the governing Service's domain and claims of its own, which
// all outlast the pod.
//
// No two pods of one identity ever exist: a name is taken again when the
// server says that the pod before is gone. Nothing is deleted, and no claim
// gets another owner, unless the server has confirmed what the set wants and
// the object is still as the cache showed it. A pod of a broken template stays
// in an ordered set until somebody deletes it, even when the template was put
// right: users rely on the set not going on by itself.
package statefulset

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

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

var kind = appsv1.SchemeGroupVersion.WithKind("StatefulSet")

// templateHash is the label of a set's revisions with their template's hash.
const templateHash = "controller.kubernetes.io/hash"

// Controller reconciles StatefulSets. Make it with New.
type Controller struct {
	env       reconcile.Env
	sets      cache.SharedIndexInformer
	pods      cache.SharedIndexInformer
	claims    cache.SharedIndexInformer
	manager   *podset.Manager
	revisions *revision.Keeper
	loop      *reconcile.Loop
}

// New registers the controller's informers.
func New(env reconcile.Env) *Controller {
	env = env.Defaulted()
	c := &Controller{
		env:    env,
		sets:   env.Informers.Apps().V1().StatefulSets().Informer(),
		pods:   env.Informers.Core().V1().Pods().Informer(),
		claims: env.Informers.Core().V1().PersistentVolumeClaims().Informer(),
	}
	c.manager = &podset.Manager{Client: env.Client, Events: env.Events, Informer: c.pods, Kind: kind, Say: say}
	c.revisions = &revision.Keeper{Client: env.Client, Informer: env.Informers.Apps().V1().ControllerRevisions().Informer()}
	reconcile.AddControllerIndex(c.pods)
	reconcile.AddControllerIndex(c.revisions.Informer)
	c.loop = env.Loop("statefulset", c.reconcile)
	reconcile.Watch(c.loop, c.sets, reconcile.Self[*appsv1.StatefulSet])
	reconcile.Watch(c.loop, c.pods, c.setsOfPod)
	reconcile.Watch(c.loop, c.claims, c.setsOfClaim)
	reconcile.Watch(c.loop, c.revisions.Informer, reconcile.Controller[*appsv1.ControllerRevision](kind.Kind))
	return c
}

// Run blocks until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// say words events about pods.
func say(verb podset.Verb, owner podset.Owner, pod *corev1.Pod, err error) string {
	if err != nil {
		return fmt.Sprintf("%s Pod %s in StatefulSet %s failed error: %v", verb, pod.Name, owner.GetName(), err)
	}
	return fmt.Sprintf("%s Pod %s in StatefulSet %s successful", verb, pod.Name, owner.GetName())
}

// setsOfPod maps a pod to its set, or an ownerless one to the sets that may
// adopt it.
func (c *Controller) setsOfPod(pod *corev1.Pod) []reconcile.Key {
	if metav1.GetControllerOfNoCopy(pod) != nil {
		return reconcile.Controller[*corev1.Pod](kind.Kind)(pod)
	}
	return c.keysOf(pod.Namespace, func(set *appsv1.StatefulSet) bool { return ordinalOf(set, pod.Name) >= 0 })
}

// setsOfClaim maps a claim to the sets that may wait for it.
func (c *Controller) setsOfClaim(claim *corev1.PersistentVolumeClaim) []reconcile.Key {
	return c.keysOf(claim.Namespace, func(set *appsv1.StatefulSet) bool { return ownsClaim(set, claim.Name) })
}

func (c *Controller) keysOf(namespace string, match func(*appsv1.StatefulSet) bool) []reconcile.Key {
	var keys []reconcile.Key
	for _, set := range reconcile.Indexed[*appsv1.StatefulSet](c.sets, cache.NamespaceIndex, namespace) {
		if match(set) {
			keys = append(keys, reconcile.KeyOf(set))
		}
	}
	return keys
}

func (c *Controller) reconcile(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	set := reconcile.Cached[*appsv1.StatefulSet](c.sets, req.Key)
	if set == nil {
		return reconcile.Result{}, nil
	}
	selector, err := metav1.LabelSelectorAsSelector(set.Spec.Selector)
	if err != nil || selector.Empty() {
		return reconcile.Result{}, reconcile.Terminal(fmt.Errorf("stateful set %s selects all pods or none: give it a selector: %w", req.Key, err))
	}
	pods, err := c.podsOf(ctx, req, set, selector)
	if err != nil {
		return reconcile.Result{}, err
	}
	o := observed{
		set: set, pods: pods,
		current: version{name: set.Status.CurrentRevision}, update: version{name: set.Status.UpdateRevision},
		claim: func(name string) *corev1.PersistentVolumeClaim {
			return reconcile.Cached[*corev1.PersistentVolumeClaim](c.claims, reconcile.Key{Namespace: set.Namespace, Name: name})
		},
	}
	if set.DeletionTimestamp == nil {
		err = c.findVersions(ctx, req, &o)
	}
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return reconcile.Result{}, nil
	}
	if err != nil {
		return reconcile.Result{}, err
	}
	p := compute(o, c.env.Clock.Now())
	acted := c.act(ctx, req, set, p)
	return reconcile.Result{RequeueAfter: p.wake}, errors.Join(acted, c.writeStatus(ctx, req, set, p.status))
}

func (c *Controller) live(ctx context.Context, set *appsv1.StatefulSet) (*appsv1.StatefulSet, error) {
	return c.env.Client.AppsV1().StatefulSets(set.Namespace).Get(ctx, set.Name, metav1.GetOptions{})
}

// podsOf returns the set's pods, adopting those without a controller that have
// a name of this set.
func (c *Controller) podsOf(ctx context.Context, req *reconcile.Request, set *appsv1.StatefulSet, selector labels.Selector) ([]*corev1.Pod, error) {
	candidates := reconcile.Indexed[*corev1.Pod](c.pods, reconcile.ByController, string(set.UID))
	candidates = append(candidates, reconcile.Indexed[*corev1.Pod](c.pods, reconcile.ByController, reconcile.OrphansIn(set.Namespace))...)
	member := func(pod *corev1.Pod) bool { return ordinalOf(set, pod.Name) >= 0 }
	pods, err := c.manager.Settle(ctx, req, set, podset.Claim(set, selector, candidates, member),
		func() (metav1.Object, error) { return c.live(ctx, set) })
	return slices.DeleteFunc(pods, func(pod *corev1.Pod) bool { return !member(pod) }), err
}

// findVersions brings the set's revisions up to date and fills in o's.
func (c *Controller) findVersions(ctx context.Context, req *reconcile.Request, o *observed) error {
	used := map[string]bool{o.set.Status.CurrentRevision: true}
	for _, pod := range o.pods {
		used[pod.Labels[revisionLabel]] = true
	}
	update, all, err := c.revisions.Sync(ctx, req, revision.Owner{
		Object: o.set, Kind: kind, Selector: o.set.Spec.Selector, Template: &o.set.Spec.Template,
		Limit: o.set.Spec.RevisionHistoryLimit, Collisions: o.set.Status.CollisionCount, HashLabel: templateHash,
	}, used, func() (metav1.Object, error) { return c.live(ctx, o.set) })
	var taken *revision.CollisionError
	if errors.As(err, &taken) {
		s := *o.set.Status.DeepCopy()
		n := int32(1)
		if s.CollisionCount != nil {
			n += *s.CollisionCount
		}
		s.CollisionCount = &n
		return errors.Join(err, c.writeStatus(ctx, req, o.set, s))
	}
	if err != nil {
		return err
	}
	o.update = version{update.Name, &o.set.Spec.Template}
	o.current = o.update
	i := slices.IndexFunc(all, func(r *appsv1.ControllerRevision) bool { return r.Name == o.set.Status.CurrentRevision })
	if i < 0 || all[i].Name == update.Name {
		return nil
	}
	template, err := revision.Template(all[i])
	if err != nil {
		return reconcile.Terminal(err)
	}
	o.current = version{all[i].Name, template}
	return nil
}

// act executes p.
func (c *Controller) act(ctx context.Context, req *reconcile.Request, set *appsv1.StatefulSet, p plan) error {
	if len(p.remove)+len(p.own) > 0 {
		live, err := c.live(ctx, set)
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("confirm stateful set: %w", err)
		}
		if live.UID != set.UID || live.Generation != set.Generation {
			return reconcile.ErrStale
		}
	}
	errs := []error{c.ownClaims(ctx, req, set, p)}
	for _, name := range slices.Sorted(maps.Keys(p.waits)) {
		err := errors.New(p.waits[name])
		c.env.Events.Eventf(set, corev1.EventTypeWarning, "FailedCreate", "%s",
			say(podset.VerbCreate, set, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}}, err))
	}
	unclaimed, err := c.createClaims(ctx, req, set, p.claims)
	errs = append(errs, err)
	_, err = c.manager.Create(ctx, req, set, slices.DeleteFunc(p.create, func(pod *corev1.Pod) bool { return unclaimed[pod.Name] }))
	errs = append(errs, err)
	for _, pod := range p.repair {
		errs = append(errs, c.repair(ctx, req, set, pod))
	}
	if errs[0] == nil { // a pod goes when its claims know what becomes of them
		errs = append(errs, c.manager.Delete(ctx, req, set, p.remove))
	}
	return errors.Join(errs...)
}

func (c *Controller) ownClaims(ctx context.Context, req *reconcile.Request, set *appsv1.StatefulSet, p plan) error {
	for _, name := range p.conflicts {
		c.env.Events.Eventf(set, corev1.EventTypeWarning, "ConflictingController",
			"PersistentVolumeClaim %s has a conflicting OwnerReference that acts as a managing controller, the retention policy is ignored for this claim", name)
	}
	for _, claim := range p.own {
		got, err := c.env.Client.CoreV1().PersistentVolumeClaims(claim.Namespace).Update(ctx, claim, metav1.UpdateOptions{})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("update owners of claim %s: %w", claim.Name, err)
		}
		req.Wrote(c.claims, got)
	}
	return nil
}

// createClaims returns the names of the pods whose claims could not all be
// made.
func (c *Controller) createClaims(ctx context.Context, req *reconcile.Request, set *appsv1.StatefulSet, claims []missing) (map[string]bool, error) {
	unclaimed := map[string]bool{}
	var errs []error
	for _, m := range claims {
		got, err := c.env.Client.CoreV1().PersistentVolumeClaims(set.Namespace).Create(ctx, m.claim, metav1.CreateOptions{})
		switch {
		case err == nil:
			req.Wrote(c.claims, got)
			c.env.Events.Eventf(set, corev1.EventTypeNormal, "SuccessfulCreate",
				"create Claim %s Pod %s in StatefulSet %s success", m.claim.Name, m.pod, set.Name)
			continue
		case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		case apierrors.IsAlreadyExists(err):
			// The cache does not show it yet, nor whether it is being deleted.
			errs = append(errs, fmt.Errorf("claim %s: %w", m.claim.Name, reconcile.ErrStale))
		default:
			c.env.Events.Eventf(set, corev1.EventTypeWarning, "FailedCreate",
				"create Claim %s for Pod %s in StatefulSet %s failed error: %v", m.claim.Name, m.pod, set.Name, err)
			errs = append(errs, fmt.Errorf("create claim %s: %w", m.claim.Name, err))
		}
		unclaimed[m.pod] = true
	}
	return unclaimed, errors.Join(errs...)
}

// repair gives a pod back what it lost of its identity.
func (c *Controller) repair(ctx context.Context, req *reconcile.Request, set *appsv1.StatefulSet, pod *corev1.Pod) error {
	got, err := c.env.Client.CoreV1().Pods(pod.Namespace).Update(ctx, pod, metav1.UpdateOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case apierrors.IsConflict(err):
	case err != nil:
		c.env.Events.Eventf(set, corev1.EventTypeWarning, "FailedUpdate", "update Pod %s in StatefulSet %s failed error: %v", pod.Name, set.Name, err)
	default:
		req.Wrote(c.pods, got)
		c.env.Events.Eventf(set, corev1.EventTypeNormal, "SuccessfulUpdate", "update Pod %s in StatefulSet %s successful", pod.Name, set.Name)
		return nil
	}
	return fmt.Errorf("update pod %s: %w", pod.Name, err)
}

func (c *Controller) writeStatus(ctx context.Context, req *reconcile.Request, set *appsv1.StatefulSet, s appsv1.StatefulSetStatus) error {
	if equality.Semantic.DeepEqual(set.Status, s) {
		return nil
	}
	out := set.DeepCopy()
	out.Status = s
	got, err := c.env.Client.AppsV1().StatefulSets(set.Namespace).UpdateStatus(ctx, out, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("write status: %w", err)
	}
	req.Wrote(c.sets, got)
	return nil
}
