package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// ErrLostLease is returned by Lead when another candidate may hold the lease.
// The process should exit, or call Lead again with fresh state.
var ErrLostLease = errors.New("leadership was lost: the lease could not be renewed in time")

// LeadConfig describes one candidate.
type LeadConfig struct {
	// Client writes the Lease, under the candidate's own identity.
	Client kubernetes.Interface
	// Namespace and Name are those of the Lease; Namespace defaults to
	// kube-system.
	Namespace, Name string
	// Identity tells candidates apart; it must be unique, such as the host
	// name with a random suffix.
	Identity string
	// Duration is how long a silent leader keeps the lease, Deadline how long
	// the leader tries to renew before it gives up, Period the time between
	// tries. Defaults 15 s, 10 s, 2 s.
	Duration, Deadline, Period time.Duration
	// Log receives changes of leadership; nil discards.
	Log *slog.Logger
}

// Lead waits until this candidate holds the lease, then calls run with a
// context that ends when the lease is lost or ctx ends. It returns when run
// has returned: nil after cancellation of ctx, ErrLostLease when the lease was
// lost, otherwise run's error. On the way out the lease is released, but never
// before run has returned, so that two leaders do not overlap.
func Lead(ctx context.Context, cfg LeadConfig, run func(ctx context.Context) error) error {
	if cfg.Namespace == "" {
		cfg.Namespace = metav1.NamespaceSystem
	}
	if cfg.Duration <= 0 {
		cfg.Duration, cfg.Deadline, cfg.Period = 15*time.Second, 10*time.Second, 2*time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	// The election outlives ctx until run has ended, so it gets its own end.
	electing, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	started := make(chan context.Context, 1)
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: cfg.Namespace, Name: cfg.Name},
			Client:     cfg.Client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: cfg.Identity},
		},
		Name:            cfg.Name,
		LeaseDuration:   cfg.Duration,
		RenewDeadline:   cfg.Deadline,
		RetryPeriod:     cfg.Period,
		ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(leading context.Context) { started <- leading },
			OnStoppedLeading: func() { cfg.Log.Info("stopped leading", "lease", cfg.Name) },
			OnNewLeader:      func(id string) { cfg.Log.Info("new leader", "lease", cfg.Name, "leader", id) },
		},
	})
	if err != nil {
		return fmt.Errorf("leader election for lease %s/%s is misconfigured: %w", cfg.Namespace, cfg.Name, err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		elector.Run(electing)
	}()
	defer func() {
		stop()
		<-ended
	}()
	select {
	case <-ctx.Done():
		return nil
	case <-ended:
		return ErrLostLease
	case leading := <-started:
		return runLeading(ctx, leading, run)
	}
}

// runLeading calls run until ctx or the leadership ends.
func runLeading(ctx, leading context.Context, run func(context.Context) error) error {
	working, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(leading, cancel)()
	err := run(working)
	switch {
	case ctx.Err() != nil:
		return nil
	case leading.Err() != nil:
		return ErrLostLease
	default:
		return err
	}
}
