package logs

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	clocktesting "k8s.io/utils/clock/testing"
)

func ptr[T any](v T) *T { return &v }

// stamp gives the time of the n-th line.
func stamp(n int) string {
	return time.Date(2026, 1, 2, 3, 4, n, 5000, time.UTC).Format(time.RFC3339Nano)
}

func line(n int, stream, tag, text string) string {
	return stamp(n) + " " + stream + " " + tag + " " + text + "\n"
}

// logFile writes a log with its rotated files and gives its name.
func logFile(t *testing.T, files map[string]string) File {
	t.Helper()
	podDir := filepath.Join(t.TempDir(), "ns_pod_uid")
	if err := os.MkdirAll(filepath.Join(podDir, "app"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		data := []byte(text)
		if strings.HasSuffix(name, ".gz") {
			var b bytes.Buffer
			z := gzip.NewWriter(&b)
			if _, err := z.Write(data); err != nil {
				t.Fatal(err)
			}
			if err := z.Close(); err != nil {
				t.Fatal(err)
			}
			data = b.Bytes()
		}
		if err := os.WriteFile(filepath.Join(podDir, "app", name), data, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	return File{PodDir: podDir, Name: "app/0.log"}
}

func TestRead(t *testing.T) {
	file := logFile(t, map[string]string{
		"0.log.20260101-000000.gz": line(0, "stdout", "F", "zero") + line(1, "stderr", "F", "one"),
		"0.log.20260101-000100":    line(2, "stdout", "F", "two"),
		"0.log.other":              line(9, "stdout", "F", "not a log"),
		"1.log":                    line(9, "stdout", "F", "another start"),
		"0.log": line(3, "stdout", "P", "thr") + line(4, "stdout", "F", "ee") + "garbage\n" +
			line(5, "stderr", "F", "") + line(6, "stdout", "F", "six"),
	})
	all := "zero\none\ntwo\nthree\n\nsix\n"
	tests := []struct {
		name    string
		opts    Options
		only    Stream // when one is set
		one     bool
		want    string
		wantErr bool
	}{
		{name: "all", want: all},
		{name: "stdout", one: true, only: Stdout, want: "zero\ntwo\nthree\nsix\n"},
		{name: "stderr", one: true, only: Stderr, want: "one\n\n"},
		{name: "timestamps", opts: Options{Timestamps: true, Tail: ptr(int64(3))},
			want: stamp(3) + " three\n" + stamp(5) + " \n" + stamp(6) + " six\n"},
		{name: "since", opts: Options{Since: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}, want: "\nsix\n"},
		{name: "tail 0", opts: Options{Tail: ptr(int64(0))}, want: ""},
		{name: "tail 1", opts: Options{Tail: ptr(int64(1))}, want: "six\n"},
		{name: "tail 3 keeps a line whole", opts: Options{Tail: ptr(int64(3))}, want: "three\n\nsix\n"},
		{name: "tail 4 goes to the rotated file", opts: Options{Tail: ptr(int64(4))}, want: "two\nthree\n\nsix\n"},
		{name: "tail 5 goes to the compressed file", opts: Options{Tail: ptr(int64(5))}, want: "one\ntwo\nthree\n\nsix\n"},
		{name: "tail 9", opts: Options{Tail: ptr(int64(9))}, want: all},
		{name: "tail of one stream", one: true, only: Stderr, opts: Options{Tail: ptr(int64(1))}, want: "\n"},
		{name: "tail of stdout", one: true, only: Stdout, opts: Options{Tail: ptr(int64(3))}, want: "two\nthree\nsix\n"},
		{name: "limit", opts: Options{LimitBytes: ptr(int64(7))}, want: "zero\non"},
		{name: "limit 0", opts: Options{LimitBytes: ptr(int64(0))}, want: ""},
		{name: "follow of an ended container", opts: Options{Follow: true}, want: all},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			writers := outputs{&out, &out}
			if tt.one {
				writers[1-tt.only] = nil
			}
			if err := Read(t.Context(), file, tt.opts, writers[0], writers[1]); err != nil {
				t.Fatal(err)
			}
			if out.String() != tt.want {
				t.Errorf("got %q, want %q", out.String(), tt.want)
			}
		})
	}
}

func TestReadRefusesLinksAndPipes(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(line(0, "stdout", "F", "secret")), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, place := range map[string]func(File) error{
		"file is a link":   func(f File) error { return os.Symlink(secret, filepath.Join(f.PodDir, f.Name)) },
		"folder is a link": func(f File) error { return replaceByLink(filepath.Join(f.PodDir, "app"), filepath.Dir(secret)) },
		"pod is a link":    func(f File) error { return replaceByLink(f.PodDir, filepath.Dir(secret)) },
		"file is a pipe":   func(f File) error { return unix.Mkfifo(filepath.Join(f.PodDir, f.Name), 0o600) },
		"file is a folder": func(f File) error { return os.Mkdir(filepath.Join(f.PodDir, f.Name), 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			file := logFile(t, nil)
			if err := place(file); err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			if err := Read(t.Context(), file, Options{}, &out, &out); err == nil || out.Len() > 0 {
				t.Errorf("error %v, output %q", err, out.String())
			}
		})
	}
	if err := Read(t.Context(), logFile(t, nil), Options{}, io.Discard, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing log: %v", err)
	}
	outside := logFile(t, nil)
	outside.Name = "../../etc/passwd"
	if err := Read(t.Context(), outside, Options{}, io.Discard, nil); err == nil {
		t.Error("a name that leads out of the folder must be refused")
	}
}

func replaceByLink(path, target string) error {
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	return os.Symlink(target, path)
}

func TestLongLineIsStreamed(t *testing.T) {
	text := strings.Repeat("x", 5*maxPiece+17)
	file := logFile(t, map[string]string{"0.log": line(0, "stdout", "F", "a") + line(1, "stdout", "F", text) + line(2, "stdout", "P", text) + line(3, "stdout", "F", "z")})
	var out bytes.Buffer
	if err := Read(t.Context(), file, Options{Tail: ptr(int64(2)), Timestamps: true}, &out, nil); err != nil {
		t.Fatal(err)
	}
	if want := stamp(1) + " " + text + "\n" + stamp(2) + " " + text + "z\n"; out.String() != want {
		t.Errorf("got %d bytes, want %d", out.Len(), len(want))
	}
}

// sink collects output and lets a test wait for it.
type sink struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *sink) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(b)
}

func (s *sink) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

func (s *sink) waitFor(t *testing.T, want string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); s.String() != want; {
		if time.Now().After(end) {
			t.Fatalf("got %q, want %q", s.String(), want)
		}
		time.Sleep(time.Millisecond)
	}
}

// TestFollowAcrossRotation writes, rotates and ends a container while it is followed.
func TestFollowAcrossRotation(t *testing.T) {
	file := logFile(t, map[string]string{"0.log": line(0, "stdout", "F", "0")})
	path := filepath.Join(file.PodDir, file.Name)
	var running atomic.Bool
	running.Store(true)
	file.Running = running.Load
	out := new(sink)
	done := make(chan error, 1)
	go func() { done <- Read(t.Context(), file, Options{Follow: true}, out, out) }()
	want := "0\n"
	out.waitFor(t, want)

	rotator := NewRotator(RotatorConfig{
		Containers: func() []Container { return []Container{{ID: "c", PodDir: file.PodDir, Name: file.Name}} },
		Reopen:     func(context.Context, string) error { return os.WriteFile(path, nil, 0o640) },
		MaxSize:    1, MaxFiles: 3,
		Clock: clocktesting.NewFakeClock(time.Unix(0, 0)),
	})
	for i := 1; i < 8; i++ {
		appendTo(t, path, line(i, "stdout", "F", fmt.Sprint(i)))
		want += fmt.Sprintln(i)
		if i%2 == 0 {
			out.waitFor(t, want)
		}
		rotator.Rotate(t.Context())
		rotator.cfg.Clock.(*clocktesting.FakeClock).Step(time.Second)
	}
	appendTo(t, path, line(9, "stdout", "F", "last")+stamp(10)+" stdout F unfinished")
	running.Store(false)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if want += "last\nunfinished"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	names, err := filepath.Glob(filepath.Join(file.PodDir, "app", "*"))
	if err != nil || len(names) != 3 {
		t.Errorf("files %v, %v; want 3: the current one, one plain, one compressed", names, err)
	}
	var all bytes.Buffer
	if err := Read(t.Context(), file, Options{}, &all, nil); err != nil || all.String() != "6\n7\nlast\nunfinished" {
		t.Errorf("what is kept reads as %q, %v", all.String(), err)
	}
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func TestFollowEndsWithContext(t *testing.T) {
	file := logFile(t, map[string]string{"0.log": line(0, "stdout", "F", "0")})
	file.Running = func() bool { return true }
	ctx, cancel := context.WithCancel(t.Context())
	out := new(sink)
	done := make(chan error, 1)
	go func() { done <- Read(ctx, file, Options{Follow: true, Tail: ptr(int64(1))}, out, out) }()
	out.waitFor(t, "0\n")
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Read did not end with its context")
	}
}

func TestRotateGivesTheNameBack(t *testing.T) {
	file := logFile(t, map[string]string{"0.log": line(0, "stdout", "F", "0")})
	r := NewRotator(RotatorConfig{MaxSize: 1, Reopen: func(context.Context, string) error { return errors.New("no runtime") }})
	if err := r.rotate(t.Context(), Container{ID: "c", PodDir: file.PodDir, Name: file.Name}); err == nil {
		t.Error("the failure to reopen must be reported")
	}
	var out bytes.Buffer
	if err := Read(t.Context(), file, Options{}, &out, nil); err != nil || out.String() != "0\n" {
		t.Errorf("the log reads as %q, %v", out.String(), err)
	}
}

// FuzzParse: a line that is taken comes back the same when it is written again.
func FuzzParse(f *testing.F) {
	f.Add([]byte(line(0, "stdout", "F", "text")))
	f.Add([]byte(line(0, "stderr", "P:x", "")))
	f.Add([]byte("2026-01-02T15:04:05Z stdout F\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := Parse(data)
		if err != nil {
			return
		}
		if !bytes.HasPrefix(data, e.Stamp) || !bytes.HasSuffix(data, e.Content) {
			t.Errorf("%q parsed to %q and %q", data, e.Stamp, e.Content)
		}
	})
}

// FuzzRead: reading any file terminates, and a tail of all lines is all lines.
func FuzzRead(f *testing.F) {
	f.Add([]byte(line(0, "stdout", "P", "a")+line(1, "stdout", "F", "b")+"x\n\n"), int64(1))
	f.Fuzz(func(t *testing.T, data []byte, tail int64) {
		file := logFile(t, map[string]string{"0.log": string(data)})
		var all, most, part bytes.Buffer
		if err := Read(t.Context(), file, Options{}, &all, &all); err != nil {
			t.Fatal(err)
		}
		if err := Read(t.Context(), file, Options{Tail: ptr(int64(1 << 40))}, &most, &most); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(all.Bytes(), most.Bytes()) {
			t.Errorf("all %q, tail of everything %q", all.Bytes(), most.Bytes())
		}
		if err := Read(t.Context(), file, Options{Tail: &tail}, &part, nil); err != nil {
			t.Fatal(err)
		}
	})
}

func TestWatcherWithoutEvents(t *testing.T) {
	w := new(watcher)
	if err := w.wait(t.Context()); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w.interrupt()
	if err := w.wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a wait with a context that has ended: %v", err)
	}
	w.close()
}
