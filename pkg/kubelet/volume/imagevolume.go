package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Images brings images onto the node and shows what is in them.
type Images interface {
	// Bring returns the image of a volume once it is on the node, as its pull
	// policy says.
	Bring(ctx context.Context, pod *corev1.Pod, source *corev1.ImageVolumeSource) (image string, err error)
	// Show mounts the image's content at dir, read-only. name is what Drop takes.
	Show(ctx context.Context, name, image, dir string) error
	// Drop lets go of what Show holds on to. It is called when the mount is gone,
	// and also for names that were never shown.
	Drop(ctx context.Context, name string) error
}

// imageFolder is where volumes of images live below a pod's volumes folder.
const imageFolder = "kubernetes.io~image"

func imageKind() kind {
	return kind{
		folder: imageFolder,
		is:     func(v *corev1.VolumeSource) bool { return v.Image != nil },
		mount:  mountImage,
	}
}

// mountImage shows an image as it is when the pod starts: one that is mounted
// stays, whatever its name means by now.
func mountImage(ctx context.Context, m *Manager, r request) (Source, error) {
	source := Source{HostPath: r.dir, ReadOnly: true}
	if m.cfg.Images == nil {
		return Source{}, errors.New("this node cannot show images")
	}
	if r.volume.Image.Reference == "" {
		return Source{}, errors.New("it names no image")
	}
	// The folder comes first: by it Unmount knows what may have to be dropped.
	if err := os.MkdirAll(r.dir, 0o750); err != nil {
		return Source{}, err
	}
	mounted, err := isMount(r.dir)
	if err != nil || mounted {
		return source, err
	}
	image, err := m.cfg.Images.Bring(ctx, r.pod, r.volume.Image)
	if err != nil {
		return Source{}, err
	}
	return source, m.cfg.Images.Show(ctx, viewName(r.pod.UID, r.volume.Name), image, r.dir)
}

// dropImages lets go of the images of a pod whose mounts are gone, by what is on
// disk.
func (m *Manager) dropImages(ctx context.Context, pod types.UID) error {
	entries, err := os.ReadDir(filepath.Join(m.PodDir(pod), volumesDir, imageFolder))
	if errors.Is(err, fs.ErrNotExist) || m.cfg.Images == nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listing the pod's image volumes: %w", err)
	}
	var errs []error
	for _, e := range entries {
		errs = append(errs, m.cfg.Images.Drop(ctx, viewName(pod, e.Name())))
	}
	return errors.Join(errs...)
}

func viewName(pod types.UID, volume string) string {
	return "coracle-volume-" + string(pod) + "-" + volume
}
