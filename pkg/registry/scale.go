package registry

import (
	"context"
	"encoding/json"
	"fmt"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"coracle/pkg/resource"
	"coracle/pkg/storage/cache"
)

// SetScale writes the number of replicas through the /scale view.
// Errors: as Update.
func (r *Registry) SetScale(ctx context.Context, req Request, change func(scale runtime.Object) (runtime.Object, error), opts UpdateOptions) (*cache.Object, error) {
	res := req.Resource
	o, _, err := r.Update(ctx, req, func(current runtime.Object) (runtime.Object, error) {
		next, err := change(res.ScaleOf(current))
		if err != nil {
			return nil, err
		}
		return current, setScale(res, req, current, next)
	}, opts)
	return o, err
}

func setScale(res *resource.Resource, req Request, obj, scale runtime.Object) error {
	acc, err := meta.Accessor(scale)
	if err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	target, err := meta.Accessor(obj)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	if rv := acc.GetResourceVersion(); rv != "" && rv != target.GetResourceVersion() {
		return errModified(res, req.Name)
	}
	typed, ok := scale.(*autoscalingv1.Scale)
	if !ok {
		return apierrors.NewBadRequest(fmt.Sprintf("a Scale of autoscaling/v1 is needed here, not a %T", scale))
	}
	if typed.Spec.Replicas < 0 {
		errs := field.ErrorList{field.Invalid(field.NewPath("spec", "replicas"), typed.Spec.Replicas, "must be greater than or equal to 0")}
		return Invalid(autoscalingv1.SchemeGroupVersion.WithKind("Scale").GroupKind(), req.Name, errs)
	}
	if errs := res.SetScale(obj, typed); len(errs) > 0 {
		return Invalid(autoscalingv1.SchemeGroupVersion.WithKind("Scale").GroupKind(), req.Name, errs)
	}
	return nil
}

// ParentOfScale turns the applied configuration of a Scale into that of the
// object it scales: its name, UID and version, and the number of replicas.
func ParentOfScale(d *Decoder, req Request, patch []byte, opts PatchOptions) ([]byte, error) {
	scale := autoscalingv1.SchemeGroupVersion.WithKind("Scale")
	p := patcher{d: d, patch: patch, opts: opts, req: req}
	p.req.Resource = &resource.Resource{Group: scale.Group, Version: scale.Version, Kind: scale.Kind, Namespaced: req.Resource.Namespaced}
	u, err := p.applied()
	if err != nil {
		return nil, err
	}
	parent := &unstructured.Unstructured{Object: map[string]any{}}
	parent.SetGroupVersionKind(req.Resource.GVK())
	parent.SetName(u.GetName())
	parent.SetNamespace(u.GetNamespace())
	parent.SetUID(u.GetUID())
	parent.SetResourceVersion(u.GetResourceVersion())
	if replicas, ok, err := unstructured.NestedFieldNoCopy(u.Object, "spec", "replicas"); err == nil && ok {
		path := []string{"spec", "replicas"}
		if c := req.Resource.Custom; c != nil {
			path = c.ReplicasPath
		}
		if err := unstructured.SetNestedField(parent.Object, replicas, path...); err != nil {
			return nil, apierrors.NewInternalError(err)
		}
	}
	out, err := json.Marshal(parent.Object)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	return out, nil
}
