// Package controlplane composes the parts of a control plane in one process:
// storage behind the watch cache, the registry, the API server, and over its
// in-memory transport whatever else runs beside it.
//
// Contract: a ControlPlane has no globals, opens no listener and starts
// nothing until Run; any number of them run in one process. Clock, storage and
// randomness are passed in. When Run returns, all its goroutines have ended;
// the backend stays open, since it was the caller's.
package controlplane

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/rest"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"k8s.io/utils/clock"

	"coracle/pkg/admission"
	"coracle/pkg/admission/expression"
	"coracle/pkg/apiserver"
	"coracle/pkg/apiserver/aggregate"
	"coracle/pkg/apiserver/nodeproxy"
	"coracle/pkg/apiserver/openapi"
	"coracle/pkg/audit"
	"coracle/pkg/auth"
	"coracle/pkg/auth/node"
	"coracle/pkg/auth/oidc"
	"coracle/pkg/auth/policy"
	"coracle/pkg/auth/rbac"
	"coracle/pkg/callout"
	"coracle/pkg/controllers/nodelifecycle"
	"coracle/pkg/pki"
	"coracle/pkg/placement"
	"coracle/pkg/registry"
	"coracle/pkg/registry/allocator"
	"coracle/pkg/registry/fieldtypes"
	"coracle/pkg/scheduler/config"
	"coracle/pkg/storage"
	"coracle/pkg/storage/cache"
	"coracle/pkg/storage/timed"
)

// Config is what a control plane is made of. Only Backend is required.
type Config struct {
	// Backend is the store; the caller closes it after Run has returned.
	Backend storage.Backend
	// SoleWriter says that nobody else writes to the backend (embedded etcd,
	// memory), which saves a round trip for each consistent read.
	SoleWriter bool
	// Clock defaults to the system's, Rand to crypto/rand.
	Clock clock.WithTicker
	Rand  io.Reader
	Log   *slog.Logger
	// ServiceCIDR defaults to 10.96.0.0/16; its first address is the
	// kubernetes Service's.
	ServiceCIDR netip.Prefix
	// ClusterCIDR is the range of pod addresses, of which each node gets a part;
	// the zero value leaves spec.podCIDR to others.
	ClusterCIDR netip.Prefix
	// LoadBalancers are the addresses for Services of type LoadBalancer; the
	// zero value leaves those to others.
	LoadBalancers netip.Prefix
	// NodeLifecycle says when a silent node is given up; its zero value is
	// Kubernetes' default, 50 s.
	NodeLifecycle nodelifecycle.Config
	// NotReadySeconds and UnreachableSeconds are how long a pod that says nothing
	// about it stays on a node that is not ready, or silent; nil is Kubernetes'
	// default, 300.
	NotReadySeconds, UnreachableSeconds *int64
	// Advertise is where clients reach this API server; the kubernetes
	// Service's endpoints say so. The zero value publishes none.
	Advertise netip.AddrPort
	// Identity holds keys and authorities; nil means that requests come over
	// the in-memory transport only and that tokens are neither issued nor
	// known.
	Identity *Identity
	// Roles runs the scheduler and the controllers beside the API server.
	Roles bool
	// Scheduler says how the scheduler places pods; the zero value is Kubernetes'
	// default.
	Scheduler config.Config
	// BootstrapTokens lets machines in that show a bootstrap token, and publishes
	// cluster-info for them.
	BootstrapTokens bool
	// OIDC are the OpenID Connect issuers whose tokens are believed.
	OIDC []oidc.Config
	// Anonymous says on which paths requests without credentials are let through
	// to the authorizer; nil means all.
	Anonymous func(path string) bool
	// Hardened refuses some of what Kubernetes accepts: see hardened().
	Hardened bool
	strict   strictness // set by complete
	// AllowExternalIPs accepts Services with spec.externalIPs.
	AllowExternalIPs bool
	// PodSecurity is what counts in namespaces whose labels say nothing; the
	// zero value enforces nothing, warns of what is not baseline and has noted
	// what is not restricted.
	PodSecurity admission.PodSecurityLevels
	// EnableAdmission lists plugins that are off by default, DisableAdmission
	// those to leave out, both by name.
	EnableAdmission, DisableAdmission []string
	// Profiling serves Go's profiles below /debug/pprof to who may see them.
	Profiling bool
	// Audit records who asked for what; nil records nothing. Its
	// owner runs it, until no request is under way any more.
	Audit *audit.Log
	// MaxRequests and MaxMutatingRequests bound the requests served at once; 0 means
	// 400 and 200. Priority and fairness divides their sum among its levels, unless
	// NoFairness is set: then each bounds its kind of requests.
	MaxRequests, MaxMutatingRequests int
	NoFairness                       bool
	// Encryption keeps values encrypted in the store; nil keeps them as they are.
	Encryption *Encryption
	// OpenAPI serves /openapi; it defaults to the description of all kinds.
	OpenAPI http.Handler
	// DialBackend connects to the endpoints of Services that are no pods, and to
	// external names; nil goes through the network, but never to this machine
	// itself.
	DialBackend func(ctx context.Context, network, address string) (net.Conn, error)
}

// ControlPlane is a composed control plane.
type ControlPlane struct {
	cfg      Config
	cache    *cache.Cache
	registry *registry.Registry
	server   *apiserver.Server
	roles    *rbac.Store
	rbac     *rbac.Authorizer
	nodes    *node.Graph // what each node's pods refer to
	authz    auth.Union
	ips      *allocator.Allocator
	views    []registry.Projection
	synced   []chan struct{} // closed as each projection is complete
	ready    chan struct{}   // closed once the default objects are there
	metrics  *partMetrics
	callouts *callout.Client // calls webhooks
	// encryption is nil when values are stored as they are.
	encryption *encryption
	// expressions compiles those of admission.
	expressions *expression.Compiler
	// schemas are those of all served kinds, without references.
	schemas func(schema.GroupVersionKind) (*spec.Schema, error)
	tokens  *tokens // checks and issues bearer tokens; nil without an identity
	// revoked are the client certificates that are refused; nil are none.
	revoked atomic.Pointer[pki.Revoked]
	// connections are those of clients with certificates.
	connections connections
	// authentication follows --authentication-config.
	authentication atomic.Pointer[authentication]
	// clientCA are the authorities that servers behind this one are told.
	clientCA atomic.Pointer[[]byte]
	// proxy reaches nodes, pods and Services; aggregator passes group versions on
	// to other servers, registrar lists those of this one.
	proxy      *nodeproxy.Proxy
	aggregator *aggregate.Aggregator
	registrar  *registrar
	// fairness is nil when priority and fairness is off.
	fairness *fairnessLoop
	// placements are the verdicts of the scheduler in this process; nil when
	// there is none.
	placements *placement.Book
	// customsSynced is closed as the custom resources that were there at the
	// start are served.
	customsSynced chan struct{}
}

// maxServiceBits is the longest prefix of the service range: it leaves room for
// the kubernetes Service, the DNS and a few more.
const maxServiceBits = 28

// tolerationSeconds is how long pods stay on a lost node when nobody says.
const tolerationSeconds = 300

func (c *Config) complete() error {
	if c.Backend == nil {
		return errors.New("a control plane needs a storage backend")
	}
	c.harden()
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.Anonymous == nil {
		c.Anonymous = auth.AnonymousEverywhere
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.NotReadySeconds == nil {
		c.NotReadySeconds = new(int64(tolerationSeconds))
	}
	if c.UnreachableSeconds == nil {
		c.UnreachableSeconds = new(int64(tolerationSeconds))
	}
	if c.PodSecurity == (admission.PodSecurityLevels{}) {
		c.PodSecurity = admission.PodSecurityLevels{Enforce: "privileged", Warn: "baseline", Audit: "restricted"}
	}
	if !c.ServiceCIDR.IsValid() {
		c.ServiceCIDR = netip.MustParsePrefix("10.96.0.0/16")
	}
	if !c.ServiceCIDR.Addr().Is4() || c.ServiceCIDR.Bits() > maxServiceBits {
		return fmt.Errorf("the service range %s must be an IPv4 prefix of at most %d bits", c.ServiceCIDR, maxServiceBits)
	}
	return nil
}

// New composes a control plane. Nothing runs yet.
func New(cfg Config) (*ControlPlane, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	cp := &ControlPlane{cfg: cfg, roles: &rbac.Store{}, nodes: &node.Graph{}, ready: make(chan struct{}), customsSynced: make(chan struct{})}
	cp.expressions = expression.New(0)
	table, err := table(cp.expressions)
	if err != nil {
		return nil, err
	}
	cp.callouts = &callout.Client{Dial: func(ctx context.Context, namespace, name string, port int32) (net.Conn, error) {
		return cp.proxy.DialService(ctx, namespace, name, port)
	}}
	cp.metrics = newMetrics(table, cfg.Backend)
	var kinds []cache.Kind
	for _, res := range table.All() {
		if res.Stored() {
			kinds = append(kinds, registry.KindOf(res))
		}
	}
	backend := cfg.Backend
	if cfg.Encryption != nil {
		if cp.encryption, err = newEncryption(&cfg, table, cfg.Rand); err != nil {
			return nil, err
		}
		backend = cp.encryption.backend
	}
	backend = timed.New(backend, cp.metrics.stored)
	cp.cache = cache.New(cache.Config{
		Backend: backend, Kinds: kinds, SoleWriter: cfg.SoleWriter, Clock: cfg.Clock, Log: cfg.Log,
	})
	cp.rbac = rbac.New(cp.roles)
	cp.authz = auth.Union{node.New(cp.nodes, policy.NodeRules()), cp.rbac}
	if !cfg.strict.noMasters {
		cp.authz = append(auth.Union{auth.Masters{}}, cp.authz...)
	}
	chain, err := cp.admission()
	if err != nil {
		return nil, err
	}
	cp.registry = registry.New(registry.Config{
		Table: table, Cache: cp.cache, Chain: chain.Observed(cp.metrics.admitted), Clock: cfg.Clock, Rand: cfg.Rand,
		Types: func() managedfields.TypeConverter { return fieldtypes.New(table.Scheme()) },
		Hooks: map[string]registry.Hook{"services": cp.serviceHook()},
	})
	cp.ips, err = allocator.New(allocator.Config{
		Registry: cp.registry, Backend: backend, Rand: cfg.Rand, Clock: cfg.Clock, Log: cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	if cfg.Roles {
		cp.placements = placement.NewBook(placement.Budget)
	}
	cp.proxy, cp.registrar = cp.newProxy(), newRegistrar(cp)
	if cp.aggregator, err = cp.newAggregator(cp.proxy); err != nil {
		return nil, err
	}
	described := openapi.New(cp.registry.Table, Version())
	described.Join(cp.aggregator.OpenAPI)
	cp.schemas = described.Schema
	if cfg.OpenAPI == nil {
		cfg.OpenAPI = described
	}
	serverConfig := apiserver.Config{
		Registry: cp.registry, Authorizer: whileStarting{cp}, Rules: cp.authz, Log: cfg.Log,
		OpenAPI: cfg.OpenAPI, Version: Version(), Aggregated: cp.aggregator.State,
		Checks: cp.checks(), Components: cp.components(), Collectors: append(append(cp.metrics.collectors(), cp.aggregator), auditMetrics(cfg.Audit)...),
		Profiling: cfg.Profiling, Audit: cfg.Audit, MaxReading: cfg.MaxRequests, MaxMutating: cfg.MaxMutatingRequests,
	}
	if cp.fairness = cp.newFairness(); cp.fairness != nil {
		serverConfig.Fairness = cp.fairness.controller
		cp.views = append(cp.views, cp.fairness.projections()...)
	}
	if err := cp.identify(&serverConfig); err != nil {
		return nil, err
	}
	cp.views = append(append(cp.views, cp.projections()...), cp.aggregations()...)
	cp.server, err = apiserver.New(serverConfig)
	return cp, err
}

// checks are the conditions of /readyz and /livez.
func (cp *ControlPlane) checks() []apiserver.Check {
	return []apiserver.Check{
		{Name: "etcd", Live: true, Check: func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, storeAnswer)
			defer cancel()
			_, err := cp.cache.Current(ctx)
			return err
		}},
		{Name: "poststarthook/bootstrap", Check: func(context.Context) error {
			select {
			case <-cp.ready:
				return nil
			default:
				return errors.New("the default objects are not there yet")
			}
		}},
		{Name: "watch-cache", Check: func(context.Context) error {
			if lag := cp.cache.Lag(); lag > maxLag {
				return fmt.Errorf("the watch cache is %s behind the store", lag)
			}
			return nil
		}},
	}
}

// storeAnswer is how long the store may take to answer a health check.
const storeAnswer = 2 * time.Second

// Handler is the API over HTTP, for the caller's listeners.
func (cp *ControlPlane) Handler() http.Handler { return cp.server }

// readyWait bounds how long a request waits for the control plane to begin.
const readyWait = 10 * time.Second

// whenReady is Handler for listeners that are open from the start: requests
// that come before roles and default objects are there wait a moment, since
// they would be refused for no reason of theirs. Health is told at once.
func (cp *ControlPlane) whenReady() http.Handler {
	var begun atomic.Bool // what was ready once stays so
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !begun.Load() && !auth.AnonymousHealth(r.URL.Path) {
			ctx, cancel := context.WithTimeout(r.Context(), readyWait)
			err := cp.WaitReady(ctx)
			cancel()
			if err != nil {
				apiserver.WriteError(w, apierrors.NewServiceUnavailable("the API server is starting: try again in a moment"))
				return
			}
			begun.Store(true)
		}
		cp.server.ServeHTTP(w, r)
	})
}

// Registry is the storage logic below the API.
func (cp *ControlPlane) Registry() *registry.Registry { return cp.registry }

// RESTConfig is a client configuration over the in-memory transport.
func (cp *ControlPlane) RESTConfig(user *auth.User) *rest.Config {
	return &rest.Config{
		Host:      "http://coracle.invalid", // never dialled
		Transport: cp.server.Transport(user),
		ContentConfig: rest.ContentConfig{
			ContentType:        "application/vnd.kubernetes.protobuf",
			AcceptContentTypes: "application/vnd.kubernetes.protobuf,application/json",
		},
		QPS: -1, // the server bounds its clients, not they themselves
	}
}

// Run serves until ctx ends. It returns nil then, and an error when a part
// could not start or go on.
func (cp *ControlPlane) Run(ctx context.Context) error {
	defer cp.callouts.Close()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return cp.cache.Run(ctx) })
	history := storage.Compactor{Backend: cp.cfg.Backend, Clock: cp.cfg.Clock, Log: cp.cfg.Log, Done: cp.cache.Compacted}
	g.Go(func() error { return history.Run(ctx) })
	if cp.encryption != nil {
		g.Go(func() error { return cp.encryption.run(ctx) })
	}
	g.Go(func() error {
		if err := cp.cache.WaitReady(ctx); err != nil {
			return ended(ctx, err)
		}
		if err := cp.bootstrap(ctx); err != nil {
			return ended(ctx, err)
		}
		// The authorizers begin with a state that has the default roles in it:
		// nobody is refused because they have not come yet.
		customs := cp.newDefinitions()
		checks := cp.newTypeChecks()
		for _, p := range append(cp.views, customs.projection(), checks.projection()) {
			g.Go(func() error { return cp.registry.Project(ctx, p) })
		}
		g.Go(func() error { return cp.ips.Run(ctx) })
		g.Go(func() error { return customs.run(ctx, cp.customsSynced) })
		g.Go(func() error { return checks.run(ctx) })
		g.Go(func() error { return cp.aggregator.Run(ctx) })
		g.Go(func() error { return cp.registrar.run(ctx) })
		if cp.fairness != nil {
			g.Go(func() error { return cp.fairness.run(ctx) })
		}
		close(cp.ready)
		if !cp.cfg.Roles {
			return nil
		}
		if err := cp.WaitReady(ctx); err != nil {
			return ended(ctx, err)
		}
		return ended(ctx, cp.runRoles(ctx))
	})
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// ended turns an error that only says that ctx is over into nil.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// waits are closed as what requests need is there.
func (cp *ControlPlane) waits() []chan struct{} {
	return append([]chan struct{}{cp.ready, cp.customsSynced}, cp.synced...)
}

// WaitReady blocks until the default objects are there and RBAC has read them,
// or ctx ends.
func (cp *ControlPlane) WaitReady(ctx context.Context) error {
	for _, ch := range cp.waits() {
		select {
		case <-ch:
		case <-ctx.Done():
			return fmt.Errorf("the control plane did not become ready: %w", ctx.Err())
		}
	}
	return nil
}
