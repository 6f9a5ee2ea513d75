package ctl

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

func (t *tool) configure() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Choose between the clusters of the kubeconfig"}
	cmd.AddCommand(t.getContexts(), t.useContext(), t.currentContext(), t.setNamespace())
	return cmd
}

// kubeconfig reads the files that the flags and the environment name.
func (t *tool) kubeconfig() (clientcmd.ConfigAccess, *clientcmdapi.Config, error) {
	access := t.flags.ToRawKubeConfigLoader().ConfigAccess()
	cfg, err := access.GetStartingConfig()
	if err != nil {
		return nil, nil, fmt.Errorf("read the kubeconfig: %w", err)
	}
	return access, cfg, nil
}

func (t *tool) getContexts() *cobra.Command {
	var output string
	var noHeaders bool
	cmd := &cobra.Command{
		Use:   "get-contexts",
		Short: "List the contexts: which cluster, as whom, in which namespace",
		Args:  between(0, 0, "none"),
		RunE: func(*cobra.Command, []string) error {
			_, cfg, err := t.kubeconfig()
			if err != nil {
				return err
			}
			if len(cfg.Contexts) == 0 {
				return errors.New(t.noKubeconfig())
			}
			w := t.table()
			if !noHeaders && output != "name" {
				fmt.Fprintln(w, "CURRENT\tNAME\tCLUSTER\tAUTHINFO\tNAMESPACE")
			}
			for _, name := range sortedKeys(cfg.Contexts) {
				if output == "name" {
					fmt.Fprintln(w, name)
					continue
				}
				mark := ""
				if name == cfg.CurrentContext {
					mark = "*"
				}
				c := cfg.Contexts[name]
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", mark, name, c.Cluster, c.AuthInfo, c.Namespace)
			}
			return w.Flush()
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "name prints the names alone")
	cmd.Flags().BoolVar(&noHeaders, "no-headers", false, "leave the headers out")
	return cmd
}

func (t *tool) useContext() *cobra.Command {
	return &cobra.Command{
		Use:     "use-context NAME",
		Aliases: []string{"use"},
		Short:   "Make a context the current one",
		Args:    between(1, 1, "the name of a context (\"ctl config get-contexts\" lists them)"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return t.contextNames(), noFiles
		},
		RunE: func(_ *cobra.Command, args []string) error {
			access, cfg, err := t.kubeconfig()
			if err != nil {
				return err
			}
			if cfg.Contexts[args[0]] == nil {
				return fmt.Errorf("there is no context %q. %s", args[0], t.contextHint())
			}
			cfg.CurrentContext = args[0]
			if err := clientcmd.ModifyConfig(access, *cfg, true); err != nil {
				return fmt.Errorf("write the kubeconfig: %w", err)
			}
			fmt.Fprintf(t.Out, "Switched to context %q.\n", args[0])
			return nil
		},
	}
}

func (t *tool) currentContext() *cobra.Command {
	return &cobra.Command{
		Use:   "current-context",
		Short: "Print the name of the current context",
		Args:  between(0, 0, "none"),
		RunE: func(*cobra.Command, []string) error {
			_, cfg, err := t.kubeconfig()
			if err != nil {
				return err
			}
			if cfg.CurrentContext == "" {
				return errors.New("no context is current: choose one with \"ctl config use-context NAME\"")
			}
			fmt.Fprintln(t.Out, cfg.CurrentContext)
			return nil
		},
	}
}

func (t *tool) setNamespace() *cobra.Command {
	return &cobra.Command{
		Use:   "set-namespace NAMESPACE",
		Short: "Make a namespace the default of the current context",
		Args:  between(1, 1, "a namespace"),
		ValidArgsFunction: func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			return t.names(cmd.Context(), "namespaces", "", nil), noFiles
		},
		RunE: func(_ *cobra.Command, args []string) error {
			access, cfg, err := t.kubeconfig()
			if err != nil {
				return err
			}
			c := cfg.Contexts[cfg.CurrentContext]
			if c == nil {
				return errors.New("no context is current: choose one with \"ctl config use-context NAME\"")
			}
			c.Namespace = args[0]
			if err := clientcmd.ModifyConfig(access, *cfg, true); err != nil {
				return fmt.Errorf("write the kubeconfig: %w", err)
			}
			fmt.Fprintf(t.Out, "Context %q is in namespace %s now.\n", cfg.CurrentContext, args[0])
			return nil
		},
	}
}
