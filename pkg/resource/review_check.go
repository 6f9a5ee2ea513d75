package resource

import (
	"fmt"

	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validateAccessReview(r *authorizationv1.SubjectAccessReview) field.ErrorList {
	return append(checkAccessReview(&r.Spec), checkNoMeta(r.ObjectMeta, "must be empty")...)
}

// validateLocalAccessReview: the request's namespace says about which one may
// be asked.
func validateLocalAccessReview(r *authorizationv1.LocalSubjectAccessReview) field.ErrorList {
	errs := checkAccessReview(&r.Spec)
	rest := r.ObjectMeta
	rest.Namespace = ""
	errs = append(errs, checkNoMeta(rest, "must be empty except for namespace")...)
	path := field.NewPath("spec")
	if a := r.Spec.ResourceAttributes; a != nil && a.Namespace != r.Namespace {
		errs = append(errs, field.Invalid(path.Child("resourceAttributes", "namespace"), a.Namespace, "must match metadata.namespace"))
	}
	if a := r.Spec.NonResourceAttributes; a != nil {
		errs = append(errs, field.Invalid(path.Child("nonResourceAttributes"), a, "disallowed on this kind of request"))
	}
	return errs
}

func validateSelfAccessReview(r *authorizationv1.SelfSubjectAccessReview) field.ErrorList {
	errs := checkReviewed(field.NewPath("spec"), r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes)
	return append(errs, checkNoMeta(r.ObjectMeta, "must be empty")...)
}

func checkNoMeta(meta metav1.ObjectMeta, message string) field.ErrorList {
	meta.ManagedFields = nil
	if equality.Semantic.DeepEqual(meta, metav1.ObjectMeta{}) {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("metadata"), meta, message)}
}

func checkAccessReview(spec *authorizationv1.SubjectAccessReviewSpec) field.ErrorList {
	path := field.NewPath("spec")
	errs := checkReviewed(path, spec.ResourceAttributes, spec.NonResourceAttributes)
	if spec.User == "" && len(spec.Groups) == 0 {
		errs = append(errs, field.Invalid(path.Child("user"), spec.User, "at least one of user or group must be specified"))
	}
	return errs
}

// checkReviewed wants one thing that is asked about.
func checkReviewed(path *field.Path, r *authorizationv1.ResourceAttributes, n *authorizationv1.NonResourceAttributes) field.ErrorList {
	var errs field.ErrorList
	switch {
	case r != nil && n != nil:
		errs = append(errs, field.Invalid(path.Child("nonResourceAttributes"), n, "cannot be specified in combination with resourceAttributes"))
	case r == nil && n == nil:
		errs = append(errs, field.Invalid(path.Child("resourceAttributes"), r, "exactly one of nonResourceAttributes or resourceAttributes must be specified"))
	}
	if r == nil {
		return errs
	}
	// Operators that are not known here pass: the answer says so and is the
	// stricter for it.
	if s := r.FieldSelector; s != nil {
		p := path.Child("resourceAttributes", "fieldSelector")
		errs = append(errs, checkOneSelector(p, s.RawSelector, len(s.Requirements))...)
		for i, req := range s.Requirements {
			errs = append(errs, metav1validation.ValidateFieldSelectorRequirement(req,
				metav1validation.FieldSelectorValidationOptions{AllowUnknownOperatorInRequirement: true}, p.Child("requirements").Index(i))...)
		}
	}
	if s := r.LabelSelector; s != nil {
		p := path.Child("resourceAttributes", "labelSelector")
		errs = append(errs, checkOneSelector(p, s.RawSelector, len(s.Requirements))...)
		for i, req := range s.Requirements {
			errs = append(errs, metav1validation.ValidateLabelSelectorRequirement(req,
				metav1validation.LabelSelectorValidationOptions{AllowUnknownOperatorInRequirement: true}, p.Child("requirements").Index(i))...)
		}
	}
	return errs
}

// checkOneSelector: a selector is given in one way.
func checkOneSelector(path *field.Path, raw string, requirements int) field.ErrorList {
	switch {
	case raw != "" && requirements > 0:
		return field.ErrorList{field.Invalid(path.Child("rawSelector"), raw, "may not specified at the same time as requirements")}
	case raw == "" && requirements == 0:
		return field.ErrorList{field.Required(path.Child("requirements"), fmt.Sprintf("when %s is specified, requirements or rawSelector is required", path))}
	}
	return nil
}
