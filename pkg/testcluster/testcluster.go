// Package testcluster starts a whole control plane inside a Go test: the real
// API server over the memory backend, with no process, port, file or
// certificate. Tests of controllers, schedulers and clients run against it.
//
// Contract: Start returns when the control plane is ready and registers its
// end with the test. Everything works inside a testing/synctest bubble.
package testcluster

import (
	"context"
	"log/slog"
	"sync"
	"testing"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"

	"coracle/pkg/auth"
	"coracle/pkg/controlplane"
	"coracle/pkg/storage"
	"coracle/pkg/storage/memory"
)

// Option changes the control plane that Start makes.
type Option func(*controlplane.Config)

// WithBackend uses a store of the test's own instead of the memory backend.
// The test closes it.
func WithBackend(b storage.Backend) Option {
	return func(c *controlplane.Config) { c.Backend = b }
}

// WithClock uses a clock of the test's own.
func WithClock(clk clock.WithTicker) Option {
	return func(c *controlplane.Config) { c.Clock = clk }
}

// WithRoles runs the scheduler and the controllers too.
func WithRoles() Option {
	return func(c *controlplane.Config) { c.Roles = true }
}

// WithConfig gives access to everything else.
func WithConfig(f func(*controlplane.Config)) Option { return f }

// Cluster is a running control plane.
type Cluster struct {
	*controlplane.ControlPlane
	// Client acts as an administrator (system:masters).
	Client kubernetes.Interface
	stop   func()
}

// Stop ends the control plane before the test does and waits until it has
// ended. The in-memory transport goes on answering from what is left: whoever
// stops a server ends its clients too. Stopping twice is no error.
func (c *Cluster) Stop() { c.stop() }

// Start starts a control plane and waits until it is ready. It ends with the
// test.
func Start(t testing.TB, options ...Option) *Cluster {
	t.Helper()
	cfg := controlplane.Config{SoleWriter: true, Log: slog.New(slog.DiscardHandler)}
	for _, o := range options {
		o(&cfg)
	}
	if cfg.Backend == nil {
		backend := memory.New(memory.Config{Clock: cfg.Clock})
		t.Cleanup(func() {
			if err := backend.Close(); err != nil {
				t.Errorf("close the memory backend: %v", err)
			}
		})
		cfg.Backend = backend
	}
	cp, err := controlplane.New(cfg)
	if err != nil {
		t.Fatalf("compose the control plane: %v", err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- cp.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run the control plane: %v", err)
		}
	})
	t.Cleanup(stop)
	c := &Cluster{ControlPlane: cp, stop: stop}
	ready := make(chan error, 1)
	go func() { ready <- cp.WaitReady(ctx) }()
	select {
	case err := <-ready:
		if err != nil {
			t.Fatal(err)
		}
	case err := <-done:
		done <- err
		t.Fatalf("the control plane ended before it was ready: %v", err)
	}
	c.Client = kubernetes.NewForConfigOrDie(c.Admin())
	return c
}

// Admin is a client configuration of an administrator.
func (c *Cluster) Admin() *rest.Config { return c.As("admin", auth.GroupMasters) }

// As is a client configuration of any user.
func (c *Cluster) As(name string, groups ...string) *rest.Config {
	return c.RESTConfig(&auth.User{Name: name, Groups: append(groups, auth.GroupAuthenticated)})
}
