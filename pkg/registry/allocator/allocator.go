// Package allocator gives Services their cluster addresses and node ports.
//
// Contract: what is taken is what stored Services hold, plus what writes under
// way have claimed; nothing else is kept, so that a crash leaks nothing. Load
// counts the stored ones at start. Claims are made before a write and undone
// when it does not happen. The upper part of each range is for values nobody
// asked for, so that values chosen by hand in the lower part rarely collide
// (KEP-3070, KEP-3668).
package allocator

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Config bounds what is given out.
type Config struct {
	// ServiceCIDR is the range of cluster addresses, IPv4.
	ServiceCIDR netip.Prefix
	// FirstNodePort and LastNodePort bound node ports, both inclusive; zero
	// means 30000 and 32767.
	FirstNodePort, LastNodePort int32
	// Rand chooses among free values.
	Rand io.Reader
}

// Allocator is safe for concurrent use.
type Allocator struct {
	cfg   Config
	mu    sync.Mutex
	ips   map[netip.Addr]owner // guarded by mu
	ports map[portKey]owner    // guarded by mu
}

// owner is the Service that holds a value.
type owner struct{ namespace, name string }

// portKey is a node port of one protocol: TCP and UDP may share a number.
type portKey struct {
	port     int32
	protocol corev1.Protocol
}

// New returns an Allocator that has given out nothing.
func New(cfg Config) (*Allocator, error) {
	if !cfg.ServiceCIDR.IsValid() || !cfg.ServiceCIDR.Addr().Is4() || cfg.ServiceCIDR.Bits() > 28 {
		return nil, fmt.Errorf("the service range %s must be an IPv4 prefix of at most 28 bits", cfg.ServiceCIDR)
	}
	cfg.ServiceCIDR = cfg.ServiceCIDR.Masked()
	if cfg.FirstNodePort == 0 {
		cfg.FirstNodePort, cfg.LastNodePort = 30000, 32767
	}
	if cfg.FirstNodePort < 1 || cfg.LastNodePort > 65535 || cfg.LastNodePort < cfg.FirstNodePort {
		return nil, fmt.Errorf("the node port range %d-%d is not valid", cfg.FirstNodePort, cfg.LastNodePort)
	}
	return &Allocator{cfg: cfg, ips: map[netip.Addr]owner{}, ports: map[portKey]owner{}}, nil
}

// Load counts what a stored Service holds.
func (a *Allocator) Load(svc *corev1.Service) {
	a.mu.Lock()
	defer a.mu.Unlock()
	own := ownerOf(svc)
	for _, ip := range addresses(svc) {
		a.ips[ip] = own
	}
	for _, p := range nodePorts(svc) {
		a.ports[p] = own
	}
}

// Release frees what a Service that left the store held.
func (a *Allocator) Release(svc *corev1.Service) {
	a.mu.Lock()
	defer a.mu.Unlock()
	own := ownerOf(svc)
	for _, ip := range addresses(svc) {
		a.drop(own, ip)
	}
	for _, p := range nodePorts(svc) {
		a.dropPort(own, p)
	}
}

func (a *Allocator) drop(own owner, ip netip.Addr) {
	if a.ips[ip] == own {
		delete(a.ips, ip)
	}
}

func (a *Allocator) dropPort(own owner, p portKey) {
	if a.ports[p] == own {
		delete(a.ports, p)
	}
}

func ownerOf(svc *corev1.Service) owner { return owner{svc.Namespace, svc.Name} }

// addresses are the cluster addresses a Service holds.
func addresses(svc *corev1.Service) []netip.Addr {
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	var out []netip.Addr
	for _, s := range append([]string{svc.Spec.ClusterIP}, svc.Spec.ClusterIPs...) {
		if ip, err := netip.ParseAddr(s); err == nil {
			out = append(out, ip.Unmap())
		}
	}
	return out
}

func nodePorts(svc *corev1.Service) []portKey {
	var out []portKey
	for _, p := range svc.Spec.Ports {
		if p.NodePort != 0 {
			out = append(out, portKey{p.NodePort, p.Protocol})
		}
	}
	if p := svc.Spec.HealthCheckNodePort; p != 0 {
		out = append(out, portKey{p, corev1.ProtocolTCP})
	}
	return out
}

// Complete fills in the addresses and ports that svc lacks, and claims those
// it names. The returned function takes
// the new claims back; what only the stored Service holds stays taken until
// Settle. Errors are Invalid, with the field.
func (a *Allocator) Complete(svc *corev1.Service, dryRun bool) (undo func(), err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := &claim{a: a, own: ownerOf(svc), svc: svc}
	c.address()
	c.nodePorts()
	c.healthPort()
	undo = func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		c.revert()
	}
	if len(c.errs) > 0 || dryRun {
		c.revert()
		undo = func() {}
	}
	if len(c.errs) > 0 {
		return nil, apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Service").GroupKind(), svc.Name, c.errs)
	}
	return undo, nil
}

// Settle frees what old held and svc, now stored, does not.
func (a *Allocator) Settle(svc, old *corev1.Service) {
	a.mu.Lock()
	defer a.mu.Unlock()
	keepIPs, keepPorts := map[netip.Addr]bool{}, map[portKey]bool{}
	for _, ip := range addresses(svc) {
		keepIPs[ip] = true
	}
	for _, p := range nodePorts(svc) {
		keepPorts[p] = true
	}
	own := ownerOf(old)
	for _, ip := range addresses(old) {
		if !keepIPs[ip] {
			a.drop(own, ip)
		}
	}
	for _, p := range nodePorts(old) {
		if !keepPorts[p] {
			a.dropPort(own, p)
		}
	}
}

// claim is what one write takes. Its methods run under the allocator's lock.
type claim struct {
	a     *Allocator
	own   owner
	svc   *corev1.Service
	ips   []netip.Addr
	ports []portKey
	errs  field.ErrorList
}

func (c *claim) revert() {
	for _, ip := range c.ips {
		c.a.drop(c.own, ip)
	}
	for _, p := range c.ports {
		c.a.dropPort(c.own, p)
	}
	c.ips, c.ports = nil, nil
}

// address gives the Service its cluster address, unless it is headless or has
// none by its type.
func (c *claim) address() {
	spec := &c.svc.Spec
	if spec.Type == corev1.ServiceTypeExternalName {
		return
	}
	if spec.ClusterIP == "" && len(spec.ClusterIPs) > 0 {
		spec.ClusterIP = spec.ClusterIPs[0]
	}
	switch spec.ClusterIP {
	case corev1.ClusterIPNone:
	case "":
		ip, ok := c.a.freeAddress()
		if !ok {
			c.errs = append(c.errs, field.InternalError(field.NewPath("spec", "clusterIPs"),
				fmt.Errorf("failed to allocate a serviceIP: range %s is full", c.a.cfg.ServiceCIDR)))
			return
		}
		c.takeIP(ip)
		spec.ClusterIP = ip.String()
	default:
		c.named(spec.ClusterIP)
	}
	if len(spec.ClusterIPs) == 0 && spec.ClusterIP != "" {
		spec.ClusterIPs = []string{spec.ClusterIP}
	}
}

func (c *claim) named(text string) {
	path := field.NewPath("spec", "clusterIPs")
	refuse := func(why string) {
		c.errs = append(c.errs, field.Invalid(path, []string{text}, "failed to allocate IP "+text+": "+why))
	}
	ip, err := netip.ParseAddr(text)
	if err != nil {
		return // validation says so
	}
	own, taken := c.a.ips[ip]
	switch {
	case taken && own == c.own:
	case taken:
		refuse("provided IP is already allocated")
	case !c.a.cfg.ServiceCIDR.Contains(ip):
		refuse("the provided IP is not in the valid range. The range of valid IPs is " + c.a.cfg.ServiceCIDR.String())
	default:
		c.takeIP(ip)
	}
}

func (c *claim) takeIP(ip netip.Addr) {
	c.a.ips[ip] = c.own
	c.ips = append(c.ips, ip)
}

// nodePorts gives each port its node port where the type has them.
func (c *claim) nodePorts() {
	spec := &c.svc.Spec
	lb := spec.Type == corev1.ServiceTypeLoadBalancer
	if spec.Type != corev1.ServiceTypeNodePort && !lb {
		return
	}
	auto := !lb || spec.AllocateLoadBalancerNodePorts == nil || *spec.AllocateLoadBalancerNodePorts
	given := map[int32]int32{} // a port's number -> node port, shared by protocols
	for i := range spec.Ports {
		p := &spec.Ports[i]
		path := field.NewPath("spec", "ports").Index(i).Child("nodePort")
		if p.NodePort == 0 {
			if !auto {
				continue
			}
			p.NodePort = c.freePort(given[p.Port], p.Protocol)
			if p.NodePort == 0 {
				c.errs = append(c.errs, field.InternalError(path, fmt.Errorf("failed to allocate a nodePort: range is full")))
				continue
			}
		}
		c.port(path, portKey{p.NodePort, p.Protocol})
		given[p.Port] = p.NodePort
	}
}

func (c *claim) healthPort() {
	spec := &c.svc.Spec
	if spec.Type != corev1.ServiceTypeLoadBalancer || spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal {
		return
	}
	path := field.NewPath("spec", "healthCheckNodePort")
	if spec.HealthCheckNodePort == 0 {
		spec.HealthCheckNodePort = c.freePort(0, corev1.ProtocolTCP)
	}
	c.port(path, portKey{spec.HealthCheckNodePort, corev1.ProtocolTCP})
}

// freePort prefers the one asked for when its protocol has it free.
func (c *claim) freePort(prefer int32, protocol corev1.Protocol) int32 {
	if prefer != 0 {
		if _, taken := c.a.ports[portKey{prefer, protocol}]; !taken {
			return prefer
		}
	}
	return c.a.freePort(protocol)
}

func (c *claim) port(path *field.Path, p portKey) {
	own, taken := c.a.ports[p]
	switch {
	case taken && own == c.own:
	case taken:
		c.errs = append(c.errs, field.Invalid(path, p.port, "provided port is already allocated"))
	case p.port < c.a.cfg.FirstNodePort || p.port > c.a.cfg.LastNodePort:
		c.errs = append(c.errs, field.Invalid(path, p.port, fmt.Sprintf(
			"provided port is not in the valid range. The range of valid ports is %d-%d", c.a.cfg.FirstNodePort, c.a.cfg.LastNodePort)))
	default:
		c.a.ports[p] = c.own
		c.ports = append(c.ports, p)
	}
}

// freeAddress picks from the upper part of the range, then from the lower.
func (a *Allocator) freeAddress() (netip.Addr, bool) {
	base := binary.BigEndian.Uint32(a.cfg.ServiceCIDR.Addr().AsSlice())
	size := uint64(1) << (32 - a.cfg.ServiceCIDR.Bits())
	static := min(max(16, size/16), 256) // KEP-3070's band for hand-chosen addresses
	at := func(i uint64) netip.Addr {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], base+uint32(i))
		return netip.AddrFrom4(b)
	}
	// The first address names the network, the last is its broadcast.
	free := func(i uint64) bool { _, taken := a.ips[at(i)]; return !taken }
	if i, ok := a.search(static, size-1, free); ok {
		return at(i), true
	}
	i, ok := a.search(1, min(static, size-1), free)
	return at(i), ok
}

func (a *Allocator) freePort(protocol corev1.Protocol) int32 {
	first, end := uint64(a.cfg.FirstNodePort), uint64(a.cfg.LastNodePort)+1
	static := first + min(max(16, (end-first)/32), 128) // KEP-3668
	free := func(i uint64) bool { _, taken := a.ports[portKey{int32(i), protocol}]; return !taken }
	if i, ok := a.search(min(static, end), end, free); ok {
		return int32(i)
	}
	i, _ := a.search(first, min(static, end), free)
	return int32(i)
}

// search looks for a free value in [from, to), beginning at a random one.
func (a *Allocator) search(from, to uint64, free func(uint64) bool) (uint64, bool) {
	if from >= to {
		return 0, false
	}
	var b [8]byte
	if _, err := io.ReadFull(a.cfg.Rand, b[:]); err != nil {
		return 0, false
	}
	n := to - from
	start := binary.LittleEndian.Uint64(b[:]) % n
	for i := range n {
		if v := from + (start+i)%n; free(v) {
			return v, true
		}
	}
	return 0, false
}
