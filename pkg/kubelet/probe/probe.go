// Package probe runs the startup, liveness and readiness probes of a node's
// containers and keeps their verdicts.
//
// What to do when is decided by a pure state machine (state.go): delays,
// thresholds, and that liveness and readiness wait for startup. Each probe of
// each container has one goroutine, which sleeps until that machine wants an
// attempt and makes it. A kind of attempt (exec, httpGet, ...) is one file and
// one line in attempts.
//
// A failed liveness or startup probe stays failed, and is not tried again,
// until the container has a new id: the caller restarts the container.
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
	// A command that outlives the timeout is an error that matches
	// context.DeadlineExceeded and counts as a failure; any other error says
	// nothing about the container and is tried again. Required.
	Exec func(ctx context.Context, containerID string, cmd []string, timeout time.Duration) (exitCode int, out []byte, err error)
	// Clock is the real clock if nil.
	Clock clock.Clock
	// Log discards if nil.
	Log *slog.Logger
	// OnChange is called when a verdict has changed. It must not block, and
	// may call Result. May be nil.
	OnChange func(podUID types.UID, container string)
	// OnFailure is called for each attempt that failed, with a sentence for the
	// user. It must not block. May be nil.
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
	// Started and Ready are what the pod's last published status says of this
	// very ID. They count only when the manager sees the container for the
	// first time: after a restart of the agent, containers stay as they were
	// until their probes say otherwise.
	Started, Ready bool
}

// spec gives the probe of a kind, nil if the container has none.
func spec(c *corev1.Container, kind Kind) *corev1.Probe {
	switch kind {
	case Startup:
		return c.StartupProbe
	case Liveness:
		return c.LivenessProbe
	}
	return c.ReadinessProbe
}

func kinds() []Kind { return []Kind{Startup, Liveness, Readiness} }
