package controlplane

import (
	"context"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"coracle/pkg/registry"
)

// defaultServiceCIDR is the ServiceCIDR that the API server makes itself.
const defaultServiceCIDR = "kubernetes"

// serviceRange creates the default range of cluster addresses. It is ready at
// once: the kubernetes Service takes its first address, whether or not a
// controller runs.
func (cp *ControlPlane) serviceRange(ctx context.Context) error {
	gvr := networkingv1.SchemeGroupVersion.WithResource("servicecidrs")
	err := cp.ensure(ctx, wantedObject{gvr: gvr, obj: &networkingv1.ServiceCIDR{
		ObjectMeta: metav1.ObjectMeta{Name: defaultServiceCIDR},
		Spec:       networkingv1.ServiceCIDRSpec{CIDRs: []string{cp.cfg.ServiceCIDR.Masked().String()}},
	}})
	if err != nil {
		return err
	}
	req := registry.Request{Resource: cp.resource(gvr), Name: defaultServiceCIDR, Subresource: "status"}
	if ready, err := cp.rangeReady(ctx, req); err != nil || ready {
		return err
	}
	_, _, err = cp.registry.Update(ctx, req, func(current runtime.Object) (runtime.Object, error) {
		cidr := current.(*networkingv1.ServiceCIDR)
		if meta.FindStatusCondition(cidr.Status.Conditions, networkingv1.ServiceCIDRConditionReady) == nil {
			meta.SetStatusCondition(&cidr.Status.Conditions, metav1.Condition{
				Type: networkingv1.ServiceCIDRConditionReady, Status: metav1.ConditionTrue,
				Message: "Kubernetes default Service CIDR is ready", LastTransitionTime: metav1.Time{Time: cp.cfg.Clock.Now().Truncate(1e9)},
			})
		}
		return cidr, nil
	}, registry.UpdateOptions{WriteOptions: registry.WriteOptions{Manager: bootstrapManager, Internal: true}})
	return err
}

// rangeReady says that the range is ready already. A start that writes nothing
// needs no schemas, whose reading takes longer than all the rest of it.
func (cp *ControlPlane) rangeReady(ctx context.Context, req registry.Request) (bool, error) {
	req.Subresource = ""
	stored, err := cp.registry.Get(ctx, req, "")
	if err != nil {
		return false, err
	}
	obj, err := registry.Shared(req.Resource, stored)
	if err != nil {
		return false, err
	}
	conditions := obj.(*networkingv1.ServiceCIDR).Status.Conditions
	return meta.FindStatusCondition(conditions, networkingv1.ServiceCIDRConditionReady) != nil, nil
}
