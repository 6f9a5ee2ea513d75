package cri

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// maxMessage bounds one answer of the runtime, in bytes.
	maxMessage = 16 << 20

	quickTimeout   = 15 * time.Second // status, list, remove
	sandboxTimeout = 4 * time.Minute  // a sandbox may pull its pause image and call CNI plugins
	createTimeout  = 2 * time.Minute
	stopSlack      = 30 * time.Second // after the grace, for the kill to be noticed
	pullTimeout    = time.Hour
	execSlack      = 5 * time.Second
)

// Config says where the runtime is.
type Config struct {
	Endpoint string       // "unix:///run/containerd/containerd.sock" or a bare path
	Log      *slog.Logger // nil discards
}

// Client is a Runtime over gRPC.
type Client struct {
	conn    *grpc.ClientConn
	runtime runtimeapi.RuntimeServiceClient
	images  runtimeapi.ImageServiceClient
	watcher *watcher
	log     *slog.Logger
}

var _ Runtime = (*Client)(nil)

// Dial prepares a client. The connection is made by the first call and made
// again whenever it breaks, so the runtime need not be up yet.
func Dial(cfg Config) (*Client, error) {
	endpoint := cfg.Endpoint
	if endpoint == "" {
		return nil, errors.New("cri: no runtime endpoint given; name the runtime's socket, e.g. unix:///run/containerd/containerd.sock")
	}
	if strings.HasPrefix(endpoint, "/") {
		endpoint = "unix://" + endpoint
	}
	if !strings.HasPrefix(endpoint, "unix:") {
		return nil, fmt.Errorf("cri: endpoint %q is not a unix socket", cfg.Endpoint)
	}
	conn, err := grpc.NewClient(endpoint,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 3 * time.Second,
		}))
	if err != nil {
		return nil, fmt.Errorf("cri: %w", err)
	}
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Client{
		conn: conn, runtime: runtimeapi.NewRuntimeServiceClient(conn), images: runtimeapi.NewImageServiceClient(conn),
		watcher: newWatcher(), log: log,
	}, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// call runs one request with a deadline and names it in its error.
func call[Req, Resp any](ctx context.Context, limit time.Duration, name string,
	do func(context.Context, Req, ...grpc.CallOption) (Resp, error), req Req) (Resp, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	resp, err := do(ctx, req)
	if err != nil {
		return resp, fmt.Errorf("container runtime: %s: %w", name, err)
	}
	return resp, nil
}

// Version returns the runtime's name and version.
func (c *Client) Version(ctx context.Context) (*runtimeapi.VersionResponse, error) {
	return call(ctx, quickTimeout, "version", c.runtime.Version, &runtimeapi.VersionRequest{})
}

// Status returns the runtime's own conditions.
func (c *Client) Status(ctx context.Context) (*runtimeapi.StatusResponse, error) {
	return call(ctx, quickTimeout, "status", c.runtime.Status, &runtimeapi.StatusRequest{})
}

// RunPodSandbox implements Sandboxes.
func (c *Client) RunPodSandbox(ctx context.Context, config *runtimeapi.PodSandboxConfig, handler string) (string, error) {
	resp, err := call(ctx, sandboxTimeout, "run sandbox", c.runtime.RunPodSandbox,
		&runtimeapi.RunPodSandboxRequest{Config: config, RuntimeHandler: handler})
	return resp.GetPodSandboxId(), err
}

// StopPodSandbox implements Sandboxes.
func (c *Client) StopPodSandbox(ctx context.Context, id string) error {
	_, err := call(ctx, sandboxTimeout, "stop sandbox", c.runtime.StopPodSandbox, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id})
	return err
}

// RemovePodSandbox implements Sandboxes.
func (c *Client) RemovePodSandbox(ctx context.Context, id string) error {
	_, err := call(ctx, createTimeout, "remove sandbox", c.runtime.RemovePodSandbox, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id})
	return err
}

// PodSandboxStatus implements Sandboxes.
func (c *Client) PodSandboxStatus(ctx context.Context, id string) (*runtimeapi.PodSandboxStatus, error) {
	verbose := c.watcher.wants(id)
	resp, err := call(ctx, quickTimeout, "sandbox status", c.runtime.PodSandboxStatus,
		&runtimeapi.PodSandboxStatusRequest{PodSandboxId: id, Verbose: verbose})
	if err != nil {
		return nil, err
	}
	if resp.GetStatus() == nil {
		return nil, fmt.Errorf("container runtime: sandbox status of %s is empty", id)
	}
	if verbose && resp.Status.State == runtimeapi.PodSandboxState_SANDBOX_READY {
		c.watcher.track(id, resp.Status.GetMetadata().GetUid(), pidOf(resp.Info))
	}
	return resp.Status, nil
}

// ListPodSandbox implements Sandboxes.
func (c *Client) ListPodSandbox(ctx context.Context, filter *runtimeapi.PodSandboxFilter) ([]*runtimeapi.PodSandbox, error) {
	resp, err := call(ctx, quickTimeout, "list sandboxes", c.runtime.ListPodSandbox, &runtimeapi.ListPodSandboxRequest{Filter: filter})
	return resp.GetItems(), err
}

// CreateContainer implements Containers.
func (c *Client) CreateContainer(ctx context.Context, sandboxID string, config *runtimeapi.ContainerConfig, sandbox *runtimeapi.PodSandboxConfig) (string, error) {
	resp, err := call(ctx, createTimeout, "create container", c.runtime.CreateContainer,
		&runtimeapi.CreateContainerRequest{PodSandboxId: sandboxID, Config: config, SandboxConfig: sandbox})
	return resp.GetContainerId(), err
}

// StartContainer implements Containers.
func (c *Client) StartContainer(ctx context.Context, id string) error {
	_, err := call(ctx, createTimeout, "start container", c.runtime.StartContainer, &runtimeapi.StartContainerRequest{ContainerId: id})
	return err
}

// StopContainer implements Containers.
func (c *Client) StopContainer(ctx context.Context, id string, grace time.Duration) error {
	seconds := int64((grace + time.Second - 1) / time.Second)
	_, err := call(ctx, grace+stopSlack, "stop container", c.runtime.StopContainer, &runtimeapi.StopContainerRequest{ContainerId: id, Timeout: seconds})
	return err
}

// RemoveContainer implements Containers.
func (c *Client) RemoveContainer(ctx context.Context, id string) error {
	_, err := call(ctx, createTimeout, "remove container", c.runtime.RemoveContainer, &runtimeapi.RemoveContainerRequest{ContainerId: id})
	return err
}

// ContainerStatus implements Containers.
func (c *Client) ContainerStatus(ctx context.Context, id string) (*runtimeapi.ContainerStatus, error) {
	verbose := c.watcher.wants(id)
	resp, err := call(ctx, quickTimeout, "container status", c.runtime.ContainerStatus,
		&runtimeapi.ContainerStatusRequest{ContainerId: id, Verbose: verbose})
	if err != nil {
		return nil, err
	}
	if resp.GetStatus() == nil {
		return nil, fmt.Errorf("container runtime: status of container %s is empty", id)
	}
	if verbose && resp.Status.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
		c.watcher.track(id, resp.Status.Labels[LabelPodUID], pidOf(resp.Info))
	}
	return resp.Status, nil
}

// ListContainers implements Containers.
func (c *Client) ListContainers(ctx context.Context, filter *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error) {
	resp, err := call(ctx, quickTimeout, "list containers", c.runtime.ListContainers, &runtimeapi.ListContainersRequest{Filter: filter})
	return resp.GetContainers(), err
}

// ReopenContainerLog implements Containers.
func (c *Client) ReopenContainerLog(ctx context.Context, id string) error {
	_, err := call(ctx, quickTimeout, "reopen log", c.runtime.ReopenContainerLog, &runtimeapi.ReopenContainerLogRequest{ContainerId: id})
	return err
}

// UpdateContainerResources implements Containers.
func (c *Client) UpdateContainerResources(ctx context.Context, id string, resources *runtimeapi.LinuxContainerResources) error {
	_, err := call(ctx, createTimeout, "update resources", c.runtime.UpdateContainerResources,
		&runtimeapi.UpdateContainerResourcesRequest{ContainerId: id, Linux: resources})
	return err
}

// ExecSync implements Containers.
func (c *Client) ExecSync(ctx context.Context, id string, command []string, timeout time.Duration) (*runtimeapi.ExecSyncResponse, error) {
	seconds := int64((timeout + time.Second - 1) / time.Second)
	return call(ctx, timeout+execSlack, "exec", c.runtime.ExecSync, &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: command, Timeout: seconds})
}

// ListContainerStats implements Containers.
func (c *Client) ListContainerStats(ctx context.Context, filter *runtimeapi.ContainerStatsFilter) ([]*runtimeapi.ContainerStats, error) {
	resp, err := call(ctx, quickTimeout, "container statistics", c.runtime.ListContainerStats, &runtimeapi.ListContainerStatsRequest{Filter: filter})
	return resp.GetStats(), err
}

// ListImages implements Images.
func (c *Client) ListImages(ctx context.Context) ([]*runtimeapi.Image, error) {
	resp, err := call(ctx, quickTimeout, "list images", c.images.ListImages, &runtimeapi.ListImagesRequest{})
	return resp.GetImages(), err
}

// ImageStatus implements Images.
func (c *Client) ImageStatus(ctx context.Context, image string) (*runtimeapi.Image, error) {
	resp, err := call(ctx, quickTimeout, "image status", c.images.ImageStatus,
		&runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: image}})
	return resp.GetImage(), err
}

// PullImage implements Images.
func (c *Client) PullImage(ctx context.Context, image string, auth *runtimeapi.AuthConfig, sandbox *runtimeapi.PodSandboxConfig) (string, error) {
	resp, err := call(ctx, pullTimeout, "pull image", c.images.PullImage,
		&runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: image}, Auth: auth, SandboxConfig: sandbox})
	return resp.GetImageRef(), err
}

// RemoveImage implements Images.
func (c *Client) RemoveImage(ctx context.Context, image string) error {
	_, err := call(ctx, createTimeout, "remove image", c.images.RemoveImage,
		&runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: image}})
	return err
}

// ImageFsInfo implements Images.
func (c *Client) ImageFsInfo(ctx context.Context) (*runtimeapi.ImageFsInfoResponse, error) {
	return call(ctx, quickTimeout, "image filesystem", c.images.ImageFsInfo, &runtimeapi.ImageFsInfoRequest{})
}

// Exec implements Streams.
func (c *Client) Exec(ctx context.Context, req *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	return call(ctx, quickTimeout, "prepare exec", c.runtime.Exec, req)
}

// Attach implements Streams.
func (c *Client) Attach(ctx context.Context, req *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error) {
	return call(ctx, quickTimeout, "prepare attach", c.runtime.Attach, req)
}

// PortForward implements Streams.
func (c *Client) PortForward(ctx context.Context, req *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error) {
	return call(ctx, quickTimeout, "prepare port-forward", c.runtime.PortForward, req)
}
