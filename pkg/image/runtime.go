package image

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	versionapi "github.com/containerd/containerd/api/services/version/v1"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/content/proxy"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"
)

const (
	// kubernetesNamespace is the containerd namespace that CRI reads.
	kubernetesNamespace = "k8s.io"
	// managedLabel is set by containerd's CRI plugin on an image record once
	// the plugin knows the image.
	managedLabel = "io.cri-containerd.image"
)

// Runtime is a connection to one containerd's namespace for Kubernetes. It is
// safe for concurrent use. Close it.
type Runtime struct {
	conn    *grpc.ClientConn
	images  imagesapi.ImagesClient
	leases  leasesapi.LeasesClient
	version versionapi.VersionClient
	content content.Store
	// blobs and store are set by LinkLayers; nil and empty send layers.
	blobs *Blobs
	store string
}

// LinkLayers makes later loads put layers straight into containerd's content
// store, a folder that this process sees at the path store (the one that
// containerd's configuration calls root, and in it
// io.containerd.content.v1.content), instead of sending them. It must be on
// the file system of blobs, and is called before the first Load.
func (r *Runtime) LinkLayers(blobs *Blobs, store string) { r.blobs, r.store = blobs, store }

// Connect prepares a connection to the containerd that listens on the Unix
// socket at path. It does not wait for it: see Runtime.Wait.
func Connect(path string) (*Runtime, error) {
	conn, err := grpc.NewClient("unix://"+path,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// A node's containerd is up within a fraction of a second of its
		// start, so the default first delay of a second would dominate.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1.5, MaxDelay: 250 * time.Millisecond},
			MinConnectTimeout: 5 * time.Second,
		}),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return invoke(inNamespace(ctx), method, req, reply, cc, opts...)
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return open(inNamespace(ctx), desc, cc, method, opts...)
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to containerd at %s: %w", path, err)
	}
	return &Runtime{
		conn:    conn,
		images:  imagesapi.NewImagesClient(conn),
		leases:  leasesapi.NewLeasesClient(conn),
		version: versionapi.NewVersionClient(conn),
		content: proxy.NewContentStore(conn),
	}, nil
}

// Close ends the connection.
func (r *Runtime) Close() error { return r.conn.Close() }

// Wait returns when containerd answers, or with ctx's error.
func (r *Runtime) Wait(ctx context.Context) error {
	if _, err := r.version.Version(ctx, &emptypb.Empty{}, grpc.WaitForReady(true)); err != nil {
		return fmt.Errorf("wait for containerd: %w", err)
	}
	return nil
}

// Info is what a runtime says of one image reference.
type Info struct {
	// Ref is the full reference, for example docker.io/library/busybox:latest.
	Ref string
	// Digest is the digest of the manifest or index that Ref names.
	Digest string
	// Size in bytes is that of the config and the layers as stored; zero when
	// the manifest cannot be read.
	Size int64
}

// List returns the runtime's images by reference, without the bare digests
// that CRI keeps beside them.
func (r *Runtime) List(ctx context.Context) ([]Info, error) {
	resp, err := r.images.List(ctx, &imagesapi.ListImagesRequest{})
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	var infos []Info
	for _, im := range resp.Images {
		if strings.HasPrefix(im.Name, "sha256:") || im.Target == nil {
			continue
		}
		infos = append(infos, Info{
			Ref:    im.Name,
			Digest: im.Target.Digest,
			Size:   r.size(ctx, im.Target.Digest),
		})
	}
	sort.Slice(infos, func(i, j int) bool { return infos[i].Ref < infos[j].Ref })
	return infos, nil
}

func inNamespace(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "containerd-namespace", kubernetesNamespace)
}

// waitManaged returns when CRI has taken note of ref, so that a pod started
// after a load finds the image. A containerd without CRI never does; the wait
// therefore has a bound and running out of it is no error.
func (r *Runtime) waitManaged(ctx context.Context, ref string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		resp, err := r.images.Get(ctx, &imagesapi.GetImageRequest{Name: ref})
		if err == nil && resp.Image.Labels[managedLabel] != "" {
			return nil
		}
		select {
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
				return nil
			}
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}
