package custom

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"

	"coracle/pkg/registry/jsonvalue"
)

// objects are those of one version of a definition: the hooks of its Resource.
type objects struct {
	d          *Definition
	gvk        schema.GroupVersionKind
	apiVersion string
	status     bool // the version has /status
	scale      *apiextensionsv1.CustomResourceSubresourceScale
	columns    []column
	// calls are those of the request that the hooks were made for; nil for
	// hooks of no request.
	calls *calls
}

func (o *objects) new() runtime.Object {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(o.gvk)
	return u
}

// compiled is the schema of the version.
func (o *objects) compiled() (*compiled, error) { return o.d.src.Schemas.get(o.d, o.gvk.Version) }

// accept implements resource.Custom.Accept.
func (o *objects) accept(u *unstructured.Unstructured, wantUnknown bool) ([]string, error) {
	c, err := o.compiled()
	if err != nil {
		return nil, err
	}
	return o.d.coerce(u, c, coercion{unknown: wantUnknown})
}

// coercion says how strict coerce is.
type coercion struct {
	unknown bool // report the fields that are dropped
	stored  bool // drop malformed metadata instead of refusing it
}

// coerce does what decoding into a Go type would do: it drops what the schema
// does not have, checks the metadata, and drops nulls that mean "unset".
func (d *Definition) coerce(u *unstructured.Unstructured, c *compiled, how coercion) ([]string, error) {
	if c.shape != nil && !c.embeds && plainMeta(u.Object["metadata"]) && c.shape.tidy(u.Object) && (!how.stored || u.GetGeneration() != 0) {
		return nil, nil
	}
	lib, err := c.library()
	if err != nil {
		return nil, err
	}
	s := lib.structural
	kind, apiVersion := u.Object["kind"], u.Object["apiVersion"]
	meta, hasMeta, unknown, err := objectmeta.GetObjectMetaWithOptions(u.Object, objectmeta.ObjectMetaOptions{
		DropMalformedFields: how.stored, ReturnUnknownFieldPaths: how.unknown,
	})
	if err != nil {
		return nil, err
	}
	if !d.preserve {
		opts := structuralschema.UnknownFieldPathOptions{TrackUnknownFieldPaths: how.unknown}
		unknown = append(unknown, pruning.PruneWithOptions(u.Object, s, true, opts)...)
		defaulting.PruneNonNullableNullsWithoutDefaults(u.Object, s)
	}
	fieldErr, more := objectmeta.CoerceWithOptions(nil, u.Object, s, false, objectmeta.CoerceOptions{
		DropInvalidFields: how.stored, ReturnUnknownFieldPaths: how.unknown,
	})
	if fieldErr != nil {
		return nil, fieldErr
	}
	u.Object["kind"], u.Object["apiVersion"] = kind, apiVersion
	if hasMeta {
		if how.stored && meta.Generation == 0 {
			meta.Generation = 1 // very old objects have none
		}
		if err := objectmeta.SetObjectMeta(u.Object, meta); err != nil {
			return nil, err
		}
	}
	return append(unknown, more...), nil
}

// fill implements resource.Resource.Default.
func (o *objects) fill(obj runtime.Object) {
	u, ok := obj.(*unstructured.Unstructured)
	c, err := o.compiled()
	if !ok || err != nil {
		return // whoever validates the object learns of it
	}
	_ = c.fill(u) // the same
}

// fill puts defaults into an object.
func (c *compiled) fill(u *unstructured.Unstructured) error {
	if c.shape != nil {
		c.shape.fill(u.Object)
		return nil
	}
	lib, err := c.library()
	if err == nil {
		defaulting.Default(u.Object, lib.structural)
	}
	return err
}

// fromStored implements resource.Custom.FromStored: what was stored is
// completed by the schema of its own version and converted then.
func (o *objects) fromStored(u *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	gv, err := schema.ParseGroupVersion(u.GetAPIVersion())
	if err != nil || gv.Group != o.d.group {
		return nil, fmt.Errorf("the stored object is of apiVersion %q, not of group %s", u.GetAPIVersion(), o.d.group)
	}
	if gv.Version == o.gvk.Version && o.conforming(u) {
		return u, nil
	}
	if known := o.calls.take(u); known != nil {
		return known, nil
	}
	batch := []*unstructured.Unstructured{u}
	if gv.Version != o.gvk.Version {
		batch = append(batch, o.calls.more(u)...)
	}
	for _, u := range batch {
		if err := o.complete(u); err != nil {
			return nil, err
		}
	}
	keys := keysOf(batch)
	out, err := o.d.convert(o.calls.context(), batch, o.gvk.Version)
	if err != nil {
		return nil, err
	}
	o.calls.keep(keys[1:], out[1:])
	return out[0], nil
}

// complete does to a stored object what the schema of its own version asks of
// one that is written today.
func (o *objects) complete(u *unstructured.Unstructured) error {
	gv, err := schema.ParseGroupVersion(u.GetAPIVersion())
	if err != nil || !slices.Contains(o.d.versions, gv.Version) || o.conforming(u) {
		return err
	}
	c, err := o.d.src.Schemas.get(o.d, gv.Version)
	if err != nil {
		return err
	}
	if _, err := o.d.coerce(u, c, coercion{stored: true}); err != nil {
		return err
	}
	return c.fill(u)
}

// conforming says that a stored object was written by the present schemas.
func (o *objects) conforming(u *unstructured.Unstructured) bool {
	revision, err := strconv.ParseInt(u.GetResourceVersion(), 10, 64)
	return err == nil && revision > o.d.src.Since
}

// toStored implements resource.Custom.ToStored.
func (o *objects) toStored(u *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	out, err := o.d.convert(o.calls.context(), []*unstructured.Unstructured{u}, o.d.storage)
	if err != nil {
		return nil, err
	}
	return out[0], nil
}

// convert returns objects in another version, in their order. It may change
// them.
func (d *Definition) convert(ctx context.Context, all []*unstructured.Unstructured, version string) ([]*unstructured.Unstructured, error) {
	target := d.group + "/" + version
	var others []int
	var converted []*unstructured.Unstructured
	for i, u := range all {
		if u.GetAPIVersion() != target {
			others, converted = append(others, i), append(converted, u)
		}
	}
	if len(others) == 0 {
		return all, nil
	}
	if d.webhook {
		var err error
		if converted, err = d.callWebhook(ctx, converted, target); err != nil {
			return nil, err
		}
	}
	c, err := d.src.Schemas.get(d, version)
	if err != nil {
		return nil, err
	}
	out := slices.Clone(all)
	for i, u := range converted {
		u.SetAPIVersion(target)
		if _, err := d.coerce(u, c, coercion{}); err != nil {
			return nil, err
		}
		out[others[i]] = u
	}
	return out, nil
}

// prepare implements resource.Resource.Prepare: status belongs to /status, and
// every change of something else than metadata is a new generation.
func (o *objects) prepare(obj, old runtime.Object) {
	u := obj.(*unstructured.Unstructured)
	if old == nil {
		if o.status {
			delete(u.Object, "status")
		}
		return
	}
	before := old.(*unstructured.Unstructured)
	if o.status {
		if status, ok := before.Object["status"]; ok {
			u.Object["status"] = runtime.DeepCopyJSONValue(status)
		} else {
			delete(u.Object, "status")
		}
	}
	if !sameContent(u.Object, before.Object) {
		u.SetGeneration(before.GetGeneration() + 1)
	}
}

// sameContent compares everything but metadata.
func sameContent(a, b map[string]any) bool {
	count := func(m map[string]any) int {
		n := len(m)
		if _, ok := m["metadata"]; ok {
			n--
		}
		return n
	}
	if count(a) != count(b) {
		return false
	}
	for key, value := range a {
		other, ok := b[key]
		if key != "metadata" && (!ok || !jsonvalue.Equal(value, other)) {
			return false
		}
	}
	return true
}

// prepareStatus implements resource.Resource.PrepareStatus: nothing but status
// and the note of who set it may change.
func (o *objects) prepareStatus(obj, old runtime.Object) {
	u := obj.(*unstructured.Unstructured)
	status, ok := u.Object["status"]
	managers := u.GetManagedFields()
	u.Object = runtime.DeepCopyJSON(old.(*unstructured.Unstructured).Object)
	u.SetManagedFields(managers)
	u.SetResourceVersion("")
	if ok {
		u.Object["status"] = status
	} else {
		delete(u.Object, "status")
	}
}

// finalizerWarnings implements resource.Resource.Warnings: names of finalizers
// that other controllers may take for theirs.
func finalizerWarnings(obj, old runtime.Object) []string {
	var before []string
	if old != nil {
		before = old.(*unstructured.Unstructured).GetFinalizers()
	}
	standard := []string{metav1.FinalizerOrphanDependents, metav1.FinalizerDeleteDependents, string(corev1.FinalizerKubernetes)}
	var out []string
	for _, name := range slices.Compact(slices.Sorted(slices.Values(obj.(*unstructured.Unstructured).GetFinalizers()))) {
		if slices.Contains(before, name) {
			continue
		}
		for _, problem := range validation.IsQualifiedName(name) {
			out = append(out, fmt.Sprintf("metadata.finalizers: %q: %s", name, problem))
		}
		if strings.Contains(name, "/") || slices.Contains(standard, name) {
			continue
		}
		advice := "prefer a domain-qualified finalizer name"
		if strings.Contains(name, ".") {
			advice += " including a path (/)"
		}
		out = append(out, fmt.Sprintf("metadata.finalizers: %q: %s to avoid accidental conflicts with other finalizer writers", name, advice))
	}
	return out
}

// errNoSchema says that a version vanished from its definition meanwhile.
var errNoSchema = errors.New("the version is no longer in its CustomResourceDefinition")
