// Package hpa scales workloads by their metrics: it keeps a number of replicas
// at which the metrics of a HorizontalPodAutoscaler are at their targets.
//
// Contract: every 15 seconds, and at once when its spec changes, an autoscaler
// is looked at. The target may be of any kind with a scale subresource; metrics
// come from the metrics APIs (metrics.k8s.io, custom.metrics.k8s.io,
// external.metrics.k8s.io), which are other programs behind the API server: a
// missing or broken one stops what needs it and nothing else. A target that
// somebody scaled to zero is left alone. What is remembered between two looks is
// in memory alone, and is lost on the safe side.
package hpa

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/reconcile"
)

const (
	// interval is the time between two looks at an autoscaler.
	interval = 15 * time.Second
	// mapperAge is how old the knowledge of kinds is at most when one is missing.
	mapperAge = 30 * time.Second
)

// Controller reconciles autoscalers. Make it with New.
type Controller struct {
	env    reconcile.Env
	hpas   cache.SharedIndexInformer
	pods   cache.SharedIndexInformer
	loop   *reconcile.Loop
	remote *remote
	mapper *restmapper.DeferredDiscoveryRESTMapper

	mu sync.Mutex
	// known is what is remembered of each autoscaler; guarded by mu.
	known map[reconcile.Key]*memo
	// mapped is when kinds were last looked up anew; guarded by mu.
	mapped time.Time
}

// memo is what is remembered of an autoscaler.
type memo struct {
	uid      types.UID
	history  history         // the reconcile's of its key
	selector labels.Selector // of the target's pods; guarded by Controller.mu
}

// New registers the controller's informers.
func New(env reconcile.Env) *Controller {
	env = env.Defaulted()
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(env.Client.Discovery()))
	c := &Controller{
		env:    env,
		hpas:   env.Informers.Autoscaling().V2().HorizontalPodAutoscalers().Informer(),
		pods:   env.Informers.Core().V1().Pods().Informer(),
		remote: &remote{rest: env.Client.Discovery().RESTClient(), mapper: mapper},
		mapper: mapper,
		known:  map[reconcile.Key]*memo{},
	}
	c.loop = env.Loop("hpa", c.reconcile)
	c.loop.Handle(c.hpas, cache.ResourceEventHandlerFuncs{
		AddFunc: c.add,
		UpdateFunc: func(old, now any) {
			was, ok := old.(*autoscalingv2.HorizontalPodAutoscaler)
			is, ok2 := now.(*autoscalingv2.HorizontalPodAutoscaler)
			// A new status, this controller's own, is no reason to look again.
			if ok && ok2 && (was.Generation != is.Generation || was.UID != is.UID) {
				c.add(now)
			}
		},
		DeleteFunc: c.add,
	})
	// Pods are read, and cause nothing.
	c.loop.Handle(c.pods, cache.ResourceEventHandlerFuncs{})
	return c
}

func (c *Controller) add(obj any) {
	if lost, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = lost.Obj
	}
	if h, ok := obj.(*autoscalingv2.HorizontalPodAutoscaler); ok {
		c.loop.Add(reconcile.KeyOf(h))
	}
}

// Run blocks until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

func (c *Controller) reconcile(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	h := reconcile.Cached[*autoscalingv2.HorizontalPodAutoscaler](c.hpas, req.Key)
	if h == nil || h.DeletionTimestamp != nil {
		c.mu.Lock()
		delete(c.known, req.Key)
		c.mu.Unlock()
		return reconcile.Result{}, nil
	}
	w := &work{hpa: h.DeepCopy(), now: c.env.Clock.Now()}
	c.look(ctx, req.Key, w)
	for _, e := range w.events {
		c.env.Events.Eventf(h, e.kind, e.reason, "%s", e.message)
	}
	// What went wrong is in the status and in Events; the next look is in time.
	again := reconcile.Result{RequeueAfter: interval}
	if equality.Semantic.DeepEqual(h.Status, w.hpa.Status) {
		return again, nil
	}
	got, err := c.env.Client.AutoscalingV2().HorizontalPodAutoscalers(h.Namespace).UpdateStatus(ctx, w.hpa, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return again, nil
	}
	if err != nil {
		c.env.Events.Eventf(h, corev1.EventTypeWarning, "FailedUpdateStatus", "%s", err.Error())
		return reconcile.Result{}, fmt.Errorf("write the status of autoscaler %s: %w", req.Key, err)
	}
	req.Wrote(c.hpas, got)
	return again, nil
}

// look decides about an autoscaler, and scales its target.
func (c *Controller) look(ctx context.Context, key reconcile.Key, w *work) {
	s, err := c.scaleOf(ctx, w)
	if err != nil {
		w.noScale(err)
		return
	}
	w.set(autoscalingv2.AbleToScale, true, "SucceededGetScale", "the HPA controller was able to get the target's current scale")
	m := c.memo(key, w.hpa.UID)
	current := s.Spec.Replicas
	m.history.begin(current, w.now)
	p, done := w.bounds(current)
	var metrics []autoscalingv2.MetricStatus
	if !done {
		selector := c.podsOf(key, m, w, s)
		if selector == nil {
			return
		}
		proposals := c.proposals(ctx, w, s, selector)
		var ok bool
		if p, ok = w.weigh(current, proposals, &m.history); !ok {
			return
		}
		metrics = statuses(proposals)
	}
	if p.replicas == current {
		w.sees(current, current, metrics)
		return
	}
	if err := c.remote.rescale(ctx, s, p.replicas); err != nil {
		w.notRescaled(p, err)
		w.sees(current, w.hpa.Status.DesiredReplicas, metrics)
		return
	}
	m.history.scaled(w.hpa.Spec.Behavior, current, p.replicas, w.now)
	w.rescaled(current, p)
	w.sees(current, p.replicas, metrics)
}

// scaleOf reads the target's scale. Kinds that are not known are looked up anew,
// not more often than in a while.
func (c *Controller) scaleOf(ctx context.Context, w *work) (*scale, error) {
	s, err := c.remote.scaleOf(ctx, w.hpa.Namespace, w.hpa.Spec.ScaleTargetRef)
	if !meta.IsNoMatchError(err) {
		return s, err
	}
	c.mu.Lock()
	old := w.now.Sub(c.mapped) > mapperAge
	if old {
		c.mapped = w.now
	}
	c.mu.Unlock()
	if !old {
		return s, err
	}
	c.mapper.Reset()
	return c.remote.scaleOf(ctx, w.hpa.Namespace, w.hpa.Spec.ScaleTargetRef)
}

// memo is what is remembered of an autoscaler; of one that was made anew,
// nothing.
func (c *Controller) memo(key reconcile.Key, uid types.UID) *memo {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.known[key]
	if m == nil || m.uid != uid {
		m = &memo{uid: uid}
		c.known[key] = m
	}
	return m
}

// podsOf reads the selector of the target's pods. It is nil, and w says why, if
// there is none or another autoscaler has some of the pods too.
func (c *Controller) podsOf(key reconcile.Key, m *memo, w *work, s *scale) labels.Selector {
	current, text := s.Spec.Replicas, s.Status.Selector
	if text == "" {
		w.noPods(current, "SelectorRequired", "InvalidSelector", "selector is required", "the HPA target's scale is missing a selector")
		return nil
	}
	selector, err := labels.Parse(text)
	if err != nil {
		said := fmt.Sprintf("couldn't convert selector into a corresponding internal selector object: %v", err)
		w.noPods(current, "InvalidSelector", "InvalidSelector", said, said)
		return nil
	}
	pods := c.selected(key.Namespace, selector)
	c.mu.Lock()
	m.selector = selector
	var rivals []string
	for other, o := range c.known {
		if other.Namespace == key.Namespace && o.selector != nil && slices.ContainsFunc(pods, func(p *corev1.Pod) bool { return o.selector.Matches(labels.Set(p.Labels)) }) {
			rivals = append(rivals, other.String())
		}
	}
	c.mu.Unlock()
	if len(rivals) > 1 {
		slices.Sort(rivals)
		said := fmt.Sprintf("pods by selector %s are controlled by more than one HPA (e.g. [%s])", text, strings.Join(rivals, " "))
		w.noPods(current, "AmbiguousSelector", "AmbiguousSelector", said, said)
		return nil
	}
	return selector
}

func (c *Controller) selected(namespace string, selector labels.Selector) []*corev1.Pod {
	return slices.DeleteFunc(reconcile.Indexed[*corev1.Pod](c.pods, cache.NamespaceIndex, namespace), func(p *corev1.Pod) bool {
		return !selector.Matches(labels.Set(p.Labels))
	})
}

// proposals asks what each metric wants.
func (c *Controller) proposals(ctx context.Context, w *work, s *scale, selector labels.Selector) []proposal {
	at := situation{
		spec: s.Spec.Replicas, status: s.Status.Replicas, pods: c.selected(w.hpa.Namespace, selector),
		tolerances: tolerancesOf(w.hpa), now: w.now,
	}
	var out []proposal
	for i := range w.hpa.Spec.Metrics {
		spec := &w.hpa.Spec.Metrics[i]
		r, err := c.remote.read(ctx, w.hpa.Namespace, spec, selector)
		out = append(out, at.propose(spec, r, err))
	}
	return out
}
