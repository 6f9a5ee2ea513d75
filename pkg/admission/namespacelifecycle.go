package admission

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// NamespaceLifecycle refuses objects in namespaces that do not exist or are
// being deleted, and the deletion of namespaces that every cluster has.
type NamespaceLifecycle struct{ Objects Objects }

// Name implements Plugin.
func (NamespaceLifecycle) Name() string { return "NamespaceLifecycle" }

// Admit implements Mutator: it comes first in the chain, before plugins that
// create something of their own.
func (p NamespaceLifecycle) Admit(ctx context.Context, a *Attributes) error {
	if a.Operation == Delete && a.Resource.Group == "" && a.Resource.Plural == "namespaces" {
		switch a.Name {
		case metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic:
			return apierrors.NewForbidden(a.Resource.GroupResource(), a.Name, fmt.Errorf("this namespace may not be deleted"))
		}
	}
	if a.Operation != Create || !a.Resource.Namespaced || a.Namespace == "" || !a.Resource.Stored() {
		return nil
	}
	if a.Subresource != "" {
		return nil // the object it is about exists
	}
	ns, err := get[*corev1.Namespace](ctx, p.Objects, namespaceGVR, "", a.Namespace)
	if err != nil {
		return err
	}
	if ns.DeletionTimestamp == nil {
		return nil
	}
	refused := apierrors.NewForbidden(a.Resource.GroupResource(), a.Name,
		fmt.Errorf("unable to create new content in namespace %s because it is being terminated", a.Namespace))
	refused.ErrStatus.Details.Causes = append(refused.ErrStatus.Details.Causes, metav1.StatusCause{
		Type: corev1.NamespaceTerminatingCause, Message: fmt.Sprintf("namespace %s is being terminated", a.Namespace), Field: "metadata.namespace",
	})
	return refused
}
