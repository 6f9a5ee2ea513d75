package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
)

// serviceIndex finds the EndpointSlices of a service.
const serviceIndex = "coracle.dns/service"

// Config is what the cluster DNS of a node needs. Informers and Listen must be
// set; the zero value of the rest is its default.
type Config struct {
	// Informers give Services, EndpointSlices and Namespaces (Pods too with
	// VerifyPods); New registers what it needs, and the caller starts them.
	Informers informers.SharedInformerFactory
	// Listen are the addresses to answer on, over UDP and TCP. They need not
	// be on an interface yet.
	Listen []netip.AddrPort
	// Domain is the cluster domain. Default cluster.local.
	Domain string
	// ServiceCIDRs and PodCIDRs are the ranges whose reverse names are ours.
	ServiceCIDRs, PodCIDRs []netip.Prefix
	// VerifyPods answers a-b-c-d.ns.pod only for pods that exist, for which
	// this node watches all pods of the cluster. Otherwise each address of
	// PodCIDRs has the name in each namespace.
	VerifyPods bool
	// Forward are the servers for names outside the cluster; none means that
	// such names do not exist and nothing is sent.
	Forward []netip.AddrPort
	// Workers is the number of readers per address. Default GOMAXPROCS.
	Workers int
	// Random seeds the order of addresses. Default: the runtime's.
	Random func() uint64
	// Clock ages forwarded answers. Default: the real one.
	Clock clock.PassiveClock
	// Log gets what an operator should know. Default: discarded.
	Log *slog.Logger
}

func (c *Config) setDefaults() error {
	if c.Informers == nil || len(c.Listen) == 0 {
		return errors.New("dns: set Informers and Listen")
	}
	if c.Domain == "" {
		c.Domain = "cluster.local"
	}
	if c.Workers <= 0 {
		c.Workers = runtime.GOMAXPROCS(0)
	}
	if c.Random == nil {
		c.Random = rand.Uint64
	}
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Server is a node's cluster DNS. Make one with New.
type Server struct {
	cfg      Config
	zone     *Zone
	services corelisters.ServiceLister
	slices   cache.Indexer
	synced   []cache.InformerSynced
	ready    chan struct{}

	mu sync.Mutex
	// addrs are the addresses in use once Run listens; guarded by mu.
	addrs []netip.AddrPort
}

// New registers informers; records follow their events from then on.
func New(cfg Config) (*Server, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	zc := ZoneConfig{Domain: cfg.Domain, Server: cfg.Listen[0].Addr()}
	zc.Reverse = append(append(zc.Reverse, cfg.ServiceCIDRs...), cfg.PodCIDRs...)
	if !cfg.VerifyPods {
		zc.Pods = cfg.PodCIDRs
	}
	zone, err := NewZone(zc)
	if err != nil {
		return nil, fmt.Errorf("dns: cluster domain %q: %w", cfg.Domain, err)
	}
	s := &Server{cfg: cfg, zone: zone, ready: make(chan struct{})}
	services := cfg.Informers.Core().V1().Services()
	endpoints := cfg.Informers.Discovery().V1().EndpointSlices().Informer()
	s.services, s.slices = services.Lister(), endpoints.GetIndexer()
	if err := endpoints.AddIndexers(cache.Indexers{serviceIndex: indexByService}); err != nil {
		return nil, fmt.Errorf("index EndpointSlices by service: %w", err)
	}
	watched := []struct {
		informer cache.SharedIndexInformer
		update   func(obj any, gone bool)
	}{
		{services.Informer(), s.onService}, {endpoints, s.onSlice},
		{cfg.Informers.Core().V1().Namespaces().Informer(), s.onNamespace},
	}
	if cfg.VerifyPods {
		watched = append(watched, struct {
			informer cache.SharedIndexInformer
			update   func(obj any, gone bool)
		}{cfg.Informers.Core().V1().Pods().Informer(), s.onPod})
	}
	for _, w := range watched {
		reg, err := w.informer.AddEventHandler(handler(w.update))
		if err != nil {
			return nil, fmt.Errorf("watch for the cluster DNS: %w", err)
		}
		s.synced = append(s.synced, reg.HasSynced)
	}
	return s, nil
}

// handler calls update with each object added, changed or gone; of a changed
// one with both states, since a slice may move to another service.
func handler(update func(obj any, gone bool)) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) { update(obj, false) },
		UpdateFunc: func(old, now any) {
			if o, ok := old.(*discoveryv1.EndpointSlice); ok {
				n, ok := now.(*discoveryv1.EndpointSlice)
				if ok && n.Labels[discoveryv1.LabelServiceName] != o.Labels[discoveryv1.LabelServiceName] {
					update(old, false)
				}
			}
			update(now, false)
		},
		DeleteFunc: func(obj any) {
			if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = gone.Obj
			}
			update(obj, true)
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

func (s *Server) onService(obj any, _ bool) {
	if svc, ok := obj.(*corev1.Service); ok {
		s.update(svc.Namespace, svc.Name)
	}
}

func (s *Server) onSlice(obj any, _ bool) {
	if slice, ok := obj.(*discoveryv1.EndpointSlice); ok && slice.Labels[discoveryv1.LabelServiceName] != "" {
		s.update(slice.Namespace, slice.Labels[discoveryv1.LabelServiceName])
	}
}

func (s *Server) onNamespace(obj any, gone bool) {
	if ns, ok := obj.(*corev1.Namespace); ok {
		s.zone.SetNamespace(ns.Name, !gone)
	}
}

func (s *Server) onPod(obj any, gone bool) {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return
	}
	var records []Record
	if !gone {
		records = PodRecords(pod, s.zone.Domain())
	}
	s.zone.Set("pod "+pod.Namespace+"/"+pod.Name, records)
}

// update computes one service again from what the informers hold now. It may
// run for services and slices at the same time: mu makes the later view win.
func (s *Server) update(namespace, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	owner := "svc " + namespace + "/" + name
	svc, err := s.services.Services(namespace).Get(name)
	if err != nil {
		s.zone.Set(owner, nil) // The lister reads memory: there is none.
		return
	}
	objs, err := s.slices.ByIndex(serviceIndex, namespace+"/"+name)
	if err != nil {
		panic(err) // The index was added in New.
	}
	slices := make([]*discoveryv1.EndpointSlice, 0, len(objs))
	for _, o := range objs {
		if slice, ok := o.(*discoveryv1.EndpointSlice); ok {
			slices = append(slices, slice)
		}
	}
	s.zone.Set(owner, Records(svc, slices, s.zone.Domain()))
}

// Ready is closed when the server answers, with all records that existed when
// it started.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Addrs are the addresses that the server answers on, after Ready.
func (s *Server) Addrs() []netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addrs
}

// Run answers until ctx ends. It does not answer before it knows all records: a
// resolver that hears nothing tries again, one that hears NXDOMAIN believes it.
func (s *Server) Run(ctx context.Context) error {
	if !cache.WaitForCacheSync(ctx.Done(), s.synced...) {
		return nil
	}
	srv := &server{zone: s.zone, seed: s.cfg.Random, workers: s.cfg.Workers, log: s.cfg.Log}
	if len(s.cfg.Forward) > 0 {
		srv.forward = newForwarder(s.cfg.Forward, s.cfg.Clock)
	}
	var open []*listener
	for _, a := range s.cfg.Listen {
		l, err := listen(ctx, a)
		if err != nil {
			for _, o := range open {
				err = errors.Join(err, o.close())
			}
			return err
		}
		open = append(open, l)
		s.mu.Lock()
		s.addrs = append(s.addrs, l.udp.LocalAddr().(*net.UDPAddr).AddrPort())
		s.mu.Unlock()
	}
	close(s.ready)
	var wg sync.WaitGroup
	for _, l := range open {
		wg.Go(func() { srv.serve(ctx, l) })
	}
	wg.Wait()
	return nil
}
