package kubelet

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const (
	// minimumStop is left for the signal after a preStop hook has used up the
	// grace.
	minimumStop = 2 * time.Second
	// hookTimeout bounds a postStart hook's request, and hooks of pods without
	// end.
	hookTimeout = 10 * time.Minute
	httpTimeout = time.Minute
	// maxHookOutput bounds what is kept of a hook's output, in bytes.
	maxHookOutput = 1 << 10
)

// hookTarget is the container a hook is run for.
type hookTarget struct {
	pod  *corev1.Pod
	spec *corev1.Container // nil for a container no longer in the spec
	id   string
	ip   string
}

// preStop runs the hook before a stop, for at most grace. Its failure does not
// keep the container from being stopped.
func (k *Kubelet) preStop(ctx context.Context, t hookTarget, grace time.Duration) {
	if t.spec == nil || t.spec.Lifecycle == nil || t.spec.Lifecycle.PreStop == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	if err := k.hook(ctx, t.spec.Lifecycle.PreStop, t); err != nil {
		k.event(t.pod, t.spec.Name, corev1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed: "+err.Error())
	}
}

// hook runs one handler.
func (k *Kubelet) hook(ctx context.Context, h *corev1.LifecycleHandler, t hookTarget) error {
	switch {
	case h.Exec != nil:
		return k.execHook(ctx, h.Exec.Command, t)
	case h.HTTPGet != nil:
		return k.httpHook(ctx, h.HTTPGet, t)
	case h.Sleep != nil:
		k.pause(ctx, time.Duration(h.Sleep.Seconds)*time.Second)
		return ctx.Err()
	}
	return errors.New("the hook says neither exec, httpGet nor sleep")
}

func (k *Kubelet) execHook(ctx context.Context, command []string, t hookTarget) error {
	timeout := hookTimeout
	if end, ok := ctx.Deadline(); ok {
		timeout = time.Until(end)
	}
	resp, err := k.runtime.ExecSync(ctx, t.id, command, timeout)
	if err != nil {
		return err
	}
	if resp.GetExitCode() != 0 {
		out := append(append([]byte{}, resp.GetStdout()...), resp.GetStderr()...)
		out = bytes.TrimSpace(out[:min(len(out), maxHookOutput)])
		return fmt.Errorf("command %q ended with exit code %d: %q", strings.Join(command, " "), resp.GetExitCode(), out)
	}
	return nil
}

func (k *Kubelet) httpHook(ctx context.Context, get *corev1.HTTPGetAction, t hookTarget) error {
	ctx, cancel := context.WithTimeout(ctx, httpTimeout)
	defer cancel()
	req, err := hookRequest(ctx, get, t)
	if err != nil {
		return err
	}
	client := http.Client{
		Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // a container's own certificate is not known
			DisableKeepAlives: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxHookOutput))
	return nil
}

func hookRequest(ctx context.Context, get *corev1.HTTPGetAction, t hookTarget) (*http.Request, error) {
	host := get.Host
	if host == "" {
		host = t.ip
	}
	port, err := portOf(get.Port, t.spec)
	if err != nil {
		return nil, err
	}
	scheme := strings.ToLower(string(get.Scheme))
	if scheme == "" {
		scheme = "http"
	}
	url := scheme + "://" + net.JoinHostPort(host, strconv.Itoa(port)) + "/" + strings.TrimPrefix(get.Path, "/")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("the hook's URL is not valid: %w", err)
	}
	req.Header.Set("User-Agent", "kube-lifecycle/coracle")
	for _, h := range get.HTTPHeaders {
		if strings.EqualFold(h.Name, "Host") {
			req.Host = h.Value
			continue
		}
		req.Header.Add(h.Name, h.Value)
	}
	return req, nil
}

// portOf finds a port by number or by its name in the container.
func portOf(port intstr.IntOrString, spec *corev1.Container) (int, error) {
	if port.Type == intstr.Int && port.IntVal > 0 {
		return int(port.IntVal), nil
	}
	for _, p := range spec.Ports {
		if p.Name == port.StrVal {
			return int(p.ContainerPort), nil
		}
	}
	if n, err := strconv.Atoi(port.StrVal); err == nil && n > 0 && n < 1<<16 {
		return n, nil
	}
	return 0, fmt.Errorf("container %q has no port %q", spec.Name, port.String())
}
