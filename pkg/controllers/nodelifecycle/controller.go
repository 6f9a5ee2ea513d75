// Package nodelifecycle watches over nodes: one that gives no sign of life is
// marked unknown, a node's conditions become taints, and nodes that are not
// ready lose their pods, at a limited rate and not at all when so many are
// lost that the fault is likely to be elsewhere.
//
// Silence is measured on this process's own clock, from the last change of a
// node's lease or heartbeat that it saw; the nodes' clocks do not matter. A
// node is called silent only after the API server itself was asked for its
// lease and has proved that it takes writes: when it does not answer in time
// no node could have spoken, and all get their full grace again. The same holds
// when no node at all was heard for a while: then the store must have taken
// writes for longer than a renewal takes before silence counts.
package nodelifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/controllers/podset"
	"coracle/pkg/reconcile"
)

// Config sets the pace. The zero value of a field means its default.
type Config struct {
	// Grace is how long a node may be silent; default 50 s. It must be a few
	// times the 10 s in which nodes renew their lease.
	Grace time.Duration
	// StartupGrace is Grace for a node that has never spoken; default 60 s.
	StartupGrace time.Duration
	// Period is the time between looks; default 5 s or a fourth of Grace, the
	// shorter.
	Period time.Duration
	// EvictionRate is how many nodes of a zone lose their pods per second;
	// default 0.1.
	EvictionRate float64
	// SecondaryRate is EvictionRate in a zone of which much is lost, if it is
	// large; in a small one evictions stop. Default 0.01.
	SecondaryRate float64
	// LargeZone is the number of nodes above which a zone is large; default 50.
	LargeZone int
	// LostFraction is what part of a zone is much; default 0.55.
	LostFraction float64
}

func (c *Config) setDefaults() {
	if c.Grace <= 0 {
		c.Grace = 50 * time.Second
	}
	if c.StartupGrace <= 0 {
		c.StartupGrace = 60 * time.Second
	}
	if c.Period <= 0 {
		c.Period = min(5*time.Second, c.Grace/4)
	}
	if c.EvictionRate <= 0 {
		c.EvictionRate = 0.1
	}
	if c.SecondaryRate <= 0 {
		c.SecondaryRate = 0.01
	}
	if c.LargeZone <= 0 {
		c.LargeZone = 50
	}
	if c.LostFraction <= 0 {
		c.LostFraction = 0.55
	}
}

// Controller reconciles nodes. Make it with New.
type Controller struct {
	env    reconcile.Env
	cfg    Config
	nodes  cache.SharedIndexInformer
	leases cache.SharedIndexInformer
	pods   cache.SharedIndexInformer
	loop   *reconcile.Loop

	mu      sync.Mutex
	limiter limiter // guarded by mu
	// held is until when nobody is evicted, after all nodes were lost; guarded
	// by mu.
	held time.Time
}

// New registers the controller's informers.
func New(env reconcile.Env, cfg Config) *Controller {
	env = env.Defaulted()
	cfg.setDefaults()
	c := &Controller{
		env: env, cfg: cfg,
		nodes:   env.Informers.Core().V1().Nodes().Informer(),
		leases:  env.Informers.Coordination().V1().Leases().Informer(),
		pods:    env.Informers.Core().V1().Pods().Informer(),
		limiter: limiter{next: map[string]time.Time{}},
	}
	podset.AddNodeIndex(c.pods)
	c.loop = env.Loop("nodelifecycle", c.reconcile)
	c.loop.Handle(c.nodes, cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) { c.changed(nil, obj) },
		UpdateFunc: func(old, obj any) {
			was, _ := old.(*corev1.Node)
			c.changed(was, obj)
		},
	})
	return c
}

// changed queues a node, and when its readiness changed also all that are not
// ready: what may happen to them depends on how many there are.
func (c *Controller) changed(was *corev1.Node, obj any) {
	node, ok := obj.(*corev1.Node)
	if !ok {
		return
	}
	c.loop.Add(reconcile.KeyOf(node))
	if was == nil || lost(was) == lost(node) {
		return
	}
	for _, n := range c.all() {
		if lost(n) != "" {
			c.loop.Add(reconcile.KeyOf(n))
		}
	}
}

// all returns the cached nodes.
func (c *Controller) all() []*corev1.Node {
	objs := c.nodes.GetStore().List()
	out := make([]*corev1.Node, 0, len(objs))
	for _, obj := range objs {
		if n, ok := obj.(*corev1.Node); ok {
			out = append(out, n)
		}
	}
	return sortedNodes(out)
}

// Run blocks until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { c.monitor(ctx) })
	return c.loop.Run(ctx)
}

// reconcile brings one node's taints in line with its conditions.
func (c *Controller) reconcile(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	node := reconcile.Cached[*corev1.Node](c.nodes, req.Key)
	if node == nil || node.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	if lost(node) != "" {
		if err := c.unreadyPods(ctx, node); err != nil {
			return reconcile.Result{}, err
		}
	}
	evict, wait := c.mayEvict(node)
	want, changed := taints(node, evict, c.env.Clock.Now())
	if changed {
		if err := c.writeTaints(ctx, req, node, want); err != nil {
			return reconcile.Result{}, err
		}
	}
	return reconcile.Result{RequeueAfter: wait}, nil
}

// mayEvict reports whether node, if it is not ready, may lose its pods now,
// and otherwise when to ask again.
func (c *Controller) mayEvict(node *corev1.Node) (bool, time.Duration) {
	if lost(node) == "" {
		return false, 0
	}
	nodes := c.all()
	states := zones(nodes, c.cfg.LostFraction)
	now := c.env.Clock.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if allFull(states) {
		// When the first node is back, the others get the time to follow it.
		c.held = now.Add(c.cfg.Grace)
		return false, retryStopped
	}
	if wait := c.held.Sub(now); wait > 0 {
		return evicting(node), wait
	}
	if evicting(node) {
		return true, 0
	}
	zone, size := zoneOf(node), 0
	for _, n := range nodes {
		if zoneOf(n) == zone {
			size++
		}
	}
	return c.limiter.admit(zone, rate(c.cfg, states[zone], size), now)
}

func (c *Controller) writeTaints(ctx context.Context, req *reconcile.Request, node *corev1.Node, want []corev1.Taint) error {
	if want == nil {
		want = []corev1.Taint{}
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": node.UID, "resourceVersion": node.ResourceVersion},
		"spec":     map[string]any{"taints": want},
	})
	if err != nil {
		return err
	}
	got, err := c.env.Client.CoreV1().Nodes().Patch(ctx, node.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("taint node %s: %w", node.Name, err)
	}
	req.Wrote(c.nodes, got)
	return nil
}

// unreadyPods marks the pods of a lost node as not ready, so that Services
// stop sending to them.
func (c *Controller) unreadyPods(ctx context.Context, node *corev1.Node) error {
	var errs []error
	for _, pod := range reconcile.Indexed[*corev1.Pod](c.pods, podset.ByNode, node.Name) {
		if !podset.Ready(pod) {
			continue
		}
		now := metav1.Time{Time: c.env.Clock.Now()}
		patch, err := json.Marshal(map[string]any{
			"metadata": map[string]any{"uid": pod.UID},
			"status": map[string]any{"conditions": []map[string]any{{
				"type": corev1.PodReady, "status": corev1.ConditionFalse, "lastTransitionTime": now,
			}}},
		})
		if err != nil {
			return err
		}
		_, err = c.env.Client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			errs = append(errs, fmt.Errorf("mark pod %s/%s not ready: %w", pod.Namespace, pod.Name, err))
		}
	}
	return errors.Join(errs...)
}

// renewTime is when the cached lease of a node says it was renewed.
func (c *Controller) renewTime(node string) time.Time {
	return renewed(reconcile.Cached[*coordinationv1.Lease](c.leases, reconcile.Key{Namespace: corev1.NamespaceNodeLease, Name: node}))
}

func renewed(l *coordinationv1.Lease) time.Time {
	if l == nil || l.Spec.RenewTime == nil {
		return time.Time{}
	}
	return l.Spec.RenewTime.Time
}
