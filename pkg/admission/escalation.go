package admission

import (
	"context"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"coracle/pkg/auth/rbac"
)

// PrivilegeEscalation keeps users from granting, by roles and bindings, more
// than they hold. Upstream does this in the storage of the RBAC kinds; here it
// is one more plugin, so that every verb passes it.
type PrivilegeEscalation struct{ Guard *rbac.Guard }

// Name implements Plugin.
func (PrivilegeEscalation) Name() string { return "PrivilegeEscalation" }

// Handles implements Selective.
func (PrivilegeEscalation) Handles(r schema.GroupResource) bool { return r.Group == rbacv1.GroupName }

// Validate implements Validator.
func (p PrivilegeEscalation) Validate(ctx context.Context, a *Attributes) error {
	if a.Operation != Create && a.Operation != Update || a.Subresource != "" || a.Resource.Group != rbacv1.GroupName {
		return nil
	}
	if err := p.check(ctx, a); err != nil {
		if rbac.IsEscalation(err) {
			return apierrors.NewForbidden(a.Resource.GroupResource(), a.Name, err)
		}
		return err
	}
	return nil
}

func (p PrivilegeEscalation) check(ctx context.Context, a *Attributes) error {
	switch o := a.Object.(type) {
	case *rbacv1.Role:
		old, _ := a.Old().(*rbacv1.Role)
		return p.Guard.Role(ctx, a.User, old, o)
	case *rbacv1.ClusterRole:
		old, _ := a.Old().(*rbacv1.ClusterRole)
		return p.Guard.ClusterRole(ctx, a.User, old, o)
	case *rbacv1.RoleBinding:
		if old, ok := a.Old().(*rbacv1.RoleBinding); ok && sameGrant(old.RoleRef, o.RoleRef, old.Subjects, o.Subjects) {
			return nil
		}
		return p.Guard.RoleBinding(ctx, a.User, o)
	case *rbacv1.ClusterRoleBinding:
		if old, ok := a.Old().(*rbacv1.ClusterRoleBinding); ok && sameGrant(old.RoleRef, o.RoleRef, old.Subjects, o.Subjects) {
			return nil
		}
		return p.Guard.ClusterRoleBinding(ctx, a.User, o)
	}
	return nil
}

func sameGrant(oldRef, ref rbacv1.RoleRef, oldSubjects, subjects []rbacv1.Subject) bool {
	if oldRef != ref || len(oldSubjects) != len(subjects) {
		return false
	}
	for i := range subjects {
		if subjects[i] != oldSubjects[i] {
			return false
		}
	}
	return true
}
