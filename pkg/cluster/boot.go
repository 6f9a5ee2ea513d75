package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// boot brings one cluster up; its steps serve both the first start and later
// ones.
type boot struct {
	m *Machine
	f folder
	s *Spec
	// keep says that the folder outlives a failure, so logs stay where they are.
	keep bool

	hierarchies []hierarchy
	// started holds the nodes that this boot powered on and when, by index,
	// guarded by mu.
	mu      sync.Mutex
	started map[int]time.Time
	// simulatedSince is when this boot started the simulated nodes.
	simulatedSince time.Time
}

func (b *boot) runner() *stepRunner {
	r := &stepRunner{out: b.m.out(), now: time.Now}
	if b.keep {
		r.failed = func() string { return string(b.f) }
	} else {
		r.failed = func() string { return keepLogs(b.f, b.s) }
	}
	return r
}

// steps are ordered so that what takes long begins early: the API server and
// the nodes' containerds come up side by side, and images are loaded while
// the API server starts.
func (b *boot) steps() []step {
	nodes := countNodes(len(b.s.Nodes))
	steps := []step{
		{name: "Issue certificates", do: b.issue},
		{name: "Connect the network", done: b.connected, do: b.connect, undo: b.disconnect},
		{name: "Start the control plane", done: b.controlPlaneRuns, do: b.startControlPlane, undo: b.stopControlPlane},
	}
	if len(b.s.Nodes) > 0 {
		steps = append(steps,
			step{name: "Start " + nodes, done: b.nodesRun, do: b.startNodes, undo: b.stopStarted},
			step{name: "Load images", do: b.loadImages})
	}
	steps = append(steps, step{name: "Wait for the API server", do: b.awaitAPI})
	if len(b.s.Nodes) > 0 {
		steps = append(steps, step{name: "Wait for " + nodes + " to be ready", do: b.awaitNodes})
	}
	if b.s.SimulatedNodes > 0 {
		simulated := fmt.Sprintf("%d simulated", b.s.SimulatedNodes)
		steps = append(steps,
			step{name: "Start " + simulated, done: b.simulatedRun, do: b.startSimulated, undo: func(ctx context.Context) error { return endSimulated(ctx, b.f) }},
			step{name: "Wait for " + simulated + " to be ready", do: b.awaitSimulated})
	}
	return steps
}

// countNodes says how many nodes a cluster has.
func (s *Spec) countNodes() string {
	switch {
	case s.SimulatedNodes == 0:
		return countNodes(len(s.Nodes))
	case len(s.Nodes) == 0:
		return fmt.Sprintf("%d simulated nodes", s.SimulatedNodes)
	}
	return fmt.Sprintf("%s and %d simulated ones", countNodes(len(s.Nodes)), s.SimulatedNodes)
}

func countNodes(n int) string {
	if n == 1 {
		return "1 node"
	}
	return fmt.Sprintf("%d nodes", n)
}

func (b *boot) issue(context.Context) error {
	now := time.Now()
	ca, err := loadCA(b.f, b.s, now)
	if err != nil {
		return err
	}
	return b.eachNode(func(i int) error { return issueNode(b.f, b.s, ca, i, now) })
}

// connected reports whether every part of the network is there. A part may be
// missing after a crash; making them all again is safe.
func (b *boot) connected(ctx context.Context) (bool, error) {
	parts, err := networkOf(ctx, b.f, b.s.Name)
	if err != nil {
		return false, err
	}
	mounts, err := mountsBelow(b.f.bridgeFile())
	return len(parts) == 2 && len(mounts) == 1, err
}

func (b *boot) connect(ctx context.Context) error {
	if err := connectHost(b.f, b.s); err != nil {
		return err
	}
	return applyHostRules(ctx, b.f, b.s)
}

func (b *boot) disconnect(ctx context.Context) error {
	return errors.Join(
		removeHostRules(ctx, b.s.Name),
		b.m.giveBackForwarding(b.f, b.s.Name),
		disconnectHost(b.f),
	)
}

// giveBackForwarding restores the host's forwarding setting.
func (m *Machine) giveBackForwarding(f folder, name string) error {
	all, err := m.specs()
	if err != nil {
		return err
	}
	var others []*Spec
	for _, o := range all {
		if o.Name != name {
			others = append(others, o)
		}
	}
	return restoreForwarding(f, others, m.folder)
}

func (b *boot) nodesRun(context.Context) (bool, error) {
	for _, n := range b.s.Nodes {
		p, err := readProcess(b.f.nodePID(n.Name))
		if err != nil || !p.alive() {
			return false, err
		}
	}
	return true, nil
}

func (b *boot) startNodes(ctx context.Context) error {
	list, err := hostHierarchies()
	if err != nil {
		return err
	}
	b.hierarchies = list
	return b.eachNode(func(i int) error {
		if p, err := readProcess(b.f.nodePID(b.s.Nodes[i].Name)); err == nil && p.alive() {
			return nil
		}
		b.mu.Lock()
		if b.started == nil {
			b.started = map[int]time.Time{}
		}
		b.started[i] = time.Now()
		b.mu.Unlock()
		return startNode(ctx, b.f, b.s, i, list)
	})
}

// startTimes is when this boot powered nodes on, by name.
func (b *boot) startTimes() map[string]time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make(map[string]time.Time, len(b.started))
	for i, t := range b.started {
		out[b.s.Nodes[i].Name] = t
	}
	return out
}

func (b *boot) stopStarted(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	for i := range b.started {
		errs = append(errs, powerOff(ctx, b.f, b.s, i))
	}
	if len(b.started) == len(b.s.Nodes) {
		errs = append(errs, removeClusterCgroups(ctx, b.s.Name))
	}
	return errors.Join(errs...)
}

// eachNode runs fn for all nodes at once and returns the first error of each.
func (b *boot) eachNode(fn func(i int) error) error {
	errs := make([]error, len(b.s.Nodes))
	var wg sync.WaitGroup
	for i := range b.s.Nodes {
		wg.Go(func() { errs[i] = fn(i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// powerOff pulls a node's plug and forgets its process.
func powerOff(ctx context.Context, f folder, s *Spec, index int) error {
	file := f.nodePID(s.Nodes[index].Name)
	p, err := readProcess(file)
	if err != nil {
		return err
	}
	if err := p.kill(ctx, func() { thawCluster(s.Name) }); err != nil {
		return fmt.Errorf("power off node %s: %w", s.Nodes[index].Name, err)
	}
	if err := errors.Join(awaitEmpty(ctx, s.Name, s.Nodes[index].Name), unplug(f, index)); err != nil {
		return fmt.Errorf("power off node %s: %w", s.Nodes[index].Name, err)
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("power off node %s: %w", s.Nodes[index].Name, err)
	}
	return nil
}
