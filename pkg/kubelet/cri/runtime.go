package cri

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Labels and annotations under which sandboxes and containers are found again.
// The names are those every Kubernetes node uses, for log collectors and the
// runtime's own tools read them.
const (
	LabelPodName       = "io.kubernetes.pod.name"
	LabelPodNamespace  = "io.kubernetes.pod.namespace"
	LabelPodUID        = "io.kubernetes.pod.uid"
	LabelContainerName = "io.kubernetes.container.name"

	AnnotationHash          = "io.kubernetes.container.hash"
	AnnotationRestartCount  = "io.kubernetes.container.restartCount"
	AnnotationMessagePath   = "io.kubernetes.container.terminationMessagePath"
	AnnotationMessagePolicy = "io.kubernetes.container.terminationMessagePolicy"
	AnnotationPodGrace      = "io.kubernetes.pod.terminationGracePeriod"
	// AnnotationDelay holds how long the agent waits, after this attempt has
	// ended, before it starts the next: a Go duration.
	AnnotationDelay = "coracle.dev/restart-delay"
	// AnnotationSandbox holds the id of the sandbox a container was made in.
	AnnotationSandbox = "coracle.dev/sandbox-id"
	// AnnotationResources holds the requests and limits a container was made
	// with, as JSON.
	AnnotationResources = "coracle.dev/resources"
)

// Sandboxes makes and ends pod sandboxes.
type Sandboxes interface {
	RunPodSandbox(ctx context.Context, config *runtimeapi.PodSandboxConfig, handler string) (id string, err error)
	StopPodSandbox(ctx context.Context, id string) error
	RemovePodSandbox(ctx context.Context, id string) error
	PodSandboxStatus(ctx context.Context, id string) (*runtimeapi.PodSandboxStatus, error)
	ListPodSandbox(ctx context.Context, filter *runtimeapi.PodSandboxFilter) ([]*runtimeapi.PodSandbox, error)
}

// Containers makes and ends containers.
type Containers interface {
	CreateContainer(ctx context.Context, sandboxID string, config *runtimeapi.ContainerConfig, sandbox *runtimeapi.PodSandboxConfig) (id string, err error)
	StartContainer(ctx context.Context, id string) error
	// StopContainer asks the process to end, kills it after grace, and returns
	// once it is gone.
	StopContainer(ctx context.Context, id string, grace time.Duration) error
	RemoveContainer(ctx context.Context, id string) error
	ContainerStatus(ctx context.Context, id string) (*runtimeapi.ContainerStatus, error)
	ListContainers(ctx context.Context, filter *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error)
	ReopenContainerLog(ctx context.Context, id string) error
	UpdateContainerResources(ctx context.Context, id string, resources *runtimeapi.LinuxContainerResources) error
	// ExecSync runs a command to its end. A command that exits with a code other
	// than 0 is not an error; one that outlives timeout is DeadlineExceeded.
	ExecSync(ctx context.Context, id string, command []string, timeout time.Duration) (*runtimeapi.ExecSyncResponse, error)
	ListContainerStats(ctx context.Context, filter *runtimeapi.ContainerStatsFilter) ([]*runtimeapi.ContainerStats, error)
}

// Images holds the images of the node.
type Images interface {
	ListImages(ctx context.Context) ([]*runtimeapi.Image, error)
	// ImageStatus returns nil and no error when the image is not there.
	ImageStatus(ctx context.Context, image string) (*runtimeapi.Image, error)
	PullImage(ctx context.Context, image string, auth *runtimeapi.AuthConfig, sandbox *runtimeapi.PodSandboxConfig) (ref string, err error)
	RemoveImage(ctx context.Context, image string) error
	ImageFsInfo(ctx context.Context) (*runtimeapi.ImageFsInfoResponse, error)
}

// Streams prepares streaming sessions and answers with the URL to dial.
type Streams interface {
	Exec(ctx context.Context, req *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error)
	Attach(ctx context.Context, req *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error)
	PortForward(ctx context.Context, req *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error)
}

// Change says that a container or a sandbox is not what it was.
type Change struct {
	PodUID string // empty when the runtime did not say
	ID     string // of the container or sandbox, as the runtime writes it
}

// Runtime is a container runtime. All methods may be called concurrently.
type Runtime interface {
	Sandboxes
	Containers
	Images
	Streams
	Version(ctx context.Context) (*runtimeapi.VersionResponse, error)
	Status(ctx context.Context) (*runtimeapi.StatusResponse, error)
	// Watch calls emit for each change until ctx ends. It reconnects by itself
	// and returns nil on cancellation. The end of a container or sandbox is sure
	// to be reported only if its status was asked for while it ran.
	Watch(ctx context.Context, emit func(Change)) error
}

// IsNotFound tells whether err says that the runtime does not have the thing.
func IsNotFound(err error) bool { return status.Code(err) == codes.NotFound }

// IsUnavailable tells whether err says that the runtime did not answer, which
// leaves open what it did.
func IsUnavailable(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return true
	}
	return false
}

// Reason returns the text of err without the gRPC decoration.
func Reason(err error) string {
	if s, ok := status.FromError(err); ok {
		return s.Message()
	}
	return err.Error()
}
