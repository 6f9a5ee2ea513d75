package ctl

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func (t *tool) auth() *cobra.Command {
	cmd := &cobra.Command{Use: "auth", Short: "Ask who one is and what one may do"}
	cmd.AddCommand(t.canI(), t.whoami())
	return cmd
}

func (t *tool) whoami() *cobra.Command {
	return &cobra.Command{
		Use:   "whoami",
		Short: "Print the name and the groups by which the server knows you",
		Args:  between(0, 0, "none"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := t.client()
			if err != nil {
				return err
			}
			me, err := client.AuthenticationV1().SelfSubjectReviews().Create(cmd.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
			if err != nil {
				return err
			}
			info := me.Status.UserInfo
			w := t.table()
			fmt.Fprintln(w, "ATTRIBUTE\tVALUE")
			fmt.Fprintf(w, "Username\t%s\n", info.Username)
			if info.UID != "" {
				fmt.Fprintf(w, "UID\t%s\n", info.UID)
			}
			fmt.Fprintf(w, "Groups\t%v\n", info.Groups)
			extra := map[string][]string{}
			for k, v := range info.Extra {
				extra[k] = v
			}
			for _, k := range sortedKeys(extra) {
				fmt.Fprintf(w, "Extra: %s\t%v\n", k, extra[k])
			}
			return w.Flush()
		},
	}
}

func (t *tool) canI() *cobra.Command {
	var list, all, quiet, noHeaders bool
	var sub string
	cmd := &cobra.Command{
		Use:     "can-i VERB TYPE[/NAME] | VERB URL | --list",
		Short:   "Ask whether one may do something; the exit code is 1 for no",
		Example: "  ctl auth can-i create pods -n test\n  ctl auth can-i get pods --subresource=log\n  ctl auth can-i --list --as=jane",
		Args:    between(0, 3, "a verb and a type"),
	}
	f := cmd.Flags()
	f.BoolVar(&list, "list", false, "list all that one may do in the namespace")
	f.BoolVarP(&all, "all-namespaces", "A", false, "in all namespaces")
	f.BoolVarP(&quiet, "quiet", "q", false, "print nothing")
	f.BoolVar(&noHeaders, "no-headers", false, "leave the headers out")
	f.StringVar(&sub, "subresource", "", "of this subresource, for example log")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ns, _, err := t.namespace()
		if err != nil {
			return err
		}
		if all {
			ns = metav1.NamespaceAll
		}
		if list {
			return t.listRules(cmd.Context(), ns, noHeaders)
		}
		if len(args) < 2 {
			return usagef("say what, for example: ctl auth can-i create pods")
		}
		spec, err := t.accessOf(args, sub, ns)
		if err != nil {
			return err
		}
		client, err := t.client()
		if err != nil {
			return err
		}
		got, err := client.AuthorizationV1().SelfSubjectAccessReviews().Create(cmd.Context(), &authorizationv1.SelfSubjectAccessReview{Spec: *spec}, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		answer := "no"
		if got.Status.Allowed {
			answer = "yes"
		}
		if got.Status.Reason != "" && !got.Status.Allowed {
			answer += " - " + got.Status.Reason
		}
		if !quiet {
			fmt.Fprintln(t.Out, escape(answer))
		}
		if !got.Status.Allowed {
			return &exitError{code: 1}
		}
		return nil
	}
	return cmd
}

// accessOf makes the question for the server.
func (t *tool) accessOf(args []string, sub, ns string) (*authorizationv1.SelfSubjectAccessReviewSpec, error) {
	if strings.HasPrefix(args[1], "/") {
		return &authorizationv1.SelfSubjectAccessReviewSpec{NonResourceAttributes: &authorizationv1.NonResourceAttributes{Verb: args[0], Path: args[1]}}, nil
	}
	kind, name, _ := strings.Cut(args[1], "/")
	if len(args) == 3 {
		name = args[2]
	}
	gr := schema.ParseGroupResource(kind)
	if kind != "*" {
		mapper, err := t.flags.ToRESTMapper()
		if err != nil {
			return nil, err
		}
		if gvr, err := mapper.ResourceFor(gr.WithVersion("")); err == nil {
			gr = gvr.GroupResource()
		} else {
			fmt.Fprintf(t.Err, "Warning: the server does not have a resource type %q\n", kind)
		}
	}
	return &authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
		Namespace: ns, Verb: args[0], Group: gr.Group, Resource: gr.Resource, Subresource: sub, Name: name,
	}}, nil
}

func (t *tool) listRules(ctx context.Context, ns string, noHeaders bool) error {
	client, err := t.client()
	if err != nil {
		return err
	}
	if ns == "" {
		ns = metav1.NamespaceDefault
	}
	got, err := client.AuthorizationV1().SelfSubjectRulesReviews().Create(ctx,
		&authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: ns}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	if got.Status.Incomplete {
		fmt.Fprintf(t.Err, "Warning: the list is not complete: %s\n", escape(got.Status.EvaluationError))
	}
	w := t.table()
	if !noHeaders {
		fmt.Fprintln(w, "Resources\tNon-Resource URLs\tResource Names\tVerbs")
	}
	for _, r := range got.Status.ResourceRules {
		var names []string
		for _, g := range r.APIGroups {
			for _, res := range r.Resources {
				names = append(names, schema.GroupResource{Group: g, Resource: res}.String())
			}
		}
		fmt.Fprintf(w, "%s\t[]\t%v\t%v\n", strings.Join(names, ","), r.ResourceNames, r.Verbs)
	}
	for _, r := range got.Status.NonResourceRules {
		fmt.Fprintf(w, "\t%v\t[]\t%v\n", r.NonResourceURLs, r.Verbs)
	}
	return w.Flush()
}
