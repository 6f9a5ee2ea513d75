package rbac

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"coracle/pkg/auth"
)

// mergeAbove is the number of bindings of one subject above which their rules
// are merged into one set. Below it subjects share the sets of their roles,
// which keeps a cluster with one edit binding for each of a thousand
// namespaces small.
const mergeAbove = 8

// index is the roles and bindings of one revision. What is filled in later is
// guarded and computed once.
type index struct {
	revision uint64
	source   Source
	cluster  *scope

	mu sync.RWMutex
	// namespaces holds the scopes asked for so far, stale those of the index
	// before, to be used again if nothing of theirs changed; guarded by mu.
	namespaces, stale map[string]*scope

	compiler *compiler
}

// rulesKey is the identity of a role's rules: holding it keeps their memory
// from being used for others.
type rulesKey struct {
	first *rbacv1.PolicyRule
	n     int
}

// scope is the bindings of the cluster or of one namespace, by subject. It is
// immutable but for what its subjects compute once.
type scope struct {
	// inputs is all that the scope was made from.
	inputs        []input
	users, groups map[string]*subject
}

// input is one binding and the rules its role had.
type input struct {
	binding any
	rules   rulesKey
}

// subject is a user or group and what binds it in one scope.
type subject struct {
	bindings []*binding
	// broken says that the role of a binding does not exist.
	broken bool
	once   sync.Once
	// merged is nil when there are few bindings; set once by once.
	merged *ruleSet
}

// binding is one subject of one binding object.
type binding struct {
	rules []rbacv1.PolicyRule
	set   *ruleSet
	// err says that the role does not exist; rules are then empty.
	err error
	// describe makes the reason, text keeps it.
	describe func() string
	text     atomic.Pointer[string]
}

func (b *binding) reason() string {
	if s := b.text.Load(); s != nil {
		return *s
	}
	s := b.describe()
	b.text.Store(&s)
	return s
}

func newIndex(source Source, revision uint64, c *compiler, old *index) *index {
	x := &index{
		revision:   revision,
		source:     source,
		namespaces: map[string]*scope{},
		compiler:   c,
	}
	var cluster *scope
	if old != nil {
		old.mu.Lock()
		x.stale = old.namespaces
		old.namespaces = map[string]*scope{}
		old.mu.Unlock()
		cluster = old.cluster
	}
	x.cluster = x.clusterScope(cluster)
	return x
}

// visit calls f with each subject that is the user, until f returns false:
// first in the cluster, then in the namespace if there is one.
func (x *index) visit(u *auth.User, namespace string, f func(*subject) bool) {
	if u == nil || !x.cluster.visit(u, f) || namespace == "" {
		return
	}
	x.namespace(namespace).visit(u, f)
}

func (s *scope) visit(u *auth.User, f func(*subject) bool) bool {
	if s == nil {
		return true
	}
	if sub := s.users[u.Name]; sub != nil && !f(sub) {
		return false
	}
	for _, g := range u.Groups {
		if sub := s.groups[g]; sub != nil && !f(sub) {
			return false
		}
	}
	return true
}

func (x *index) namespace(name string) *scope {
	x.mu.RLock()
	s, ok := x.namespaces[name]
	stale := x.stale[name]
	x.mu.RUnlock()
	if ok {
		return s
	}
	bindings := x.source.RoleBindings(name)
	if len(bindings) == 0 {
		// Not kept: names of namespaces come from requests, and those that do
		// not exist must not fill the memory.
		return nil
	}
	s = x.namespaceScope(bindings, stale)
	x.mu.Lock()
	defer x.mu.Unlock()
	if first, ok := x.namespaces[name]; ok {
		return first
	}
	x.namespaces[name] = s
	return s
}

// clusterScope returns old when nothing of it changed.
func (x *index) clusterScope(old *scope) *scope {
	bindings := x.source.ClusterRoleBindings()
	resolved := make([]resolvedRole, len(bindings))
	inputs := make([]input, len(bindings))
	for i, b := range bindings {
		resolved[i] = x.resolve(&b.RoleRef, "")
		inputs[i] = input{b, resolved[i].key()}
	}
	if old != nil && slices.Equal(old.inputs, inputs) {
		return old
	}
	s := newScope(inputs)
	for i, b := range bindings {
		for j := range b.Subjects {
			sub := &b.Subjects[j]
			s.add(sub, "", x.newBinding(&resolved[i], func() string {
				return fmt.Sprintf("RBAC: allowed by ClusterRoleBinding %q of %s %q to %s", b.Name, b.RoleRef.Kind, b.RoleRef.Name, describeSubject(sub, ""))
			}))
		}
	}
	return s
}

// namespaceScope returns old when nothing of it changed.
func (x *index) namespaceScope(bindings []*rbacv1.RoleBinding, old *scope) *scope {
	resolved := make([]resolvedRole, len(bindings))
	inputs := make([]input, len(bindings))
	for i, b := range bindings {
		resolved[i] = x.resolve(&b.RoleRef, b.Namespace)
		inputs[i] = input{b, resolved[i].key()}
	}
	if old != nil && slices.Equal(old.inputs, inputs) {
		return old
	}
	s := newScope(inputs)
	for i, b := range bindings {
		for j := range b.Subjects {
			sub := &b.Subjects[j]
			s.add(sub, b.Namespace, x.newBinding(&resolved[i], func() string {
				return fmt.Sprintf("RBAC: allowed by RoleBinding %q of %s %q to %s", b.Name+"/"+b.Namespace, b.RoleRef.Kind, b.RoleRef.Name, describeSubject(sub, b.Namespace))
			}))
		}
	}
	return s
}

func newScope(inputs []input) *scope {
	return &scope{inputs: inputs, users: map[string]*subject{}, groups: map[string]*subject{}}
}

// resolvedRole is what a binding refers to, or why there is none.
type resolvedRole struct {
	rules []rbacv1.PolicyRule
	err   error
}

func (r *resolvedRole) key() rulesKey {
	if r.err != nil {
		return rulesKey{n: -1}
	}
	if len(r.rules) == 0 {
		return rulesKey{}
	}
	return rulesKey{&r.rules[0], len(r.rules)}
}

func (x *index) resolve(ref *rbacv1.RoleRef, namespace string) resolvedRole {
	rules, err := resolveRef(x.source, ref, namespace)
	return resolvedRole{rules, err}
}

// resolveRef returns the rules that a binding in the namespace, which is empty
// for a ClusterRoleBinding, refers to.
func resolveRef(source Source, ref *rbacv1.RoleRef, namespace string) ([]rbacv1.PolicyRule, error) {
	switch {
	case ref.Kind == "ClusterRole":
		if r, ok := source.ClusterRole(ref.Name); ok {
			return r.Rules, nil
		}
		return nil, apierrors.NewNotFound(rbacv1.Resource("clusterrole"), ref.Name)
	case ref.Kind == "Role" && namespace != "":
		if r, ok := source.Role(namespace, ref.Name); ok {
			return r.Rules, nil
		}
		return nil, apierrors.NewNotFound(rbacv1.Resource("role"), ref.Name)
	default:
		return nil, fmt.Errorf("unsupported role reference kind: %q", ref.Kind)
	}
}

func (x *index) newBinding(r *resolvedRole, describe func() string) *binding {
	return &binding{rules: r.rules, set: x.compiler.compile(r), err: r.err, describe: describe}
}

func (s *scope) add(sub *rbacv1.Subject, namespace string, b *binding) {
	into, name := s.users, sub.Name
	switch sub.Kind {
	case rbacv1.UserKind:
	case rbacv1.GroupKind:
		into = s.groups
	case rbacv1.ServiceAccountKind:
		if sub.Namespace != "" {
			namespace = sub.Namespace
		}
		if namespace == "" {
			return
		}
		name = auth.ServiceAccountName(namespace, sub.Name)
	default:
		return
	}
	if into[name] == nil {
		into[name] = &subject{}
	}
	into[name].bindings = append(into[name].bindings, b)
	into[name].broken = into[name].broken || b.err != nil
}

// allows returns the first binding found that allows the request, or nil.
func (s *subject) allows(r *request) *binding {
	if len(s.bindings) <= mergeAbove {
		for _, b := range s.bindings {
			if b.set == nil {
				continue
			}
			if _, ok := b.set.allows(r); ok {
				return b
			}
		}
		return nil
	}
	s.once.Do(func() {
		s.merged = newRuleSet()
		for i, b := range s.bindings {
			if b.set != nil {
				s.merged.merge(b.set, int32(i))
			}
		}
	})
	if from, ok := s.merged.allows(r); ok {
		return s.bindings[from]
	}
	return nil
}

func describeSubject(s *rbacv1.Subject, bindingNamespace string) string {
	if s.Kind != rbacv1.ServiceAccountKind {
		return fmt.Sprintf("%s %q", s.Kind, s.Name)
	}
	namespace := s.Namespace
	if namespace == "" {
		namespace = bindingNamespace
	}
	return fmt.Sprintf("%s %q", s.Kind, s.Name+"/"+namespace)
}
