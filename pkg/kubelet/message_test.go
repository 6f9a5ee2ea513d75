package kubelet

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"coracle/pkg/kubelet/cri"
)

func exitedWith(code int32, policy, file, log string) *runtimeapi.ContainerStatus {
	return &runtimeapi.ContainerStatus{
		ExitCode: code, LogPath: log,
		Annotations: map[string]string{cri.AnnotationMessagePath: "/dev/termination-log", cri.AnnotationMessagePolicy: policy},
		Mounts:      []*runtimeapi.Mount{{ContainerPath: "/dev/termination-log", HostPath: file}},
	}
}

func TestTerminationMessage(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	log := file("log", "2030-01-01T00:00:00Z stdout F one\n2030-01-01T00:00:00Z stderr P tw\n2030-01-01T00:00:00Z stderr F o\n")
	many := file("many", strings.Repeat("2030-01-01T00:00:00Z stdout F line\n", 5000))
	empty, full := file("empty", ""), file("full", "bye")
	long := file("long", strings.Repeat("x", 5000))
	const fallback = "FallbackToLogsOnError"
	for _, tc := range []struct {
		name   string
		status *runtimeapi.ContainerStatus
		want   string
	}{
		{"file", exitedWith(0, "File", full, log), "bye"},
		{"file wins over log", exitedWith(1, fallback, full, log), "bye"},
		{"success has no fallback", exitedWith(0, fallback, empty, log), ""},
		{"no fallback asked for", exitedWith(1, "File", empty, log), ""},
		{"fallback", exitedWith(1, fallback, empty, log), "one\ntwo\n"},
		{"fallback without a log", exitedWith(1, fallback, empty, filepath.Join(dir, "absent")), ""},
		{"long file is cut", exitedWith(0, "File", long, log), strings.Repeat("x", maxMessage)},
		{"long log is cut", exitedWith(1, fallback, empty, many), strings.Repeat("line\n", maxMessageLines)},
		{"control characters go", exitedWith(0, "File", file("ctl", "a\x1b[31mb\x00\xff\n"), log), "a[31mb\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := terminationMessage(tc.status); got != tc.want {
				t.Errorf("message %q, want %q", got, tc.want)
			}
		})
	}
}

// TestMessageFileMayBeAnything puts in the place of the message file what a
// hostile container could put there.
func TestMessageFileMayBeAnything(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	link, fifo, sparse := filepath.Join(dir, "link"), filepath.Join(dir, "fifo"), filepath.Join(dir, "sparse")
	if err := os.Symlink(secret, link); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(sparse, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(sparse, 1<<40); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, path := range []string{link, fifo, sparse, dir, "/dev/zero", "/dev/tty", filepath.Join(dir, "absent")} {
			if got := terminationMessage(exitedWith(1, "FallbackToLogsOnError", path, path)); got != "" {
				t.Errorf("%s gives %q", path, got)
			}
		}
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("reading hangs")
	}
}

func FuzzLogTail(f *testing.F) {
	f.Add([]byte("2030-01-01T00:00:00Z stdout F one\n"))
	f.Add([]byte("x y P z\n\n \x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		name := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := logTail(name); len(got) > maxMessageLog || !utf8.ValidString(got) {
			t.Errorf("%d bytes, valid %v", len(got), utf8.ValidString(got))
		}
	})
}
