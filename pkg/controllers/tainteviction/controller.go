// Package tainteviction deletes pods from nodes whose NoExecute taints they do
// not tolerate, or no longer.
package tainteviction

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/controllers/podset"
	"coracle/pkg/reconcile"
)

// Controller reconciles pods. Make it with New.
type Controller struct {
	env   reconcile.Env
	nodes cache.SharedIndexInformer
	pods  cache.SharedIndexInformer
	loop  *reconcile.Loop

	mu sync.Mutex
	// seen is when a taint that carries no time was first seen, by node;
	// guarded by mu.
	seen map[types.UID]map[taintID]time.Time
}

// taintID tells the taints of a node apart.
type taintID struct {
	key    string
	effect corev1.TaintEffect
}

// New registers the controller's informers.
func New(env reconcile.Env) *Controller {
	env = env.Defaulted()
	c := &Controller{
		env:   env,
		nodes: env.Informers.Core().V1().Nodes().Informer(),
		pods:  env.Informers.Core().V1().Pods().Informer(),
		seen:  map[types.UID]map[taintID]time.Time{},
	}
	podset.AddNodeIndex(c.pods)
	c.loop = env.Loop("tainteviction", c.reconcile)
	c.loop.Handle(c.nodes, cache.ResourceEventHandlerFuncs{
		AddFunc: c.nodeChanged,
		UpdateFunc: func(old, obj any) {
			was, ok := old.(*corev1.Node)
			is, ok2 := obj.(*corev1.Node)
			if ok && ok2 && sameTaints(was.Spec.Taints, is.Spec.Taints) {
				return
			}
			c.nodeChanged(obj)
		},
		DeleteFunc: c.nodeGone,
	})
	reconcile.Watch(c.loop, c.pods, func(pod *corev1.Pod) []reconcile.Key {
		n := c.nodeOf(pod)
		if n == nil || len(n.Spec.Taints) == 0 || pod.DeletionTimestamp != nil {
			return nil
		}
		return reconcile.Self(pod)
	})
	return c
}

// Run blocks until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

func sameTaints(a, b []corev1.Taint) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !a[i].MatchTaint(&b[i]) || a[i].Value != b[i].Value {
			return false
		}
	}
	return true
}

func (c *Controller) nodeOf(pod *corev1.Pod) *corev1.Node {
	if pod.Spec.NodeName == "" {
		return nil
	}
	return reconcile.Cached[*corev1.Node](c.nodes, reconcile.Key{Name: pod.Spec.NodeName})
}

// nodeChanged notes new taints and queues the node's pods.
func (c *Controller) nodeChanged(obj any) {
	node, ok := obj.(*corev1.Node)
	if !ok {
		return
	}
	c.note(node)
	for _, pod := range reconcile.Indexed[*corev1.Pod](c.pods, podset.ByNode, node.Name) {
		c.loop.Add(reconcile.KeyOf(pod))
	}
}

func (c *Controller) nodeGone(obj any) {
	if lost, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = lost.Obj
	}
	if node, ok := obj.(*corev1.Node); ok {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.seen, node.UID)
	}
}

// note remembers since when node's taints are there.
func (c *Controller) note(node *corev1.Node) {
	now := c.env.Clock.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	have := map[taintID]time.Time{}
	for _, t := range node.Spec.Taints {
		id := taintID{t.Key, t.Effect}
		if at, ok := c.seen[node.UID][id]; ok {
			have[id] = at
		} else {
			have[id] = now
		}
	}
	c.seen[node.UID] = have
}

// since is when a taint of node appeared: as it says itself, or as seen here.
func (c *Controller) since(node *corev1.Node) func(corev1.Taint) time.Time {
	return func(t corev1.Taint) time.Time {
		if t.TimeAdded != nil {
			return t.TimeAdded.Time
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if at, ok := c.seen[node.UID][taintID{t.Key, t.Effect}]; ok {
			return at
		}
		return c.env.Clock.Now()
	}
}

func (c *Controller) reconcile(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	pod := reconcile.Cached[*corev1.Pod](c.pods, req.Key)
	if pod == nil || pod.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	node := c.nodeOf(pod)
	if node == nil {
		return reconcile.Result{}, nil
	}
	v := compute(pod, node.Spec.Taints, c.since(node), c.env.Clock.Now())
	if !v.evict {
		return reconcile.Result{RequeueAfter: v.wait}, nil
	}
	live, err := c.env.Client.CoreV1().Nodes().Get(ctx, node.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return reconcile.Result{}, nil
	}
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("confirm the taints of node %s: %w", node.Name, err)
	}
	if live.UID != node.UID || !compute(pod, live.Spec.Taints, c.since(node), c.env.Clock.Now()).evict {
		return reconcile.Result{}, reconcile.ErrStale
	}
	return reconcile.Result{}, c.evict(ctx, req, pod)
}

// evict tells pod why it goes, and deletes it.
func (c *Controller) evict(ctx context.Context, req *reconcile.Request, pod *corev1.Pod) error {
	why := podset.Disruption{Reason: "DeletionByTaintManager", Message: "Taint manager: deleting due to NoExecute taint"}
	err := podset.Evict(ctx, c.env.Client, pod, why, c.env.Clock.Now(), func() {
		c.env.Events.Eventf(pod, corev1.EventTypeNormal, "TaintManagerEviction", "Marking for deletion Pod %s/%s", pod.Namespace, pod.Name)
	})
	if err != nil {
		return err
	}
	req.Deleted(c.pods, pod)
	return nil
}
