package registry

import (
	"context"
	"errors"
	"strconv"

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

const (
	// A generated name is at most 63 characters: the base is cut to leave
	// room for the suffix.
	maxGeneratedBase = 58
	suffixLength     = 5
	// suffixLetters leaves out vowels and look-alikes.
	suffixLetters = "bcdfghjklmnpqrstvwxz2456789"
	// generateAttempts bounds the retries when a generated name is taken.
	generateAttempts = 8
)

// Create admits, completes, validates and stores obj, which it takes over.
// Errors: BadRequest, Invalid, AlreadyExists, Forbidden (admission), Timeout.
func (r *Registry) Create(ctx context.Context, req Request, obj runtime.Object, opts WriteOptions) (*cache.Object, error) {
	return r.createNamed(ctx, req, obj, opts, false)
}

// createNamed is Create, which with keepManagers leaves managedFields as an
// apply made them.
func (r *Registry) createNamed(ctx context.Context, req Request, obj runtime.Object, opts WriteOptions, keepManagers bool) (*cache.Object, error) {
	acc, err := meta.Accessor(obj)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if err := checkCreateMeta(req, acc); err != nil {
		return nil, err
	}
	base := acc.GetGenerateName()
	generate := acc.GetName() == "" && base != ""
	pristine := obj
	for attempt := 1; ; attempt++ {
		if generate {
			obj = pristine.DeepCopyObject()
			if err := r.generateName(obj, base); err != nil {
				return nil, err
			}
		}
		stored, err := r.create(ctx, req, obj, opts, keepManagers)
		if generate && apierrors.IsAlreadyExists(err) && attempt < generateAttempts {
			continue
		}
		return stored, err
	}
}

// checkCreateMeta refuses metadata that contradicts the request.
func checkCreateMeta(req Request, acc metav1.Object) error {
	if err := checkMetaSize(req, acc); err != nil {
		return err
	}
	if req.Name != "" && acc.GetName() != "" && req.Name != acc.GetName() {
		return apierrors.NewBadRequest("the name of the object (" + acc.GetName() + ") does not match the name on the URL (" + req.Name + ")")
	}
	if acc.GetName() == "" && req.Name != "" {
		acc.SetName(req.Name)
	}
	return setNamespace(req, acc)
}

// setNamespace gives the object the request's namespace or refuses another.
func setNamespace(req Request, acc metav1.Object) error {
	if !req.Resource.Namespaced {
		if acc.GetNamespace() != "" {
			return apierrors.NewBadRequest("namespace may not be set on " + req.Resource.Plural + ", which are cluster-scoped")
		}
		return nil
	}
	switch acc.GetNamespace() {
	case req.Namespace:
	case "":
		acc.SetNamespace(req.Namespace)
	default:
		return apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	return nil
}

func (r *Registry) generateName(obj runtime.Object, base string) error {
	suffix, err := r.NameSuffix()
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	if len(base) > maxGeneratedBase {
		base = base[:maxGeneratedBase]
	}
	acc, err := meta.Accessor(obj)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	acc.SetName(base + suffix)
	return nil
}

// NameSuffix makes the random end of a generated name.
func (r *Registry) NameSuffix() (string, error) {
	var b [suffixLength]byte
	if err := r.random(b[:]); err != nil {
		return "", err
	}
	for i := range b {
		b[i] = suffixLetters[int(b[i])%len(suffixLetters)]
	}
	return string(b[:]), nil
}

func (r *Registry) create(ctx context.Context, req Request, obj runtime.Object, opts WriteOptions, keepManagers bool) (*cache.Object, error) {
	res := req.Resource
	acc, err := meta.Accessor(obj)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	req.Name = acc.GetName()
	if res.Default != nil {
		res.Default(obj) // a generated name may be defaulted from
	}
	// What the client says belongs to it; what admission and the server make of
	// it belongs to nobody.
	if !keepManagers {
		wipeNew(acc)
		obj = r.own(req, res.New(), obj, opts.Manager)
		if acc, err = meta.Accessor(obj); err != nil {
			return nil, apierrors.NewInternalError(err)
		}
	}
	attrs := r.attributes(ctx, admission.Create, req, obj, nil, opts)
	if err := r.admit(ctx, attrs); err != nil {
		return nil, err
	}
	// A webhook may have named the object otherwise, but not moved it.
	if err := setNamespace(req, acc); err != nil {
		return nil, err
	}
	req.Name, attrs.Name = acc.GetName(), acc.GetName()
	if res.Default != nil {
		res.Default(obj) // what a plugin added is defaulted too
	}
	if err := r.completeNew(res, obj, acc); err != nil {
		return nil, err
	}
	undo, err := r.hookCreate(ctx, res, obj, opts.DryRun)
	if err != nil {
		return nil, err
	}
	stored, err := r.storeNew(ctx, req, obj, attrs, opts)
	if err != nil && !outcomeUnknown(err) {
		undo()
		attrs.Undo()
	}
	return stored, err
}

// outcomeUnknown says that a write may have happened although it failed: what
// belongs to it must not be undone.
func outcomeUnknown(err error) bool {
	return apierrors.IsTimeout(err) || apierrors.IsInternalError(err)
}

func (r *Registry) hookCreate(ctx context.Context, res *resource.Resource, obj runtime.Object, dryRun bool) (undo func(), err error) {
	undo = func() {}
	if h := r.hook(res).Create; h != nil {
		u, err := h(ctx, obj, dryRun)
		if err != nil {
			return undo, err
		}
		if u != nil {
			undo = u
		}
	}
	return undo, nil
}

func (r *Registry) storeNew(ctx context.Context, req Request, obj runtime.Object, attrs *admission.Attributes, opts WriteOptions) (*cache.Object, error) {
	res := req.Resource
	if res.Custom != nil && res.Custom.Terminating {
		return nil, apierrors.NewForbidden(res.GroupResource(), req.Name, errors.New("create not allowed while custom resource definition is terminating"))
	}
	attrs.Template = r.templates.find(res, obj)
	if errs := r.checkNew(ctx, res, obj, attrs.Template); len(errs) > 0 {
		return nil, Invalid(res.GVK().GroupKind(), req.Name, errs)
	}
	attrs.Object = obj
	if err := r.cfg.Chain.Validate(ctx, attrs); err != nil {
		return nil, err
	}
	// The store refuses it, after who may not create such an object was told so:
	// a dry run, which does not ask the store, takes a copy of a stored object.
	version := versionOf(obj)
	if version != "" && version != "0" && !opts.DryRun {
		return nil, apierrors.NewBadRequest("resourceVersion should not be set on objects to be created")
	}
	if res.Warnings != nil {
		for _, w := range res.Warnings(obj, nil) {
			opts.warn(w)
		}
	}
	key, err := Key(res, req.Namespace, req.Name)
	if err != nil {
		return nil, err
	}
	value, err := Encode(res, obj)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	if opts.DryRun {
		if _, err := r.cfg.Cache.Get(ctx, key, cache.Read{}); err == nil {
			return nil, apierrors.NewAlreadyExists(res.GroupResource(), req.Name)
		}
		return unstored(res, key, value, version)
	}
	o, err := r.cfg.Cache.Create(ctx, key, value, res.TTL)
	var conflict *storage.ConflictError
	if errors.As(err, &conflict) {
		return nil, apierrors.NewAlreadyExists(res.GroupResource(), req.Name)
	}
	if err == nil && res.ValidateSame != nil {
		r.sound.note(o.UID, o.Revision)
	}
	return o, storageError(err, res, req.Name)
}

// checkNew returns what is wrong with a new object, of whose template, where it is
// of one, another has been found good.
func (r *Registry) checkNew(ctx context.Context, res *resource.Resource, obj runtime.Object, template *resource.Template) field.ErrorList {
	if template != nil {
		return res.CheckCreateAlike(obj)
	}
	errs := res.CheckCreate(ctx, obj)
	if len(errs) == 0 {
		r.templates.note(res, obj)
	}
	return errs
}

// versionOf returns the resourceVersion that obj carries.
func versionOf(obj runtime.Object) string {
	acc, err := meta.Accessor(obj)
	if err != nil {
		return ""
	}
	return acc.GetResourceVersion()
}

// unstored returns the object that a dry run would have stored. It has the
// version that the client gave it, if any, and else none.
func unstored(res *resource.Resource, key string, value []byte, version string) (*cache.Object, error) {
	rev, err := strconv.ParseInt(version, 10, 64)
	if err != nil || rev < 0 {
		rev = 0
	}
	o, err := indexAs(res, key, value, storage.Revision(rev), true)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	o.Key = key
	if rev == 0 {
		o.Value = value
	}
	return o, nil
}

// Transient makes a cached object of one that is not stored.
func Transient(res *resource.Resource, obj runtime.Object) (*cache.Object, error) {
	value, err := Encode(res, obj)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	return unstored(res, "", value, "")
}

// wipeNew drops the metadata that is the server's, so that the client does not
// come to own it.
func wipeNew(acc metav1.Object) {
	acc.SetUID("")
	acc.SetCreationTimestamp(metav1.Time{})
	acc.SetDeletionTimestamp(nil)
	acc.SetDeletionGracePeriodSeconds(nil)
	acc.SetSelfLink("")
}

// completeNew fills in what the server decides on a new object.
func (r *Registry) completeNew(res *resource.Resource, obj runtime.Object, acc metav1.Object) error {
	uid, err := r.NewUID()
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	wipeNew(acc)
	acc.SetUID(uid)
	acc.SetCreationTimestamp(metav1.Time{Time: r.cfg.Clock.Now().Truncate(1e9)})
	acc.SetGeneration(0)
	if res.HasGeneration {
		acc.SetGeneration(1)
	}
	res.PrepareCreate(obj)
	if res.Stamp != nil {
		res.Stamp(obj, nil, metav1.Time{Time: r.cfg.Clock.Now().Truncate(1e9)})
	}
	return nil
}
