// Package cluster makes local clusters of real nodes on one Linux machine,
// without virtual machines and without a container engine.
//
// A node is one set of Linux namespaces (network, mount, UTS, IPC, PID and
// cgroup) with an init (NodeInit), a root file system of its own over the
// host's /usr, containerd and the kubelet. Killing the init is the node's
// power switch: the kernel ends all its processes and drops all its mounts.
// The nodes hang on a bridge in a network namespace of its own, which one veth
// pair links to the host; the control plane is one process on the host that
// listens on 127.0.0.1 and on that link.
//
// Everything about a cluster is in its folder (DefaultRoot/NAME): what was
// asked for (cluster.json), the control plane's data, each node's root file
// system, logs, and process files that name a process by number, start time
// and boot, so that a number that was given away is never signalled. Start
// needs nothing else, after a reboot either.
//
// Work is done in steps that are safe to repeat. A step that fails makes the
// runner take back all steps before it, in reverse. Delete also removes what
// an interrupted command left, and Leftovers lists what there is to remove.
//
// Machine holds all operations. They lock the cluster's folder, so that
// commands for one cluster wait for each other and different clusters do not.
package cluster
