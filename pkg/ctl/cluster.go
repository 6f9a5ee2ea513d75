package ctl

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"coracle/pkg/cluster"
)

// defaultCluster is the name of a cluster when none is given.
const defaultCluster = "coracle"

// machine is this computer as a host of clusters.
func (t *tool) machine(images []string) *cluster.Machine {
	return &cluster.Machine{Out: t.Out, Images: images, Kubeconfig: *t.flags.KubeConfig}
}

func (t *tool) cluster() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cluster",
		Short: "Make, stop and delete local clusters",
		Long:  "Local clusters are made of real nodes on this machine, each a set of Linux namespaces with its own containerd and kubelet. Root is needed.",
	}
	cmd.AddCommand(t.clusterCreate(), t.clusterDelete(), t.clusterList(), t.clusterStart(), t.clusterStop(),
		t.clusterKubeconfig(), t.clusterRotateKey(), t.clusterRotateCA(), t.clusterCerts(), t.clusterRevoke(), t.clusterNode())
	return cmd
}

// nameOf returns the first argument, or the default cluster.
func nameOf(args []string) string {
	if len(args) > 0 {
		return args[0]
	}
	return defaultCluster
}

func (t *tool) clusterCreate() *cobra.Command {
	var opts cluster.CreateOptions
	failure := cluster.DefaultNodeFailure()
	opts.NodeFailure = &failure
	var images []string
	cmd := &cobra.Command{
		Use:   "create [NAME]",
		Short: "Create a cluster and wait until its nodes are ready",
		Args:  between(0, 1, "one name of a cluster, or none for "+defaultCluster),
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.Name = nameOf(args)
			if opts.SimulatedNodes > 0 && !cmd.Flags().Changed("nodes") {
				opts.Nodes = 0
			}
			return t.machine(images).Create(cmd.Context(), opts)
		},
	}
	f := cmd.Flags()
	f.IntVar(&opts.Nodes, "nodes", 3, "how many nodes; none by default when there are simulated ones")
	f.IntVar(&opts.SimulatedNodes, "simulated-nodes", 0, "how many nodes without containers: real API traffic, for trying out large clusters. Beside nodes with containers they are tainted "+cluster.SimulatedTaint)
	f.StringArrayVar(&opts.SimulatedFlags, "simulated-flag", nil, "a flag of the kubelet for the simulated nodes, for example --simulated-flag=--simulated-start-time=1s; can be given several times")
	f.IntVar(&opts.Port, "port", 0, "port of the API server; 0 takes the first free one from 6443 on")
	f.StringSliceVar(&images, "images", nil, "archives of images, or folders of them, to load into every node")
	f.BoolVar(&opts.Egress, "egress", false, "let pods and nodes reach addresses outside of the cluster")
	f.BoolVar(&opts.Hardened, "hardened", false, "refuse some of what Kubernetes accepts: docs/security.md has the list")
	f.DurationVar(&failure.Grace.Duration, "node-monitor-grace-period", failure.Grace.Duration, "how long a node may be silent before it counts as lost; nodes renew their lease every 10s")
	f.Int64Var(&failure.NotReadySeconds, "default-not-ready-toleration-seconds", failure.NotReadySeconds, "how long pods that do not say stay on a node that is not ready")
	f.Int64Var(&failure.UnreachableSeconds, "default-unreachable-toleration-seconds", failure.UnreachableSeconds, "how long pods that do not say stay on a node that is lost")
	f.BoolVar(&opts.Ensure, "ensure", false, "start the cluster when it exists, instead of failing")
	f.BoolVar(&opts.NoKubeconfig, "no-kubeconfig", false, "do not add a context to the kubeconfig")
	return cmd
}

func (t *tool) clusterDelete() *cobra.Command {
	var ignore bool
	cmd := &cobra.Command{
		Use:               "delete [NAME]",
		Short:             "Delete a cluster with everything that belongs to it",
		Args:              between(0, 1, "one name of a cluster, or none for "+defaultCluster),
		ValidArgsFunction: t.completeClusters,
		RunE: func(cmd *cobra.Command, args []string) error {
			err := t.machine(nil).Delete(cmd.Context(), nameOf(args))
			if ignore && errors.Is(err, cluster.ErrNotFound) {
				return nil
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&ignore, "ignore-not-found", false, "a cluster that does not exist is no error")
	return cmd
}

func (t *tool) clusterList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the clusters of this machine",
		Args:  between(0, 0, "none"),
		RunE: func(*cobra.Command, []string) error {
			all, err := t.machine(nil).List()
			if err != nil {
				return err
			}
			if len(all) == 0 {
				fmt.Fprintln(t.Err, "There is no cluster on this machine. Make one with \"ctl cluster create\".")
				return nil
			}
			w := t.table()
			fmt.Fprintln(w, "NAME\tSTATE\tNODES\tENDPOINT\tAGE")
			for _, c := range all {
				fmt.Fprintf(w, "%s\t%s\t%d/%d\t%s\t%s\n", c.Name, c.State, c.Running, c.Nodes, c.Endpoint,
					age(c.Created, time.Now()))
			}
			return w.Flush()
		},
	}
}

func (t *tool) clusterStart() *cobra.Command {
	var images []string
	cmd := &cobra.Command{
		Use:               "start [NAME]",
		Short:             "Bring a stopped cluster back, with its pods",
		Args:              between(0, 1, "one name of a cluster, or none for "+defaultCluster),
		ValidArgsFunction: t.completeClusters,
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.machine(images).Start(cmd.Context(), nameOf(args))
		},
	}
	cmd.Flags().StringSliceVar(&images, "images", nil, "archives of images, or folders of them, to load into every node")
	return cmd
}

func (t *tool) clusterStop() *cobra.Command {
	return &cobra.Command{
		Use:               "stop [NAME]",
		Short:             "Shut a cluster down and keep all it has",
		Args:              between(0, 1, "one name of a cluster, or none for "+defaultCluster),
		ValidArgsFunction: t.completeClusters,
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.machine(nil).Stop(cmd.Context(), nameOf(args))
		},
	}
}

func (t *tool) clusterKubeconfig() *cobra.Command {
	return &cobra.Command{
		Use:               "kubeconfig [NAME]",
		Short:             "Print a kubeconfig with this cluster's context alone",
		Args:              between(0, 1, "one name of a cluster, or none for "+defaultCluster),
		ValidArgsFunction: t.completeClusters,
		RunE: func(_ *cobra.Command, args []string) error {
			data, err := t.machine(nil).KubeconfigOf(nameOf(args))
			if err != nil {
				return err
			}
			_, err = t.Out.Write(data)
			return err
		},
	}
}

func (t *tool) clusterRotateKey() *cobra.Command {
	return &cobra.Command{
		Use:   "rotate-key [NAME]",
		Short: "Encrypt the stored Secrets of a cluster with a new key",
		Long: "Make a new key, and have the API server encrypt all stored Secrets with it. The two keys before are kept,\n" +
			"for backups that were made with them. A rotation that was interrupted is finished, and no other begun.",
		Args:              between(0, 1, "one name of a cluster, or none for "+defaultCluster),
		ValidArgsFunction: t.completeClusters,
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.machine(nil).RotateKey(cmd.Context(), nameOf(args))
		},
	}
}

// completeClusters offers the clusters of this machine as first argument.
func (t *tool) completeClusters(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	all, err := t.machine(nil).List()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names := make([]string, 0, len(all))
	for _, c := range all {
		names = append(names, c.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
