package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
)

// serviceIndex finds the EndpointSlices of a service.
const serviceIndex = "coracle.proxy/service"

// Config is what a proxy needs. NodeName, Informers and ServiceCIDRs must be
// set; the zero value of the rest is its default.
type Config struct {
	// NodeName is this node's name.
	NodeName string
	// Informers give Services, EndpointSlices and Nodes; New registers what it
	// needs, and the caller starts them.
	Informers informers.SharedInformerFactory
	// ServiceCIDRs are the cluster's service ranges, ClusterPods its pod ranges.
	ServiceCIDRs, ClusterPods []netip.Prefix
	// LocalVIPs are cluster addresses that the node itself serves (DNS).
	LocalVIPs []netip.Addr
	// ExternalIPs obeys spec.externalIPs.
	ExternalIPs bool
	// NetNS is a descriptor of the network namespace to work in; 0 is the
	// caller's.
	NetNS int
	// MinInterval is the shortest time between two transactions; changes in
	// between go together in the second. A change after a quiet time is sent
	// at once. Default 10 ms.
	MinInterval time.Duration
	// FullInterval is how often the whole table is written again, in case
	// somebody else changed it. Default one hour; negative never.
	FullInterval time.Duration
	// Listen opens the health check ports. Default: net.Listen.
	Listen func(network, address string) (net.Listener, error)
	// Clock is the source of time. Default: the real one.
	Clock clock.WithTicker
	// Log gets what an operator should know. Default: discarded.
	Log *slog.Logger
}

// retryInterval is how long to wait after the kernel refused a transaction.
const retryInterval = time.Second

func (c *Config) setDefaults() error {
	if c.NodeName == "" || c.Informers == nil || len(c.ServiceCIDRs) == 0 {
		return errors.New("proxy: set NodeName, Informers and ServiceCIDRs")
	}
	if c.MinInterval == 0 {
		c.MinInterval = 10 * time.Millisecond
	}
	if c.FullInterval == 0 {
		c.FullInterval = time.Hour
	}
	if c.Listen == nil {
		c.Listen = listenTCP
	}
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Proxy keeps a node's service rules. Make one with New.
type Proxy struct {
	cfg      Config
	services corelisters.ServiceLister
	nodes    corelisters.NodeLister
	slices   cache.Indexer
	synced   []cache.InformerSynced

	mu sync.Mutex
	// dirty are the services to look at again; guarded by mu.
	dirty map[types.NamespacedName]struct{}
	// factsDirty asks for looking at the facts, and at all services if they
	// changed; guarded by mu.
	factsDirty bool
	wake       chan struct{}
	programmed chan struct{}

	// The rest belongs to Run's goroutine.
	facts  *Facts
	model  *Model
	table  *Table
	flows  *flowCleaner
	health *healthServers
}

// New registers informers and event handlers. It touches nothing in the kernel.
func New(cfg Config) (*Proxy, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	p := &Proxy{
		cfg: cfg, dirty: map[types.NamespacedName]struct{}{},
		wake: make(chan struct{}, 1), programmed: make(chan struct{}),
		model: NewModel(), flows: newFlowCleaner(cfg.NetNS, cfg.Log),
		health: newHealthServers(cfg.Listen, cfg.Log),
	}
	services := cfg.Informers.Core().V1().Services()
	nodes := cfg.Informers.Core().V1().Nodes()
	endpoints := cfg.Informers.Discovery().V1().EndpointSlices().Informer()
	p.services, p.nodes, p.slices = services.Lister(), nodes.Lister(), endpoints.GetIndexer()
	if err := endpoints.AddIndexers(cache.Indexers{serviceIndex: indexByService}); err != nil {
		return nil, fmt.Errorf("index EndpointSlices by service: %w", err)
	}
	for _, r := range []struct {
		informer cache.SharedIndexInformer
		mark     func(any)
	}{{services.Informer(), p.markService}, {endpoints, p.markSlice}, {nodes.Informer(), p.markNode}} {
		reg, err := r.informer.AddEventHandler(handler(r.mark))
		if err != nil {
			return nil, fmt.Errorf("watch for the service proxy: %w", err)
		}
		p.synced = append(p.synced, reg.HasSynced)
	}
	return p, nil
}

// handler calls mark with each object that is added, changed or gone; of a
// changed one with both states, since a slice may move to another service.
func handler(mark func(any)) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: mark,
		UpdateFunc: func(old, now any) {
			mark(old)
			mark(now)
		},
		DeleteFunc: func(obj any) {
			if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = gone.Obj
			}
			mark(obj)
		},
	}
}

func indexByService(obj any) ([]string, error) {
	s, ok := obj.(*discoveryv1.EndpointSlice)
	if !ok || s.Labels[discoveryv1.LabelServiceName] == "" {
		return nil, nil
	}
	return []string{s.Namespace + "/" + s.Labels[discoveryv1.LabelServiceName]}, nil
}

func (p *Proxy) markService(obj any) {
	if s, ok := obj.(*corev1.Service); ok {
		p.mark(types.NamespacedName{Namespace: s.Namespace, Name: s.Name}, false)
	}
}

func (p *Proxy) markSlice(obj any) {
	if s, ok := obj.(*discoveryv1.EndpointSlice); ok {
		name := types.NamespacedName{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]}
		p.mark(name, name == apiService)
	}
}

func (p *Proxy) markNode(any) { p.mark(types.NamespacedName{}, true) }

func (p *Proxy) mark(name types.NamespacedName, facts bool) {
	p.mu.Lock()
	if name.Name != "" {
		p.dirty[name] = struct{}{}
	}
	p.factsDirty = p.factsDirty || facts
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Programmed is closed once the node's table holds all services that existed
// when Run started.
func (p *Proxy) Programmed() <-chan struct{} { return p.programmed }

// Run keeps the table until ctx ends. The rules stay in the kernel then: the
// next Run replaces them in one step, and pods do not notice in between.
func (p *Proxy) Run(ctx context.Context) error {
	if !cache.WaitForCacheSync(ctx.Done(), p.synced...) {
		return nil
	}
	table, err := OpenTable(p.cfg.NetNS)
	if err != nil {
		return err
	}
	defer table.Close()
	p.table = table
	var cleaner sync.WaitGroup
	cleaner.Go(func() { p.flows.run(ctx) })
	defer cleaner.Wait()
	defer p.health.close()

	full := make(<-chan time.Time)
	if p.cfg.FullInterval > 0 {
		t := p.cfg.Clock.NewTicker(p.cfg.FullInterval)
		defer t.Stop()
		full = t.C()
	}
	replace := true
	for {
		pause := p.cfg.MinInterval
		if err := p.sync(replace); err != nil {
			p.cfg.Log.Error("could not program services; the rules before stay in force", "error", err)
			replace, pause = true, retryInterval
			p.rewake()
		} else {
			replace = false
			p.markProgrammed()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-p.cfg.Clock.After(pause):
		}
		select {
		case <-ctx.Done():
			return nil
		case <-full:
			replace = true
		case <-p.wake:
		}
	}
}

func (p *Proxy) rewake() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *Proxy) markProgrammed() {
	select {
	case <-p.programmed:
	default:
		close(p.programmed)
	}
}

// sync brings the model up to date with the informers and the kernel up to
// date with the model.
func (p *Proxy) sync(replace bool) error {
	p.mu.Lock()
	dirty, lookAtFacts := p.dirty, p.factsDirty
	p.dirty, p.factsDirty = map[types.NamespacedName]struct{}{}, false
	p.mu.Unlock()

	if lookAtFacts || p.facts == nil {
		facts := p.readFacts()
		if p.facts == nil || !reflect.DeepEqual(facts, p.facts) {
			replace = replace || p.facts == nil || !reflect.DeepEqual(facts.NodePods, p.facts.NodePods)
			p.facts = facts
			dirty = p.allServices()
		}
	}
	for name := range dirty {
		p.update(name)
	}
	var changes Changes
	if replace {
		changes = p.model.TakeAll()
		if err := p.table.Replace(p.facts, &changes); err != nil {
			return err
		}
	} else if changes = p.model.Take(); !changes.Empty() {
		if err := p.table.Apply(&changes); err != nil {
			// A family is new, or somebody else was in the table.
			p.cfg.Log.Info("writing the whole service table anew", "reason", err)
			return p.sync(true)
		}
	}
	p.flows.add(changes.UDP)
	return nil
}

// update computes one service again.
func (p *Proxy) update(name types.NamespacedName) {
	svc, err := p.services.Services(name.Namespace).Get(name.Name)
	if err != nil {
		// The lister reads memory: the only error is that there is none.
		p.model.Remove(name)
		_ = p.health.set(name, nil)
		return
	}
	want := Compute(svc, p.slicesOf(name), p.facts)
	p.model.Set(want)
	if err := p.health.set(name, want.Health); err != nil {
		p.cfg.Log.Error("health check port is not served", "service", name, "error", err)
	}
}

func (p *Proxy) slicesOf(name types.NamespacedName) []*discoveryv1.EndpointSlice {
	objs, err := p.slices.ByIndex(serviceIndex, name.Namespace+"/"+name.Name)
	if err != nil {
		panic(err) // The index was added in New.
	}
	out := make([]*discoveryv1.EndpointSlice, 0, len(objs))
	for _, o := range objs {
		if s, ok := o.(*discoveryv1.EndpointSlice); ok {
			out = append(out, s)
		}
	}
	return out
}

// allServices is the union of what the informer and the model know.
func (p *Proxy) allServices() map[types.NamespacedName]struct{} {
	out := map[types.NamespacedName]struct{}{}
	for _, n := range p.model.Names() {
		out[n] = struct{}{}
	}
	for _, s := range listAll(p.services) {
		out[types.NamespacedName{Namespace: s.Namespace, Name: s.Name}] = struct{}{}
	}
	return out
}
