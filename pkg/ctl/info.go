package ctl

import (
	"encoding/json"
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/version"
	"sigs.k8s.io/yaml"
)

func (t *tool) clusterInfo() *cobra.Command {
	return &cobra.Command{
		Use:   "cluster-info",
		Short: "Say where the cluster is and who one is there",
		Args:  between(0, 0, "none"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := t.config()
			if err != nil {
				return err
			}
			client, err := t.client()
			if err != nil {
				return err
			}
			v, err := client.Discovery().ServerVersion()
			if err != nil {
				return err
			}
			fmt.Fprintf(t.Out, "Kubernetes control plane is running at %s\n", cfg.Host)
			fmt.Fprintf(t.Out, "Version: %s\n", escape(v.GitVersion))
			me, err := client.AuthenticationV1().SelfSubjectReviews().Create(cmd.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
			if err == nil {
				fmt.Fprintf(t.Out, "You are %s\n", escape(me.Status.UserInfo.Username))
			}
			nodes, err := client.CoreV1().Nodes().List(cmd.Context(), metav1.ListOptions{})
			if err != nil {
				return nil // who may not list nodes knows where the cluster is all the same
			}
			ready := 0
			for i := range nodes.Items {
				if nodeReady(&nodes.Items[i]) {
					ready++
				}
			}
			fmt.Fprintf(t.Out, "Nodes: %d of %d ready\n", ready, len(nodes.Items))
			return nil
		},
	}
}

// versions is what version prints.
type versions struct {
	Client string        `json:"clientVersion"`
	Server *version.Info `json:"serverVersion,omitempty"`
}

func (t *tool) version() *cobra.Command {
	var output string
	var clientOnly bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the versions of ctl and of the server",
		Args:  between(0, 0, "none"),
		RunE: func(*cobra.Command, []string) error {
			v := versions{Client: buildVersion()}
			var serverErr error
			if !clientOnly {
				d, err := t.flags.ToDiscoveryClient()
				if err == nil {
					v.Server, err = d.ServerVersion()
				}
				serverErr = err
			}
			if err := t.printVersions(v, output); err != nil {
				return err
			}
			return serverErr
		},
	}
	cmd.Flags().BoolVar(&clientOnly, "client", false, "ctl's own only, without asking a server")
	cmd.Flags().StringVarP(&output, "output", "o", "", "json or yaml")
	return cmd
}

func (t *tool) printVersions(v versions, output string) error {
	switch output {
	case "":
		fmt.Fprintln(t.Out, "Client Version:", v.Client)
		if v.Server != nil {
			fmt.Fprintln(t.Out, "Server Version:", escape(v.Server.GitVersion))
		}
		return nil
	case "json":
		enc := json.NewEncoder(t.Out)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	case "yaml":
		data, err := yaml.Marshal(v)
		if err != nil {
			return err
		}
		_, err = t.Out.Write(data)
		return err
	}
	return usagef("-o %s is not known: use json or yaml", output)
}

// buildVersion is that of this program: its module's, or the commit.
func buildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return "devel-" + s.Value[:min(12, len(s.Value))]
		}
	}
	return "devel"
}
