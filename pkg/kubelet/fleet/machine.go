package fleet

import (
	"context"
	"encoding/json"
	"maps"
	"net/netip"
	"strconv"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/kubelet/node"
)

// runtimeName stands before "://" in the ids of containers.
const runtimeName = "simulated"

// machine is one simulated node.
type machine struct {
	fleet  *Fleet
	index  int
	name   string
	lease  leaseTask
	status statusTask

	// Guarded by Fleet.mu.
	uid       types.UID
	addresses addresses
	seen      *corev1.Node // what must be looked at; nil when there is nothing
	known     bool         // registered, and has a Lease
}

// config describes the node to what a real agent describes its own with.
func (m *machine) config() node.Config {
	cfg := &m.fleet.cfg
	labels := maps.Clone(cfg.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[Label] = cfg.Prefix
	if cfg.Zones > 0 {
		labels[corev1.LabelTopologyZone] = "zone-" + strconv.Itoa(m.index%cfg.Zones)
	}
	pods := cfg.Capacity[corev1.ResourcePods]
	return node.Config{
		Name: m.name, Capacity: cfg.Capacity, MaxPods: int(pods.Value()), Labels: labels, Taints: cfg.Taints,
		Version: version, Simulated: true, Clock: cfg.Clock, Log: cfg.Log,
	}
}

// version is what the nodes say they run.
const version = "v1.37.0"

// wanted is what the Node becomes of old.
func (m *machine) wanted(old *corev1.Node) *corev1.Node {
	return node.Object(m.config(), node.Health{Runtime: runtimeName + "://1"}, old)
}

// spread is when a node does what each does once in every, so that the nodes do
// it one after another.
func (m *machine) spread(every time.Duration) time.Time {
	now := m.fleet.cfg.Clock.Now()
	offset := every * time.Duration(m.index) / time.Duration(len(m.fleet.nodes))
	due := now.Truncate(every).Add(offset)
	if !due.After(now) {
		due = due.Add(every)
	}
	return due
}

// learn takes over what the API server says about the Node. Callers hold
// Fleet.mu.
func (m *machine) learn(n *corev1.Node) {
	m.uid = n.UID
	if cidr, err := netip.ParsePrefix(n.Spec.PodCIDR); err == nil {
		m.addresses.move(cidr)
	}
}

// statusTask registers the Node and keeps its status.
type statusTask struct {
	place    slot
	machine  *machine
	failures uint8
}

func (t *statusTask) slot() *slot { return &t.place }

func (t *statusTask) act(ctx context.Context) time.Time {
	m := t.machine
	m.fleet.mu.Lock()
	seen, uid := m.seen, m.uid
	m.seen = nil
	m.fleet.mu.Unlock()
	call, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	var err error
	switch {
	case uid == "":
		err = m.register(call)
	case seen != nil:
		err = m.repair(call, seen)
	default:
		err = m.report(call)
	}
	if err != nil {
		m.fleet.mu.Lock()
		if m.seen == nil && uid == m.uid {
			m.seen = seen
		}
		m.fleet.mu.Unlock()
		return m.fleet.retry(ctx, &t.failures, "keep the node's status", m.name, err)
	}
	t.failures = 0
	return m.spread(node.ReportEvery)
}

// register makes the Node, or adopts the one that is there.
func (m *machine) register(ctx context.Context) error {
	made := &corev1.Node{}
	err := m.fleet.as(m.fleet.core.Post().Resource("nodes"), m).Body(m.wanted(nil)).Do(ctx).Into(made)
	if apierrors.IsAlreadyExists(err) {
		if err = m.fleet.as(m.fleet.core.Get().Resource("nodes").Name(m.name), m).Do(ctx).Into(made); err == nil {
			err = m.repair(ctx, made)
		}
	}
	if err != nil {
		return err
	}
	m.fleet.mu.Lock()
	m.learn(made)
	m.fleet.mu.Unlock()
	m.fleet.machines.at(&m.lease, m.fleet.cfg.Clock.Now())
	return nil
}

// repair writes what differs from what the Node should be.
func (m *machine) repair(ctx context.Context, seen *corev1.Node) error {
	next := m.wanted(seen)
	if !maps.Equal(seen.Labels, next.Labels) {
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": next.Labels}})
		if err != nil {
			return err
		}
		if err := m.patch(ctx, patch); err != nil {
			return m.gone(err)
		}
	}
	if !node.Differs(seen.Status, next.Status) {
		return nil
	}
	patch, err := node.StatusPatch(seen, next)
	if err != nil {
		return err
	}
	return m.gone(m.patch(ctx, patch, "status"))
}

// report writes the heartbeat: a patch of the conditions, which merge by type.
func (m *machine) report(ctx context.Context) error {
	now := metav1.NewTime(m.fleet.cfg.Clock.Now()).UTC().Format(time.RFC3339)
	var conditions []map[string]string
	for _, c := range m.wanted(nil).Status.Conditions {
		conditions = append(conditions, map[string]string{"type": string(c.Type), "lastHeartbeatTime": now})
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": conditions}})
	if err != nil {
		return err
	}
	return m.gone(m.patch(ctx, patch, "status"))
}

func (m *machine) patch(ctx context.Context, patch []byte, subresources ...string) error {
	return m.fleet.as(m.fleet.core.Patch(types.StrategicMergePatchType).Resource("nodes").Name(m.name), m).
		SubResource(subresources...).Body(patch).Do(ctx).Error()
}

// gone has the Node registered anew when somebody has deleted it.
func (m *machine) gone(err error) error {
	if apierrors.IsNotFound(err) {
		m.fleet.mu.Lock()
		m.uid = ""
		m.fleet.mu.Unlock()
	}
	return err
}

// leaseTask renews the node's Lease.
type leaseTask struct {
	place    slot
	machine  *machine
	failures uint8
	// Of the Lease as last written: the rest of it follows from the node.
	// version is empty when it must be read first.
	uid     types.UID
	version string
}

func (t *leaseTask) slot() *slot { return &t.place }

func (t *leaseTask) act(ctx context.Context) time.Time {
	m := t.machine
	call, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	lease, err := t.renew(call)
	if err != nil {
		t.version = ""
		return m.fleet.retry(ctx, &t.failures, "renew the node's lease", m.name, err)
	}
	t.failures, t.uid, t.version = 0, lease.UID, lease.ResourceVersion
	m.fleet.hasLease(m)
	return m.spread(node.RenewEvery)
}

func (t *leaseTask) renew(ctx context.Context) (*coordinationv1.Lease, error) {
	m := t.machine
	m.fleet.mu.Lock()
	owner := m.uid
	m.fleet.mu.Unlock()
	lease := &coordinationv1.Lease{}
	if t.version == "" {
		err := m.fleet.as(m.fleet.leases.Get().Namespace(corev1.NamespaceNodeLease).Resource("leases").Name(m.name), m).Do(ctx).Into(lease)
		if apierrors.IsNotFound(err) {
			made := &coordinationv1.Lease{}
			return made, m.fleet.as(m.fleet.leases.Post().Namespace(corev1.NamespaceNodeLease).Resource("leases"), m).
				Body(node.Lease(m.name, &owner, nil, m.fleet.cfg.Clock.Now())).Do(ctx).Into(made)
		}
		if err != nil {
			return nil, err
		}
	} else {
		lease = node.Lease(m.name, &owner, nil, time.Time{})
		lease.UID, lease.ResourceVersion = t.uid, t.version
	}
	renewed := &coordinationv1.Lease{}
	return renewed, m.fleet.as(m.fleet.leases.Put().Namespace(corev1.NamespaceNodeLease).Resource("leases").Name(m.name), m).
		Body(node.Lease(m.name, &owner, lease, m.fleet.cfg.Clock.Now())).Do(ctx).Into(renewed)
}

// hasLease counts the nodes that are complete.
func (f *Fleet) hasLease(m *machine) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m.known {
		return
	}
	m.known = true
	if f.missing--; f.missing == 0 {
		close(f.registered)
		f.cfg.Log.Info("simulated nodes are registered", "nodes", len(f.nodes), "prefix", f.cfg.Prefix)
	}
}

// seeNode takes an event about a Node. What the fleet has written itself needs
// nothing.
func (f *Fleet) seeNode(n *corev1.Node) {
	m := f.byName[n.Name]
	if m == nil {
		return
	}
	next := m.wanted(n)
	wrong := node.Differs(n.Status, next.Status) || !maps.Equal(n.Labels, next.Labels)
	f.mu.Lock()
	first := m.uid == ""
	m.learn(n)
	if m.seen = nil; wrong {
		m.seen = n
	}
	f.mu.Unlock()
	if wrong {
		f.machines.at(&m.status, f.cfg.Clock.Now())
	}
	if first {
		f.machines.at(&m.lease, f.cfg.Clock.Now())
		f.machines.at(&m.status, m.spread(node.ReportEvery))
	}
}

// loseNode registers a Node again that somebody has deleted.
func (f *Fleet) loseNode(name string) {
	m := f.byName[name]
	if m == nil {
		return
	}
	f.mu.Lock()
	m.uid, m.seen = "", nil
	f.mu.Unlock()
	f.machines.at(&m.status, f.cfg.Clock.Now())
}
