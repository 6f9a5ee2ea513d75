package registry

import (
	"context"
	"errors"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"coracle/pkg/admission"
	"coracle/pkg/resource"
	"coracle/pkg/storage"
	"coracle/pkg/storage/cache"
)

// DeleteOptions are those of a delete.
type DeleteOptions struct {
	WriteOptions
	metav1.DeleteOptions
}

// Delete removes an object, or marks it when a grace period or a finalizer
// holds it. gone says that it left the store; o is its last state.
// Errors: NotFound, Conflict (preconditions), Invalid, Forbidden, Timeout.
func (r *Registry) Delete(ctx context.Context, req Request, opts DeleteOptions) (o *cache.Object, gone bool, err error) {
	if err := checkDeleteOptions(opts.DeleteOptions); err != nil {
		return nil, false, err
	}
	key, err := Key(req.Resource, req.Namespace, req.Name)
	if err != nil {
		return nil, false, err
	}
	if text := req.Resource.OrphansWarning; text != "" && !hasPolicy(opts.DeleteOptions) {
		opts.warn(text)
	}
	// As in Update, only a try on a confirmed read may refuse or change nothing.
	read := cache.Read{Any: true}
	var first attempt
	for range maxConflictRetries {
		current, err := r.cfg.Cache.Get(ctx, key, read)
		confirmed := !read.Any
		if err == nil && confirmed && first.holds(current) {
			return first.o, first.gone, storageError(first.err, req.Resource, req.Name)
		}
		if errors.Is(err, storage.ErrNotFound) && !confirmed {
			read = cache.Read{}
			continue
		}
		if err != nil {
			return nil, false, storageError(err, req.Resource, req.Name)
		}
		d := deletion{req: req, key: key, current: current, opts: opts}
		err = r.deleteOnce(ctx, &d)
		if err == nil && (d.wrote || confirmed) {
			return d.last, d.gone, nil
		}
		_, lost := errors.AsType[*storage.ConflictError](err)
		_, unknown := errors.AsType[*storage.OutcomeUnknownError](err)
		if lost || !confirmed && !unknown {
			read = cache.Read{} // shows what the transaction saw, or newer
			if first = (attempt{}); !lost {
				first = attempt{current, d.last, d.gone, err}
			}
			continue
		}
		return nil, false, storageError(err, req.Resource, req.Name)
	}
	return nil, false, errModified(req.Resource, req.Name)
}

func checkDeleteOptions(opts metav1.DeleteOptions) error {
	var errs field.ErrorList
	//lint:ignore SA1019 old clients still send orphanDependents
	orphan := opts.OrphanDependents
	if orphan != nil && opts.PropagationPolicy != nil {
		errs = append(errs, field.Invalid(field.NewPath("propagationPolicy"), *opts.PropagationPolicy,
			"orphanDependents and deletionPropagation cannot be both set"))
	}
	if p := opts.PropagationPolicy; p != nil {
		policies := []metav1.DeletionPropagation{metav1.DeletePropagationForeground, metav1.DeletePropagationBackground, metav1.DeletePropagationOrphan}
		if !slices.Contains(policies, *p) {
			errs = append(errs, field.NotSupported(field.NewPath("propagationPolicy"), *p, policies))
		}
	}
	if len(errs) > 0 {
		return Invalid(metav1.SchemeGroupVersion.WithKind("DeleteOptions").GroupKind(), "", errs)
	}
	return nil
}

// deletion is one attempt to delete an object.
type deletion struct {
	req     Request
	key     string
	current *cache.Object // what the attempt rests on
	opts    DeleteOptions

	// The result: last is the object's last state, gone says that it left the
	// store, wrote that the store has confirmed that current was the present one.
	last        *cache.Object
	gone, wrote bool
}

func (r *Registry) deleteOnce(ctx context.Context, d *deletion) error {
	res := d.req.Resource
	if err := CheckPreconditions(d.req, d.current, d.opts.Preconditions); err != nil {
		return err
	}
	attrs := r.attributes(ctx, admission.Delete, d.req, nil, nil, d.opts.WriteOptions)
	attrs.Stored = func() (runtime.Object, error) { return Shared(res, d.current) }
	if err := r.cfg.Chain.Admit(ctx, attrs); err != nil {
		return err
	}
	if err := r.cfg.Chain.Validate(ctx, attrs); err != nil {
		return err
	}
	var obj runtime.Object // only a delete that asks for it needs it
	if !r.goesAtOnce(res, d.current, d.opts.DeleteOptions) {
		old, err := Shared(res, d.current)
		if err != nil {
			return apierrors.NewInternalError(err)
		}
		obj = old.DeepCopyObject()
		if err := r.markDeleting(res, obj, d.opts.DeleteOptions); err != nil {
			return apierrors.NewInternalError(err)
		}
		if !mayGo(res, obj) {
			return r.storeMark(ctx, d, obj)
		}
	}
	d.gone = true
	if d.opts.WriteOptions.DryRun {
		d.last = d.current
		return nil
	}
	var err error
	if d.last, err = r.cfg.Cache.Delete(ctx, d.key, d.current.Revision); err != nil {
		return err
	}
	d.wrote = true
	if obj != nil { // else nobody is told
		r.deleted(ctx, res, obj)
	}
	return nil
}

// goesAtOnce says that nothing about a delete depends on how the object would be
// marked: nothing holds it and nobody is told of its last state. It may say no
// where that is so.
func (r *Registry) goesAtOnce(res *resource.Resource, o *cache.Object, opts metav1.DeleteOptions) bool {
	if res.Held != nil || res.MarkDeleting != nil || r.hook(res).Deleted != nil || o.Deleting || len(propagationFinalizers(res, nil, opts)) > 0 {
		return false
	}
	if res.Grace != nil && (res.Graceless == nil || !res.Graceless(o.Fields, opts.GracePeriodSeconds)) {
		return false
	}
	has, err := hasFinalizers(res, o)
	return err == nil && !has
}

// hasFinalizers says that an object has finalizers, without decoding it where it
// can.
func hasFinalizers(res *resource.Resource, o *cache.Object) (bool, error) {
	if !res.StoredJSON {
		raw, err := Raw(o.Value)
		if err != nil {
			return false, err
		}
		return hasMetaField(raw, metaFinalizers)
	}
	old, err := Shared(res, o)
	if err != nil {
		return false, err
	}
	acc, err := meta.Accessor(old)
	return err == nil && len(acc.GetFinalizers()) > 0, err
}

// storeMark writes an object that is now marked for deletion, unless it was
// marked that way before.
func (r *Registry) storeMark(ctx context.Context, d *deletion, obj runtime.Object) error {
	res := d.req.Resource
	value, err := Encode(res, obj)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	next, err := indexAs(res, d.key, value, d.current.Revision, true)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	d.last = next
	switch {
	case string(next.Value) == string(d.current.Value):
		d.last = d.current
	case !d.opts.WriteOptions.DryRun:
		d.last, err = r.cfg.Cache.Update(ctx, d.key, value, d.current.Revision, res.TTL)
		d.wrote = err == nil
	}
	return err
}

// markDeleting sets deletionTimestamp, grace period and the finalizers that
// the propagation policy asks for. A second delete may only shorten the grace
// period.
func (r *Registry) markDeleting(res *resource.Resource, obj runtime.Object, opts metav1.DeleteOptions) error {
	acc, err := meta.Accessor(obj)
	if err != nil {
		return err
	}
	acc.SetFinalizers(propagationFinalizers(res, acc.GetFinalizers(), opts))
	grace := seconds(0)
	if res.Grace != nil {
		if g := res.Grace(obj, opts.GracePeriodSeconds); g.Graceful {
			grace = seconds(g.Seconds)
		}
	}
	now := r.cfg.Clock.Now().Truncate(1e9)
	if acc.GetDeletionTimestamp() != nil {
		had := acc.GetDeletionGracePeriodSeconds()
		shorter := had == nil || grace < seconds(*had)
		if opts.GracePeriodSeconds == nil || !shorter {
			if res.MarkDeleting != nil {
				res.MarkDeleting(obj)
			}
			return nil
		}
		// The new deadline counts from when the first delete came.
		if had != nil {
			now = acc.GetDeletionTimestamp().Add(-seconds(*had).duration())
		}
	} else if res.HasGeneration || acc.GetGeneration() > 0 {
		acc.SetGeneration(acc.GetGeneration() + 1)
	}
	at := metav1.Time{Time: now.Add(grace.duration())}
	length := int64(grace)
	acc.SetDeletionTimestamp(&at)
	acc.SetDeletionGracePeriodSeconds(&length)
	if res.MarkDeleting != nil {
		res.MarkDeleting(obj)
	}
	return nil
}

// seconds is a grace period.
type seconds int64

func (s seconds) duration() time.Duration { return time.Duration(s) * time.Second }

// hasPolicy says that a delete gives a propagation policy.
func hasPolicy(opts metav1.DeleteOptions) bool {
	//lint:ignore SA1019 old clients still send orphanDependents
	return opts.PropagationPolicy != nil || opts.OrphanDependents != nil
}

// propagationFinalizers adds and drops the two finalizers of the garbage
// collector. Without a policy, those already there decide, and then the kind.
func propagationFinalizers(res *resource.Resource, have []string, opts metav1.DeleteOptions) []string {
	policy := metav1.DeletePropagationBackground
	switch {
	case opts.PropagationPolicy != nil:
		policy = *opts.PropagationPolicy
	case hasPolicy(opts):
		//lint:ignore SA1019 old clients still send orphanDependents
		if *opts.OrphanDependents {
			policy = metav1.DeletePropagationOrphan
		}
	case res.Orphans && !slices.Contains(have, metav1.FinalizerDeleteDependents):
		policy = metav1.DeletePropagationOrphan
	default:
		return have
	}
	out := slices.DeleteFunc(slices.Clone(have), func(f string) bool {
		return f == metav1.FinalizerOrphanDependents || f == metav1.FinalizerDeleteDependents
	})
	switch policy {
	case metav1.DeletePropagationOrphan:
		out = append(out, metav1.FinalizerOrphanDependents)
	case metav1.DeletePropagationForeground:
		out = append(out, metav1.FinalizerDeleteDependents)
	}
	return out
}

// DeleteCollection deletes every object that list selects and returns them.
// Objects that others delete meanwhile are passed over; the first other error
// ends it.
func (r *Registry) DeleteCollection(ctx context.Context, req Request, list ListOptions, opts DeleteOptions) (*cache.List, error) {
	page, err := r.List(ctx, req, list)
	if err != nil {
		return nil, err
	}
	for i, o := range page.Items {
		one := Request{Resource: req.Resource, Namespace: o.Namespace, Name: o.Name}
		last, _, err := r.Delete(ctx, one, opts)
		if err != nil && !apierrors.IsNotFound(err) {
			return nil, err
		}
		if err == nil {
			page.Items[i] = last
		}
	}
	return page, nil
}
