package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
)

// Label marks the Nodes of a fleet; its value is the fleet's prefix.
const Label = "coracle.dev/simulated"

const (
	defaultPrefix = "sim"
	// maxNodes bounds a fleet; each node has 256 addresses of fallbackRange.
	maxNodes = 100_000
	// maxPods is what the addresses of a /24 are enough for.
	maxPods = 250
	// The same for requests about pods, unless Config says.
	nodesPerPodWorker            = 20
	minPodWorkers, maxPodWorkers = 32, 256
	// Requests about nodes under way are one for every nodesPerWorker nodes,
	// within bounds: leases must be renewed in time by a server that takes long.
	nodesPerWorker                 = 40
	minNodeWorkers, maxNodeWorkers = 16, 256
	requestTimeout                 = 15 * time.Second
	firstRetry                     = 200 * time.Millisecond
	maxRetry                       = 10 * time.Second
)

// fallbackRange gives addresses to the pods of nodes that have no podCIDR. It is
// reserved and routed nowhere, as befits pods that are not there.
var fallbackRange = netip.MustParseAddr("240.0.0.0")

// Config says what the fleet is like. Client and Count are required.
type Config struct {
	// Client is allowed what the package comment says.
	Client kubernetes.Interface
	// Count is how many nodes, named PREFIX-0 and so on.
	Count int
	// Prefix is "sim" if empty. Two fleets of a cluster need different ones.
	Prefix string

	// Capacity of each node; missing are 32 CPUs, 256 GiB of memory and 110 pods.
	Capacity corev1.ResourceList
	Labels   map[string]string
	Taints   []corev1.Taint
	// Zones puts the nodes into that many zones in turn, zone-0 and so on; none
	// if 0.
	Zones int

	// StartTime is from a pod's binding to its running.
	StartTime time.Duration
	// RunTime is from a pod's start to its success, for pods that may end; 0
	// lets them run.
	RunTime time.Duration
	// StopTime is how long containers take to end when their pod is deleted, at
	// most the pod's grace period.
	StopTime time.Duration

	// Workers bounds the requests about pods under way; 0 means one for every 20
	// nodes, from 32 to 256.
	Workers int
	// OwnName makes all requests under the client's own name.
	OwnName bool

	Clock clock.WithTicker // the real clock if nil
	Log   *slog.Logger     // nil discards
}

func (c *Config) complete() error {
	if c.Prefix == "" {
		c.Prefix = defaultPrefix
	}
	switch {
	case c.Client == nil:
		return errors.New("fleet: Client is nil; give a client of the API server")
	case c.Count < 1 || c.Count > maxNodes:
		return fmt.Errorf("fleet: %d simulated nodes cannot be made; use 1 to %d", c.Count, maxNodes)
	case c.StartTime < 0 || c.RunTime < 0 || c.StopTime < 0 || c.Zones < 0:
		return errors.New("fleet: times and zones cannot be negative")
	}
	capacity := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("32"), corev1.ResourceMemory: resource.MustParse("256Gi"), corev1.ResourcePods: resource.MustParse("110"),
	}
	for name, q := range c.Capacity {
		capacity[name] = q
	}
	if pods := capacity[corev1.ResourcePods]; pods.CmpInt64(maxPods) > 0 {
		return fmt.Errorf("fleet: a simulated node has room for %d pods at most, not %s", maxPods, pods.String())
	}
	c.Capacity = capacity
	if c.Workers <= 0 {
		c.Workers = min(max(c.Count/nodesPerPodWorker, minPodWorkers), maxPodWorkers)
	}
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Fleet is many simulated nodes.
type Fleet struct {
	cfg   Config
	nodes []*machine
	// byName finds a node; filled in New.
	byName map[string]*machine

	core, leases rest.Interface
	machines     *queue // what is due for nodes
	work         *queue // what is due for pods

	mu   sync.Mutex
	pods map[types.UID]*pod // guarded by mu
	// missing counts the nodes not registered yet; registered is closed when
	// there are none. Guarded by mu.
	missing    int
	registered chan struct{}
}

// New makes a fleet. It does not talk to the API server yet.
func New(cfg Config) (*Fleet, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	f := &Fleet{
		cfg: cfg, byName: make(map[string]*machine, cfg.Count), pods: map[types.UID]*pod{},
		core: cfg.Client.CoreV1().RESTClient(), leases: cfg.Client.CoordinationV1().RESTClient(),
		machines: newQueue(cfg.Clock, min(max(cfg.Count/nodesPerWorker, minNodeWorkers), maxNodeWorkers)), work: newQueue(cfg.Clock, cfg.Workers),
		missing: cfg.Count, registered: make(chan struct{}),
	}
	for i := range cfg.Count {
		m := &machine{fleet: f, index: i, name: fmt.Sprintf("%s-%d", cfg.Prefix, i)}
		m.lease.machine, m.status.machine = m, m
		m.addresses.base = fallback(i)
		f.nodes = append(f.nodes, m)
		f.byName[m.name] = m
	}
	return f, nil
}

// Registered is closed once every node has been registered and has a Lease.
func (f *Fleet) Registered() <-chan struct{} { return f.registered }

// Run is the fleet's life. It returns when all it started has ended; nodes and
// pods stay as they are. The end of ctx is not an error.
func (f *Fleet) Run(ctx context.Context) error {
	var parts sync.WaitGroup
	parts.Go(func() { f.machines.run(ctx) })
	parts.Go(func() { f.work.run(ctx) })
	parts.Go(func() { f.followNodes(ctx) })
	parts.Go(func() { f.followPods(ctx) })
	parts.Wait()
	return nil
}

// as makes a request that of a node.
func (f *Fleet) as(r *rest.Request, m *machine) *rest.Request {
	if f.cfg.OwnName {
		return r
	}
	return r.SetHeader("Impersonate-User", "system:node:"+m.name).SetHeader("Impersonate-Group", "system:nodes")
}

// retry says when something that failed is tried again, and logs the first
// failures of a row: a server that is away fails thousands of times.
func (f *Fleet) retry(ctx context.Context, failures *uint8, what, name string, err error) time.Time {
	if ctx.Err() != nil {
		return time.Time{}
	}
	if *failures == 2 {
		f.cfg.Log.Warn("the API server did not do what a simulated node asked, will try again", "to", what, "object", name, "error", err)
	}
	delay := min(firstRetry<<min(*failures, 6), maxRetry)
	if *failures < 255 {
		*failures++
	}
	return f.cfg.Clock.Now().Add(delay)
}

func fallback(index int) netip.Addr {
	b := fallbackRange.As4()
	b[1], b[2] = byte(index>>8), byte(index)
	b[0] += byte(index >> 16)
	return netip.AddrFrom4(b)
}
