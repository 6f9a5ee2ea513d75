package probe

import (
	"context"
	"log/slog"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
)

// Manager runs the probes of all pods of the node.
type Manager struct {
	cfg      Config
	attempts []attempt

	mu      sync.Mutex
	pods    map[types.UID]*pod // guarded by mu, with all that it holds
	ctx     context.Context    // guarded by mu; of Run, nil before and after it
	workers sync.WaitGroup
}

// pod is what the manager knows of a pod. Guarded by Manager.mu.
type pod struct {
	object     *corev1.Pod
	ip         string
	containers map[string]Container
	probes     map[probeKey]*worker
}

type probeKey struct {
	container string
	kind      Kind
}

// worker is one probe with its goroutine.
type worker struct {
	pod *pod
	key probeKey
	// spec is the container that the probe belongs to.
	spec  *corev1.Container
	state state // guarded by Manager.mu
	// wake holds a token when the view may have changed.
	wake chan struct{}
	// stop ends the goroutine; nil before it is started. Guarded by Manager.mu.
	stop context.CancelFunc
}

// New makes a Manager.
func New(cfg Config) *Manager {
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.OnChange == nil {
		cfg.OnChange = func(types.UID, string) {}
	}
	if cfg.OnFailure == nil {
		cfg.OnFailure = func(*corev1.Pod, string, Kind, string) {}
	}
	return &Manager{cfg: cfg, attempts: attempts(cfg), pods: make(map[types.UID]*pod)}
}

// Run runs the probes until ctx ends, and returns when all attempts have ended.
func (m *Manager) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m.mu.Lock()
	m.ctx = ctx
	for _, p := range m.pods {
		for _, w := range p.probes {
			m.startLocked(w)
		}
	}
	m.mu.Unlock()
	<-ctx.Done()
	m.mu.Lock()
	m.ctx = nil
	m.mu.Unlock()
	m.workers.Wait()
	return nil
}

// Update tells the manager the present state of a pod. Call it whenever the
// pod, its address or the state of a container changed; repeating is harmless.
// Containers that are not listed count as not existing.
func (m *Manager) Update(object *corev1.Pod, podIP string, containers []Container) {
	now := m.cfg.Clock.Now()
	m.mu.Lock()
	p := m.pods[object.UID]
	if p == nil {
		p = &pod{probes: make(map[probeKey]*worker)}
		m.pods[object.UID] = p
	}
	p.object, p.ip = object, podIP
	p.containers = make(map[string]Container, len(containers))
	for _, c := range containers {
		p.containers[c.Name] = c
	}
	m.syncLocked(p)
	changed := make(map[string]bool)
	// Startup first: the others look at its verdict.
	for _, kind := range kinds() {
		for key, w := range p.probes {
			if key.kind == kind && w.state.look(p.view(key.container), now) {
				changed[key.container] = true
			}
		}
	}
	p.wakeAll()
	m.mu.Unlock()
	for name := range changed {
		m.cfg.OnChange(object.UID, name)
	}
}

// syncLocked makes a worker for each probe that the pod's spec has. Probes of a
// pod cannot change.
func (m *Manager) syncLocked(p *pod) {
	add := func(c *corev1.Container) {
		for _, kind := range kinds() {
			key := probeKey{c.Name, kind}
			probe := spec(c, kind)
			if probe == nil || p.probes[key] != nil {
				continue
			}
			w := &worker{pod: p, key: key, spec: c, wake: make(chan struct{}, 1)}
			w.state = state{kind: kind, timing: timingOf(probe), result: initial(kind)}
			p.probes[key] = w
			if m.ctx != nil {
				m.startLocked(w)
			}
		}
	}
	for i := range p.object.Spec.InitContainers {
		c := &p.object.Spec.InitContainers[i]
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			add(c)
		}
	}
	for i := range p.object.Spec.Containers {
		add(&p.object.Spec.Containers[i])
	}
}

// Remove ends all probes of a pod.
func (m *Manager) Remove(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.pods[uid]
	if p == nil {
		return
	}
	delete(m.pods, uid)
	for _, w := range p.probes {
		if w.stop != nil {
			w.stop()
		}
	}
}

// Result is the verdict on a container. One without a probe of that kind
// succeeds while it runs; one that the manager does not know is Unknown.
func (m *Manager) Result(uid types.UID, container string, kind Kind) Result {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.pods[uid]
	if p == nil {
		return Unknown
	}
	return p.result(container, kind)
}

func (p *pod) result(container string, kind Kind) Result {
	if w := p.probes[probeKey{container, kind}]; w != nil {
		return w.state.result
	}
	if p.containers[container].Running {
		return Success
	}
	return Unknown
}

func (p *pod) view(container string) view {
	c := p.containers[container]
	return view{
		container:   c,
		started:     c.Running && p.result(container, Startup) == Success,
		terminating: p.object.DeletionTimestamp != nil,
	}
}

func (p *pod) wakeAll() {
	for _, w := range p.probes {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}
