// Package proxy makes Services work on a node: connections to a cluster
// address, a node port or a load balancer's address reach an endpoint.
//
// It is split in three. Compute is a pure function from one Service and its
// EndpointSlices to what the node must do for it. Model, pure as well, holds
// what all services want together and turns each change into the smallest
// difference. Table sends differences to the kernel over netlink: the node's
// packets are then handled by nftables alone, and go on being handled while the
// agent or the API server is away.
//
// # The table
//
// Everything is in one table, "inet coracle". There is no chain per service:
//
//	front4    address . protocol . port  ->  group . plan      (0.0.0.0 is "any address of this node": node ports)
//	local4    the same for traffic from outside to externalTrafficPolicy Local services
//	plan      plan -> goto the plan's chain
//	backend4  group . index -> address . port
//
// A group is one set of endpoints, shared by the fronts of a service that use
// the same set. A plan says how to choose in a group: the number of endpoints
// and the affinity timeout. Two services with three endpoints each use the same
// chain: it looks the front up again, draws a number below three, looks up
// group . number and translates the destination. So a change of one service
// is a handful of map elements, whatever the number of services. Affinity is a
// map group . client -> endpoint that the chains write to, with a timeout per
// element and a set of live endpoints to check against.
//
// Guarantees:
//
//   - a change is one transaction; no packet sees half of it, and starting again
//     replaces the table in one transaction: established connections live in
//     the kernel's connection tracking and are not touched;
//   - nothing is removed because the API server is silent;
//   - a service without a usable endpoint, and an address of the service range
//     that no service has, answer with ICMP port unreachable, not silence;
//   - a front is never an address of a node or API server, nor a loopback,
//     link-local, multicast or unspecified one; route_localnet is never set;
//   - names and other strings of users are never part of a rule.
package proxy
