package kubelet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"

	"coracle/pkg/kubelet/cri"
	"coracle/pkg/kubelet/eviction"
)

// Config says what node this is and what the agent works with.
type Config struct {
	NodeName string   // required
	NodeIPs  []string // the node's addresses, the primary one first; required

	// Client speaks to the API server as this node. Required.
	Client kubernetes.Interface
	// Informers gives the Services for environment variables. The agent
	// registers its informer in New; the owner starts the factory. If nil the
	// agent makes and runs a factory of its own.
	Informers informers.SharedInformerFactory

	// Runtime is the container runtime. If nil, RuntimeEndpoint is dialled.
	Runtime         cri.Runtime
	RuntimeEndpoint string

	RootDir       string // the agent's folder; default /var/lib/kubelet
	LogDir        string // the pods' logs; default /var/log/pods
	ClusterDNS    []string
	ClusterDomain string // default cluster.local
	// ResolvConf and HostsFile are the node's own; default in /etc.
	ResolvConf, HostsFile string

	// CgroupRoot is the folder, relative to the root of each cgroup hierarchy
	// and beginning with "/", below which pods get their groups. NoCgroups
	// leaves cgroups to the runtime.
	CgroupRoot string
	NoCgroups  bool

	// Capacity overrides what is measured, for simulated and shared machines.
	Capacity corev1.ResourceList
	// Reserved is held back from the pods.
	Reserved corev1.ResourceList
	// Labels and Taints are given to the Node when it is registered.
	Labels map[string]string
	Taints []corev1.Taint
	// MaxPods bounds the pods of the node, 110 if 0.
	MaxPods int
	// Closed says that the node has no way out of its cluster: an image loaded
	// into it serves when its registry cannot be reached.
	Closed bool
	// MaxParallelPulls bounds image pulls under way, 8 if 0.
	MaxParallelPulls int

	// Server is the HTTPS server for logs, exec and the like; nil serves none.
	Server *ServerConfig

	// Events records Events. If nil the agent makes its own recorder.
	Events record.EventRecorder
	// Simulated leaves out what needs the machine: mounts below RootDir, cgroups
	// and folders. For runtimes without containers.
	Simulated bool

	// Thresholds say when the node is short of resources and evicts pods; nil
	// means eviction.Default. A simulated node never evicts.
	Thresholds *eviction.Thresholds

	// RelistEvery is the interval of the repairing look at the runtime, 10 s if
	// 0. RefreshEvery is that of volume content, 60 s if 0.
	RelistEvery, RefreshEvery time.Duration
	// OfflineAfter is how long a starting agent waits for the API server before
	// it runs the pods it remembers, 10 s if 0.
	OfflineAfter time.Duration

	Clock clock.WithTicker // the real clock if nil
	Log   *slog.Logger     // nil discards
}

// ServerConfig says how the agent's HTTPS server is reached.
type ServerConfig struct {
	Listener net.Listener // used if set, else Address, ":10250" if empty
	Address  string
	TLS      *tls.Config // required; ClientCAs verify the API server's certificate
	// ClientCAs, when set, are in place of those of TLS, as they are when a
	// connection is made.
	ClientCAs func() *x509.CertPool
	// Auth decides whether a user may do verb on nodes/subresource of this node;
	// nil asks the API server.
	Auth func(ctx context.Context, user string, groups []string, verb, subresource string) error
	// Token authenticates bearer tokens; nil asks the API server.
	Token func(ctx context.Context, token string) (user string, groups []string, err error)
}

// port is where the server is reached, for the Node object.
func (c *ServerConfig) port() int32 {
	address := c.Address
	if c.Listener != nil {
		address = c.Listener.Addr().String()
	}
	if _, text, err := net.SplitHostPort(address); err == nil {
		if n, err := strconv.ParseUint(text, 10, 16); err == nil && n > 0 {
			return int32(n)
		}
	}
	return 10250
}

// complete checks the configuration and fills in the defaults.
func (c *Config) complete() error {
	switch {
	case c.NodeName == "":
		return errors.New("kubelet: NodeName is empty; name the node")
	case len(c.NodeIPs) == 0:
		return errors.New("kubelet: NodeIPs is empty; give the node's address")
	case c.Client == nil:
		return errors.New("kubelet: Client is nil; give a client of the API server")
	case c.Runtime == nil && c.RuntimeEndpoint == "":
		return errors.New("kubelet: neither Runtime nor RuntimeEndpoint is given; name the container runtime's socket")
	}
	for field, def := range map[*string]string{
		&c.RootDir: "/var/lib/kubelet", &c.LogDir: "/var/log/pods", &c.ClusterDomain: "cluster.local",
		&c.ResolvConf: "/etc/resolv.conf", &c.HostsFile: "/etc/hosts", &c.CgroupRoot: "/kubepods",
	} {
		if *field == "" {
			*field = def
		}
	}
	for field, def := range map[*time.Duration]time.Duration{
		&c.RelistEvery: 10 * time.Second, &c.RefreshEvery: time.Minute, &c.OfflineAfter: 10 * time.Second,
	} {
		if *field == 0 {
			*field = def
		}
	}
	if c.Thresholds == nil {
		t := eviction.Default()
		c.Thresholds = &t
	}
	if c.MaxPods == 0 {
		c.MaxPods = 110
	}
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.RootDir = filepath.Clean(c.RootDir)
	return nil
}
