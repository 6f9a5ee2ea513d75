package controlplane

import (
	"context"
	"errors"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/apiserver"
	"coracle/pkg/registry"
)

// components are what componentstatuses tells of: the store, and the roles
// wherever they run.
func (cp *ControlPlane) components() []apiserver.Check {
	return []apiserver.Check{
		{Name: "scheduler", Check: cp.role("kube-scheduler")},
		{Name: "controller-manager", Check: cp.role("kube-controller-manager")},
		{Name: "etcd-0", Check: func(ctx context.Context) error {
			if _, err := cp.cache.Current(ctx); err != nil {
				return fmt.Errorf("the store does not answer: %w", err)
			}
			return nil
		}},
	}
}

// role says whether a role is there: in this process, or as the holder of its
// lease.
func (cp *ControlPlane) role(lease string) func(context.Context) error {
	return func(ctx context.Context) error {
		if cp.cfg.Roles {
			return nil
		}
		res := cp.resource(coordinationv1.SchemeGroupVersion.WithResource("leases"))
		o, err := cp.registry.Get(ctx, registry.Request{Resource: res, Namespace: metav1.NamespaceSystem, Name: lease}, "")
		if err != nil {
			return err
		}
		obj, err := registry.Shared(res, o)
		if err != nil {
			return err
		}
		return leaseHeld(obj.(*coordinationv1.Lease), cp.cfg.Clock.Now())
	}
}

// leaseHeld returns nil while somebody renews the lease.
func leaseHeld(l *coordinationv1.Lease, now time.Time) error {
	s := &l.Spec
	if s.HolderIdentity == nil || *s.HolderIdentity == "" || s.RenewTime == nil || s.LeaseDurationSeconds == nil {
		return errors.New("nobody holds the lease " + l.Name)
	}
	if until := s.RenewTime.Add(time.Duration(*s.LeaseDurationSeconds) * time.Second); now.After(until) {
		return fmt.Errorf("the lease %s of %s has ended at %s", l.Name, *s.HolderIdentity, until.UTC().Format(time.RFC3339))
	}
	return nil
}
