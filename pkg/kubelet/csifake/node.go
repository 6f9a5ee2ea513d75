package csifake

import (
	"context"
	"os"
	"path/filepath"
	"slices"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// VolumePath is the folder, or the file, that a handle stands for.
func (d *Driver) VolumePath(handle string) string {
	return filepath.Join(d.cfg.Dir, "volumes", filepath.Base(handle))
}

// NodeGetInfo implements CSI.
func (d *Driver) NodeGetInfo(context.Context, *spec.NodeGetInfoRequest) (*spec.NodeGetInfoResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	reply := &spec.NodeGetInfoResponse{NodeId: d.cfg.NodeID, MaxVolumesPerNode: d.max}
	if d.cfg.Topology != nil {
		reply.AccessibleTopology = &spec.Topology{Segments: d.cfg.Topology}
	}
	return reply, nil
}

// NodeGetCapabilities implements CSI.
func (d *Driver) NodeGetCapabilities(context.Context, *spec.NodeGetCapabilitiesRequest) (*spec.NodeGetCapabilitiesResponse, error) {
	reply := &spec.NodeGetCapabilitiesResponse{}
	for _, c := range d.cfg.Capabilities {
		reply.Capabilities = append(reply.Capabilities, &spec.NodeServiceCapability{
			Type: &spec.NodeServiceCapability_Rpc{Rpc: &spec.NodeServiceCapability_RPC{Type: c}},
		})
	}
	return reply, nil
}

// NodeStageVolume implements CSI.
func (d *Driver) NodeStageVolume(_ context.Context, r *spec.NodeStageVolumeRequest) (*spec.NodeStageVolumeResponse, error) {
	if r.GetVolumeCapability().GetBlock() != nil {
		return &spec.NodeStageVolumeResponse{}, d.makeFile(r.GetVolumeId())
	}
	return &spec.NodeStageVolumeResponse{}, d.bind(r.GetVolumeId(), r.GetStagingTargetPath())
}

// NodeUnstageVolume implements CSI.
func (d *Driver) NodeUnstageVolume(_ context.Context, r *spec.NodeUnstageVolumeRequest) (*spec.NodeUnstageVolumeResponse, error) {
	return &spec.NodeUnstageVolumeResponse{}, release(r.GetStagingTargetPath(), false)
}

// NodePublishVolume implements CSI. A driver that stages refuses a volume that
// is not staged.
func (d *Driver) NodePublishVolume(_ context.Context, r *spec.NodePublishVolumeRequest) (*spec.NodePublishVolumeResponse, error) {
	if r.GetVolumeCapability().GetBlock() != nil {
		return &spec.NodePublishVolumeResponse{}, d.bindFile(r.GetVolumeId(), r.GetTargetPath())
	}
	if slices.Contains(d.cfg.Capabilities, spec.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME) && r.GetStagingTargetPath() != "" && !isMount(r.GetStagingTargetPath()) {
		return nil, status.Error(codes.FailedPrecondition, "the volume is not staged")
	}
	if err := d.bind(r.GetVolumeId(), r.GetTargetPath()); err != nil {
		return nil, err
	}
	if r.GetReadonly() {
		if err := unix.Mount("", r.GetTargetPath(), "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
	}
	return &spec.NodePublishVolumeResponse{}, nil
}

// NodeUnpublishVolume implements CSI.
func (d *Driver) NodeUnpublishVolume(_ context.Context, r *spec.NodeUnpublishVolumeRequest) (*spec.NodeUnpublishVolumeResponse, error) {
	return &spec.NodeUnpublishVolumeResponse{}, release(r.GetTargetPath(), true)
}

// NodeExpandVolume implements CSI.
func (d *Driver) NodeExpandVolume(_ context.Context, r *spec.NodeExpandVolumeRequest) (*spec.NodeExpandVolumeResponse, error) {
	return &spec.NodeExpandVolumeResponse{CapacityBytes: r.GetCapacityRange().GetRequiredBytes()}, nil
}

// NodeGetVolumeStats implements CSI: every volume is half full.
func (d *Driver) NodeGetVolumeStats(context.Context, *spec.NodeGetVolumeStatsRequest) (*spec.NodeGetVolumeStatsResponse, error) {
	return &spec.NodeGetVolumeStatsResponse{Usage: []*spec.VolumeUsage{
		{Unit: spec.VolumeUsage_BYTES, Total: 1 << 30, Used: 1 << 29, Available: 1 << 29},
		{Unit: spec.VolumeUsage_INODES, Total: 1000, Used: 500, Available: 500},
	}}, nil
}

// bind mounts the volume's folder at the path, which it makes.
func (d *Driver) bind(handle, path string) error {
	source := d.VolumePath(handle)
	for _, dir := range []string{source, path} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return status.Error(codes.Internal, err.Error())
		}
	}
	if isMount(path) {
		return nil
	}
	if err := unix.Mount(source, path, "", unix.MS_BIND, ""); err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	return nil
}

func (d *Driver) makeFile(handle string) error {
	source := d.VolumePath(handle)
	if err := os.MkdirAll(filepath.Dir(source), 0o755); err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	f, err := os.OpenFile(source, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	return f.Close()
}

func (d *Driver) bindFile(handle, path string) error {
	if err := d.makeFile(handle); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	if err := f.Close(); err != nil || isMount(path) {
		return err
	}
	if err := unix.Mount(d.VolumePath(handle), path, "", unix.MS_BIND, ""); err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	return nil
}

// release unmounts what is mounted at the path, and removes it if it is the
// driver's to remove.
func release(path string, remove bool) error {
	if isMount(path) {
		if err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW); err != nil {
			return status.Error(codes.Internal, err.Error())
		}
	}
	if remove {
		if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
			return status.Error(codes.Internal, err.Error())
		}
	}
	return nil
}

func isMount(path string) bool {
	var stat unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, 0, &stat)
	return err == nil && stat.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}
