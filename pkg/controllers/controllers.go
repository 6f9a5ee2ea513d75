// Package controllers runs the cluster's controllers: the loops that make the
// cluster be what its objects ask for.
//
// The list below is all of them. Each lives in a folder of its own with a pure
// core, compute.go, and the I/O around it, controller.go; each reads through
// the process's one set of informers and writes under an identity of its own.
// A new controller is a folder and a line in the list.
package controllers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/utils/clock"

	"coracle/pkg/controllers/aggregation"
	"coracle/pkg/controllers/attachdetach"
	"coracle/pkg/controllers/bootstrap"
	"coracle/pkg/controllers/cronjob"
	"coracle/pkg/controllers/csr"
	"coracle/pkg/controllers/daemonset"
	"coracle/pkg/controllers/deployment"
	"coracle/pkg/controllers/devicetainteviction"
	"coracle/pkg/controllers/disruption"
	"coracle/pkg/controllers/endpointmirror"
	"coracle/pkg/controllers/endpoints"
	"coracle/pkg/controllers/endpointslice"
	"coracle/pkg/controllers/ephemeralvolume"
	"coracle/pkg/controllers/gc"
	"coracle/pkg/controllers/hpa"
	"coracle/pkg/controllers/job"
	"coracle/pkg/controllers/loadbalancer"
	"coracle/pkg/controllers/localpath"
	"coracle/pkg/controllers/namespace"
	"coracle/pkg/controllers/nodeipam"
	"coracle/pkg/controllers/nodelifecycle"
	"coracle/pkg/controllers/podcertificate"
	"coracle/pkg/controllers/podgc"
	"coracle/pkg/controllers/protection"
	"coracle/pkg/controllers/replicaset"
	"coracle/pkg/controllers/replicationcontroller"
	"coracle/pkg/controllers/resourceclaim"
	"coracle/pkg/controllers/resourcequota"
	"coracle/pkg/controllers/rootca"
	"coracle/pkg/controllers/serviceaccount"
	"coracle/pkg/controllers/serviceaccounttoken"
	"coracle/pkg/controllers/servicecidr"
	"coracle/pkg/controllers/statefulset"
	"coracle/pkg/controllers/storagemigration"
	"coracle/pkg/controllers/tainteviction"
	"coracle/pkg/controllers/trustbundle"
	"coracle/pkg/controllers/ttlafterfinished"
	"coracle/pkg/controllers/volumebinder"
	"coracle/pkg/pki"
	"coracle/pkg/reconcile"
)

// Config is what the controllers need from the composition root.
type Config struct {
	// ClientFor returns the client of one controller. Its identity is
	// system:serviceaccount:kube-system:NAME. Required.
	ClientFor func(name string) kubernetes.Interface
	// MetadataFor returns the client of one controller that works on objects of
	// any type, with the same identity. Required.
	MetadataFor func(name string) metadata.Interface
	// Informers is the process's one factory; see reconcile.NewInformers.
	// Required.
	Informers informers.SharedInformerFactory
	// CABundle is the API server's authority in PEM, published to every
	// namespace again when it changes. Required.
	CABundle *pki.Bundle
	// ClusterCIDR is the range of pod addresses, of which each node gets a part
	// with the prefix length NodeCIDRBits (default 24, or 64 for IPv6). The zero
	// prefix leaves spec.podCIDR to others.
	ClusterCIDR  netip.Prefix
	NodeCIDRBits int
	// LoadBalancers are the addresses for Services of type LoadBalancer. The
	// zero prefix leaves those to others.
	LoadBalancers netip.Prefix
	// NodeLifecycle sets how soon a silent node is given up, and PodGC when
	// pods are collected.
	NodeLifecycle nodelifecycle.Config
	PodGC         podgc.Config
	// Signer signs approved certificate requests, a *pki.CA; nil signs none.
	Signer csr.Signer
	// TokenOf signs the tokens that are kept in Secrets; nil fills none.
	TokenOf serviceaccounttoken.Sign
	// SecretsOf names the Secrets that a pod refers to; nil cleans no tokens.
	SecretsOf func(*corev1.Pod) []string
	// BootstrapTokens runs the controllers of the tokens with which machines
	// join.
	BootstrapTokens bool
	// Rand is the source of certificates' serial numbers; nil means
	// crypto/rand.
	Rand io.Reader
	// Clock is the source of time; nil means the real clock.
	Clock clock.WithTicker
	// Log is nil to discard.
	Log *slog.Logger
}

// constructor makes one controller.
type constructor struct {
	name string // of the controller, and by default of its identity
	as   string // the identity, when several controllers share one
	// make returns nil when the configuration turns the controller off.
	make func(Config, reconcile.Env) (reconcile.Runner, error)
}

// identity is the name of the service account that c writes as.
func (c constructor) identity() string {
	if c.as != "" {
		return c.as
	}
	return c.name
}

// list is every controller, in the order in which they start.
var list = []constructor{
	{name: "service-account-controller", make: func(_ Config, e reconcile.Env) (reconcile.Runner, error) { return serviceaccount.New(e), nil }},
	{name: "serviceaccount-token-controller", make: func(c Config, e reconcile.Env) (reconcile.Runner, error) {
		if c.TokenOf == nil {
			return nil, nil
		}
		return serviceaccounttoken.New(e, c.CABundle, c.TokenOf), nil
	}},
	{name: "legacy-service-account-token-cleaner", make: func(c Config, e reconcile.Env) (reconcile.Runner, error) {
		if c.SecretsOf == nil {
			return nil, nil
		}
		return serviceaccounttoken.NewCleaner(e, c.SecretsOf), nil
	}},
	{name: "root-ca-cert-publisher", make: func(c Config, e reconcile.Env) (reconcile.Runner, error) { return rootca.New(e, c.CABundle), nil }},
	{name: "clusterrole-aggregation-controller", make: func(_ Config, e reconcile.Env) (reconcile.Runner, error) { return aggregation.New(e), nil }},
	{name: "certificate-controller", make: func(c Config, e reconcile.Env) (reconcile.Runner, error) {
		return csr.New(e, csr.Config{Signer: c.Signer, Rand: c.Rand}), nil
	}},
	{name: "kube-apiserver-serving-clustertrustbundle-publisher", make: func(c Config, e reconcile.Env) (reconcile.Runner, error) {
		if _, err := pki.ParseCertificates(c.CABundle.Bytes()); err != nil {
			return nil, nil // an API server without TLS has no authority
		}
		return trustbundle.New(e, c.CABundle), nil
	}},
	{name: "podcertificaterequestcleaner", make: func(_ Config, e reconcile.Env) (reconcile.Runner, error) { return podcertificate.NewCleaner(e), nil }},
	{name: "bootstrap-signer", make: func(c Config, e reconcile.Env) (reconcile.Runner, error) {
		if !c.BootstrapTokens {
			return nil, nil
		}
		return bootstrap.NewSigner(e), nil
	}},
	{name: "token-cleaner", make: func(c Config, e reconcile.Env) (reconcile.Runner, error) {
		if !c.BootstrapTokens {
			return nil, nil
		}
		return bootstrap.NewCleaner(e), nil
	}},
	{name: "node-ipam-controller", as: "node-controller", make: newNodeIPAM},
	{name: "node-lifecycle-controller", as: "node-controller", make: func(c Config, e reconcile.Env) (reconcile.Runner, error) {
		return nodelifecycle.New(e, c.NodeLifecycle), nil
	}},
	{name: "taint-eviction-controller", as: "node-controller", make: func(_ Config, e reconcile.Env) (reconcile.Runner, error) { return tainteviction.New(e), nil }},
	{name: "pod-garbage-collector", make: func(c Config, e reconcile.Env) (reconcile.Runner, error) { return podgc.New(e, c.PodGC), nil }},
	{name: "namespace-controller", make: func(c Config, e reconcile.Env) (reconcile.Runner, error) {
		return namespace.New(e, c.MetadataFor("namespace-controller")), nil
	}},
	{name: "generic-garbage-collector", make: func(c Config, e reconcile.Env) (reconcile.Runner, error) {
		return gc.New(e, c.MetadataFor("generic-garbage-collector")), nil
	}},
	{name: "resourcequota-controller", make: func(c Config, e reconcile.Env) (reconcile.Runner, error) {
		return resourcequota.New(e, c.MetadataFor("resourcequota-controller")), nil
	}},
	{name: "service-cidrs-controller", make: func(_ Config, e reconcile.Env) (reconcile.Runner, error) { return servicecidr.New(e), nil }},
	{name: "replicaset-controller", make: func(_ Config, e reconcile.Env) (reconcile.Runner, error) { return replicaset.New(e), nil }},
	{name: "replication-controller", make: func(_ Config, e reconcile.Env) (reconcile.Runner, error) {
		return replicationcontroller.New(e), nil
	}},
	{name: "deployment-controller", make: func(_ Config, e reconcile.Env) (reconcile.Runner, error) { return deployment.New(e), nil }},
	{name: "daemon-set-controller", make: func(_ Config, e reconcile.Env) (reconcile.Runner, error) { return daemonset.New(e), nil }},
	{name: "statefulset-controller", make: func(_ Config, e reconcile.Env) (reconcile.Runner, error) { return statefulset.New(e), nil }},
	{name: "disruption-controller", make: func(_ Config, e reconcile.Env) (reconcile.Runner, error) { return disruption.New(e), nil }},
	{name: "job-controller", make: func(_ Config, e reconcile.Env) (reconcile.Runner, error) { return job.New(e), nil }},
	{name: "cronjob-controller", make: func(_ Config, e reconcile.Env) (reconcile.Runner, error) { return cronjob.New(e), nil }},
	{name: "horizontal-pod-autoscaler", make: func(_ Config, e reconcile.Env) (reconcile.Runner, error) { return hpa.New(e), nil }},
	{name: "ttl-after-finished-controller", make: func(_ Config, e reconcile.Env) (reconcile.Runner, error) {
		return ttlafterfinished.New(e), nil
	}},
	{name: "endpointslice-controller", make: func(_ Config, e reconcile.Env) (reconcile.Runner, error) { return endpointslice.New(e), nil }},
	{name: "endpoint-controller", make: func(_ Config, e reconcile.Env) (reconcile.Runner, error) { return endpoints.New(e), nil }},
	{name: "service-controller", make: func(c Config, e reconcile.Env) (reconcile.Runner, error) {
		if !c.LoadBalancers.IsValid() {
			return nil, nil
		}
		return loadbalancer.New(e, c.LoadBalancers), nil
	}},
	{name: "ephemeral-volume-controller", make: func(_ Config, e reconcile.Env) (reconcile.Runner, error) { return ephemeralvolume.New(e), nil }},
	{name: "resource-claim-controller", make: func(_ Config, e reconcile.Env) (reconcile.Runner, error) { return resourceclaim.New(e) }},
	{name: "device-taint-eviction-controller", make: func(_ Config, e reconcile.Env) (reconcile.Runner, error) { return devicetainteviction.New(e) }},
	{name: "persistent-volume-binder", make: func(_ Config, e reconcile.Env) (reconcile.Runner, error) { return volumebinder.New(e), nil }},
	{name: "attachdetach-controller", make: func(_ Config, e reconcile.Env) (reconcile.Runner, error) { return attachdetach.New(e), nil }},
	{name: "local-path-provisioner", make: func(_ Config, e reconcile.Env) (reconcile.Runner, error) { return localpath.New(e), nil }},
	{name: "pvc-protection-controller", make: func(_ Config, e reconcile.Env) (reconcile.Runner, error) {
		return protection.NewClaims(e), nil
	}},
	{name: "pv-protection-controller", make: func(_ Config, e reconcile.Env) (reconcile.Runner, error) {
		return protection.NewVolumes(e), nil
	}},
	{name: "volumeattributesclass-protection-controller", make: func(_ Config, e reconcile.Env) (reconcile.Runner, error) {
		return protection.NewClasses(e), nil
	}},
	{name: "podgroup-protection-controller", make: func(_ Config, e reconcile.Env) (reconcile.Runner, error) {
		return protection.NewGroups(e), nil
	}},
	{name: "storage-version-migrator-controller", make: func(c Config, e reconcile.Env) (reconcile.Runner, error) {
		return storagemigration.New(e, c.MetadataFor("storage-version-migrator-controller")), nil
	}},
	{name: "endpointslicemirroring-controller", make: func(_ Config, e reconcile.Env) (reconcile.Runner, error) { return endpointmirror.New(e), nil }},
}

func newNodeIPAM(c Config, e reconcile.Env) (reconcile.Runner, error) {
	if !c.ClusterCIDR.IsValid() {
		return nil, nil
	}
	return nodeipam.New(e, nodeipam.Config{Cluster: c.ClusterCIDR, NodeBits: c.NodeCIDRBits})
}

// Identities returns the names of the service accounts in kube-system that the
// controllers write as, sorted.
func Identities() []string {
	var names []string
	for _, c := range list {
		names = append(names, c.identity())
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (c *Config) validate() error {
	switch {
	case c.ClientFor == nil:
		return errors.New("controllers: set Config.ClientFor to a function that makes a client per controller")
	case c.MetadataFor == nil:
		return errors.New("controllers: set Config.MetadataFor to a function that makes a metadata client per controller")
	case c.Informers == nil:
		return errors.New("controllers: set Config.Informers to the process's informer factory")
	case c.CABundle == nil || len(c.CABundle.Bytes()) == 0:
		return errors.New("controllers: set Config.CABundle to the API server's certificate authority in PEM")
	}
	return nil
}

// Group is all controllers, made but not running.
type Group struct {
	parts []reconcile.Named
}

// New makes the controllers and registers the informers they read. Start the
// factory afterwards, then Run.
func New(cfg Config) (*Group, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	g := &Group{}
	for _, c := range list {
		client := cfg.ClientFor(c.identity())
		events := reconcile.NewRecorder(client, c.name, cfg.Clock, cfg.Log)
		made, err := c.make(cfg, reconcile.Env{
			Client:    client,
			Informers: cfg.Informers,
			Events:    events,
			Clock:     cfg.Clock,
			Log:       cfg.Log,
		})
		if err != nil {
			return nil, fmt.Errorf("controller %s: %w", c.name, err)
		}
		if made == nil {
			continue
		}
		g.parts = append(g.parts,
			reconcile.Named{Name: c.name + " events", Runner: events},
			reconcile.Named{Name: c.name, Runner: made})
	}
	return g, nil
}

// Run runs all controllers until ctx ends or one of them fails.
func (g *Group) Run(ctx context.Context) error {
	return reconcile.RunAll(ctx, g.parts)
}

// Run makes the controllers, starts the informer factory and runs them until
// ctx ends. A root that composes other roles over the same factory uses New
// and Group.Run instead.
func Run(ctx context.Context, cfg Config) error {
	g, err := New(cfg)
	if err != nil {
		return err
	}
	reading, stop := context.WithCancel(ctx)
	defer cfg.Informers.Shutdown()
	defer stop()
	cfg.Informers.StartWithContext(reading)
	return g.Run(ctx)
}
