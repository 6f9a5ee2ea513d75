package csi

import (
	"strconv"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
)

// Access says how a volume is to be used.
type Access struct {
	// Mode is the access mode; ReadWriteOnce if empty.
	Mode corev1.PersistentVolumeAccessMode
	// SingleWriter is set if the driver tells one writing pod of a node from
	// several.
	SingleWriter bool
	// Block asks for a device in place of a file system. FSType, Options and
	// Group are for file systems.
	Block   bool
	FSType  string
	Options []string
	// Group is who shall own the volume, for drivers that see to it; nil leaves
	// that to the agent.
	Group *int64
}

func (a Access) capability() *spec.VolumeCapability {
	c := &spec.VolumeCapability{AccessMode: &spec.VolumeCapability_AccessMode{Mode: a.mode()}}
	if a.Block {
		c.AccessType = &spec.VolumeCapability_Block{Block: &spec.VolumeCapability_BlockVolume{}}
		return c
	}
	mount := &spec.VolumeCapability_MountVolume{FsType: a.FSType, MountFlags: a.Options}
	if a.Group != nil {
		mount.VolumeMountGroup = strconv.FormatInt(*a.Group, 10)
	}
	c.AccessType = &spec.VolumeCapability_Mount{Mount: mount}
	return c
}

func (a Access) mode() spec.VolumeCapability_AccessMode_Mode {
	switch a.Mode {
	case corev1.ReadOnlyMany:
		return spec.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY
	case corev1.ReadWriteMany:
		return spec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER
	case corev1.ReadWriteOncePod:
		if a.SingleWriter {
			return spec.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
		}
		return spec.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
	}
	if a.SingleWriter {
		return spec.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
	}
	return spec.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
}
