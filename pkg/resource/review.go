package resource

import (
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// review describes a kind that is only created: the answer is the object with
// its status filled in, and nothing is stored.
func review[T runtime.Object](gv schema.GroupVersion, kind, plural string, namespaced bool, newObj func() runtime.Object, validate func(T) field.ErrorList) *Resource {
	return define(Resource{
		Group: gv.Group, Version: gv.Version, Kind: kind, Plural: plural, Namespaced: namespaced,
		Nameless: true, Verbs: []string{"create"}, New: newObj,
	}, hooks[T]{Validate: validate})
}

func tokenReviews() *Resource {
	return review[*authenticationv1.TokenReview](authenticationv1.SchemeGroupVersion, "TokenReview", "tokenreviews", false,
		func() runtime.Object { return &authenticationv1.TokenReview{} }, nil)
}

func selfSubjectReviews() *Resource {
	return review[*authenticationv1.SelfSubjectReview](authenticationv1.SchemeGroupVersion, "SelfSubjectReview", "selfsubjectreviews", false,
		func() runtime.Object { return &authenticationv1.SelfSubjectReview{} }, nil)
}

func subjectAccessReviews() *Resource {
	return review[*authorizationv1.SubjectAccessReview](authorizationv1.SchemeGroupVersion, "SubjectAccessReview", "subjectaccessreviews", false,
		func() runtime.Object { return &authorizationv1.SubjectAccessReview{} }, validateAccessReview)
}

func localSubjectAccessReviews() *Resource {
	return review[*authorizationv1.LocalSubjectAccessReview](authorizationv1.SchemeGroupVersion, "LocalSubjectAccessReview", "localsubjectaccessreviews", true,
		func() runtime.Object { return &authorizationv1.LocalSubjectAccessReview{} }, validateLocalAccessReview)
}

func selfSubjectAccessReviews() *Resource {
	return review[*authorizationv1.SelfSubjectAccessReview](authorizationv1.SchemeGroupVersion, "SelfSubjectAccessReview", "selfsubjectaccessreviews", false,
		func() runtime.Object { return &authorizationv1.SelfSubjectAccessReview{} }, validateSelfAccessReview)
}

func selfSubjectRulesReviews() *Resource {
	return review[*authorizationv1.SelfSubjectRulesReview](authorizationv1.SchemeGroupVersion, "SelfSubjectRulesReview", "selfsubjectrulesreviews", false,
		func() runtime.Object { return &authorizationv1.SelfSubjectRulesReview{} }, nil)
}
