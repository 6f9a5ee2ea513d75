package imageview

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// containerd is as much of one as a Viewer asks. One request comes at a time.
type containerd struct {
	t       *testing.T
	image   string
	target  digest.Digest
	chain   string // of all layers
	blobs   map[digest.Digest][]byte
	layers  []ocispec.Descriptor
	applied []string // digests of layers, in order
	fail    int      // the layer that cannot be unpacked, from 1

	snapshots map[string]string // key or name -> parent
	leases    map[string]bool
	leased    bool // every snapshot was made under a lease
}

// Its services.
type (
	cri struct {
		runtimeapi.UnimplementedImageServiceServer
		*containerd
	}
	imaging struct {
		imagesapi.UnimplementedImagesServer
		*containerd
	}
	reading struct {
		contentapi.UnimplementedContentServer
		*containerd
	}
	unpacker struct {
		diffapi.UnimplementedDiffServer
		*containerd
	}
	leasing struct {
		leasesapi.UnimplementedLeasesServer
		*containerd
	}
	snapshotter struct {
		snapshotsapi.UnimplementedSnapshotsServer
		*containerd
	}
)

// withLayers makes a containerd that has an image's content.
func withLayers(t *testing.T, n int) *containerd {
	c := &containerd{t: t, image: "sha256:0123", blobs: map[digest.Digest][]byte{}, snapshots: map[string]string{}, leases: map[string]bool{}, leased: true}
	var config ocispec.Image
	for i := range n {
		c.layers = append(c.layers, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromString(fmt.Sprint("packed", i)), Size: 1})
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromString(fmt.Sprint("layer", i)))
	}
	c.chain = identity.ChainID(slices.Clone(config.RootFS.DiffIDs)).String()
	manifest := ocispec.Manifest{Config: c.put(config), Layers: c.layers}
	here := c.put(manifest)
	here.Platform = &ocispec.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH}
	other := ocispec.Descriptor{Digest: digest.FromString("elsewhere"), Platform: &ocispec.Platform{OS: "plan9", Architecture: "mips"}}
	c.target = c.put(ocispec.Index{Manifests: []ocispec.Descriptor{other, here}}).Digest
	return c
}

func (c *containerd) put(doc any) ocispec.Descriptor {
	data, err := json.Marshal(doc)
	if err != nil {
		c.t.Fatal(err)
	}
	d := digest.FromBytes(data)
	c.blobs[d] = data
	return ocispec.Descriptor{Digest: d, Size: int64(len(data))}
}

// viewer serves c and returns a Viewer of it; what it mounts is told to shown.
func (c *containerd) viewer(shown func(*types.Mount)) *Viewer {
	c.t.Helper()
	path := filepath.Join(c.t.TempDir(), "containerd.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		c.t.Fatal(err)
	}
	s := grpc.NewServer()
	runtimeapi.RegisterImageServiceServer(s, cri{containerd: c})
	imagesapi.RegisterImagesServer(s, imaging{containerd: c})
	contentapi.RegisterContentServer(s, reading{containerd: c})
	diffapi.RegisterDiffServer(s, unpacker{containerd: c})
	leasesapi.RegisterLeasesServer(s, leasing{containerd: c})
	snapshotsapi.RegisterSnapshotsServer(s, snapshotter{containerd: c})
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	v, err := New(path)
	if err != nil {
		c.t.Fatal(err)
	}
	v.mount = func(mounts []*types.Mount, _ string) error {
		shown(mounts[0])
		return nil
	}
	c.t.Cleanup(func() {
		_ = v.Close()
		s.Stop()
		<-ended
	})
	return v
}

func (c cri) ImageStatus(_ context.Context, r *runtimeapi.ImageStatusRequest) (*runtimeapi.ImageStatusResponse, error) {
	if r.GetImage().GetImage() != c.image {
		return &runtimeapi.ImageStatusResponse{}, nil
	}
	return &runtimeapi.ImageStatusResponse{Image: &runtimeapi.Image{Id: c.image}, Info: map[string]string{"info": `{"chainID":"` + c.chain + `"}`}}, nil
}

func (c imaging) Get(ctx context.Context, r *imagesapi.GetImageRequest) (*imagesapi.GetImageResponse, error) {
	c.wantNamespace(ctx)
	return &imagesapi.GetImageResponse{Image: &imagesapi.Image{Name: r.Name, Target: &types.Descriptor{Digest: c.target.String()}}}, nil
}

func (c reading) Read(r *contentapi.ReadContentRequest, to contentapi.Content_ReadServer) error {
	data, ok := c.blobs[digest.Digest(r.Digest)]
	if !ok {
		return status.Error(codes.NotFound, r.Digest)
	}
	for part := range slices.Chunk(data, 100) {
		if err := to.Send(&contentapi.ReadContentResponse{Data: part}); err != nil {
			return err
		}
	}
	return nil
}

func (c unpacker) Apply(_ context.Context, r *diffapi.ApplyRequest) (*diffapi.ApplyResponse, error) {
	if len(c.applied)+1 == c.fail {
		return nil, status.Error(codes.Internal, "the disk is full")
	}
	c.applied = append(c.applied, r.GetDiff().GetDigest())
	return &diffapi.ApplyResponse{}, nil
}

func (l leasing) Create(_ context.Context, r *leasesapi.CreateRequest) (*leasesapi.CreateResponse, error) {
	if l.leases[r.ID] {
		return nil, status.Error(codes.AlreadyExists, r.ID)
	}
	l.leases[r.ID] = true
	return &leasesapi.CreateResponse{Lease: &leasesapi.Lease{ID: r.ID}}, nil
}

func (l leasing) Delete(_ context.Context, r *leasesapi.DeleteRequest) (*emptypb.Empty, error) {
	delete(l.leases, r.ID)
	return &emptypb.Empty{}, nil
}

func (s snapshotter) known(name string) error {
	if name != overlay {
		return status.Error(codes.InvalidArgument, "snapshotter not loaded: "+name)
	}
	return nil
}

const overlay = "overlayfs"

func (s snapshotter) make(ctx context.Context, name, key, parent string) ([]*types.Mount, error) {
	s.wantNamespace(ctx)
	if err := s.known(name); err != nil {
		return nil, err
	}
	if _, ok := s.snapshots[parent]; !ok && parent != "" {
		return nil, status.Error(codes.NotFound, "parent snapshot "+parent+" does not exist")
	}
	if _, ok := s.snapshots[key]; ok {
		return nil, status.Error(codes.AlreadyExists, key)
	}
	s.snapshots[key] = parent
	return []*types.Mount{{Type: "overlay", Source: key}}, nil
}

func (s snapshotter) View(ctx context.Context, r *snapshotsapi.ViewSnapshotRequest) (*snapshotsapi.ViewSnapshotResponse, error) {
	if r.Labels[rooted] == "" {
		return nil, status.Error(codes.InvalidArgument, "the view would be collected")
	}
	mounts, err := s.make(ctx, r.Snapshotter, r.Key, r.Parent)
	return &snapshotsapi.ViewSnapshotResponse{Mounts: mounts}, err
}

func (s snapshotter) Prepare(ctx context.Context, r *snapshotsapi.PrepareSnapshotRequest) (*snapshotsapi.PrepareSnapshotResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	lease := strings.Join(md.Get("containerd-lease"), "")
	s.leased = s.leased && s.leases[lease]
	mounts, err := s.make(ctx, r.Snapshotter, r.Key, r.Parent)
	return &snapshotsapi.PrepareSnapshotResponse{Mounts: mounts}, err
}

func (s snapshotter) Mounts(_ context.Context, r *snapshotsapi.MountsRequest) (*snapshotsapi.MountsResponse, error) {
	return &snapshotsapi.MountsResponse{Mounts: []*types.Mount{{Type: "overlay", Source: r.Key}}}, nil
}

func (s snapshotter) Stat(_ context.Context, r *snapshotsapi.StatSnapshotRequest) (*snapshotsapi.StatSnapshotResponse, error) {
	if _, ok := s.snapshots[r.Key]; !ok {
		return nil, status.Error(codes.NotFound, r.Key)
	}
	return &snapshotsapi.StatSnapshotResponse{}, nil
}

func (s snapshotter) Commit(_ context.Context, r *snapshotsapi.CommitSnapshotRequest) (*emptypb.Empty, error) {
	s.snapshots[r.Name] = s.snapshots[r.Key]
	delete(s.snapshots, r.Key)
	return &emptypb.Empty{}, nil
}

func (s snapshotter) Remove(_ context.Context, r *snapshotsapi.RemoveSnapshotRequest) (*emptypb.Empty, error) {
	if err := s.known(r.Snapshotter); err != nil {
		return nil, err
	}
	if _, ok := s.snapshots[r.Key]; !ok {
		return nil, status.Error(codes.NotFound, r.Key)
	}
	delete(s.snapshots, r.Key)
	return &emptypb.Empty{}, nil
}

func (c *containerd) wantNamespace(ctx context.Context) {
	if md, _ := metadata.FromIncomingContext(ctx); !slices.Contains(md.Get("containerd-namespace"), namespace) {
		c.t.Errorf("a request names the namespace %q", md.Get("containerd-namespace"))
	}
}

// An image that was loaded is unpacked once; one that has been is only shown.
func TestShow(t *testing.T) {
	c := withLayers(t, 3)
	var shown []string
	v := c.viewer(func(m *types.Mount) { shown = append(shown, m.GetSource()) })
	for _, name := range []string{"a", "a", "b"} { // "a" again: the agent was restarted
		if err := v.Show(t.Context(), name, c.image, "/nowhere"); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(shown, []string{"a", "a", "b"}) {
		t.Errorf("shown %q", shown)
	}
	want := []string{c.layers[0].Digest.String(), c.layers[1].Digest.String(), c.layers[2].Digest.String()}
	if !slices.Equal(c.applied, want) {
		t.Errorf("unpacked %q, want each layer once: %q", c.applied, want)
	}
	if c.snapshots["a"] != c.chain || c.snapshots["b"] != c.chain || len(c.snapshots) != 5 {
		t.Errorf("snapshots %v", c.snapshots)
	}
	if len(c.leases) > 0 || !c.leased {
		t.Errorf("leases %v are left, and all was made under one: %v", c.leases, c.leased)
	}
	for range 2 {
		if err := v.Drop(t.Context(), "a"); err != nil {
			t.Errorf("drop: %v", err)
		}
	}
	if _, held := c.snapshots["a"]; held || len(c.snapshots) != 4 {
		t.Errorf("snapshots %v after the view was dropped", c.snapshots)
	}
}

// What was begun is taken back, and the next attempt goes on.
func TestShowAfterAFailure(t *testing.T) {
	c := withLayers(t, 3)
	c.fail = 2
	shown := 0
	v := c.viewer(func(*types.Mount) { shown++ })
	if err := v.Show(t.Context(), "a", c.image, "/nowhere"); err == nil || !strings.Contains(err.Error(), "unpack layer 2 of 3") {
		t.Errorf("the disk is full: %v", err)
	}
	if len(c.snapshots) != 1 || len(c.leases) != 0 || shown != 0 {
		t.Errorf("left: snapshots %v, leases %v", c.snapshots, c.leases)
	}
	c.fail = 0
	if err := v.Show(t.Context(), "a", c.image, "/nowhere"); err != nil || shown != 1 {
		t.Errorf("then: %v", err)
	}
}

func TestShowWhatIsNotThere(t *testing.T) {
	c := withLayers(t, 1)
	v := c.viewer(func(*types.Mount) {})
	if err := v.Show(t.Context(), "a", "sha256:4567", "/nowhere"); err == nil || !strings.Contains(err.Error(), "is not on the node") {
		t.Errorf("an image that is not there: %v", err)
	}
	if _, err := chainOf(map[string]string{"info": `{"labels":{}}`}); err == nil || !strings.Contains(err.Error(), "need containerd") {
		t.Errorf("a runtime that is not containerd: %v", err)
	}
	c.put(nil)
	c.blobs[c.target] = []byte(`{"manifests":[{"digest":"sha256:1","platform":{"os":"plan9","architecture":"mips"}}]}`)
	if err := v.Show(t.Context(), "a", c.image, "/nowhere"); err == nil || !strings.Contains(err.Error(), "has none for") {
		t.Errorf("an image of another machine: %v", err)
	}
}
