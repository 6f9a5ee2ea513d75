package resource

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func checkEnv(path *field.Path, vars []corev1.EnvVar) field.ErrorList {
	var errs field.ErrorList
	for i := range vars {
		p := path.Index(i)
		errs = append(errs, checkName(p.Child("name"), vars[i].Name, utilvalidation.IsRelaxedEnvVarName)...)
		if vars[i].ValueFrom != nil {
			errs = append(errs, checkEnvSource(p.Child("valueFrom"), &vars[i])...)
		}
	}
	return errs
}

func checkEnvSource(path *field.Path, v *corev1.EnvVar) field.ErrorList {
	var errs field.ErrorList
	from, n := v.ValueFrom, 0
	if r := from.FieldRef; r != nil {
		n++
		errs = append(errs, checkFieldRef(path.Child("fieldRef"), r, envFieldPaths, true)...)
	}
	if r := from.ResourceFieldRef; r != nil {
		n++
		errs = append(errs, checkResourceFieldRef(path.Child("resourceFieldRef"), r, false)...)
	}
	if r := from.ConfigMapKeyRef; r != nil {
		n++
		errs = append(errs, checkKeyRef(path.Child("configMapKeyRef"), r.Key)...)
	}
	if r := from.SecretKeyRef; r != nil {
		n++
		errs = append(errs, checkKeyRef(path.Child("secretKeyRef"), r.Key)...)
	}
	if r := from.FileKeyRef; r != nil {
		n++
		errs = append(errs, checkFileKeyRef(path.Child("fileKeyRef"), r)...)
	}
	switch {
	case n == 0:
		errs = append(errs, field.Invalid(path, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"))
	case v.Value != "":
		errs = append(errs, field.Invalid(path, "", "may not be specified when `value` is not empty"))
	case n > 1:
		errs = append(errs, field.Invalid(path, "", "may not have more than one field specified at a time"))
	}
	return errs
}

func checkKeyRef(path *field.Path, key string) field.ErrorList {
	return checkName(path.Child("key"), key, utilvalidation.IsConfigMapKey)
}

func checkFileKeyRef(path *field.Path, r *corev1.FileKeySelector) field.ErrorList {
	errs := checkName(path.Child("key"), r.Key, utilvalidation.IsRelaxedEnvVarName)
	if r.VolumeName == "" {
		errs = append(errs, field.Required(path.Child("volumeName"), ""))
	}
	if r.Path == "" {
		return append(errs, field.Required(path.Child("path"), ""))
	}
	return append(errs, checkFileName(path.Child("path"), r.Path)...)
}

// Field paths that a pod may read about itself: in its environment and, less
// since a file follows changes, in volumes.
var (
	envFieldPaths = []string{
		"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
		"status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
	}
	volumeFieldPaths = []string{
		"metadata.name", "metadata.namespace", "metadata.labels", "metadata.annotations", "metadata.uid",
	}
)

// checkFieldRef wants one of allowed, or one key of labels or annotations.
func checkFieldRef(path *field.Path, r *corev1.ObjectFieldSelector, allowed []string, env bool) field.ErrorList {
	if r.APIVersion == "" {
		return field.ErrorList{field.Required(path.Child("apiVersion"), "")}
	}
	p := path.Child("fieldPath")
	if r.FieldPath == "" {
		return field.ErrorList{field.Required(p, "")}
	}
	if r.APIVersion != "v1" {
		return field.ErrorList{field.Invalid(p, r.FieldPath, "error converting fieldPath: unsupported pod version: "+r.APIVersion)}
	}
	if base, key, ok := strings.Cut(r.FieldPath, "['"); ok {
		key, closed := strings.CutSuffix(key, "']")
		switch {
		case !closed:
		case base == "metadata.annotations":
			return invalid(p, key, utilvalidation.IsQualifiedName(strings.ToLower(key)))
		case base == "metadata.labels":
			return invalid(p, key, utilvalidation.IsQualifiedName(key))
		}
		return field.ErrorList{field.Invalid(p, r.FieldPath, "does not support subscript")}
	}
	if slices.Contains(allowed, r.FieldPath) {
		return nil
	}
	if env && !slices.Contains(volumeFieldPaths, r.FieldPath) {
		return field.ErrorList{field.Invalid(p, r.FieldPath, "error converting fieldPath: field label not supported: "+r.FieldPath)}
	}
	return field.ErrorList{field.NotSupported(p, r.FieldPath, allowed)}
}

var containerResourceFields = []string{
	"limits.cpu", "limits.ephemeral-storage", "limits.memory",
	"requests.cpu", "requests.ephemeral-storage", "requests.memory",
}

// checkResourceFieldRef wants a container's own limit or request; in a volume
// the container must be named, for there is none to be meant.
func checkResourceFieldRef(path *field.Path, r *corev1.ResourceFieldSelector, volume bool) field.ErrorList {
	if volume && r.ContainerName == "" {
		return field.ErrorList{field.Required(path.Child("containerName"), "")}
	}
	p := path.Child("resource")
	if r.Resource == "" {
		return field.ErrorList{field.Required(p, "")}
	}
	huge := strings.HasPrefix(r.Resource, "limits.hugepages-") || strings.HasPrefix(r.Resource, "requests.hugepages-")
	if !huge && !slices.Contains(containerResourceFields, r.Resource) {
		return field.ErrorList{field.NotSupported(p, r.Resource, containerResourceFields)}
	}
	return checkDivisor(path.Child("divisor"), r)
}

// checkDivisor: a zero divisor means 1.
func checkDivisor(path *field.Path, r *corev1.ResourceFieldSelector) field.ErrorList {
	units := []string{"1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"}
	what := "memory"
	switch _, name, _ := strings.Cut(r.Resource, "."); {
	case name == "cpu":
		units, what = []string{"1m", "1"}, "cpu"
	case name == "ephemeral-storage":
		what = "local ephemeral storage"
	case strings.HasPrefix(name, "hugepages-"):
		what = "hugepages"
	}
	if d := r.Divisor.String(); d != "0" && !slices.Contains(units, d) {
		return field.ErrorList{field.Invalid(path, d, "only divisor's values "+strings.Join(units, ", ")+" are supported with the "+what+" resource")}
	}
	return nil
}

func checkEnvFrom(path *field.Path, sources []corev1.EnvFromSource) field.ErrorList {
	var errs field.ErrorList
	for i, s := range sources {
		p := path.Index(i)
		if s.Prefix != "" {
			errs = append(errs, invalid(p.Child("prefix"), s.Prefix, utilvalidation.IsRelaxedEnvVarName(s.Prefix))...)
		}
		switch {
		case s.ConfigMapRef == nil && s.SecretRef == nil:
			errs = append(errs, field.Invalid(p, "", "must specify one of: `configMapRef` or `secretRef`"))
		case s.ConfigMapRef != nil && s.SecretRef != nil:
			errs = append(errs, field.Invalid(p, "", "may not have more than one field specified at a time"))
		case s.ConfigMapRef != nil && s.ConfigMapRef.Name == "":
			errs = append(errs, field.Required(p.Child("configMapRef", "name"), ""))
		case s.SecretRef != nil && s.SecretRef.Name == "":
			errs = append(errs, field.Required(p.Child("secretRef", "name"), ""))
		}
	}
	return errs
}
