// Package namespace deletes the contents of namespaces that are being deleted:
// pods first, so that nothing they use is taken from under them, then
// everything else the API server serves. A namespace goes only when every
// resource type is known and empty; until then its conditions say what blocks.
package namespace

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/reconcile"
)

// Controller reconciles namespaces. Make it with New.
type Controller struct {
	env        reconcile.Env
	metadata   metadata.Interface
	namespaces cache.SharedIndexInformer
	loop       *reconcile.Loop
}

var podsResource = corev1.SchemeGroupVersion.WithResource("pods")

// pageSize bounds what one list of remaining objects holds.
const pageSize = 500

// New registers the controller's informers. client deletes and lists objects
// of any type, under the controller's own identity.
func New(env reconcile.Env, client metadata.Interface) *Controller {
	env = env.Defaulted()
	c := &Controller{
		env:        env,
		metadata:   client,
		namespaces: env.Informers.Core().V1().Namespaces().Informer(),
	}
	c.loop = env.Loop("namespace", c.reconcile)
	reconcile.Watch(c.loop, c.namespaces, reconcile.Self[*corev1.Namespace])
	// The last pod to end lets the rest go on.
	c.loop.Handle(env.Informers.Core().V1().Pods().Informer(), cache.ResourceEventHandlerFuncs{DeleteFunc: c.podGone})
	return c
}

// Run blocks until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

func (c *Controller) podGone(obj any) {
	if lost, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = lost.Obj
	}
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return
	}
	key := reconcile.Key{Name: pod.Namespace}
	if ns := reconcile.Cached[*corev1.Namespace](c.namespaces, key); ns != nil && ns.DeletionTimestamp != nil {
		// Many pods end together: look once for a handful of them.
		c.loop.AddAfter(key, 50*time.Millisecond)
	}
}

func (c *Controller) reconcile(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	ns := reconcile.Cached[*corev1.Namespace](c.namespaces, req.Key)
	if ns == nil || ns.DeletionTimestamp == nil || !slices.Contains(ns.Spec.Finalizers, corev1.FinalizerKubernetes) {
		return reconcile.Result{}, nil
	}
	// The cache may show a namespace that is gone and was created again.
	live, err := c.env.Client.CoreV1().Namespaces().Get(ctx, ns.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return reconcile.Result{}, nil
	}
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("look at namespace before emptying it: %w", err)
	}
	if live.UID != ns.UID || live.DeletionTimestamp == nil {
		return reconcile.Result{}, reconcile.ErrStale
	}
	left := c.empty(ctx, live.Name)
	now := c.env.Clock.Now()
	v := compute(live.Status.Conditions, left, now.Sub(live.DeletionTimestamp.Time), now)
	if v.done {
		return reconcile.Result{}, c.finalize(ctx, req, live)
	}
	for _, err := range left.failures {
		c.env.Log.Warn("namespace cannot be emptied yet", "namespace", live.Name, "err", err)
	}
	return reconcile.Result{RequeueAfter: v.wait}, c.writeStatus(ctx, req, live, v.conditions)
}

// finalize lets the API server remove the namespace.
func (c *Controller) finalize(ctx context.Context, req *reconcile.Request, ns *corev1.Namespace) error {
	out := ns.DeepCopy()
	out.Spec.Finalizers = slices.DeleteFunc(out.Spec.Finalizers, func(f corev1.FinalizerName) bool { return f == corev1.FinalizerKubernetes })
	got, err := c.env.Client.CoreV1().Namespaces().Finalize(ctx, out, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("finalize: %w", err)
	}
	req.Wrote(c.namespaces, got)
	return nil
}

func (c *Controller) writeStatus(ctx context.Context, req *reconcile.Request, ns *corev1.Namespace, conditions []corev1.NamespaceCondition) error {
	out := ns.DeepCopy()
	out.Status = corev1.NamespaceStatus{Phase: corev1.NamespaceTerminating, Conditions: conditions}
	if equality.Semantic.DeepEqual(out.Status, ns.Status) {
		return nil
	}
	got, err := c.env.Client.CoreV1().Namespaces().UpdateStatus(ctx, out, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("write status: %w", err)
	}
	req.Wrote(c.namespaces, got)
	return nil
}

// target is one namespaced resource type.
type target struct {
	schema.GroupVersionResource
	collection bool // deletecollection is served
}

// empty deletes what is in namespace and reports what remains.
func (c *Controller) empty(ctx context.Context, namespace string) remains {
	r := remains{count: map[schema.GroupVersionResource]int{}, finalizers: map[string]int{}}
	targets, err := c.targets()
	r.discovery = err
	slices.SortStableFunc(targets, func(a, b target) int {
		switch {
		case a.GroupVersionResource == podsResource:
			return -1
		case b.GroupVersionResource == podsResource:
			return 1
		}
		return 0
	})
	for _, t := range targets {
		if err := c.emptyType(ctx, namespace, t, &r); err != nil {
			r.failures = append(r.failures, fmt.Errorf("%s: %w", t.GroupResource(), err))
		}
		if t.GroupVersionResource == podsResource && (r.count[podsResource] > 0 || len(r.failures) > 0) {
			return r
		}
	}
	return r
}

// targets lists the namespaced types whose objects can be listed and deleted.
// With an error it lists those of the groups that did answer.
func (c *Controller) targets() ([]target, error) {
	lists, err := c.env.Client.Discovery().ServerPreferredNamespacedResources()
	if err != nil {
		err = fmt.Errorf("discovery: %w", err)
	}
	var out []target
	for _, list := range discovery.FilteredBy(discovery.SupportsAllVerbs{Verbs: []string{"list", "delete"}}, lists) {
		gv, parse := schema.ParseGroupVersion(list.GroupVersion)
		if parse != nil {
			err = errors.Join(err, parse)
			continue
		}
		for i := range list.APIResources {
			out = append(out, target{gv.WithResource(list.APIResources[i].Name), slices.Contains(list.APIResources[i].Verbs, "deletecollection")})
		}
	}
	return out, err
}

// emptyType deletes all objects of one type and counts what remains. Objects
// that are being deleted already are not deleted again.
func (c *Controller) emptyType(ctx context.Context, namespace string, t target, r *remains) error {
	client := c.metadata.Resource(t.GroupVersionResource).Namespace(namespace)
	items, err := list(ctx, client)
	if ignorable(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if slices.ContainsFunc(items, alive) {
		if err := remove(ctx, client, t, items); err != nil {
			return err
		}
		if items, err = list(ctx, client); err != nil {
			return err
		}
	}
	r.count[t.GroupVersionResource] += len(items)
	for i := range items {
		for _, f := range items[i].Finalizers {
			r.finalizers[f]++
		}
		if s := items[i].DeletionGracePeriodSeconds; s != nil {
			r.grace = max(r.grace, time.Duration(*s)*time.Second)
		}
	}
	return nil
}

// ignorable: the type vanished since discovery, or serves no list after all.
func ignorable(err error) bool {
	return apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err)
}

func alive(m metav1.PartialObjectMetadata) bool { return m.DeletionTimestamp == nil }

func list(ctx context.Context, client metadata.ResourceInterface) ([]metav1.PartialObjectMetadata, error) {
	var items []metav1.PartialObjectMetadata
	opts := metav1.ListOptions{Limit: pageSize}
	for {
		page, err := client.List(ctx, opts)
		if err != nil {
			return nil, fmt.Errorf("list: %w", err)
		}
		items = append(items, page.Items...)
		if page.Continue == "" {
			return items, nil
		}
		opts.Continue = page.Continue
	}
}

func remove(ctx context.Context, client metadata.ResourceInterface, t target, items []metav1.PartialObjectMetadata) error {
	background := metav1.DeletePropagationBackground
	opts := metav1.DeleteOptions{PropagationPolicy: &background}
	if t.collection {
		err := client.DeleteCollection(ctx, opts, metav1.ListOptions{})
		if err == nil || ignorable(err) {
			return nil
		}
		if !apierrors.IsForbidden(err) {
			return fmt.Errorf("delete collection: %w", err)
		}
	}
	for i := range items {
		opts.Preconditions = &metav1.Preconditions{UID: &items[i].UID}
		if err := client.Delete(ctx, items[i].Name, opts); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete %s: %w", items[i].Name, err)
		}
	}
	return nil
}
