// Package probe runs the liveness, readiness and startup probes of a node's containers.
package probe

import (
	"context"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
)

// Kind is what a probe is for.
type Kind string

// The kinds of probe.
const (
	Startup   Kind = "startup"
	Liveness  Kind = "liveness"
	Readiness Kind = "readiness"
)

// Result is the verdict of a probe after its thresholds.
type Result string

// The verdicts. Unknown means that no verdict has been reached, or that the
// container is not known.
const (
	Unknown Result = ""
	Success Result = "success"
	Failure Result = "failure"
)

// Config is what a Manager needs.
type Config struct {
	// Exec runs a command in a container and returns its exit code and output.
	// A command that outlives the timeout is an error matching context.DeadlineExceeded.
	Exec func(ctx context.Context, containerID string, cmd []string, timeout time.Duration) (exitCode int, out []byte, err error)
	// Clock is the real clock if nil.
	Clock clock.Clock
	// Log discards if nil.
	Log *slog.Logger
	// OnChange is called when a verdict has changed. It must not block.
	OnChange func(podUID types.UID, container string)
	// OnFailure is called for each failed attempt, for events. May be nil.
	OnFailure func(pod *corev1.Pod, container string, kind Kind, message string)
}

// Container is the present state of one container.
type Container struct {
	Name string
	// ID is the runtime's id, "" if the container does not exist. A new ID
	// starts all probes of the container anew.
	ID string
	// Running and StartedAt are the runtime's view.
	Running   bool
	StartedAt time.Time
}

// Manager runs the probes of all pods of the node.
type Manager struct{ cfg Config }

// New makes a Manager.
func New(cfg Config) *Manager { return &Manager{cfg: cfg} }

// Run runs the probes until ctx ends.
func (m *Manager) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// Update tells the manager the present state of a pod. Call it whenever the
// pod, its address or the state of a container changed; repeating is harmless.
func (m *Manager) Update(pod *corev1.Pod, podIP string, containers []Container) {}

// Remove ends all probes of a pod.
func (m *Manager) Remove(uid types.UID) {}

// Result is the verdict on a container. A running container without a probe of
// that kind counts as Success.
func (m *Manager) Result(uid types.UID, container string, kind Kind) Result { return Unknown }
