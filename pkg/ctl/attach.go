package ctl

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
)

func (t *tool) attach() *cobra.Command {
	var container string
	var stdin, tty, quiet bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:               "attach POD|TYPE/NAME [-c CONTAINER] [-it]",
		Short:             "Connect to the main process of a container",
		Args:              between(1, 1, "one pod"),
		ValidArgsFunction: t.completeNames("pods", "deployments"),
		RunE: func(cmd *cobra.Command, args []string) error {
			tg, err := t.podsOf(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			pod := &tg.pods[0]
			name, err := t.containerOf(pod, container, quiet)
			if err != nil {
				return err
			}
			if pod, err = t.awaitPod(cmd.Context(), pod, timeout, func(p *corev1.Pod) (bool, error) { return containerRuns(p, name) }); err != nil {
				return err
			}
			c := t.console(stdin, tty)
			if c.tty && !quiet {
				fmt.Fprintln(t.Err, "If there is no prompt, press Enter.")
			}
			return t.attachTo(cmd.Context(), pod, name, c)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&container, "container", "c", "", "container; the first one when empty")
	f.BoolVarP(&stdin, "stdin", "i", false, "pass the input on")
	f.BoolVarP(&tty, "tty", "t", false, "the container has a terminal")
	f.BoolVarP(&quiet, "quiet", "q", false, "print the container's output alone")
	f.DurationVar(&timeout, "pod-running-timeout", podTimeout, "how long to wait for the container to run")
	_ = cmd.RegisterFlagCompletionFunc("container", t.completeContainers)
	return cmd
}

// attachTo connects to a container. The terminal is the container's own or
// none.
func (t *tool) attachTo(ctx context.Context, pod *corev1.Pod, container string, c console) error {
	for _, spec := range pod.Spec.Containers {
		if spec.Name == container && c.tty && !spec.TTY {
			fmt.Fprintf(t.Err, "Container %s was made without a terminal, so -t is left out\n", container)
			c.tty = false
		}
	}
	client, err := t.client()
	if err != nil {
		return err
	}
	req := client.CoreV1().RESTClient().Post().Namespace(pod.Namespace).Resource("pods").Name(pod.Name).SubResource("attach").
		VersionedParams(&corev1.PodAttachOptions{
			Container: container, Stdin: c.stdin != nil, Stdout: true, Stderr: !c.tty, TTY: c.tty,
		}, scheme.ParameterCodec)
	return t.stream(ctx, req, c)
}

// containerRuns is true for a running container; it is an error when the
// container has ended for good.
func containerRuns(p *corev1.Pod, name string) (bool, error) {
	if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return false, fmt.Errorf("pod %s has ended (%s): \"ctl logs %[1]s\" shows what it printed", p.Name, p.Status.Phase)
	}
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses, p.Status.EphemeralContainerStatuses) {
		if s.Name == name && s.State.Running != nil {
			return true, nil
		}
	}
	return false, nil
}
