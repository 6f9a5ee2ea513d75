package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"coracle/pkg/kubelet/fleet"
)

// simulatedFlags are those of the nodes without containers.
type simulatedFlags struct {
	nodes                        int
	kubeconfig, prefix           string
	startTime, runTime, stopTime time.Duration
	zones, workers               int
	capacity, labels             map[string]string
	taints                       []string
	ownName                      bool
}

func (s *simulatedFlags) add(f *pflag.FlagSet) {
	f.IntVar(&s.nodes, "simulated", 0, "be that many simulated nodes instead of one with containers")
	f.StringVar(&s.kubeconfig, "kubeconfig", "", "identity of simulated nodes: one that may list and watch nodes and pods and impersonate nodes, such as an administrator's")
	f.StringVar(&s.prefix, "simulated-prefix", "sim", "simulated nodes are named PREFIX-0, PREFIX-1, ...; two fleets of a cluster need different ones")
	f.DurationVar(&s.startTime, "simulated-start-time", 0, "time from a pod's binding to its running")
	f.DurationVar(&s.runTime, "simulated-run-time", 0, "time after which pods succeed that may end (restartPolicy OnFailure or Never); 0 lets them run")
	f.DurationVar(&s.stopTime, "simulated-stop-time", 0, "time that containers take to end when their pod is deleted, at most its grace period")
	f.IntVar(&s.zones, "simulated-zones", 0, "put the nodes into that many zones in turn: zone-0, zone-1, ...; 0 gives them none")
	f.IntVar(&s.workers, "simulated-workers", 0, "requests about pods under way at a time; 0 takes the default")
	f.StringToStringVar(&s.capacity, "simulated-capacity", nil, "what each node has, for example cpu=32,memory=256Gi,pods=110")
	f.StringToStringVar(&s.labels, "node-labels", nil, "labels of simulated nodes")
	f.StringSliceVar(&s.taints, "register-with-taints", nil, "taints of simulated nodes, as KEY=VALUE:EFFECT")
	f.BoolVar(&s.ownName, "simulated-own-name", false, "make requests under the kubeconfig's own name instead of as the node that each is about")
}

// run is the life of simulated nodes.
func (s *simulatedFlags) run(ctx context.Context, log *slog.Logger) error {
	if s.kubeconfig == "" {
		return errors.New("simulated nodes need --kubeconfig FILE, for example the admin.kubeconfig of the API server")
	}
	cfg := fleet.Config{
		Count: s.nodes, Prefix: s.prefix, Labels: s.labels, Zones: s.zones, Capacity: corev1.ResourceList{},
		StartTime: s.startTime, RunTime: s.runTime, StopTime: s.stopTime, Workers: s.workers, OwnName: s.ownName, Log: log,
	}
	for name, text := range s.capacity {
		q, err := resource.ParseQuantity(text)
		if err != nil {
			return fmt.Errorf("--simulated-capacity: %q is no quantity of %s: %w", text, name, err)
		}
		cfg.Capacity[corev1.ResourceName(name)] = q
	}
	for _, text := range s.taints {
		taint, err := parseTaint(text)
		if err != nil {
			return err
		}
		cfg.Taints = append(cfg.Taints, taint)
	}
	var err error
	if cfg.Client, err = newClient(s.kubeconfig); err != nil {
		return err
	}
	f, err := fleet.New(cfg)
	if err != nil {
		return err
	}
	return f.Run(ctx)
}

// parseTaint reads KEY=VALUE:EFFECT or KEY:EFFECT.
func parseTaint(text string) (corev1.Taint, error) {
	rest, effect, ok := strings.Cut(text, ":")
	key, value, _ := strings.Cut(rest, "=")
	switch e := corev1.TaintEffect(effect); {
	case !ok || key == "":
	case e == corev1.TaintEffectNoSchedule, e == corev1.TaintEffectPreferNoSchedule, e == corev1.TaintEffectNoExecute:
		return corev1.Taint{Key: key, Value: value, Effect: e}, nil
	}
	return corev1.Taint{}, fmt.Errorf("--register-with-taints: %q is no taint: write KEY=VALUE:EFFECT with NoSchedule, PreferNoSchedule or NoExecute", text)
}
