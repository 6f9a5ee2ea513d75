// Package logs reads, follows and rotates container logs in the format of the
// container runtime interface.
package logs

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"k8s.io/utils/clock"
)

// Options select what Read gives.
type Options struct {
	// Follow waits for more lines until the container has ended.
	Follow bool
	// Timestamps puts the time of each line before it.
	Timestamps bool
	// Since drops lines older than this. Zero keeps all.
	Since time.Time
	// Tail gives only the last lines, this many; nil gives all.
	Tail *int64
	// LimitBytes ends the output after this many bytes; nil is no limit.
	LimitBytes *int64
}

// File names the log of one container.
type File struct {
	// PodDir is the log folder of the pod; nothing outside it is ever opened.
	PodDir string
	// Name is the current log file relative to PodDir, such as "app/0.log".
	Name string
	// Running reports whether the container still runs; used by Follow. Nil means no.
	Running func() bool
}

// Read copies the log of one container to stdout and stderr; either may be nil.
func Read(ctx context.Context, file File, opts Options, stdout, stderr io.Writer) error {
	return errors.New("logs: not yet")
}

// RotatorConfig is what a Rotator needs.
type RotatorConfig struct {
	// Containers lists the logs of the running containers.
	Containers func() []Container
	// Reopen asks the runtime to open the log of a container anew.
	Reopen func(ctx context.Context, containerID string) error
	// MaxSize in bytes starts a rotation, 10 MiB if 0; MaxFiles is how many
	// files of a container are kept, the current one included, 5 if 0.
	MaxSize  int64
	MaxFiles int
	// Clock is the real clock if nil, Log discards if nil.
	Clock clock.Clock
	Log   *slog.Logger
}

// Container is a running container whose log may need rotation.
type Container struct {
	ID string
	// PodDir and Name as in File.
	PodDir, Name string
}

// Rotator keeps logs small.
type Rotator struct{ cfg RotatorConfig }

// NewRotator makes a Rotator.
func NewRotator(cfg RotatorConfig) *Rotator { return &Rotator{cfg: cfg} }

// Run rotates logs until ctx ends.
func (r *Rotator) Run(ctx context.Context) error { <-ctx.Done(); return nil }
