package image

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"time"

	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	typesapi "github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/core/content"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// loadLease bounds how long blobs of an interrupted load survive containerd's
// garbage collector.
const loadLease = 10 * time.Minute

// maxManifest bounds the manifests read back from a runtime, in bytes.
const maxManifest = 4 << 20

// Load makes ref name img in the runtime. It writes only blobs that are
// missing, and nothing at all when ref names img already. It reports whether
// it changed anything. Layers are unpacked when the first container needs
// them.
func (r *Runtime) Load(ctx context.Context, ref string, img v1.Image) (changed bool, err error) {
	full, err := Reference(ref)
	if err != nil {
		return false, err
	}
	want, err := img.Digest()
	if err != nil {
		return false, fmt.Errorf("load image %s: %w", full, err)
	}
	have, err := r.images.Get(ctx, &imagesapi.GetImageRequest{Name: full})
	if err != nil && status.Code(err) != codes.NotFound {
		return false, fmt.Errorf("load image %s: look it up: %w", full, err)
	}
	if err == nil && have.Image.Target.GetDigest() == want.String() {
		return false, r.waitManaged(ctx, full)
	}
	ctx, release, err := r.lease(ctx)
	if err != nil {
		return false, fmt.Errorf("load image %s: %w", full, err)
	}
	defer release()
	target, err := r.writeImage(ctx, img)
	if err != nil {
		return false, fmt.Errorf("load image %s: %w", full, err)
	}
	if err := r.point(ctx, full, target); err != nil {
		return false, fmt.Errorf("load image %s: %w", full, err)
	}
	return true, r.waitManaged(ctx, full)
}

// Has reports whether ref names the image with this manifest digest.
func (r *Runtime) Has(ctx context.Context, ref, digest string) (bool, error) {
	full, err := Reference(ref)
	if err != nil {
		return false, err
	}
	resp, err := r.images.Get(ctx, &imagesapi.GetImageRequest{Name: full})
	if status.Code(err) == codes.NotFound {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look up image %s: %w", full, err)
	}
	return resp.Image.Target.GetDigest() == digest, nil
}

// lease keeps what the returned context writes from the garbage collector
// until release is called.
func (r *Runtime) lease(ctx context.Context) (context.Context, func(), error) {
	id := "coracle-load-" + rand.Text()
	_, err := r.leases.Create(ctx, &leasesapi.CreateRequest{
		ID:     id,
		Labels: map[string]string{"containerd.io/gc.expire": time.Now().Add(loadLease).UTC().Format(time.RFC3339)},
	})
	if err != nil {
		return nil, nil, fmt.Errorf("take a lease: %w", err)
	}
	release := func() {
		// The lease must go even when the caller has given up.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		// A lease that stays behind expires by itself.
		_, _ = r.leases.Delete(ctx, &leasesapi.DeleteRequest{ID: id})
	}
	return metadata.AppendToOutgoingContext(ctx, "containerd-lease", id), release, nil
}

// writeImage stores layers, config and manifest, children first, and returns
// the manifest's descriptor.
func (r *Runtime) writeImage(ctx context.Context, img v1.Image) (*typesapi.Descriptor, error) {
	layers, err := img.Layers()
	if err != nil {
		return nil, fmt.Errorf("read layers: %w", err)
	}
	labels := map[string]string{}
	for i, l := range layers {
		d, err := r.writeLayer(ctx, l)
		if err != nil {
			return nil, fmt.Errorf("write layer %d: %w", i, err)
		}
		labels[fmt.Sprintf("containerd.io/gc.ref.content.l.%d", i)] = d
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	configDigest := digest.FromBytes(config)
	labels["containerd.io/gc.ref.content.config"] = configDigest.String()
	if err := r.writeBytes(ctx, config, configDigest, nil); err != nil {
		return nil, fmt.Errorf("write config: %w", err)
	}
	manifest, err := img.RawManifest()
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	mediaType, err := img.MediaType()
	if err != nil {
		return nil, fmt.Errorf("read media type: %w", err)
	}
	d := digest.FromBytes(manifest)
	if err := r.writeBytes(ctx, manifest, d, labels); err != nil {
		return nil, fmt.Errorf("write manifest: %w", err)
	}
	return &typesapi.Descriptor{MediaType: string(mediaType), Digest: d.String(), Size: int64(len(manifest))}, nil
}

func (r *Runtime) writeLayer(ctx context.Context, l v1.Layer) (string, error) {
	h, err := l.Digest()
	if err != nil {
		return "", err
	}
	d := digest.Digest(h.String())
	if _, err := r.content.Info(ctx, d); err == nil {
		return d.String(), nil
	}
	size, err := l.Size()
	if err != nil {
		return "", err
	}
	if r.blobs != nil {
		if err := r.blobs.link(l, r.store); err != nil {
			return "", err
		}
	}
	// A blob that lies in the store already is taken without being sent.
	rc, err := l.Compressed()
	if err != nil {
		return "", err
	}
	defer rc.Close()
	return d.String(), r.write(ctx, rc, d, size, nil)
}

func (r *Runtime) writeBytes(ctx context.Context, b []byte, d digest.Digest, labels map[string]string) error {
	return r.write(ctx, bytes.NewReader(b), d, int64(len(b)), labels)
}

func (r *Runtime) write(ctx context.Context, from io.Reader, d digest.Digest, size int64, labels map[string]string) error {
	desc := ocispec.Descriptor{Digest: d, Size: size}
	var opts []content.Opt
	if len(labels) > 0 {
		opts = append(opts, content.WithLabels(labels))
	}
	return content.WriteBlob(ctx, r.content, "coracle-"+d.String(), from, desc, opts...)
}

// point creates or moves the reference.
func (r *Runtime) point(ctx context.Context, ref string, target *typesapi.Descriptor) error {
	record := &imagesapi.Image{Name: ref, Target: target}
	_, err := r.images.Create(ctx, &imagesapi.CreateImageRequest{Image: record})
	if status.Code(err) == codes.AlreadyExists {
		// Without a field mask the whole record is replaced, CRI's label
		// included, which makes CRI look at the image again.
		_, err = r.images.Update(ctx, &imagesapi.UpdateImageRequest{Image: record})
	}
	if err != nil {
		return fmt.Errorf("name the image: %w", err)
	}
	return nil
}

// size adds up what a manifest lists; zero when it cannot be read.
func (r *Runtime) size(ctx context.Context, manifestDigest string) int64 {
	info, err := r.content.Info(ctx, digest.Digest(manifestDigest))
	if err != nil || info.Size > maxManifest {
		return 0
	}
	b, err := content.ReadBlob(ctx, r.content, ocispec.Descriptor{Digest: info.Digest, Size: info.Size})
	if err != nil {
		return 0
	}
	var m struct {
		MediaType types.MediaType
		Config    struct{ Size int64 }
		Layers    []struct{ Size int64 }
	}
	if json.Unmarshal(b, &m) != nil {
		return 0
	}
	total := m.Config.Size
	for _, l := range m.Layers {
		total += l.Size
	}
	return total
}
