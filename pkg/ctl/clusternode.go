package ctl

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"coracle/pkg/cluster"
)

// nodeAction is an operation on one node of a cluster.
type nodeAction struct {
	name, short string
	do          func(m *cluster.Machine, ctx context.Context, cluster, node string) error
	done        string
}

func (t *tool) clusterNode() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Switch the nodes of a local cluster on and off, and cut them off",
	}
	for _, a := range []nodeAction{
		{"stop", "Shut a node down in order", (*cluster.Machine).NodeStop, "stopped"},
		{"start", "Power a node on", (*cluster.Machine).NodeStart, "started"},
		{"kill", "Pull a node's plug: every process of it ends at once", (*cluster.Machine).NodeKill, "killed"},
		{"partition", "Cut a node off from everything else; what runs on it goes on", (*cluster.Machine).NodePartition, "partitioned"},
		{"heal", "End a partition", (*cluster.Machine).NodeHeal, "healed"},
	} {
		cmd.AddCommand(t.nodeVerb(a))
	}
	cmd.AddCommand(t.nodeList())
	return cmd
}

func (t *tool) nodeVerb(a nodeAction) *cobra.Command {
	return &cobra.Command{
		Use:               a.name + " CLUSTER NODE",
		Short:             a.short,
		Args:              between(2, 2, "the cluster and the node (\"ctl cluster node list CLUSTER\" shows the nodes)"),
		ValidArgsFunction: t.completeClusterNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.do(t.machine(nil), cmd.Context(), args[0], args[1]); err != nil {
				return err
			}
			fmt.Fprintf(t.Out, "node/%s %s\n", args[1], a.done)
			return nil
		},
	}
}

func (t *tool) nodeList() *cobra.Command {
	return &cobra.Command{
		Use:               "list [CLUSTER]",
		Short:             "List the nodes of a local cluster as this machine sees them",
		Args:              between(0, 1, "one name of a cluster, or none for "+defaultCluster),
		ValidArgsFunction: t.completeClusters,
		RunE: func(_ *cobra.Command, args []string) error {
			nodes, err := t.machine(nil).Nodes(nameOf(args))
			if err != nil {
				return err
			}
			w := t.table()
			fmt.Fprintln(w, "NAME\tSTATE\tADDRESS\tPID")
			for _, n := range nodes {
				state, pid := "stopped", "-"
				if n.Running {
					state, pid = "running", fmt.Sprint(n.PID)
					if !n.Connected {
						state = "partitioned"
					}
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", n.Name, state, n.Address, pid)
			}
			return w.Flush()
		},
	}
}

// nodeInit is what pkg/cluster runs as the first process of a node.
func (t *tool) nodeInit() *cobra.Command {
	var config string
	cmd := &cobra.Command{
		Use:    "node-init",
		Short:  "The first process of a node, started by \"ctl cluster\"",
		Hidden: true,
		Args:   between(0, 0, "none"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if code := cluster.NodeInit(cmd.Context(), config); code != 0 {
				return &exitError{code: code}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&config, "config", "", "the node's configuration")
	return cmd
}

// completeClusterNodes offers clusters, then their nodes.
func (t *tool) completeClusterNodes(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) != 1 {
		return t.completeClusters(cmd, args, word)
	}
	nodes, err := t.machine(nil).Nodes(args[0])
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names := make([]string, 0, len(nodes))
	for _, n := range nodes {
		names = append(names, n.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
