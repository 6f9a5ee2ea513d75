package ctl

import (
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"coracle/pkg/cluster"
	"coracle/pkg/image"
)

func (t *tool) image() *cobra.Command {
	cmd := &cobra.Command{Use: "image", Short: "Put images into the nodes of a local cluster, and list them"}
	cmd.AddCommand(t.imageLoad(), t.imageList(), t.imagePull())
	return cmd
}

// clusterFlag adds the flag that names the cluster.
func clusterFlag(cmd *cobra.Command, name *string) {
	cmd.Flags().StringVar(name, "name", "", "name of the local cluster; the only one of this machine when empty")
}

// pick returns the named cluster, or the one that is meant: the current
// context's, or the only one there is.
func (t *tool) pick(m *cluster.Machine, name string) (string, error) {
	if name != "" {
		return name, nil
	}
	all, err := m.List()
	if err != nil {
		return "", err
	}
	if len(all) == 0 {
		return "", fmt.Errorf("there is no cluster on this machine: make one with \"ctl cluster create\"")
	}
	current := *t.flags.Context
	if cfg, err := t.flags.ToRawKubeConfigLoader().RawConfig(); current == "" && err == nil {
		current = cfg.CurrentContext
	}
	names := make([]string, len(all))
	for i, c := range all {
		names[i] = c.Name
	}
	switch {
	case slices.Contains(names, current):
		return current, nil
	case len(names) == 1:
		return names[0], nil
	}
	return "", fmt.Errorf("this machine has the clusters %q, and the current context is none of them: say which with --name", names)
}

func (t *tool) imageLoad() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "load ARCHIVE...",
		Short: "Load image archives into every node that lacks them",
		Long:  "Load image archives (\"docker save\" files, or tar files of an OCI layout) into every running node of a local cluster. Only what is missing is sent.",
		Args:  between(1, -1, "at least one archive"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var images []image.Named
			for _, file := range args {
				a, err := image.Open(file)
				if err != nil {
					return err
				}
				defer a.Close()
				images = append(images, a.Images...)
			}
			return t.loadImages(cmd, name, images)
		},
	}
	clusterFlag(cmd, &name)
	return cmd
}

func (t *tool) loadImages(cmd *cobra.Command, name string, images []image.Named) error {
	m := t.machine(nil)
	name, err := t.pick(m, name)
	if err != nil {
		return err
	}
	changed, nodes, err := m.LoadImages(cmd.Context(), name, images)
	if err != nil {
		return err
	}
	for _, n := range images {
		fmt.Fprintln(t.Out, n.Ref)
	}
	if changed == 0 {
		fmt.Fprintf(t.Out, "Cluster %s had all of them already.\n", name)
		return nil
	}
	fmt.Fprintf(t.Out, "Cluster %s: loaded into %d nodes.\n", name, nodes)
	return nil
}

func (t *tool) imagePull() *cobra.Command {
	var name string
	var opts image.PullOptions
	cmd := &cobra.Command{
		Use:   "pull IMAGE...",
		Short: "Fetch images on this machine and load them into every node",
		Long:  "Fetch images from their registries on this machine, with the credentials of the user's Docker configuration, and load them into every running node. A cluster without --egress needs this for images from the network.",
		Args:  between(1, -1, "at least one image"),
		RunE: func(cmd *cobra.Command, args []string) error {
			images := make([]image.Named, 0, len(args))
			for _, ref := range args {
				n, err := image.Pull(cmd.Context(), ref, opts)
				if err != nil {
					return err
				}
				images = append(images, n)
			}
			return t.loadImages(cmd, name, images)
		},
	}
	clusterFlag(cmd, &name)
	cmd.Flags().BoolVar(&opts.PlainHTTP, "plain-http", false, "allow a registry without TLS")
	return cmd
}

func (t *tool) imageList() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the images in the nodes of a local cluster",
		Args:  between(0, 0, "none"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			m := t.machine(nil)
			name, err := t.pick(m, name)
			if err != nil {
				return err
			}
			nodes, err := m.NodeImages(cmd.Context(), name)
			if err != nil {
				return err
			}
			w := t.table()
			fmt.Fprintln(w, "IMAGE\tSIZE\tNODES\tDIGEST")
			for _, r := range imageRows(nodes) {
				fmt.Fprintf(w, "%s\t%s\t%d/%d\t%s\n", r.Ref, byteSize(r.Size), r.nodes, len(nodes), r.Digest)
			}
			return w.Flush()
		},
	}
	clusterFlag(cmd, &name)
	return cmd
}

// byteSize is a size as people read it.
func byteSize(n int64) string {
	switch {
	case n <= 0:
		return "-"
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}

// imageRow is one image with the number of nodes that have it.
type imageRow struct {
	image.Info
	nodes int
}

// imageRows joins the lists of all nodes, by reference and digest.
func imageRows(nodes map[string][]image.Info) []imageRow {
	type key struct{ ref, digest string }
	rows := map[key]imageRow{}
	for _, infos := range nodes {
		for _, info := range infos {
			k := key{info.Ref, info.Digest}
			rows[k] = imageRow{Info: info, nodes: rows[k].nodes + 1}
		}
	}
	keys := slices.SortedFunc(maps.Keys(rows), func(a, b key) int {
		return slices.Compare([]string{a.ref, a.digest}, []string{b.ref, b.digest})
	})
	out := make([]imageRow, 0, len(keys))
	for _, k := range keys {
		out = append(out, rows[k])
	}
	return out
}
