package registry

import (
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"coracle/pkg/resource"
)

// viewKind is the kind that a view shows.
func viewKind(v *resource.View) schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: v.Group, Version: v.Version, Kind: v.Kind}
}

// converter converts objects of one resource between its stored form and its
// views, for the library that tracks field ownership: each manager's fields
// are those of the version that it wrote.
type converter struct {
	*runtime.Scheme
	res *resource.Resource
}

// ConvertToVersion implements runtime.ObjectConvertor. in, typed or
// unstructured, is not changed and shares nothing with the result.
func (c converter) ConvertToVersion(in runtime.Object, target runtime.GroupVersioner) (runtime.Object, error) {
	gv, ok := target.(schema.GroupVersion)
	from, view := c.form(in.GetObjectKind().GroupVersionKind().GroupVersion())
	to, wanted := c.form(gv)
	if len(c.res.Views) == 0 || !ok || !from || !to {
		return c.Scheme.ConvertToVersion(in, target)
	}
	obj, err := c.typed(in)
	if err != nil {
		return nil, err
	}
	if view != wanted {
		if obj, err = convert(obj, view, wanted); err != nil {
			return nil, err
		}
	}
	gvk := c.res.GVK()
	if wanted != nil {
		gvk = viewKind(wanted)
	}
	obj.GetObjectKind().SetGroupVersionKind(gvk)
	return obj, nil
}

// form finds the form of a version; a nil view is the stored one.
func (c converter) form(gv schema.GroupVersion) (ok bool, view *resource.View) {
	if gv == c.res.GVK().GroupVersion() {
		return true, nil
	}
	for i := range c.res.Views {
		if v := &c.res.Views[i]; viewKind(v).GroupVersion() == gv {
			return true, v
		}
	}
	return false, nil
}

// typed is a copy of in as its Go type.
func (c converter) typed(in runtime.Object) (runtime.Object, error) {
	u, ok := in.(runtime.Unstructured)
	if !ok {
		return in.DeepCopyObject(), nil
	}
	gvk := in.GetObjectKind().GroupVersionKind()
	obj, err := c.New(gvk)
	if err != nil {
		return nil, err
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.UnstructuredContent(), obj); err != nil {
		return nil, fmt.Errorf("read a %s of %s: %w", gvk.Kind, gvk.GroupVersion(), err)
	}
	return obj, nil
}

// convert turns one form into another, by way of the stored one.
func convert(obj runtime.Object, from, to *resource.View) (out runtime.Object, err error) {
	if from != nil {
		if obj, err = from.From(obj); err != nil {
			return nil, err
		}
	}
	if to != nil {
		return to.To(obj)
	}
	return obj, nil
}
