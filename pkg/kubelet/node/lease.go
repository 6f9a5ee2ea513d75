package node

import (
	"context"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// RenewEvery is how often a node renews its Lease, which is good for
	// leaseDuration, in seconds.
	RenewEvery    = 10 * time.Second
	leaseDuration = 40
)

// keepLease renews the node's Lease until ctx ends.
func (m *Manager) keepLease(ctx context.Context) {
	var lease *coordinationv1.Lease
	for ctx.Err() == nil {
		m.retry(ctx, "renew the node's lease", func(ctx context.Context) error {
			var err error
			lease, err = m.renew(ctx, lease)
			return err
		})
		m.pause(ctx, untilTick(m.cfg.Clock.Now()))
	}
}

// untilTick is the time to the next multiple of the interval, at least a
// fifth of it away so that a renewal just before the tick counts.
func untilTick(now time.Time) time.Duration {
	d := RenewEvery - time.Duration(now.UnixNano())%RenewEvery
	if d < RenewEvery/5 {
		d += RenewEvery
	}
	return d
}

// renew writes the time into the Lease and returns it as the next base. After
// an error the next try reads it anew.
func (m *Manager) renew(ctx context.Context, lease *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	leases := m.cfg.Client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	var err error
	if lease == nil {
		lease, err = leases.Get(ctx, m.cfg.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return leases.Create(ctx, m.stamped(nil), metav1.CreateOptions{})
		}
		if err != nil {
			return nil, err
		}
	}
	updated, err := leases.Update(ctx, m.stamped(lease), metav1.UpdateOptions{})
	if err != nil {
		return nil, err
	}
	return updated, nil
}

// stamped returns a copy of the Lease, or a new one, renewed now.
func (m *Manager) stamped(old *coordinationv1.Lease) *coordinationv1.Lease {
	var owner *types.UID
	if node := m.Node(); node != nil {
		owner = &node.UID
	}
	return Lease(m.cfg.Name, owner, old, m.cfg.Clock.Now())
}

// Lease is the Lease of a node renewed now: a copy of old, or a new one when
// that is nil. The Node with the UID owns a new one, nobody when that is nil.
func Lease(name string, owner *types.UID, old *coordinationv1.Lease, now time.Time) *coordinationv1.Lease {
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: corev1.NamespaceNodeLease}}
	if old != nil {
		lease = old.DeepCopy()
	}
	if owner != nil && len(lease.OwnerReferences) == 0 {
		lease.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: name, UID: *owner}}
	}
	holder, seconds, renewed := name, int32(leaseDuration), metav1.NewMicroTime(now)
	lease.Spec.HolderIdentity, lease.Spec.LeaseDurationSeconds, lease.Spec.RenewTime = &holder, &seconds, &renewed
	return lease
}
