package proxy

import (
	"net/netip"
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"
)

// endpoint is one address and port of a service, as its slices tell it.
type endpoint struct {
	addr        netip.AddrPort
	ready       bool
	serving     bool
	terminating bool
	onNode      bool
	hints       *discoveryv1.EndpointHints
}

// usable tells whether the endpoint may get a connection when no endpoint is
// ready: it is on its way out, yet still answers.
func (e *endpoint) lastResort() bool { return !e.ready && e.serving && e.terminating }

// group collects the endpoints of one service port and chooses among them.
func (b *builder) group(key GroupKey) Group {
	all := b.endpoints(key)
	chosen := all
	if key.Local {
		chosen = filter(all, func(e *endpoint) bool { return e.onNode })
	}
	inUse := filter(chosen, func(e *endpoint) bool { return e.ready })
	if len(inUse) == 0 {
		inUse = filter(chosen, (*endpoint).lastResort)
	} else if !key.Local {
		inUse = b.preferNear(inUse)
	}
	inUse = inUse[:min(len(inUse), maxBackends)]
	g := Group{Affinity: b.affinity()}
	for i := range inUse {
		g.Backends = append(g.Backends, inUse[i].addr)
		if a := inUse[i].addr.Addr(); inUse[i].onNode && !slices.Contains(g.OnNode, a) {
			g.OnNode = append(g.OnNode, a)
		}
	}
	for i := range all {
		e := &all[i]
		if _, used := slices.BinarySearchFunc(g.Backends, e.addr, compareAddrPort); !used && e.serving {
			g.Draining = append(g.Draining, e.addr)
		}
	}
	return g
}

// endpoints lists the endpoints of a port, sorted by address. Where slices
// overlap, which they do for a moment while one is moved, the better state of
// an address counts.
func (b *builder) endpoints(key GroupKey) []endpoint {
	var out []endpoint
	family := discoveryv1.AddressTypeIPv4
	if key.V6 {
		family = discoveryv1.AddressTypeIPv6
	}
	for _, s := range b.slices {
		if s.AddressType != family {
			continue
		}
		for _, port := range slicePorts(s, key) {
			for i := range s.Endpoints {
				if e, ok := b.endpoint(&s.Endpoints[i], port, key.V6); ok {
					out = append(out, e)
				}
			}
		}
	}
	slices.SortFunc(out, func(x, y endpoint) int {
		if c := compareAddrPort(x.addr, y.addr); c != 0 {
			return c
		}
		return y.rank() - x.rank()
	})
	return slices.CompactFunc(out, func(x, y endpoint) bool { return x.addr == y.addr })
}

func (e *endpoint) rank() int {
	switch {
	case e.ready:
		return 2
	case e.serving:
		return 1
	}
	return 0
}

func slicePorts(s *discoveryv1.EndpointSlice, key GroupKey) []uint16 {
	var out []uint16
	for i := range s.Ports {
		p := &s.Ports[i]
		name, proto := "", TCP
		if p.Name != nil {
			name = *p.Name
		}
		if p.Protocol != nil {
			var ok bool
			if proto, ok = protocolOf(*p.Protocol); !ok {
				continue
			}
		}
		if p.Port != nil && *p.Port > 0 && *p.Port < 1<<16 && name == key.Port && proto == key.Proto {
			out = append(out, uint16(*p.Port))
		}
	}
	return out
}

// endpoint reads one entry of a slice; all addresses of an entry are the same
// endpoint, so the first one stands for it. A missing condition means ready
// and serving, and not terminating.
func (b *builder) endpoint(ep *discoveryv1.Endpoint, port uint16, v6 bool) (endpoint, bool) {
	if len(ep.Addresses) == 0 {
		return endpoint{}, false
	}
	a, err := netip.ParseAddr(ep.Addresses[0])
	if err != nil || a.Is6() != v6 || !reachable(a) {
		return endpoint{}, false
	}
	c := ep.Conditions
	e := endpoint{
		addr:        netip.AddrPortFrom(a, port),
		ready:       c.Ready == nil || *c.Ready,
		terminating: c.Terminating != nil && *c.Terminating,
		onNode:      ep.NodeName != nil && *ep.NodeName == b.facts.NodeName,
		hints:       ep.Hints,
	}
	e.serving = e.ready
	if c.Serving != nil {
		e.serving = *c.Serving
	}
	return e, true
}

// preferNear keeps the endpoints hinted to this node, else those hinted to its
// zone. Hints count only if each endpoint has them and at least one is for us:
// anything less means that they are being rewritten, and all endpoints count.
func (b *builder) preferNear(eps []endpoint) []endpoint {
	forNode := func(e *endpoint) bool {
		return e.hints != nil && slices.ContainsFunc(e.hints.ForNodes, func(n discoveryv1.ForNode) bool { return n.Name == b.facts.NodeName })
	}
	forZone := func(e *endpoint) bool {
		return e.hints != nil && slices.ContainsFunc(e.hints.ForZones, func(z discoveryv1.ForZone) bool { return z.Name == b.facts.Zone })
	}
	if all(eps, func(e *endpoint) bool { return e.hints != nil && len(e.hints.ForNodes) > 0 }) {
		if near := filter(eps, forNode); len(near) > 0 {
			return near
		}
	}
	if b.facts.Zone != "" && all(eps, func(e *endpoint) bool { return e.hints != nil && len(e.hints.ForZones) > 0 }) {
		if near := filter(eps, forZone); len(near) > 0 {
			return near
		}
	}
	return eps
}

// localAddresses counts the endpoints of this node over all ports, each
// address once: what a health check port reports.
func (b *builder) localAddresses() int {
	seen := map[string]struct{}{}
	for _, s := range b.slices {
		for i := range s.Endpoints {
			ep := &s.Endpoints[i]
			ready := ep.Conditions.Ready == nil || *ep.Conditions.Ready
			if ready && ep.NodeName != nil && *ep.NodeName == b.facts.NodeName && len(ep.Addresses) > 0 {
				seen[ep.Addresses[0]] = struct{}{}
			}
		}
	}
	return len(seen)
}

func filter(eps []endpoint, keep func(*endpoint) bool) []endpoint {
	var out []endpoint
	for i := range eps {
		if keep(&eps[i]) {
			out = append(out, eps[i])
		}
	}
	return out
}

func all(eps []endpoint, ok func(*endpoint) bool) bool {
	for i := range eps {
		if !ok(&eps[i]) {
			return false
		}
	}
	return true
}
