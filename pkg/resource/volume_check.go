package resource

import (
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// checkVolumes also fills byName, for the mounts that refer to the volumes.
func checkVolumes(path *field.Path, volumes []corev1.Volume, byName map[string]*corev1.Volume) field.ErrorList {
	var errs field.ErrorList
	for i := range volumes {
		v, p := &volumes[i], path.Index(i)
		errs = append(errs, checkName(p.Child("name"), v.Name, isLabel)...)
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
	return append(errs, checkVolumeKind(path, kinds[0], s)...)
}

// checkVolumeKind checks the one source, which is called kind in JSON.
func checkVolumeKind(path *field.Path, kind string, s *corev1.VolumeSource) field.ErrorList {
	p := path.Child(kind)
	switch kind {
	case "hostPath":
		return checkHostPath(p, s.HostPath)
	case "emptyDir":
		return checkEmptyDir(p, s.EmptyDir)
	case "secret":
		return append(required(p.Child("secretName"), s.Secret.SecretName), checkFiles(p, s.Secret.DefaultMode, s.Secret.Items)...)
	case "configMap":
		return append(required(p.Child("name"), s.ConfigMap.Name), checkFiles(p, s.ConfigMap.DefaultMode, s.ConfigMap.Items)...)
	case "downwardAPI":
		return append(checkMode(p.Child("defaultMode"), s.DownwardAPI.DefaultMode), checkDownwardFiles(p, s.DownwardAPI.Items)...)
	case "projected":
		return checkProjected(p, s.Projected)
	case "persistentVolumeClaim":
		return required(p.Child("claimName"), s.PersistentVolumeClaim.ClaimName)
	case "ephemeral":
		return checkEphemeralVolume(p.Child("volumeClaimTemplate"), s.Ephemeral.VolumeClaimTemplate)
	case "csi":
		errs := checkDriverName(p.Child("driver"), s.CSI.Driver)
		if ref := s.CSI.NodePublishSecretRef; ref != nil && ref.Name == "" {
			errs = append(errs, field.Required(p.Child("nodePublishSecretRef", "name"), ""))
		} else if ref != nil {
			// Upstream's path lacks the reference; so does this.
			errs = append(errs, invalid(p.Child("name"), ref.Name, isSubdomain(ref.Name))...)
		}
		return errs
	case "image":
		return append(required(p.Child("reference"), s.Image.Reference), checkSet(p.Child("pullPolicy"), s.Image.PullPolicy,
			corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)...)
	}
	return checkNetworkVolume(path, kind, s)
}

// maxEmptyDirMode has the sticky bit of a /tmp.
const maxEmptyDirMode = 0o1777

func checkEmptyDir(path *field.Path, e *corev1.EmptyDirVolumeSource) field.ErrorList {
	var errs field.ErrorList
	if e.SizeLimit != nil && e.SizeLimit.Sign() < 0 {
		errs = append(errs, field.Forbidden(path.Child("sizeLimit"), "SizeLimit field must be a valid resource quantity"))
	}
	if e.Mode != nil && (*e.Mode < 0 || *e.Mode > maxEmptyDirMode) {
		errs = append(errs, field.Invalid(path.Child("mode"), *e.Mode, "must be a number between 0 and 01777 (octal), both inclusive"))
	}
	return errs
}

func checkEphemeralVolume(path *field.Path, t *corev1.PersistentVolumeClaimTemplate) field.ErrorList {
	if t == nil {
		return field.ErrorList{field.Required(path, "")}
	}
	errs := checkTemplateMeta(path.Child("metadata"), &t.ObjectMeta)
	return append(errs, checkClaimSpec(path.Child("spec"), &t.Spec)...)
}

// checkTemplateMeta checks the metadata of a template of which only labels and
// annotations reach what is made from it.
func checkTemplateMeta(path *field.Path, m *metav1.ObjectMeta) field.ErrorList {
	errs := validation.ValidateAnnotations(m.Annotations, path.Child("annotations"))
	errs = append(errs, metav1validation.ValidateLabels(m.Labels, path.Child("labels"))...)
	v := reflect.ValueOf(*m)
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		if name != "labels" && name != "annotations" && !v.Field(i).IsZero() {
			errs = append(errs, field.Forbidden(path.Child(name), "cannot be set"))
		}
	}
	return errs
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

func required(path *field.Path, value string) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	return nil
}

// maxDriverName is what a CSI driver's name fits in.
const maxDriverName = 63

func checkDriverName(path *field.Path, name string) field.ErrorList {
	errs := required(path, name)
	if len(name) > maxDriverName {
		errs = append(errs, field.TooLong(path, name, maxDriverName))
	}
	return append(errs, invalid(path, name, isSubdomain(strings.ToLower(name)))...)
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
		errs = append(errs, checkRequiredFile(p.Child("path"), item.Path)...)
		errs = append(errs, checkMode(p.Child("mode"), item.Mode)...)
	}
	return errs
}

func checkDownwardFiles(path *field.Path, items []corev1.DownwardAPIVolumeFile) field.ErrorList {
	var errs field.ErrorList
	for i := range items {
		// Upstream's paths of these lack the element "items"; so do these.
		item, p := &items[i], path
		errs = append(errs, checkRequiredFile(p.Child("path"), item.Path)...)
		switch {
		case item.FieldRef != nil:
			errs = append(errs, checkFieldRef(p.Child("fieldRef"), item.FieldRef, volumeFieldPaths)...)
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
