package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"coracle/pkg/image"
)

// imagesTimeout bounds the loading of images into one node.
const imagesTimeout = 5 * time.Minute

// imageSet is a list of images with what must be closed after their use.
type imageSet struct {
	images  []image.Named
	closers []io.Closer
}

func (s *imageSet) Close() error {
	var errs []error
	for _, c := range s.closers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// startImages opens what every node of a new cluster gets.
func (m *Machine) startImages(ctx context.Context) (*imageSet, error) {
	pause, err := image.Pause(runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	set := &imageSet{images: []image.Named{{Ref: image.PauseRef, Image: pause}}}
	for _, path := range m.Images {
		if err := set.open(path); err != nil {
			return nil, errors.Join(err, set.Close())
		}
	}
	if set.has(image.BusyboxRefs()[0]) {
		return set, nil
	}
	// A dynamic busybox, or none, is no reason to have no cluster.
	if busybox, err := image.Busybox(ctx, "/bin/busybox"); err == nil {
		for _, ref := range image.BusyboxRefs() {
			set.images = append(set.images, image.Named{Ref: ref, Image: busybox})
		}
	}
	return set, nil
}

func (s *imageSet) has(ref string) bool {
	return slices.ContainsFunc(s.images, func(n image.Named) bool { return n.Ref == ref })
}

// open adds an archive, or all archives of a folder. A path that does not
// exist adds nothing.
func (s *imageSet) open(path string) error {
	st, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open images: %w", err)
	}
	files := []string{path}
	if st.IsDir() {
		if files, err = filepath.Glob(filepath.Join(path, "*.tar")); err != nil {
			return fmt.Errorf("open images: %w", err)
		}
	}
	for _, file := range files {
		a, err := image.Open(file)
		if err != nil {
			return err
		}
		s.images = append(s.images, a.Images...)
		s.closers = append(s.closers, a)
	}
	return nil
}

// loadImages loads the start images into all nodes at once.
func (b *boot) loadImages(ctx context.Context) error {
	set, err := b.m.startImages(ctx)
	if err != nil {
		return err
	}
	defer set.Close()
	blobs, err := image.NewBlobs(string(b.f))
	if err != nil {
		return err
	}
	defer blobs.Close()
	return b.eachNode(func(i int) error {
		_, err := loadInto(ctx, b.f, b.s.Nodes[i].Name, set.images, blobs)
		return err
	})
}

// contentStore is where containerd keeps blobs, below a node's root.
const contentStore = "var/lib/containerd/io.containerd.content.v1.content"

// loadInto waits for a node's containerd and loads what it lacks, with layers
// from blobs. It returns how many references changed.
func loadInto(ctx context.Context, f folder, node string, images []image.Named, blobs *image.Blobs) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, imagesTimeout)
	defer cancel()
	socket, err := f.runtimePath(node)
	if err != nil {
		return 0, err
	}
	rt, err := image.Connect(socket)
	if err != nil {
		return 0, fmt.Errorf("node %s: %w", node, err)
	}
	defer rt.Close()
	rt.LinkLayers(blobs, f.rootfs(node, contentStore))
	if err := awaitRuntime(ctx, f, node, rt); err != nil {
		return 0, err
	}
	changed := 0
	for _, n := range images {
		did, err := rt.Load(ctx, n.Ref, n.Image)
		if err != nil {
			return changed, fmt.Errorf("node %s: %w", node, err)
		}
		if did {
			changed++
		}
	}
	return changed, nil
}

// runtimeTimeout bounds the start of a node's containerd.
const runtimeTimeout = 30 * time.Second

func awaitRuntime(ctx context.Context, f folder, node string, rt *image.Runtime) error {
	ctx, cancel := context.WithTimeout(ctx, runtimeTimeout)
	defer cancel()
	if err := rt.Wait(ctx); err != nil {
		return fmt.Errorf("node %s: containerd did not start: %w: %s", node, err,
			lastLines(f.rootfs(node, "var/log/containerd.log"), 3))
	}
	return nil
}

// LoadImages loads images into every running node of a cluster, only what is
// missing. It returns how many references changed on how many nodes.
func (m *Machine) LoadImages(ctx context.Context, cluster string, images []image.Named) (changed, nodes int, err error) {
	f := m.folder(cluster)
	s, err := f.load()
	if err != nil {
		return 0, 0, err
	}
	blobs, err := image.NewBlobs(string(f))
	if err != nil {
		return 0, 0, err
	}
	defer blobs.Close()
	b := &boot{m: m, f: f, s: s}
	counts := make([]int, len(s.Nodes))
	running := make([]bool, len(s.Nodes))
	err = b.eachNode(func(i int) error {
		p, err := readProcess(f.nodePID(s.Nodes[i].Name))
		if err != nil || !p.alive() {
			return err
		}
		running[i] = true
		counts[i], err = loadInto(ctx, f, s.Nodes[i].Name, images, blobs)
		return err
	})
	for i := range s.Nodes {
		changed += counts[i]
		if running[i] {
			nodes++
		}
	}
	if err == nil && nodes == 0 {
		err = fmt.Errorf("no node of cluster %s is running: start it with \"ctl cluster start %[1]s\"", cluster)
	}
	return changed, nodes, err
}

// NodeImages lists the images of every running node, by node name.
func (m *Machine) NodeImages(ctx context.Context, cluster string) (map[string][]image.Info, error) {
	ctx, cancel := context.WithTimeout(ctx, runtimeTimeout)
	defer cancel()
	f := m.folder(cluster)
	s, err := f.load()
	if err != nil {
		return nil, err
	}
	out := map[string][]image.Info{}
	for _, n := range s.Nodes {
		socket, err := f.runtimePath(n.Name)
		if err != nil {
			continue // a node that is off has no images to show
		}
		rt, err := image.Connect(socket)
		if err != nil {
			return nil, fmt.Errorf("node %s: %w", n.Name, err)
		}
		list, err := rt.List(ctx)
		if err := errors.Join(err, rt.Close()); err != nil {
			return nil, fmt.Errorf("node %s: %w", n.Name, err)
		}
		out[n.Name] = list
	}
	return out, nil
}
