package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Machine is this computer as a host of local clusters.
type Machine struct {
	// Root is the folder with one folder per cluster; empty means DefaultRoot.
	Root string
	// Out takes progress for a person to read; nil discards it.
	Out io.Writer
	// Programs that clusters run; empty fields mean the ones beside the
	// running executable.
	Programs Programs
	// Images are archives, or folders of archives (*.tar), that are loaded
	// into every node when a cluster starts. Paths that do not exist are
	// left out. The pause image is always loaded, and busybox where the
	// machine has a static one.
	Images []string
	// Kubeconfig is the file that contexts are merged into; empty means
	// $KUBECONFIG or ~/.kube/config.
	Kubeconfig string
}

// CreateOptions describe a new cluster.
type CreateOptions struct {
	// Name of the cluster and of its context.
	Name string
	// Nodes is how many; zero means 3, or none when there are simulated ones.
	Nodes int
	// SimulatedNodes is how many nodes without containers there are besides.
	// SimulatedFlags are flags of the kubelet for them.
	SimulatedNodes int
	SimulatedFlags []string
	// Port of the API server; zero means the first free one from 6443 on.
	Port int
	// Egress lets pods and nodes out of the cluster's bridge.
	Egress bool
	// Hardened has the API server refuse some of what Kubernetes accepts.
	Hardened bool
	// NodeFailure says when a lost node's pods run elsewhere; nil means
	// DefaultNodeFailure.
	NodeFailure *NodeFailure
	// NoKubeconfig leaves the user's kubeconfig alone.
	NoKubeconfig bool
	// Ensure makes an existing cluster no error: it is started when it does
	// not run.
	Ensure bool
}

func (m *Machine) out() io.Writer {
	if m.Out == nil {
		return io.Discard
	}
	return m.Out
}

func (m *Machine) root() string {
	if m.Root == "" {
		return DefaultRoot
	}
	return m.Root
}

func (m *Machine) folder(name string) folder { return folderOf(m.root(), name) }

// programs fills in the defaults.
func (m *Machine) programs() (Programs, error) {
	p := m.Programs
	exe, err := os.Executable()
	if err != nil {
		return p, fmt.Errorf("find this program's own file: %w", err)
	}
	if exe, err = filepath.EvalSymlinks(exe); err != nil {
		return p, fmt.Errorf("find this program's own file: %w", err)
	}
	if p.APIServer == "" {
		p.APIServer = filepath.Join(filepath.Dir(exe), "apiserver")
	}
	if p.Kubelet == "" {
		p.Kubelet = filepath.Join(filepath.Dir(exe), "kubelet")
	}
	if len(p.Init) == 0 {
		p.Init = []string{exe, "node-init", "--config"}
	}
	return p, nil
}

// Create makes a cluster and returns when its nodes are ready. On failure
// everything is taken back. The error is ErrExists when there is one of that
// name.
func (m *Machine) Create(ctx context.Context, opts CreateOptions) error {
	begin := time.Now()
	if err := checkName(opts.Name); err != nil {
		return err
	}
	if err := opts.completeNodes(); err != nil {
		return err
	}
	programs, err := m.programs()
	if err != nil {
		return err
	}
	if err := checkMachine(programs, opts.Nodes); err != nil {
		return err
	}
	f := m.folder(opts.Name)
	s, err := f.load()
	switch {
	case err == nil && opts.Ensure && s.Complete:
		return m.Start(ctx, opts.Name)
	case err == nil && s.Complete:
		return fmt.Errorf("%w: %s; start it with \"ctl cluster start %[2]s\", or delete it first with \"ctl cluster delete %[2]s\"", ErrExists, opts.Name)
	case !errors.Is(err, ErrNotFound):
		return fmt.Errorf("cluster %s was left half-made or half-deleted: remove what is left with \"ctl cluster delete %[1]s\", then create it again", opts.Name)
	}
	s, unlock, err := m.reserve(ctx, opts, programs)
	if err != nil {
		return err
	}
	defer unlock()
	fmt.Fprintf(m.out(), "Creating cluster %s: %s on %s\n", s.Name, s.countNodes(), s.Subnet)
	b := &boot{m: m, f: f, s: s}
	folderStep := step{
		name: "Make the cluster's folder",
		do:   func(context.Context) error { return f.save(s) },
		undo: func(context.Context) error { return removeFolder(m.root(), f) },
	}
	complete := step{name: "Record the cluster", do: func(context.Context) error {
		s.Complete = true
		return f.save(s)
	}}
	steps := append([]step{folderStep}, b.steps()...)
	steps = append(steps, b.storageStep(), b.kubeconfigStep(), complete)
	if err := b.runner().run(ctx, steps); err != nil {
		return fmt.Errorf("cluster %s was not created: %w", s.Name, err)
	}
	_ = os.Remove(failureLog(s.Name)) // of an earlier attempt
	fmt.Fprintf(m.out(), "Cluster %s is ready after %s: %s, API server %s\n", s.Name, seconds(time.Since(begin)), s.countNodes(), s.endpoint())
	return nil
}

// reserve chooses what must differ between clusters and makes the locked
// folder that claims it.
func (m *Machine) reserve(ctx context.Context, opts CreateOptions, programs Programs) (*Spec, func(), error) {
	if err := os.MkdirAll(m.root(), 0o755); err != nil {
		return nil, nil, fmt.Errorf("make the folder of all clusters: %w", err)
	}
	unlockAll, err := lockDir(ctx, m.root())
	if err != nil {
		return nil, nil, err
	}
	defer unlockAll()
	f := m.folder(opts.Name)
	others, err := m.specs()
	if err != nil {
		return nil, nil, err
	}
	s, err := newSpec(opts, programs, others)
	if err == nil && !opts.NoKubeconfig {
		s.Kubeconfig, err = m.kubeconfigFile()
		if err == nil {
			err = checkContext(s.Kubeconfig, f, s.Name)
		}
	}
	if err != nil {
		_ = os.Remove(m.root()) // when it is empty, it was made here
		return nil, nil, err
	}
	if err := os.Mkdir(string(f), 0o755); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil, nil, fmt.Errorf("%w: %s is being created by another command", ErrExists, opts.Name)
		}
		return nil, nil, fmt.Errorf("make the cluster's folder: %w", err)
	}
	s.Snapshotter = snapshotterFor(string(f))
	unlock, err := lockCluster(ctx, f, opts.Name)
	if err == nil {
		// From here on the port and the subnet are taken.
		err = f.save(s)
	}
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(string(f)))
	}
	return s, unlock, nil
}

// newSpec completes what was asked for.
func newSpec(opts CreateOptions, programs Programs, others []*Spec) (*Spec, error) {
	port, err := choosePort(opts.Port, others)
	if err != nil {
		return nil, err
	}
	subnet, err := chooseSubnet(others)
	if err != nil {
		return nil, err
	}
	failure := DefaultNodeFailure()
	if opts.NodeFailure != nil {
		failure = *opts.NodeFailure
	}
	s := &Spec{
		Name:          opts.Name,
		Created:       time.Now().UTC(),
		Subnet:        subnet,
		Port:          port,
		Egress:        opts.Egress,
		Hardened:      opts.Hardened,
		NodeFailure:   &failure,
		ClusterDomain: "cluster.local",
		ServiceCIDR:   netip.MustParsePrefix("10.96.0.0/16"),
		ClusterDNS:    netip.MustParseAddr("10.96.0.10"),
		PodCIDR:       netip.MustParsePrefix("10.244.0.0/16"),
		Programs:      programs,

		SimulatedNodes: opts.SimulatedNodes, SimulatedFlags: opts.SimulatedFlags,
	}
	if opts.Nodes+opts.SimulatedNodes > maxNodes {
		s.PodCIDR = widePods
	}
	base := subnet.Addr().As4()
	for i := range opts.Nodes {
		base[3] = byte(firstHostPart + i)
		s.Nodes = append(s.Nodes, NodeSpec{Name: fmt.Sprintf("%s-%d", opts.Name, i+1), Address: netip.AddrFrom4(base)})
	}
	return s, nil
}

// specs reads every cluster that can be read. A damaged one claims nothing,
// for nothing of it can be started.
func (m *Machine) specs() ([]*Spec, error) {
	entries, err := os.ReadDir(m.root())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list clusters: %w", err)
	}
	var out []*Spec
	for _, e := range entries {
		if s, err := m.folder(e.Name()).load(); err == nil {
			out = append(out, s)
		}
	}
	return out, nil
}

// failureLog is where the logs of a cluster that could not be made are kept.
func failureLog(cluster string) string {
	return filepath.Join(os.TempDir(), "coracle-"+cluster+"-failed.log")
}

// maxTail is how much of each log goes into the failure log.
const maxTail = 64 << 10

// keepLogs collects the ends of all logs before the folder goes, and returns
// the file, or nothing when there is no log.
func keepLogs(f folder, s *Spec) string {
	files := []string{f.apiserverLog(), f.simulatedLog()}
	for _, n := range s.Nodes {
		files = append(files, f.nodeLog(n.Name), f.rootfs(n.Name, "var/log/containerd.log"), f.rootfs(n.Name, "var/log/kubelet.log"))
	}
	var b strings.Builder
	for _, file := range files {
		data := tail(file, maxTail)
		if data == "" {
			continue
		}
		rel, err := filepath.Rel(string(f), file)
		if err != nil {
			rel = file
		}
		fmt.Fprintf(&b, "==> %s <==\n%s\n", rel, data)
	}
	if b.Len() == 0 {
		return ""
	}
	path := failureLog(s.Name)
	if writeFile(path, []byte(b.String()), 0o600) != nil {
		return ""
	}
	return path
}

// tail returns the last max bytes of a file, from the beginning of a line on;
// nothing when it cannot be read.
func tail(file string, max int64) string {
	fd, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer fd.Close()
	st, err := fd.Stat()
	if err != nil {
		return ""
	}
	from := st.Size() - max
	if from < 0 {
		from = 0
	}
	data, err := io.ReadAll(io.NewSectionReader(fd, from, max))
	if err != nil {
		return ""
	}
	text := string(data)
	if i := strings.IndexByte(text, '\n'); from > 0 && i >= 0 {
		text = text[i+1:]
	}
	return text
}

// lastLines returns the last n lines of a log, for an error message.
func lastLines(file string, n int) string {
	lines := strings.Split(strings.TrimSpace(tail(file, 16<<10)), "\n")
	lines = lines[max(0, len(lines)-n):]
	return strings.TrimSpace(strings.Join(slices.Clip(lines), "\n"))
}
