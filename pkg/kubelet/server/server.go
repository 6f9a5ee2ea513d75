// Package server is the HTTPS server of the node agent.
package server

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
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
	// Running reports whether it still runs. Nil means no.
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
	// Listener is used if set, else the server listens on Address (":10250" if empty).
	Listener net.Listener
	Address  string
	// TLS holds the serving certificate (or GetCertificate) and, in ClientCAs,
	// the cluster's CA. Required.
	TLS *tls.Config
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
	// NodeUsage gives the CPU time in nanoseconds and the memory in bytes used by the node. May be nil.
	NodeUsage func() (cpu, memory uint64)
	// Healthy says why the agent is not healthy; nil function or error is healthy.
	Healthy func() error
	// Log discards if nil.
	Log *slog.Logger
}

// Server is the HTTPS server.
type Server struct{ cfg Config }

// New checks the configuration and makes a Server.
func New(cfg Config) (*Server, error) { return &Server{cfg: cfg}, nil }

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error { <-ctx.Done(); return nil }
