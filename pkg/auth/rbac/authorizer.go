package rbac

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"

	"coracle/pkg/auth"
)

// Authorizer decides by the roles and bindings of a Source.
type Authorizer struct {
	source Source
	// build is held while a new index is made; index is the newest.
	build    sync.Mutex
	index    atomic.Pointer[index]
	compiler compiler
}

// New returns an Authorizer that reads source.
func New(source Source) *Authorizer { return &Authorizer{source: source} }

var (
	_ auth.Authorizer   = (*Authorizer)(nil)
	_ auth.RuleResolver = (*Authorizer)(nil)
)

// Authorize implements auth.Authorizer. The reason of an Allow names the
// binding; that of a NoOpinion names the roles that bindings of the user refer
// to and that do not exist.
func (z *Authorizer) Authorize(_ context.Context, a auth.Attributes) (auth.Decision, string, error) {
	r := newRequest(&a)
	x := z.current()
	var allowed *binding
	x.visit(a.User, a.Namespace, func(s *subject) bool {
		allowed = s.allows(&r)
		return allowed == nil
	})
	if allowed != nil {
		return auth.Allow, allowed.reason(), nil
	}
	if err := x.missing(a.User, a.Namespace); err != nil {
		return auth.NoOpinion, fmt.Sprintf("RBAC: %v", err), nil
	}
	return auth.NoOpinion, "", nil
}

// PolicyRules returns all rules that apply to the user in the namespace,
// cluster-wide ones included; with an empty namespace, only those. The error
// names roles that do not exist; the rules are right without them. The rules
// are shared: do not change them.
func (z *Authorizer) PolicyRules(u *auth.User, namespace string) ([]rbacv1.PolicyRule, error) {
	x := z.current()
	var rules []rbacv1.PolicyRule
	x.visit(u, namespace, func(s *subject) bool {
		for _, b := range s.bindings {
			rules = append(rules, b.rules...)
		}
		return true
	})
	return rules, x.missing(u, namespace)
}

// RulesFor implements auth.RuleResolver.
func (z *Authorizer) RulesFor(_ context.Context, u *auth.User, namespace string) (auth.Rules, error) {
	rules, err := z.PolicyRules(u, namespace)
	var out auth.Rules
	for i := range rules {
		r := &rules[i]
		if len(r.Resources) > 0 {
			out.Resource = append(out.Resource, authorizationv1.ResourceRule{
				Verbs:         slices.Clone(r.Verbs),
				APIGroups:     slices.Clone(r.APIGroups),
				Resources:     slices.Clone(r.Resources),
				ResourceNames: slices.Clone(r.ResourceNames),
			})
		}
		if len(r.NonResourceURLs) > 0 {
			out.NonResource = append(out.NonResource, authorizationv1.NonResourceRule{
				Verbs:           slices.Clone(r.Verbs),
				NonResourceURLs: slices.Clone(r.NonResourceURLs),
			})
		}
	}
	return out, err
}

// current returns an index that is no older than the Source was at the call.
func (z *Authorizer) current() *index {
	revision := z.source.Revision()
	if x := z.index.Load(); x != nil && x.revision == revision {
		return x
	}
	z.build.Lock()
	defer z.build.Unlock()
	// The revision is read before what it belongs to: an index made during a
	// change carries the older one and is replaced at the next call.
	revision = z.source.Revision()
	old := z.index.Load()
	if old != nil && old.revision == revision {
		return old
	}
	z.compiler.turn()
	x := newIndex(z.source, revision, &z.compiler, old)
	z.index.Store(x)
	return x
}

// missing returns the roles that bindings of the user refer to in vain.
func (x *index) missing(u *auth.User, namespace string) error {
	var errs []error
	x.visit(u, namespace, func(s *subject) bool {
		if !s.broken {
			return true
		}
		for _, b := range s.bindings {
			if b.err != nil {
				errs = append(errs, b.err)
			}
		}
		return true
	})
	return utilerrors.NewAggregate(errs)
}
