package image

import (
	"archive/tar"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestBuildIsReproducible(t *testing.T) {
	files := []File{
		{Path: "/b/c", Data: []byte("two")},
		{Path: "/a", Data: []byte("one"), Mode: 0o755},
		{Path: "/l", Link: "a"},
	}
	reversed := []File{files[2], files[1], files[0]}
	var digests []string
	for _, list := range [][]File{files, reversed} {
		img, err := Build(Spec{Files: list, Arch: "amd64", Cmd: []string{"/a"}})
		if err != nil {
			t.Fatal(err)
		}
		d, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, d.String())
	}
	if digests[0] != digests[1] {
		t.Errorf("the order of files changed the digest: %v", digests)
	}
}

func TestBuildLayer(t *testing.T) {
	img, err := Build(Spec{Files: []File{
		{Path: "/tmp", Dir: true, Mode: 0o777 | os.ModeSticky},
		{Path: "/bin/x", Data: []byte("x"), Mode: 0o755 | os.ModeSetuid, UID: 7, GID: 8},
		{Path: "/bin/y", Link: "x"},
		{Path: "/deep/er/z"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	rc, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	type entry struct {
		Name, Link string
		Type       byte
		Mode       int64
		UID, GID   int
	}
	var got []entry
	tr := tar.NewReader(rc)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if !h.ModTime.IsZero() && h.ModTime.Unix() != 0 {
			t.Errorf("%s carries a time: %s", h.Name, h.ModTime)
		}
		got = append(got, entry{h.Name, h.Linkname, h.Typeflag, h.Mode, h.Uid, h.Gid})
	}
	want := []entry{
		{Name: "bin/", Type: tar.TypeDir, Mode: 0o755},
		{Name: "bin/x", Type: tar.TypeReg, Mode: 0o4755, UID: 7, GID: 8},
		{Name: "bin/y", Link: "x", Type: tar.TypeSymlink, Mode: 0o777},
		{Name: "deep/", Type: tar.TypeDir, Mode: 0o755},
		{Name: "deep/er/", Type: tar.TypeDir, Mode: 0o755},
		{Name: "deep/er/z", Type: tar.TypeReg, Mode: 0o644},
		{Name: "tmp/", Type: tar.TypeDir, Mode: 0o1777},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("layer (-want +got):\n%s", diff)
	}
}

func TestBuildRefuses(t *testing.T) {
	for name, files := range map[string][]File{
		"must be absolute":       {{Path: "a"}},
		"listed twice":           {{Path: "/a"}, {Path: "/a/"}},
		"which is not a":         {{Path: "/a"}, {Path: "/a/b"}},
		"root directory cannot ": {{Path: "/", Dir: true}},
	} {
		if _, err := Build(Spec{Files: files}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("Build(%v) = %v, want an error with %q", files, err, name)
		}
	}
}

// TestPauseProgram runs the program of this machine's architecture.
func TestPauseProgram(t *testing.T) {
	program, err := pauseProgram(runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "pause")
	if err := os.WriteFile(file, program, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(file)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	// SIGCHLD is signal 17, bit 16 of the mask; others may be ignored because
	// the test's own parent ignores them.
	ignored := regexp.MustCompile(`SigIgn:\t[0-9a-f]{11}[13579bdf][0-9a-f]{4}\n`)
	var status string
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "status"))
		if err != nil {
			t.Fatal(err)
		}
		status = string(data)
		if ignored.MatchString(status) && strings.Contains(status, "State:\tS") {
			return
		}
	}
	t.Errorf("the program does not sleep with SIGCHLD ignored:\n%s", status)
}

func TestPauseArchitectures(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		if _, err := Pause(arch); err != nil {
			t.Errorf("Pause(%q): %v", arch, err)
		}
	}
	if _, err := Pause("pdp11"); err == nil {
		t.Error("Pause(pdp11) succeeded")
	}
}

func TestReference(t *testing.T) {
	for in, want := range map[string]string{
		"busybox":                      "docker.io/library/busybox:latest",
		"me/app:v2":                    "docker.io/me/app:v2",
		"coracle.dev/pause:v1":         "coracle.dev/pause:v1",
		"localhost:5000/a":             "localhost:5000/a:latest",
		"index.docker.io/library/a:b1": "docker.io/library/a:b1",
	} {
		if got, err := Reference(in); err != nil || got != want {
			t.Errorf("Reference(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
	if _, err := Reference("Not Valid"); err == nil {
		t.Error("Reference accepted a name with a blank")
	}
}
