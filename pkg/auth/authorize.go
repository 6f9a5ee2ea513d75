package auth

import (
	"context"
	"errors"
	"strconv"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
)

// Attributes are what an authorization decision is made of.
type Attributes struct {
	// User is who asks; never nil.
	User *User
	// Verb is the API verb (get, list, watch, create, update, patch, delete,
	// deletecollection, proxy and custom ones), or the lower case HTTP method
	// when ResourceRequest is false.
	Verb string
	// Namespace is empty for cluster-scoped objects and for all namespaces.
	Namespace string
	// APIGroup is empty for the core group.
	APIGroup, APIVersion string
	// Resource is the plural name; Subresource is what follows it, without the
	// slash, or empty.
	Resource, Subresource string
	// Name is empty when the request is not about one named object.
	Name string
	// Path is the URL path; only this and Verb count when ResourceRequest is
	// false.
	Path string
	// ResourceRequest tells requests for API objects from all others.
	ResourceRequest bool
	// FieldSelector and LabelSelector narrow a list, watch or
	// deletecollection. They are nil when the request has none or when its
	// selector could not be parsed: an authorizer may allow more because of
	// them, never less.
	FieldSelector fields.Requirements
	LabelSelector labels.Requirements
}

// ReadOnly says whether the verb can change nothing.
func (a *Attributes) ReadOnly() bool {
	return a.Verb == "get" || a.Verb == "list" || a.Verb == "watch"
}

// Forbidden is the sentence that tells a user that this request is refused,
// with the authorizer's reason, if any, at its end. It is what follows
// `<resource> is forbidden: ` in the message of a 403 Status.
func (a *Attributes) Forbidden(reason string) string {
	var b strings.Builder
	name := ""
	if a.User != nil {
		name = a.User.Name
	}
	b.WriteString("User " + strconv.Quote(name) + " cannot ")
	if !a.ResourceRequest {
		b.WriteString(a.Verb + " path " + strconv.Quote(a.Path))
	} else {
		resource := a.Resource
		if a.Subresource != "" {
			resource += "/" + a.Subresource
		}
		b.WriteString(a.Verb + " resource " + strconv.Quote(resource) + " in API group " + strconv.Quote(a.APIGroup))
		if a.Namespace != "" {
			b.WriteString(" in the namespace " + strconv.Quote(a.Namespace))
		} else {
			b.WriteString(" at the cluster scope")
		}
	}
	if reason != "" {
		b.WriteString(": " + reason)
	}
	return b.String()
}

// Decision is an authorizer's answer. The zero value refuses.
type Decision int

// The decisions.
const (
	// Deny refuses, and nobody later in the chain is asked.
	Deny Decision = iota
	// Allow grants, and nobody later in the chain is asked.
	Allow
	// NoOpinion leaves the answer to the next; at the end it refuses.
	NoOpinion
)

func (d Decision) String() string {
	switch d {
	case Allow:
		return "allow"
	case NoOpinion:
		return "no opinion"
	default:
		return "deny"
	}
}

// Authorizer decides on requests. The reason explains the decision to the user
// or the audit log and may be empty. An error says that the decision was made
// without all that it should be based on; it may come with any decision.
type Authorizer interface {
	Authorize(ctx context.Context, a Attributes) (d Decision, reason string, err error)
}

// Rules are what a user may do, in the form SelfSubjectRulesReview shows.
type Rules struct {
	Resource    []authorizationv1.ResourceRule
	NonResource []authorizationv1.NonResourceRule
	// Incomplete is true when the user may be able to do more than is listed.
	Incomplete bool
}

// RuleResolver lists what a user may do in one namespace (cluster-wide grants
// included). An error comes with what could be found.
type RuleResolver interface {
	RulesFor(ctx context.Context, u *User, namespace string) (Rules, error)
}

// AuthorizerFunc makes an Authorizer of a function.
type AuthorizerFunc func(ctx context.Context, a Attributes) (Decision, string, error)

// Authorize calls f.
func (f AuthorizerFunc) Authorize(ctx context.Context, a Attributes) (Decision, string, error) {
	return f(ctx, a)
}

// Masters allows everything to the group system:masters, so that a cluster
// whose roles are lost can be repaired. It has no opinion on anybody else.
type Masters struct{}

// Authorize implements Authorizer.
func (Masters) Authorize(_ context.Context, a Attributes) (Decision, string, error) {
	if a.User.InGroup(GroupMasters) {
		return Allow, "", nil
	}
	return NoOpinion, "", nil
}

// RulesFor implements RuleResolver.
func (Masters) RulesFor(_ context.Context, u *User, _ string) (Rules, error) {
	if !u.InGroup(GroupMasters) {
		return Rules{}, nil
	}
	all := []string{"*"}
	return Rules{
		Resource:    []authorizationv1.ResourceRule{{Verbs: all, APIGroups: all, Resources: all}},
		NonResource: []authorizationv1.NonResourceRule{{Verbs: all, NonResourceURLs: all}},
	}, nil
}

// Union asks its members in order. The first Allow or Deny is the answer; the
// reasons and errors of those without an opinion are kept and returned when
// nobody has one.
type Union []Authorizer

// Authorize implements Authorizer.
func (u Union) Authorize(ctx context.Context, a Attributes) (Decision, string, error) {
	var reasons []string
	var errs []error
	for _, m := range u {
		d, reason, err := m.Authorize(ctx, a)
		if d != NoOpinion {
			return d, reason, err
		}
		if reason != "" {
			reasons = append(reasons, reason)
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return NoOpinion, strings.Join(reasons, "\n"), errors.Join(errs...)
}

// RulesFor implements RuleResolver: the rules of all members that can list
// theirs; a member that cannot makes the answer incomplete.
func (u Union) RulesFor(ctx context.Context, user *User, namespace string) (Rules, error) {
	var all Rules
	var errs []error
	for _, m := range u {
		r, ok := m.(RuleResolver)
		if !ok {
			all.Incomplete = true
			continue
		}
		rules, err := r.RulesFor(ctx, user, namespace)
		if err != nil {
			errs = append(errs, err)
		}
		all.Resource = append(all.Resource, rules.Resource...)
		all.NonResource = append(all.NonResource, rules.NonResource...)
		all.Incomplete = all.Incomplete || rules.Incomplete
	}
	return all, errors.Join(errs...)
}

var (
	_ Authorizer   = Union(nil)
	_ RuleResolver = Union(nil)
	_ Authorizer   = Masters{}
	_ RuleResolver = Masters{}
)
