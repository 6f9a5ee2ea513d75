package nodelifecycle

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

// promptly is how soon a healthy API server answers. Above it, nodes may be
// silent because it is slow.
const promptly = 2 * time.Second

// askTimeout ends a question that gets no answer.
const askTimeout = 10 * time.Second

// monitor looks at all nodes' signs of life until ctx ends.
func (c *Controller) monitor(ctx context.Context) {
	if !cache.WaitFor(ctx, "", c.nodes.HasSyncedChecker(), c.leases.HasSyncedChecker()) {
		return
	}
	m := watchman{Controller: c, pulses: map[string]pulse{}}
	last := c.env.Clock.Now()
	for {
		now := c.env.Clock.Now()
		if now.Sub(last) > 3*c.cfg.Period {
			// This process itself was asleep: it cannot know who was silent.
			m.reset(now)
		}
		last = now
		m.look(ctx, now)
		select {
		case <-ctx.Done():
			return
		case <-c.env.Clock.After(c.cfg.Period):
		}
	}
}

// watchman owns the pulses; one goroutine uses it.
type watchman struct {
	*Controller
	pulses map[string]pulse // by node
	// excused: the present silence of all nodes has been excused once.
	excused bool
}

// reset gives every node its full grace again.
func (m *watchman) reset(now time.Time) {
	for name, p := range m.pulses {
		p.seen = now
		m.pulses[name] = p
	}
}

// look takes all pulses and deals with nodes that are silent.
func (m *watchman) look(ctx context.Context, now time.Time) {
	nodes := m.all()
	seen := make(map[string]bool, len(nodes))
	for _, n := range nodes {
		seen[n.Name] = true
		m.pulses[n.Name] = m.pulses[n.Name].beat(signOf(n, m.renewTime(n.Name)), now)
	}
	for name := range m.pulses {
		if !seen[name] {
			delete(m.pulses, name)
		}
	}
	if m.excuse(now) {
		m.reset(now)
	}
	for _, n := range nodes {
		if !stale(n, m.pulses[n.Name], m.cfg.Grace, m.cfg.StartupGrace, now) || unknown(n, now) == nil {
			continue
		}
		if err := m.mark(ctx, n.Name); err != nil {
			if ctx.Err() == nil {
				m.env.Log.Warn("API server is slow or away: all nodes get their grace again", "node", n.Name, "err", err)
			}
			m.reset(m.env.Clock.Now())
			return
		}
	}
}

// excuse reports whether all nodes fell silent together: that is more likely
// to be a store that stood still, after which they need time to be heard
// again. It is believed once, until a node is heard. The threshold is high,
// for healthy nodes may renew their leases all at one time.
func (m *watchman) excuse(now time.Time) bool {
	silent := len(m.pulses) > 0
	for _, p := range m.pulses {
		silent = silent && now.Sub(p.seen) >= m.cfg.Grace*3/4
	}
	if !silent {
		m.excused = m.excused && !m.heard(now)
		return false
	}
	first := !m.excused
	m.excused = true
	return first
}

// heard reports whether a node's sign of life changed at now.
func (m *watchman) heard(now time.Time) bool {
	for _, p := range m.pulses {
		if p.seen.Equal(now) {
			return true
		}
	}
	return false
}

// mark asks the server about a silent node and, if that has nothing newer,
// sets its conditions to Unknown. An error means that nothing can be concluded
// about any node.
func (m *watchman) mark(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	begin := m.env.Clock.Now()
	node, err := m.env.Client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at node: %w", err)
	}
	// The node object is at least as new as the cache; the lease is read from
	// there, since this controller's role does not read leases.
	if s := signOf(node, m.renewTime(name)); s != m.pulses[name].sign {
		m.pulses[name] = m.pulses[name].beat(s, m.env.Clock.Now())
		return nil
	}
	// The event tells users, and proves that the store takes writes: while it
	// does not, no node can renew its lease.
	if err := m.announce(ctx, node); err != nil {
		return fmt.Errorf("the server does not take writes: %w", err)
	}
	now := m.env.Clock.Now()
	if took := now.Sub(begin); took > promptly {
		return fmt.Errorf("the server took %v to answer", took.Round(time.Millisecond))
	}
	conditions := unknown(node, now)
	if conditions == nil {
		return nil
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": node.UID, "resourceVersion": node.ResourceVersion},
		"status":   map[string]any{"conditions": conditions},
	})
	if err != nil {
		return err
	}
	_, err = m.env.Client.CoreV1().Nodes().Patch(ctx, name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil // it changed just now: it is alive, or gone
	}
	if err != nil {
		return fmt.Errorf("mark node unknown: %w", err)
	}
	m.env.Log.Info("node is silent", "node", name)
	return nil
}

// announce writes the event that node is silent.
func (m *watchman) announce(ctx context.Context, node *corev1.Node) error {
	now := metav1.Time{Time: m.env.Clock.Now()}
	_, err := m.env.Client.CoreV1().Events(metav1.NamespaceDefault).Create(ctx, &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Name: node.Name + "." + strconv.FormatInt(now.UnixNano(), 16), Namespace: metav1.NamespaceDefault},
		InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID},
		Type:           corev1.EventTypeNormal, Reason: "NodeNotReady", Message: "Node " + node.Name + " status is now: NodeNotReady",
		Source: corev1.EventSource{Component: "node-controller"}, ReportingController: "node-controller",
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}, metav1.CreateOptions{})
	return err
}
