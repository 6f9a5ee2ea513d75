package rbac

import (
	"maps"
	"slices"
	"sync"

	rbacv1 "k8s.io/api/rbac/v1"
)

// Source is where an Authorizer reads roles and bindings. What it returns is
// shared and never changed: a changed object is another pointer.
type Source interface {
	// Revision differs whenever anything below may answer differently.
	Revision() uint64
	ClusterRole(name string) (*rbacv1.ClusterRole, bool)
	Role(namespace, name string) (*rbacv1.Role, bool)
	// ClusterRoleBindings returns all, in an order that stays the same while
	// nothing changes.
	ClusterRoleBindings() []*rbacv1.ClusterRoleBinding
	RoleBindings(namespace string) []*rbacv1.RoleBinding
}

// Store is a Source that is told of each change. Its zero value is empty and
// ready. All methods are safe for concurrent use; objects given to it must not
// be changed afterwards.
type Store struct {
	mu sync.RWMutex
	// All below is guarded by mu. The slices are made on demand and dropped
	// when one of theirs changes.
	revision            uint64
	clusterRoles        map[string]*rbacv1.ClusterRole
	roles               map[objectKey]*rbacv1.Role
	clusterRoleBindings map[string]*rbacv1.ClusterRoleBinding
	roleBindings        map[string]map[string]*rbacv1.RoleBinding
	clusterList         []*rbacv1.ClusterRoleBinding
	namespaceLists      map[string][]*rbacv1.RoleBinding
}

type objectKey struct{ namespace, name string }

// Revision implements Source.
func (s *Store) Revision() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.revision
}

// ClusterRole implements Source.
func (s *Store) ClusterRole(name string) (*rbacv1.ClusterRole, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	r, ok := s.clusterRoles[name]
	return r, ok
}

// Role implements Source.
func (s *Store) Role(namespace, name string) (*rbacv1.Role, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	r, ok := s.roles[objectKey{namespace, name}]
	return r, ok
}

// ClusterRoleBindings implements Source; they are in the order of their names.
func (s *Store) ClusterRoleBindings() []*rbacv1.ClusterRoleBinding {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clusterList == nil {
		s.clusterList = byName(s.clusterRoleBindings)
	}
	return s.clusterList
}

// RoleBindings implements Source; they are in the order of their names.
func (s *Store) RoleBindings(namespace string) []*rbacv1.RoleBinding {
	s.mu.Lock()
	defer s.mu.Unlock()
	list, ok := s.namespaceLists[namespace]
	if ok || len(s.roleBindings[namespace]) == 0 {
		return list
	}
	if s.namespaceLists == nil {
		s.namespaceLists = map[string][]*rbacv1.RoleBinding{}
	}
	list = byName(s.roleBindings[namespace])
	s.namespaceLists[namespace] = list
	return list
}

func byName[T any](m map[string]T) []T {
	list := make([]T, 0, len(m))
	for _, name := range slices.Sorted(maps.Keys(m)) {
		list = append(list, m[name])
	}
	return list
}

// SetClusterRole takes a created or changed ClusterRole.
func (s *Store) SetClusterRole(r *rbacv1.ClusterRole) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revision++
	put(&s.clusterRoles, r.Name, r)
}

// DeleteClusterRole takes a deletion.
func (s *Store) DeleteClusterRole(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revision++
	delete(s.clusterRoles, name)
}

// SetRole takes a created or changed Role.
func (s *Store) SetRole(r *rbacv1.Role) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revision++
	put(&s.roles, objectKey{r.Namespace, r.Name}, r)
}

// DeleteRole takes a deletion.
func (s *Store) DeleteRole(namespace, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revision++
	delete(s.roles, objectKey{namespace, name})
}

// SetClusterRoleBinding takes a created or changed ClusterRoleBinding.
func (s *Store) SetClusterRoleBinding(b *rbacv1.ClusterRoleBinding) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revision++
	s.clusterList = nil
	put(&s.clusterRoleBindings, b.Name, b)
}

// DeleteClusterRoleBinding takes a deletion.
func (s *Store) DeleteClusterRoleBinding(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revision++
	s.clusterList = nil
	delete(s.clusterRoleBindings, name)
}

// SetRoleBinding takes a created or changed RoleBinding.
func (s *Store) SetRoleBinding(b *rbacv1.RoleBinding) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revision++
	delete(s.namespaceLists, b.Namespace)
	in := s.roleBindings[b.Namespace]
	put(&in, b.Name, b)
	put(&s.roleBindings, b.Namespace, in)
}

// DeleteRoleBinding takes a deletion.
func (s *Store) DeleteRoleBinding(namespace, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revision++
	delete(s.namespaceLists, namespace)
	in := s.roleBindings[namespace]
	delete(in, name)
	if len(in) == 0 {
		delete(s.roleBindings, namespace)
	}
}

func put[K comparable, V any](m *map[K]V, k K, v V) {
	if *m == nil {
		*m = map[K]V{}
	}
	(*m)[k] = v
}

var _ Source = (*Store)(nil)
