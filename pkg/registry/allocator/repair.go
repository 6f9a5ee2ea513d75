package allocator

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"coracle/pkg/registry"
	"coracle/pkg/resource"
)

// repairEvery is the time between rounds of repair.
const repairEvery = time.Minute

// Run repairs in rounds until ctx ends. The first round is the caller's, who
// calls Repair before Services are served.
func (a *Allocator) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.cfg.Clock.After(repairEvery):
		}
		if err := a.Repair(ctx); err != nil && ctx.Err() == nil {
			a.cfg.Log.Warn("cluster addresses and node ports could not be checked", "error", err)
		}
	}
}

// Repair runs one round: it makes claims that stored Services lack, takes back
// those that nobody holds, and reports values that two hold.
func (a *Allocator) Repair(ctx context.Context) error {
	a.repairing.Lock()
	defer a.repairing.Unlock()
	ctx = self(ctx)
	o, err := a.observe(ctx)
	if err != nil {
		return err
	}
	return a.mend(ctx, repair(o))
}

func (a *Allocator) observe(ctx context.Context) (observed, error) {
	o := observed{now: a.cfg.Clock.Now(), leaks: a.leaks}
	var err error
	if o.addresses, err = all[*networkingv1.IPAddress](ctx, a.cfg.Registry, a.addresses); err != nil {
		return o, fmt.Errorf("list cluster addresses: %w", err)
	}
	if o.ports, _, err = a.ports.read(ctx); err != nil {
		return o, err
	}
	cidrs, err := all[*networkingv1.ServiceCIDR](ctx, a.cfg.Registry, a.cidrs)
	if err != nil {
		return o, fmt.Errorf("list service CIDRs: %w", err)
	}
	for _, c := range cidrs {
		for _, s := range c.Spec.CIDRs {
			if p, err := netip.ParsePrefix(s); err == nil {
				o.ranges = append(o.ranges, p.Masked())
			}
		}
	}
	if o.services, err = all[*corev1.Service](ctx, a.cfg.Registry, a.services); err != nil {
		return o, fmt.Errorf("list services: %w", err)
	}
	return o, nil
}

// all reads every object of a kind, consistently.
func all[T any](ctx context.Context, r *registry.Registry, res *resource.Resource) ([]T, error) {
	list, err := r.List(ctx, registry.Request{Resource: res}, registry.ListOptions{})
	if err != nil {
		return nil, err
	}
	out := make([]T, 0, len(list.Items))
	for _, o := range list.Items {
		obj, err := registry.Shared(res, o)
		if err != nil {
			return nil, err
		}
		out = append(out, obj.(T))
	}
	return out, nil
}

func (a *Allocator) mend(ctx context.Context, r repairs) error {
	a.leaks = r.leaks
	for _, addr := range r.remove {
		a.cfg.Log.Info("a cluster address that no service holds is freed", "address", addr.Name)
		if err := a.deleteAddress(ctx, addr); err != nil {
			return fmt.Errorf("free the cluster address %s: %w", addr.Name, err)
		}
	}
	for _, m := range r.create {
		err := a.createAddress(ctx, m.service, m.address)
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("take the cluster address %s of service %s/%s: %w", m.address, m.service.Namespace, m.service.Name, err)
		}
	}
	if len(r.mark) > 0 || len(r.clear) > 0 {
		err := a.ports.change(ctx, func(set *portSet) bool {
			set.clear(r.clear)
			for _, p := range r.mark {
				set.set(p)
			}
			return true
		})
		if err != nil {
			return fmt.Errorf("repair the set of node ports: %w", err)
		}
	}
	for _, f := range r.report {
		if err := a.report(ctx, f); err != nil {
			return fmt.Errorf("report on service %s/%s: %w", f.service.Namespace, f.service.Name, err)
		}
	}
	return nil
}

// report makes an event; its name follows from what it says, so that the
// next round only renews it.
func (a *Allocator) report(ctx context.Context, f finding) error {
	now := metav1.Time{Time: a.cfg.Clock.Now().Truncate(time.Second)}
	name := fmt.Sprintf("%s.%s", f.service.Name, map[string]string{addressComponent: "address", portComponent: "port"}[f.component])
	req := registry.Request{Resource: a.events, Namespace: f.service.Namespace, Name: name}
	opts := registry.WriteOptions{Manager: f.component, Internal: true}
	event := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: f.service.Namespace},
		InvolvedObject: corev1.ObjectReference{Kind: "Service", APIVersion: "v1", Namespace: f.service.Namespace, Name: f.service.Name,
			UID: f.service.UID, ResourceVersion: f.service.ResourceVersion},
		Reason: f.reason, Message: f.message, Type: corev1.EventTypeWarning, FirstTimestamp: now, LastTimestamp: now, Count: 1,
		Source: corev1.EventSource{Component: f.component}, ReportingController: f.component,
	}
	opts.Options = &metav1.CreateOptions{}
	_, err := a.cfg.Registry.Create(ctx, req, event, opts)
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	opts.Options = &metav1.UpdateOptions{}
	_, _, err = a.cfg.Registry.Update(ctx, req, renew(event), registry.UpdateOptions{WriteOptions: opts})
	return err
}

// renew counts an event that is there already.
func renew(event *corev1.Event) registry.Change {
	return func(current runtime.Object) (runtime.Object, error) {
		had := current.(*corev1.Event)
		had.Reason, had.Message, had.LastTimestamp = event.Reason, event.Message, event.LastTimestamp
		had.Count++
		return had, nil
	}
}
