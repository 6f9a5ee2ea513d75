package node

import (
	corev1 "k8s.io/api/core/v1"
)

// PodFields are the fields of a pod that SetPod reads.
func PodFields() []string {
	return []string{
		"metadata.name", "metadata.namespace", "metadata.annotations",
		"spec.nodeName", "spec.serviceAccountName", "spec.imagePullSecrets", "spec.volumes", "spec.resourceClaims",
		"spec.initContainers.env.valueFrom", "spec.initContainers.envFrom",
		"spec.containers.env.valueFrom", "spec.containers.envFrom",
		"spec.ephemeralContainers",
		"status.resourceClaimStatuses", "status.extendedResourceClaimStatus",
	}
}

// podRefs returns what a node may read because this pod is bound to it. A
// mirror pod gives nothing: the node itself made it.
func podRefs(p *corev1.Pod) []ref {
	if isMirror(p) {
		return nil
	}
	var refs []ref
	seen := map[ref]bool{}
	add := func(k kind, name string) {
		r := ref{k, p.Namespace, name}
		if name != "" && !seen[r] {
			seen[r] = true
			refs = append(refs, r)
		}
	}
	add(serviceAccount, p.Spec.ServiceAccountName)
	for _, s := range p.Spec.ImagePullSecrets {
		add(secret, s.Name)
	}
	eachContainer(&p.Spec, func(c *corev1.Container) { containerRefs(c, add) })
	for i := range p.Spec.Volumes {
		volumeRefs(&p.Spec.Volumes[i], p.Name, add)
	}
	claimRefs(p, add)
	return refs
}

// Secrets returns the secrets that a pod refers to: those that its images are
// pulled with, and all others. Every policy on secrets of pods asks here, so
// that none overlooks a place.
func Secrets(p *corev1.Pod) (pull, others []string) {
	for _, s := range p.Spec.ImagePullSecrets {
		pull = append(pull, s.Name)
	}
	rest := corev1.Pod{Spec: p.Spec}
	rest.Spec.ImagePullSecrets = nil
	for _, r := range podRefs(&rest) {
		if r.kind == secret {
			others = append(others, r.name)
		}
	}
	return pull, others
}

func isMirror(p *corev1.Pod) bool {
	_, ok := p.Annotations[corev1.MirrorPodAnnotationKey]
	return ok
}

// eachContainer visits init, app and ephemeral containers.
func eachContainer(s *corev1.PodSpec, f func(*corev1.Container)) {
	for i := range s.InitContainers {
		f(&s.InitContainers[i])
	}
	for i := range s.Containers {
		f(&s.Containers[i])
	}
	for i := range s.EphemeralContainers {
		c := corev1.Container(s.EphemeralContainers[i].EphemeralContainerCommon)
		f(&c)
	}
}

func containerRefs(c *corev1.Container, add func(kind, string)) {
	for i := range c.EnvFrom {
		if s := c.EnvFrom[i].SecretRef; s != nil {
			add(secret, s.Name)
		}
		if m := c.EnvFrom[i].ConfigMapRef; m != nil {
			add(configMap, m.Name)
		}
	}
	for i := range c.Env {
		from := c.Env[i].ValueFrom
		if from == nil {
			continue
		}
		if from.SecretKeyRef != nil {
			add(secret, from.SecretKeyRef.Name)
		}
		if from.ConfigMapKeyRef != nil {
			add(configMap, from.ConfigMapKeyRef.Name)
		}
	}
}

func volumeRefs(v *corev1.Volume, podName string, add func(kind, string)) {
	switch {
	case v.Secret != nil:
		add(secret, v.Secret.SecretName)
	case v.ConfigMap != nil:
		add(configMap, v.ConfigMap.Name)
	case v.PersistentVolumeClaim != nil:
		add(persistentVolumeClaim, v.PersistentVolumeClaim.ClaimName)
	case v.Ephemeral != nil:
		add(persistentVolumeClaim, podName+"-"+v.Name)
	case v.Projected != nil:
		for i := range v.Projected.Sources {
			if s := v.Projected.Sources[i].Secret; s != nil {
				add(secret, s.Name)
			}
			if m := v.Projected.Sources[i].ConfigMap; m != nil {
				add(configMap, m.Name)
			}
		}
	case v.AzureFile != nil:
		add(secret, v.AzureFile.SecretName)
	}
	for _, s := range driverSecrets(v) {
		if s != nil {
			add(secret, s.Name)
		}
	}
}

// driverSecrets are the secrets that volume drivers of a pod's own volumes ask
// the node for.
func driverSecrets(v *corev1.Volume) []*corev1.LocalObjectReference {
	switch {
	case v.CephFS != nil:
		return []*corev1.LocalObjectReference{v.CephFS.SecretRef}
	case v.Cinder != nil:
		return []*corev1.LocalObjectReference{v.Cinder.SecretRef}
	case v.FlexVolume != nil:
		return []*corev1.LocalObjectReference{v.FlexVolume.SecretRef}
	case v.RBD != nil:
		return []*corev1.LocalObjectReference{v.RBD.SecretRef}
	case v.ScaleIO != nil:
		return []*corev1.LocalObjectReference{v.ScaleIO.SecretRef}
	case v.ISCSI != nil:
		return []*corev1.LocalObjectReference{v.ISCSI.SecretRef}
	case v.StorageOS != nil:
		return []*corev1.LocalObjectReference{v.StorageOS.SecretRef}
	case v.CSI != nil:
		return []*corev1.LocalObjectReference{v.CSI.NodePublishSecretRef}
	default:
		return nil
	}
}

// claimRefs adds the pod's resource claims: those named in the spec, and those
// that were made from its templates, which the status tells.
func claimRefs(p *corev1.Pod, add func(kind, string)) {
	for i := range p.Spec.ResourceClaims {
		c := &p.Spec.ResourceClaims[i]
		if c.ResourceClaimName != nil {
			add(resourceClaim, *c.ResourceClaimName)
			continue
		}
		for j := range p.Status.ResourceClaimStatuses {
			s := &p.Status.ResourceClaimStatuses[j]
			if s.Name == c.Name && s.ResourceClaimName != nil {
				add(resourceClaim, *s.ResourceClaimName)
			}
		}
	}
	if e := p.Status.ExtendedResourceClaimStatus; e != nil {
		add(resourceClaim, e.ResourceClaimName)
	}
}

// volumeSecrets are the secrets a node needs to use the volume; those that
// only controllers need are not among them. Without a namespace they are in
// the claim's.
func volumeSecrets(pv *corev1.PersistentVolume) []ref {
	var refs []ref
	add := func(namespace, name string) {
		if namespace == "" {
			namespace = pv.Spec.ClaimRef.Namespace
		}
		if name != "" {
			refs = append(refs, ref{secret, namespace, name})
		}
	}
	v := &pv.Spec.PersistentVolumeSource
	var named []*corev1.SecretReference
	switch {
	case v.CSI != nil:
		named = []*corev1.SecretReference{v.CSI.NodeStageSecretRef, v.CSI.NodePublishSecretRef, v.CSI.NodeExpandSecretRef}
	case v.CephFS != nil:
		named = []*corev1.SecretReference{v.CephFS.SecretRef}
	case v.Cinder != nil:
		named = []*corev1.SecretReference{v.Cinder.SecretRef}
	case v.FlexVolume != nil:
		named = []*corev1.SecretReference{v.FlexVolume.SecretRef}
	case v.RBD != nil:
		named = []*corev1.SecretReference{v.RBD.SecretRef}
	case v.ScaleIO != nil:
		named = []*corev1.SecretReference{v.ScaleIO.SecretRef}
	case v.ISCSI != nil:
		named = []*corev1.SecretReference{v.ISCSI.SecretRef}
	case v.StorageOS != nil && v.StorageOS.SecretRef != nil:
		add(v.StorageOS.SecretRef.Namespace, v.StorageOS.SecretRef.Name)
	case v.AzureFile != nil:
		namespace := ""
		if v.AzureFile.SecretNamespace != nil {
			namespace = *v.AzureFile.SecretNamespace
		}
		add(namespace, v.AzureFile.SecretName)
	}
	for _, s := range named {
		if s != nil {
			add(s.Namespace, s.Name)
		}
	}
	return refs
}
