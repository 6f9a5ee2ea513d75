package nodelifecycle

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/reconcile"
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
	m := watchman{Controller: c, pulses: map[string]pulse{}, refused: map[string]time.Time{}, vigil: vigil{limit: max(renewal+c.cfg.Period, c.cfg.Grace/2)}}
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
	vigil  vigil
	// refused are the nodes that the server would not let be marked, and when that
	// is tried again.
	refused map[string]time.Time
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
	if m.vigil.hear(m.listen(nodes, now), now) {
		m.reset(now)
	}
	for _, n := range nodes {
		if !stale(n, m.pulses[n.Name], m.cfg.Grace, m.cfg.StartupGrace, now) || unknown(n, now) == nil {
			continue
		}
		if now.Before(m.refused[n.Name]) {
			continue
		}
		var err error
		switch m.vigil.ask(now) {
		case moreTime:
			return
		case takesAny:
			err = m.prove(ctx, n)
		default:
			err = m.mark(ctx, n.Name)
		}
		if err != nil {
			if ctx.Err() == nil {
				m.env.Log.Warn("API server is slow or away: all nodes get their grace again", "node", n.Name, "err", err)
			}
			m.vigil.proved = time.Time{}
			m.reset(m.env.Clock.Now())
			return
		}
	}
}

// listen takes the pulses of the nodes and forgets those of others. It reports
// whether a sign of life changed.
func (m *watchman) listen(nodes []*corev1.Node, now time.Time) (heard bool) {
	seen := make(map[string]bool, len(nodes))
	for _, n := range nodes {
		seen[n.Name] = true
		was := m.pulses[n.Name]
		p := was.beat(signOf(n, m.renewTime(n.Name)), now)
		heard = heard || p.sign != was.sign
		m.pulses[n.Name] = p
	}
	for name := range m.pulses {
		if !seen[name] {
			delete(m.pulses, name)
			delete(m.refused, name)
		}
	}
	return heard
}

// prove finds out whether the store takes writes while no node is heard.
func (m *watchman) prove(ctx context.Context, n *corev1.Node) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if err := m.announce(ctx, n, "NodesSilent", "No node has given a sign of life for a while, "+n.Name+" among them"); err != nil {
		return fmt.Errorf("the server does not take writes: %w", err)
	}
	m.vigil.proved = m.env.Clock.Now()
	return nil
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
	if err := m.announce(ctx, node, "NodeNotReady", "Node "+name+" status is now: NodeNotReady"); err != nil && !refusal(err) {
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
	if refusal(err) {
		m.refused[name] = now.Add(refusedAgain)
		m.env.Log.Warn("a silent node cannot be marked: the server refuses it", "node", name, "err", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("mark node unknown: %w", err)
	}
	m.env.Log.Info("node is silent", "node", name)
	return nil
}

// refusedAgain is how soon a node is marked again of which the server refused it.
const refusedAgain = time.Minute

// refusal reports whether err is the answer of a server that works, such as that
// of a webhook or a quota: it says nothing about other nodes.
func refusal(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err)
}

// announce writes an event about a silent node.
func (m *watchman) announce(ctx context.Context, node *corev1.Node, reason, message string) error {
	now := metav1.Time{Time: m.env.Clock.Now()}
	_, err := m.env.Client.CoreV1().Events(metav1.NamespaceDefault).Create(ctx, &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Name: reconcile.EventName(node.Name, now.UnixNano()), Namespace: metav1.NamespaceDefault},
		InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID},
		Type:           corev1.EventTypeNormal, Reason: reason, Message: message,
		Source: corev1.EventSource{Component: "node-controller"}, ReportingController: "node-controller",
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}, metav1.CreateOptions{})
	return err
}
