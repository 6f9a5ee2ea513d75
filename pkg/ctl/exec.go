package ctl

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
)

// podTimeout is how long exec, attach, logs and port-forward wait for the pod
// of a workload to run.
const podTimeout = time.Minute

func (t *tool) exec() *cobra.Command {
	var container string
	var stdin, tty, quiet bool
	cmd := &cobra.Command{
		Use:     "exec POD|TYPE/NAME [-c CONTAINER] [-it] -- COMMAND [ARG...]",
		Short:   "Run a command in a container",
		Long:    "Run a command in a container. The exit code is the command's.",
		Example: "  ctl exec -it web-0 -- sh\n  ctl exec deploy/web -- cat /etc/hosts",
		Args: func(cmd *cobra.Command, args []string) error {
			dash := cmd.ArgsLenAtDash()
			if dash < 0 && len(args) > 1 || dash >= 0 && dash != 1 || len(args) < 2 {
				return usagef("name one pod, and the command after --, for example: ctl exec web-0 -- ls /")
			}
			return nil
		},
		ValidArgsFunction: t.completeNames("pods", "deployments", "services"),
		RunE: func(cmd *cobra.Command, args []string) error {
			tg, err := t.podsOf(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			pod := &tg.pods[0]
			if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
				return fmt.Errorf("pod %s has ended (%s): nothing can run in it", pod.Name, pod.Status.Phase)
			}
			name, err := t.containerOf(pod, container, quiet)
			if err != nil {
				return err
			}
			return t.execIn(cmd.Context(), pod, name, args[1:], t.console(stdin, tty))
		},
	}
	f := cmd.Flags()
	f.StringVarP(&container, "container", "c", "", "container; the first one when empty")
	f.BoolVarP(&stdin, "stdin", "i", false, "pass the input on")
	f.BoolVarP(&tty, "tty", "t", false, "the command gets a terminal")
	f.BoolVarP(&quiet, "quiet", "q", false, "print the command's output alone")
	_ = cmd.RegisterFlagCompletionFunc("container", t.completeContainers)
	return cmd
}

// execIn runs a command in a container of a pod.
func (t *tool) execIn(ctx context.Context, pod *corev1.Pod, container string, command []string, c console) error {
	client, err := t.client()
	if err != nil {
		return err
	}
	req := client.CoreV1().RESTClient().Post().Namespace(pod.Namespace).Resource("pods").Name(pod.Name).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{
			Container: container, Command: command, Stdin: c.stdin != nil, Stdout: true, Stderr: !c.tty, TTY: c.tty,
		}, scheme.ParameterCodec)
	return t.stream(ctx, req, c)
}

// completeContainers offers the containers of the pod on the command line.
func (t *tool) completeContainers(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return nil, noFiles
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
	defer cancel()
	tg, err := t.podsOf(ctx, args[0])
	if err != nil {
		return nil, noFiles
	}
	var out []string
	for _, c := range tg.pods[0].Spec.Containers {
		out = append(out, c.Name)
	}
	for _, c := range tg.pods[0].Spec.InitContainers {
		out = append(out, c.Name)
	}
	return out, noFiles
}
