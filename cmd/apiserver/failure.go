package main

import (
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"coracle/pkg/controlplane"
)

// failureOptions are the flags that say when a lost node's pods are given up.
// Their names and defaults are those of Kubernetes' programs.
type failureOptions struct {
	grace, startup, period time.Duration
	notReady, unreachable  int64
}

func (o *failureOptions) addFlags(f *pflag.FlagSet) {
	f.DurationVar(&o.grace, "node-monitor-grace-period", 50*time.Second, "how long a node may be silent before it counts as lost; nodes renew their lease every 10s (with --all-in-one)")
	f.DurationVar(&o.startup, "node-startup-grace-period", 60*time.Second, "the same for a node that has never spoken (with --all-in-one)")
	f.DurationVar(&o.period, "node-monitor-period", 5*time.Second, "time between two looks at the nodes (with --all-in-one)")
	f.Int64Var(&o.notReady, "default-not-ready-toleration-seconds", 300, "how long pods that do not say stay on a node that is not ready")
	f.Int64Var(&o.unreachable, "default-unreachable-toleration-seconds", 300, "how long pods that do not say stay on a node that is lost")
}

// minGrace is twice what a healthy node is silent for: with less, one lost
// renewal would move its pods.
const minGrace = 20 * time.Second

func (o *failureOptions) apply(s *controlplane.ServeOptions) error {
	switch {
	case o.grace < minGrace:
		return fmt.Errorf("--node-monitor-grace-period=%v is too short: nodes renew their lease every 10s, give %v or more", o.grace, minGrace)
	case o.period <= 0 || o.period > o.grace/4:
		return fmt.Errorf("--node-monitor-period=%v must be above 0 and at most a fourth of --node-monitor-grace-period", o.period)
	case o.startup <= 0:
		return fmt.Errorf("--node-startup-grace-period=%v must be above 0", o.startup)
	}
	s.NodeLifecycle.Grace, s.NodeLifecycle.StartupGrace, s.NodeLifecycle.Period = o.grace, o.startup, o.period
	s.NotReadySeconds, s.UnreachableSeconds = &o.notReady, &o.unreachable
	return nil
}
