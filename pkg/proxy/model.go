package proxy

import (
	"cmp"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/types"
)

// Target is where a front leads.
type Target struct {
	// Group is the number of a group; numbers are never used twice.
	Group uint32
	Plan  Plan
}

// BackendKey is a place in a group, below the group's number of endpoints.
type BackendKey struct {
	Group uint32
	Index uint32
	V6    bool
}

// LiveKey is an endpoint that affinity may return to.
type LiveKey struct {
	Group   uint32
	Backend netip.AddrPort
}

// ChainKey names a chain that chooses an endpoint: the plan, and how the chain
// finds the front that it was entered for.
type ChainKey struct {
	Plan     Plan
	V6       bool
	Scope    Scope
	NodePort bool
}

// Changes is a difference between two states of the table.
type Changes struct {
	Fronts   Diff[FrontKey, Target]
	Backends Diff[BackendKey, netip.AddrPort]
	Live     Diff[LiveKey, struct{}]
	// Masquerade holds the fronts (scope left out) that hide the client.
	Masquerade Diff[FrontKey, struct{}]
	// Hairpins are the endpoints of this node: a connection from one to itself
	// is masqueraded.
	Hairpins Diff[netip.Addr, struct{}]
	Chains   Diff[ChainKey, struct{}]
	// Guards are the fronts (scope left out) that only some clients may use.
	Guards Diff[FrontKey, Sources]
	// UDP lists the UDP fronts whose endpoints changed: flows to others than
	// the listed endpoints are dead.
	UDP []UDPFront
}

// UDPFront is a UDP destination and the endpoints that its flows may go to.
type UDPFront struct {
	Addr     netip.Addr
	Port     uint16
	Backends []netip.AddrPort
}

// Empty tells that there is nothing to send to the kernel.
func (c *Changes) Empty() bool {
	return len(c.Fronts.Del)+len(c.Fronts.Add)+len(c.Backends.Del)+len(c.Backends.Add)+
		len(c.Live.Del)+len(c.Live.Add)+len(c.Masquerade.Del)+len(c.Masquerade.Add)+
		len(c.Guards.Del)+len(c.Guards.Add)+
		len(c.Hairpins.Del)+len(c.Hairpins.Add)+len(c.Chains.Del)+len(c.Chains.Add)+len(c.UDP) == 0
}

// Model holds what all services want and hands out differences. It does no
// I/O and knows no time; not safe for concurrent use.
type Model struct {
	services map[types.NamespacedName]*service
	// claims holds who wants a front; the first one has it.
	claims    map[FrontKey][]claim
	lastGroup uint32

	fronts     tracked[FrontKey, Target]
	backends   tracked[BackendKey, netip.AddrPort]
	live       tracked[LiveKey, struct{}]
	masquerade tracked[FrontKey, struct{}]
	hairpins   tracked[netip.Addr, struct{}]
	chains     tracked[ChainKey, struct{}]
	guards     tracked[FrontKey, Sources]

	hairpinUses map[netip.Addr]int
	chainUses   map[ChainKey]int
	udp         map[FrontKey]struct{}
}

// service is a Service in the model, with its groups placed.
type service struct {
	want   Service
	groups map[GroupKey]*group
}

// group is a Group with a number and a place for each endpoint.
type group struct {
	id    uint32
	want  Group
	slots []netip.AddrPort
}

func (g *group) target() Target {
	if len(g.slots) == 0 {
		return Target{Group: g.id}
	}
	return Target{Group: g.id, Plan: Plan{Backends: len(g.slots), Affinity: g.want.Affinity}}
}

// claim is one service's wish for a front.
type claim struct {
	owner *service
	front Front
}

// NewModel returns a model without services.
func NewModel() *Model {
	return &Model{
		services:    map[types.NamespacedName]*service{},
		claims:      map[FrontKey][]claim{},
		fronts:      newTracked[FrontKey, Target](),
		backends:    newTracked[BackendKey, netip.AddrPort](),
		live:        newTracked[LiveKey, struct{}](),
		masquerade:  newTracked[FrontKey, struct{}](),
		hairpins:    newTracked[netip.Addr, struct{}](),
		chains:      newTracked[ChainKey, struct{}](),
		guards:      newTracked[FrontKey, Sources](),
		hairpinUses: map[netip.Addr]int{},
		chainUses:   map[ChainKey]int{},
		udp:         map[FrontKey]struct{}{},
	}
}

// Set replaces what one service wants. A service without fronts is the same as
// none.
func (m *Model) Set(want Service) {
	if len(want.Fronts) == 0 {
		m.Remove(want.Name)
		return
	}
	s := m.services[want.Name]
	if s == nil {
		s = &service{groups: map[GroupKey]*group{}}
		m.services[want.Name] = s
	}
	old := s.want
	s.want = want
	for key, g := range want.Groups {
		have := s.groups[key]
		if have == nil {
			m.lastGroup++
			have = &group{id: m.lastGroup}
			s.groups[key] = have
		}
		m.place(have, g, key.V6)
	}
	for _, f := range old.Fronts {
		if !slices.ContainsFunc(want.Fronts, func(n Front) bool { return n.Key == f.Key }) {
			m.unclaim(s, f.Key)
		}
	}
	for _, f := range want.Fronts {
		m.claim(s, f)
	}
	for key, g := range s.groups {
		if _, ok := want.Groups[key]; !ok {
			m.place(g, Group{}, key.V6)
			delete(s.groups, key)
		}
	}
}

// Remove forgets a service.
func (m *Model) Remove(name types.NamespacedName) {
	s := m.services[name]
	if s == nil {
		return
	}
	for _, f := range s.want.Fronts {
		m.unclaim(s, f.Key)
	}
	for key, g := range s.groups {
		m.place(g, Group{}, key.V6)
	}
	delete(m.services, name)
}

// Names lists the services that the model holds, in no order.
func (m *Model) Names() []types.NamespacedName {
	out := make([]types.NamespacedName, 0, len(m.services))
	for n := range m.services {
		out = append(out, n)
	}
	return out
}

// place gives a group new endpoints. An endpoint that stays keeps its place if
// it can: only places beyond the new end and freed ones change hands.
func (m *Model) place(g *group, want Group, v6 bool) {
	slots, gone := assign(g.slots, want.Backends)
	for i := range max(len(slots), len(g.slots)) {
		key := BackendKey{Group: g.id, Index: uint32(i), V6: v6}
		if i < len(slots) {
			m.backends.set(key, slots[i])
		} else {
			m.backends.del(key)
		}
	}
	for _, b := range gone {
		m.live.del(LiveKey{g.id, b})
	}
	for _, b := range slots {
		if want.Affinity > 0 {
			m.live.set(LiveKey{g.id, b}, struct{}{})
		} else {
			m.live.del(LiveKey{g.id, b})
		}
	}
	for _, a := range want.OnNode {
		use(&m.hairpins, m.hairpinUses, a, 1)
	}
	for _, a := range g.want.OnNode {
		use(&m.hairpins, m.hairpinUses, a, -1)
	}
	g.want, g.slots = want, slots
}

// assign fills places with the wanted endpoints so that as few as possible
// move, and tells which endpoints are gone. Its arguments are not changed.
func assign(have, want []netip.AddrPort) (slots, gone []netip.AddrPort) {
	missing := make(map[netip.AddrPort]struct{}, len(want))
	for _, w := range want {
		missing[w] = struct{}{}
	}
	slots = make([]netip.AddrPort, len(want))
	var movers []netip.AddrPort
	for i, h := range have {
		if _, ok := missing[h]; !ok {
			gone = append(gone, h)
			continue
		}
		delete(missing, h)
		if i < len(slots) {
			slots[i] = h
		} else {
			movers = append(movers, h)
		}
	}
	for _, w := range want {
		if _, ok := missing[w]; ok {
			movers = append(movers, w)
		}
	}
	for i := range slots {
		if !slots[i].IsValid() {
			slots[i], movers = movers[0], movers[1:]
		}
	}
	return slots, gone
}

func (m *Model) claim(s *service, f Front) {
	list := m.claims[f.Key]
	i := slices.IndexFunc(list, func(c claim) bool { return c.owner == s })
	if i >= 0 {
		list[i].front = f
	} else {
		list = append(list, claim{s, f})
	}
	slices.SortFunc(list, func(a, b claim) int {
		return cmp.Or(a.owner.want.Created.Compare(b.owner.want.Created),
			cmp.Compare(a.owner.want.Name.Namespace, b.owner.want.Name.Namespace),
			cmp.Compare(a.owner.want.Name.Name, b.owner.want.Name.Name))
	})
	m.claims[f.Key] = list
	m.settle(f.Key)
}

func (m *Model) unclaim(s *service, key FrontKey) {
	list := slices.DeleteFunc(m.claims[key], func(c claim) bool { return c.owner == s })
	if len(list) == 0 {
		delete(m.claims, key)
	} else {
		m.claims[key] = list
	}
	m.settle(key)
}

// settle makes a front what its first claim wants.
func (m *Model) settle(key FrontKey) {
	if key.Proto == UDP {
		m.udp[key] = struct{}{}
	}
	if old, ok := m.fronts.now[key]; ok {
		use(&m.chains, m.chainUses, chainOf(key, old.Plan), -1)
	}
	list := m.claims[key]
	if len(list) == 0 {
		m.fronts.del(key)
		if key.Scope == ScopeAny {
			m.masquerade.del(key)
			m.guards.del(key)
		}
		return
	}
	first := list[0]
	t := first.owner.groups[first.front.Group].target()
	m.fronts.set(key, t)
	use(&m.chains, m.chainUses, chainOf(key, t.Plan), 1)
	if key.Scope == ScopeAny {
		keep(&m.masquerade, key, struct{}{}, first.front.Masquerade)
		keep(&m.guards, key, first.front.Sources, first.front.Sources != "")
	}
}

// keep sets or deletes a key.
func keep[K, V comparable](t *tracked[K, V], k K, v V, wanted bool) {
	if wanted {
		t.set(k, v)
	} else {
		t.del(k)
	}
}

func chainOf(key FrontKey, p Plan) ChainKey {
	return ChainKey{Plan: p, V6: key.Addr.Is6(), Scope: key.Scope, NodePort: key.Addr.IsUnspecified()}
}

// use counts the users of a key and keeps the key in t while there are any.
func use[K comparable](t *tracked[K, struct{}], uses map[K]int, k K, by int) {
	uses[k] += by
	if uses[k] > 0 {
		t.set(k, struct{}{})
		return
	}
	delete(uses, k)
	t.del(k)
}

// Take returns what changed since the last Take or TakeAll.
func (m *Model) Take() Changes {
	c := Changes{
		Fronts: m.fronts.take(), Backends: m.backends.take(), Live: m.live.take(),
		Masquerade: m.masquerade.take(), Hairpins: m.hairpins.take(), Chains: m.chains.take(), Guards: m.guards.take(),
	}
	for key := range m.udp {
		c.UDP = append(c.UDP, m.udpFront(key))
	}
	clear(m.udp)
	return c
}

// TakeAll returns the whole state as additions to an empty table.
func (m *Model) TakeAll() Changes {
	c := Changes{
		Fronts: m.fronts.takeAll(), Backends: m.backends.takeAll(), Live: m.live.takeAll(),
		Masquerade: m.masquerade.takeAll(), Hairpins: m.hairpins.takeAll(), Chains: m.chains.takeAll(), Guards: m.guards.takeAll(),
	}
	for key := range m.fronts.now {
		if key.Proto == UDP {
			c.UDP = append(c.UDP, m.udpFront(key))
		}
	}
	clear(m.udp)
	return c
}

// udpFront lists where flows to a front may go: to its endpoints, old and new.
func (m *Model) udpFront(key FrontKey) UDPFront {
	out := UDPFront{Addr: key.Addr, Port: key.Port}
	for _, scope := range []Scope{ScopeAny, ScopeExternal} {
		key.Scope = scope
		if list := m.claims[key]; len(list) > 0 {
			g := list[0].owner.groups[list[0].front.Group]
			out.Backends = append(append(out.Backends, g.want.Backends...), g.want.Draining...)
		}
	}
	return out
}
