package resource

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/api/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// checkAccessModes: missing is what is said where there are none.
func checkAccessModes(path *field.Path, modes []corev1.PersistentVolumeAccessMode, missing string) field.ErrorList {
	if len(modes) == 0 {
		return field.ErrorList{field.Required(path, missing)}
	}
	all := []corev1.PersistentVolumeAccessMode{
		corev1.ReadOnlyMany, corev1.ReadWriteMany, corev1.ReadWriteOnce, corev1.ReadWriteOncePod}
	var errs field.ErrorList
	for _, m := range modes {
		errs = append(errs, checkOptional(path, &m, all...)...)
	}
	others := slices.ContainsFunc(modes, func(m corev1.PersistentVolumeAccessMode) bool {
		return m != corev1.ReadWriteOncePod && slices.Contains(all, m)
	})
	if others && slices.Contains(modes, corev1.ReadWriteOncePod) {
		errs = append(errs, field.Forbidden(path, "may not use ReadWriteOncePod with other access modes"))
	}
	return errs
}

// checkClaimSpec validates a claim's spec, also inside templates.
func checkClaimSpec(path *field.Path, spec *corev1.PersistentVolumeClaimSpec) field.ErrorList {
	errs := checkLabelSelector(path.Child("selector"), spec.Selector)
	errs = append(errs, checkAccessModes(path.Child("accessModes"), spec.AccessModes, "at least 1 access mode is required")...)
	p := path.Child("resources").Key(string(corev1.ResourceStorage))
	if q, ok := spec.Resources.Requests[corev1.ResourceStorage]; !ok {
		errs = append(errs, field.Required(p, ""))
	} else if q.Sign() <= 0 {
		errs = append(errs, field.Invalid(p, q.String(), "must be greater than zero"))
	}
	if c := spec.StorageClassName; c != nil && *c != "" {
		errs = append(errs, invalid(path.Child("storageClassName"), *c, utilvalidation.IsDNS1123Subdomain(*c))...)
	}
	if v := spec.VolumeAttributesClassName; v != nil && *v != "" {
		errs = append(errs, invalid(path.Child("volumeAttributesClassName"), *v, utilvalidation.IsDNS1123Subdomain(*v))...)
	}
	errs = append(errs, checkOptional(path.Child("volumeMode"), spec.VolumeMode,
		corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem)...)
	return append(errs, checkDataSources(path, spec)...)
}

// checkDataSources: the two fields say the same, but that only the newer one
// reaches into another namespace.
func checkDataSources(path *field.Path, spec *corev1.PersistentVolumeClaimSpec) field.ErrorList {
	var errs field.ErrorList
	d, ref := spec.DataSource, spec.DataSourceRef
	if d != nil {
		errs = append(errs, checkDataSource(path.Child("dataSource"), d.APIGroup, d.Kind, d.Name)...)
	}
	if ref == nil {
		return errs
	}
	p := path.Child("dataSourceRef")
	errs = append(errs, checkDataSource(p, ref.APIGroup, ref.Kind, ref.Name)...)
	away := ref.Namespace != nil && *ref.Namespace != ""
	if away {
		errs = append(errs, invalid(p.Child("namespace"), *ref.Namespace, validation.ValidateNamespaceName(*ref.Namespace, false))...)
	}
	switch {
	case d == nil:
	case away:
		errs = append(errs, field.Invalid(path, path.Child("dataSource").String(), "may not be specified when dataSourceRef.namespace is specified"))
	case !equality.Semantic.DeepEqual(d.APIGroup, ref.APIGroup) || d.Kind != ref.Kind || d.Name != ref.Name:
		errs = append(errs, field.Invalid(path, path.Child("dataSource").String(), "must match dataSourceRef"))
	}
	return errs
}

func checkDataSource(path *field.Path, group *string, kind, name string) field.ErrorList {
	errs := append(required(path.Child("name"), name), required(path.Child("kind"), kind)...)
	if group == nil || *group == "" {
		if kind != "PersistentVolumeClaim" {
			errs = append(errs, field.Invalid(path, kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup"))
		}
		return errs
	}
	return append(errs, invalid(path.Child("apiGroup"), *group, utilvalidation.IsDNS1123Subdomain(*group))...)
}

// checkBasicQuantity wants an amount of anything.
func checkBasicQuantity(path *field.Path, q resource.Quantity) field.ErrorList {
	if q.Sign() < 0 {
		return field.ErrorList{field.Invalid(path, q.Value(), "must be a valid resource quantity")}
	}
	return nil
}
