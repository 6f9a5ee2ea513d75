// Package network gives a node its pod network and holds the netlink
// primitives that nodes of a local cluster are wired with.
//
// The role (New, Run) decides and keeps five things, each from the node objects
// of the cluster and each repaired when it drifts:
//
//   - the CNI configuration /etc/cni/net.d/10-coracle.conflist (bridge and
//     host-local), unless another CNI has put its own configuration there;
//   - a route to the pod range of every other node, marked with a routing
//     protocol number of our own, so that a stale one is known to be ours;
//   - the sysctls that forwarding needs;
//   - the node-local addresses (cluster DNS) on the loopback interface, and a
//     route for the service range, so that a connection from the node itself
//     reaches the service proxy's rules even without a default route;
//   - the nftables table "coracle_net": masquerade for what leaves the pod
//     network, and the host ports of the pods of this node.
//
// What to do is computed by pure functions (ConfList, Routes, HostPorts,
// Masquerade); only the loop touches the kernel. The service proxy's rules are
// in pkg/proxy. No iptables, no external program, no route_localnet.
//
// NS and its methods are the primitives: namespaces, bridges, veth pairs,
// addresses and routes, all idempotent, usable on any namespace by path or file
// descriptor without entering it.
package network
