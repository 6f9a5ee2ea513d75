package admission

import (
	"context"

	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// podGroupProtection keeps a PodGroup that pods are members of; the protection
// controller takes it off.
const podGroupProtection = "scheduling.k8s.io/podgroup-protection"

// PodGroupProtection puts a finalizer on new PodGroups, so that none goes while
// it has members that have not ended.
type PodGroupProtection struct{}

// Name implements Plugin.
func (PodGroupProtection) Name() string { return "PodGroupProtection" }

// Handles implements Selective.
func (PodGroupProtection) Handles(r schema.GroupResource) bool {
	return r.Group == schedulingv1beta1.GroupName && r.Resource == "podgroups"
}

// Admit implements Mutator.
func (PodGroupProtection) Admit(_ context.Context, a *Attributes) error {
	if group, ok := a.Object.(*schedulingv1beta1.PodGroup); ok && a.Operation == Create && a.Subresource == "" {
		addFinalizer(group, podGroupProtection)
	}
	return nil
}
