package registry

import (
	"context"
	"errors"
	"fmt"

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

// maxConflictRetries bounds how often a write without a resourceVersion is
// recomputed because others wrote in between.
const maxConflictRetries = 100

// Change computes the wanted object from the current one, which it may keep
// or change: it is decoded for this call alone. current is an empty object
// when there is none and the update may create. It runs again after a
// conflict, so it has no side effects.
type Change func(current runtime.Object) (runtime.Object, error)

// UpdateOptions are those of an update.
type UpdateOptions struct {
	WriteOptions
	// Preconditions of the request; nil fields are not checked.
	Preconditions *metav1.Preconditions
	// AllowCreate creates the object when there is none.
	AllowCreate bool
	// KeepManagers leaves managedFields as change made them: apply has noted who
	// owns what, and what the server itself writes belongs to nobody.
	KeepManagers bool
	// Verbatim skips the resource's own preparation, for internal writes that
	// move fields no client may (binding sets spec.nodeName).
	Verbatim bool
	// Splice, when not nil, is tried before the change: it writes it into the
	// encoded object, so that none is decoded. See Splice.
	Splice Splice
	// onStored replaces the change where there is an object: it works on the
	// bytes that are kept of it, and spares making and decoding them again.
	onStored func(current *cache.Object) (runtime.Object, error)
}

// Update replaces the object by what change makes of it and returns the
// stored result; created says that there was none. An object that comes out
// equal is not written: its resourceVersion stays.
// Errors: NotFound, Conflict, Invalid, Forbidden (admission), Timeout.
func (r *Registry) Update(ctx context.Context, req Request, change Change, opts UpdateOptions) (o *cache.Object, created bool, err error) {
	key, err := Key(req.Resource, req.Namespace, req.Name)
	if err != nil {
		return nil, false, err
	}
	// The first try rests on the cache, which may trail the store when other
	// servers write; only a try on a confirmed read may refuse or skip.
	read := cache.Read{Any: true}
	var first attempt
	for range maxConflictRetries {
		current, err := r.cfg.Cache.Get(ctx, key, read)
		confirmed := !read.Any
		if err == nil && confirmed && first.holds(current) {
			return first.o, false, storageError(first.err, req.Resource, req.Name)
		}
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			return nil, false, storageError(err, req.Resource, req.Name)
		}
		if err != nil && !confirmed {
			read = cache.Read{}
			continue
		}
		if err != nil {
			if !opts.AllowCreate {
				return nil, false, apierrors.NewNotFound(req.Resource.GroupResource(), req.Name)
			}
			o, err := r.createByUpdate(ctx, req, change, opts)
			if apierrors.IsAlreadyExists(err) {
				continue // somebody else was first: it is an update now
			}
			return o, err == nil, err
		}
		o, wrote, err := r.updateOnce(ctx, req, key, current, change, opts)
		if err == nil && (wrote || confirmed) {
			return o, false, nil
		}
		_, lost := errors.AsType[*storage.ConflictError](err)
		// A write whose outcome is not known may have happened.
		_, unknown := errors.AsType[*storage.OutcomeUnknownError](err)
		if lost || !confirmed && !unknown {
			read = cache.Read{} // shows what the transaction saw, or newer
			if first = (attempt{}); !lost {
				first = attempt{on: current, o: o, err: err}
			}
			continue
		}
		return nil, false, storageError(err, req.Resource, req.Name)
	}
	return nil, false, errModified(req.Resource, req.Name)
}

// attempt is what a write came to on an object as the cache had it: once the
// store has confirmed that it is still so, nobody needs to be asked again.
type attempt struct {
	on, o *cache.Object
	gone  bool
	err   error
}

// holds says that the attempt was made on current.
func (a *attempt) holds(current *cache.Object) bool {
	return a.on != nil && a.on.Revision == current.Revision
}

func (r *Registry) createByUpdate(ctx context.Context, req Request, change Change, opts UpdateOptions) (*cache.Object, error) {
	obj, err := change(req.Resource.New())
	if err != nil {
		return nil, err
	}
	acc, err := meta.Accessor(obj)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if p := opts.Preconditions; p != nil && p.UID != nil || acc.GetUID() != "" {
		return nil, apierrors.NewConflict(req.Resource.GroupResource(), req.Name,
			errors.New("the object does not exist, so a precondition on its UID cannot hold"))
	}
	acc.SetResourceVersion("")
	return r.createNamed(ctx, req, obj, opts.WriteOptions, opts.KeepManagers)
}

// updateOnce makes one attempt on current. wrote is false when the result
// equals current.
func (r *Registry) updateOnce(ctx context.Context, req Request, key string, current *cache.Object, change Change, opts UpdateOptions) (o *cache.Object, wrote bool, err error) {
	res := req.Resource
	if opts.Splice != nil && !opts.DryRun && !res.StoredJSON {
		if o, done, err := r.splice(ctx, req, key, current, opts); done || err != nil {
			return o, done, err
		}
	}
	old, err := Shared(res, current)
	if err != nil {
		return nil, false, apierrors.NewInternalError(err)
	}
	if err := CheckPreconditions(req, current, opts.Preconditions); err != nil {
		return nil, false, err
	}
	obj, err := r.wanted(ctx, req, current, old, change, opts)
	if err != nil {
		return nil, false, err
	}
	undo, err := r.hookUpdate(ctx, res, obj, old, opts.DryRun)
	if err != nil {
		return nil, false, err
	}
	attrs := r.attributes(ctx, admission.Update, req, obj, old, opts.WriteOptions)
	o, wrote, err = r.storeUpdate(ctx, req, key, current, attrs, opts)
	if err != nil && !outcomeUnknown(storageError(err, res, req.Name)) || err == nil && !wrote {
		undo()
		attrs.Undo()
	}
	return o, wrote, err
}

// wanted runs change and everything that completes its result before it is
// validated.
func (r *Registry) wanted(ctx context.Context, req Request, current *cache.Object, old runtime.Object, change Change, opts UpdateOptions) (runtime.Object, error) {
	res := req.Resource
	var obj runtime.Object
	var err error
	if opts.onStored != nil {
		obj, err = opts.onStored(current)
	} else {
		obj, err = change(old.DeepCopyObject())
	}
	if err != nil {
		return nil, err
	}
	acc, err := meta.Accessor(obj)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	oldAcc, err := meta.Accessor(old)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	if err := checkUpdateMeta(req, acc, oldAcc); err != nil {
		return nil, err
	}
	if !opts.KeepManagers {
		if res.Default != nil {
			res.Default(obj)
		}
		obj = r.own(req, old, obj, opts.Manager)
		if acc, err = meta.Accessor(obj); err != nil {
			return nil, apierrors.NewInternalError(err)
		}
	}
	if err := r.admit(ctx, r.attributes(ctx, admission.Update, req, obj, old, opts.WriteOptions)); err != nil {
		return nil, err
	}
	if res.Default != nil {
		res.Default(obj) // what a plugin added too
	}
	acc.SetResourceVersion("")
	r.completeUpdate(req, obj, old, acc, oldAcc, opts.Verbatim)
	return obj, nil
}

// checkUpdateMeta refuses a body that is about another object or another
// version of it, and fills in what it left out.
func checkUpdateMeta(req Request, acc, old metav1.Object) error {
	if err := checkMetaSize(req, acc); err != nil {
		return err
	}
	if acc.GetName() != req.Name {
		if acc.GetName() != "" {
			return apierrors.NewBadRequest("the name of the object (" + acc.GetName() + ") does not match the name on the URL (" + req.Name + ")")
		}
		acc.SetName(req.Name)
	}
	if err := setNamespace(req, acc); err != nil {
		return err
	}
	if rv := acc.GetResourceVersion(); rv == "" || rv == "0" {
		if !req.Resource.UnconditionalUpdate {
			return Invalid(req.Resource.GVK().GroupKind(), req.Name, field.ErrorList{field.Invalid(
				field.NewPath("metadata", "resourceVersion"), acc.GetResourceVersion(), "must be specified for an update")})
		}
	} else if rv != old.GetResourceVersion() {
		return errModified(req.Resource, req.Name)
	}
	if uid := acc.GetUID(); uid != "" && uid != old.GetUID() {
		return errPrecondition(req, "UID", uid, old.GetUID())
	}
	return nil
}

// CheckPreconditions refuses a request whose preconditions current does not meet.
func CheckPreconditions(req Request, current *cache.Object, p *metav1.Preconditions) error {
	if p == nil {
		return nil
	}
	if p.UID != nil && *p.UID != current.UID {
		return errPrecondition(req, "UID", *p.UID, current.UID)
	}
	if rv := fmt.Sprint(int64(current.Revision)); p.ResourceVersion != nil && *p.ResourceVersion != rv {
		return errPrecondition(req, "ResourceVersion", *p.ResourceVersion, rv)
	}
	return nil
}

// errPrecondition is the conflict of a request that is about another object,
// or another version of it, than the stored one; the words are upstream's.
func errPrecondition(req Request, what string, wanted, found any) error {
	//lint:ignore ST1005 clients know this sentence
	err := fmt.Errorf("Precondition failed: %s in precondition: %v, %s in object meta: %v", what, wanted, what, found)
	return apierrors.NewConflict(req.Resource.GroupResource(), req.Name, err)
}

// completeUpdate keeps what an update may not change; verbatim leaves spec and
// status as they are given.
func (r *Registry) completeUpdate(req Request, obj, old runtime.Object, acc, oldAcc metav1.Object, verbatim bool) {
	acc.SetUID(oldAcc.GetUID())
	acc.SetSelfLink("")
	acc.SetCreationTimestamp(oldAcc.GetCreationTimestamp())
	if t := oldAcc.GetDeletionTimestamp(); t != nil {
		acc.SetDeletionTimestamp(t)
	}
	if g := oldAcc.GetDeletionGracePeriodSeconds(); g != nil {
		acc.SetDeletionGracePeriodSeconds(g)
	}
	acc.SetGeneration(oldAcc.GetGeneration())
	if verbatim {
		return
	}
	req.Resource.PrepareUpdate(req.Subresource, obj, old)
	if req.Resource.Stamp != nil {
		req.Resource.Stamp(obj, old, metav1.Time{Time: r.cfg.Clock.Now().Truncate(1e9)})
	}
}

func (r *Registry) hookUpdate(ctx context.Context, res *resource.Resource, obj, old runtime.Object, dryRun bool) (undo func(), err error) {
	undo = func() {}
	if h := r.hook(res).Update; h != nil {
		u, err := h(ctx, obj, old, dryRun)
		if err != nil {
			return undo, err
		}
		if u != nil {
			undo = u
		}
	}
	return undo, nil
}

func (r *Registry) storeUpdate(ctx context.Context, req Request, key string, current *cache.Object, attrs *admission.Attributes, opts UpdateOptions) (o *cache.Object, wrote bool, err error) {
	res, obj, old := req.Resource, attrs.Object, attrs.Old()
	was := res.ValidateSame != nil && r.sound.holds(current.UID, current.Revision)
	if errs := validateChange(ctx, req, obj, old, was, opts.Verbatim); len(errs) > 0 {
		return nil, false, Invalid(res.GVK().GroupKind(), req.Name, errs)
	}
	if err := r.cfg.Chain.Validate(ctx, attrs); err != nil {
		return nil, false, err
	}
	if res.Warnings != nil && req.Subresource == "" {
		for _, w := range res.Warnings(obj, old) {
			opts.warn(w)
		}
	}
	value, same, err := successor(res, key, obj, old, current)
	if err != nil {
		return nil, false, apierrors.NewInternalError(err)
	}
	if same {
		return current, false, nil
	}
	gone := mayGo(res, obj)
	switch {
	case opts.DryRun:
		next, err := indexAs(res, key, value, current.Revision, true)
		if err != nil {
			return nil, false, apierrors.NewInternalError(err)
		}
		next.Key, next.Revision = key, current.Revision
		return next, true, nil
	case gone:
		o, err = r.cfg.Cache.Delete(ctx, key, current.Revision)
		if err == nil {
			r.deleted(ctx, res, obj)
		}
	default:
		o, err = r.cfg.Cache.Update(ctx, key, value, current.Revision, res.TTL)
	}
	if err != nil {
		return nil, false, err
	}
	if res.ValidateSame != nil && !gone && !opts.Verbatim && (req.Subresource == "" || was && req.Subresource == "status") {
		r.sound.note(o.UID, o.Revision)
	}
	if h := r.hook(res).Updated; h != nil && !gone {
		h(ctx, obj, old)
	}
	return o, true, nil
}

// validateChange returns what is wrong with obj; sound says that old was found
// valid as a whole.
func validateChange(ctx context.Context, req Request, obj, old runtime.Object, sound, verbatim bool) field.ErrorList {
	if verbatim {
		return req.Resource.CheckMetaUpdate(obj, old)
	}
	if sound {
		return req.Resource.CheckUpdateOfSound(ctx, req.Subresource, obj, old)
	}
	return req.Resource.CheckUpdate(ctx, req.Subresource, obj, old)
}

// mayGo says that obj is marked for deletion and nothing holds it any more.
func mayGo(res *resource.Resource, obj runtime.Object) bool {
	acc, err := meta.Accessor(obj)
	if err != nil || acc.GetDeletionTimestamp() == nil || len(acc.GetFinalizers()) > 0 {
		return false
	}
	if g := acc.GetDeletionGracePeriodSeconds(); g != nil && *g > 0 {
		return false
	}
	return res.Held == nil || !res.Held(obj)
}

func (r *Registry) deleted(ctx context.Context, res *resource.Resource, obj runtime.Object) {
	if h := r.hook(res).Deleted; h != nil {
		h(ctx, obj)
	}
}
