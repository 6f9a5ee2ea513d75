package resource

import (
	"context"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// What every kind's write goes through around its hooks: the half of the
// object that a request does not address is kept, metadata is checked.

// PrepareCreate drops from a new object what a client may not set.
func (r *Resource) PrepareCreate(obj runtime.Object) {
	if r.HasStatus && !r.StatusOnCreate {
		if f := structField(obj, "Status"); f.IsValid() {
			f.SetZero()
		}
	}
	if r.Prepare != nil {
		r.Prepare(obj, nil)
	}
}

// PrepareUpdate takes back what an update through subresource ("" is the
// object itself) may not change, and moves the generation. old is not
// changed, nor shared.
func (r *Resource) PrepareUpdate(subresource string, obj, old runtime.Object) {
	var kept string
	var prepare func(obj, old runtime.Object)
	switch subresource {
	case "", "scale":
		kept, prepare = "Status", r.Prepare
	case "status":
		kept, prepare = "Spec", r.PrepareStatus
	default:
		sub, _ := r.Subresource(subresource)
		prepare = sub.Prepare
	}
	if r.HasStatus && kept != "" && structField(old, kept).IsValid() {
		structField(obj, kept).Set(copiedField(old, kept))
	}
	if prepare != nil {
		prepare(obj, old)
	}
	if r.HasGeneration && subresource != "status" && !sameSpec(obj, old) {
		if is, was, err := bothMeta(obj, old); err == nil {
			is.SetGeneration(was.GetGeneration() + 1)
		}
	}
}

func sameSpec(a, b runtime.Object) bool {
	if pod, ok := a.(*corev1.Pod); ok {
		return samePodSpec(&pod.Spec, &b.(*corev1.Pod).Spec)
	}
	x, y := structField(a, "Spec"), structField(b, "Spec")
	return !x.IsValid() || sameValue(x, y)
}

// copiedField is a field of a copy of what obj points to, which is not made for
// the others.
func copiedField(obj runtime.Object, name string) reflect.Value {
	alone := reflect.New(reflect.TypeOf(obj).Elem())
	alone.Elem().FieldByName(name).Set(structField(obj, name))
	return structField(alone.Interface().(runtime.Object).DeepCopyObject(), name)
}

// structField returns a field of the struct that obj points to.
func structField(obj runtime.Object, name string) reflect.Value {
	v := reflect.ValueOf(obj)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return reflect.Value{}
	}
	return v.Elem().FieldByName(name)
}

// CheckCreate returns all that is wrong with a new, prepared object.
func (r *Resource) CheckCreate(ctx context.Context, obj runtime.Object) field.ErrorList {
	path := field.NewPath("metadata")
	acc, err := meta.Accessor(obj)
	if err != nil {
		return field.ErrorList{field.InternalError(path, err)}
	}
	var errs field.ErrorList
	if !r.Nameless {
		errs = validation.ValidateObjectMetaAccessor(briefly(acc), r.Namespaced, r.nameRule(), path)
	}
	if r.Check != nil {
		return append(errs, r.Check(ctx, obj, nil, "")...)
	}
	if r.Validate != nil {
		errs = append(errs, r.Validate(obj)...)
	}
	if r.ValidateCreate != nil {
		errs = append(errs, r.ValidateCreate(obj)...)
	}
	return errs
}

// CheckCreateAlike is CheckCreate for an object that is of the template of one
// with which nothing was wrong.
func (r *Resource) CheckCreateAlike(obj runtime.Object) field.ErrorList {
	path := field.NewPath("metadata")
	acc, err := meta.Accessor(obj)
	if err != nil {
		return field.ErrorList{field.InternalError(path, err)}
	}
	errs := validation.ValidateObjectMetaAccessor(briefly(acc), r.Namespaced, r.nameRule(), path)
	return append(errs, r.Templates.Validate(obj)...)
}

// CheckUpdate returns all that is wrong with a prepared update of old through
// subresource ("" is the object itself).
func (r *Resource) CheckUpdate(ctx context.Context, subresource string, obj, old runtime.Object) field.ErrorList {
	errs := r.CheckMetaUpdate(obj, old)
	if r.Check != nil {
		return append(errs, r.Check(ctx, obj, old, subresource)...)
	}
	switch subresource {
	case "", "scale":
		if r.Validate != nil {
			errs = append(errs, r.Validate(obj)...)
		}
		if r.ValidateUpdate != nil {
			errs = append(errs, r.ValidateUpdate(obj, old)...)
		}
	case "status":
		if r.ValidateStatus != nil {
			errs = append(errs, r.ValidateStatus(obj, old)...)
		}
	default:
		if sub, _ := r.Subresource(subresource); sub.Validate != nil {
			errs = append(errs, sub.Validate(obj, old)...)
		}
	}
	return errs
}

// CheckUpdateOfSound is CheckUpdate where old is known to have been found valid as
// a whole by CheckCreate, or by CheckUpdate of the object itself: a spec that is
// the same need not be looked at again. obj is prepared, so that its generation
// tells.
func (r *Resource) CheckUpdateOfSound(ctx context.Context, subresource string, obj, old runtime.Object) field.ErrorList {
	is, was, err := bothMeta(obj, old)
	if err != nil || subresource != "" || r.ValidateSame == nil || !r.HasGeneration || is.GetGeneration() != was.GetGeneration() {
		return r.CheckUpdate(ctx, subresource, obj, old)
	}
	errs := append(r.CheckMetaUpdate(obj, old), r.ValidateSame(obj)...)
	if r.ValidateUpdate != nil {
		errs = append(errs, r.ValidateUpdate(obj, old)...)
	}
	return errs
}

// CheckMetaUpdate is the part of CheckUpdate that is the same for all kinds.
// It gives obj the resource version of old, on which a write's outcome hangs
// elsewhere.
func (r *Resource) CheckMetaUpdate(obj, old runtime.Object) field.ErrorList {
	path := field.NewPath("metadata")
	acc, oldAcc, err := bothMeta(obj, old)
	if err != nil {
		return field.ErrorList{field.InternalError(path, err)}
	}
	acc.SetResourceVersion(oldAcc.GetResourceVersion())
	is := briefly(acc)
	errs := validation.ValidateObjectMetaAccessor(is, r.Namespaced, r.nameRule(), path)
	if len(errs) == 0 && unmoved(acc, oldAcc) {
		return nil
	}
	return append(errs, validation.ValidateObjectMetaAccessorUpdate(is, oldAcc, path)...)
}

func (r *Resource) nameRule() validation.ValidateNameFunc {
	if r.ValidateName != nil {
		return r.ValidateName
	}
	return nameIsSubdomain
}

func bothMeta(obj, old runtime.Object) (acc, oldAcc metav1.Object, err error) {
	if acc, err = meta.Accessor(obj); err != nil {
		return nil, nil, err
	}
	oldAcc, err = meta.Accessor(old)
	return acc, oldAcc, err
}
