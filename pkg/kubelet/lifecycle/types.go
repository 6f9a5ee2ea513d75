package lifecycle

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// ContainerState is what the runtime says about one attempt of a container.
type ContainerState int

const (
	// Unknown: the runtime has the container but has lost track of its process.
	Unknown ContainerState = iota
	// Created: the container exists and its process was never started.
	Created
	// Running: the process lives.
	Running
	// Exited: the process has ended.
	Exited
)

// Container is one attempt of one container, as observed in the runtime.
type Container struct {
	ID        string // the runtime's id
	Name      string // the name in the pod's spec
	SandboxID string
	Attempt   int32 // 0 for the first start; the restart count of the status
	State     ContainerState
	Hash      string        // Hash of the spec it was created from; empty when unknown
	Delay     time.Duration // wait between its end and the next start

	CreatedAt  time.Time
	StartedAt  time.Time
	FinishedAt time.Time
	ExitCode   int32
	Reason     string // the runtime's word for the end, e.g. OOMKilled
	Message    string // the termination message, already read and cut

	Image   string
	ImageID string
	User    *corev1.ContainerUser

	// Resources is what the attempt was last given, by its creation or by a
	// resize; nil when that is not known.
	Resources *corev1.ResourceRequirements
	// Replaced: the agent stopped it so that the next attempt has other
	// resources.
	Replaced bool
}

// Sandbox is one attempt of the pod's sandbox, as observed in the runtime.
type Sandbox struct {
	ID        string
	Attempt   uint32
	Ready     bool
	Released  bool // set by the executor once the runtime has stopped it and freed its network
	IPs       []string
	CreatedAt time.Time
}

// Result is the standing verdict of one probe.
type Result int

const (
	// NoResult: the probe has not come to a verdict yet.
	NoResult Result = iota
	// Success: the probe succeeded often enough.
	Success
	// Failure: the probe failed often enough.
	Failure
)

// Probes holds the verdicts about the running attempt of one container.
type Probes struct {
	Startup, Readiness, Liveness Result
}

// Trouble is the last failed try to prepare the pod, to make its sandbox or to
// start a container. The executor forgets it when a later try succeeds.
type Trouble struct {
	Reason  string // a waiting reason, e.g. ErrImagePull
	Message string
	Image   string    // set for failed pulls: the reference as the user wrote it
	At      time.Time // when it failed
	RetryAt time.Time // when the next try may begin
}

// Verdict fails a pod from outside its containers: refused by the node's
// admission, or evicted.
type Verdict struct {
	Reason    string
	Message   string
	Condition *corev1.PodCondition // reported in addition, e.g. DisruptionTarget; may be nil
	Kill      bool                 // gives the containers no grace
}

// Op is an action under way.
type Op struct {
	Deadline time.Time // for a stop: when the runtime will kill; zero otherwise
}

// Input is everything a decision depends on.
type Input struct {
	// Pod is as last seen from the API server, with the resources that the node
	// has set aside for it; never changed.
	Pod     *corev1.Pod
	Gone    bool   // the API server no longer has the pod
	Runtime string // name of the runtime, before "://" in reported container ids

	Sandboxes  []Sandbox
	Containers []Container

	Prepared bool // volumes are mounted and the pod's folders exist
	TornDown bool // they were taken down again
	Ops      map[Key]Op
	Trouble  map[Key]Trouble
	Probes   map[string]Probes // by container name

	// Pending is set while the node has not set aside what the pod's spec asks
	// for.
	Pending *Pending
	// AllocatedGeneration is that of the spec from which Pod's resources are; 0
	// stands for Pod's own.
	AllocatedGeneration int64
	// Cgroup is the version of the pod that its cgroup was last made for; nil
	// before that.
	Cgroup *corev1.Pod

	Verdict       *Verdict
	StoppingSince time.Time // Decision.StoppingSince of the previous decision
	Last          *corev1.PodStatus
	HostIPs       []string
	Now           time.Time
}

// ActionKind names what the executor must do.
type ActionKind string

const (
	// Prepare mounts the pod's volumes and makes its folders and cgroup.
	Prepare ActionKind = "Prepare"
	// CreateSandbox makes and starts a sandbox.
	CreateSandbox ActionKind = "CreateSandbox"
	// StopSandbox stops a sandbox and frees its network.
	StopSandbox ActionKind = "StopSandbox"
	// RemoveSandbox deletes a stopped sandbox that holds no container.
	RemoveSandbox ActionKind = "RemoveSandbox"
	// StartContainer pulls the image, creates and starts a container, and runs
	// its postStart hook.
	StartContainer ActionKind = "StartContainer"
	// CancelStart ends a start that has not created its container yet.
	CancelStart ActionKind = "CancelStart"
	// StopContainer runs the preStop hook and stops a container.
	StopContainer ActionKind = "StopContainer"
	// RemoveContainer deletes a container that does not run.
	RemoveContainer ActionKind = "RemoveContainer"
	// ResizePod gives the pod's cgroup, and then running containers, other
	// resources.
	ResizePod ActionKind = "ResizePod"
	// Teardown unmounts the volumes and removes the cgroup.
	Teardown ActionKind = "Teardown"
	// Confirm tells the API server, after the last status, that the pod can go.
	Confirm ActionKind = "Confirm"
	// Forget ends the agent's work for the pod: nothing of it is left.
	Forget ActionKind = "Forget"
)

// Key identifies an operation: at most one of each is under way.
type Key struct {
	Kind ActionKind
	Name string // container name for starts, runtime id for what exists, else empty
}

// Action is one thing to do now.
type Action struct {
	Kind      ActionKind
	ID        string        // runtime id of the container or sandbox acted on
	Name      string        // container name
	SandboxID string        // for StartContainer
	Attempt   int32         // for StartContainer and CreateSandbox
	Delay     time.Duration // for StartContainer: goes into Container.Delay
	Grace     time.Duration // for StopContainer; 0 kills at once, without the hook
	Reason    string        // for StopContainer: why, for the event
	Message   string

	Cgroup     *corev1.Pod // for ResizePod: the version of the pod that the cgroup is to leave room for
	Containers []string    // for ResizePod: ids of those that are given what Input.Pod says
}

// Key returns the identity under which the action is kept in Input.Ops.
func (a Action) Key() Key {
	switch a.Kind {
	case StartContainer, CancelStart:
		return Key{StartContainer, a.Name}
	case StopContainer, RemoveContainer, StopSandbox, RemoveSandbox:
		return Key{a.Kind, a.ID}
	default:
		return Key{Kind: a.Kind}
	}
}

// Decision is what Compute answers.
type Decision struct {
	Actions       []Action
	Status        corev1.PodStatus
	Wake          time.Time // ask again then at the latest; zero means on the next change only
	StoppingSince time.Time // when the pod began to stop; zero while it is meant to run
}
