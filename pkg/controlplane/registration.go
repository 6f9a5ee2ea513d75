package controlplane

import (
	"context"
	"errors"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"coracle/pkg/apiserver/aggregate"
	"coracle/pkg/auth"
	"coracle/pkg/auth/policy"
	"coracle/pkg/registry"
)

const (
	// registerRetry is the wait after a write that failed.
	registerRetry = time.Second
	// removeAfter is how long a group version must have been gone before its
	// APIService is removed: another API server may know of it already.
	removeAfter = time.Second
)

// registrar keeps an APIService for each group version of custom resources.
type registrar struct {
	cp   *ControlPlane
	kick chan struct{} // one element: look again
	// unwanted is since when an APIService should go, by its UID; of run's goroutine alone.
	unwanted map[string]time.Time
}

func newRegistrar(cp *ControlPlane) *registrar {
	return &registrar{cp: cp, kick: make(chan struct{}, 1), unwanted: map[string]time.Time{}}
}

// look has the registrar look again.
func (r *registrar) look() {
	select {
	case r.kick <- struct{}{}:
	default: // it will look anyway
	}
}

// run keeps the APIServices until ctx ends.
func (r *registrar) run(ctx context.Context) error {
	if err := r.cp.WaitReady(ctx); err != nil {
		return ended(ctx, err)
	}
	ctx = auth.WithUser(ctx, self())
	r.look()
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.kick:
		case <-again:
		}
		wait, err := r.step(ctx)
		if err != nil && ctx.Err() == nil {
			r.cp.cfg.Log.Warn("the APIServices of custom resources are not all there yet", "error", err)
			wait = registerRetry
		}
		again = nil
		if wait > 0 {
			again = r.cp.cfg.Clock.After(wait)
		}
	}
}

// step does what there is to do, and returns when there is more; 0 is never.
func (r *registrar) step(ctx context.Context) (wait time.Duration, err error) {
	now := r.cp.cfg.Clock.Now()
	table := r.cp.registry.Table()
	todo := aggregate.Register(aggregate.Local(table, true), aggregate.Local(table, false), r.cp.aggregator.Stored())
	var errs []error
	for _, s := range todo.Create {
		if _, err := r.cp.registry.Create(ctx, r.request(s.Name), s, r.options()); !apierrors.IsAlreadyExists(err) {
			errs = append(errs, err)
		}
	}
	for _, s := range todo.Update {
		errs = append(errs, r.update(ctx, s))
	}
	unwanted := make(map[string]time.Time, len(todo.Remove))
	for _, s := range todo.Remove {
		since, known := r.unwanted[string(s.UID)]
		if !known {
			since = now
		}
		unwanted[string(s.UID)] = since
		if left := removeAfter - now.Sub(since); left > 0 {
			wait = max(wait, left)
			continue
		}
		errs = append(errs, r.remove(ctx, s))
	}
	r.unwanted = unwanted
	return wait, errors.Join(errs...)
}

func (r *registrar) request(name string) registry.Request {
	return registry.Request{Resource: r.cp.resource(apiServiceGVR), Name: name}
}

func (r *registrar) options() registry.WriteOptions {
	return registry.WriteOptions{Manager: bootstrapManager, Internal: true}
}

func (r *registrar) update(ctx context.Context, wanted *apiregistrationv1.APIService) error {
	_, _, err := r.cp.registry.Update(ctx, r.request(wanted.Name), func(current runtime.Object) (runtime.Object, error) {
		aggregate.Merge(current.(*apiregistrationv1.APIService), wanted.DeepCopy())
		return current, nil
	}, registry.UpdateOptions{WriteOptions: r.options()})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func (r *registrar) remove(ctx context.Context, s *apiregistrationv1.APIService) error {
	uid := s.UID
	_, _, err := r.cp.registry.Delete(ctx, r.request(s.Name), registry.DeleteOptions{WriteOptions: r.options(),
		DeleteOptions: metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// localAPIServices are those of the built-in group versions.
func (cp *ControlPlane) localAPIServices() []wantedObject {
	var out []wantedObject
	for _, s := range aggregate.Local(cp.registry.Table(), false) {
		out = append(out, wantedObject{gvr: apiServiceGVR, obj: s, merge: func(current runtime.Object) (runtime.Object, policy.Action) {
			return current, updateIf(aggregate.Merge(current.(*apiregistrationv1.APIService), s.DeepCopy()))
		}})
	}
	return out
}
