package custom

import (
	"fmt"
	"slices"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/typed"

	"coracle/pkg/registry/ownership"
)

const v3Refs = "#/components/schemas/"

// manager implements resource.Custom.Manager.
func (o *objects) manager(subresource string) (*managedfields.FieldManager, error) {
	c, err := o.compiled()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if m := c.managers[subresource]; m != nil && o.calls == nil {
		return m, nil
	}
	crd, types, err := o.types(c)
	if err != nil {
		return nil, err
	}
	host := fieldHost{o}
	m, err := managedfields.NewDefaultCRDFieldManager(types, host, host, host, o.gvk, o.gvk.GroupVersion(), subresource, o.resetFields(crd, subresource))
	if err != nil {
		return nil, fmt.Errorf("set up field management of %s: %w", o.d.name, err)
	}
	if o.calls == nil {
		c.managers[subresource] = m // others convert for their request alone
	}
	return m, nil
}

// types returns the description of all versions to the library, made once for
// each compiled schema. c.mu is held.
func (o *objects) types(c *compiled) (*apiextensionsv1.CustomResourceDefinition, managedfields.TypeConverter, error) {
	crd, err := o.d.src.Load()
	if err != nil {
		return nil, nil, err
	}
	if c.types == nil {
		if c.types, err = o.d.typeConverter(crd); err != nil {
			// The library cannot follow the schema; what the object itself shows is
			// better than nothing.
			c.types = managedfields.NewDeducedTypeConverter()
		}
	}
	return crd, c.types, nil
}

// fieldTypes implements resource.Custom.FieldTypes.
func (o *objects) fieldTypes() (managedfields.TypeConverter, error) {
	c, err := o.compiled()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_, types, err := o.types(c)
	return types, err
}

// own implements resource.Custom.Own.
func (o *objects) own(live, u *unstructured.Unstructured, manager, subresource string, now time.Time) bool {
	c, err := o.compiled()
	if err != nil {
		return false
	}
	c.ownOnce.Do(func() { c.own = o.ownedKind(c) })
	write := ownership.Write{Manager: manager, Subresource: subresource, Now: now}
	switch {
	case o.status && subresource == "status":
		write.Reset = statusReset
	case o.status && subresource == "":
		write.Reset = wholeReset
	}
	return c.own != nil && c.own.Update(live, u, write)
}

// What a write to the object itself and what one to /status cannot set.
var (
	wholeReset  = ownership.NewReset([]string{"status"})
	statusReset = ownership.NewReset([]string{"metadata"}, []string{"spec"})
)

func (o *objects) ownedKind(c *compiled) *ownership.Kind {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, types, err := o.types(c)
	if err != nil {
		return nil
	}
	tv, err := types.ObjectToTyped(o.new(), typed.AllowDuplicates)
	if err != nil {
		return nil
	}
	kind, err := ownership.New(tv, nil, o.apiVersion)
	if err != nil {
		return nil
	}
	return kind
}

// resetFields are those that a write cannot set, so that nobody comes to own
// them by trying.
func (o *objects) resetFields(crd *apiextensionsv1.CustomResourceDefinition, subresource string) map[fieldpath.APIVersion]fieldpath.Filter {
	if !o.status || subresource == "scale" {
		return nil
	}
	if subresource != "status" {
		return fieldpath.NewExcludeFilterSetMap(map[fieldpath.APIVersion]*fieldpath.Set{
			fieldpath.APIVersion(o.apiVersion): fieldpath.NewSet(fieldpath.MakePathOrDie("status")),
		})
	}
	sets := map[fieldpath.APIVersion]*fieldpath.Set{}
	for _, v := range crd.Spec.Versions {
		if v.Subresources != nil && v.Subresources.Status != nil {
			sets[fieldpath.APIVersion(o.d.group+"/"+v.Name)] = fieldpath.NewSet(fieldpath.MakePathOrDie("metadata"), fieldpath.MakePathOrDie("spec"))
		}
	}
	return fieldpath.NewExcludeFilterSetMap(sets)
}

// typeConverter describes all versions to the library, under the accepted kind,
// which the stored definition need not say yet: lists
// that are maps or sets, structs that are one value.
func (d *Definition) typeConverter(crd *apiextensionsv1.CustomResourceDefinition) (managedfields.TypeConverter, error) {
	models := map[string]*spec.Schema{metaDefinition: metaSchema()}
	for i := range crd.Spec.Versions {
		v := &crd.Spec.Versions[i]
		_, s, err := structuralOf(crd, v)
		if err != nil {
			return nil, err
		}
		model := published(crd, s, true, v3Refs+metaDefinition)
		model.AddExtension("x-kubernetes-group-version-kind", []any{
			map[string]any{"group": d.group, "version": v.Name, "kind": d.names.Kind},
		})
		models[v.Name+"."+d.names.Kind] = model
	}
	return managedfields.NewTypeConverter(models, crd.Spec.PreserveUnknownFields)
}

// metaSchema is ObjectMeta as far as ownership follows it.
func metaSchema() *spec.Schema {
	text, number := *spec.StringProperty(), *spec.Int64Property()
	texts := *spec.MapProperty(spec.StringProperty())
	finalizers := *spec.ArrayProperty(spec.StringProperty())
	finalizers.AddExtension("x-kubernetes-list-type", "set")
	owner := &spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"object"}, Properties: map[string]spec.Schema{
		"apiVersion": text, "kind": text, "name": text, "uid": text,
		"controller": *spec.BooleanProperty(), "blockOwnerDeletion": *spec.BooleanProperty(),
	}}}
	owner.AddExtension("x-kubernetes-map-type", "atomic")
	owners := *spec.ArrayProperty(owner)
	owners.AddExtension("x-kubernetes-list-type", "map")
	owners.AddExtension("x-kubernetes-list-map-keys", []any{"uid"})
	entry := &spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"object"}}}
	entry.AddExtension("x-kubernetes-preserve-unknown-fields", true)
	entries := *spec.ArrayProperty(entry)
	entries.AddExtension("x-kubernetes-list-type", "atomic")
	return &spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"object"}, Properties: map[string]spec.Schema{
		"name": text, "generateName": text, "namespace": text, "selfLink": text, "uid": text, "resourceVersion": text,
		"generation": number, "deletionGracePeriodSeconds": number, "creationTimestamp": text, "deletionTimestamp": text,
		"labels": texts, "annotations": texts, "finalizers": finalizers, "ownerReferences": owners, "managedFields": entries,
	}}}
}

// fieldHost converts, defaults and makes objects for the library.
type fieldHost struct{ o *objects }

// ConvertToVersion implements runtime.ObjectConvertor. The input stays.
func (h fieldHost) ConvertToVersion(in runtime.Object, target runtime.GroupVersioner) (runtime.Object, error) {
	u, ok := in.(*unstructured.Unstructured)
	if !ok {
		return nil, fmt.Errorf("a custom resource is needed, not a %T", in)
	}
	gvk, ok := target.KindForGroupVersionKinds([]schema.GroupVersionKind{u.GroupVersionKind()})
	if !ok {
		return nil, fmt.Errorf("%s cannot be converted to the version asked for", u.GroupVersionKind())
	}
	if gvk == u.GroupVersionKind() {
		return u, nil
	}
	if !slices.Contains(h.o.d.versions, gvk.Version) {
		return nil, runtime.NewNotRegisteredErrForKind(h.o.d.name, gvk)
	}
	out, err := h.o.d.convert(h.o.calls.context(), []*unstructured.Unstructured{u.DeepCopy()}, gvk.Version)
	if err != nil {
		return nil, err
	}
	return out[0], nil
}

// Convert implements runtime.ObjectConvertor; the library does not need it.
func (h fieldHost) Convert(in, _, _ any) error {
	return fmt.Errorf("a %T is converted by ConvertToVersion only", in)
}

// ConvertFieldLabel implements runtime.ObjectConvertor.
func (h fieldHost) ConvertFieldLabel(_ schema.GroupVersionKind, label, value string) (string, string, error) {
	return label, value, nil
}

// Default implements runtime.ObjectDefaulter.
func (h fieldHost) Default(obj runtime.Object) { h.o.fill(obj) }

// New implements runtime.ObjectCreater.
func (h fieldHost) New(gvk schema.GroupVersionKind) (runtime.Object, error) {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(gvk)
	return u, nil
}
