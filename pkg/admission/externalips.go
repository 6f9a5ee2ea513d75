package admission

import (
	"context"
	"errors"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// DenyServiceExternalIPs refuses new spec.externalIPs, with which anybody who
// may write Services can take traffic meant for others (CVE-2020-8554).
type DenyServiceExternalIPs struct{}

// Name implements Plugin.
func (DenyServiceExternalIPs) Name() string { return "DenyServiceExternalIPs" }

// Handles implements Selective.
func (DenyServiceExternalIPs) Handles(r schema.GroupResource) bool {
	return r.Group == "" && r.Resource == "services"
}

// Validate implements Validator.
func (DenyServiceExternalIPs) Validate(_ context.Context, a *Attributes) error {
	svc, ok := a.Object.(*corev1.Service)
	if !ok || a.Subresource != "" || a.Operation != Create && a.Operation != Update {
		return nil
	}
	var had []string
	if old, ok := a.Old().(*corev1.Service); ok {
		had = old.Spec.ExternalIPs
	}
	for _, ip := range svc.Spec.ExternalIPs {
		if !slices.Contains(had, ip) {
			return apierrors.NewForbidden(a.Resource.GroupResource(), a.Name,
				errors.New("spec.externalIPs: Use of external IPs is denied by admission control: use a Service of type NodePort or LoadBalancer, or start the API server with --allow-external-ips"))
		}
	}
	return nil
}
