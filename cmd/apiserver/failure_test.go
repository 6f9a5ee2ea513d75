package main

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"coracle/pkg/controlplane"
)

// TestNodeFailureFlags: by default a lost node is given up as Kubernetes does it,
// and what could never work is refused at once.
func TestNodeFailureFlags(t *testing.T) {
	flags := newCommand(slog.New(slog.DiscardHandler)).Flags()
	for name, want := range map[string]string{"node-monitor-grace-period": "50s", "node-startup-grace-period": "1m0s", "node-monitor-period": "5s",
		"default-not-ready-toleration-seconds": "300", "default-unreachable-toleration-seconds": "300"} {
		if f := flags.Lookup(name); f == nil || f.DefValue != want {
			t.Errorf("--%s is %v by default, want %s", name, f, want)
		}
	}
	good := failureOptions{grace: 26 * time.Second, startup: time.Minute, period: time.Second, notReady: 30}
	for _, tc := range []struct {
		change func(*failureOptions)
		want   string
	}{
		{func(*failureOptions) {}, ""},
		{func(o *failureOptions) { o.grace = 10 * time.Second }, "nodes renew their lease every 10s, give 20s or more"},
		{func(o *failureOptions) { o.period = 30 * time.Second }, "at most a fourth of --node-monitor-grace-period"},
		{func(o *failureOptions) { o.startup = 0 }, "must be above 0"},
	} {
		o, s := good, controlplane.ServeOptions{}
		tc.change(&o)
		err := o.apply(&s)
		if tc.want == "" {
			if err != nil || s.NodeLifecycle.Grace != o.grace || s.NodeLifecycle.Period != o.period || *s.NotReadySeconds != 30 || *s.UnreachableSeconds != 0 {
				t.Errorf("%+v became %+v, error %v", o, s.NodeLifecycle, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: error %v, want %q", o, err, tc.want)
		}
	}
}
