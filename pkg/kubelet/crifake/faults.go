package crifake

import (
	"context"
	"sync"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"coracle/pkg/kubelet/cri"
)

// Intercept lets f see every call before it is served. An error of f is the
// answer; f hangs a call by waiting for ctx. nil ends it.
func (r *Runtime) Intercept(f func(ctx context.Context, call Call) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.intercept = f
}

// SetDown makes every call fail as if the runtime's socket were dead. The
// containers live on.
func (r *Runtime) SetDown(down bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = down
}

// Lie lets f falsify every container status before it is answered.
func (r *Runtime) Lie(f func(*runtimeapi.ContainerStatus)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lie = f
}

// SetStats makes the usage that ListContainerStats answers with.
func (r *Runtime) SetStats(stats []*runtimeapi.ContainerStats) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats = stats
}

// Exit ends the running attempt of a container and tells whether there was one.
func (r *Runtime) Exit(podUID, name string, code int32) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.containers {
		if c.podUID() == podUID && c.name() == name && c.state == runtimeapi.ContainerState_CONTAINER_RUNNING {
			r.exit(c, code)
			return true
		}
	}
	return false
}

// KillSandbox ends the sandbox process of a pod.
func (r *Runtime) KillSandbox(podUID string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.sandboxes {
		if s.config.GetMetadata().GetUid() == podUID && s.ready {
			s.ready = false
			r.changed(podUID, s.id)
		}
	}
}

// Reboot ends every process, as a restart of the machine does; the records
// stay.
func (r *Runtime) Reboot() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.containers {
		r.exit(c, 255)
	}
	for _, s := range r.sandboxes {
		r.release(s)
	}
}

// Live counts the running attempts of a container.
func (r *Runtime) Live(podUID, name string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, c := range r.containers {
		if c.podUID() == podUID && c.name() == name && c.state == runtimeapi.ContainerState_CONTAINER_RUNNING {
			n++
		}
	}
	return n
}

// Starts counts how often a container was started.
func (r *Runtime) Starts(podUID, name string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.starts[podUID+"/"+name]
}

// Resources is what the running attempt of a container is limited by, nil when
// none runs.
func (r *Runtime) Resources(podUID, name string) *runtimeapi.LinuxContainerResources {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.containers {
		if c.podUID() == podUID && c.name() == name && c.state == runtimeapi.ContainerState_CONTAINER_RUNNING {
			return proto.CloneOf(c.resources)
		}
	}
	return nil
}

// Calls counts the requests to one method.
func (r *Runtime) Calls(method string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.calls[method]
}

// Empty tells whether no sandbox and no container is left.
func (r *Runtime) Empty() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.sandboxes)+len(r.containers) == 0
}

// subscriber is one Watch.
type subscriber struct {
	mu      sync.Mutex
	pending []cri.Change  // guarded by mu
	signal  chan struct{} // holds one token while pending is not empty
}

// changed needs mu.
func (r *Runtime) changed(podUID, id string) {
	for s := range r.watchers {
		s.mu.Lock()
		if len(s.pending) < maxPending {
			s.pending = append(s.pending, cri.Change{PodUID: podUID, ID: id})
		}
		s.mu.Unlock()
		select {
		case s.signal <- struct{}{}:
		default:
		}
	}
}

// Watch implements cri.Runtime.
func (r *Runtime) Watch(ctx context.Context, emit func(cri.Change)) error {
	s := &subscriber{signal: make(chan struct{}, 1)}
	r.mu.Lock()
	r.watchers[s] = true
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.watchers, s)
		r.mu.Unlock()
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.signal:
		}
		s.mu.Lock()
		batch := s.pending
		s.pending = nil
		s.mu.Unlock()
		for _, c := range batch {
			emit(c)
		}
	}
}
