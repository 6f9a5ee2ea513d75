// Command scheduler places pods on nodes, as a process of its own beside any API
// server. Of several, the one that holds the lease kube-scheduler works.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"

	"coracle/pkg/component"
	"coracle/pkg/placement"
	"coracle/pkg/reconcile"
	"coracle/pkg/scheduler"
	"coracle/pkg/scheduler/config"
)

// securePort is kube-scheduler's.
const securePort = 10259

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := newCommand(log).ExecuteContext(ctx); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "scheduler:", err)
		os.Exit(1)
	}
}

func newCommand(log *slog.Logger) *cobra.Command {
	o := component.Options{Name: "kube-scheduler"}
	var file string
	cmd := &cobra.Command{
		Use:   "scheduler --kubeconfig FILE",
		Short: "Place pods on nodes",
		Args:  cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.Validate(); err != nil {
				return err
			}
			profiles, err := readConfig(file, log)
			if err != nil {
				return err
			}
			rest, err := o.RESTConfig()
			if err != nil {
				return err
			}
			client, err := kubernetes.NewForConfig(rest)
			if err != nil {
				return fmt.Errorf("make a client of the API server: %w", err)
			}
			return run(cmd.Context(), component.Role{Options: o, Client: client, Log: log}, profiles)
		},
	}
	o.AddFlags(cmd.Flags(), securePort)
	cmd.Flags().StringVar(&file, "config", "", "KubeSchedulerConfiguration of profiles, weights and arguments; connection and election are flags")
	return cmd
}

// readConfig reads --config; without it the zero value, Kubernetes' default.
func readConfig(file string, log *slog.Logger) (config.Config, error) {
	if file == "" {
		return config.Config{}, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return config.Config{}, fmt.Errorf("read --config: %w", err)
	}
	cfg, warnings, err := config.Parse(data)
	if err != nil {
		return config.Config{}, fmt.Errorf("--config %s: %w", file, err)
	}
	for _, w := range warnings {
		log.Warn("A field of the scheduler's configuration is ignored", "file", file, "reason", w)
	}
	return cfg, nil
}

// run follows the cluster at once, so that a process that comes to lead knows
// it, and places pods while it leads.
func run(ctx context.Context, role component.Role, profiles config.Config) error {
	factory := reconcile.NewInformers(role.Client)
	book := placement.NewBook(placement.Budget)
	s, err := scheduler.New(scheduler.Config{Client: role.Client, Informers: factory, Profiles: profiles, Placements: book, Log: role.Log})
	if err != nil {
		return err
	}
	role.Synced, role.Collectors = s.Synced, []prometheus.Collector{s}
	role.API = []component.Route{{Prefix: "/apis/" + placement.GroupVersion().String(), Handler: placement.Handler(book)}}
	reading, stop := context.WithCancel(ctx)
	defer factory.Shutdown()
	defer stop()
	factory.StartWithContext(reading)
	return role.Run(ctx, s.Run)
}
