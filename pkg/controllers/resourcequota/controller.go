// Package resourcequota counts what the objects of a namespace take of its
// ResourceQuotas. Admission charges quotas for what comes; the count here
// starts new quotas, gives back what went, and corrects what was charged for
// objects that never came.
//
// A count is wrong about objects that have been charged and are about to be
// stored. So usage is lowered only by what is known to have gone: charges that
// were seen in the quota's own watch, and whose object was not, stay.
package resourcequota

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/quota"
	"coracle/pkg/reconcile"
)

const (
	// resyncPeriod is how often a quota is counted although nothing says so.
	resyncPeriod = 5 * time.Minute
	// gatherTime is how long a count waits for further objects to go.
	gatherTime = 50 * time.Millisecond
	// heldWait is how soon a count comes again that found charges pending.
	heldWait = time.Second
	// followWait is how soon a count comes again that lacks a resource.
	followWait = 100 * time.Millisecond
	// writeAttempts bounds the tries to write a quota that admission charges
	// all the time.
	writeAttempts = 10
)

// Controller counts quotas. Make it with New.
type Controller struct {
	env    reconcile.Env
	quotas cache.SharedIndexInformer
	follow *follower
	loop   *reconcile.Loop

	mu      sync.Mutex
	ledgers map[reconcile.Key]*ledger // guarded by mu
	own     map[reconcile.Key]string  // guarded by mu: the version of the last status written here
}

// New registers the controller's informers. client reads the metadata of any
// resource, under the controller's own identity.
func New(env reconcile.Env, client metadata.Interface) *Controller {
	env = env.Defaulted()
	c := &Controller{
		env: env, quotas: env.Informers.Core().V1().ResourceQuotas().Informer(),
		ledgers: map[reconcile.Key]*ledger{}, own: map[reconcile.Key]string{},
	}
	c.follow = &follower{
		env: env, metadata: client, handler: c.handler, running: map[schema.GroupResource]*informer{},
		always: map[schema.GroupResource]cache.SharedIndexInformer{
			corev1.Resource("pods"):                   env.Informers.Core().V1().Pods().Informer(),
			corev1.Resource("services"):               env.Informers.Core().V1().Services().Informer(),
			corev1.Resource("persistentvolumeclaims"): env.Informers.Core().V1().PersistentVolumeClaims().Informer(),
			corev1.Resource("resourcequotas"):         c.quotas,
		},
	}
	c.loop = env.Loop("resourcequota", c.reconcile)
	c.loop.Handle(c.quotas, cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { c.quotaSeen(nil, obj) },
		UpdateFunc: c.quotaSeen,
		DeleteFunc: c.quotaGone,
	})
	for gr, i := range c.follow.always {
		c.loop.Handle(i, c.handler(gr))
	}
	return c
}

// Run blocks until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	c.follow.ctx = ctx
	defer c.follow.close()
	return c.loop.Run(ctx)
}

// quotaSeen keeps the quota's ledger, and counts it when it says something new.
func (c *Controller) quotaSeen(old, obj any) {
	q, ok := obj.(*corev1.ResourceQuota)
	if !ok {
		return
	}
	key, now := reconcile.KeyOf(q), c.env.Clock.Now()
	was, _ := old.(*corev1.ResourceQuota)
	if was != nil && was.UID != q.UID {
		c.quotaGone(was)
		was = nil
	}
	c.mu.Lock()
	l := c.ledgers[key]
	if l == nil {
		l = newLedger(now, len(q.Status.Used) == 0)
		c.ledgers[key] = l
	}
	ours := c.own[key] == q.ResourceVersion
	if was != nil && !ours {
		// What is given back settles nothing: it might be the count's own doing,
		// whose echo can come before its answer.
		l.charged(now, quota.Excess(q.Status.Used, was.Status.Used))
	}
	c.mu.Unlock()
	switch {
	case was == nil, !quota.Equal(q.Spec.Hard, q.Status.Hard), !quota.Equal(was.Spec.Hard, q.Spec.Hard):
		c.loop.Add(key)
	case !ours:
		c.loop.AddAfter(key, settleTime) // somebody's charge may come to nothing
	}
}

func (c *Controller) quotaGone(obj any) {
	if lost, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = lost.Obj
	}
	if q, ok := obj.(*corev1.ResourceQuota); ok {
		c.mu.Lock()
		delete(c.ledgers, reconcile.KeyOf(q))
		delete(c.own, reconcile.KeyOf(q))
		c.mu.Unlock()
	}
}

// handler sees the objects of one resource come and go.
func (c *Controller) handler(gr schema.GroupResource) cache.ResourceEventHandler {
	e := quota.For(gr)
	return cache.ResourceEventHandlerDetailedFuncs{
		AddFunc: func(obj any, initial bool) {
			if !initial {
				c.objectSeen(e, nil, obj)
			}
		},
		UpdateFunc: func(old, obj any) { c.objectSeen(e, old, obj) },
		DeleteFunc: func(obj any) {
			if lost, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = lost.Obj
			}
			if o, ok := obj.(metav1.Object); ok {
				for _, q := range c.concerned(e, o.GetNamespace()) {
					c.loop.AddAfter(reconcile.KeyOf(q), gatherTime)
				}
			}
		},
	}
}

// concerned are the quotas of a namespace that e's resource counts for.
func (c *Controller) concerned(e quota.Evaluator, namespace string) []*corev1.ResourceQuota {
	var out []*corev1.ResourceQuota
	for _, q := range reconcile.Indexed[*corev1.ResourceQuota](c.quotas, cache.NamespaceIndex, namespace) {
		for name := range q.Spec.Hard {
			if e.Tracks(name) {
				out = append(out, q)
				break
			}
		}
	}
	return out
}

// objectSeen settles the charge of an object that came or grew, and counts the
// quotas of one that shrank.
func (c *Controller) objectSeen(e quota.Evaluator, was, is any) {
	obj, ok := is.(runtime.Object)
	if !ok {
		return
	}
	acc, err := meta.Accessor(obj)
	if err != nil {
		return
	}
	old, _ := was.(runtime.Object)
	quotas := c.concerned(e, acc.GetNamespace())
	if len(quotas) == 0 {
		return
	}
	now := c.env.Clock.Now()
	for _, q := range quotas {
		before, after := taken(e, q, old, now), taken(e, q, obj, now)
		if quota.Equal(before, after) {
			continue
		}
		key := reconcile.KeyOf(q)
		c.mu.Lock()
		if l := c.ledgers[key]; l != nil {
			l.settled(now, quota.Excess(after, before))
		}
		c.mu.Unlock()
		if old != nil {
			c.loop.AddAfter(key, gatherTime)
		} else {
			c.loop.AddAfter(key, settleTime) // nobody may have charged it
		}
	}
}

// taken is what an object takes of a quota; nothing when there is no object.
func taken(e quota.Evaluator, q *corev1.ResourceQuota, obj runtime.Object, now time.Time) corev1.ResourceList {
	if obj == nil {
		return nil
	}
	return quota.Used(e, &q.Spec, []runtime.Object{obj}, now)
}

func (c *Controller) reconcile(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	cached := reconcile.Cached[*corev1.ResourceQuota](c.quotas, req.Key)
	if cached == nil {
		return reconcile.Result{}, nil
	}
	q, unseen := cached, corev1.ResourceList(nil)
	for range writeAttempts {
		now := c.env.Clock.Now()
		counted, complete := c.count(&q.Spec, q.Namespace, now)
		c.mu.Lock()
		l := c.ledgers[req.Key]
		if l == nil {
			l = newLedger(now, false) // its event is on its way
			c.ledgers[req.Key] = l
		}
		o := observed{hard: q.Spec.Hard, status: q.Status, counted: counted, pending: quota.Add(l.pending(now), unseen), blind: l.blind(now)}
		c.mu.Unlock()
		d := compute(o)
		result := reconcile.Result{RequeueAfter: resyncPeriod}
		if d.held {
			result.RequeueAfter = heldWait
		}
		if !complete {
			result.RequeueAfter = followWait
		}
		if !d.write {
			return result, nil
		}
		err := c.write(ctx, req, q, d.status)
		if !apierrors.IsConflict(err) {
			return result, err
		}
		// Admission was faster. What it charged since the cached state is
		// pending, whether or not its event has come.
		live, err := c.env.Client.CoreV1().ResourceQuotas(q.Namespace).Get(ctx, q.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return reconcile.Result{}, nil
		}
		if err != nil {
			return result, fmt.Errorf("read quota %s again: %w", req.Key, err)
		}
		q, unseen = live, quota.Excess(live.Status.Used, cached.Status.Used)
	}
	return reconcile.Result{RequeueAfter: heldWait}, nil
}

// write stores a quota's status.
func (c *Controller) write(ctx context.Context, req *reconcile.Request, q *corev1.ResourceQuota, status corev1.ResourceQuotaStatus) error {
	next := q.DeepCopy()
	next.Status = status
	got, err := c.env.Client.CoreV1().ResourceQuotas(q.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		if apierrors.IsConflict(err) {
			return err
		}
		return fmt.Errorf("write the usage of quota %s: %w", req.Key, err)
	}
	c.mu.Lock()
	c.own[req.Key] = got.ResourceVersion
	c.mu.Unlock()
	req.Wrote(c.quotas, got)
	return nil
}

// count is what the objects of a namespace take; complete says that no
// resource was missing.
func (c *Controller) count(spec *corev1.ResourceQuotaSpec, namespace string, now time.Time) (used corev1.ResourceList, complete bool) {
	used, complete = corev1.ResourceList{}, true
	done := map[schema.GroupResource]bool{}
	for name := range spec.Hard {
		gr, ok := quota.Resource(name)
		if !ok || done[gr] {
			continue
		}
		done[gr] = true
		e := quota.For(gr)
		if e == nil {
			continue
		}
		objs, known := c.list(gr, namespace)
		complete = complete && known
		if known {
			used = quota.Add(used, quota.Used(e, spec, objs, now))
		}
	}
	return used, complete
}

// list returns the objects of a resource in a namespace; known is false while
// nobody can say.
func (c *Controller) list(gr schema.GroupResource, namespace string) (objs []runtime.Object, known bool) {
	indexer, s := c.follow.objects(gr)
	if s != followed {
		return nil, s == unserved
	}
	found, err := indexer.ByIndex(cache.NamespaceIndex, namespace)
	if err != nil {
		c.env.Log.Error("a resource cannot be counted by namespace", "resource", gr.String(), "err", err)
		return nil, false
	}
	for _, obj := range found {
		if o, ok := obj.(runtime.Object); ok {
			objs = append(objs, o)
		}
	}
	return objs, true
}
