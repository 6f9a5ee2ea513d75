package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Start brings a stopped cluster back from its folder and returns when its
// nodes are ready. What runs already is left alone.
func (m *Machine) Start(ctx context.Context, name string) error {
	b, unlock, err := m.open(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	if err := checkMachine(b.s.Programs, len(b.s.Nodes)); err != nil {
		return err
	}
	begin := time.Now()
	fmt.Fprintf(m.out(), "Starting cluster %s\n", name)
	steps := append(b.steps(), b.kubeconfigStep())
	if err := b.runner().run(ctx, steps); err != nil {
		return fmt.Errorf("cluster %s was not started: %w", name, err)
	}
	fmt.Fprintf(m.out(), "Cluster %s is ready after %s: %s, API server %s\n", name, seconds(time.Since(begin)), b.s.countNodes(), b.s.endpoint())
	return nil
}

// Stop shuts a cluster's nodes and its control plane down in order and takes
// its network away. Its folder keeps everything that Start needs. Stopping a
// stopped cluster does nothing.
func (m *Machine) Stop(ctx context.Context, name string) error {
	b, unlock, err := m.open(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	begin := time.Now()
	fmt.Fprintf(m.out(), "Stopping cluster %s\n", name)
	err = errors.Join(
		endSimulated(ctx, b.f),
		b.eachNode(func(i int) error { return shutDown(ctx, b.f, b.s, i) }))
	err = errors.Join(err,
		removeClusterCgroups(ctx, name),
		endControlPlane(ctx, b.f, controlPlaneGrace),
		b.disconnect(ctx))
	if err != nil {
		return fmt.Errorf("cluster %s was not stopped completely: %w", name, err)
	}
	fmt.Fprintf(m.out(), "Cluster %s is stopped after %s; \"ctl cluster start %[1]s\" brings it back\n", name, seconds(time.Since(begin)))
	return nil
}

// open loads and locks a complete cluster for a change by root.
func (m *Machine) open(ctx context.Context, name string) (*boot, func(), error) {
	if os.Geteuid() != 0 {
		return nil, nil, ErrNotRoot
	}
	f := m.folder(name)
	if _, err := f.load(); err != nil {
		return nil, nil, err
	}
	unlock, err := lockCluster(ctx, f, name)
	if err != nil {
		return nil, nil, err
	}
	// Read again: the one who held the lock may have changed it.
	s, err := f.load()
	if err == nil && !s.Complete {
		err = fmt.Errorf("cluster %s was left half-made: remove it with \"ctl cluster delete %[1]s\"", name)
	}
	if err != nil {
		unlock()
		return nil, nil, err
	}
	return &boot{m: m, f: f, s: s, keep: true}, unlock, nil
}

// openNode is open with the index of one node.
func (m *Machine) openNode(ctx context.Context, cluster, node string) (*boot, int, func(), error) {
	b, unlock, err := m.open(ctx, cluster)
	if err != nil {
		return nil, 0, nil, err
	}
	if _, err := b.s.node(node); err != nil {
		unlock()
		return nil, 0, nil, err
	}
	i := slices.IndexFunc(b.s.Nodes, func(n NodeSpec) bool { return n.Name == node })
	return b, i, unlock, nil
}

// shutDown stops a node in order: kubelet, containerd, then the rest.
func shutDown(ctx context.Context, f folder, s *Spec, index int) error {
	p, err := readProcess(f.nodePID(s.Nodes[index].Name))
	if err != nil {
		return err
	}
	if _, err := p.signalAndWait(ctx, unix.SIGTERM, powerOffGrace); err != nil {
		return fmt.Errorf("stop node %s: %w", s.Nodes[index].Name, err)
	}
	return powerOff(ctx, f, s, index)
}

// NodeStop shuts one node down in order.
func (m *Machine) NodeStop(ctx context.Context, cluster, node string) error {
	b, i, unlock, err := m.openNode(ctx, cluster, node)
	if err != nil {
		return err
	}
	defer unlock()
	return shutDown(ctx, b.f, b.s, i)
}

// NodeKill pulls one node's plug: every process of it ends at once.
func (m *Machine) NodeKill(ctx context.Context, cluster, node string) error {
	b, i, unlock, err := m.openNode(ctx, cluster, node)
	if err != nil {
		return err
	}
	defer unlock()
	return powerOff(ctx, b.f, b.s, i)
}

// NodeStart powers a node on. It does not wait until the node is ready.
func (m *Machine) NodeStart(ctx context.Context, cluster, node string) error {
	b, i, unlock, err := m.openNode(ctx, cluster, node)
	if err != nil {
		return err
	}
	defer unlock()
	if there, err := exists(b.f.bridgeFile()); err != nil || !there {
		return errors.Join(err, fmt.Errorf("cluster %s is stopped: start it with \"ctl cluster start %[1]s\"", cluster))
	}
	list, err := hostHierarchies()
	if err != nil {
		return err
	}
	ca, err := loadCA(b.f, b.s, time.Now())
	if err != nil {
		return err
	}
	if err := issueNode(b.f, b.s, ca, i, time.Now()); err != nil {
		return err
	}
	return startNode(ctx, b.f, b.s, i, list)
}

// NodePartition cuts a node off from the host and from all other nodes. What
// runs on it goes on.
func (m *Machine) NodePartition(ctx context.Context, cluster, node string) error {
	return m.switchPort(ctx, cluster, node, false)
}

// NodeHeal ends a partition.
func (m *Machine) NodeHeal(ctx context.Context, cluster, node string) error {
	return m.switchPort(ctx, cluster, node, true)
}

func (m *Machine) switchPort(ctx context.Context, cluster, node string, up bool) error {
	b, i, unlock, err := m.openNode(ctx, cluster, node)
	if err != nil {
		return err
	}
	defer unlock()
	p, err := readProcess(b.f.nodePID(node))
	if err != nil {
		return err
	}
	if !p.alive() {
		return fmt.Errorf("node %s is not running: start it with \"ctl cluster node start %s %[1]s\"", node, cluster)
	}
	return setPort(b.f, i, up)
}

// NodeInfo is what this machine knows of one node.
type NodeInfo struct {
	Name    string
	Address string
	// Running says that the node's init lives.
	Running bool
	// PID is the init's process on this machine while it runs.
	PID int
	// Connected is false for a node that is off or partitioned.
	Connected bool
}

// Nodes lists a cluster's nodes.
func (m *Machine) Nodes(cluster string) ([]NodeInfo, error) {
	f := m.folder(cluster)
	s, err := f.load()
	if err != nil {
		return nil, err
	}
	out := make([]NodeInfo, 0, len(s.Nodes))
	for i, n := range s.Nodes {
		info := NodeInfo{Name: n.Name, Address: n.Address.String()}
		if p, err := readProcess(f.nodePID(n.Name)); err == nil && p.alive() {
			info.Running, info.PID = true, p.PID
			info.Connected = portIsUp(f, i)
		}
		out = append(out, info)
	}
	return out, nil
}

// Info is what this machine knows of one cluster.
type Info struct {
	Name    string
	Created time.Time
	// State is running, stopped, partial (some parts run) or broken (it can
	// only be deleted).
	State string
	// Nodes is how many there are, Running how many are on.
	Nodes, Running int
	Endpoint       string
}

// List describes all clusters of this machine, by name.
func (m *Machine) List() ([]Info, error) {
	entries, err := os.ReadDir(m.root())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list clusters: %w", err)
	}
	var out []Info
	for _, e := range entries {
		if e.IsDir() && checkName(e.Name()) == nil {
			out = append(out, m.info(e.Name()))
		}
	}
	slices.SortFunc(out, func(a, b Info) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func (m *Machine) info(name string) Info {
	f := m.folder(name)
	s, err := f.load()
	if err != nil || !s.Complete {
		return Info{Name: name, State: "broken"}
	}
	info := Info{Name: name, Created: s.Created, Nodes: len(s.Nodes), Endpoint: s.endpoint()}
	for _, n := range s.Nodes {
		if p, err := readProcess(f.nodePID(n.Name)); err == nil && p.alive() {
			info.Running++
		}
	}
	info.Nodes += s.SimulatedNodes
	if p, err := readProcess(f.simulatedPID()); err == nil && p.alive() {
		info.Running += s.SimulatedNodes
	}
	p, err := readProcess(f.apiserverPID())
	control := err == nil && p.alive()
	switch {
	case control && info.Running == info.Nodes:
		info.State = "running"
	case control || info.Running > 0:
		info.State = "partial"
	default:
		info.State = "stopped"
	}
	return info
}
