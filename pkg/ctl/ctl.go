package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
)

// Streams are what a command line reads and prints to. In is only taken for a
// terminal when it is an *os.File that is one.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// tool is one run of ctl: its streams and where its cluster is.
type tool struct {
	Streams
	// flags say which cluster, user and namespace; they make the clients.
	flags *genericclioptions.ConfigFlags
}

// verbs lists all commands, in the order of the help.
func (t *tool) verbs() []*cobra.Command {
	return []*cobra.Command{
		t.get(),
		t.describe(),
		t.explainVerb(),
		t.why(),
		t.apply(),
		t.delete(),
		t.run(),
		t.create(),
		t.edit(),
		t.patch(),
		t.label(),
		t.annotate(),
		t.scale(),
		t.rollout(),
		t.expose(),
		t.wait(),
		t.cordon(),
		t.uncordon(),
		t.drain(),
		t.logs(),
		t.exec(),
		t.attach(),
		t.portForward(),
		t.cluster(),
		t.token(),
		t.join(),
		t.image(),
		t.clusterInfo(),
		t.version(),
		t.configure(),
		t.auth(),
		t.apiResources(),
		t.apiVersions(),
		t.completion(),
		t.nodeInit(),
	}
}

// Main runs a command line (without the program's name) and returns the exit
// code. It ends soon after ctx does.
func Main(ctx context.Context, args []string, s Streams) int {
	t := &tool{Streams: s, flags: genericclioptions.NewConfigFlags(true)}
	t.flags.WrapConfigFn = t.wrapConfig
	t.flags.WithDiscoveryBurst(300).WithDiscoveryQPS(50)
	root := t.root()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	var exit *exitError
	if errors.As(err, &exit) {
		if exit.err != nil {
			fmt.Fprintln(s.Err, "Error:", t.explain(exit.err))
		}
		return exit.code
	}
	fmt.Fprintln(s.Err, "Error:", t.explain(err))
	var usage *usageError
	if errors.As(err, &usage) {
		fmt.Fprintf(s.Err, "See '%s --help'.\n", cmd.CommandPath())
	}
	return 1
}

func (t *tool) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "ctl",
		Short: "Use a Kubernetes cluster, and make local ones",
		Long: "ctl works with any Kubernetes cluster, and makes local clusters of real nodes.\n\n" +
			"Begin with \"ctl cluster create\" and \"ctl run hello --image=busybox -it --rm -- sh\".",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetIn(t.In)
	root.SetOut(t.Out)
	root.SetErr(t.Err)
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	t.flags.AddFlags(root.PersistentFlags())
	hideRareFlags(root)
	t.completeFlags(root)
	root.AddCommand(t.verbs()...)
	return root
}

// hideRareFlags keeps the help of each verb to what is used; hidden flags work.
func hideRareFlags(root *cobra.Command) {
	for _, name := range []string{
		"as-group", "as-uid", "as-user-extra", "cache-dir", "certificate-authority", "client-certificate", "client-key",
		"cluster", "disable-compression", "insecure-skip-tls-verify", "password", "tls-server-name", "token", "user", "username",
	} {
		if f := root.PersistentFlags().Lookup(name); f != nil {
			f.Hidden = true
		}
	}
}
