package resource

import (
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// checkVolumes also fills byName, for the mounts that refer to the volumes.
func checkVolumes(path *field.Path, volumes []corev1.Volume, byName map[string]*corev1.Volume) field.ErrorList {
	var errs field.ErrorList
	for i := range volumes {
		v, p := &volumes[i], path.Index(i)
		errs = append(errs, checkName(p.Child("name"), v.Name, utilvalidation.IsDNS1123Label)...)
		if v.Name != "" && byName[v.Name] != nil {
			errs = append(errs, field.Duplicate(p.Child("name"), v.Name))
		}
		byName[v.Name] = v
		errs = append(errs, checkVolumeSource(p, &v.VolumeSource)...)
	}
	return errs
}

// checkVolumeSource wants exactly one source.
func checkVolumeSource(path *field.Path, s *corev1.VolumeSource) field.ErrorList {
	kinds := setFields(s)
	if len(kinds) == 0 {
		return field.ErrorList{field.Required(path, "must specify a volume type")}
	}
	var errs field.ErrorList
	for _, kind := range kinds[1:] {
		errs = append(errs, field.Forbidden(path.Child(kind), "may not specify more than 1 volume type"))
	}
	p := path.Child(kinds[0])
	switch {
	case s.HostPath != nil:
		return append(errs, checkHostPath(p, s.HostPath)...)
	case s.EmptyDir != nil:
		if l := s.EmptyDir.SizeLimit; l != nil && l.Sign() < 0 {
			errs = append(errs, field.Forbidden(p.Child("sizeLimit"), "SizeLimit field must be a valid resource quantity"))
		}
		return errs
	case s.Secret != nil:
		errs = append(errs, required(p.Child("secretName"), s.Secret.SecretName)...)
		return append(errs, checkFiles(p, s.Secret.DefaultMode, s.Secret.Items)...)
	case s.ConfigMap != nil:
		errs = append(errs, required(p.Child("name"), s.ConfigMap.Name)...)
		return append(errs, checkFiles(p, s.ConfigMap.DefaultMode, s.ConfigMap.Items)...)
	case s.DownwardAPI != nil:
		errs = append(errs, checkMode(p.Child("defaultMode"), s.DownwardAPI.DefaultMode)...)
		return append(errs, checkDownwardFiles(p, s.DownwardAPI.Items)...)
	case s.Projected != nil:
		return append(errs, checkProjected(p, s.Projected)...)
	}
	return append(errs, checkStorageVolume(p, s)...)
}

// setFields are the JSON names of a union's members that are set, in the
// order of the type. The first pointer members of a struct are looked at only.
func setFields(union any) []string {
	v := reflect.ValueOf(union).Elem()
	var out []string
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.Pointer && !f.IsNil() {
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			out = append(out, name)
		}
	}
	return out
}

// checkStorageVolume is about volumes that something outside the pod keeps.
func checkStorageVolume(path *field.Path, s *corev1.VolumeSource) field.ErrorList {
	var errs field.ErrorList
	switch {
	case s.PersistentVolumeClaim != nil:
		return required(path.Child("claimName"), s.PersistentVolumeClaim.ClaimName)
	case s.Ephemeral != nil:
		p := path.Child("volumeClaimTemplate")
		if s.Ephemeral.VolumeClaimTemplate == nil {
			return field.ErrorList{field.Required(p, "")}
		}
		return checkClaimSpec(p.Child("spec"), &s.Ephemeral.VolumeClaimTemplate.Spec)
	case s.NFS != nil:
		errs = append(required(path.Child("server"), s.NFS.Server), required(path.Child("path"), s.NFS.Path)...)
		if s.NFS.Path != "" && !strings.HasPrefix(s.NFS.Path, "/") {
			errs = append(errs, field.Invalid(path.Child("path"), s.NFS.Path, "must be an absolute path"))
		}
	case s.CSI != nil:
		errs = checkDriverName(path.Child("driver"), s.CSI.Driver)
		if ref := s.CSI.NodePublishSecretRef; ref != nil {
			errs = append(errs, required(path.Child("nodePublishSecretRef", "name"), ref.Name)...)
		}
	case s.Image != nil:
		errs = required(path.Child("reference"), s.Image.Reference)
		errs = append(errs, checkSet(path.Child("pullPolicy"), s.Image.PullPolicy,
			corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)...)
	case s.ISCSI != nil:
		errs = append(required(path.Child("targetPortal"), s.ISCSI.TargetPortal), required(path.Child("iqn"), s.ISCSI.IQN)...)
		if s.ISCSI.Lun < 0 || s.ISCSI.Lun > 255 {
			errs = append(errs, field.Invalid(path.Child("lun"), s.ISCSI.Lun, utilvalidation.InclusiveRangeError(0, 255)))
		}
	case s.GitRepo != nil:
		errs = required(path.Child("repository"), s.GitRepo.Repository)
		errs = append(errs, checkRelativePath(path.Child("directory"), s.GitRepo.Directory)...)
	case s.FlexVolume != nil:
		errs = required(path.Child("driver"), s.FlexVolume.Driver)
	case s.RBD != nil:
		if len(s.RBD.CephMonitors) == 0 {
			errs = append(errs, field.Required(path.Child("monitors"), ""))
		}
		errs = append(errs, required(path.Child("image"), s.RBD.RBDImage)...)
	case s.CephFS != nil && len(s.CephFS.Monitors) == 0:
		errs = append(errs, field.Required(path.Child("monitors"), ""))
	}
	return errs
}

func required(path *field.Path, value string) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	return nil
}

// maxDriverName is what a CSI driver's name fits in.
const maxDriverName = 63

func checkDriverName(path *field.Path, name string) field.ErrorList {
	if len(name) > maxDriverName {
		return field.ErrorList{field.TooLong(path, name, maxDriverName)}
	}
	return checkName(path, name, func(s string) []string { return utilvalidation.IsDNS1123Subdomain(strings.ToLower(s)) })
}

func checkHostPath(path *field.Path, h *corev1.HostPathVolumeSource) field.ErrorList {
	p := path.Child("path")
	if h.Path == "" {
		return field.ErrorList{field.Required(p, "")}
	}
	return append(checkNoBackSteps(p, h.Path), checkOptional(path.Child("type"), h.Type,
		corev1.HostPathUnset, corev1.HostPathDirectoryOrCreate, corev1.HostPathDirectory, corev1.HostPathFileOrCreate,
		corev1.HostPathFile, corev1.HostPathSocket, corev1.HostPathCharDev, corev1.HostPathBlockDev)...)
}

func checkMode(path *field.Path, mode *int32) field.ErrorList {
	if mode != nil && (*mode < 0 || *mode > 0o777) {
		return field.ErrorList{field.Invalid(path, *mode, "must be a number between 0 and 0777 (octal), both inclusive")}
	}
	return nil
}

func checkFiles(path *field.Path, mode *int32, items []corev1.KeyToPath) field.ErrorList {
	return append(checkMode(path.Child("defaultMode"), mode), checkItems(path, items)...)
}

func checkItems(path *field.Path, items []corev1.KeyToPath) field.ErrorList {
	var errs field.ErrorList
	for i, item := range items {
		p := path.Child("items").Index(i)
		errs = append(errs, required(p.Child("key"), item.Key)...)
		if item.Path == "" {
			errs = append(errs, field.Required(p.Child("path"), ""))
		} else {
			errs = append(errs, checkFileName(p.Child("path"), item.Path)...)
		}
		errs = append(errs, checkMode(p.Child("mode"), item.Mode)...)
	}
	return errs
}

func checkDownwardFiles(path *field.Path, items []corev1.DownwardAPIVolumeFile) field.ErrorList {
	var errs field.ErrorList
	for i := range items {
		// Upstream's paths of these lack the element "items"; so do these.
		item, p := &items[i], path
		if item.Path == "" {
			errs = append(errs, field.Required(p.Child("path"), ""))
		} else {
			errs = append(errs, checkFileName(p.Child("path"), item.Path)...)
		}
		switch {
		case item.FieldRef != nil:
			errs = append(errs, checkFieldRef(p.Child("fieldRef"), item.FieldRef, volumeFieldPaths, false)...)
			if item.ResourceFieldRef != nil {
				errs = append(errs, field.Invalid(p, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously"))
			}
		case item.ResourceFieldRef != nil:
			errs = append(errs, checkResourceFieldRef(p.Child("resourceFieldRef"), item.ResourceFieldRef, true)...)
		default:
			errs = append(errs, field.Required(p, "one of fieldRef and resourceFieldRef is required"))
		}
		errs = append(errs, checkMode(p.Child("mode"), item.Mode)...)
	}
	return errs
}
