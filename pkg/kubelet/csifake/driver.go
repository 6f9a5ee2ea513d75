package csifake

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// Config says what driver to be.
type Config struct {
	Name string
	// Dir is where the driver keeps its socket and its volumes.
	Dir string
	// Registry is the folder in which the agent looks for plugins.
	Registry string
	NodeID   string // "node-" and the name if empty
	Topology map[string]string
	Max      int64 // volumes of the node
	// Versions are what it announces; 1.0.0 if nil.
	Versions []string
	// Type of plugin; CSIPlugin if empty.
	Type string
	// Capabilities of the node service.
	Capabilities []spec.NodeServiceCapability_RPC_Type
}

// Driver is one driver, running between Start and Stop.
type Driver struct {
	spec.UnimplementedNodeServer
	spec.UnimplementedIdentityServer
	registration.UnimplementedRegistrationServer
	cfg Config

	mu       sync.Mutex
	calls    map[string]int                                      // by method; guarded by mu
	requests map[string]any                                      // the last of each method; guarded by mu
	before   map[string]func(ctx context.Context, req any) error // guarded by mu
	after    map[string]func(ctx context.Context, req any) error // guarded by mu
	max      int64                                               // volumes of the node; guarded by mu
	statuses []*registration.RegistrationStatus                  // guarded by mu

	service, announcement *grpc.Server // nil while not running
	serving               sync.WaitGroup
}

// New makes a driver that does not run yet.
func New(cfg Config) *Driver {
	if cfg.NodeID == "" {
		cfg.NodeID = "node-" + cfg.Name
	}
	if cfg.Versions == nil {
		cfg.Versions = []string{"1.0.0"}
	}
	if cfg.Type == "" {
		cfg.Type = registration.CSIPlugin
	}
	return &Driver{
		cfg: cfg, max: cfg.Max, calls: map[string]int{}, requests: map[string]any{},
		before: map[string]func(context.Context, any) error{}, after: map[string]func(context.Context, any) error{},
	}
}

// Endpoint is the driver's own socket.
func (d *Driver) Endpoint() string { return filepath.Join(d.cfg.Dir, "csi.sock") }

// Start serves, and announces the driver.
func (d *Driver) Start() error {
	if err := d.Serve(); err != nil {
		return err
	}
	return d.Announce()
}

// Serve serves the driver's own socket.
func (d *Driver) Serve() error {
	d.service = grpc.NewServer(grpc.UnaryInterceptor(d.intercept))
	spec.RegisterNodeServer(d.service, d)
	spec.RegisterIdentityServer(d.service, d)
	return d.listen(d.service, d.Endpoint())
}

// Announce serves the socket by which the agent learns of the driver.
func (d *Driver) Announce() error {
	d.announcement = grpc.NewServer(grpc.UnaryInterceptor(d.intercept))
	registration.RegisterRegistrationServer(d.announcement, d)
	return d.listen(d.announcement, d.registrationSocket())
}

func (d *Driver) registrationSocket() string {
	return filepath.Join(d.cfg.Registry, d.cfg.Name+"-reg.sock")
}

func (d *Driver) listen(server *grpc.Server, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("the fake driver's socket: %w", err)
	}
	d.serving.Go(func() { _ = server.Serve(l) })
	return nil
}

// Stop ends the driver, as its removal does: both sockets go. What is mounted
// stays.
func (d *Driver) Stop() {
	d.Withdraw()
	if d.service != nil {
		d.service.Stop()
		d.service = nil
	}
	d.serving.Wait()
}

// Withdraw takes the announcement away; the driver itself goes on.
func (d *Driver) Withdraw() {
	if d.announcement != nil {
		d.announcement.Stop()
		d.announcement = nil
	}
}

// Before has f called with each request of the method before it is done, and
// After when it is done; an error of f is the answer. Nil ends that.
func (d *Driver) Before(method string, f func(ctx context.Context, req any) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.before[method] = f
}

// After is described at Before.
func (d *Driver) After(method string, f func(ctx context.Context, req any) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.after[method] = f
}

// SetMax changes how many volumes the node may have.
func (d *Driver) SetMax(n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.max = n
}

// Calls is how often a method was called, NodePublishVolume for one.
func (d *Driver) Calls(method string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.calls[method]
}

// AllCalls counts the calls of all methods.
func (d *Driver) AllCalls() map[string]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.calls)
}

// Request is the last request of a method, nil if there was none.
func (d *Driver) Request(method string) any {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.requests[method]
}

// Statuses are what the agent said of the driver's registration.
func (d *Driver) Statuses() []*registration.RegistrationStatus {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.statuses)
}

func (d *Driver) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	method := filepath.Base(info.FullMethod)
	d.mu.Lock()
	d.calls[method]++
	d.requests[method] = req
	before, after := d.before[method], d.after[method]
	d.mu.Unlock()
	if before != nil {
		if err := before(ctx, req); err != nil {
			return nil, err
		}
	}
	reply, err := handle(ctx, req)
	if err == nil && after != nil {
		err = after(ctx, req)
	}
	return reply, err
}

// GetInfo implements the registration API.
func (d *Driver) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{Type: d.cfg.Type, Name: d.cfg.Name, Endpoint: d.Endpoint(), SupportedVersions: d.cfg.Versions}, nil
}

// NotifyRegistrationStatus implements the registration API.
func (d *Driver) NotifyRegistrationStatus(_ context.Context, s *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.statuses = append(d.statuses, s)
	return &registration.RegistrationStatusResponse{}, nil
}
