package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// DefaultRoot is the folder that holds one folder per cluster.
const DefaultRoot = "/var/lib/coracle/clusters"

// Limits of a cluster's shape.
const (
	maxNodes = 100
	// maxSimulated leaves each node its part of the widest pod network.
	maxSimulated = 30_000
	// maxName leaves room for a node's name in a host name of 63 bytes.
	maxName = 40
	// firstHostPart is the last byte of the first node's address.
	firstHostPart = 11
)

// Errors that callers tell apart with errors.Is.
var (
	ErrNotFound = errors.New("no such cluster")
	ErrExists   = errors.New("the cluster exists")
)

var namePattern = regexp.MustCompile(`^[a-z]([-a-z0-9]*[a-z0-9])?$`)

// Spec is a cluster as it was asked for: the content of cluster.json. It is
// complete, so that the cluster can be brought back from its folder alone.
type Spec struct {
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
	// Complete is set at the end of the creation. A cluster without it was
	// interrupted and can only be deleted.
	Complete bool `json:"complete"`
	// Subnet, a /24, holds the addresses of the bridge: .1 is the host's end,
	// nodes begin at .11, load balancers at .128.
	Subnet netip.Prefix `json:"subnet"`
	// Port is the API server's, on 127.0.0.1 and on the host's end.
	Port   int  `json:"port"`
	Egress bool `json:"egress"`
	// Hardened has the API server refuse some of what Kubernetes accepts.
	Hardened bool `json:"hardened,omitempty"`
	// NodeFailure says when a lost node's pods run elsewhere; nil is the API
	// server's default.
	NodeFailure   *NodeFailure `json:"nodeFailure,omitempty"`
	ClusterDomain string       `json:"clusterDomain"`
	ServiceCIDR   netip.Prefix `json:"serviceCIDR"`
	ClusterDNS    netip.Addr   `json:"clusterDNS"`
	PodCIDR       netip.Prefix `json:"podCIDR"`
	Snapshotter   string       `json:"snapshotter"`
	Nodes         []NodeSpec   `json:"nodes"`
	// SimulatedNodes is how many nodes without containers there are besides, in
	// one process that gets SimulatedFlags.
	SimulatedNodes int      `json:"simulatedNodes,omitempty"`
	SimulatedFlags []string `json:"simulatedFlags,omitempty"`
	Programs       Programs `json:"programs"`
	// Kubeconfig is the file that the context was merged into, empty for none.
	Kubeconfig string `json:"kubeconfig,omitempty"`
}

// NodeFailure says when a node is given up and how long its pods wait then.
type NodeFailure struct {
	// Grace is how long a node may be silent.
	Grace metav1.Duration `json:"grace"`
	// NotReadySeconds and UnreachableSeconds are how long pods that say nothing
	// about it stay on a node whose agent says that it is not ready, and on one
	// that is silent.
	NotReadySeconds    int64 `json:"notReadySeconds"`
	UnreachableSeconds int64 `json:"unreachableSeconds"`
}

// DefaultNodeFailure has a dead node's pods run elsewhere within 30 s. Nodes
// renew their lease every 10 s, so that an agent may stand still for 15 s.
// Silence that long is proof enough to move pods at once; an agent that says
// that it is not ready is alive, as after a reboot, and gets a while.
func DefaultNodeFailure() NodeFailure {
	return NodeFailure{Grace: metav1.Duration{Duration: 26 * time.Second}, NotReadySeconds: 30, UnreachableSeconds: 0}
}

// NodeSpec is one node of a cluster.
type NodeSpec struct {
	Name    string     `json:"name"`
	Address netip.Addr `json:"address"`
}

// Programs are the project's programs that a cluster runs, as absolute paths
// on the host.
type Programs struct {
	// APIServer is run with APIServerArgs in front of the flags.
	APIServer     string   `json:"apiserver"`
	APIServerArgs []string `json:"apiserverArgs,omitempty"`
	// Kubelet is shown in every node and run there.
	Kubelet     string   `json:"kubelet"`
	KubeletArgs []string `json:"kubeletArgs,omitempty"`
	// Init is the command that calls NodeInit; the path of the node's
	// configuration is appended.
	Init []string `json:"init"`
}

// hostEnd is the host's address on the cluster's bridge.
func (s *Spec) hostEnd() netip.Addr { return s.Subnet.Masked().Addr().Next() }

// loadBalancers are the bridge's addresses for Services of type LoadBalancer:
// the upper half of the subnet, which the nodes' addresses do not reach.
func (s *Spec) loadBalancers() netip.Prefix {
	b := s.Subnet.Masked().Addr().As4()
	b[3] = 128
	return netip.PrefixFrom(netip.AddrFrom4(b), 25)
}

func (s *Spec) node(name string) (*NodeSpec, error) {
	for i := range s.Nodes {
		if s.Nodes[i].Name == name {
			return &s.Nodes[i], nil
		}
	}
	return nil, fmt.Errorf("cluster %s has no node %q: its nodes are %s", s.Name, name, nodeNames(s.Nodes))
}

func nodeNames(nodes []NodeSpec) string {
	out := ""
	for i, n := range nodes {
		if i > 0 {
			out += ", "
		}
		out += n.Name
	}
	return out
}

func checkName(name string) error {
	if len(name) > maxName || !namePattern.MatchString(name) {
		return fmt.Errorf("cluster name %q is not valid: use at most %d lower-case letters, digits and hyphens, beginning with a letter", name, maxName)
	}
	return nil
}

// folder is one cluster's folder. Everything about a cluster is in it.
type folder string

func folderOf(root, name string) folder {
	if root == "" {
		root = DefaultRoot
	}
	return folder(filepath.Join(root, name))
}

func (f folder) path(elem ...string) string {
	return filepath.Join(append([]string{string(f)}, elem...)...)
}

func (f folder) specFile() string           { return f.path("cluster.json") }
func (f folder) bridgeFile() string         { return f.path("bridge.netns") }
func (f folder) control(e ...string) string { return f.path(append([]string{"control"}, e...)...) }
func (f folder) adminKubeconfig() string    { return f.control("admin.kubeconfig") }
func (f folder) apiserverLog() string       { return f.path("apiserver.log") }
func (f folder) apiserverPID() string       { return f.path("apiserver.pid") }
func (f folder) simulatedLog() string       { return f.path("simulated.log") }
func (f folder) simulatedPID() string       { return f.path("simulated.pid") }
func (f folder) node(n string, e ...string) string {
	return f.path(append([]string{"nodes", n}, e...)...)
}
func (f folder) nodePID(n string) string { return f.node(n, "init.pid") }
func (f folder) nodeLog(n string) string { return f.node(n, "init.log") }

// rootfs is what the node sees as "/".
func (f folder) rootfs(n string, e ...string) string {
	return f.node(n, append([]string{"root"}, e...)...)
}

// load reads cluster.json. The error is ErrNotFound when there is no folder.
func (f folder) load() (*Spec, error) {
	data, err := os.ReadFile(f.specFile())
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(string(f)); err == nil {
			return nil, fmt.Errorf("the folder %s of cluster %s has no cluster.json: remove what is left with \"ctl cluster delete %[2]s\"", f, filepath.Base(string(f)))
		}
		return nil, fmt.Errorf("%w: %s (\"ctl cluster list\" shows those that exist)", ErrNotFound, filepath.Base(string(f)))
	}
	if err != nil {
		return nil, fmt.Errorf("read cluster: %w", err)
	}
	s := new(Spec)
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("cluster file %s is damaged (remove the cluster with \"ctl cluster delete %s\"): %w", f.specFile(), filepath.Base(string(f)), err)
	}
	return s, nil
}

func (f folder) save(s *Spec) error { return writeJSON(f.specFile(), s) }

// writeJSON replaces a file in one step, readable by root alone.
func writeJSON(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return writeFile(path, append(data, '\n'), 0o600)
}

// writeFile replaces a file in one step.
func writeFile(path string, data []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// linkName is the name of the host's link to a cluster: it follows from the
// cluster's folder, so that it is found when nothing but the name is known.
func (f folder) linkName() string {
	sum := sha256.Sum256([]byte(f))
	return "crl-" + hex.EncodeToString(sum[:4])
}

// machineID is a node's /etc/machine-id.
func (f folder) machineID(node string, created time.Time) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%d", f, node, created.UnixNano()))
	return hex.EncodeToString(sum[:16])
}
