package ctl

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// completeTimeout bounds what a press of the tab key waits for.
const completeTimeout = 3 * time.Second

// maxCompletions bounds what is offered.
const maxCompletions = 500

const noFiles = cobra.ShellCompDirectiveNoFileComp

// completeObjects offers types, then the names of objects of the type, and
// names after "TYPE/".
func (t *tool) completeObjects(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 && !strings.Contains(args[0], "/") {
		return t.names(cmd.Context(), args[0], "", args[1:]), noFiles
	}
	if kind, _, ok := strings.Cut(word, "/"); ok {
		return t.names(cmd.Context(), kind, kind+"/", args), noFiles
	}
	if len(args) > 0 {
		return nil, noFiles
	}
	all, _ := t.resources(false) // no answer means nothing to offer
	var out []string
	for _, r := range all {
		if !slices.Contains(r.Verbs, "list") {
			continue
		}
		name := r.Name
		if slices.ContainsFunc(all, func(o apiResource) bool { return o.Name == r.Name && o.gv.Group != r.gv.Group }) && r.gv.Group != "" {
			name = r.full()
		}
		out = append(out, name+"\t"+r.Kind)
	}
	return out, noFiles
}

// completeNames offers the names of objects of one type, and "TYPE/" with
// names for the further types.
func (t *tool) completeNames(kind string, others ...string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, noFiles
		}
		if other, _, ok := strings.Cut(word, "/"); ok {
			return t.names(cmd.Context(), other, other+"/", args), noFiles
		}
		out := t.names(cmd.Context(), kind, "", args)
		for _, o := range others {
			out = append(out, o+"/")
		}
		return out, noFiles | cobra.ShellCompDirectiveNoSpace
	}
}

// names lists objects of a type in the namespace of the command line, with a
// prefix, without those given already.
func (t *tool) names(ctx context.Context, kind, prefix string, given []string) []string {
	ctx, cancel := context.WithTimeout(ctx, completeTimeout)
	defer cancel()
	mapper, err := t.flags.ToRESTMapper()
	if err != nil {
		return nil
	}
	kind, _, _ = strings.Cut(kind, ",")
	gvr, err := mapper.ResourceFor(schema.ParseGroupResource(kind).WithVersion(""))
	if err != nil {
		return nil
	}
	gvk, err := mapper.KindFor(gvr)
	if err != nil {
		return nil
	}
	mapping, err := mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		return nil
	}
	d, err := t.dynamic()
	if err != nil {
		return nil
	}
	ns := ""
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		if ns, _, err = t.namespace(); err != nil {
			return nil
		}
	}
	list, err := d.Resource(gvr).Namespace(ns).List(ctx, metav1.ListOptions{Limit: maxCompletions})
	if err != nil {
		return nil
	}
	var out []string
	for _, item := range list.Items {
		if name := prefix + item.GetName(); !slices.Contains(given, name) {
			out = append(out, name)
		}
	}
	return out
}

// completeFlags offers values for the flags of all verbs.
func (t *tool) completeFlags(root *cobra.Command) {
	_ = root.RegisterFlagCompletionFunc("namespace", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return t.names(cmd.Context(), "namespaces", "", nil), noFiles
	})
	_ = root.RegisterFlagCompletionFunc("context", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return t.contextNames(), noFiles
	})
}

func (t *tool) contextNames() []string {
	raw, err := t.flags.ToRawKubeConfigLoader().RawConfig()
	if err != nil {
		return nil
	}
	var out []string
	for name := range raw.Contexts {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

func (t *tool) completion() *cobra.Command {
	cmd := &cobra.Command{
		Use:       "completion bash|zsh|fish",
		Short:     "Print the script that lets a shell complete commands",
		Long:      "Print the script that lets a shell complete commands, types and names.\n\n  bash:  source <(ctl completion bash)      (in ~/.bashrc)\n  zsh:   source <(ctl completion zsh)       (in ~/.zshrc)\n  fish:  ctl completion fish | source       (in ~/.config/fish/config.fish)",
		ValidArgs: []string{"bash", "zsh", "fish"},
		Args:      between(1, 1, "the shell: bash, zsh or fish"),
	}
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		switch args[0] {
		case "bash":
			return cmd.Root().GenBashCompletionV2(t.Out, true)
		case "zsh":
			return cmd.Root().GenZshCompletion(t.Out)
		case "fish":
			return cmd.Root().GenFishCompletion(t.Out, true)
		}
		return usagef("there is no completion for %q: use bash, zsh or fish", args[0])
	}
	return cmd
}
