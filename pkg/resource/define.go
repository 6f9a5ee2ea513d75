package resource

import (
	"strings"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// hooks are the functions of a Resource over its own Go type, so that a
// kind's file is free of type assertions. A nil hook stays nil in the
// Resource.
type hooks[T runtime.Object] struct {
	Default        func(obj T)
	Prepare        func(obj, old T) // old is the zero T on create
	PrepareStatus  func(obj, old T)
	Stamp          func(obj, old T, now metav1.Time) // old is the zero T on create
	Validate       func(obj T) field.ErrorList
	ValidateSame   func(obj T) field.ErrorList
	ValidateCreate func(obj T) field.ErrorList
	ValidateUpdate func(obj, old T) field.ErrorList
	ValidateStatus func(obj, old T) field.ErrorList
	Warnings       func(obj, old T) []string // old is the zero T on create
	Fields         func(obj T) map[string]string
	Grace          func(obj T, requested *int64) Grace
	Held           func(obj T) bool
	MarkDeleting   func(obj T)
	Scale          func(obj T) *autoscalingv1.Scale
	SetScale       func(obj T, scale *autoscalingv1.Scale) field.ErrorList
	Row            func(obj T, now time.Time) []any
}

// define completes r with typed hooks and the defaults that its fields'
// comments promise.
func define[T runtime.Object](r Resource, h hooks[T]) *Resource {
	if r.Singular == "" {
		r.Singular = strings.ToLower(r.Kind)
	}
	if r.StoragePath == "" {
		r.StoragePath = r.Plural
	}
	if r.Verbs == nil {
		r.Verbs = AllVerbs()
	}
	r.Default = one(h.Default)
	r.Prepare = two(h.Prepare)
	r.PrepareStatus = two(h.PrepareStatus)
	r.ValidateUpdate = twoResult(h.ValidateUpdate)
	r.ValidateStatus = twoResult(h.ValidateStatus)
	r.Warnings = twoResult(h.Warnings)
	if h.Validate != nil {
		r.Validate = func(obj runtime.Object) field.ErrorList { return h.Validate(obj.(T)) }
	}
	if h.Stamp != nil {
		r.Stamp = func(obj, old runtime.Object, now metav1.Time) {
			was, _ := old.(T)
			h.Stamp(obj.(T), was, now)
		}
	}
	if h.ValidateSame != nil {
		r.ValidateSame = func(obj runtime.Object) field.ErrorList { return h.ValidateSame(obj.(T)) }
	}
	if h.ValidateCreate != nil {
		r.ValidateCreate = func(obj runtime.Object) field.ErrorList { return h.ValidateCreate(obj.(T)) }
	}
	if h.Fields != nil {
		r.Fields = func(obj runtime.Object) map[string]string { return h.Fields(obj.(T)) }
	}
	if h.Grace != nil {
		r.Grace = func(obj runtime.Object, requested *int64) Grace { return h.Grace(obj.(T), requested) }
	}
	if h.Held != nil {
		r.Held = func(obj runtime.Object) bool { return h.Held(obj.(T)) }
	}
	r.MarkDeleting = one(h.MarkDeleting)
	if h.Scale != nil {
		r.Scale = func(obj runtime.Object) *autoscalingv1.Scale { return h.Scale(obj.(T)) }
		r.SetScale = func(obj runtime.Object, s *autoscalingv1.Scale) field.ErrorList { return h.SetScale(obj.(T), s) }
	}
	if h.Row != nil {
		r.Row = func(obj runtime.Object, now time.Time) []any { return h.Row(obj.(T), now) }
	}
	return &r
}

func one[T runtime.Object](f func(T)) func(runtime.Object) {
	if f == nil {
		return nil
	}
	return func(obj runtime.Object) { f(obj.(T)) }
}

func two[T runtime.Object](f func(obj, old T)) func(obj, old runtime.Object) {
	if f == nil {
		return nil
	}
	return func(obj, old runtime.Object) {
		var o T
		if old != nil {
			o = old.(T)
		}
		f(obj.(T), o)
	}
}

func twoResult[T runtime.Object, R any](f func(obj, old T) R) func(obj, old runtime.Object) R {
	if f == nil {
		return nil
	}
	return func(obj, old runtime.Object) R {
		var o T
		if old != nil {
			o = old.(T)
		}
		return f(obj.(T), o)
	}
}
