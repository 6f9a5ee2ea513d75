package server

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// exec runs a command in a container with the client's connection as its
// standard streams.
func (s *Server) exec(w http.ResponseWriter, r *http.Request) {
	s.stream(w, r, func(ctx context.Context) (string, error) {
		io, err := parseStreams(r.URL.Query())
		if err != nil {
			return "", err
		}
		command := r.URL.Query()["command"]
		if len(command) == 0 {
			return "", &httpError{http.StatusBadRequest, "exec needs a command"}
		}
		pod, err := s.pod(r)
		if err != nil {
			return "", err
		}
		c, err := s.running(r, pod)
		if err != nil {
			return "", err
		}
		return s.cfg.Runtime.Exec(ctx, &runtimeapi.ExecRequest{
			ContainerId: c.ID, Cmd: command, Tty: io.tty, Stdin: io.stdin, Stdout: io.stdout, Stderr: io.stderr,
		})
	})
}

// attach connects the client to the streams of a container's main process.
func (s *Server) attach(w http.ResponseWriter, r *http.Request) {
	s.stream(w, r, func(ctx context.Context) (string, error) {
		io, err := parseStreams(r.URL.Query())
		if err != nil {
			return "", err
		}
		pod, err := s.pod(r)
		if err != nil {
			return "", err
		}
		c, err := s.running(r, pod)
		if err != nil {
			return "", err
		}
		return s.cfg.Runtime.Attach(ctx, &runtimeapi.AttachRequest{
			ContainerId: c.ID, Tty: io.tty, Stdin: io.stdin, Stdout: io.stdout, Stderr: io.stderr,
		})
	})
}

// portForward connects the client to ports in a pod's network.
func (s *Server) portForward(w http.ResponseWriter, r *http.Request) {
	s.stream(w, r, func(ctx context.Context) (string, error) {
		ports, err := parsePorts(r.URL.Query())
		if err != nil {
			return "", err
		}
		pod, err := s.pod(r)
		if err != nil {
			return "", err
		}
		sandbox, ok := s.cfg.Pods.Sandbox(pod.UID)
		if !ok {
			return "", &httpError{http.StatusBadRequest, fmt.Sprintf("pod %q is not running", pod.Name)}
		}
		return s.cfg.Runtime.PortForward(ctx, &runtimeapi.PortForwardRequest{PodSandboxId: sandbox, Port: ports})
	})
}

// stream asks the runtime where the stream is and hands the connection there.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, open func(context.Context) (string, error)) {
	if !wantsUpgrade(r) {
		http.Error(w, "this path needs a request to upgrade the connection (SPDY or WebSocket)", http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
	defer cancel()
	raw, err := open(ctx)
	if err != nil {
		fail(w, err)
		return
	}
	backend, err := loopbackURL(raw)
	if err != nil {
		fail(w, err)
		return
	}
	s.proxyUpgrade(w, r, backend)
}

// loopbackURL accepts what a runtime gives as the place of a stream: plain HTTP
// on this node.
func loopbackURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("the runtime's streaming URL: %w", err)
	}
	ip := net.ParseIP(u.Hostname())
	if u.Scheme != "http" || u.Port() == "" || ip == nil || !ip.IsLoopback() {
		return nil, fmt.Errorf("the runtime's streaming server at %q is not plain HTTP on the loopback address: set its stream_server_address to 127.0.0.1", u.Host)
	}
	return u, nil
}

// streams are the standard streams that a client wants.
type streams struct{ stdin, stdout, stderr, tty bool }

// parseStreams reads the names that kubelets have always used and those of the
// API's options.
func parseStreams(v url.Values) (streams, error) {
	p := queryParser{values: v}
	s := streams{
		stdin:  p.flag("input") || p.flag("stdin"),
		stdout: p.flag("output") || p.flag("stdout"),
		stderr: p.flag("error") || p.flag("stderr"),
		tty:    p.flag("tty"),
	}
	if p.err != nil {
		return s, p.err
	}
	// A terminal has one output only.
	s.stderr = s.stderr && !s.tty
	if !s.stdin && !s.stdout && !s.stderr {
		return s, &httpError{http.StatusBadRequest, "you must specify at least 1 of stdin, stdout, stderr"}
	}
	return s, nil
}

// maxPorts bounds the ports of one request.
const maxPorts = 64

// parsePorts reads the ports, which WebSocket clients name in the URL and SPDY
// clients later.
func parsePorts(v url.Values) ([]int32, error) {
	var ports []int32
	for _, text := range append(v["port"], v["ports"]...) {
		for one := range strings.SplitSeq(text, ",") {
			n, err := strconv.ParseUint(one, 10, 16)
			if err != nil || n == 0 || len(ports) == maxPorts {
				return nil, &httpError{http.StatusBadRequest, fmt.Sprintf("port %.10q is not a port, or there are more than %d", one, maxPorts)}
			}
			ports = append(ports, int32(n))
		}
	}
	return ports, nil
}
