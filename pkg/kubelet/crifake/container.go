package crifake

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"

	"coracle/pkg/kubelet/cri"
)

type container struct {
	id      string
	sandbox string
	config  *runtimeapi.ContainerConfig
	logPath string // empty when the sandbox has no log folder
	state   runtimeapi.ContainerState
	// resources is what the process is limited by.
	resources *runtimeapi.LinuxContainerResources
	program   program
	timer     clock.Timer // the sleep the process is in; nil when none
	done      chan struct{}

	created, started, finished time.Time
	exitCode                   int32
	reason                     string
}

func (c *container) podUID() string { return c.config.GetLabels()[cri.LabelPodUID] }
func (c *container) name() string   { return c.config.GetMetadata().GetName() }

// CreateContainer implements cri.Containers.
func (r *Runtime) CreateContainer(ctx context.Context, sandboxID string, config *runtimeapi.ContainerConfig, pod *runtimeapi.PodSandboxConfig) (string, error) {
	call := Call{Method: "CreateContainer", PodUID: pod.GetMetadata().GetUid(), Container: config.GetMetadata().GetName(), Image: config.GetImage().GetImage()}
	if err := r.enter(ctx, call); err != nil {
		return "", err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sandboxes[sandboxID]
	if s == nil {
		return "", notFound("sandbox", sandboxID)
	}
	if r.image(config.GetImage().GetImage()) == nil {
		return "", status.Errorf(codes.NotFound, "image %q not found", config.GetImage().GetImage())
	}
	for _, c := range r.containers {
		if c.sandbox == sandboxID && c.name() == config.GetMetadata().GetName() && c.config.GetMetadata().GetAttempt() == config.GetMetadata().GetAttempt() {
			return "", status.Errorf(codes.AlreadyExists, "container %s, attempt %d, exists already", c.name(), c.config.GetMetadata().GetAttempt())
		}
	}
	c := &container{
		id: r.newID(), sandbox: sandboxID, config: config, created: r.clock.Now(), done: make(chan struct{}),
		state:     runtimeapi.ContainerState_CONTAINER_CREATED,
		resources: &runtimeapi.LinuxContainerResources{},
		program:   parse(append(append([]string{}, config.GetCommand()...), config.GetArgs()...)),
	}
	if given := config.GetLinux().GetResources(); given != nil {
		proto.Merge(c.resources, given)
	}
	if dir := pod.GetLogDirectory(); dir != "" && config.GetLogPath() != "" {
		c.logPath = filepath.Join(dir, config.GetLogPath())
	}
	r.containers[c.id] = c
	return c.id, nil
}

// StartContainer implements cri.Containers.
func (r *Runtime) StartContainer(ctx context.Context, id string) error {
	if err := r.enter(ctx, Call{Method: "StartContainer", ID: id}); err != nil {
		return err
	}
	if err := r.wait(ctx, r.cfg.StartLatency); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[id]
	switch {
	case c == nil:
		return notFound("container", id)
	case c.state != runtimeapi.ContainerState_CONTAINER_CREATED:
		return status.Errorf(codes.FailedPrecondition, "container %s is not in the created state", id)
	}
	if s := r.sandboxes[c.sandbox]; s == nil || !s.ready {
		return status.Errorf(codes.FailedPrecondition, "sandbox of container %s is not ready", id)
	}
	r.starts[c.podUID()+"/"+c.name()]++
	c.started = r.clock.Now()
	if c.program.broken {
		c.reason = "StartError"
		c.state, c.exitCode, c.finished = runtimeapi.ContainerState_CONTAINER_EXITED, 128, c.started
		close(c.done)
		return status.Errorf(codes.Unknown, "exec: %q: executable file not found in $PATH", c.config.GetCommand()[0])
	}
	c.state = runtimeapi.ContainerState_CONTAINER_RUNNING
	r.changed(c.podUID(), c.id)
	r.step(c, 0)
	return nil
}

// step needs mu. It runs the program from its i-th statement to the next sleep
// or to its end.
func (r *Runtime) step(c *container, i int) {
	for ; i < len(c.program.steps); i++ {
		switch s := c.program.steps[i]; s.do {
		case "exit":
			r.exit(c, s.code)
			return
		case "sleep":
			c.timer = r.clock.AfterFunc(s.wait, func() {
				r.mu.Lock()
				defer r.mu.Unlock()
				if c.state == runtimeapi.ContainerState_CONTAINER_RUNNING {
					r.step(c, i+1)
				}
			})
			return
		case "write":
			c.write(s)
		case "forever":
			return
		case "print":
			c.log(r.clock.Now(), s.text)
		}
	}
	r.exit(c, c.program.status)
}

// log appends a line to the container's log the way a runtime does.
func (c *container) log(now time.Time, line string) {
	if c.logPath == "" {
		return
	}
	f, err := os.OpenFile(c.logPath, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		return // as a full disk would lose it
	}
	defer f.Close()
	fmt.Fprintf(f, "%s stdout F %s\n", now.Format(time.RFC3339Nano), line)
}

// write puts a line into a file below one of the container's mounts.
func (c *container) write(s step) {
	for _, m := range c.config.GetMounts() {
		rest, ok := strings.CutPrefix(s.path, m.ContainerPath)
		if ok && (rest == "" || rest[0] == '/') {
			_ = os.WriteFile(m.HostPath+rest, []byte(s.text+"\n"), 0o666)
			return
		}
	}
}

// exit needs mu.
func (r *Runtime) exit(c *container, code int32) {
	if c.state != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return
	}
	if c.timer != nil {
		c.timer.Stop()
	}
	c.state, c.exitCode, c.finished = runtimeapi.ContainerState_CONTAINER_EXITED, code, r.clock.Now()
	c.reason = "Error"
	if code == 0 {
		c.reason = "Completed"
	}
	close(c.done)
	r.changed(c.podUID(), c.id)
}

// StopContainer implements cri.Containers.
func (r *Runtime) StopContainer(ctx context.Context, id string, grace time.Duration) error {
	if err := r.enter(ctx, Call{Method: "StopContainer", ID: id}); err != nil {
		return err
	}
	r.mu.Lock()
	c := r.containers[id]
	if c == nil || c.state != runtimeapi.ContainerState_CONTAINER_RUNNING {
		r.mu.Unlock()
		return nil
	}
	if grace > 0 && !c.program.ignoresTerm {
		r.exit(c, c.program.termCode)
	}
	done := c.done
	r.mu.Unlock()
	t := r.clock.NewTimer(grace)
	defer t.Stop()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	case <-t.C():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.exit(c, 137)
	return nil
}

// RemoveContainer implements cri.Containers.
func (r *Runtime) RemoveContainer(ctx context.Context, id string) error {
	if err := r.enter(ctx, Call{Method: "RemoveContainer", ID: id}); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.containers[id]; c != nil {
		r.exit(c, 137)
		delete(r.containers, id)
	}
	return nil
}

// ContainerStatus implements cri.Containers.
func (r *Runtime) ContainerStatus(ctx context.Context, id string) (*runtimeapi.ContainerStatus, error) {
	if err := r.enter(ctx, Call{Method: "ContainerStatus", ID: id}); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[id]
	if c == nil {
		return nil, notFound("container", id)
	}
	s := &runtimeapi.ContainerStatus{
		Id: c.id, Metadata: c.config.GetMetadata(), State: c.state, CreatedAt: c.created.UnixNano(),
		Image: &runtimeapi.ImageSpec{Image: c.config.GetImage().GetImage()}, ImageRef: reference(c.config.GetImage().GetImage()),
		ImageId: reference(c.config.GetImage().GetImage()), Labels: c.config.GetLabels(), Annotations: c.config.GetAnnotations(),
		Mounts: c.config.GetMounts(), LogPath: c.logPath, ExitCode: c.exitCode, Reason: c.reason,
		Resources: &runtimeapi.ContainerResources{Linux: proto.CloneOf(c.resources)},
	}
	if !c.started.IsZero() {
		s.StartedAt = c.started.UnixNano()
	}
	if !c.finished.IsZero() {
		s.FinishedAt = c.finished.UnixNano()
	}
	if r.lie != nil {
		r.lie(s)
	}
	return s, nil
}

// ListContainers implements cri.Containers.
func (r *Runtime) ListContainers(ctx context.Context, filter *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error) {
	if err := r.enter(ctx, Call{Method: "ListContainers"}); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*runtimeapi.Container
	for _, c := range r.containers {
		if selects(filter.GetLabelSelector(), c.config.GetLabels()) && (filter.GetId() == "" || filter.GetId() == c.id) {
			out = append(out, &runtimeapi.Container{
				Id: c.id, PodSandboxId: c.sandbox, Metadata: c.config.GetMetadata(), Image: c.config.GetImage(),
				ImageRef: reference(c.config.GetImage().GetImage()), State: c.state, CreatedAt: c.created.UnixNano(),
				Labels: c.config.GetLabels(), Annotations: c.config.GetAnnotations(),
			})
		}
	}
	return out, nil
}

// ReopenContainerLog implements cri.Containers: the fake holds no log open.
func (r *Runtime) ReopenContainerLog(ctx context.Context, id string) error {
	return r.enter(ctx, Call{Method: "ReopenContainerLog", ID: id})
}

// UpdateContainerResources implements cri.Containers. As in real runtimes, what
// the request leaves at zero stays.
func (r *Runtime) UpdateContainerResources(ctx context.Context, id string, resources *runtimeapi.LinuxContainerResources) error {
	if err := r.enter(ctx, Call{Method: "UpdateContainerResources", ID: id}); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[id]
	switch {
	case c == nil:
		return notFound("container", id)
	case c.state == runtimeapi.ContainerState_CONTAINER_EXITED:
		return status.Errorf(codes.FailedPrecondition, "container %s has ended", id)
	}
	proto.Merge(c.resources, resources)
	return nil
}

// ExecSync implements cri.Containers: the command is interpreted like that of
// a container, and its sleeps take their time.
func (r *Runtime) ExecSync(ctx context.Context, id string, command []string, timeout time.Duration) (*runtimeapi.ExecSyncResponse, error) {
	if err := r.enter(ctx, Call{Method: "ExecSync", ID: id}); err != nil {
		return nil, err
	}
	r.mu.Lock()
	c := r.containers[id]
	if c == nil || c.state != runtimeapi.ContainerState_CONTAINER_RUNNING {
		r.mu.Unlock()
		return nil, notFound("running container", id)
	}
	r.mu.Unlock()
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	p := parse(command)
	out := &runtimeapi.ExecSyncResponse{ExitCode: p.status}
	for _, s := range p.steps {
		switch s.do {
		case "exit":
			out.ExitCode = s.code
			return out, nil
		case "sleep":
			if err := r.wait(ctx, s.wait); err != nil {
				return nil, err
			}
		case "print":
			out.Stdout = append(out.Stdout, s.text+"\n"...)
		case "write":
			c.write(s)
		case "forever":
			return out, nil // an unknown program: it did its work
		}
	}
	return out, nil
}

// ListContainerStats implements cri.Containers: nothing is used, unless a test
// says otherwise.
func (r *Runtime) ListContainerStats(ctx context.Context, _ *runtimeapi.ContainerStatsFilter) ([]*runtimeapi.ContainerStats, error) {
	if err := r.enter(ctx, Call{Method: "ListContainerStats"}); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stats, nil
}
