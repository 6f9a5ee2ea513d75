// Package fleet is many simulated nodes in one process: real Node, Lease and
// Pod traffic, and no containers.
//
// Contract: the API server sees of each node what it sees of a real agent. The
// Node is registered, its status written when it differs from what it should be
// and every five minutes, its Lease renewed every ten seconds. A bound pod
// starts after Config.StartTime with one patch of its status, made by the same
// pure core as a real agent's (package lifecycle). One that may come to an end
// (restartPolicy OnFailure or Never) succeeds after Config.RunTime. A pod that
// is deleted reports its containers' end and is then removed. What runs is what
// the API server has been told: a fleet that starts again finds its pods in
// their statuses, and writes nothing about them.
//
// What a fleet leaves out: it watches all pods and all its nodes once, and not
// each node its own; it does not read its Nodes over and over; leases are
// spread over the interval instead of being renewed all at once. Its nodes have
// no address, so that real nodes send nothing there, and no server: there are
// no logs, and there is no exec. Probes always succeed. What a node admits is
// what the scheduler bound.
//
// Each request about a node is made as that node, by impersonation, so that
// node authorization and NodeRestriction judge it. The credential of Config's
// client must therefore be allowed to impersonate users and the group
// system:nodes, and to list and watch nodes and pods.
//
// A node costs some 500 bytes and a running pod some 300; neither has a
// goroutine. Two ordered queues with a bounded number of workers do what is due:
// one for nodes, so that leases never wait behind pods, and one for pods.
package fleet
