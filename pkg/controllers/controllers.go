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
	"log/slog"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/utils/clock"

	"coracle/pkg/controllers/deployment"
	"coracle/pkg/controllers/endpointmirror"
	"coracle/pkg/controllers/endpoints"
	"coracle/pkg/controllers/endpointslice"
	"coracle/pkg/controllers/gc"
	"coracle/pkg/controllers/namespace"
	"coracle/pkg/controllers/replicaset"
	"coracle/pkg/controllers/rootca"
	"coracle/pkg/controllers/serviceaccount"
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
	// namespace. Required.
	CABundle []byte
	// Clock is the source of time; nil means the real clock.
	Clock clock.WithTicker
	// Log is nil to discard.
	Log *slog.Logger
}

// constructor makes one controller.
type constructor struct {
	name string // of the identity it writes under
	make func(Config, reconcile.Env) (reconcile.Runner, error)
}

// list is every controller, in the order in which they start.
var list = []constructor{
	{"service-account-controller", func(_ Config, e reconcile.Env) (reconcile.Runner, error) { return serviceaccount.New(e), nil }},
	{"root-ca-cert-publisher", func(c Config, e reconcile.Env) (reconcile.Runner, error) { return rootca.New(e, c.CABundle), nil }},
	{"namespace-controller", func(c Config, e reconcile.Env) (reconcile.Runner, error) {
		return namespace.New(e, c.MetadataFor("namespace-controller")), nil
	}},
	{"generic-garbage-collector", func(c Config, e reconcile.Env) (reconcile.Runner, error) {
		return gc.New(e, c.MetadataFor("generic-garbage-collector")), nil
	}},
	{"replicaset-controller", func(_ Config, e reconcile.Env) (reconcile.Runner, error) { return replicaset.New(e), nil }},
	{"deployment-controller", func(_ Config, e reconcile.Env) (reconcile.Runner, error) { return deployment.New(e), nil }},
	{"endpointslice-controller", func(_ Config, e reconcile.Env) (reconcile.Runner, error) { return endpointslice.New(e), nil }},
	{"endpoint-controller", func(_ Config, e reconcile.Env) (reconcile.Runner, error) { return endpoints.New(e), nil }},
	{"endpointslicemirroring-controller", func(_ Config, e reconcile.Env) (reconcile.Runner, error) { return endpointmirror.New(e), nil }},
}

// Names returns the identities the controllers write under.
func Names() []string {
	names := make([]string, len(list))
	for i, c := range list {
		names[i] = c.name
	}
	return names
}

func (c *Config) validate() error {
	switch {
	case c.ClientFor == nil:
		return errors.New("controllers: set Config.ClientFor to a function that makes a client per controller")
	case c.MetadataFor == nil:
		return errors.New("controllers: set Config.MetadataFor to a function that makes a metadata client per controller")
	case c.Informers == nil:
		return errors.New("controllers: set Config.Informers to the process's informer factory")
	case len(c.CABundle) == 0:
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
		client := cfg.ClientFor(c.name)
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
