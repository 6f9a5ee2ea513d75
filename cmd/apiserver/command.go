package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"k8s.io/utils/clock"

	"coracle/pkg/apiserver"
	"coracle/pkg/controlplane"
	"coracle/pkg/pki"
	"coracle/pkg/scheduler/config"
	"coracle/pkg/storage"
	"coracle/pkg/storage/etcd"
	"coracle/pkg/storage/memory"
)

// options are the flags as given.
type options struct {
	serve       controlplane.ServeOptions
	allInOne    bool
	storage     string
	etcdServers []string
	etcdCAFile  string
	etcdCert    string
	etcdKey     string
	serviceCIDR string
	nodeCIDR    string
	balancers   string
	authzModes  []string
	oidc        oidcFlags
	encryption  string
	audit       auditOptions
	fairness    bool
	failure     failureOptions
	scheduler   string
	compatible  compatible
}

func newCommand(log *slog.Logger) *cobra.Command {
	o := &options{}
	cmd := &cobra.Command{
		Use:   "apiserver",
		Short: "Serve the Kubernetes API",
		Long: "Serve the Kubernetes API.\n\nWith --data-dir alone it is a whole working server on 127.0.0.1:6443 with an\n" +
			"embedded etcd; DIR/admin.kubeconfig is the way in.",
		Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), log) },
	}
	o.addFlags(cmd.Flags())
	return cmd
}

func (o *options) addFlags(f *pflag.FlagSet) {
	s := &o.serve
	f.StringVar(&s.DataDir, "data-dir", "", "folder of everything the server keeps: pki/, etcd/ and admin.kubeconfig")
	f.BoolVar(&o.allInOne, "all-in-one", false, "run the scheduler and the controllers in this process too")
	f.StringVar(&o.scheduler, "scheduler-config", "", "KubeSchedulerConfiguration of the scheduler's profiles, weights and arguments (with --all-in-one)")
	f.StringVar(&s.BindAddress, "bind-address", "127.0.0.1", "address to listen on")
	f.IntVar(&s.SecurePort, "secure-port", 6443, "port to listen on; 0 picks a free one")
	f.StringVar(&s.AdvertiseAddress, "advertise-address", "", "address that the kubernetes Service points to; the bind address when empty")
	f.StringVar(&o.storage, "storage-backend", "etcd3", "where objects are kept: etcd3, or memory (nothing survives the process)")
	f.StringSliceVar(&o.etcdServers, "etcd-servers", nil, "URLs of an external etcd; empty runs an embedded one in DIR/etcd")
	f.StringVar(&o.etcdCAFile, "etcd-cafile", "", "authority of the external etcd's certificate")
	f.StringVar(&o.etcdCert, "etcd-certfile", "", "client certificate for the external etcd")
	f.StringVar(&o.etcdKey, "etcd-keyfile", "", "key of the client certificate for the external etcd")
	f.StringVar(&s.CertDir, "cert-dir", "", "folder in which apiserver.crt and apiserver.key are looked for, and made when there is no --data-dir")
	f.StringVar(&s.TLSCertFile, "tls-cert-file", "", "serving certificate")
	f.StringVar(&s.TLSKeyFile, "tls-private-key-file", "", "key of the serving certificate")
	f.StringSliceVar(&s.ExtraSANs, "tls-san", nil, "further names and addresses for the serving certificate that the server issues itself")
	f.StringVar(&s.ClientCAFile, "client-ca-file", "", "authorities of client certificates, beside the server's own")
	f.StringVar(&s.RevokedFile, "revoked-certificates-file", "", "list of client certificates that are refused, by fingerprint or serial number; empty is DIR/pki/"+pki.RevokedFile)
	f.StringVar(&s.RequestHeaderCAFile, "requestheader-client-ca-file", "", "authorities of front proxies, whose X-Remote- headers are believed; empty makes one in DIR")
	f.StringSliceVar(&s.RequestHeaderAllowedNames, "requestheader-allowed-names", nil, "common names of front proxies; empty means all that --requestheader-client-ca-file vouches for")
	f.StringVar(&s.ProxyClientCertFile, "proxy-client-cert-file", "", "certificate that proves to aggregated API servers that requests come from this server")
	f.StringVar(&s.ProxyClientKeyFile, "proxy-client-key-file", "", "key of --proxy-client-cert-file")
	f.StringVar(&o.serviceCIDR, "service-cluster-ip-range", "10.96.0.0/16", "addresses of Services")
	f.StringVar(&o.nodeCIDR, "cluster-cidr", "10.244.0.0/16", "addresses of pods, from which each node gets a part; empty leaves that to others (with --all-in-one)")
	f.StringVar(&o.balancers, "load-balancer-range", "", "addresses of the nodes' network for Services of type LoadBalancer; empty leaves those to others (with --all-in-one)")
	f.StringSliceVar(&s.ServiceAccountKeyFiles, "service-account-key-file", nil, "further keys that verify service account tokens")
	f.StringVar(&s.ServiceAccountSigningKeyFile, "service-account-signing-key-file", "", "key that signs service account tokens")
	f.StringArrayVar(&s.ServiceAccountIssuers, "service-account-issuer", nil, "issuer in service account tokens; given several times, the first is that of new tokens and all are believed")
	f.StringVar(&s.ServiceAccountJWKSURI, "service-account-jwks-uri", "", "where the discovery document says that the keys of service account tokens are; empty means below the issuer")
	f.DurationVar(&s.MaxTokenLife, "service-account-max-token-expiration", 0, "longest life of a service account token; 0 means a day")
	f.StringSliceVar(&s.APIAudiences, "api-audiences", nil, "names of this server as a receiver of tokens; empty means the issuer")
	f.StringVar(&s.TokenFile, "token-auth-file", "", "CSV file of bearer tokens that are believed until the server ends: token, user name, user UID, and \"group1,group2\"")
	f.BoolVar(&s.BootstrapTokens, "enable-bootstrap-token-auth", false, "let machines in that show a token of a Secret of type bootstrap.kubernetes.io/token in kube-system, and publish cluster-info for them")
	o.oidc.add(f)
	f.StringSliceVar(&o.authzModes, "authorization-mode", []string{"Node", "RBAC"}, "accepted for compatibility; Node and RBAC are always on")
	f.StringSliceVar(&s.EnableAdmission, "enable-admission-plugins", nil, "admission plugins to run beside those that are on by default")
	f.StringSliceVar(&s.DisableAdmission, "disable-admission-plugins", nil, "admission plugins to leave out")
	o.failure.addFlags(f)
	o.audit.addFlags(f)
	f.BoolVar(&o.fairness, "enable-priority-and-fairness", true, "let requests in by FlowSchemas and PriorityLevelConfigurations")
	f.IntVar(&s.MaxRequests, "max-requests-inflight", apiserver.DefaultMaxReading, "requests that only read served at once; with priority and fairness, part of the sum that its levels share")
	f.IntVar(&s.MaxMutatingRequests, "max-mutating-requests-inflight", apiserver.DefaultMaxMutating, "requests that write served at once; with priority and fairness, part of the sum that its levels share")
	f.StringVar(&o.encryption, "encryption-provider-config", "", "EncryptionConfiguration of what is encrypted at rest; by default Secrets in an embedded etcd, with keys in DIR/pki/"+pki.EncryptionFile)
	f.BoolVar(&s.AllowExternalIPs, "allow-external-ips", false, "accept Services with spec.externalIPs, with which their writers can take traffic meant for others")
	f.BoolVar(&s.Hardened, "hardened", false, "refuse some of what Kubernetes accepts, for a closed cluster: docs/security.md has the list")
	f.BoolVar(&s.Profiling, "profiling", true, "serve Go's profiles below /debug/pprof to administrators")
	f.Bool("allow-privileged", true, "accepted for compatibility; what pods may do is up to pod security admission")
	o.compatible.addFlags(f)
}

// run opens the store and serves until ctx ends.
func (o *options) run(ctx context.Context, log *slog.Logger) error {
	s := &o.serve
	s.Log = log
	for _, mode := range o.authzModes {
		if mode != "Node" && mode != "RBAC" {
			return fmt.Errorf("--authorization-mode=%s is not offered: this server authorizes by Node and RBAC only", mode)
		}
	}
	var err error
	if s.ServiceCIDR, err = netip.ParsePrefix(o.serviceCIDR); err != nil {
		return fmt.Errorf("--service-cluster-ip-range %q is not a CIDR: %w", o.serviceCIDR, err)
	}
	if o.nodeCIDR != "" {
		if s.ClusterCIDR, err = netip.ParsePrefix(o.nodeCIDR); err != nil {
			return fmt.Errorf("--cluster-cidr %q is not a CIDR: %w", o.nodeCIDR, err)
		}
	}
	if o.balancers != "" {
		if s.LoadBalancers, err = netip.ParsePrefix(o.balancers); err != nil {
			return fmt.Errorf("--load-balancer-range %q is not a CIDR: %w", o.balancers, err)
		}
	}
	if err := o.oidc.apply(s); err != nil {
		return err
	}
	if err := o.compatible.check(log); err != nil {
		return err
	}
	if err := o.limits(); err != nil {
		return err
	}
	if err := o.failure.apply(s); err != nil {
		return err
	}
	if err := o.configureScheduler(log); err != nil {
		return err
	}
	if s.Audit, err = o.audit.open(s.DataDir, log); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g.Go(func() error { return keepHeap(ctx, clock.RealClock{}) })
	backend, err := o.open(ctx, log)
	if err != nil {
		cancel()
		return errors.Join(err, g.Wait())
	}
	s.Backend = backend
	s.Encryption = o.encrypt()
	s.Roles = o.allInOne
	// The audit log outlives the last request.
	auditing, served := context.WithCancel(context.WithoutCancel(ctx))
	defer served()
	g.Go(func() error {
		defer served()
		return controlplane.Serve(ctx, *s)
	})
	if s.Audit != nil {
		g.Go(func() error { return s.Audit.Run(auditing) })
	}
	return errors.Join(g.Wait(), backend.Close())
}

// limits checks how many requests are served at once. 0 means no bound, which
// priority and fairness has nothing to divide by.
func (o *options) limits() error {
	s := &o.serve
	s.NoFairness = !o.fairness
	if s.MaxRequests < 0 || s.MaxMutatingRequests < 0 {
		return errors.New("--max-requests-inflight and --max-mutating-requests-inflight must not be negative")
	}
	if o.fairness && (s.MaxRequests == 0 || s.MaxMutatingRequests == 0) {
		return errors.New("--max-requests-inflight and --max-mutating-requests-inflight must be above 0 with --enable-priority-and-fairness")
	}
	for _, n := range []*int{&s.MaxRequests, &s.MaxMutatingRequests} {
		if *n == 0 {
			*n = math.MaxInt
		}
	}
	return nil
}

// configureScheduler reads --scheduler-config.
func (o *options) configureScheduler(log *slog.Logger) error {
	if o.scheduler == "" {
		return nil
	}
	if !o.allInOne {
		return errors.New("--scheduler-config is for the scheduler of --all-in-one: give that too, or leave it out")
	}
	data, err := os.ReadFile(o.scheduler)
	if err != nil {
		return fmt.Errorf("read --scheduler-config: %w", err)
	}
	cfg, warnings, err := config.Parse(data)
	if err != nil {
		return fmt.Errorf("--scheduler-config %s: %w", o.scheduler, err)
	}
	for _, w := range warnings {
		log.Warn("A field of the scheduler's configuration is ignored", "file", o.scheduler, "reason", w)
	}
	o.serve.Scheduler = cfg
	return nil
}

func (o *options) open(ctx context.Context, log *slog.Logger) (storage.Backend, error) {
	switch {
	case o.storage == "memory":
		o.serve.SoleWriter = true
		return memory.New(memory.Config{}), nil
	case o.storage != "etcd3":
		return nil, fmt.Errorf("--storage-backend=%s is not known: use etcd3 or memory", o.storage)
	case len(o.etcdServers) > 0:
		return o.dial(ctx, log)
	case o.serve.DataDir == "":
		return nil, errors.New("give --data-dir DIR for the embedded etcd, or --etcd-servers for an external one")
	}
	if err := lockDir(o.serve.DataDir); err != nil {
		return nil, err
	}
	o.serve.SoleWriter = true
	return etcd.StartEmbedded(ctx, etcd.Config{DataDir: filepath.Join(o.serve.DataDir, "etcd"), Log: log})
}

// encrypt says what is encrypted at rest. A store that others use as well may
// hold what this server's own key cannot read, so that there it is asked for.
func (o *options) encrypt() *controlplane.Encryption {
	switch {
	case o.encryption != "":
		return &controlplane.Encryption{File: o.encryption}
	case o.storage == "etcd3" && len(o.etcdServers) == 0:
		return &controlplane.Encryption{File: filepath.Join(o.serve.DataDir, "pki", pki.EncryptionFile), Create: true}
	}
	return nil
}

// dial connects to an external etcd.
func (o *options) dial(ctx context.Context, log *slog.Logger) (storage.Backend, error) {
	ext := etcd.External{Endpoints: o.etcdServers, Log: log}
	if o.etcdCAFile == "" && o.etcdCert == "" {
		return etcd.Dial(ctx, ext)
	}
	ext.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	if o.etcdCAFile != "" {
		data, err := os.ReadFile(o.etcdCAFile)
		if err != nil {
			return nil, fmt.Errorf("read --etcd-cafile: %w", err)
		}
		ext.TLS.RootCAs = x509.NewCertPool()
		if !ext.TLS.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("--etcd-cafile %s holds no certificate", o.etcdCAFile)
		}
	}
	if o.etcdCert != "" {
		show, err := showing(o.etcdCert, o.etcdKey, log)
		if err != nil {
			return nil, fmt.Errorf("read --etcd-certfile and --etcd-keyfile: %w", err)
		}
		ext.TLS.GetClientCertificate = show
	}
	return etcd.Dial(ctx, ext)
}

// showing gives each connection the certificate that is in the files when it is
// made, so that it is replaced with no restart. What cannot be read, or does not
// fit together, as between the writing of two files, leaves the last one in force.
func showing(certFile, keyFile string, log *slog.Logger) (func(*tls.CertificateRequestInfo) (*tls.Certificate, error), error) {
	first, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, err
	}
	var last atomic.Pointer[tls.Certificate]
	last.Store(&first)
	return func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if now, err := tls.LoadX509KeyPair(certFile, keyFile); err == nil {
			last.Store(&now)
		} else if log != nil {
			log.Error("a changed certificate is not in force: what was read before stays", "file", certFile, "error", err)
		}
		return last.Load(), nil
	}, nil
}

// lockDir keeps a second server off the folder, which would wait for the
// store's own lock without a word. The lock ends with the process.
func lockDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the data folder: %w", err)
	}
	path := filepath.Join(dir, "lock")
	fd, err := unix.Open(path, unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("another API server uses %s: stop it, or give another folder with --data-dir (%w)", dir, errors.Join(err, unix.Close(fd)))
	}
	return nil
}
