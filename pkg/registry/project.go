package registry

import (
	"context"
	"errors"
	"time"

	"k8s.io/apimachinery/pkg/runtime"

	"coracle/pkg/resource"
	"coracle/pkg/storage"
	"coracle/pkg/storage/cache"
)

// Projection is a view of all objects of one resource that something keeps in
// a form of its own: RBAC its roles, the node authorizer its pods.
type Projection struct {
	Resource *resource.Resource
	// Set is called with each object that is there and each that changes. The
	// object is shared and must not be changed.
	Set func(obj runtime.Object)
	// Raw is called instead of Set, where it is set, with the object as the
	// cache holds it. An error begins the projection anew.
	Raw func(o *cache.Object) error
	// Delete is called with the name of each object that went.
	Delete func(namespace, name string)
	// Synced is called once the first state is complete; may be nil.
	Synced func()
}

// projectRetry is how long a projection whose watch broke waits.
const projectRetry = 100 * time.Millisecond

// Project feeds p until ctx ends, in one goroutine: the calls are ordered.
// When its watch breaks it starts anew and deletes what has gone meanwhile.
func (r *Registry) Project(ctx context.Context, p Projection) error {
	known := map[string]*cache.Object{}
	for ctx.Err() == nil {
		err := r.projectOnce(ctx, p, known)
		if errors.Is(err, storage.ErrClosed) {
			return nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(projectRetry):
		}
	}
	return nil
}

// projectOnce runs one watch. known is what p has been told.
func (r *Registry) projectOnce(ctx context.Context, p Projection, known map[string]*cache.Object) error {
	w, err := r.cfg.Cache.Watch(ctx, Prefix(p.Resource, ""), cache.WatchOptions{Initial: true, Consistent: true})
	if err != nil {
		return err
	}
	defer w.Close()
	initial := map[string]bool{}
	for {
		events, err := w.Next(ctx)
		if err != nil {
			return err
		}
		for _, e := range events {
			switch {
			case e.InitialEnd:
				for key, o := range known {
					if !initial[key] {
						delete(known, key)
						p.Delete(o.Namespace, o.Name)
					}
				}
				initial = nil
				if p.Synced != nil {
					p.Synced()
				}
			case e.Type == cache.Added, e.Type == cache.Modified:
				if initial != nil {
					initial[e.Object.Key] = true
				}
				known[e.Object.Key] = e.Object
				if err := p.set(e.Object); err != nil {
					return err
				}
			case e.Type == cache.Deleted:
				delete(known, e.Object.Key)
				p.Delete(e.Object.Namespace, e.Object.Name)
			}
		}
	}
}

func (p *Projection) set(o *cache.Object) error {
	if p.Raw != nil {
		return p.Raw(o)
	}
	obj, err := Shared(p.Resource, o)
	if err == nil {
		p.Set(obj)
	}
	return err
}
