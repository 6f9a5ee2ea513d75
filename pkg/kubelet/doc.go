// Package kubelet is the node agent: it runs the pods that are bound to its
// node through a container runtime.
//
// Each pod has one goroutine that owns what is known about it. It sleeps until
// something changes (the pod's object, a container, a probe, the end of an
// operation, a timer), then looks, asks lifecycle.Compute what to do, starts
// those operations in goroutines of their own, and hands the new status to the
// status writer. Nothing on the way from a new pod to its running containers
// polls.
//
// The agent's memory can be lost at any time: containers found in the runtime
// are adopted, and those of pods that no longer exist are ended. The pods it
// was last told to run are kept on disk, so that they run on and come back
// after a reboot while the API server is away.
//
// [New] composes the parts, [Kubelet.Run] runs them until its context ends. The
// containers stay when the agent stops.
package kubelet
