package nodeproxy

import (
	"context"
	"net/http"
	"net/url"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"coracle/pkg/apiserver"
	"coracle/pkg/registry"
)

// exec serves pods/exec.
func (p *Proxy) exec(w http.ResponseWriter, r *http.Request, req registry.Request, _ string) {
	q := r.URL.Query()
	command := q["command"]
	if len(command) == 0 {
		apiserver.WriteError(w, apierrors.NewBadRequest("you must specify at least one command for the container"))
		return
	}
	o := &corev1.PodExecOptions{Container: q.Get("container"), Command: command}
	p.remoteCommand(w, r, req, "exec", remote{options: o, set: func(s streams) {
		o.Stdin, o.Stdout, o.Stderr, o.TTY = s.stdin, s.stdout, s.stderr, s.tty
	}, get: func() (streams, string, []string) {
		return streams{stdin: o.Stdin, stdout: o.Stdout, stderr: o.Stderr, tty: o.TTY}, o.Container, o.Command
	}})
}

// attach serves pods/attach.
func (p *Proxy) attach(w http.ResponseWriter, r *http.Request, req registry.Request, _ string) {
	o := &corev1.PodAttachOptions{Container: r.URL.Query().Get("container")}
	p.remoteCommand(w, r, req, "attach", remote{options: o, set: func(s streams) {
		o.Stdin, o.Stdout, o.Stderr, o.TTY = s.stdin, s.stdout, s.stderr, s.tty
	}, get: func() (streams, string, []string) {
		return streams{stdin: o.Stdin, stdout: o.Stdout, stderr: o.Stderr, tty: o.TTY}, o.Container, nil
	}})
}

// remote is what a client asks of a container, as options that admission may
// change.
type remote struct {
	options runtime.Object
	set     func(streams)
	get     func() (s streams, container string, command []string)
}

func (p *Proxy) remoteCommand(w http.ResponseWriter, r *http.Request, req registry.Request, path string, asked remote) {
	s, err := parseStreams(r.URL.Query(), true)
	if err == nil {
		asked.set(s)
		// What there is not, nobody needs to be asked about.
		_, name, _ := asked.get()
		_, err = p.commandTarget(r.Context(), req, path, name)
	}
	if err == nil {
		err = p.cfg.Admit(r.Context(), req, asked.options)
	}
	s, name, command := asked.get()
	var target *url.URL
	if err == nil {
		target, err = p.commandTarget(r.Context(), req, path, name)
	}
	if err == nil && !isUpgrade(r) {
		err = apierrors.NewBadRequest("Upgrade request required: exec and attach need a SPDY or WebSocket connection")
	}
	if err != nil {
		apiserver.WriteError(w, err)
		return
	}
	q := s.query()
	q["command"] = command
	target.RawQuery = q.Encode()
	if wsstream.IsWebSocketRequestWithStreamCloseProtocol(r) {
		p.translate(w, r, target, s)
		return
	}
	p.passThrough(w, r, target)
}

func (p *Proxy) commandTarget(ctx context.Context, req registry.Request, path, asked string) (*url.URL, error) {
	pod, err := p.pod(ctx, req)
	if err != nil {
		return nil, err
	}
	name, err := container(pod, asked)
	if err != nil {
		return nil, err
	}
	target, err := p.podAgent(ctx, pod)
	if err != nil {
		return nil, err
	}
	return target.JoinPath(path, pod.Namespace, pod.Name, name), nil
}

// podAgent is the agent of the pod's node.
func (p *Proxy) podAgent(ctx context.Context, pod *corev1.Pod) (*url.URL, error) {
	if pod.Spec.NodeName == "" {
		return nil, apierrors.NewBadRequest("pod " + pod.Name + " does not have a host assigned")
	}
	return p.agent(ctx, pod.Spec.NodeName)
}

// portForward serves pods/portforward.
func (p *Proxy) portForward(w http.ResponseWriter, r *http.Request, req registry.Request, _ string) {
	pod, err := p.pod(r.Context(), req)
	var target *url.URL
	if err == nil {
		target, err = p.podAgent(r.Context(), pod)
	}
	if err == nil {
		err = p.cfg.Admit(r.Context(), req, &corev1.PodPortForwardOptions{})
	}
	if err == nil && !isUpgrade(r) {
		err = apierrors.NewBadRequest("Upgrade request required: port-forward needs a SPDY or WebSocket connection")
	}
	if err != nil {
		apiserver.WriteError(w, err)
		return
	}
	target = target.JoinPath("portForward", pod.Namespace, pod.Name)
	target.RawQuery = url.Values{"port": r.URL.Query()["ports"]}.Encode()
	if wsstream.IsWebSocketRequestWithTunnelingProtocol(r) {
		p.tunnel(w, r, target)
		return
	}
	p.passThrough(w, r, target)
}
