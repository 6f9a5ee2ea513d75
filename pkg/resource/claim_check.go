package resource

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func checkAccessModes(path *field.Path, modes []corev1.PersistentVolumeAccessMode) field.ErrorList {
	if len(modes) == 0 {
		return field.ErrorList{field.Required(path, "at least 1 access mode is required")}
	}
	var errs field.ErrorList
	for _, m := range modes {
		errs = append(errs, checkSet(path, m, corev1.ReadOnlyMany, corev1.ReadWriteMany, corev1.ReadWriteOnce, corev1.ReadWriteOncePod)...)
	}
	if len(modes) > 1 && slices.Contains(modes, corev1.ReadWriteOncePod) {
		errs = append(errs, field.Forbidden(path, "may not use ReadWriteOncePod with other access modes"))
	}
	return errs
}

// checkClaimSpec validates a claim's spec, also inside templates.
func checkClaimSpec(path *field.Path, spec *corev1.PersistentVolumeClaimSpec) field.ErrorList {
	errs := checkLabelSelector(path.Child("selector"), spec.Selector)
	errs = append(errs, checkAccessModes(path.Child("accessModes"), spec.AccessModes)...)
	p := path.Child("resources").Key(string(corev1.ResourceStorage))
	if q, ok := spec.Resources.Requests[corev1.ResourceStorage]; !ok {
		errs = append(errs, field.Required(p, ""))
	} else {
		errs = append(errs, checkQuantity(p, corev1.ResourceStorage, q)...)
		if q.Sign() == 0 {
			errs = append(errs, field.Invalid(p, q.String(), "must be greater than zero"))
		}
	}
	if c := spec.StorageClassName; c != nil && *c != "" {
		errs = append(errs, invalid(path.Child("storageClassName"), *c, utilvalidation.IsDNS1123Subdomain(*c))...)
	}
	if v := spec.VolumeAttributesClassName; v != nil && *v != "" {
		errs = append(errs, invalid(path.Child("volumeAttributesClassName"), *v, utilvalidation.IsDNS1123Subdomain(*v))...)
	}
	errs = append(errs, checkOptional(path.Child("volumeMode"), spec.VolumeMode,
		corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem)...)
	if d := spec.DataSource; d != nil {
		errs = append(errs, checkDataSource(path.Child("dataSource"), d.APIGroup, d.Kind, d.Name)...)
	}
	if d := spec.DataSourceRef; d != nil {
		errs = append(errs, checkDataSource(path.Child("dataSourceRef"), d.APIGroup, d.Kind, d.Name)...)
	}
	return errs
}

func checkDataSource(path *field.Path, group *string, kind, name string) field.ErrorList {
	errs := append(required(path.Child("name"), name), required(path.Child("kind"), kind)...)
	if (group == nil || *group == "") && kind != "PersistentVolumeClaim" {
		errs = append(errs, field.Invalid(path, kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup"))
	}
	return errs
}
