package ctl

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"
)

func (t *tool) portForward() *cobra.Command {
	var addresses []string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:               "port-forward POD|TYPE/NAME [LOCAL:]REMOTE...",
		Short:             "Make ports of a pod reachable on this machine",
		Long:              "Make ports of a pod reachable on this machine, until it is interrupted. A port of a Service is the Service's, by number or name. :REMOTE takes any free local port.",
		Example:           "  ctl port-forward svc/web 8080:80\n  ctl port-forward web-0 8080 9090:metrics",
		Args:              between(2, -1, "a pod, or TYPE/NAME, and at least one port"),
		ValidArgsFunction: t.completeNames("pods", "services", "deployments"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			tg, err := t.podsOf(ctx, args[0])
			if err != nil {
				return err
			}
			pod := &tg.pods[0]
			if pod, err = t.awaitPod(ctx, pod, timeout, podRuns); err != nil {
				return err
			}
			ports, err := translatePorts(args[1:], tg, pod)
			if err != nil {
				return err
			}
			return t.forward(ctx, pod, addresses, ports)
		},
	}
	cmd.Flags().StringSliceVar(&addresses, "address", []string{"localhost"}, "local addresses to listen on; others than localhost let other machines in")
	cmd.Flags().DurationVar(&timeout, "pod-running-timeout", podTimeout, "how long to wait for the pod to run")
	return cmd
}

func podRuns(p *corev1.Pod) (bool, error) {
	switch p.Status.Phase {
	case corev1.PodRunning:
		return true, nil
	case corev1.PodSucceeded, corev1.PodFailed:
		return false, fmt.Errorf("pod %s has ended (%s): nothing listens in it", p.Name, p.Status.Phase)
	}
	return false, nil
}

// translatePorts makes LOCAL:REMOTE numbers for the pod out of what was given,
// which may be names, and ports of a Service.
func translatePorts(args []string, tg *target, pod *corev1.Pod) ([]string, error) {
	obj, err := typed(tg.info.Object)
	if err != nil {
		return nil, err
	}
	svc, _ := obj.(*corev1.Service)
	var out []string
	for _, arg := range args {
		local, remote, two := strings.Cut(arg, ":")
		if !two {
			remote = arg
		}
		port, err := remotePort(remote, svc, pod)
		if err != nil {
			return nil, err
		}
		if !two {
			if local = remote; !isNumber(local) {
				local = strconv.Itoa(int(port))
			}
		}
		if local != "" && !isNumber(local) {
			return nil, usagef("%q in %q is no local port: write LOCAL:REMOTE, for example 8080:80", local, arg)
		}
		out = append(out, fmt.Sprintf("%s:%d", local, port))
	}
	return out, nil
}

func isNumber(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil
}

// remotePort is the container's port behind a number or a name.
func remotePort(name string, svc *corev1.Service, pod *corev1.Pod) (int32, error) {
	wanted := intstr.Parse(name)
	if svc != nil {
		var found bool
		for _, p := range svc.Spec.Ports {
			if name == p.Name || strconv.Itoa(int(p.Port)) == name {
				found = true
				if wanted = p.TargetPort; svc.Spec.ClusterIP == corev1.ClusterIPNone || wanted == intstr.FromInt32(0) {
					wanted = intstr.FromInt32(p.Port)
				}
			}
		}
		if !found {
			return 0, fmt.Errorf("service %s has no port %s", svc.Name, name)
		}
	}
	if wanted.Type == intstr.Int {
		if wanted.IntVal < 1 || wanted.IntVal > 65535 {
			return 0, usagef("%s is no port between 1 and 65535", name)
		}
		return wanted.IntVal, nil
	}
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			if p.Name == wanted.StrVal {
				return p.ContainerPort, nil
			}
		}
	}
	return 0, fmt.Errorf("pod %s has no port named %s", pod.Name, wanted.StrVal)
}

// forward listens and forwards until ctx ends: through a WebSocket, or SPDY
// where the server knows no such tunnel.
func (t *tool) forward(ctx context.Context, pod *corev1.Pod, addresses, ports []string) error {
	client, err := t.client()
	if err != nil {
		return err
	}
	cfg, err := t.config()
	if err != nil {
		return err
	}
	url := client.CoreV1().RESTClient().Post().Namespace(pod.Namespace).Resource("pods").Name(pod.Name).SubResource("portforward").URL()
	transport, upgrader, err := spdy.RoundTripperFor(cfg)
	if err != nil {
		return err
	}
	overSPDY := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, url)
	tunnel, err := portforward.NewSPDYOverWebsocketDialerForStreaming(url, cfg)
	if err != nil {
		return err
	}
	dialer := portforward.NewFallbackDialerForStreaming(tunnel, overSPDY, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	f, err := portforward.NewOnAddressesForStreamingWithContext(ctx, dialer, addresses, ports, nil, t.Out, t.Err)
	if err != nil {
		return usagef("%w", err)
	}
	err = f.ForwardPorts()
	if errors.Is(err, portforward.ErrLostConnectionToPod) {
		return fmt.Errorf("the connection to pod %s ended: is it still running?", pod.Name)
	}
	return err
}
