package custom

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdvalidation "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	servervalidation "k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"coracle/pkg/resource"
)

// Validated returns the kind CustomResourceDefinition with its validation,
// which package resource cannot link.
func Validated(kind *resource.Resource) *resource.Resource {
	r := *kind
	r.Check = checkDefinition
	// The library checks the name: it is that of the resource and its group.
	r.ValidateName = func(string, bool) []string { return nil }
	r.Warnings = warnings
	return &r
}

// checkDefinition implements resource.Resource.Check for definitions.
func checkDefinition(ctx context.Context, obj, old runtime.Object, subresource string) field.ErrorList {
	in, err := internal(obj)
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	if old == nil {
		return withoutMetadata(crdvalidation.ValidateCustomResourceDefinition(ctx, in))
	}
	before, err := internal(old)
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	if subresource == "status" {
		return withoutMetadata(crdvalidation.ValidateUpdateCustomResourceDefinitionStatus(ctx, in, before))
	}
	return withoutMetadata(crdvalidation.ValidateCustomResourceDefinitionUpdate(ctx, in, before))
}

// withoutMetadata drops what the registry says as well: the library checks all
// of the metadata, of which only the name and the approval of a group are
// about definitions.
func withoutMetadata(errs field.ErrorList) field.ErrorList {
	return slices.DeleteFunc(errs, func(e *field.Error) bool {
		about := e.Field == "metadata.name" || strings.Contains(e.Field, apiextensionsv1.KubeAPIApprovedAnnotation)
		return strings.HasPrefix(e.Field, "metadata") && !about
	})
}

// internal converts a definition to the form that the library validates.
func internal(obj runtime.Object) (*apiextensions.CustomResourceDefinition, error) {
	crd, ok := obj.DeepCopyObject().(*apiextensionsv1.CustomResourceDefinition)
	if !ok {
		return nil, fmt.Errorf("a CustomResourceDefinition is needed, not a %T", obj)
	}
	in := &apiextensions.CustomResourceDefinition{}
	return in, apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(crd, in, nil)
}

// warnings implements resource.Resource.Warnings for definitions: of formats
// that nobody checks and of sets of what has no identity, those that are new.
func warnings(obj, old runtime.Object) []string {
	found := schemaWarnings(obj)
	if old == nil {
		return found
	}
	before := schemaWarnings(old)
	return slices.DeleteFunc(found, func(w string) bool { return slices.Contains(before, w) })
}

func schemaWarnings(obj runtime.Object) []string {
	in, err := internal(obj)
	if err != nil {
		return nil // validation says so
	}
	version := environment.DefaultCompatibilityVersion()
	var formats, sets []string
	visit := func(s *apiextensions.JSONSchemaProps) bool {
		if s.Format != "" {
			typed := &spec.Schema{SchemaProps: spec.SchemaProps{Format: s.Format, Type: []string{s.Type}}}
			for _, f := range servervalidation.GetUnrecognizedFormats(typed, version) {
				formats = append(formats, fmt.Sprintf("unrecognized format %q", f))
			}
		}
		if s.XListType != nil && *s.XListType == "set" && s.Items != nil && s.Items.Schema != nil {
			if t := s.Items.Schema.Type; t == "object" || t == "array" {
				sets = append(sets, fmt.Sprintf("x-kubernetes-list-type: set for items of type %q is not supported by server-side apply or CEL validation rules", t))
			}
		}
		return false // go on
	}
	if v := in.Spec.Validation; v != nil && v.OpenAPIV3Schema != nil {
		crdvalidation.SchemaHas(v.OpenAPIV3Schema, visit)
	}
	for _, v := range in.Spec.Versions {
		if v.Schema != nil && v.Schema.OpenAPIV3Schema != nil {
			crdvalidation.SchemaHas(v.Schema.OpenAPIV3Schema, visit)
		}
	}
	slices.Sort(sets)
	return append(formats, slices.Compact(sets)...)
}
