package controlplane

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"

	"coracle/pkg/admission"
	"coracle/pkg/auth"
	"coracle/pkg/registry"
)

// quotaStore reads and charges ResourceQuotas for admission.
type quotaStore struct{ cp *ControlPlane }

var quotaGVR = corev1.SchemeGroupVersion.WithResource("resourcequotas")

// List implements admission.Quotas.
func (s quotaStore) List(ctx context.Context, namespace string, confirmed bool) ([]*corev1.ResourceQuota, error) {
	version := "0"
	if confirmed {
		version = ""
	}
	res := s.cp.resource(quotaGVR)
	page, err := s.cp.registry.List(ctx, registry.Request{Resource: res, Namespace: namespace}, registry.ListOptions{Version: version})
	if err != nil {
		return nil, err
	}
	var out []*corev1.ResourceQuota
	for _, o := range page.Items {
		obj, err := registry.Shared(res, o)
		if err != nil {
			return nil, err
		}
		out = append(out, obj.(*corev1.ResourceQuota))
	}
	return out, nil
}

// Charge implements admission.Quotas.
func (s quotaStore) Charge(ctx context.Context, namespace, name string, change func(q *corev1.ResourceQuota) (corev1.ResourceList, error)) error {
	res := s.cp.resource(quotaGVR)
	// The registry shows change the cached quota first, and what the store has
	// before it gives up.
	refused := apierrors.NewForbidden(res.GroupResource(), name, errors.New("the quota is not charged"))
	var why error
	_, _, err := s.cp.registry.Update(auth.WithUser(ctx, self()),
		registry.Request{Resource: res, Subresource: "status", Namespace: namespace, Name: name},
		func(current runtime.Object) (runtime.Object, error) {
			q := current.(*corev1.ResourceQuota)
			used, err := change(q)
			if err != nil {
				why = err
				return nil, refused
			}
			q.Status.Used = used
			return q, nil
		},
		registry.UpdateOptions{WriteOptions: registry.WriteOptions{Manager: bootstrapManager, Internal: true}})
	if errors.Is(err, refused) {
		return why
	}
	return err
}

var _ admission.Quotas = quotaStore{}
