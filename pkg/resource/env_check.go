package resource

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
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
		errs = append(errs, checkFieldRef(path.Child("fieldRef"), r, envFieldPaths)...)
	}
	if r := from.ResourceFieldRef; r != nil {
		n++
		errs = append(errs, checkResourceFieldRef(path.Child("resourceFieldRef"), r, false)...)
	}
	if r := from.ConfigMapKeyRef; r != nil {
		n++
		errs = append(errs, checkKeyRef(path.Child("configMapKeyRef"), r.Name, r.Key)...)
	}
	if r := from.SecretKeyRef; r != nil {
		n++
		errs = append(errs, checkKeyRef(path.Child("secretKeyRef"), r.Name, r.Key)...)
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

func checkKeyRef(path *field.Path, name, key string) field.ErrorList {
	return append(invalid(path.Child("name"), name, utilvalidation.IsDNS1123Subdomain(name)),
		checkName(path.Child("key"), key, utilvalidation.IsConfigMapKey)...)
}

// envFiles: a file of variables is written by one container for another, in an
// emptyDir.
func (c *podChecker) envFiles(path *field.Path, vars []corev1.EnvVar) field.ErrorList {
	var errs field.ErrorList
	for i := range vars {
		if vars[i].ValueFrom == nil || vars[i].ValueFrom.FileKeyRef == nil || vars[i].ValueFrom.FileKeyRef.VolumeName == "" {
			continue
		}
		p, name := path.Index(i).Child("valueFrom", "fileKeyRef", "volumeName"), vars[i].ValueFrom.FileKeyRef.VolumeName
		if v := c.volumes[name]; v == nil {
			errs = append(errs, field.NotFound(p, name))
		} else if v.EmptyDir == nil {
			errs = append(errs, field.Invalid(p, name, "referenced volume must be of type emptyDir"))
		}
	}
	return errs
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
// since a file follows changes, in volumes. The last are known and for neither.
var (
	envFieldPaths = []string{
		"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
		"status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
	}
	volumeFieldPaths = []string{
		"metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid",
	}
	otherFieldPaths = []string{"spec.host", "spec.restartPolicy", "spec.schedulerName", "status.phase"}
)

// checkFieldRef wants one of allowed, or one key of labels or annotations.
func checkFieldRef(path *field.Path, r *corev1.ObjectFieldSelector, allowed []string) field.ErrorList {
	if r.APIVersion == "" {
		return field.ErrorList{field.Required(path.Child("apiVersion"), "")}
	}
	p := path.Child("fieldPath")
	if r.FieldPath == "" {
		return field.ErrorList{field.Required(p, "")}
	}
	unknown := func(why string) field.ErrorList {
		return field.ErrorList{field.Invalid(p, r.FieldPath, "error converting fieldPath: "+why)}
	}
	if r.APIVersion != "v1" {
		return unknown("unsupported pod version: " + r.APIVersion)
	}
	if whole, ok := strings.CutSuffix(r.FieldPath, "']"); ok {
		// What is wrong with the key is said of the reference, as upstream does.
		switch base, key, _ := strings.Cut(whole, "['"); base {
		case "metadata.annotations":
			return invalid(path, key, utilvalidation.IsQualifiedName(strings.ToLower(key)))
		case "metadata.labels":
			return invalid(path, key, utilvalidation.IsQualifiedName(key))
		}
		return unknown("field label does not support subscript: " + r.FieldPath)
	}
	switch {
	case slices.Contains(allowed, r.FieldPath):
		return nil
	case slices.Contains(slices.Concat(envFieldPaths, volumeFieldPaths, otherFieldPaths), r.FieldPath):
		return field.ErrorList{field.NotSupported(p, r.FieldPath, allowed)}
	}
	return unknown("field label not supported: " + r.FieldPath)
}

var containerResourceFields = []string{
	"limits.cpu", "limits.ephemeral-storage", "limits.memory",
	"requests.cpu", "requests.ephemeral-storage", "requests.memory",
}

// checkResourceFieldRef wants a container's own limit or request; in a volume
// the container must be named, for there is none to be meant.
func checkResourceFieldRef(path *field.Path, r *corev1.ResourceFieldSelector, volume bool) field.ErrorList {
	var errs field.ErrorList
	huge := strings.HasPrefix(r.Resource, "limits.hugepages-") || strings.HasPrefix(r.Resource, "requests.hugepages-")
	switch {
	case volume && r.ContainerName == "":
		errs = append(errs, field.Required(path.Child("containerName"), ""))
	case r.Resource == "":
		errs = append(errs, field.Required(path.Child("resource"), ""))
	case !huge && !slices.Contains(containerResourceFields, r.Resource):
		errs = append(errs, field.NotSupported(path.Child("resource"), r.Resource, containerResourceFields))
	}
	return append(errs, checkDivisor(path.Child("divisor"), r)...)
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
		for _, ref := range []struct {
			kind string
			set  bool
			name func() string
		}{
			{"configMapRef", s.ConfigMapRef != nil, func() string { return s.ConfigMapRef.Name }},
			{"secretRef", s.SecretRef != nil, func() string { return s.SecretRef.Name }},
		} {
			if ref.set {
				errs = append(errs, checkName(p.Child(ref.kind, "name"), ref.name(), envFromName)...)
			}
		}
		// Upstream says these two of the list; so does this.
		switch {
		case s.ConfigMapRef == nil && s.SecretRef == nil:
			errs = append(errs, field.Invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"))
		case s.ConfigMapRef != nil && s.SecretRef != nil:
			errs = append(errs, field.Invalid(path, "", "may not have more than one field specified at a time"))
		}
	}
	return errs
}

// envFromName allows what a name's prefix may be, a hyphen at the end.
func envFromName(name string) []string { return validation.NameIsDNSSubdomain(name, true) }
