// Package nodeipam gives every node a range of the cluster's pod addresses, in
// spec.podCIDR. A node that has one keeps it; two nodes never share one.
package nodeipam

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/reconcile"
)

// Config says what is handed out.
type Config struct {
	// Cluster is the range of all pods.
	Cluster netip.Prefix
	// NodeBits is the prefix length of a node's range; default 24 for IPv4 and
	// 64 for IPv6.
	NodeBits int
}

// Controller reconciles nodes. Make it with New.
type Controller struct {
	env   reconcile.Env
	nodes cache.SharedIndexInformer
	loop  *reconcile.Loop

	mu     sync.Mutex
	ranges *ranges                          // guarded by mu
	held   map[types.UID]netip.Prefix       // guarded by mu; by node
	byName map[string]map[types.UID]nothing // guarded by mu; UIDs that a name had
}

type nothing = struct{}

// New registers the controller's informers.
func New(env reconcile.Env, cfg Config) (*Controller, error) {
	env = env.Defaulted()
	if cfg.NodeBits == 0 {
		cfg.NodeBits = 24
		if cfg.Cluster.Addr().Is6() {
			cfg.NodeBits = 64
		}
	}
	r, err := newRanges(cfg.Cluster, cfg.NodeBits)
	if err != nil {
		return nil, err
	}
	c := &Controller{
		env: env, nodes: env.Informers.Core().V1().Nodes().Informer(), ranges: r,
		held: map[types.UID]netip.Prefix{}, byName: map[string]map[types.UID]nothing{},
	}
	// Before the first reconcile all existing ranges are known: the loop starts
	// only when the handlers have seen the whole first list.
	c.loop = reconcile.New(reconcile.Config{Name: "nodeipam", Reconcile: c.reconcile, Clock: env.Clock, Log: env.Log})
	reconcile.Watch(c.loop, c.nodes, func(n *corev1.Node) []reconcile.Key {
		c.learn(n)
		return reconcile.Self(n)
	})
	return c, nil
}

// Run blocks until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// learn takes in the range that n has.
func (c *Controller) learn(n *corev1.Node) {
	if n.Spec.PodCIDR == "" {
		return
	}
	p, err := netip.ParsePrefix(n.Spec.PodCIDR)
	if err != nil {
		c.env.Log.Warn("node has a pod range that is not one", "node", n.Name, "podCIDR", n.Spec.PodCIDR)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if had, ok := c.held[n.UID]; ok && had != p {
		c.ranges.release(had)
	}
	c.ranges.occupy(p)
	c.hold(n, p)
}

// hold remembers a node's range. The caller holds mu.
func (c *Controller) hold(n *corev1.Node, p netip.Prefix) {
	c.held[n.UID] = p
	if c.byName[n.Name] == nil {
		c.byName[n.Name] = map[types.UID]nothing{}
	}
	c.byName[n.Name][n.UID] = nothing{}
}

// forget frees the ranges of nodes that had this name, but for the one with
// the given UID.
func (c *Controller) forget(name string, but types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for uid := range c.byName[name] {
		if uid == but {
			continue
		}
		c.ranges.release(c.held[uid])
		delete(c.held, uid)
		delete(c.byName[name], uid)
	}
	if len(c.byName[name]) == 0 {
		delete(c.byName, name)
	}
}

// errFull means that no range is left.
var errFull = errors.New("no node range is left: delete nodes that are gone or make a cluster with a larger pod range")

func (c *Controller) reconcile(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	node := reconcile.Cached[*corev1.Node](c.nodes, req.Key)
	if node == nil {
		c.forget(req.Name, "")
		return reconcile.Result{}, nil
	}
	c.forget(req.Name, node.UID)
	if node.Spec.PodCIDR != "" || node.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	p, err := c.take(node)
	if err != nil {
		c.env.Events.Eventf(node, corev1.EventTypeWarning, "CIDRNotAvailable", "%v", err)
		return reconcile.Result{}, err
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": node.UID},
		"spec":     map[string]any{"podCIDR": p.String(), "podCIDRs": []string{p.String()}},
	})
	if err != nil {
		return reconcile.Result{}, err
	}
	got, err := c.env.Client.CoreV1().Nodes().Patch(ctx, node.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return reconcile.Result{}, nil // the event of its end frees the range
	case err != nil:
		// The range stays the node's: the write may have happened.
		if !reconcile.Transient(err) {
			c.env.Events.Eventf(node, corev1.EventTypeNormal, "CIDRAssignmentFailed", "Node %s status is now: CIDRAssignmentFailed: %v", node.Name, err)
		}
		return reconcile.Result{}, fmt.Errorf("give node %s the range %s: %w", node.Name, p, err)
	}
	req.Wrote(c.nodes, got)
	return reconcile.Result{}, nil
}

// take returns the range that n was given before, or a new one.
func (c *Controller) take(n *corev1.Node) (netip.Prefix, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p, ok := c.held[n.UID]; ok {
		return p, nil
	}
	p, ok := c.ranges.allocate()
	if !ok {
		return netip.Prefix{}, errFull
	}
	c.hold(n, p)
	return p, nil
}
