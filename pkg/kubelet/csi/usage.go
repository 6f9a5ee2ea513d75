package csi

import (
	"context"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
)

// Usage is how full a volume is. What the driver does not tell is nil.
type Usage struct {
	Bytes, Inodes *Amount
}

// Amount is how much of something there is, in all and of each kind.
type Amount struct {
	Total, Used, Available int64
}

// Usage calls NodeGetVolumeStats for a volume that is published at path.
func (d *Driver) Usage(ctx context.Context, volume, path, staging string) (Usage, error) {
	ctx, cancel := context.WithTimeout(ctx, quickTimeout)
	defer cancel()
	reply, err := d.node.NodeGetVolumeStats(ctx, &spec.NodeGetVolumeStatsRequest{VolumeId: volume, VolumePath: path, StagingTargetPath: staging})
	if err != nil {
		return Usage{}, err
	}
	var u Usage
	for _, each := range reply.GetUsage() {
		amount := &Amount{Total: max(each.GetTotal(), 0), Used: max(each.GetUsed(), 0), Available: max(each.GetAvailable(), 0)}
		switch each.GetUnit() {
		case spec.VolumeUsage_BYTES:
			u.Bytes = amount
		case spec.VolumeUsage_INODES:
			u.Inodes = amount
		}
	}
	return u, nil
}
