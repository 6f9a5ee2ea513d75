package celpolicy

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	evanphx "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
	"sigs.k8s.io/structured-merge-diff/v6/value"

	"coracle/pkg/admission/expression"
	"coracle/pkg/admission/jsonpatch"
	"coracle/pkg/admission/match"
)

// patched is an object after a JSON patch. A patch whose test fails changes
// nothing.
func patched(r *match.Request, form *match.Form, object runtime.Object, v expression.Value) (runtime.Object, error) {
	ops, err := v.Operations()
	if err != nil {
		return nil, err
	}
	patch, err := jsonpatch.Decode(ops)
	if err != nil {
		return nil, err
	}
	doc, err := match.Encode(object)
	if err != nil {
		return nil, fmt.Errorf("failed to create JSON patch: %w", err)
	}
	doc, err = patch.Apply(doc)
	if errors.Is(err, evanphx.ErrTestFailed) {
		return object, nil
	}
	if err != nil {
		return nil, fmt.Errorf("JSON Patch: %w", err)
	}
	next, err := r.Decode(form, doc)
	if err != nil {
		return nil, fmt.Errorf("JSON Patch: %w", err)
	}
	return next, nil
}

// merge is an object with a configuration applied, by the types of the kind's
// fields. Nobody comes to own fields by it.
func (m *Mutating) merge(form *match.Form, object runtime.Object, v expression.Value) (runtime.Object, error) {
	fields, err := v.Configuration()
	if err != nil {
		return nil, err
	}
	types, err := m.types(form.Kind)
	if err != nil {
		return nil, apierrors.NewServiceUnavailable(fmt.Sprintf("Resource kind %s not found. There can be a delay between when CustomResourceDefinitions are created and when they are available.", form.Kind))
	}
	configuration := &unstructured.Unstructured{Object: fields}
	configuration.SetGroupVersionKind(form.Kind)
	applied, err := types.ObjectToTyped(configuration)
	if err != nil {
		return nil, fmt.Errorf("error applying patch: failed to convert patch object to typed object: %w", err)
	}
	if atomic := atomics("", applied.Schema(), applied.TypeRef(), applied.AsValue()); len(atomic) > 0 {
		return nil, fmt.Errorf("error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: %s", strings.Join(atomic, ", "))
	}
	live, err := types.ObjectToTyped(object, typed.AllowDuplicates)
	if err != nil {
		return nil, fmt.Errorf("error applying patch: failed to convert original object to typed object: %w", err)
	}
	merged, err := live.Merge(applied)
	if err != nil {
		return nil, fmt.Errorf("error applying patch: failed to merge patch: %w", err)
	}
	content, ok := merged.AsValue().Unstructured().(map[string]any)
	if !ok {
		return nil, fmt.Errorf("error applying patch: a value of type %T is no object", merged.AsValue().Unstructured())
	}
	if _, custom := object.(*unstructured.Unstructured); custom {
		return &unstructured.Unstructured{Object: content}, nil
	}
	next, ok := reflect.New(reflect.TypeOf(object).Elem()).Interface().(runtime.Object)
	if !ok {
		return nil, fmt.Errorf("error applying patch: a %T is no object", object)
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(content, next); err != nil {
		return nil, fmt.Errorf("error applying patch: %w", err)
	}
	next.GetObjectKind().SetGroupVersionKind(form.Kind)
	return next, nil
}

// atomics are the paths in v to lists and structs that are one value: to give
// a part of one would drop the rest of it.
func atomics(path string, s *schema.Schema, ref schema.TypeRef, v value.Value) []string {
	atom, ok := s.Resolve(ref)
	if !ok {
		return nil
	}
	var out []string
	switch {
	case v.IsMap() && atom.Map != nil:
		if atom.Map.ElementRelationship == schema.Atomic {
			out = append(out, path)
		}
		v.AsMap().Iterate(func(key string, field value.Value) bool {
			if f, known := atom.Map.FindField(key); known {
				out = append(out, atomics(path+"."+key, s, f.Type, field)...)
			}
			return true
		})
	case v.IsList() && atom.List != nil:
		if atom.List.ElementRelationship == schema.Atomic {
			out = append(out, path)
		}
		list := v.AsList()
		for i := range list.Length() {
			out = append(out, atomics(fmt.Sprintf("%s[%d]", path, i), s, atom.List.ElementType, list.At(i))...)
		}
	}
	return out
}
