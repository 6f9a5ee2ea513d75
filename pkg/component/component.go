// Package component is what a role of the control plane needs to be a process of
// its own: its connection to the API server, a lease that lets one of several
// processes work, and a secure port that tells how it does.
//
// Contract: Run follows an API server, serves health and metrics, and calls work
// while this process holds the lease. A process that has lost its lease works no
// more and is to end: Run returns reconcile.ErrLostLease after work has
// returned. Whoever asks on the port is known by a certificate or a token of the
// API server's users, and may do what the API server says; only health is told
// to everybody. Flags that mean the same have upstream's names.
package component

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"coracle/pkg/reconcile"
)

// Options are the flags that every role has.
type Options struct {
	// Name is the role's, such as kube-scheduler: of its lease, its metrics and
	// its certificate. Set before AddFlags.
	Name string
	// Kubeconfig is the connection; empty means that of a pod. Master replaces
	// the API server's address.
	Kubeconfig, Master string
	// BindAddress and SecurePort are where health and metrics are served. Port 0
	// serves nothing.
	BindAddress string
	SecurePort  int
	// CertFile and KeyFile are the serving certificate; without them one is made
	// that nobody vouches for.
	CertFile, KeyFile string
	// ClientCAFile are authorities of clients beside those that the API server
	// names.
	ClientCAFile string
	// Open are the paths that are served to everybody.
	Open []string
	// Election is about the lease.
	Election Election
}

// Election says whether a process works only while it holds a lease, and how.
type Election struct {
	Enabled                    bool
	Duration, Deadline, Period time.Duration
	Namespace, Name            string
}

// AddFlags adds the flags and sets their defaults.
func (o *Options) AddFlags(f *pflag.FlagSet, port int) {
	f.StringVar(&o.Kubeconfig, "kubeconfig", "", "file that says how the API server is reached; empty is how pods reach it")
	f.StringVar(&o.Master, "master", "", "address of the API server, in place of the kubeconfig's")
	f.StringVar(&o.BindAddress, "bind-address", "127.0.0.1", "address on which health and metrics are served")
	f.IntVar(&o.SecurePort, "secure-port", port, "port on which health and metrics are served; 0 serves none")
	f.StringVar(&o.CertFile, "tls-cert-file", "", "serving certificate; without it one is made that no authority vouches for")
	f.StringVar(&o.KeyFile, "tls-private-key-file", "", "key of --tls-cert-file")
	f.StringVar(&o.ClientCAFile, "client-ca-file", "", "authorities of client certificates, beside those that the API server names")
	f.StringSliceVar(&o.Open, "authorization-always-allow-paths", []string{"/healthz", "/readyz", "/livez"}, "paths that are served without asking who wants to know")
	e := &o.Election
	f.BoolVar(&e.Enabled, "leader-elect", true, "work only while holding the lease, so that of several processes one works")
	f.DurationVar(&e.Duration, "leader-elect-lease-duration", 15*time.Second, "how long others wait for a leader that is silent")
	f.DurationVar(&e.Deadline, "leader-elect-renew-deadline", 10*time.Second, "how long the leader tries to renew its lease before it gives up")
	f.DurationVar(&e.Period, "leader-elect-retry-period", 2*time.Second, "time between tries to get or renew the lease")
	f.StringVar(&e.Namespace, "leader-elect-resource-namespace", "kube-system", "namespace of the lease")
	f.StringVar(&e.Name, "leader-elect-resource-name", o.Name, "name of the lease")
	f.String("leader-elect-resource-lock", "leases", "accepted for compatibility; leases are the only kind")
}

// Validate finds options that exclude each other.
func (o *Options) Validate() error {
	e := o.Election
	switch {
	case (o.CertFile == "") != (o.KeyFile == ""):
		return errors.New("--tls-cert-file and --tls-private-key-file belong together: give both or neither")
	case o.SecurePort < 0 || o.SecurePort > 65535:
		return fmt.Errorf("--secure-port=%d is no port: give 0 to 65535", o.SecurePort)
	case e.Enabled && (e.Period <= 0 || e.Deadline <= e.Period+e.Period/5 || e.Duration <= e.Deadline):
		return fmt.Errorf("--leader-elect-lease-duration (%v) must be longer than --leader-elect-renew-deadline (%v), and that longer than 1.2 times --leader-elect-retry-period (%v)", e.Duration, e.Deadline, e.Period)
	case e.Enabled && (e.Name == "" || e.Namespace == ""):
		return errors.New("--leader-elect-resource-name and --leader-elect-resource-namespace must not be empty with --leader-elect")
	}
	return nil
}

// RESTConfig is how the API server is reached.
func (o *Options) RESTConfig() (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags(o.Master, o.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("find the API server: %w (give --kubeconfig)", err)
	}
	config.ContentConfig = rest.ContentConfig{
		ContentType:        "application/vnd.kubernetes.protobuf",
		AcceptContentTypes: "application/vnd.kubernetes.protobuf,application/json",
	}
	config.QPS = -1 // the server bounds its clients
	config.UserAgent = o.Name + "/coracle"
	config.WarningHandlerWithContext = rest.NoWarnings{}
	return config, nil
}

// Role is what the process does.
type Role struct {
	Options
	// Client is the role's own, which elects and asks who may see metrics.
	// Required.
	Client kubernetes.Interface
	// Synced says that what the role knows is complete; nil is always.
	Synced func() bool
	// Collectors are the role's metrics.
	Collectors []prometheus.Collector
	// API serves what else the role tells, below the paths of its routes; may be
	// nil.
	API []Route
	// Listener is used in place of BindAddress and SecurePort when set. It must
	// not do TLS.
	Listener net.Listener
	// Identity tells processes apart; empty makes one of the host's name.
	Identity string
	Log      *slog.Logger
}

// Route is a resource that the role serves.
type Route struct {
	// Prefix is the path of a group version, /apis/GROUP/VERSION.
	Prefix  string
	Handler http.Handler
}

// Run serves, and works while this process holds the lease, until ctx ends.
func (r Role) Run(ctx context.Context, work func(context.Context) error) error {
	if err := r.Validate(); err != nil {
		return err
	}
	if r.Log == nil {
		r.Log = slog.New(slog.DiscardHandler)
	}
	if r.Identity == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("find the host's name, by which the lease's holder is known: %w", err)
		}
		r.Identity = host + "_" + string(uuid.NewUUID())
	}
	var leading atomic.Bool
	r.Collectors = append(r.Collectors, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "leader_election_master_status", Help: "Whether this process holds the lease.", ConstLabels: prometheus.Labels{"name": r.Election.Name},
	}, func() float64 {
		if leading.Load() {
			return 1
		}
		return 0
	}))
	server, err := r.server(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var g errgroup.Group
	if server != nil {
		g.Go(func() error {
			defer cancel()
			return server.run(ctx)
		})
	}
	g.Go(func() error {
		defer cancel()
		return r.lead(ctx, func(ctx context.Context) error {
			leading.Store(true)
			defer leading.Store(false)
			return work(ctx)
		})
	})
	return g.Wait()
}

// lead works as the only one, or at once.
func (r *Role) lead(ctx context.Context, work func(context.Context) error) error {
	e := r.Election
	if !e.Enabled {
		return work(ctx)
	}
	return reconcile.Lead(ctx, reconcile.LeadConfig{
		Client: r.Client, Namespace: e.Namespace, Name: e.Name, Identity: r.Identity,
		Duration: e.Duration, Deadline: e.Deadline, Period: e.Period, Log: r.Log,
	}, work)
}

func (r *Role) address() string { return net.JoinHostPort(r.BindAddress, strconv.Itoa(r.SecurePort)) }
