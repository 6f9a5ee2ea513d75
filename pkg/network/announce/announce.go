// Package announce has a node answer for load balancers' addresses on the
// network that the nodes share.
//
// Contract: of the nodes that are ready (and have a ready endpoint, where the
// service's externalTrafficPolicy is Local), all agree without a word which one
// answers for an address, since each computes the same order (lines). The
// address is given to that node's interface, so that its kernel answers ARP, and
// the change is told to the network. The next two nodes in the order are its
// deputies: they ask it every second whether it still answers, and the first of
// them takes the address after three questions without an answer, until the
// other is back. So a node that lost its power is replaced in some seconds, long
// before the API server gives it up. A cut-off node goes on answering, where
// nobody hears it.
//
// Addresses are IPv4. What reaches the node is the service proxy's to serve.
package announce

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"

	"coracle/pkg/network"
)

const (
	// settle is the pause that lets a burst of events become one look.
	settle = 50 * time.Millisecond
	// interval is how often deputies ask, and news are repeated.
	interval = time.Second
	// answerTime is how long a round of questions waits for answers.
	answerTime = 300 * time.Millisecond
	// repeats is how often the network is told of an address that moved here.
	repeats = 3
)

// Config is what a node needs to announce. All but NS, Ready, Clock and Log must
// be set.
type Config struct {
	// NodeName is this node's name, NodeIP its address on the shared network.
	NodeName string
	NodeIP   netip.Addr
	// Pool are the addresses that may be announced. Whatever of it the node's
	// interface has is this package's to remove.
	Pool netip.Prefix
	// Informers give Services, EndpointSlices and Nodes; New registers them, and
	// the caller starts them.
	Informers informers.SharedInformerFactory
	// Ready is closed when the node can serve what it announces; nil means that
	// it can.
	Ready <-chan struct{}
	// NS is the node's network namespace. Default: the caller's.
	NS *network.NS
	// Clock is the source of time. Default: the real one.
	Clock clock.WithTicker
	// Log gets what an operator should know. Default: discarded.
	Log *slog.Logger
}

func (c *Config) setDefaults() error {
	if c.NodeName == "" || c.Informers == nil || !c.NodeIP.Is4() || !c.Pool.Addr().Is4() {
		return errors.New("announce: set NodeName, Informers, and NodeIP and Pool of IPv4")
	}
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Announcer answers for addresses. Make one with New.
type Announcer struct {
	cfg      Config
	services corelisters.ServiceLister
	nodes    corelisters.NodeLister
	slices   discoverylisters.EndpointSliceLister
	synced   []cache.InformerSynced
	wake     chan struct{}

	// What follows belongs to Run's goroutine.
	ns     *network.NS
	link   string
	wire   *wire
	misses misses
	news   map[netip.Addr]int // how often to tell of an address that came here
	macs   map[netip.Addr]mac // where nodes answered last
}

// New registers informers and event handlers. It touches nothing in the kernel.
func New(cfg Config) (*Announcer, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	services, nodes, slices := cfg.Informers.Core().V1().Services(), cfg.Informers.Core().V1().Nodes(), cfg.Informers.Discovery().V1().EndpointSlices()
	a := &Announcer{
		cfg: cfg, services: services.Lister(), nodes: nodes.Lister(), slices: slices.Lister(), wake: make(chan struct{}, 1),
		misses: misses{}, news: map[netip.Addr]int{}, macs: map[netip.Addr]mac{},
	}
	for _, informer := range []cache.SharedIndexInformer{services.Informer(), nodes.Informer(), slices.Informer()} {
		reg, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { a.poke() },
			UpdateFunc: func(any, any) { a.poke() },
			DeleteFunc: func(any) { a.poke() },
		})
		if err != nil {
			return nil, fmt.Errorf("watch for load balancers: %w", err)
		}
		a.synced = append(a.synced, reg.HasSynced)
	}
	return a, nil
}

func (a *Announcer) poke() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// Run announces until ctx ends. The addresses stay then: the node's rules serve
// them while its agent is away.
func (a *Announcer) Run(ctx context.Context) error {
	a.ns = a.cfg.NS
	if a.ns == nil {
		ns, err := network.CurrentNS()
		if err != nil {
			return err
		}
		defer ns.Close()
		a.ns = ns
	}
	if !cache.WaitForCacheSync(ctx.Done(), a.synced...) {
		return nil
	}
	if a.cfg.Ready != nil {
		select {
		case <-ctx.Done():
			return nil
		case <-a.cfg.Ready:
		}
	}
	defer a.closeWire()
	asked := time.Time{}
	for {
		p := decide(a.lines(), a.cfg.NodeName, a.misses.silent)
		busy, err := a.keep(p.hold)
		if now := a.cfg.Clock.Now(); err == nil && now.Sub(asked) >= interval {
			asked = now
			err = a.round(p.watch)
		}
		if err != nil {
			a.cfg.Log.Error("could not announce the addresses of load balancers", "error", err)
			a.closeWire() // the link may be another one now
		}
		pause := time.Hour // nothing to do but wait for a change
		if busy || err != nil || len(p.watch) > 0 {
			pause = max(interval-a.cfg.Clock.Since(asked), settle)
		}
		if !a.rest(ctx, pause) {
			return nil
		}
	}
}

// rest waits for a change, at most for a time, and lets a burst of changes pass.
// It is false when ctx has ended.
func (a *Announcer) rest(ctx context.Context, pause time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-a.cfg.Clock.After(settle):
	}
	timer := a.cfg.Clock.NewTimer(pause - min(pause, settle))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C():
	case <-a.wake:
	}
	return true
}

// lines reads what all nodes decide from.
func (a *Announcer) lines() []line {
	services, err := a.services.List(labels.Everything())
	nodes, errNodes := a.nodes.List(labels.Everything())
	if err := errors.Join(err, errNodes); err != nil {
		panic(err) // A lister over memory has no error for Everything.
	}
	slicesOf := func(name types.NamespacedName) []*discoveryv1.EndpointSlice {
		of := labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: name.Name})
		out, err := a.slices.EndpointSlices(name.Namespace).List(of)
		if err != nil {
			panic(err) // The same.
		}
		return out
	}
	services = slices.DeleteFunc(services, func(s *corev1.Service) bool { return s.Spec.Type != corev1.ServiceTypeLoadBalancer })
	return lines(services, slicesOf, nodes, a.cfg.Pool)
}

// keep makes the interface have the wanted addresses of the pool and no others,
// and tells the network of those that are new here. It says whether there is
// more to tell.
func (a *Announcer) keep(want []netip.Addr) (busy bool, err error) {
	all, err := a.ns.Addrs()
	if err != nil {
		return false, err
	}
	var have []netip.Addr
	for _, p := range all {
		if a.cfg.Pool.Contains(p.Addr()) {
			have = append(have, p.Addr())
		}
	}
	if len(want) == 0 && len(have) == 0 {
		clear(a.news)
		return false, nil
	}
	if err := a.openWire(); err != nil {
		return false, err
	}
	var errs []error
	for _, addr := range have {
		if !slices.Contains(want, addr) {
			a.cfg.Log.Info("another node answers for a load balancer", "address", addr)
			errs = append(errs, a.ns.DeleteAddr(a.link, netip.PrefixFrom(addr, 32)))
			delete(a.news, addr)
		}
	}
	for _, addr := range want {
		if !slices.Contains(have, addr) {
			a.cfg.Log.Info("this node answers for a load balancer", "address", addr)
			errs = append(errs, a.ns.EnsureAddr(a.link, netip.PrefixFrom(addr, 32)))
			a.news[addr] = repeats
		}
	}
	for addr, left := range a.news {
		if left == 1 {
			delete(a.news, addr)
		} else {
			a.news[addr] = left - 1
		}
		errs = append(errs, a.wire.send(gratuitous(addr, a.wire.hw), broadcast))
	}
	return len(a.news) > 0, errors.Join(errs...)
}

func (a *Announcer) openWire() error {
	if a.wire != nil {
		return nil
	}
	link, ok := a.ns.LinkWith(a.cfg.NodeIP)
	if !ok {
		return fmt.Errorf("no interface has the node's address %s", a.cfg.NodeIP)
	}
	err := a.ns.Do(func() (err error) {
		a.wire, err = openWire(link)
		return err
	})
	a.link = link
	return err
}

func (a *Announcer) closeWire() {
	if a.wire != nil {
		a.wire.close()
		a.wire = nil
	}
}

// round asks the nodes that this one is a deputy of whether they answer for
// their addresses. A node whose place on the wire is not known is looked for
// first.
func (a *Announcer) round(watch []pair) error {
	if len(watch) == 0 {
		a.misses.note(nil, nil)
		return nil
	}
	if err := a.openWire(); err != nil {
		return err
	}
	// What came since the last round answers older questions, or the kernel's:
	// it says nothing about now.
	if err := a.wire.drain(); err != nil {
		return err
	}
	self, hw := a.cfg.NodeIP, a.wire.hw
	var looked []netip.Addr
	for _, w := range watch {
		var err error
		if at, known := a.macs[w.node]; known {
			err = a.wire.send(question(self, hw, w.address), at)
		} else if !slices.Contains(looked, w.node) {
			looked = append(looked, w.node)
			err = a.wire.send(question(self, hw, w.node), broadcast)
		}
		if err != nil {
			return err
		}
	}
	answered := map[pair]bool{}
	deadline := a.cfg.Clock.Now().Add(answerTime)
	for len(answered) < len(watch) {
		left := deadline.Sub(a.cfg.Clock.Now())
		if left <= 0 {
			break
		}
		p, ok, err := a.wire.receive(left)
		if err != nil {
			return err
		}
		if ok && p.op == opReply {
			if err := a.hear(&p, watch, answered); err != nil {
				return err
			}
		}
	}
	for _, w := range watch {
		if !answered[w] {
			delete(a.macs, w.node) // it may come back as another machine
		}
	}
	a.misses.note(watch, answered)
	return nil
}

// hear takes an answer: of a node that was looked for, which is then asked, or
// of one that answers for an address.
func (a *Announcer) hear(p *packet, watch []pair, answered map[pair]bool) error {
	_, known := a.macs[p.sender]
	for _, w := range watch {
		if at, ok := a.macs[w.node]; ok && w.address == p.sender && at == p.senderHW {
			answered[w] = true
		}
		if w.node != p.sender || known {
			continue // nobody looked for it
		}
		a.macs[w.node] = p.senderHW
		if err := a.wire.send(question(a.cfg.NodeIP, a.wire.hw, w.address), p.senderHW); err != nil {
			return err
		}
	}
	return nil
}
