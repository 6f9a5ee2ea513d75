package server

import "time"

// VolumeStats is how full a volume is, by the names that clients of
// /stats/summary know. What is not known is nil.
type VolumeStats struct {
	Time           time.Time `json:"time"`
	AvailableBytes *uint64   `json:"availableBytes,omitempty"`
	CapacityBytes  *uint64   `json:"capacityBytes,omitempty"`
	UsedBytes      *uint64   `json:"usedBytes,omitempty"`
	InodesFree     *uint64   `json:"inodesFree,omitempty"`
	Inodes         *uint64   `json:"inodes,omitempty"`
	InodesUsed     *uint64   `json:"inodesUsed,omitempty"`
	// Name is the volume's in the pod.
	Name string `json:"name,omitempty"`
	// PVCRef names the claim of a claimed volume.
	PVCRef *PVCReference `json:"pvcRef,omitempty"`
}

// PVCReference names a claim.
type PVCReference struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
}

// addVolumes adds what is known of the pods' volumes.
func (s *Server) addVolumes(pods []podStats) {
	if s.cfg.VolumeStats == nil {
		return
	}
	for i := range pods {
		pods[i].Volumes = s.cfg.VolumeStats(pods[i].PodRef.Namespace, pods[i].PodRef.UID)
	}
}
