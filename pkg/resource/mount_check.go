package resource

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// mounts checks that a container's mounts and devices name volumes of the pod
// and do not cover each other. Some of upstream's paths of mounts lack the
// index; so do these.
func (c *podChecker) mounts(path *field.Path, ctr *corev1.Container) field.ErrorList {
	var errs field.ErrorList
	list := path.Child("volumeMounts")
	deviceNames, devicePaths := map[string]bool{}, map[string]bool{}
	for _, d := range ctr.VolumeDevices {
		deviceNames[d.Name], devicePaths[d.DevicePath] = true, true
	}
	places := map[string]bool{}
	for i := range ctr.VolumeMounts {
		m, p := &ctr.VolumeMounts[i], list.Index(i)
		errs = append(errs, c.volumeRef(p, m.Name)...)
		errs = append(errs, required(p.Child("mountPath"), m.MountPath)...)
		if places[m.MountPath] {
			errs = append(errs, field.Invalid(p.Child("mountPath"), m.MountPath, "must be unique"))
		}
		places[m.MountPath] = true
		if deviceNames[m.Name] {
			errs = append(errs, field.Invalid(p.Child("name"), m.Name, "must not already exist in volumeDevices"))
		}
		if devicePaths[m.MountPath] {
			errs = append(errs, field.Invalid(p.Child("mountPath"), m.MountPath, "must not already exist as a path in volumeDevices"))
		}
		errs = append(errs, checkSubPaths(list, p, m)...)
		errs = append(errs, checkPropagation(list, m, ctr)...)
		errs = append(errs, c.bindOptions(p.Child("bindMountOptions"), m)...)
	}
	return append(errs, c.devices(path.Child("volumeDevices"), ctr)...)
}

// devices: a volume is a device or a file system, never both.
func (c *podChecker) devices(path *field.Path, ctr *corev1.Container) field.ErrorList {
	var errs field.ErrorList
	mounted, places := map[string]bool{}, map[string]bool{}
	for _, m := range ctr.VolumeMounts {
		mounted[m.Name], places[m.MountPath] = true, true
	}
	names, paths := map[string]bool{}, map[string]bool{}
	for i, d := range ctr.VolumeDevices {
		p := path.Index(i)
		errs = append(errs, c.volumeRef(p, d.Name)...)
		if d.Name != "" && names[d.Name] {
			errs = append(errs, field.Invalid(p.Child("name"), d.Name, "must be unique"))
		}
		names[d.Name] = true
		if v := c.volumes[d.Name]; v != nil && v.PersistentVolumeClaim == nil && v.Ephemeral == nil {
			errs = append(errs, field.Invalid(p.Child("name"), d.Name, "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"))
		}
		errs = append(errs, required(p.Child("devicePath"), d.DevicePath)...)
		if paths[d.DevicePath] {
			errs = append(errs, field.Invalid(p.Child("devicePath"), d.DevicePath, "must be unique"))
		}
		if len(checkNoBackSteps(p, d.DevicePath)) > 0 {
			errs = append(errs, field.Invalid(p.Child("devicePath"), d.DevicePath, "can not contain backsteps ('..')"))
		} else {
			paths[d.DevicePath] = true
		}
		if mounted[d.Name] {
			errs = append(errs, field.Invalid(p.Child("name"), d.Name, "must not already exist in volumeMounts"))
		}
		if places[d.DevicePath] {
			errs = append(errs, field.Invalid(p.Child("devicePath"), d.DevicePath, "must not already exist as a path in volumeMounts"))
		}
	}
	return errs
}

func (c *podChecker) volumeRef(path *field.Path, name string) field.ErrorList {
	errs := required(path.Child("name"), name)
	if c.volumes[name] == nil {
		errs = append(errs, field.NotFound(path.Child("name"), name))
	}
	return errs
}

func checkSubPaths(list, path *field.Path, m *corev1.VolumeMount) field.ErrorList {
	var errs field.ErrorList
	if m.SubPath != "" {
		errs = append(errs, checkRelativePath(list.Child("subPath"), m.SubPath)...)
	}
	if m.SubPathExpr != "" {
		if m.SubPath != "" {
			errs = append(errs, field.Invalid(path.Child("subPathExpr"), m.SubPathExpr, "subPathExpr and subPath are mutually exclusive"))
		}
		errs = append(errs, checkRelativePath(list.Child("subPathExpr"), m.SubPathExpr)...)
	}
	return errs
}

func checkPropagation(list *field.Path, m *corev1.VolumeMount, ctr *corev1.Container) field.ErrorList {
	var errs field.ErrorList
	p := list.Child("mountPropagation")
	errs = append(errs, checkOptional(p, m.MountPropagation, corev1.MountPropagationBidirectional,
		corev1.MountPropagationHostToContainer, corev1.MountPropagationNone)...)
	privileged := ctr.SecurityContext != nil && ctr.SecurityContext.Privileged != nil && *ctr.SecurityContext.Privileged
	if m.MountPropagation != nil && *m.MountPropagation == corev1.MountPropagationBidirectional && !privileged {
		errs = append(errs, field.Forbidden(p, "Bidirectional mount propagation is available only to privileged containers"))
	}
	if m.RecursiveReadOnly == nil || *m.RecursiveReadOnly == corev1.RecursiveReadOnlyDisabled {
		return errs
	}
	p = list.Child("recursiveReadOnly")
	known := []corev1.RecursiveReadOnlyMode{
		corev1.RecursiveReadOnlyDisabled, corev1.RecursiveReadOnlyEnabled, corev1.RecursiveReadOnlyIfPossible}
	if !slices.Contains(known, *m.RecursiveReadOnly) {
		return append(errs, field.NotSupported(p, *m.RecursiveReadOnly, known))
	}
	if !m.ReadOnly {
		errs = append(errs, field.Forbidden(p, "may only be specified when readOnly is true"))
	}
	if m.MountPropagation != nil && *m.MountPropagation != corev1.MountPropagationNone {
		errs = append(errs, field.Forbidden(p, "may only be specified when mountPropagation is None or not specified"))
	}
	return errs
}

// bindOptions: what may be taken away from a mount; an image has its own.
func (c *podChecker) bindOptions(path *field.Path, m *corev1.VolumeMount) field.ErrorList {
	var errs field.ErrorList
	if v := c.volumes[m.Name]; len(m.BindMountOptions) > 0 && v != nil && v.Image != nil {
		errs = append(errs, field.Forbidden(path, "may not be specified for image volumes"))
	}
	for i, o := range m.BindMountOptions {
		errs = append(errs, checkOptional(path.Index(i), &o, "noexec", "nodev", "nosuid")...)
		if slices.Index(m.BindMountOptions, o) < i {
			errs = append(errs, field.Duplicate(path.Index(i), o))
		}
	}
	return errs
}
