package volume

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// shownFolders shows the same folder as the content of every image.
type shownFolders struct {
	content string
	err     error // of Bring
	brought []string
	held    map[string]string // by name, where it was shown
	early   bool              // a view was dropped that was still mounted
}

func (s *shownFolders) Bring(_ context.Context, _ *corev1.Pod, source *corev1.ImageVolumeSource) (string, error) {
	s.brought = append(s.brought, source.Reference)
	return "sha256:" + source.Reference, s.err
}

func (s *shownFolders) Show(_ context.Context, name, _, dir string) error {
	s.held[name] = dir
	return unix.Mount(s.content, dir, "", unix.MS_BIND, "")
}

func (s *shownFolders) Drop(_ context.Context, name string) error {
	mounted, err := isMount(s.held[name])
	s.early = s.early || err == nil && mounted
	delete(s.held, name)
	return nil
}

func TestImageVolume(t *testing.T) {
	images := &shownFolders{content: t.TempDir(), held: map[string]string{}}
	write(t, "kitten.jpg", images.content, "data.json")
	f := newFixture(t)
	f.cfg.Images = images
	pod := podWith(vol("i", corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "kitten:1"}}))
	for range 2 { // the second time it is there
		source := f.mount(pod)["i"]
		if data, err := os.ReadFile(filepath.Join(source.HostPath, "data.json")); err != nil || string(data) != "kitten.jpg" {
			t.Errorf("the volume shows %q: %v", data, err)
		}
		if !source.ReadOnly {
			t.Error("a container may write into an image")
		}
	}
	if len(images.brought) != 1 || len(images.held) != 1 {
		t.Errorf("images were brought %q, views are held %q", images.brought, images.held)
	}
	if err := f.Unmount(t.Context(), pod.UID); err != nil {
		t.Fatal(err)
	}
	if len(images.held) != 0 || images.early {
		t.Errorf("views %q are held after the pod, dropped before their mounts: %v", images.held, images.early)
	}
	if _, err := os.Stat(filepath.Join(images.content, "data.json")); err != nil {
		t.Errorf("the image itself: %v", err)
	}
}

func TestImageVolumeFails(t *testing.T) {
	f := newFixture(t)
	pod := podWith(vol("i", corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "kitten:1"}}))
	if _, err := f.Mount(t.Context(), pod, PodFacts{}); err == nil || !strings.Contains(err.Error(), `volume "i": this node cannot show images`) {
		t.Errorf("without a runtime that shows images: %v", err)
	}
	images := &shownFolders{err: errors.New("no way to the registry"), held: map[string]string{}}
	f.cfg.Images = images
	if _, err := f.Mount(t.Context(), pod, PodFacts{}); !errors.Is(err, images.err) {
		t.Errorf("with an image that does not come: %v", err)
	}
	if err := f.Unmount(t.Context(), pod.UID); err != nil {
		t.Errorf("unmount what was never shown: %v", err)
	}
}
