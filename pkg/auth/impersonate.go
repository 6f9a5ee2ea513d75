package auth

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"

	authenticationv1 "k8s.io/api/authentication/v1"
)

// ErrBadImpersonation is wrapped by errors of Impersonate that are the
// client's mistake: a 400.
var ErrBadImpersonation = errors.New("impersonation headers are wrong")

// ForbiddenError says that a user may not do a step of what it asked for: a
// 403.
type ForbiddenError struct {
	// Attributes are the step's, not the request's.
	Attributes Attributes
	// Reason is the authorizer's and may be empty.
	Reason string
}

// Error is the sentence of Attributes.Forbidden.
func (e *ForbiddenError) Error() string { return e.Attributes.Forbidden(e.Reason) }

// Impersonate returns the user that a request of requestor wants to act as,
// after asking authz, one by one, whether requestor may impersonate that name,
// UID, each group and each extra value. It returns (nil, nil) when the request
// has no impersonation header. Errors are *ForbiddenError, or wrap
// ErrBadImpersonation, or are the authorizer's.
func Impersonate(ctx context.Context, h http.Header, requestor *User, authz Authorizer) (*User, error) {
	want, groupsGiven, err := impersonated(h)
	if want == nil || err != nil {
		return nil, err
	}
	check := func(a Attributes) error {
		a.User, a.Verb, a.APIVersion, a.ResourceRequest = requestor, "impersonate", "v1", true
		d, reason, err := authz.Authorize(ctx, a)
		if d == Allow {
			return nil
		}
		if err != nil && reason == "" {
			reason = err.Error()
		}
		return &ForbiddenError{Attributes: a, Reason: reason}
	}
	saNamespace, saName, isServiceAccount := SplitServiceAccountName(want.Name)
	if isServiceAccount {
		err = check(Attributes{Resource: "serviceaccounts", Namespace: saNamespace, Name: saName})
	} else {
		err = check(Attributes{Resource: "users", Name: want.Name})
	}
	if err != nil {
		return nil, err
	}
	for _, g := range want.Groups {
		if err := check(Attributes{Resource: "groups", Name: g}); err != nil {
			return nil, err
		}
	}
	const group = authenticationv1.GroupName
	for _, key := range slices.Sorted(maps.Keys(want.Extra)) {
		for _, value := range want.Extra[key] {
			if err := check(Attributes{APIGroup: group, Resource: "userextras", Subresource: key, Name: value}); err != nil {
				return nil, err
			}
		}
	}
	if want.UID != "" {
		if err := check(Attributes{APIGroup: group, Resource: "uids", Name: want.UID}); err != nil {
			return nil, err
		}
	}
	if isServiceAccount && !groupsGiven {
		want.Groups = ServiceAccountGroups(saNamespace)
	}
	return withImplicitGroup(want), nil
}

// impersonated reads the headers. It returns nil when there are none.
func impersonated(h http.Header) (u *User, groupsGiven bool, err error) {
	u = &User{
		Name:   h.Get(authenticationv1.ImpersonateUserHeader),
		UID:    h.Get(authenticationv1.ImpersonateUIDHeader),
		Groups: slices.Clone(h.Values(authenticationv1.ImpersonateGroupHeader)),
		Extra:  extraHeaders(h, authenticationv1.ImpersonateUserExtraHeaderPrefix, nil),
	}
	groupsGiven = len(u.Groups) > 0
	if u.Name == "" {
		if groupsGiven || u.UID != "" || len(u.Extra) > 0 {
			return nil, false, fmt.Errorf("%w: Impersonate-Group, Impersonate-Uid and Impersonate-Extra-* need Impersonate-User beside them", ErrBadImpersonation)
		}
		return nil, false, nil
	}
	return u, groupsGiven, nil
}

// withImplicitGroup adds the group by which every user is either known or
// unknown, unless the client named one of the two itself.
func withImplicitGroup(u *User) *User {
	if u.InGroup(GroupAuthenticated) || u.InGroup(GroupUnauthenticated) {
		return u
	}
	if u.Name == UserAnonymous {
		return u.withGroup(GroupUnauthenticated)
	}
	return u.withGroup(GroupAuthenticated)
}
