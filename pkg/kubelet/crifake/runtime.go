package crifake

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"

	"coracle/pkg/kubelet/cri"
)

// maxPending bounds the changes kept for one watcher; more are dropped, as a
// real event stream may drop.
const maxPending = 4096

// Config says what the simulated node is like. The zero value works.
type Config struct {
	PodCIDR        netip.Prefix                        // where sandboxes get addresses; default 10.244.0.0/24
	Clock          clock.WithTickerAndDelayedExecution // default: the time package
	SandboxLatency time.Duration                       // how long RunPodSandbox takes
	StartLatency   time.Duration                       // how long StartContainer takes
	PullLatency    time.Duration                       // how long PullImage takes
}

// Call describes one request to an interceptor.
type Call struct {
	Method    string // the name of the method of cri.Runtime
	ID        string // the sandbox or container it names, if any
	PodUID    string
	Container string // the container's name, if any
	Image     string
}

// Runtime is a cri.Runtime in memory.
type Runtime struct {
	clock clock.WithTickerAndDelayedExecution
	cfg   Config

	mu         sync.Mutex // guards what follows
	serial     int
	sandboxes  map[string]*sandbox
	containers map[string]*container
	images     map[string]*runtimeapi.Image
	addresses  map[netip.Addr]bool
	down       bool
	intercept  func(context.Context, Call) error
	lie        func(*runtimeapi.ContainerStatus)
	stats      []*runtimeapi.ContainerStats
	calls      map[string]int
	starts     map[string]int // by pod UID and container name
	watchers   map[*subscriber]bool
}

var _ cri.Runtime = (*Runtime)(nil)

type sandbox struct {
	id      string
	config  *runtimeapi.PodSandboxConfig
	handler string
	ready   bool
	ip      string
	created time.Time
}

// New returns an empty runtime.
func New(cfg Config) *Runtime {
	if !cfg.PodCIDR.IsValid() {
		cfg.PodCIDR = netip.MustParsePrefix("10.244.0.0/24")
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	return &Runtime{
		clock: cfg.Clock, cfg: cfg,
		sandboxes: map[string]*sandbox{}, containers: map[string]*container{}, images: map[string]*runtimeapi.Image{},
		addresses: map[netip.Addr]bool{}, calls: map[string]int{}, starts: map[string]int{}, watchers: map[*subscriber]bool{},
	}
}

// enter counts a call, and lets the scripted faults have their way with it.
func (r *Runtime) enter(ctx context.Context, call Call) error {
	r.mu.Lock()
	r.calls[call.Method]++
	if c := r.containers[call.ID]; c != nil && call.PodUID == "" {
		call.PodUID, call.Container = c.podUID(), c.name()
	}
	if s := r.sandboxes[call.ID]; s != nil && call.PodUID == "" {
		call.PodUID = s.config.GetMetadata().GetUid()
	}
	down, intercept := r.down, r.intercept
	r.mu.Unlock()
	if down {
		return status.Error(codes.Unavailable, "the container runtime is down")
	}
	if intercept != nil {
		if err := intercept(ctx, call); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	return nil
}

// wait lets simulated time pass.
func (r *Runtime) wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := r.clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	case <-t.C():
		return nil
	}
}

func notFound(what, id string) error {
	return status.Errorf(codes.NotFound, "%s %q not found", what, id)
}

// newID needs mu. It looks like the ids of real runtimes.
func (r *Runtime) newID() string {
	r.serial++
	return fmt.Sprintf("%064x", r.serial)
}

// Version implements cri.Runtime.
func (r *Runtime) Version(ctx context.Context) (*runtimeapi.VersionResponse, error) {
	if err := r.enter(ctx, Call{Method: "Version"}); err != nil {
		return nil, err
	}
	return &runtimeapi.VersionResponse{Version: "0.1.0", RuntimeName: "fake", RuntimeVersion: "1", RuntimeApiVersion: "v1"}, nil
}

// Status implements cri.Runtime.
func (r *Runtime) Status(ctx context.Context) (*runtimeapi.StatusResponse, error) {
	if err := r.enter(ctx, Call{Method: "Status"}); err != nil {
		return nil, err
	}
	return &runtimeapi.StatusResponse{Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
		{Type: "RuntimeReady", Status: true}, {Type: "NetworkReady", Status: true},
	}}}, nil
}

// RunPodSandbox implements cri.Sandboxes.
func (r *Runtime) RunPodSandbox(ctx context.Context, config *runtimeapi.PodSandboxConfig, handler string) (string, error) {
	if err := r.enter(ctx, Call{Method: "RunPodSandbox", PodUID: config.GetMetadata().GetUid()}); err != nil {
		return "", err
	}
	if err := r.wait(ctx, r.cfg.SandboxLatency); err != nil {
		return "", err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	meta := config.GetMetadata()
	for _, s := range r.sandboxes {
		if m := s.config.GetMetadata(); m.GetUid() == meta.GetUid() && m.GetAttempt() == meta.GetAttempt() {
			return "", status.Errorf(codes.AlreadyExists, "sandbox of pod %s/%s, attempt %d, exists already", meta.GetNamespace(), meta.GetName(), meta.GetAttempt())
		}
	}
	s := &sandbox{id: r.newID(), config: config, handler: handler, ready: true, created: r.clock.Now()}
	if config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetNetwork() != runtimeapi.NamespaceMode_NODE {
		ip, err := r.address()
		if err != nil {
			return "", err
		}
		s.ip = ip
	}
	r.sandboxes[s.id] = s
	r.changed(meta.GetUid(), s.id)
	return s.id, nil
}

// address needs mu. The first address of the range is the node's bridge.
func (r *Runtime) address() (string, error) {
	for a := r.cfg.PodCIDR.Addr().Next().Next(); r.cfg.PodCIDR.Contains(a); a = a.Next() {
		if !r.addresses[a] {
			r.addresses[a] = true
			return a.String(), nil
		}
	}
	return "", status.Errorf(codes.Unknown, "no free address in %s", r.cfg.PodCIDR)
}

// StopPodSandbox implements cri.Sandboxes.
func (r *Runtime) StopPodSandbox(ctx context.Context, id string) error {
	if err := r.enter(ctx, Call{Method: "StopPodSandbox", ID: id}); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sandboxes[id]
	if s == nil {
		return nil // stopping what is not there is what was wanted
	}
	for _, c := range r.containers {
		if c.sandbox == id {
			r.exit(c, 137)
		}
	}
	r.release(s)
	return nil
}

// release needs mu.
func (r *Runtime) release(s *sandbox) {
	s.ready = false
	if a, err := netip.ParseAddr(s.ip); err == nil {
		delete(r.addresses, a)
		s.ip = ""
	}
	r.changed(s.config.GetMetadata().GetUid(), s.id)
}

// RemovePodSandbox implements cri.Sandboxes.
func (r *Runtime) RemovePodSandbox(ctx context.Context, id string) error {
	if err := r.enter(ctx, Call{Method: "RemovePodSandbox", ID: id}); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sandboxes[id]
	if s == nil {
		return nil
	}
	for cid, c := range r.containers {
		if c.sandbox == id {
			r.exit(c, 137)
			delete(r.containers, cid)
		}
	}
	r.release(s)
	delete(r.sandboxes, id)
	return nil
}

// PodSandboxStatus implements cri.Sandboxes.
func (r *Runtime) PodSandboxStatus(ctx context.Context, id string) (*runtimeapi.PodSandboxStatus, error) {
	if err := r.enter(ctx, Call{Method: "PodSandboxStatus", ID: id}); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sandboxes[id]
	if s == nil {
		return nil, notFound("sandbox", id)
	}
	return &runtimeapi.PodSandboxStatus{
		Id: s.id, Metadata: s.config.GetMetadata(), State: s.state(), CreatedAt: s.created.UnixNano(),
		Network: &runtimeapi.PodSandboxNetworkStatus{Ip: s.ip},
		Labels:  s.config.GetLabels(), Annotations: s.config.GetAnnotations(), RuntimeHandler: s.handler,
	}, nil
}

func (s *sandbox) state() runtimeapi.PodSandboxState {
	if s.ready {
		return runtimeapi.PodSandboxState_SANDBOX_READY
	}
	return runtimeapi.PodSandboxState_SANDBOX_NOTREADY
}

// ListPodSandbox implements cri.Sandboxes.
func (r *Runtime) ListPodSandbox(ctx context.Context, filter *runtimeapi.PodSandboxFilter) ([]*runtimeapi.PodSandbox, error) {
	if err := r.enter(ctx, Call{Method: "ListPodSandbox"}); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*runtimeapi.PodSandbox
	for _, s := range r.sandboxes {
		if selects(filter.GetLabelSelector(), s.config.GetLabels()) && (filter.GetId() == "" || filter.GetId() == s.id) {
			out = append(out, &runtimeapi.PodSandbox{
				Id: s.id, Metadata: s.config.GetMetadata(), State: s.state(), CreatedAt: s.created.UnixNano(),
				Labels: s.config.GetLabels(), Annotations: s.config.GetAnnotations(), RuntimeHandler: s.handler,
			})
		}
	}
	return out, nil
}

func selects(selector, labels map[string]string) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return true
}
