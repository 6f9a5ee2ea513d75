// Package lifecycle decides what happens to one pod on a node.
//
// [Compute] takes the pod as the API server wants it, what the container
// runtime runs for it, and what the agent remembers about it, and answers with
// the actions to take now, the status to report, and the time at which to ask
// again. It has no clock, does no I/O and keeps nothing between calls: asking
// twice with the same input gives the same answer, so an agent that was killed
// goes on where it stopped as soon as it has looked at the runtime again.
//
// Guarantees:
//
//   - a container is started only while no other live attempt of it is known
//     and none is being started;
//   - init containers run one after another, sidecars (restartable init
//     containers) stay, app containers start in the order of the spec;
//   - the phase Succeeded or Failed is reported only when no container runs,
//     and is never left again;
//   - an action whose operation is still under way is not asked for again,
//     except a stop whose deadline has become earlier;
//   - a pod that is resized has, at any moment, a cgroup that has room for what
//     its containers have and are about to get.
//
// What a pod asks for and what the node has set aside for it may differ for a
// while: [Weigh] decides whether the node can follow, and Compute sees the pod
// with what is set aside. How far the runtime has followed is in the
// containers and in [Input.Cgroup].
//
// The delay before a restart is not remembered by the agent. Each attempt
// carries the delay that its own end will cause (in an annotation that the
// executor writes), so the back-off survives a restart of the agent.
package lifecycle
