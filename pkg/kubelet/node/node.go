// Package node speaks for the machine itself: it registers the Node object,
// keeps its status true, and renews its Lease.
//
// The Lease is renewed every 10 seconds and is good for 40. Renewals happen on
// multiples of 10 seconds of the wall clock, on all nodes at once, so that the
// API server's store can share one sync of its log among them. The status is
// written when it has changed, and every 5 minutes at the latest.
package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"
)

const (
	// ReportEvery is when the status is written at the latest.
	ReportEvery    = 5 * time.Minute
	checkEvery     = 5 * time.Second
	checkStarting  = 100 * time.Millisecond // until the runtime is ready for the first time
	requestTimeout = 10 * time.Second
	firstRetry     = 200 * time.Millisecond
	maxRetry       = 5 * time.Second
)

// Health is what the node can say about itself at a moment.
type Health struct {
	Err     error  // why no pods can be run; nil when they can
	Runtime string // "containerd://1.6.20", empty while unknown
	Images  []corev1.ContainerImage
	// Handlers are the runtime's, sorted by name.
	Handlers []corev1.NodeRuntimeHandler
	// pressure of resources; the messages are the node's own
	MemoryPressure, DiskPressure, PIDPressure bool
}

// Config is what a Manager needs.
type Config struct {
	Name   string
	IPs    []string
	Client kubernetes.Interface
	// Capacity overrides measured quantities; Reserved is held back from pods.
	Capacity, Reserved corev1.ResourceList
	MaxPods            int
	RootDir            string // its filesystem is the node's ephemeral storage
	Labels             map[string]string
	Annotations        map[string]string
	Taints             []corev1.Taint
	Port               int32  // of the agent's HTTPS server
	Version            string // of the agent, "v1.37.0"
	// VolumesInUse are the volumes that must not be detached from the node; not
	// known leaves what the Node says. Nil if the agent has no part in it.
	VolumesInUse func() (names []corev1.UniqueVolumeName, known bool)
	// Check tells the node's health. It must end within its context.
	Check func(ctx context.Context) Health
	// Simulated leaves out what is read from the machine.
	Simulated bool
	Clock     clock.WithTicker // the real clock if nil
	Log       *slog.Logger     // nil discards
}

// Manager keeps one Node.
type Manager struct {
	cfg      Config
	capacity corev1.ResourceList
	info     corev1.NodeSystemInfo
	poke     chan struct{}

	mu     sync.Mutex
	node   *corev1.Node // newest version seen, nil before registration; guarded by mu
	health Health       // guarded by mu
}

// New measures the machine and makes a Manager.
func New(cfg Config) *Manager {
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	m := &Manager{cfg: cfg, poke: make(chan struct{}, 1)}
	m.capacity, m.info = corev1.ResourceList{}, corev1.NodeSystemInfo{OperatingSystem: "linux"}
	if !cfg.Simulated {
		m.capacity, m.info = measure(cfg.RootDir)
	}
	m.capacity[corev1.ResourcePods] = *quantity(int64(cfg.MaxPods))
	maps.Copy(m.capacity, cfg.Capacity)
	m.info.KubeletVersion, m.info.Architecture = cfg.Version, architecture()
	return m
}

// Allocatable is what pods may request in all.
func (m *Manager) Allocatable() corev1.ResourceList {
	out := m.capacity.DeepCopy()
	for name, r := range m.cfg.Reserved {
		q := out[name]
		q.Sub(r)
		if q.Sign() < 0 {
			q = *quantity(0)
		}
		out[name] = q
	}
	return out
}

// Capacity is what the machine has.
func (m *Manager) Capacity() corev1.ResourceList { return m.capacity.DeepCopy() }

// Node returns the newest version of the Node seen, nil before registration.
// It must not be changed.
func (m *Manager) Node() *corev1.Node {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.node
}

// CheckNow has the health looked at again at once.
func (m *Manager) CheckNow() {
	select {
	case m.poke <- struct{}{}:
	default:
	}
}

// Run registers the node and keeps it until ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	m.look(ctx)
	if !m.retry(ctx, "register the node", m.register) {
		return nil
	}
	var parts sync.WaitGroup
	parts.Go(func() { m.keepLease(ctx) })
	m.keepStatus(ctx)
	parts.Wait()
	return nil
}

// retry repeats do until it succeeds, with back-off; false means ctx ended.
func (m *Manager) retry(ctx context.Context, what string, do func(context.Context) error) bool {
	for delay := firstRetry; ctx.Err() == nil; delay = min(2*delay, maxRetry) {
		err := do(ctx)
		if err == nil {
			return true
		}
		if ctx.Err() == nil {
			m.cfg.Log.Warn("the API server did not do what the node asked, will try again", "to", what, "error", err)
		}
		m.pause(ctx, delay)
	}
	return false
}

func (m *Manager) pause(ctx context.Context, d time.Duration) {
	t := m.cfg.Clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C():
	}
}

// look asks for the node's health and tells whether it may run pods.
func (m *Manager) look(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	h := m.cfg.Check(ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	if h.Runtime == "" {
		h.Runtime = m.health.Runtime // known from before, while it does not answer
	}
	if h.Err != nil && h.Images == nil {
		h.Images, h.Handlers = m.health.Images, m.health.Handlers
	}
	m.health = h
	return h.Err == nil
}

// Object is what the Node that cfg describes, in health h, becomes of old: the
// one that an agent registers when old is nil, and else old with the labels and
// the status that an agent sees to. Old is not changed.
func Object(cfg Config, h Health, old *corev1.Node) *corev1.Node {
	m := New(cfg)
	m.health = h
	return m.object(old)
}

func (m *Manager) object(old *corev1.Node) *corev1.Node {
	if old == nil {
		return &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: m.cfg.Name, Labels: m.labels(), Annotations: m.cfg.Annotations},
			Spec:       corev1.NodeSpec{Taints: m.cfg.Taints},
			Status:     m.status(nil),
		}
	}
	next := old.DeepCopy()
	next.Labels = m.labels()
	for k, v := range old.Labels {
		if _, own := next.Labels[k]; !own {
			next.Labels[k] = v
		}
	}
	next.Status = m.status(&old.Status)
	return next
}

// register makes the Node, or adopts the one that is there.
func (m *Manager) register(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	nodes := m.cfg.Client.CoreV1().Nodes()
	created, err := nodes.Create(ctx, m.object(nil), metav1.CreateOptions{})
	if err == nil {
		m.cfg.Log.Info("node registered", "node", m.cfg.Name)
		m.remember(created)
		return nil
	}
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	existing, err := nodes.Get(ctx, m.cfg.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	labels, annotations := differing(m.labels(), existing.Labels), differing(m.cfg.Annotations, existing.Annotations)
	if len(labels)+len(annotations) > 0 {
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": labels, "annotations": annotations}})
		if err != nil {
			return err
		}
		if existing, err = nodes.Patch(ctx, m.cfg.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}); err != nil {
			return fmt.Errorf("labelling and annotating the node: %w", err)
		}
	}
	m.remember(existing)
	return nil
}

// refresh reads what others made of the Node: a controller that marked it
// unreachable while it was cut off, a person who deleted it. Any cached version
// will do that is not older than what was seen already.
func (m *Manager) refresh(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	node, err := m.cfg.Client.CoreV1().Nodes().Get(ctx, m.cfg.Name, metav1.GetOptions{ResourceVersion: "0"})
	switch {
	case apierrors.IsNotFound(err):
		err = m.register(ctx)
	case err == nil && !older(node.ResourceVersion, m.Node().ResourceVersion):
		m.remember(node)
	}
	if err != nil {
		m.cfg.Log.Warn("the API server did not show the node, will try again", "error", err)
	}
}

// older tells whether version a is known to come before b.
func older(a, b string) bool {
	order, err := resourceversion.CompareResourceVersion(a, b)
	return err == nil && order < 0
}

func (m *Manager) remember(node *corev1.Node) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.node = node
}

func (m *Manager) labels() map[string]string {
	out := map[string]string{
		corev1.LabelHostname: m.cfg.Name,
		corev1.LabelOSStable: "linux", corev1.LabelArchStable: architecture(),
		"beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": architecture(),
	}
	maps.Copy(out, m.cfg.Labels)
	return out
}

func differing(want, have map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range want {
		if have[k] != v {
			out[k] = v
		}
	}
	return out
}

// keepStatus looks at the node's health and writes what changed.
func (m *Manager) keepStatus(ctx context.Context) {
	ready := false
	var written time.Time
	for ctx.Err() == nil {
		ready = m.look(ctx) || ready
		if ready {
			m.refresh(ctx)
		}
		now := m.cfg.Clock.Now()
		late := now.Sub(written) >= ReportEvery
		if late || m.stale() {
			if !m.retry(ctx, "take the node's status", m.write) {
				return
			}
			written = now
		}
		wait := checkEvery
		if !ready {
			wait = checkStarting
		}
		t := m.cfg.Clock.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-m.poke:
		case <-t.C():
		}
		t.Stop()
	}
}

// stale tells whether the status has changed in more than its heartbeat.
func (m *Manager) stale() bool {
	node := m.Node()
	return Differs(node.Status, m.status(&node.Status))
}

// Differs tells whether two statuses of a Node differ in more than the time of
// their heartbeats.
func Differs(old, next corev1.NodeStatus) bool {
	next.Conditions = slices.Clone(next.Conditions)
	for i := range next.Conditions {
		for _, c := range old.Conditions {
			if c.Type == next.Conditions[i].Type {
				next.Conditions[i].LastHeartbeatTime = c.LastHeartbeatTime
			}
		}
	}
	return !apiequality.Semantic.DeepEqual(next, old)
}

// write brings the Node's status up to date, with a patch of what changed.
func (m *Manager) write(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	nodes := m.cfg.Client.CoreV1().Nodes()
	base := m.Node()
	next := base.DeepCopy()
	next.Status = m.status(&base.Status)
	var updated *corev1.Node
	var err error
	if len(base.Status.Addresses) > 0 && !apiequality.Semantic.DeepEqual(base.Status.Addresses, next.Status.Addresses) {
		// a merging patch cannot replace addresses: they merge by type
		updated, err = m.replace(ctx)
	} else {
		var patch []byte
		if patch, err = StatusPatch(base, next); err != nil {
			return err
		}
		updated, err = nodes.Patch(ctx, m.cfg.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	}
	if apierrors.IsNotFound(err) {
		return errors.Join(err, m.register(ctx)) // deleted behind the agent's back
	}
	if err != nil {
		return err
	}
	m.remember(updated)
	return nil
}

func (m *Manager) replace(ctx context.Context) (*corev1.Node, error) {
	nodes := m.cfg.Client.CoreV1().Nodes()
	node, err := nodes.Get(ctx, m.cfg.Name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	node = node.DeepCopy()
	node.Status = m.status(&node.Status)
	return nodes.UpdateStatus(ctx, node, metav1.UpdateOptions{})
}

// StatusPatch is the strategic merge patch from the status of base to that of
// next.
func StatusPatch(base, next *corev1.Node) ([]byte, error) {
	before, err := json.Marshal(corev1.Node{Status: base.Status})
	if err != nil {
		return nil, err
	}
	after, err := json.Marshal(corev1.Node{Status: next.Status})
	if err != nil {
		return nil, err
	}
	return strategicpatch.CreateTwoWayMergePatch(before, after, corev1.Node{})
}
