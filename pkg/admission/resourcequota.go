package admission

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"coracle/pkg/quota"
)

// Quotas reads and charges the ResourceQuotas of a namespace.
type Quotas interface {
	// List returns the quotas of a namespace, shared and never changed: from
	// the cache, or when confirmed is set as the store has them now.
	List(ctx context.Context, namespace string, confirmed bool) ([]*corev1.ResourceQuota, error)
	// Charge replaces a quota's usage by what change returns, in one
	// transaction that fails when somebody else has written the quota since
	// change saw it; then change is asked again. change may run several times.
	// With its error nothing is written, and that error is returned only after
	// change has seen what the store has. API NotFound says that there is no
	// such quota.
	Charge(ctx context.Context, namespace, name string, change func(q *corev1.ResourceQuota) (corev1.ResourceList, error)) error
}

// reserveTime bounds one change of a quota.
const reserveTime = 10 * time.Second

// ResourceQuota charges the quotas of a namespace for what a write adds, and
// refuses the write when one of them has not enough left. A quota is charged
// in the store before the object is stored, so that no number of servers and
// writers together takes more than there is. What was charged for a write that
// then fails is given back here, and what is deleted by the controller.
//
// It has to be the last plugin: what it charges, no other may still refuse.
type ResourceQuota struct {
	quotas       Quotas
	now          func() time.Time
	reservations *reservations
}

// NewResourceQuota makes the plugin. now is the time that decides whether a
// deleted pod still counts.
func NewResourceQuota(quotas Quotas, now func() time.Time) *ResourceQuota {
	return &ResourceQuota{quotas: quotas, now: now, reservations: newReservations(quotas)}
}

// Name implements Plugin.
func (*ResourceQuota) Name() string { return "ResourceQuota" }

// Validate implements Validator.
func (p *ResourceQuota) Validate(ctx context.Context, a *Attributes) error {
	if a.Operation != Create && a.Operation != Update || a.Namespace == "" || !a.Resource.Namespaced || !a.Resource.Stored() {
		return nil
	}
	quotas, err := p.quotas.List(ctx, a.Namespace, false)
	if err != nil || len(quotas) == 0 {
		return err
	}
	w := quota.Write{Subresource: a.Subresource, Object: a.Object, Now: p.now()}
	if w.Evaluator = quota.For(a.Resource.GroupResource()); w.Evaluator == nil {
		return nil
	}
	if a.Operation == Update {
		w.Old = a.Old()
	}
	if !w.Evaluator.Handles(a.Subresource, w.Object, w.Old) {
		return nil
	}
	charged, err := fits(w, quotas)
	if err != nil {
		// The cache may be behind: only what the store has refuses.
		if quotas, err = p.quotas.List(ctx, a.Namespace, true); err != nil {
			return err
		}
		if charged, err = fits(w, quotas); err != nil {
			return forbidden(a, err)
		}
	}
	if a.DryRun {
		return nil
	}
	return p.reserve(ctx, a, w, charged)
}

// fits returns the quotas that the write is charged to, by name, or why one of
// them refuses it.
func fits(w quota.Write, quotas []*corev1.ResourceQuota) ([]*corev1.ResourceQuota, error) {
	var charged []*corev1.ResourceQuota
	for _, q := range slices.SortedFunc(slices.Values(quotas), func(a, b *corev1.ResourceQuota) int { return cmp.Compare(a.Name, b.Name) }) {
		delta, err := w.Charge(q)
		if err != nil {
			return nil, err
		}
		if len(delta) == 0 {
			continue
		}
		if _, err := w.Reserve(q, q.Status.Used, delta); err != nil {
			return nil, err
		}
		charged = append(charged, q)
	}
	return charged, nil
}

// reserve charges the quotas one after the other. When one refuses, those
// before it are given back what they were charged.
func (p *ResourceQuota) reserve(ctx context.Context, a *Attributes, w quota.Write, quotas []*corev1.ResourceQuota) error {
	for _, q := range quotas {
		delta, err := p.reservations.reserve(ctx, q.Namespace, q.Name, w)
		if err != nil {
			a.Undo()
			if _, ok := errors.AsType[refusal](err); ok {
				return forbidden(a, err)
			}
			return err
		}
		if len(delta) > 0 {
			a.OnUndo(func() { p.release(ctx, q.Namespace, q.Name, delta) })
		}
	}
	return nil
}

// release gives back what was charged. When it cannot, the controller finds
// out at its next count.
func (p *ResourceQuota) release(ctx context.Context, namespace, name string, delta corev1.ResourceList) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reserveTime)
	defer cancel()
	_ = p.quotas.Charge(ctx, namespace, name, func(q *corev1.ResourceQuota) (corev1.ResourceList, error) {
		return quota.Excess(q.Status.Used, delta), nil
	})
}
