package imageview

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	// maxDocument bounds an index, a manifest or a configuration, in bytes.
	maxDocument = 4 << 20
	// maxLayers bounds the layers of an image; runtimes take no more than about
	// as many.
	maxLayers = 256
)

// unpack makes the snapshots of an image's layers that are not there: an image
// that was loaded, and not pulled, has none before a container runs from it.
// Until a view holds them a lease does.
func (v *Viewer) unpack(ctx context.Context, snapshotter, image, lease string, finish func(context.Context) error) error {
	made, err := v.leases.Create(inNamespace(ctx), &leasesapi.CreateRequest{ID: lease})
	switch {
	case status.Code(err) == codes.AlreadyExists: // of an attempt that was cut short
	case err != nil:
		return fmt.Errorf("lease: %w", err)
	default:
		lease = made.GetLease().GetID()
	}
	defer func() {
		// What was made is held by a view, or is to be collected.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
		defer cancel()
		_, _ = v.leases.Delete(inNamespace(ctx), &leasesapi.DeleteRequest{ID: lease})
	}()
	ctx = metadata.AppendToOutgoingContext(ctx, "containerd-lease", lease)
	layers, ids, err := v.layers(ctx, image)
	if err != nil {
		return err
	}
	parent := ""
	for i := range layers {
		chain := identity.ChainID(ids[:i+1]).String()
		if err := v.unpackLayer(ctx, snapshotter, lease+"-"+chain, parent, chain, layers[i]); err != nil {
			return fmt.Errorf("unpack layer %d of %d: %w", i+1, len(layers), err)
		}
		parent = chain
	}
	return finish(ctx)
}

func (v *Viewer) unpackLayer(ctx context.Context, snapshotter, key, parent, chain string, layer ocispec.Descriptor) error {
	ctx = inNamespace(ctx)
	_, err := v.snapshots.Stat(ctx, &snapshotsapi.StatSnapshotRequest{Snapshotter: snapshotter, Key: chain})
	if err == nil || status.Code(err) != codes.NotFound {
		return err
	}
	var mounts []*types.Mount
	prepared, err := v.snapshots.Prepare(ctx, &snapshotsapi.PrepareSnapshotRequest{Snapshotter: snapshotter, Key: key, Parent: parent})
	if mounts = prepared.GetMounts(); status.Code(err) == codes.AlreadyExists {
		var found *snapshotsapi.MountsResponse
		found, err = v.snapshots.Mounts(ctx, &snapshotsapi.MountsRequest{Snapshotter: snapshotter, Key: key})
		mounts = found.GetMounts()
	}
	if err != nil {
		return err
	}
	if _, err = v.diffs.Apply(ctx, &diffapi.ApplyRequest{Diff: described(layer), Mounts: mounts}); err == nil {
		_, err = v.snapshots.Commit(ctx, &snapshotsapi.CommitSnapshotRequest{Snapshotter: snapshotter, Name: chain, Key: key})
		if status.Code(err) == codes.AlreadyExists {
			err = nil // somebody else was faster
		}
	}
	if err != nil {
		_, dropped := v.snapshots.Remove(ctx, &snapshotsapi.RemoveSnapshotRequest{Snapshotter: snapshotter, Key: key})
		return errors.Join(err, dropped)
	}
	return nil
}

func described(d ocispec.Descriptor) *types.Descriptor {
	return &types.Descriptor{MediaType: d.MediaType, Digest: d.Digest.String(), Size: d.Size}
}

// layers are an image's layers, lowest first, and the digests of what is in
// them.
func (v *Viewer) layers(ctx context.Context, image string) ([]ocispec.Descriptor, []digest.Digest, error) {
	found, err := v.images.Get(inNamespace(ctx), &imagesapi.GetImageRequest{Name: image})
	if err != nil {
		return nil, nil, fmt.Errorf("image %s: %w", image, err)
	}
	target := found.GetImage().GetTarget()
	manifest, err := v.manifest(ctx, target.GetDigest())
	if err != nil {
		return nil, nil, err
	}
	var config ocispec.Image
	if err := v.document(ctx, manifest.Config.Digest.String(), &config); err != nil {
		return nil, nil, err
	}
	ids := config.RootFS.DiffIDs
	if len(ids) != len(manifest.Layers) || len(ids) == 0 || len(ids) > maxLayers {
		return nil, nil, fmt.Errorf("image %s names %d layers and %d of their contents: 1 to %d of each are wanted, as many of both", image, len(manifest.Layers), len(ids), maxLayers)
	}
	return manifest.Layers, ids, nil
}

// manifest reads the one for this machine, which may stand in an index.
func (v *Viewer) manifest(ctx context.Context, ref string) (*ocispec.Manifest, error) {
	var either struct {
		ocispec.Manifest
		Manifests []ocispec.Descriptor `json:"manifests"`
	}
	if err := v.document(ctx, ref, &either); err != nil {
		return nil, err
	}
	if len(either.Manifests) == 0 {
		return &either.Manifest, nil
	}
	for _, d := range either.Manifests {
		if p := d.Platform; p == nil || p.OS == runtime.GOOS && p.Architecture == runtime.GOARCH {
			var m ocispec.Manifest
			return &m, v.document(ctx, d.Digest.String(), &m)
		}
	}
	return nil, fmt.Errorf("the image's index %s has none for %s/%s", ref, runtime.GOOS, runtime.GOARCH)
}

// document reads a JSON document of containerd's content store.
func (v *Viewer) document(ctx context.Context, ref string, into any) error {
	stream, err := v.content.Read(inNamespace(ctx), &contentapi.ReadContentRequest{Digest: ref})
	if err != nil {
		return fmt.Errorf("read %s: %w", ref, err)
	}
	var data []byte
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", ref, err)
		}
		if data = append(data, part.GetData()...); len(data) > maxDocument {
			return fmt.Errorf("%s has more than %d bytes", ref, maxDocument)
		}
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("decode %s: %w", ref, err)
	}
	return nil
}
