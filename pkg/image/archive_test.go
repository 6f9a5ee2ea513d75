package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func testImage(t *testing.T, content string) Image {
	t.Helper()
	img, err := Build(Spec{Files: []File{{Path: "/f", Data: []byte(content)}}})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func configOf(t *testing.T, img Image) string {
	t.Helper()
	h, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	return h.String()
}

func TestSaveAndOpen(t *testing.T) {
	a, b := testImage(t, "a"), testImage(t, "b")
	images := []Named{{"coracle.dev/a:v1", a}, {"busybox", b}, {"busybox:1", b}}
	first, second := filepath.Join(t.TempDir(), "1.tar"), filepath.Join(t.TempDir(), "2.tar")
	for _, file := range []string{first, second} {
		if err := Save(file, images); err != nil {
			t.Fatal(err)
		}
	}
	one, _ := os.ReadFile(first)
	two, _ := os.ReadFile(second)
	if len(one) == 0 || !bytes.Equal(one, two) {
		t.Error("two archives of the same images differ")
	}
	got, err := Open(first)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	want := map[string]string{
		"coracle.dev/a:v1":                 configOf(t, a),
		"docker.io/library/busybox:1":      configOf(t, b),
		"docker.io/library/busybox:latest": configOf(t, b),
	}
	if len(got.Images) != len(want) {
		t.Fatalf("got %d images, want %d", len(got.Images), len(want))
	}
	for _, n := range got.Images {
		if c := configOf(t, n.Image); c != want[n.Ref] {
			t.Errorf("%s has config %s, want %s", n.Ref, c, want[n.Ref])
		}
	}
}

// layoutTar makes a tar file of an OCI layout with one image.
func layoutTar(t *testing.T, img Image, annotations map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.AppendImage(img, layout.WithAnnotations(annotations)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "layout.tar")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tw := tar.NewWriter(f)
	if err := tw.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestOpenLayout(t *testing.T) {
	img := testImage(t, "a")
	file := layoutTar(t, img, map[string]string{"io.containerd.image.name": "coracle.dev/a:v1", "org.opencontainers.image.ref.name": "v1"})
	a, err := Open(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Images) != 1 || a.Images[0].Ref != "coracle.dev/a:v1" || configOf(t, a.Images[0].Image) != configOf(t, img) {
		t.Errorf("got %+v", a.Images)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(a.dir); !os.IsNotExist(err) {
		t.Errorf("Close left %s", a.dir)
	}
}

// checkLayers compares each layer's bytes with the manifest.
func checkLayers(t *testing.T, img Image) {
	t.Helper()
	manifest, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	if len(layers) == 0 || len(layers) != len(manifest.Layers) {
		t.Fatalf("%d layers, the manifest lists %d", len(layers), len(manifest.Layers))
	}
	for i, l := range layers {
		rc, err := l.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		h, size, err := v1.SHA256(rc)
		if err := errors.Join(err, rc.Close()); err != nil {
			t.Fatal(err)
		}
		if want := manifest.Layers[i]; h != want.Digest || size != want.Size {
			t.Errorf("layer %d is %s of %d bytes, the manifest says %s of %d", i, h, size, want.Digest, want.Size)
		}
	}
}

// TestOpenDockerArchive reads what "docker save" writes.
func TestOpenDockerArchive(t *testing.T) {
	img := testImage(t, "a")
	tag, err := name.NewTag("busybox:1")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "docker.tar")
	if err := tarball.WriteToFile(file, tag, img); err != nil {
		t.Fatal(err)
	}
	a, err := Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if len(a.Images) != 1 || a.Images[0].Ref != "docker.io/library/busybox:1" || configOf(t, a.Images[0].Image) != configOf(t, img) {
		t.Fatalf("got %+v", a.Images)
	}
	checkLayers(t, a.Images[0].Image)
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	tarOf := func(name, content string) []byte {
		var b bytes.Buffer
		tw := tar.NewWriter(&b)
		if err := tw.WriteHeader(&tar.Header{Name: name, Size: int64(len(content)), Mode: 0o600}); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
		if err := tw.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	for file, want := range map[string]string{
		filepath.Join(dir, "absent"):                            "no such file",
		write("text", bytes.Repeat([]byte("text"), 1000)):       "not a tar file",
		write("other", tarOf("readme", "x")):                    "neither",
		write("broken", tarOf("index.json", "{")):               "not valid JSON",
		layoutTar(t, testImage(t, "a"), map[string]string{}):    "names no image",
		write("escape", tarOf("blobs/sha256/../../x", "index")): "neither",
	} {
		a, err := Open(file)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open(%s) = %v, want an error with %q", filepath.Base(file), err, want)
		}
		if a != nil {
			t.Errorf("Open(%s) returned an archive with its error", filepath.Base(file))
		}
	}
}

// TestOpenRefusesSparseArchives: a few bytes must not become a full disk.
func TestOpenRefusesSparseArchives(t *testing.T) {
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	// The archive ends before the entry that it announces.
	if err := tw.WriteHeader(&tar.Header{Name: "index.json", Size: 1 << 40, Mode: 0o600}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "a.tar")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file); err == nil || !strings.Contains(err.Error(), "larger than the archive") {
		t.Errorf("Open = %v", err)
	}
}

func FuzzOpen(f *testing.F) {
	for _, name := range []string{"manifest.json", "index.json", "blobs/sha256/x"} {
		var b bytes.Buffer
		tw := tar.NewWriter(&b)
		if err := tw.WriteHeader(&tar.Header{Name: name, Size: 2, Mode: 0o600}); err != nil {
			f.Fatal(err)
		}
		if _, err := tw.Write([]byte("[]")); err != nil {
			f.Fatal(err)
		}
		if err := tw.Close(); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file := filepath.Join(t.TempDir(), "a.tar")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		a, err := Open(file)
		if err != nil {
			return
		}
		if len(a.Images) == 0 {
			t.Error("an archive without images was opened")
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestPull(t *testing.T) {
	server := httptest.NewServer(Registry())
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	img := testImage(t, "a")
	if err := Push(t.Context(), Named{Ref: host + "/team/a:v1", Image: img}); err != nil {
		t.Fatal(err)
	}
	got, err := Pull(t.Context(), host+"/team/a:v1", PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got.Ref != host+"/team/a:v1" || configOf(t, got.Image) != configOf(t, img) {
		t.Errorf("pulled %s with another config", got.Ref)
	}
	_, err = Pull(t.Context(), host+"/team/a:v2", PullOptions{})
	if err == nil || !strings.Contains(err.Error(), "has no such image") {
		t.Errorf("pulling an absent tag: %v", err)
	}
}
