// Package server is the HTTPS server of the node agent, which the API server
// asks for logs, exec, attach, port-forward and statistics.
//
// Guarantees:
//
//   - Everything but /healthz needs a client that is authenticated, by a
//     certificate of the cluster's CA or by a token, and that may use the
//     route's subresource of nodes. What runs something in a container needs
//     the verb create, whatever the HTTP method says.
//   - exec, attach and port-forward hand the connection through to the
//     container runtime byte by byte, once the runtime has agreed to the
//     upgrade. If it answers anything else, both connections are closed.
//     Redirects are never followed.
//   - There is no read-only port, no profiling, and no file server for logs.
//
// The routes are one table (routes.go).
package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"coracle/pkg/kubelet/cgroup"
)

// Pods is the server's view of the node's pods. Objects must not be mutated.
type Pods interface {
	// Pods lists all pods of the node with their present status.
	Pods() []*corev1.Pod
	// Pod finds one by name.
	Pod(namespace, name string) (*corev1.Pod, bool)
	// Container finds the newest instance of a container of a pod or, with
	// previous, the terminated one before it.
	Container(uid types.UID, name string, previous bool) (Container, bool)
	// Sandbox finds the id of the pod's ready sandbox.
	Sandbox(uid types.UID) (string, bool)
}

// Container is one instance of a container.
type Container struct {
	// ID is the runtime's id.
	ID string
	// LogName is the log file relative to the pod's log folder, such as "app/0.log".
	LogName string
	// Running reports whether it still runs. It must not block. Nil means no.
	Running func() bool
}

// Runtime is the part of the container runtime that the server needs.
type Runtime interface {
	// Exec, Attach and PortForward give a URL on the node's loopback.
	Exec(ctx context.Context, req *runtimeapi.ExecRequest) (url string, err error)
	Attach(ctx context.Context, req *runtimeapi.AttachRequest) (url string, err error)
	PortForward(ctx context.Context, req *runtimeapi.PortForwardRequest) (url string, err error)
	// ContainerStats lists the usage of all containers.
	ContainerStats(ctx context.Context) ([]*runtimeapi.ContainerStats, error)
}

// Config is what a Server needs.
type Config struct {
	// Listener is used if set, else the server listens on Address (":10250" if
	// empty). It must not do TLS itself.
	Listener net.Listener
	Address  string
	// TLS holds the serving certificate (or GetCertificate) and, in ClientCAs,
	// the cluster's CA. Required.
	TLS *tls.Config
	// ClientCAs, when set, are in place of those of TLS, as they are when a
	// connection is made.
	ClientCAs func() *x509.CertPool
	// NodeName is put into statistics.
	NodeName string
	// Auth decides whether a user may do verb on nodes/subresource of this
	// node; nil error means yes. Required.
	Auth func(ctx context.Context, user string, groups []string, verb, subresource string) error
	// Token authenticates a bearer token. Nil accepts client certificates only.
	Token func(ctx context.Context, token string) (user string, groups []string, err error)
	// Pods and Runtime are required.
	Pods    Pods
	Runtime Runtime
	// LogDir is the folder of the pods' logs, "/var/log/pods" if empty.
	LogDir string
	// Metrics serves /metrics; nil serves those of the process.
	Metrics http.Handler
	// NodeUsage gives the CPU time and the memory that the node uses. Where it
	// fails or is nil, statistics have no figures of the node as a whole.
	NodeUsage func() (cgroup.Usage, error)
	// VolumeStats tells how full the volumes of a pod are. It must not block. Nil
	// tells nothing.
	VolumeStats func(namespace string, pod types.UID) []VolumeStats
	// Healthy says why the agent is not healthy; nil function or error is healthy.
	Healthy func() error
	// IdleTimeout ends exec, attach and port-forward connections on which
	// nothing moved for this long, 4 h if 0.
	IdleTimeout time.Duration
	// Log discards if nil.
	Log *slog.Logger
}

// Bounds of every connection.
const (
	headerTimeout = 10 * time.Second
	keepAlive     = 90 * time.Second
	// maxHeader leaves room for the command of an exec, which is in the URL.
	maxHeader = 256 << 10
	// requestTimeout bounds the requests that are not streams, and each write
	// of those that are.
	requestTimeout = time.Minute
	// shutdownGrace is what requests have to end by themselves at the end of Run.
	shutdownGrace = 2 * time.Second
)

// Server is the HTTPS server.
type Server struct {
	cfg Config
	// streams counts the connections that were taken from the HTTP server.
	streams sync.WaitGroup
}

// New checks the configuration and makes a Server.
func New(cfg Config) (*Server, error) {
	switch {
	case cfg.TLS == nil || len(cfg.TLS.Certificates) == 0 && cfg.TLS.GetCertificate == nil:
		return nil, errors.New("kubelet server: a serving certificate is required")
	case cfg.TLS.ClientCAs == nil:
		return nil, errors.New("kubelet server: the CA of client certificates is required")
	case cfg.Auth == nil || cfg.Pods == nil || cfg.Runtime == nil:
		return nil, errors.New("kubelet server: Auth, Pods and Runtime are required")
	}
	if cfg.Address == "" {
		cfg.Address = ":10250"
	}
	if cfg.LogDir == "" {
		cfg.LogDir = "/var/log/pods"
	}
	if cfg.IdleTimeout <= 0 {
		cfg.IdleTimeout = 4 * time.Hour
	}
	if cfg.Metrics == nil {
		cfg.Metrics = processMetrics()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.TLS = cfg.TLS.Clone()
	cfg.TLS.ClientAuth = tls.VerifyClientCertIfGiven
	cfg.TLS.MinVersion = max(cfg.TLS.MinVersion, tls.VersionTLS12)
	if cfg.TLS.CipherSuites == nil {
		cfg.TLS.CipherSuites = strongSuites()
	}
	// An upgrade takes over the connection, which HTTP/2 does not allow.
	cfg.TLS.NextProtos = []string{"http/1.1"}
	if cfg.ClientCAs != nil {
		base := cfg.TLS
		cfg.TLS = base.Clone()
		cfg.TLS.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
			now := base.Clone()
			now.ClientCAs = cfg.ClientCAs()
			return now, nil
		}
	}
	return &Server{cfg: cfg}, nil
}

// strongSuites are the suites of TLS 1.2 with ephemeral keys and authenticated
// encryption. Those of TLS 1.3 all are.
func strongSuites() (ids []uint16) {
	for _, s := range tls.CipherSuites() {
		if strings.Contains(s.Name, "ECDHE") && (strings.Contains(s.Name, "GCM") || strings.Contains(s.Name, "CHACHA20")) {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// Run serves until ctx ends, then closes all connections and returns.
func (s *Server) Run(ctx context.Context) error {
	listener := s.cfg.Listener
	if listener == nil {
		var err error
		if listener, err = new(net.ListenConfig).Listen(ctx, "tcp", s.cfg.Address); err != nil {
			return fmt.Errorf("the node's server cannot listen: %w", err)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	hs := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       keepAlive,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
		TLSNextProto:      map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	failed := make(chan error, 1)
	go func() { failed <- hs.Serve(tls.NewListener(listener, s.cfg.TLS)) }()
	select {
	case err := <-failed:
		cancel()
		s.streams.Wait()
		return fmt.Errorf("the node's server has stopped: %w", err)
	case <-ctx.Done():
	}
	grace, done := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
	defer done()
	if hs.Shutdown(grace) != nil {
		_ = hs.Close()
	}
	<-failed
	s.streams.Wait()
	return nil
}
