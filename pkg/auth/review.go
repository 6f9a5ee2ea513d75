package auth

import (
	"context"
	"errors"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
)

// ReviewAccess answers a SubjectAccessReview: whether the user it names may do
// what it describes. Validate the spec first.
func ReviewAccess(ctx context.Context, authz Authorizer, spec *authorizationv1.SubjectAccessReviewSpec) authorizationv1.SubjectAccessReviewStatus {
	u := &User{Name: spec.User, UID: spec.UID, Groups: slices.Clone(spec.Groups)}
	if len(spec.Extra) > 0 {
		u.Extra = make(map[string][]string, len(spec.Extra))
		for k, v := range spec.Extra {
			k = strings.ToLower(k)
			u.Extra[k] = append(u.Extra[k], v...)
		}
	}
	return review(ctx, authz, u, spec.ResourceAttributes, spec.NonResourceAttributes)
}

// ReviewSelfAccess answers a SelfSubjectAccessReview of u.
func ReviewSelfAccess(ctx context.Context, authz Authorizer, u *User, spec *authorizationv1.SelfSubjectAccessReviewSpec) authorizationv1.SubjectAccessReviewStatus {
	return review(ctx, authz, u, spec.ResourceAttributes, spec.NonResourceAttributes)
}

func review(ctx context.Context, authz Authorizer, u *User, r *authorizationv1.ResourceAttributes, n *authorizationv1.NonResourceAttributes) authorizationv1.SubjectAccessReviewStatus {
	a, parseErr := ReviewAttributes(u, r, n)
	d, reason, err := authz.Authorize(ctx, a)
	status := authorizationv1.SubjectAccessReviewStatus{
		Allowed: d == Allow,
		Denied:  d == Deny,
		Reason:  reason,
	}
	var problems []string
	if err != nil {
		problems = append(problems, err.Error())
	}
	if parseErr != nil {
		problems = append(problems, parseErr.Error())
	}
	status.EvaluationError = strings.Join(problems, "; ")
	return status
}

// ReviewAttributes returns the attributes a review of u describes. Selector
// requirements that cannot be used are left out, which can only make the
// answer stricter, and named in the error.
func ReviewAttributes(u *User, r *authorizationv1.ResourceAttributes, n *authorizationv1.NonResourceAttributes) (Attributes, error) {
	if r == nil {
		a := Attributes{User: u}
		if n != nil {
			a.Verb, a.Path = n.Verb, n.Path
		}
		return a, nil
	}
	a := Attributes{
		User:            u,
		Verb:            r.Verb,
		Namespace:       r.Namespace,
		APIGroup:        r.Group,
		APIVersion:      r.Version,
		Resource:        r.Resource,
		Subresource:     r.Subresource,
		Name:            r.Name,
		ResourceRequest: true,
	}
	if a.APIVersion == "" {
		a.APIVersion = "*"
	}
	var fieldErr, labelErr error
	a.FieldSelector, fieldErr = fieldRequirements(r.FieldSelector)
	a.LabelSelector, labelErr = labelRequirements(r.LabelSelector)
	return a, errors.Join(fieldErr, labelErr)
}

// ReviewRules answers a SelfSubjectRulesReview of u. namespace is the spec's
// and must not be empty.
func ReviewRules(ctx context.Context, resolver RuleResolver, u *User, namespace string) authorizationv1.SubjectRulesReviewStatus {
	rules, err := resolver.RulesFor(ctx, u, namespace)
	status := authorizationv1.SubjectRulesReviewStatus{
		ResourceRules:    rules.Resource,
		NonResourceRules: rules.NonResource,
		Incomplete:       rules.Incomplete,
	}
	// Both lists are required fields: empty, never null.
	if status.ResourceRules == nil {
		status.ResourceRules = []authorizationv1.ResourceRule{}
	}
	if status.NonResourceRules == nil {
		status.NonResourceRules = []authorizationv1.NonResourceRule{}
	}
	if err != nil {
		status.EvaluationError = err.Error()
	}
	return status
}

// ReviewToken answers a TokenReview. A spec without audiences asks for those
// of the API server.
func ReviewToken(ctx context.Context, tokens TokenAuthenticator, apiAudiences []string, spec *authenticationv1.TokenReviewSpec) authenticationv1.TokenReviewStatus {
	audiences := spec.Audiences
	if len(audiences) == 0 {
		audiences = apiAudiences
	}
	if spec.Token == "" || len(spec.Token) > maxTokenBytes {
		return authenticationv1.TokenReviewStatus{Error: ErrInvalidToken.Error()}
	}
	info, ok, err := tokens.AuthenticateToken(ctx, spec.Token, audiences)
	if err != nil {
		return authenticationv1.TokenReviewStatus{Error: err.Error()}
	}
	if !ok || info == nil || info.User == nil {
		return authenticationv1.TokenReviewStatus{}
	}
	return authenticationv1.TokenReviewStatus{
		Authenticated: true,
		User:          info.User.withGroup(GroupAuthenticated).UserInfo(),
		Audiences:     slices.Clone(info.Audiences),
	}
}

// ReviewSelf answers a SelfSubjectReview of u.
func ReviewSelf(u *User) authenticationv1.SelfSubjectReviewStatus {
	return authenticationv1.SelfSubjectReviewStatus{UserInfo: u.UserInfo()}
}
