package resource

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// mounts checks that a container's mounts and devices name volumes of the pod
// and do not cover each other.
func (c *podChecker) mounts(path *field.Path, ctr *corev1.Container) field.ErrorList {
	var errs field.ErrorList
	places := map[string]bool{}
	for i := range ctr.VolumeMounts {
		m := &ctr.VolumeMounts[i]
		p := path.Child("volumeMounts").Index(i)
		errs = append(errs, c.volumeRef(p, m.Name)...)
		if m.MountPath == "" {
			errs = append(errs, field.Required(p.Child("mountPath"), ""))
		}
		if places[m.MountPath] {
			errs = append(errs, field.Invalid(p.Child("mountPath"), m.MountPath, "must be unique"))
		}
		places[m.MountPath] = true
		errs = append(errs, checkSubPaths(p, m)...)
		errs = append(errs, checkPropagation(p, m, ctr)...)
	}
	for i, d := range ctr.VolumeDevices {
		p := path.Child("volumeDevices").Index(i)
		errs = append(errs, c.volumeRef(p, d.Name)...)
		if v := c.volumes[d.Name]; v != nil && v.PersistentVolumeClaim == nil && v.Ephemeral == nil {
			errs = append(errs, field.Invalid(p.Child("name"), d.Name, "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"))
		}
		switch {
		case d.DevicePath == "":
			errs = append(errs, field.Required(p.Child("devicePath"), ""))
		case places[d.DevicePath]:
			errs = append(errs, field.Invalid(p.Child("devicePath"), d.DevicePath, "must be unique"))
		default:
			errs = append(errs, checkNoBackSteps(p.Child("devicePath"), d.DevicePath)...)
		}
		places[d.DevicePath] = true
	}
	return errs
}

func (c *podChecker) volumeRef(path *field.Path, name string) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path.Child("name"), "")}
	}
	if c.volumes[name] == nil {
		return field.ErrorList{field.NotFound(path.Child("name"), name)}
	}
	return nil
}

func checkSubPaths(path *field.Path, m *corev1.VolumeMount) field.ErrorList {
	var errs field.ErrorList
	if m.SubPath != "" {
		errs = append(errs, checkRelativePath(path.Child("subPath"), m.SubPath)...)
	}
	if m.SubPathExpr != "" {
		if m.SubPath != "" {
			errs = append(errs, field.Invalid(path.Child("subPathExpr"), m.SubPathExpr, "subPathExpr and subPath are mutually exclusive"))
		}
		errs = append(errs, checkRelativePath(path.Child("subPathExpr"), m.SubPathExpr)...)
	}
	return errs
}

func checkPropagation(path *field.Path, m *corev1.VolumeMount, ctr *corev1.Container) field.ErrorList {
	modes := []corev1.MountPropagationMode{
		corev1.MountPropagationBidirectional, corev1.MountPropagationHostToContainer, corev1.MountPropagationNone}
	var errs field.ErrorList
	p := path.Child("mountPropagation")
	if m.MountPropagation != nil {
		privileged := ctr.SecurityContext != nil && ctr.SecurityContext.Privileged != nil && *ctr.SecurityContext.Privileged
		switch {
		case !slices.Contains(modes, *m.MountPropagation):
			errs = append(errs, field.NotSupported(p, *m.MountPropagation, modes))
		case *m.MountPropagation == corev1.MountPropagationBidirectional && !privileged:
			errs = append(errs, field.Forbidden(p, "Bidirectional mount propagation is available only to privileged containers"))
		}
	}
	if m.RecursiveReadOnly == nil {
		return errs
	}
	p = path.Child("recursiveReadOnly")
	errs = append(errs, checkOptional(p, m.RecursiveReadOnly,
		corev1.RecursiveReadOnlyDisabled, corev1.RecursiveReadOnlyEnabled, corev1.RecursiveReadOnlyIfPossible)...)
	if *m.RecursiveReadOnly != corev1.RecursiveReadOnlyDisabled {
		if !m.ReadOnly {
			errs = append(errs, field.Forbidden(p, "may only be specified when readOnly is true"))
		}
		if m.MountPropagation != nil && *m.MountPropagation != corev1.MountPropagationNone {
			errs = append(errs, field.Forbidden(p, "may only be specified when mountPropagation is None or not specified"))
		}
	}
	return errs
}
