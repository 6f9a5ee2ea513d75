// Package cri speaks to a container runtime over the Container Runtime
// Interface, version v1 (containerd 1.6 and later, CRI-O).
//
// [Runtime] is what the node agent needs of a runtime, [Client] the
// implementation over gRPC; package crifake holds one without containers.
//
// Every call of a Client has a deadline of its own, so that a runtime that
// hangs is noticed; a shorter one of the caller's context wins. Errors keep
// their gRPC status: see [IsNotFound], [IsUnavailable].
//
// Watch reports that a container or sandbox has changed, as it happens: from
// the runtime's event stream when it serves one, else by a pidfd of each
// process in one epoll set. It can miss changes (a runtime that restarts, a
// process that was never seen), so a slow relist belongs beside it.
package cri
