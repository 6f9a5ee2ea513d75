// Command kubelet is Coracle's node agent: it runs the node's pods, and with
// them the service proxy, the cluster DNS and the pod network.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"coracle/pkg/nodeconfig"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := newCommand(log).ExecuteContext(ctx); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "kubelet:", err)
		os.Exit(1)
	}
}

func newCommand(log *slog.Logger) *cobra.Command {
	var file string
	var simulated simulatedFlags
	cmd := &cobra.Command{
		Use:   "kubelet --config FILE | --simulated N --kubeconfig FILE",
		Short: "Run a node's pods, service proxy, DNS and pod network",
		Long: "Run a node's pods, service proxy, DNS and pod network.\n\nWith --simulated N it is N nodes without containers instead: real Node, Lease and Pod\n" +
			"traffic, for trying out large clusters.",
		Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if simulated.nodes > 0 {
				return simulated.run(cmd.Context(), log)
			}
			conf, err := nodeconfig.Read(file)
			if err != nil {
				return err
			}
			a, err := newAgent(conf, log)
			if err != nil {
				return err
			}
			return a.run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&file, "config", nodeconfig.Path, "the node's configuration (package nodeconfig documents it)")
	simulated.add(cmd.Flags())
	return cmd
}
