package resource

import (
	corev1 "k8s.io/api/core/v1"
)

func defaultVolume(v *corev1.Volume) {
	if v.VolumeSource == (corev1.VolumeSource{}) {
		v.EmptyDir = &corev1.EmptyDirVolumeSource{}
	}
	s := &v.VolumeSource
	switch {
	case s.HostPath != nil:
		if s.HostPath.Type == nil {
			s.HostPath.Type = new(corev1.HostPathUnset)
		}
	case s.Secret != nil:
		defaultMode(&s.Secret.DefaultMode, corev1.SecretVolumeSourceDefaultMode)
	case s.ConfigMap != nil:
		defaultMode(&s.ConfigMap.DefaultMode, corev1.ConfigMapVolumeSourceDefaultMode)
	case s.DownwardAPI != nil:
		defaultMode(&s.DownwardAPI.DefaultMode, corev1.DownwardAPIVolumeSourceDefaultMode)
		defaultDownwardItems(s.DownwardAPI.Items)
	case s.Projected != nil:
		defaultProjected(s.Projected)
	case s.Ephemeral != nil:
		if s.Ephemeral.VolumeClaimTemplate != nil {
			defaultClaimSpec(&s.Ephemeral.VolumeClaimTemplate.Spec)
		}
	case s.Image != nil:
		if s.Image.PullPolicy == "" {
			s.Image.PullPolicy = pullPolicyFor(s.Image.Reference)
		}
	default:
		defaultLegacyVolume(s)
	}
}

func defaultMode(mode **int32, value int32) {
	if *mode == nil {
		*mode = &value
	}
}

func defaultDownwardItems(items []corev1.DownwardAPIVolumeFile) {
	for i := range items {
		defaultFieldRef(items[i].FieldRef)
	}
}

func defaultProjected(p *corev1.ProjectedVolumeSource) {
	defaultMode(&p.DefaultMode, corev1.ProjectedVolumeSourceDefaultMode)
	for i := range p.Sources {
		if api := p.Sources[i].DownwardAPI; api != nil {
			defaultDownwardItems(api.Items)
		}
		if token := p.Sources[i].ServiceAccountToken; token != nil && token.ExpirationSeconds == nil {
			token.ExpirationSeconds = new(int64(3600))
		}
		if c := p.Sources[i].PodCertificate; c != nil {
			defaultCount(&c.MaxExpirationSeconds, defaultPodCertificateSeconds)
		}
	}
}

func defaultClaimSpec(spec *corev1.PersistentVolumeClaimSpec) {
	if spec.VolumeMode == nil {
		spec.VolumeMode = new(corev1.PersistentVolumeFilesystem)
	}
	roundUp(spec.Resources.Limits)
	roundUp(spec.Resources.Requests)
}

// defaultLegacyVolume completes the in-tree network volumes that still have
// defaults of their own.
func defaultLegacyVolume(s *corev1.VolumeSource) {
	switch {
	case s.ISCSI != nil:
		defaultString(&s.ISCSI.ISCSIInterface, "default")
	case s.RBD != nil:
		defaultString(&s.RBD.RBDPool, "rbd")
		defaultString(&s.RBD.RadosUser, "admin")
		defaultString(&s.RBD.Keyring, "/etc/ceph/keyring")
	case s.ScaleIO != nil:
		defaultString(&s.ScaleIO.StorageMode, "ThinProvisioned")
		defaultString(&s.ScaleIO.FSType, "xfs")
	case s.AzureDisk != nil:
		defaultAzureDisk(s.AzureDisk)
	}
}

func defaultAzureDisk(d *corev1.AzureDiskVolumeSource) {
	if d.CachingMode == nil {
		d.CachingMode = new(corev1.AzureDataDiskCachingReadWrite)
	}
	if d.Kind == nil {
		d.Kind = new(corev1.AzureSharedBlobDisk)
	}
	if d.FSType == nil {
		d.FSType = new("ext4")
	}
	if d.ReadOnly == nil {
		d.ReadOnly = new(false)
	}
}

func defaultString(s *string, value string) {
	if *s == "" {
		*s = value
	}
}
