package custom

import (
	"slices"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	openapiv2 "k8s.io/apiextensions-apiserver/pkg/controller/openapi/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kube-openapi/pkg/builder3/util"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// metaDefinition is the OpenAPI model of metadata.
const metaDefinition = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"

// openAPI implements resource.Custom.OpenAPI.
func (o *objects) openAPI(v3 bool, ref func(definition string) string) ([]byte, error) {
	crd, err := o.d.src.Load()
	if err != nil {
		return nil, err
	}
	v := versionOf(crd, o.gvk.Version)
	if v == nil {
		return nil, errNoSchema
	}
	_, s, err := structuralOf(crd, v)
	if err != nil {
		return nil, err
	}
	schema := published(crd, s, v3, ref(metaDefinition))
	if len(v.SelectableFields) > 0 {
		var fields []any
		for _, f := range v.SelectableFields {
			fields = append(fields, map[string]any{"fieldPath": f.JSONPath[1:]})
		}
		schema.AddExtension("x-kubernetes-selectable-fields", fields)
	}
	if v3 {
		schema = util.WrapRefs(schema)
	}
	return schema.MarshalJSON()
}

// published is the schema of a version as clients see it. Without a schema
// nothing but the type is said, since clients take what is not mentioned for
// forbidden; neither is it in version 2 where unknown fields are kept.
func published(crd *apiextensionsv1.CustomResourceDefinition, s *structuralschema.Structural, v3 bool, metaRef string) *spec.Schema {
	if s == nil || !v3 && (s.XPreserveUnknownFields || crd.Spec.PreserveUnknownFields) {
		return &spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"object"}}}
	}
	if !v3 {
		s = openapiv2.ToStructuralOpenAPIV2(s)
	}
	schema := s.ToKubeOpenAPI()
	addObjectProperties(schema, metaRef)
	addEmbedded(schema, v3, metaRef)
	return schema
}

// addObjectProperties adds what every object has.
func addObjectProperties(s *spec.Schema, metaRef string) {
	about := metav1.TypeMeta{}.SwaggerDoc()
	for _, name := range []string{"apiVersion", "kind"} {
		s.SetProperty(name, *spec.StringProperty().WithDescription(about[name]))
	}
	s.SetProperty("metadata", *spec.RefSchema(metaRef).WithDescription(metav1.PartialObjectMetadata{}.SwaggerDoc()["metadata"]))
}

// addEmbedded adds the same to objects within the object.
func addEmbedded(s *spec.Schema, v3 bool, metaRef string) {
	if s == nil {
		return
	}
	for name, p := range s.Properties {
		addEmbedded(&p, v3, metaRef)
		s.Properties[name] = p
	}
	if s.Items != nil {
		addEmbedded(s.Items.Schema, v3, metaRef)
	}
	if s.AdditionalProperties != nil {
		addEmbedded(s.AdditionalProperties.Schema, v3, metaRef)
	}
	if keeps, ok := s.Extensions.GetBool("x-kubernetes-preserve-unknown-fields"); ok && keeps && !v3 {
		return
	}
	if embedded, ok := s.Extensions.GetBool("x-kubernetes-embedded-resource"); !ok || !embedded {
		return
	}
	addObjectProperties(s, metaRef)
	for _, name := range []string{"kind", "apiVersion"} {
		if !slices.Contains(s.Required, name) {
			s.Required = append(s.Required, name)
		}
	}
}
