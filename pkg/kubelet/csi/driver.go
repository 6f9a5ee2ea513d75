package csi

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

const (
	// callTimeout bounds the calls that mount, unmount or grow, and quickTimeout
	// those that only ask.
	callTimeout  = 2 * time.Minute
	quickTimeout = 15 * time.Second
	// maxMessage bounds one answer, in bytes.
	maxMessage = 4 << 20
)

// Driver is the node service of one driver. Errors are those of gRPC as the
// driver gave them.
type Driver struct {
	name string
	conn *grpc.ClientConn
	node spec.NodeClient
}

// dial prepares the calls to a driver. The connection is made by the first call
// and again whenever it breaks.
func dial(name, endpoint string) (*Driver, error) {
	conn, err := grpc.NewClient("unix:"+endpoint,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second},
			MinConnectTimeout: 3 * time.Second,
		}))
	if err != nil {
		return nil, fmt.Errorf("csi driver %s: %w", name, err)
	}
	return &Driver{name: name, conn: conn, node: spec.NewNodeClient(conn)}, nil
}

// Capabilities is what a driver's node service can do.
type Capabilities struct {
	Stage        bool // volumes are staged once per node before they are published
	Expand       bool // NodeExpandVolume
	Stats        bool // NodeGetVolumeStats
	MountGroup   bool // the driver itself gives a volume to a group
	SingleWriter bool // the driver tells one writing pod of a node from several
}

// Capabilities asks what the driver can do.
func (d *Driver) Capabilities(ctx context.Context) (Capabilities, error) {
	ctx, cancel := context.WithTimeout(ctx, quickTimeout)
	defer cancel()
	reply, err := d.node.NodeGetCapabilities(ctx, &spec.NodeGetCapabilitiesRequest{})
	if err != nil {
		return Capabilities{}, err
	}
	var c Capabilities
	for _, each := range reply.GetCapabilities() {
		switch each.GetRpc().GetType() {
		case spec.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME:
			c.Stage = true
		case spec.NodeServiceCapability_RPC_EXPAND_VOLUME:
			c.Expand = true
		case spec.NodeServiceCapability_RPC_GET_VOLUME_STATS:
			c.Stats = true
		case spec.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP:
			c.MountGroup = true
		case spec.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER:
			c.SingleWriter = true
		}
	}
	return c, nil
}

// Info is what a driver says of its node.
type Info struct {
	// NodeID is the driver's name for the node.
	NodeID string
	// MaxVolumes is how many volumes the node may have, 0 if the driver sets no limit.
	MaxVolumes int64
	// Topology are the node's places as the driver sees them: labels.
	Topology map[string]string
}

func (d *Driver) info(ctx context.Context) (Info, error) {
	ctx, cancel := context.WithTimeout(ctx, quickTimeout)
	defer cancel()
	reply, err := d.node.NodeGetInfo(ctx, &spec.NodeGetInfoRequest{})
	if err != nil {
		return Info{}, err
	}
	if reply.GetNodeId() == "" {
		return Info{}, errors.New("the driver gave the node an empty id")
	}
	return Info{
		NodeID: reply.GetNodeId(), MaxVolumes: reply.GetMaxVolumesPerNode(),
		Topology: maps.Clone(reply.GetAccessibleTopology().GetSegments()),
	}, nil
}

// Stage is the set-up of a volume for the whole node.
type Stage struct {
	Volume         string // the driver's handle
	Path           string // where to mount it; made by the caller
	PublishContext map[string]string
	VolumeContext  map[string]string
	Secrets        map[string]string
	Access         Access
}

// Stage calls NodeStageVolume.
func (d *Driver) Stage(ctx context.Context, s Stage) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := d.node.NodeStageVolume(ctx, &spec.NodeStageVolumeRequest{
		VolumeId: s.Volume, StagingTargetPath: s.Path, PublishContext: s.PublishContext, VolumeContext: s.VolumeContext,
		Secrets: s.Secrets, VolumeCapability: s.Access.capability(),
	})
	return err
}

// Unstage calls NodeUnstageVolume.
func (d *Driver) Unstage(ctx context.Context, volume, path string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := d.node.NodeUnstageVolume(ctx, &spec.NodeUnstageVolumeRequest{VolumeId: volume, StagingTargetPath: path})
	return err
}

// Publish is the set-up of a volume for one pod.
type Publish struct {
	Volume         string // the driver's handle
	StagingPath    string // where it was staged, empty if it was not
	Path           string // where to mount it; its folder is made by the caller
	ReadOnly       bool
	PublishContext map[string]string
	VolumeContext  map[string]string
	Secrets        map[string]string
	Access         Access
}

// Publish calls NodePublishVolume.
func (d *Driver) Publish(ctx context.Context, p Publish) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := d.node.NodePublishVolume(ctx, &spec.NodePublishVolumeRequest{
		VolumeId: p.Volume, StagingTargetPath: p.StagingPath, TargetPath: p.Path, Readonly: p.ReadOnly,
		PublishContext: p.PublishContext, VolumeContext: p.VolumeContext, Secrets: p.Secrets, VolumeCapability: p.Access.capability(),
	})
	return err
}

// Unpublish calls NodeUnpublishVolume.
func (d *Driver) Unpublish(ctx context.Context, volume, path string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := d.node.NodeUnpublishVolume(ctx, &spec.NodeUnpublishVolumeRequest{VolumeId: volume, TargetPath: path})
	return err
}

// Expand is the growth of a volume on the node.
type Expand struct {
	Volume      string // the driver's handle
	Path        string // where it is published, or staged
	StagingPath string
	Bytes       int64 // the size that it has now where it is stored
	Secrets     map[string]string
	Access      Access
}

// Expand calls NodeExpandVolume.
func (d *Driver) Expand(ctx context.Context, e Expand) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := d.node.NodeExpandVolume(ctx, &spec.NodeExpandVolumeRequest{
		VolumeId: e.Volume, VolumePath: e.Path, StagingTargetPath: e.StagingPath, Secrets: e.Secrets,
		CapacityRange: &spec.CapacityRange{RequiredBytes: e.Bytes}, VolumeCapability: e.Access.capability(),
	})
	return err
}

// IsFinal reports whether the driver's answer means that it does no more for the
// call. After any other error it may still be at it.
func IsFinal(err error) bool {
	st, ok := status.FromError(err)
	if !ok {
		return false
	}
	switch st.Code() {
	case codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.ResourceExhausted, codes.Aborted:
		return false
	}
	return true
}
