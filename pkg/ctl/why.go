package ctl

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/placement"
)

// maxPlacement bounds what is read of a placement.
const maxPlacement = 4 << 20

func (t *tool) why() *cobra.Command {
	return &cobra.Command{
		Use:               "why pod/NAME",
		Short:             "Say why a pod is on its node, or on none",
		Long:              "Say why a pod is on its node, or on none, and what would have to change: the scheduler's last verdict, node group by node group.",
		Example:           "  ctl why pod/web-0\n  ctl why web-0 -n shop",
		Args:              between(1, 1, "one pod"),
		ValidArgsFunction: t.completeNames("pods"),
		RunE:              func(cmd *cobra.Command, args []string) error { return t.sayWhy(cmd.Context(), args[0]) },
	}
}

func (t *tool) sayWhy(ctx context.Context, arg string) error {
	name := arg
	if kind, rest, ok := strings.Cut(arg, "/"); ok {
		if kind != "pod" && kind != "pods" && kind != "po" {
			return usagef("%s is no pod: give pod/NAME", arg)
		}
		name = rest
	}
	ns, _, err := t.namespace()
	if err != nil {
		return err
	}
	client, err := t.client()
	if err != nil {
		return err
	}
	pod, err := client.CoreV1().Pods(ns).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	path := fmt.Sprintf("/apis/%s/namespaces/%s/%s/%s", placement.GroupVersion(), ns, placement.Resource, name)
	body, err := client.CoreV1().RESTClient().Get().AbsPath(path).SetHeader("Accept", "application/json").Stream(ctx)
	if apierrors.IsNotFound(err) {
		return t.noVerdict(pod)
	}
	if err != nil {
		return err
	}
	defer body.Close()
	var p placement.PodPlacement
	if err := json.NewDecoder(io.LimitReader(body, maxPlacement)).Decode(&p); err != nil {
		return fmt.Errorf("read the scheduler's verdict: %w", err)
	}
	if p.UID != pod.UID {
		return t.noVerdict(pod)
	}
	return t.printVerdict(&p, time.Now())
}

// noVerdict says what the pod itself tells.
func (t *tool) noVerdict(pod *corev1.Pod) error {
	whose := "Pod " + pod.Namespace + "/" + pod.Name
	switch {
	case pod.Spec.NodeName != "":
		fmt.Fprintf(t.Out, "%s is on node %s. The scheduler has no verdict about it any more, or never had: it may have been told the node, or have been placed before the scheduler started.\n", escape(whose), escape(pod.Spec.NodeName))
	case pod.DeletionTimestamp != nil:
		fmt.Fprintf(t.Out, "%s is being deleted.\n", escape(whose))
	case len(pod.Spec.SchedulingGates) > 0:
		var gates []string
		for _, g := range pod.Spec.SchedulingGates {
			gates = append(gates, g.Name)
		}
		fmt.Fprintf(t.Out, "%s is held back by its scheduling gates. Whoever set them removes them: %s\n", escape(whose), escape(strings.Join(gates, ", ")))
	default:
		fmt.Fprintf(t.Out, "%s has not been looked at. Is there a scheduler of the name %q that says why it decides so?\n", escape(whose), pod.Spec.SchedulerName)
	}
	return nil
}

// printVerdict prints what the scheduler said last.
func (t *tool) printVerdict(p *placement.PodPlacement, now time.Time) error {
	s := &p.Status
	what := "fits on none of " + count(s.Nodes, "node")
	switch s.Result {
	case placement.Placed:
		what = "was placed on node " + s.NodeName
	case placement.Preempting:
		what = "waits for room that is made on node " + s.NodeName
	}
	fmt.Fprintf(t.Out, "Pod %s/%s %s (%s, attempt %d, %s ago).\n", escape(p.Namespace), escape(p.Name), escape(what), escape(s.SchedulerName), s.Attempts, age(s.Time.Time, now))
	if err := t.printRefusals(s.Refusals); err != nil {
		return err
	}
	if err := t.printScores(s.Scores); err != nil {
		return err
	}
	if s.Message != "" {
		fmt.Fprintf(t.Out, "\n%s\n", escape(s.Message))
	}
	if len(s.Advice) > 0 {
		fmt.Fprintln(t.Out, "\nWhat would have to change first, any one of:")
		for _, line := range s.Advice {
			fmt.Fprintf(t.Out, "  - %s\n", escape(line))
		}
	}
	return nil
}

func (t *tool) printRefusals(refusals []placement.Refusal) error {
	if len(refusals) == 0 {
		return nil
	}
	fmt.Fprintln(t.Out)
	w := tabwriter.NewWriter(t.Out, 0, 8, 3, ' ', 0)
	fmt.Fprintln(w, "NODES\tREFUSED BY\tREASON\tPREEMPTION\tFOR EXAMPLE")
	for i := range refusals {
		r := &refusals[i]
		nodes, helps, examples := fmt.Sprint(r.Nodes), "cannot help", strings.Join(r.Examples, ",")
		if r.Nodes == 0 {
			nodes = "all"
		}
		if r.Preemptible {
			helps = "may help"
		}
		if r.Nodes > len(r.Examples) && len(r.Examples) > 0 {
			examples += ",..."
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", nodes, escape(r.Plugin), escape(strings.Join(r.Reasons, ", ")), helps, escape(examples))
	}
	return w.Flush()
}

func (t *tool) printScores(scores []placement.NodeScore) error {
	if len(scores) == 0 {
		return nil
	}
	fmt.Fprintln(t.Out)
	w := tabwriter.NewWriter(t.Out, 0, 8, 3, ' ', 0)
	fmt.Fprint(w, "NODE\tTOTAL")
	for _, p := range scores[0].Plugins {
		fmt.Fprintf(w, "\t%s(x%d)", escape(p.Plugin), p.Weight)
	}
	fmt.Fprintln(w)
	for i := range scores {
		fmt.Fprintf(w, "%s\t%d", escape(scores[i].Node), scores[i].Total)
		for _, p := range scores[i].Plugins {
			fmt.Fprintf(w, "\t%d", p.Score)
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
