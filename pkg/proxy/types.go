package proxy

import (
	"net/netip"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Facts is what Compute must know of the node and the cluster besides the
// service. A changed Facts means computing everything again.
type Facts struct {
	// NodeName is compared with the endpoints' nodeName.
	NodeName string
	// Zone is the node's topology.kubernetes.io/zone label, or empty.
	Zone string
	// ClusterPods are the ranges that all pods of the cluster live in: traffic
	// to a cluster address from elsewhere is masqueraded.
	ClusterPods []netip.Prefix
	// NodePods are the pod ranges of this node: its pods and the node itself
	// are inside, for externalTrafficPolicy Local.
	NodePods []netip.Prefix
	// ServiceCIDRs are the service ranges; an address in them that nothing
	// claims is rejected.
	ServiceCIDRs []netip.Prefix
	// Reserved are the addresses of nodes and API servers, which no service may
	// claim.
	Reserved map[netip.Addr]struct{}
	// LocalVIPs are cluster addresses served by the node itself (cluster DNS):
	// no rule touches them.
	LocalVIPs []netip.Addr
	// ExternalIPs allows spec.externalIPs, which is off by default: whoever may
	// write a Service could otherwise claim any address.
	ExternalIPs bool
}

// Protocol is an IP protocol number.
type Protocol uint8

// The protocols that a Service port can have.
const (
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
)

// Scope says whose traffic a front is for.
type Scope uint8

const (
	// ScopeAny is for all traffic that no ScopeExternal front takes.
	ScopeAny Scope = iota
	// ScopeExternal is for traffic that comes neither from this node nor from
	// its pods, and is looked at first.
	ScopeExternal
)

// FrontKey is a destination that clients connect to. It is comparable.
type FrontKey struct {
	// Scope tells which traffic the front is for.
	Scope Scope
	// Addr is the address; unspecified (0.0.0.0 or ::) means each address of
	// this node except loopback: a node port.
	Addr netip.Addr
	// Proto and Port complete the destination.
	Proto Protocol
	Port  uint16
}

// Front is a destination and the group of endpoints that serves it.
type Front struct {
	Key FrontKey
	// Group names a key of Service.Groups.
	Group GroupKey
	// Masquerade hides the client's address from the endpoint, so that the
	// answer comes back through this node.
	Masquerade bool
	// Sources are the clients that may use the front; the others' connections
	// are dropped. Empty means everybody.
	Sources Sources
}

// Sources is a list of prefixes, sorted and without duplicates, joined by
// commas: a comparable value. Only sourcesOf makes one.
type Sources string

// nobody is what is left of a list in which nothing could be read.
const nobody Sources = "none"

// GroupKey names a group within its service, stable across changes.
type GroupKey struct {
	// Port is the service port's name, which is unique in a service.
	Port string
	// Proto is the service port's protocol.
	Proto Protocol
	// V6 is true for IPv6 endpoints.
	V6 bool
	// Local is true for the endpoints of this node only.
	Local bool
}

// Group is a set of endpoints to choose from with equal chance. No endpoint
// means that connections are rejected.
type Group struct {
	// Backends are the endpoints in use, sorted, without duplicates.
	Backends []netip.AddrPort
	// Draining are endpoints that get no new connection while they still serve
	// old ones: UDP flows to them are left alone.
	Draining []netip.AddrPort
	// OnNode are the addresses among Backends that are pods of this node, which
	// may connect to their own service.
	OnNode []netip.Addr
	// Affinity is how long a client stays with its endpoint after its last
	// connection; 0 means not at all.
	Affinity time.Duration
}

// Service is what a node does for one Service.
type Service struct {
	Name types.NamespacedName
	// Created decides who gets a destination that two services claim: the
	// older one, then the one whose name sorts first.
	Created time.Time
	Groups  map[GroupKey]Group
	Fronts  []Front
	// Health is set if the service has a health check port.
	Health *Health
}

// Health is a health check port of a load balanced service.
type Health struct {
	// Port is spec.healthCheckNodePort.
	Port uint16
	// Local is the number of endpoints on this node.
	Local int
}

// Plan says how to choose in a group. It is comparable.
type Plan struct {
	// Backends is the number of endpoints, at most maxBackends.
	Backends int
	// Affinity is the timeout, in whole seconds, at most a day; 0 is none.
	Affinity time.Duration
}

// maxBackends bounds the endpoints of one group; what is beyond gets no
// traffic from this node.
const maxBackends = 1<<15 - 1

// id packs a plan in the 32 bits of a map value: a day of seconds needs 17.
func (p Plan) id() uint32 {
	return uint32(p.Affinity/time.Second)<<15 | uint32(p.Backends)
}
