package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
)

// Config is what the pod network of a node needs. NodeName, Informers and
// Ranges must be set; the zero value of the rest is its default.
type Config struct {
	// NodeName is this node's name.
	NodeName string
	// Informers give Nodes; New registers it, and the caller starts it.
	Informers informers.SharedInformerFactory
	// Pods have the host ports; it should watch the pods of this node only, and
	// others are ignored. Nil means that somebody else carries host ports. The
	// caller starts it.
	Pods cache.SharedIndexInformer
	// Ranges are the cluster's.
	Ranges Ranges
	// LocalVIPs are put on the node's loopback interface: the cluster DNS
	// address.
	LocalVIPs []netip.Addr
	// CNIDir is where runtimes look for CNI configuration. Default
	// /etc/cni/net.d.
	CNIDir string
	// NS is the node's network namespace. Default: the caller's.
	NS *NS
	// Interval is how often everything is looked at without an event. Default
	// one minute.
	Interval time.Duration
	// Clock is the source of time. Default: the real one.
	Clock clock.WithTicker
	// Log gets what an operator should know. Default: discarded.
	Log *slog.Logger
}

// retryInterval is how long to wait after a failure, and settle the pause that
// lets a burst of events become one look.
const (
	retryInterval = time.Second
	settle        = 100 * time.Millisecond
)

func (c *Config) setDefaults() error {
	if c.NodeName == "" || c.Informers == nil || len(c.Ranges.Pods) == 0 {
		return errors.New("network: set NodeName, Informers and Ranges.Pods")
	}
	if c.CNIDir == "" {
		c.CNIDir = "/etc/cni/net.d"
	}
	if c.Interval == 0 {
		c.Interval = time.Minute
	}
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Network keeps a node's pod network. Make one with New.
type Network struct {
	cfg    Config
	nodes  corelisters.NodeLister
	synced []cache.InformerSynced
	wake   chan struct{}

	// What follows belongs to Run's goroutine.
	ns     *NS
	relays *relays
	// rules is what the table holds, nil if unknown.
	rules *Rules
	// foreign is the other pod network's file that was last reported.
	foreign string
}

// New registers informers and event handlers. It touches nothing in the kernel.
func New(cfg Config) (*Network, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	nodes := cfg.Informers.Core().V1().Nodes()
	n := &Network{cfg: cfg, nodes: nodes.Lister(), wake: make(chan struct{}, 1)}
	watched := []cache.SharedIndexInformer{nodes.Informer()}
	if cfg.Pods != nil {
		watched = append(watched, cfg.Pods)
	}
	for _, informer := range watched {
		reg, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { n.poke() },
			UpdateFunc: func(any, any) { n.poke() },
			DeleteFunc: func(any) { n.poke() },
		})
		if err != nil {
			return nil, fmt.Errorf("watch for the pod network: %w", err)
		}
		n.synced = append(n.synced, reg.HasSynced)
	}
	return n, nil
}

func (n *Network) poke() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// Run keeps the network until ctx ends. What is in the kernel stays then, so
// that pods keep their network while the agent is away.
func (n *Network) Run(ctx context.Context) error {
	n.ns = n.cfg.NS
	if n.ns == nil {
		ns, err := CurrentNS()
		if err != nil {
			return err
		}
		defer ns.Close()
		n.ns = ns
	}
	// These need no API server: after a reboot, pods restored from the node's
	// own checkpoint find DNS and forwarding.
	if err := n.prepare(); err != nil {
		n.cfg.Log.Error("could not prepare the node's network", "error", err)
	}
	if !cache.WaitForCacheSync(ctx.Done(), n.synced...) {
		return nil
	}
	n.relays = &relays{ns: n.ns, log: n.cfg.Log, open: map[HostPort]context.CancelFunc{}}
	defer n.relays.close()
	tick := n.cfg.Clock.NewTicker(n.cfg.Interval)
	defer tick.Stop()
	for {
		pause := settle
		if err := n.reconcile(ctx); err != nil {
			n.cfg.Log.Error("could not put the pod network in order", "error", err)
			pause = retryInterval
			n.poke()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-n.cfg.Clock.After(pause):
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C():
		case <-n.wake:
		}
	}
}

// prepare sets what does not depend on any object.
func (n *Network) prepare() error {
	var errs []error
	for _, a := range n.cfg.LocalVIPs {
		errs = append(errs, n.ns.EnsureAddr("lo", netip.PrefixFrom(a, a.BitLen())))
	}
	errs = append(errs, n.ns.SetUp("lo"), n.ns.Do(func() error {
		return setSysctls(slices.ContainsFunc(n.cfg.Ranges.Pods, func(p netip.Prefix) bool { return p.Addr().Is6() }))
	}))
	return errors.Join(errs...)
}

// setSysctls writes those that differ. It runs inside the namespace, whose own
// values /proc/sys/net shows.
func setSysctls(v6 bool) error {
	want := map[string]string{
		"ipv4/ip_forward": "1",
		// Answers between two pods on the bridge must pass connection tracking,
		// or a service's translation is not undone.
		"bridge/bridge-nf-call-iptables": "1",
	}
	if v6 {
		want["ipv6/conf/all/forwarding"] = "1"
		want["bridge/bridge-nf-call-ip6tables"] = "1"
	}
	var errs []error
	for name, value := range want {
		path := filepath.Join("/proc/sys/net", name)
		have, err := os.ReadFile(path)
		if err == nil && strings.TrimSpace(string(have)) == value {
			continue
		}
		if errors.Is(err, os.ErrNotExist) && strings.HasPrefix(name, "bridge/") {
			err = fmt.Errorf("the kernel lacks bridge netfilter, load the module br_netfilter: %w", err)
		} else {
			err = os.WriteFile(path, []byte(value), 0)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("set net/%s to %s: %w", name, value, err))
		}
	}
	return errors.Join(errs...)
}

// reconcile looks at everything once. Steps do not wait for each other: one
// that fails leaves the others done.
func (n *Network) reconcile(ctx context.Context) error {
	errs := []error{n.prepare()}
	nodes, err := n.nodes.List(labels.Everything())
	if err != nil {
		panic(err) // A lister over memory has no error for Everything.
	}
	self := slices.IndexFunc(nodes, func(x *corev1.Node) bool { return x.Name == n.cfg.NodeName })
	if self < 0 {
		return errors.Join(errs...) // Not registered yet; its event wakes us.
	}
	foreign, err := findForeign(n.cfg.CNIDir)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	if foreign != n.foreign {
		n.foreign = foreign
		n.cfg.Log.Info("pod network", "foreign configuration", foreign)
	}
	routes := n.serviceRoutes(nodes[self])
	if foreign != "" {
		// Somebody else's network: their routes, their rules.
		errs = append(errs, removeConf(n.cfg.CNIDir), n.keepRoutes(routes), n.keepRules(ctx, nil))
		return errors.Join(errs...)
	}
	cidrs := n.cfg.Ranges.PodCIDRs(nodes[self])
	routes = append(routes, Routes(n.cfg.NodeName, nodes, &n.cfg.Ranges)...)
	errs = append(errs, n.keepRoutes(routes))
	if len(cidrs) > 0 {
		errs = append(errs, n.keepRules(ctx, n.wantedRules(cidrs, nodes)))
		changed, err := writeConf(n.cfg.CNIDir, ConfList(cidrs, n.uplinkMTU(nodes[self])))
		errs = append(errs, err)
		if changed {
			n.cfg.Log.Info("wrote the CNI configuration", "podCIDRs", cidrs)
		}
	}
	return errors.Join(errs...)
}

// serviceRoutes sends the service ranges out by the node's own interface: so
// that a connection from the node leaves with the node's address, even where
// no default route would let it get as far as the service rules.
func (n *Network) serviceRoutes(self *corev1.Node) []Route {
	var out []Route
	addrs := InternalIPs(self)
	for _, p := range n.cfg.Ranges.Services {
		i := slices.IndexFunc(addrs, func(a netip.Addr) bool { return a.Is4() == p.Addr().Is4() })
		if i < 0 {
			continue
		}
		if link, ok := n.ns.LinkWith(addrs[i]); ok {
			out = append(out, Route{Dst: p.Masked(), Link: link, Src: addrs[i]})
		}
	}
	return out
}

// uplinkMTU is the MTU of the interface to the other nodes, 0 if unknown: pods
// must not send more than fits there.
func (n *Network) uplinkMTU(self *corev1.Node) int {
	for _, a := range InternalIPs(self) {
		if link, ok := n.ns.LinkWith(a); ok {
			if mtu, err := n.ns.MTU(link); err == nil {
				return mtu
			}
		}
	}
	return 0
}

// Remove takes away what Run put in a namespace, for a node that leaves its
// cluster: routes, rules, the local addresses and the CNI configuration. The
// bridge and the pods on it belong to the runtime. What is not there is no
// error.
func Remove(ns *NS, cniDir string, localVIPs []netip.Addr) error {
	n := Network{ns: ns}
	errs := []error{removeConf(cniDir), n.keepRoutes(nil), removeRules(ns.FD())}
	for _, a := range localVIPs {
		errs = append(errs, ns.DeleteAddr("lo", netip.PrefixFrom(a, a.BitLen())))
	}
	return errors.Join(errs...)
}

func (n *Network) keepRoutes(want []Route) error {
	have, err := n.ns.OwnRoutes()
	if err != nil {
		return err
	}
	del, add := routeChanges(have, want)
	var errs []error
	for _, r := range del {
		errs = append(errs, n.ns.DeleteRoute(r))
	}
	for _, r := range add {
		errs = append(errs, n.ns.EnsureRoute(r))
	}
	return errors.Join(errs...)
}

// wantedRules is what the table should say.
func (n *Network) wantedRules(cidrs []netip.Prefix, nodes []*corev1.Node) *Rules {
	r := &Rules{NodePods: cidrs, ClusterPods: n.cfg.Ranges.Pods}
	for _, node := range nodes {
		r.Nodes = append(r.Nodes, InternalIPs(node)...)
	}
	slices.SortFunc(r.Nodes, netip.Addr.Compare)
	r.Nodes = slices.Compact(r.Nodes)
	if n.cfg.Pods != nil {
		var pods []*corev1.Pod
		for _, obj := range n.cfg.Pods.GetStore().List() {
			if p, ok := obj.(*corev1.Pod); ok && p.Spec.NodeName == n.cfg.NodeName {
				pods = append(pods, p)
			}
		}
		r.Ports = HostPorts(pods)
	}
	return r
}

// keepRules makes the table say want, or removes it for nil.
func (n *Network) keepRules(ctx context.Context, want *Rules) error {
	if want == nil {
		n.relays.set(ctx, nil)
		n.rules = nil
		return removeRules(n.ns.FD())
	}
	n.relays.set(ctx, loopbackPorts(want.Ports))
	if n.rules != nil && reflect.DeepEqual(n.rules, want) {
		return nil
	}
	if err := applyRules(n.ns.FD(), want); err != nil {
		n.rules = nil
		return err
	}
	var old []HostPort
	if n.rules != nil {
		old = n.rules.Ports
	}
	n.rules = want
	if match, any := staleHostPort(old, want.Ports); any {
		if _, err := DeleteUDPFlows(n.ns.FD(), match); err != nil {
			// Nothing to retry: what is missed ends with its timeout.
			n.cfg.Log.Warn("could not end UDP flows of changed host ports; they end by their timeout", "error", err)
		}
	}
	return nil
}
