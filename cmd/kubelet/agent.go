package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"

	"coracle/pkg/dns"
	"coracle/pkg/kubelet"
	"coracle/pkg/network"
	"coracle/pkg/network/announce"
	"coracle/pkg/nodeconfig"
	"coracle/pkg/proxy"
	"coracle/pkg/reconcile"
)

const (
	defaultPort = 10250
	dnsPort     = 53
)

// runner is a part of the agent.
type runner interface {
	Run(ctx context.Context) error
}

// agent is everything that runs on a node, over one set of informers.
type agent struct {
	identity *identity
	all      informers.SharedInformerFactory // cluster-wide kinds
	mine     informers.SharedInformerFactory // this node's pods
	parts    map[string]runner
	log      *slog.Logger
}

// newAgent composes a node's agent. It touches neither network nor runtime.
func newAgent(conf *nodeconfig.Kubelet, log *slog.Logger) (*agent, error) {
	id, err := newIdentity(conf, log)
	if err != nil {
		return nil, err
	}
	client := id.client
	a := &agent{
		identity: id,
		all:      reconcile.NewInformers(client),
		mine: informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(reconcile.Transform),
			informers.WithTweakListOptions(func(o *metav1.ListOptions) {
				reconcile.ConsistentLists(o)
				o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", conf.NodeName).String()
			})),
		parts: map[string]runner{},
		log:   log,
	}
	services, err := a.proxy(conf)
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	a.parts["proxy"] = services
	for name, make := range map[string]func() (runner, error){
		"kubelet":  func() (runner, error) { return a.kubelet(conf) },
		"dns":      func() (runner, error) { return a.dns(conf) },
		"network":  func() (runner, error) { return a.network(conf) },
		"announce": func() (runner, error) { return a.announce(conf, services.Programmed()) },
	} {
		part, err := make()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if part != nil {
			a.parts[name] = part
		}
	}
	return a, nil
}

func (a *agent) kubelet(conf *nodeconfig.Kubelet) (runner, error) {
	port := conf.Port
	if port == 0 {
		port = defaultPort
	}
	return kubelet.New(kubelet.Config{
		NodeName: conf.NodeName, NodeIPs: []string{conf.NodeIP.String()},
		Client: a.identity.client, Informers: a.all,
		RuntimeEndpoint: conf.RuntimeEndpoint, RootDir: conf.RootDir, CgroupRoot: conf.CgroupRoot,
		ClusterDNS: []string{conf.ClusterDNS.String()}, ClusterDomain: conf.ClusterDomain,
		Labels: conf.NodeLabels, Closed: conf.Closed,
		Server: &kubelet.ServerConfig{Address: net.JoinHostPort(conf.NodeIP.String(), strconv.Itoa(port)), TLS: a.identity.serving, ClientCAs: a.identity.trust.callers.Pool},
		Log:    a.log.With("part", "kubelet"),
	})
}

func (a *agent) proxy(conf *nodeconfig.Kubelet) (*proxy.Proxy, error) {
	return proxy.New(proxy.Config{
		NodeName: conf.NodeName, Informers: a.all,
		ServiceCIDRs: []netip.Prefix{conf.ServiceCIDR}, ClusterPods: []netip.Prefix{conf.PodCIDR},
		LocalVIPs: []netip.Addr{conf.ClusterDNS},
		Log:       a.log.With("part", "proxy"),
	})
}

func (a *agent) dns(conf *nodeconfig.Kubelet) (runner, error) {
	return dns.New(dns.Config{
		Informers: a.all, Listen: []netip.AddrPort{netip.AddrPortFrom(conf.ClusterDNS, dnsPort)}, Domain: conf.ClusterDomain,
		ServiceCIDRs: []netip.Prefix{conf.ServiceCIDR}, PodCIDRs: []netip.Prefix{conf.PodCIDR},
		Log: a.log.With("part", "dns"),
	})
}

func (a *agent) network(conf *nodeconfig.Kubelet) (runner, error) {
	return network.New(network.Config{
		NodeName: conf.NodeName, Informers: a.all, Pods: a.mine.Core().V1().Pods().Informer(),
		Ranges:    network.Ranges{Pods: []netip.Prefix{conf.PodCIDR}, Services: []netip.Prefix{conf.ServiceCIDR}},
		LocalVIPs: []netip.Addr{conf.ClusterDNS}, CNIDir: conf.CNIConfDir,
		Log: a.log.With("part", "network"),
	})
}

// announce answers for load balancers' addresses once their rules are there. It
// is nil where the node has no part in that.
func (a *agent) announce(conf *nodeconfig.Kubelet, programmed <-chan struct{}) (runner, error) {
	if !conf.LoadBalancers.IsValid() {
		return nil, nil
	}
	return announce.New(announce.Config{
		NodeName: conf.NodeName, NodeIP: conf.NodeIP, Pool: conf.LoadBalancers,
		Informers: a.all, Ready: programmed, Log: a.log.With("part", "announce"),
	})
}

// run runs all parts until ctx ends or one fails.
func (a *agent) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	a.identity.start(ctx, g)
	if !a.identity.await(ctx) {
		return g.Wait()
	}
	for _, f := range []informers.SharedInformerFactory{a.all, a.mine} {
		f.StartWithContext(ctx)
		defer f.Shutdown()
	}
	for name, part := range a.parts {
		g.Go(func() error {
			if err := part.Run(ctx); err != nil && ctx.Err() == nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	return g.Wait()
}
