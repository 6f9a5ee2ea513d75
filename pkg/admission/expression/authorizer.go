package expression

import (
	"context"

	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	library "k8s.io/apiserver/pkg/authorization/authorizer"

	"coracle/pkg/auth"
)

// userInfo shows a user to the library, which hands it back to authorizer.
type userInfo struct{ user *auth.User }

func (u userInfo) get() auth.User {
	if u.user == nil {
		return auth.User{}
	}
	return *u.user
}

func (u userInfo) GetName() string               { return u.get().Name }
func (u userInfo) GetUID() string                { return u.get().UID }
func (u userInfo) GetGroups() []string           { return u.get().Groups }
func (u userInfo) GetExtra() map[string][]string { return u.get().Extra }

// authorizer answers the library's questions.
type authorizer struct{ auth.Authorizer }

// Authorize implements the library's UnconditionalAuthorizer.
func (z authorizer) Authorize(ctx context.Context, a library.Attributes) (library.Decision, string, error) {
	info := a.GetUser()
	// A selector that cannot be parsed narrows nothing.
	fieldSelector, _ := a.GetFieldSelector()
	labelSelector, _ := a.GetLabelSelector()
	d, reason, err := z.Authorizer.Authorize(ctx, auth.Attributes{
		User: &auth.User{Name: info.GetName(), UID: info.GetUID(), Groups: info.GetGroups(), Extra: info.GetExtra()},
		Verb: a.GetVerb(), Namespace: a.GetNamespace(), APIGroup: a.GetAPIGroup(), APIVersion: a.GetAPIVersion(),
		Resource: a.GetResource(), Subresource: a.GetSubresource(), Name: a.GetName(), Path: a.GetPath(),
		ResourceRequest: a.IsResourceRequest(), FieldSelector: fieldSelector, LabelSelector: labelSelector,
	})
	switch d {
	case auth.Allow:
		return library.DecisionAllow, reason, err
	case auth.NoOpinion:
		return library.DecisionNoOpinion, reason, err
	}
	return library.DecisionDeny, reason, err
}

// requested is what authorizer.requestResource starts from.
type requested struct {
	request *admissionv1.AdmissionRequest
}

func (r requested) GetName() string      { return r.request.Name }
func (r requested) GetNamespace() string { return r.request.Namespace }
func (r requested) GetResource() schema.GroupVersionResource {
	if q := r.request.RequestResource; q != nil {
		return schema.GroupVersionResource(*q)
	}
	return schema.GroupVersionResource(r.request.Resource)
}
func (r requested) GetSubresource() string { return r.request.RequestSubResource }
