// Package imageview shows what is in an image as a folder of the node, for
// volumes that are images (KEP-4639).
//
// Runtimes before containerd 2.1 know no mounts of images. A Viewer asks
// containerd for a read-only view of the image's layers, which it unpacks where
// no container did before, and mounts it: nothing is copied. A view keeps its
// layers from being collected until it is dropped, also when the image is
// removed meanwhile.
//
// Contract: Show and Drop are idempotent and safe for concurrent use with
// different names; what they did survives a restart of the agent.
package imageview

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/api/types"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// namespace is the containerd namespace that CRI keeps its images in.
	namespace = "k8s.io"
	// rooted is the label that keeps containerd from collecting a snapshot.
	rooted = "containerd.io/gc.root"
	// timeout bounds each request, unpacking those that unpack one image.
	timeout   = 15 * time.Second
	unpacking = 10 * time.Minute
	// maxOptions is how many bytes of options the kernel takes for a mount.
	maxOptions = 4095
)

// flags are those of every view: its files are there to be read (API doc of
// ImageVolumeSource). A runtime that mounts the view into a container keeps it
// read-only, and decides about the other flags itself.
const flags = unix.MS_RDONLY | unix.MS_NOEXEC | unix.MS_NOSUID | unix.MS_NODEV

// Viewer shows images of one containerd.
type Viewer struct {
	conn      *grpc.ClientConn
	cri       runtimeapi.ImageServiceClient
	snapshots snapshotsapi.SnapshotsClient
	images    imagesapi.ImagesClient
	content   contentapi.ContentClient
	diffs     diffapi.DiffClient
	leases    leasesapi.LeasesClient
	// mount shows a view at a folder.
	mount func(mounts []*types.Mount, dir string) error
}

// New prepares a Viewer of the runtime that listens at endpoint, a Unix socket
// as a path or a URL. It connects when it is first asked for something.
func New(endpoint string) (*Viewer, error) {
	if strings.HasPrefix(endpoint, "/") {
		endpoint = "unix://" + endpoint
	}
	conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("connect to the container runtime at %s: %w", endpoint, err)
	}
	return &Viewer{
		conn: conn, cri: runtimeapi.NewImageServiceClient(conn), snapshots: snapshotsapi.NewSnapshotsClient(conn),
		images: imagesapi.NewImagesClient(conn), content: contentapi.NewContentClient(conn),
		diffs: diffapi.NewDiffClient(conn), leases: leasesapi.NewLeasesClient(conn), mount: mount,
	}, nil
}

// Close ends the connection.
func (v *Viewer) Close() error { return v.conn.Close() }

// Show mounts the content of an image that is on the node, read-only, at dir,
// a folder without a mount. name is the view's own, which Drop takes.
func (v *Viewer) Show(ctx context.Context, name, image, dir string) error {
	top, err := v.chain(ctx, image)
	if err != nil {
		return err
	}
	mounts, err := v.view(ctx, name, image, top)
	if err != nil {
		return fmt.Errorf("view of image %s: %w", image, err)
	}
	return v.mount(mounts, dir)
}

// chain is the name of an image's topmost layer together with all below it, as
// containerd's verbose status tells it.
func (v *Viewer) chain(ctx context.Context, image string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	resp, err := v.cri.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: image}, Verbose: true})
	if err != nil {
		return "", fmt.Errorf("status of image %s: %w", image, err)
	}
	if resp.GetImage() == nil {
		return "", fmt.Errorf("image %s is not on the node", image)
	}
	return chainOf(resp.GetInfo())
}

func chainOf(info map[string]string) (string, error) {
	var verbose struct {
		ChainID string `json:"chainID"`
	}
	if err := json.Unmarshal([]byte(info["info"]), &verbose); err != nil || verbose.ChainID == "" {
		return "", errors.New("the container runtime does not tell where the image's layers are: volumes of type image need containerd")
	}
	return verbose.ChainID, nil
}

// snapshotters are those whose views the kernel mounts by itself.
func snapshotters() []string { return []string{"overlayfs", "native"} }

// view makes the view, or finds the one that is there.
func (v *Viewer) view(ctx context.Context, name, image, chain string) ([]*types.Mount, error) {
	var errs []error
	for _, s := range snapshotters() {
		mounts, err := v.viewIn(ctx, s, name, chain)
		if err != nil {
			errs = append(errs, fmt.Errorf("snapshotter %s: %w", s, err))
			continue
		}
		return mounts, nil
	}
	for _, s := range snapshotters() {
		var mounts []*types.Mount
		ctx, cancel := context.WithTimeout(ctx, unpacking)
		err := v.unpack(ctx, s, image, name, func(ctx context.Context) (err error) {
			mounts, err = v.viewIn(ctx, s, name, chain)
			return err
		})
		cancel()
		if err == nil {
			return mounts, nil
		}
		errs = append(errs, fmt.Errorf("snapshotter %s: %w", s, err))
	}
	return nil, errors.Join(errs...)
}

func (v *Viewer) viewIn(ctx context.Context, snapshotter, name, chain string) ([]*types.Mount, error) {
	ctx, cancel := context.WithTimeout(inNamespace(ctx), timeout)
	defer cancel()
	made, err := v.snapshots.View(ctx, &snapshotsapi.ViewSnapshotRequest{
		Snapshotter: snapshotter, Key: name, Parent: chain,
		Labels: map[string]string{rooted: "coracle-volume"},
	})
	if err == nil {
		return made.GetMounts(), nil
	}
	if status.Code(err) != codes.AlreadyExists {
		return nil, err
	}
	found, err := v.snapshots.Mounts(ctx, &snapshotsapi.MountsRequest{Snapshotter: snapshotter, Key: name})
	return found.GetMounts(), err
}

// Drop lets go of the layers that a view held. Its mount must be gone. A view
// that is not there is no error.
func (v *Viewer) Drop(ctx context.Context, name string) error {
	var errs []error
	for _, s := range snapshotters() {
		ctx, cancel := context.WithTimeout(inNamespace(ctx), timeout)
		_, err := v.snapshots.Remove(ctx, &snapshotsapi.RemoveSnapshotRequest{Snapshotter: s, Key: name})
		cancel()
		switch status.Code(err) {
		case codes.OK, codes.NotFound, codes.InvalidArgument: // the last: a snapshotter that is not there
		default:
			errs = append(errs, fmt.Errorf("remove the view %s of snapshotter %s: %w", name, s, err))
		}
	}
	return errors.Join(errs...)
}

func inNamespace(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "containerd-namespace", namespace)
}

// mount shows a view at dir.
func mount(mounts []*types.Mount, dir string) error {
	if len(mounts) != 1 {
		return fmt.Errorf("a view of %d mounts cannot be shown", len(mounts))
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	m := mounts[0]
	switch m.GetType() {
	case "overlay":
		options := strings.Join(m.GetOptions(), ",")
		if len(options) > maxOptions {
			return fmt.Errorf("the image has more layers than the kernel mounts at once: their paths have %d bytes, more than %d", len(options), maxOptions)
		}
		if err := unix.Mount("overlay", dir, "overlay", flags, options); err != nil {
			return fmt.Errorf("mount the image's layers at %s: %w", dir, err)
		}
		return nil
	case "bind": // a single layer
		if err := unix.Mount(m.GetSource(), dir, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount the image's layer at %s: %w", dir, err)
		}
		if err := unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|flags, ""); err != nil {
			return errors.Join(fmt.Errorf("make %s read-only: %w", dir, err), unix.Unmount(dir, unix.MNT_DETACH))
		}
		return nil
	}
	return fmt.Errorf("a view of type %q cannot be shown", m.GetType())
}
