// Package dns answers the names of a cluster on each node, from the objects in
// the node's own memory, on the cluster DNS address that the node carries on its
// loopback interface.
//
// Records, a pure function, says which records a Service has; Zone holds the
// records of all of them and turns a query's bytes into a response's bytes;
// Server moves bytes between sockets and Zone. A query for a cluster name
// allocates nothing.
//
// What is answered follows the Kubernetes DNS specification 1.1.0: addresses,
// SRV and PTR of Services, of the endpoints of headless ones, CNAME of
// ExternalName ones, pod addresses (a-b-c-d.ns.pod), and dns-version. A name
// that exists without the asked type gets NOERROR without data, one that does
// not exist NXDOMAIN, both with an SOA that lets them be kept for five seconds.
//
// # Names outside the cluster
//
// With upstream servers configured they are forwarded, with a cache, a deadline
// and a bound on what is under way. Without, which is the default, the answer
// is NXDOMAIN at once, and no packet leaves the node. REFUSED would be truer to
// the letter and worse to live with: musl ignores REFUSED and waits for its
// whole timeout, several seconds for each name in a pod's search path; glibc
// tries again and then reports a temporary failure, which makes programs retry
// for ever. In a closed cluster such a name does not exist, and NXDOMAIN is the
// one answer that each resolver takes as final and moves on from. A client that
// sends EDNS gets the reason as an extended error.
package dns
