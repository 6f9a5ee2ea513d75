package custom

import (
	"context"
	"fmt"
	"slices"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"

	"coracle/pkg/resource"
)

// Source is where a Definition reads what it does not keep.
type Source struct {
	// Load returns the definition as it is stored, of the generation that the
	// Definition was made of or a newer one. The caller may change it.
	Load func() (*apiextensionsv1.CustomResourceDefinition, error)
	// Since is a revision of the store after which all objects were written by
	// this generation's schemas.
	Since int64
	// Schemas keeps what was compiled. Shared by all definitions.
	Schemas *Schemas
	// Webhooks calls conversion webhooks; nil refuses to convert by them.
	Webhooks Webhooks
}

// Definition is one generation of an installed CustomResourceDefinition.
type Definition struct {
	src      Source
	id       string
	name     string
	group    string
	names    apiextensionsv1.CustomResourceDefinitionNames
	storage  string // version
	preserve bool   // spec.preserveUnknownFields
	versions []string
	webhook  bool

	resources []*resource.Resource // of each version, served or not
	served    []*resource.Resource
	stored    *resource.Resource // that of the storage version
}

// ID tells generations and naming decisions apart: definitions with one ID are
// the same.
func ID(crd *apiextensionsv1.CustomResourceDefinition) string {
	n := crd.Status.AcceptedNames
	return fmt.Sprintf("%s/%d/%s/%s/%s/%s/%s/%v/%v", crd.UID, crd.Generation, n.Plural, n.Singular, n.Kind, n.ListKind,
		strings.Join(n.ShortNames, ","), n.Categories, terminating(crd))
}

// New makes a Definition of a CustomResourceDefinition whose names have been
// accepted.
func New(crd *apiextensionsv1.CustomResourceDefinition, src Source) (*Definition, error) {
	d := &Definition{
		src: src, id: ID(crd), name: crd.Name, group: crd.Spec.Group, names: *crd.Status.AcceptedNames.DeepCopy(),
		preserve: crd.Spec.PreserveUnknownFields,
		webhook:  crd.Spec.Conversion != nil && crd.Spec.Conversion.Strategy == apiextensionsv1.WebhookConverter,
	}
	for _, v := range crd.Spec.Versions {
		d.versions = append(d.versions, v.Name)
		if v.Storage {
			d.storage = v.Name
		}
	}
	if d.storage == "" {
		return nil, fmt.Errorf("definition %s has no storage version", crd.Name)
	}
	fields := fieldsOf(crd)
	for i := range crd.Spec.Versions {
		v := &crd.Spec.Versions[i]
		res := d.resource(crd, v, fields)
		d.resources = append(d.resources, res)
		if v.Served {
			d.served = append(d.served, res)
		}
		if v.Storage {
			d.stored = res
		}
	}
	return d, nil
}

// ID is that of the definition that d was made of.
func (d *Definition) ID() string { return d.id }

// Served returns the resources of the versions that are served.
func (d *Definition) Served() []*resource.Resource { return d.served }

// Stored returns the resource of the version that objects are written in,
// which need not be served.
func (d *Definition) Stored() *resource.Resource { return d.stored }

// FieldPaths are the JSON paths by which objects of any version are selected.
func FieldPaths(crd *apiextensionsv1.CustomResourceDefinition) []string {
	var out []string
	for _, v := range crd.Spec.Versions {
		for _, f := range v.SelectableFields {
			out = append(out, f.JSONPath)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func terminating(crd *apiextensionsv1.CustomResourceDefinition) bool {
	return crd.DeletionTimestamp != nil || isTrue(crd, apiextensionsv1.Terminating)
}

// resource describes one version.
func (d *Definition) resource(crd *apiextensionsv1.CustomResourceDefinition, v *apiextensionsv1.CustomResourceDefinitionVersion, fields func(runtime.Object) map[string]string) *resource.Resource {
	gvk := schema.GroupVersionKind{Group: d.group, Version: v.Name, Kind: d.names.Kind}
	o := &objects{d: d, gvk: gvk, apiVersion: gvk.GroupVersion().String()}
	r := &resource.Resource{
		Group: d.group, Version: v.Name, Kind: d.names.Kind,
		Plural: d.names.Plural, Singular: d.names.Singular, ShortNames: d.names.ShortNames, Categories: d.names.Categories,
		Namespaced: crd.Spec.Scope == apiextensionsv1.NamespaceScoped,
		// Objects are where the spec says, whatever names were accepted.
		StoragePath: d.group + "/" + crd.Spec.Names.Plural,
		StoredJSON:  true, HasGeneration: true, Verbs: resource.AllVerbs(),
		New: o.new,
		NewList: func() runtime.Object {
			list := &unstructured.UnstructuredList{}
			list.SetGroupVersionKind(gvk.GroupVersion().WithKind(d.names.ListKind))
			return list
		},
		Check: o.check, Default: o.fill, Prepare: o.prepare, PrepareStatus: o.prepareStatus, Warnings: finalizerWarnings,
		Fields: fields,
		Custom: &resource.Custom{
			ListKind: d.names.ListKind, ID: d.id, StoredVersion: d.group + "/" + d.storage,
			Conforms:   func(revision int64) bool { return revision > d.src.Since },
			FromStored: o.fromStored, ToStored: o.toStored, Accept: o.accept,
			Own: o.own, Manager: o.manager, FieldTypes: o.fieldTypes, OpenAPI: o.openAPI, Terminating: terminating(crd),
		},
	}
	for _, f := range v.SelectableFields {
		r.FieldNames = append(r.FieldNames, strings.TrimPrefix(f.JSONPath, "."))
	}
	if v.Deprecated {
		r.Deprecated = deprecation(crd, v)
	}
	if s := v.Subresources; s != nil {
		o.status, r.HasStatus = s.Status != nil, s.Status != nil
		if s.Scale != nil {
			o.scale = s.Scale.DeepCopy()
			o.addScale(r)
		}
	}
	o.columns = columnsOf(v)
	r.Columns, r.Row = o.header(), o.row
	if d.webhook {
		r.Custom.For = func(ctx context.Context) *resource.Resource { return o.forRequest(ctx, r) }
	}
	return r
}

// deprecation is the warning of a deprecated version.
func deprecation(crd *apiextensionsv1.CustomResourceDefinition, v *apiextensionsv1.CustomResourceDefinitionVersion) string {
	if v.DeprecationWarning != nil {
		return *v.DeprecationWarning
	}
	kind := crd.Spec.Names.Kind
	text := fmt.Sprintf("%s/%s %s is deprecated", crd.Spec.Group, v.Name, kind)
	better := ""
	for _, other := range crd.Spec.Versions {
		newer := version.CompareKubeAwareVersionStrings(v.Name, other.Name) < 0
		if other.Served && !other.Deprecated && newer && (better == "" || version.CompareKubeAwareVersionStrings(better, other.Name) < 0) {
			better = other.Name
		}
	}
	if better != "" {
		text += fmt.Sprintf("; use %s/%s %s", crd.Spec.Group, better, kind)
	}
	return text
}

func isTrue(crd *apiextensionsv1.CustomResourceDefinition, t apiextensionsv1.CustomResourceDefinitionConditionType) bool {
	c := condition(crd, t)
	return c != nil && c.Status == apiextensionsv1.ConditionTrue
}

func condition(crd *apiextensionsv1.CustomResourceDefinition, t apiextensionsv1.CustomResourceDefinitionConditionType) *apiextensionsv1.CustomResourceDefinitionCondition {
	for i := range crd.Status.Conditions {
		if crd.Status.Conditions[i].Type == t {
			return &crd.Status.Conditions[i]
		}
	}
	return nil
}

// nameColumn is the first column of every table.
func nameColumn() metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]}
}
