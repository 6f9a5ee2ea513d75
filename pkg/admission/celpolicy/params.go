package celpolicy

import (
	"context"
	"errors"
	"fmt"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"coracle/pkg/resource"
)

// param is one object that a policy is evaluated with; nil for none.
type param struct {
	object runtime.Object
	kind   schema.GroupVersionKind
}

// paramSource is a served kind that parameters are of.
type paramSource struct {
	res  *resource.Resource
	view *resource.View // nil for the stored form
	kind schema.GroupVersionKind
}

// source finds the kind of a policy's parameters.
func (c *Config) source(kind *admissionv1.ParamKind) (*paramSource, error) {
	gv, err := schema.ParseGroupVersion(kind.APIVersion)
	if err != nil {
		return nil, fmt.Errorf("invalid paramKind APIVersion %q: %w", kind.APIVersion, err)
	}
	gvk := gv.WithKind(kind.Kind)
	table := c.Table()
	if res, ok := table.ByGVK(gvk); ok && res.Stored() {
		return &paramSource{res: res, kind: gvk}, nil
	}
	for _, res := range table.Base().All() {
		for i := range res.Views {
			if v := &res.Views[i]; v.Group == gv.Group && v.Version == gv.Version && v.Kind == kind.Kind {
				return &paramSource{res: res, view: v, kind: gvk}, nil
			}
		}
	}
	return nil, fmt.Errorf("failed to find resource referenced by paramKind: '%s'", gvk)
}

func (s *paramSource) show(obj runtime.Object) (param, error) {
	if s.view == nil {
		return param{obj, s.kind}, nil
	}
	shown, err := s.view.To(obj)
	return param{shown, s.kind}, err
}

// collect returns the parameters that a binding chooses for a request in a
// namespace ("" outside of them). A policy without parameters is evaluated
// once, with none.
func (c *Config) collect(ctx context.Context, kind *admissionv1.ParamKind, ref *admissionv1.ParamRef, namespace string) ([]param, error) {
	if kind == nil || ref == nil {
		return []param{{}}, nil
	}
	source, err := c.source(kind)
	if err != nil {
		return nil, err
	}
	switch {
	case !source.res.Namespaced && ref.Namespace != "":
		return nil, errors.New("paramRef.namespace must not be provided for a cluster-scoped `paramKind`")
	case !source.res.Namespaced:
		namespace = ""
	case ref.Namespace != "":
		namespace = ref.Namespace
	case namespace == "":
		return nil, errors.New("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources")
	}
	found, err := c.find(ctx, source, ref, namespace)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 && ref.ParameterNotFoundAction != nil && *ref.ParameterNotFoundAction == admissionv1.DenyAction {
		return nil, errors.New("no params found for policy binding with `Deny` parameterNotFoundAction")
	}
	return found, nil
}

func (c *Config) find(ctx context.Context, source *paramSource, ref *admissionv1.ParamRef, namespace string) ([]param, error) {
	var objects []runtime.Object
	switch {
	case ref.Name != "" && ref.Selector != nil:
		return nil, errors.New("paramRef.name and paramRef.selector are mutually exclusive")
	case ref.Name != "":
		obj, err := c.Objects.GetOf(ctx, source.res, namespace, ref.Name)
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		objects = []runtime.Object{obj}
	default:
		selector, err := metav1.LabelSelectorAsSelector(ref.Selector)
		if err != nil {
			return nil, err
		}
		if ref.Selector == nil {
			selector = labels.Everything()
		}
		if objects, err = c.Objects.ListOf(ctx, source.res, namespace, selector); err != nil {
			return nil, err
		}
	}
	out := make([]param, 0, len(objects))
	for _, obj := range objects {
		p, err := source.show(obj)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}
