// Package logs reads, follows and rotates the logs of containers, which the
// container runtime writes in the format that the runtime interface defines:
//
//	2026-01-02T15:04:05.123456789Z stdout F a line
//	2026-01-02T15:04:05.123456789Z stderr P the beginning of a line, the rest
//	2026-01-02T15:04:05.123456790Z stderr F  follows
//
// Guarantees:
//
//   - Files are opened beneath the pod's log folder and through no symbolic
//     link, for a container with a hostPath may own the folder; only regular
//     files are read.
//   - Memory is bounded, however long a line is.
//   - Read gives the whole log, rotated files included, each line once, also
//     when it is rotated meanwhile.
package logs

import (
	"io"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
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
	// Running reports whether the container still runs, for Follow. It is
	// asked about once a second and must not block. Nil means that it does not.
	Running func() bool
}

// PodDir is the folder of a pod's logs below the node's log folder, which is
// "/var/log/pods" on most nodes.
func PodDir(logDir string, pod *corev1.Pod) string {
	return filepath.Join(logDir, pod.Namespace+"_"+pod.Name+"_"+string(pod.UID))
}

// outputs are the writers of the two streams; a nil one drops its stream.
type outputs [2]io.Writer
