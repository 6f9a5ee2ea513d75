package registry

import (
	"bytes"
	"context"
	"fmt"
	"reflect"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/typed"

	"coracle/pkg/admission"
	"coracle/pkg/registry/jsonvalue"
	"coracle/pkg/registry/ownership"
	"coracle/pkg/resource"
	"coracle/pkg/storage/cache"
)

// managerKey names a field manager: ownership is tracked by version and
// subresource.
type managerKey struct {
	gvk         schema.GroupVersionKind
	subresource string
}

// types returns the schemas of all kinds.
func (r *Registry) types() managedfields.TypeConverter {
	r.typesOnce.Do(func() { r.typeConv = r.cfg.Types() })
	return r.typeConv
}

// FieldTypes returns the schemas by which the fields of a served kind are
// merged. What has none of its own, such as a Scale or the options of a
// connect, is taken for what it looks like.
func (r *Registry) FieldTypes(kind schema.GroupVersionKind) (managedfields.TypeConverter, error) {
	if res, ok := r.Table().ByGVK(kind); ok && res.Custom != nil {
		return res.Custom.FieldTypes()
	}
	if !r.cfg.Table.Scheme().Recognizes(kind) {
		return managedfields.NewDeducedTypeConverter(), nil
	}
	return r.types(), nil
}

// gvk is the kind in which a request's object is written.
func (r Request) gvk() schema.GroupVersionKind {
	if r.View != nil {
		return viewKind(r.View)
	}
	return r.Resource.GVK()
}

// manager returns the library's field manager for the version and the
// subresource that a request writes. It applies, and follows the few other
// writes that our own cannot.
func (r *Registry) manager(req Request) (*managedfields.FieldManager, error) {
	res, gvk := req.Resource, req.gvk()
	if res.Custom != nil {
		return res.Custom.Manager(req.Subresource)
	}
	key := managerKey{gvk, req.Subresource}
	if m, ok := r.managers.Load(key); ok {
		return m.(*managedfields.FieldManager), nil
	}
	scheme := r.cfg.Table.Scheme()
	m, err := managedfields.NewDefaultFieldManager(r.types(), converter{scheme, res}, defaulter{res}, scheme,
		gvk, res.GVK().GroupVersion(), req.Subresource, resetFilters(res, req.Subresource))
	if err != nil {
		return nil, fmt.Errorf("set up field management of %s: %w", res.Plural, err)
	}
	r.managers.Store(key, m)
	return m, nil
}

// resetFilters are what a write cannot set, for the library, in every version.
func resetFilters(res *resource.Resource, subresource string) map[fieldpath.APIVersion]fieldpath.Filter {
	paths := res.ResetFields(subresource)
	if len(paths) == 0 {
		return nil
	}
	set := fieldpath.NewSet()
	for _, p := range paths {
		parts := make([]any, len(p))
		for i, name := range p {
			parts[i] = name
		}
		set.Insert(fieldpath.MakePathOrDie(parts...))
	}
	versions := map[fieldpath.APIVersion]*fieldpath.Set{fieldpath.APIVersion(res.GVK().GroupVersion().String()): set}
	for i := range res.Views {
		versions[fieldpath.APIVersion(viewKind(&res.Views[i]).GroupVersion().String())] = set
	}
	return fieldpath.NewExcludeFilterSetMap(versions)
}

// defaulter gives the library the table's defaulting. A view has none of its
// own: what it writes is defaulted in the stored form.
type defaulter struct{ res *resource.Resource }

func (d defaulter) Default(obj runtime.Object) {
	if d.res.Default != nil && obj.GetObjectKind().GroupVersionKind() == d.res.GVK() {
		d.res.Default(obj)
	}
}

// owned is how the registry follows who owns the fields of a resource.
type owned struct {
	kind  *ownership.Kind // nil for a kind without a schema
	reset ownership.Reset
}

func (r *Registry) owned(res *resource.Resource, subresource string) *owned {
	key := managerKey{res.GVK(), subresource}
	if o, ok := r.owners.Load(key); ok {
		return o.(*owned)
	}
	o := &owned{kind: r.ownedKind(res), reset: ownership.NewReset(res.ResetFields(subresource)...)}
	stored, _ := r.owners.LoadOrStore(key, o)
	return stored.(*owned)
}

// ownedKind compiles a kind once for all its subresources.
func (r *Registry) ownedKind(res *resource.Resource) *ownership.Kind {
	if k, ok := r.kinds.Load(res.GVK()); ok {
		return k.(*ownership.Kind)
	}
	obj := res.New()
	obj.GetObjectKind().SetGroupVersionKind(res.GVK())
	var kind *ownership.Kind
	if tv, err := r.types().ObjectToTyped(obj, typed.AllowDuplicates); err == nil {
		if kind, err = ownership.New(tv, reflect.TypeOf(obj).Elem(), res.GVK().GroupVersion().String()); err != nil {
			kind = nil
		}
	}
	stored, _ := r.kinds.LoadOrStore(res.GVK(), kind)
	return stored.(*ownership.Kind)
}

// own records in managedFields that manager set what differs between live,
// which is not changed, and obj. Ownership never fails a write: what cannot be
// followed leaves the entries as they were.
func (r *Registry) own(req Request, live, obj runtime.Object, manager string) runtime.Object {
	if c := req.Resource.Custom; c != nil {
		return r.ownCustom(req, c, live.(*unstructured.Unstructured), obj.(*unstructured.Unstructured), manager)
	}
	o := r.owned(req.Resource, req.Subresource)
	// Our own walker knows the stored version alone.
	if req.View == nil && o.kind != nil && o.kind.Update(live, obj, ownership.Write{
		Manager: manager, Subresource: req.Subresource, Reset: o.reset, Now: r.Now(),
	}) {
		obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
		return obj
	}
	m, err := r.manager(req)
	if err != nil {
		return obj
	}
	gvk := req.Resource.GVK()
	live = live.DeepCopyObject()
	live.GetObjectKind().SetGroupVersionKind(gvk)
	obj.GetObjectKind().SetGroupVersionKind(gvk)
	out := m.UpdateNoErrors(live, obj, manager)
	out.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	return out
}

// admit runs the mutating half of admission on an object whose owners have been
// recorded: what plugins and webhooks change belongs to nobody. They may edit the
// record itself; one that is not valid afterwards is put back as it was.
func (r *Registry) admit(ctx context.Context, a *admission.Attributes) error {
	before := recordOf(a.Object)
	if err := r.cfg.Chain.Admit(ctx, a); err != nil || before.same(recordOf(a.Object)) {
		return err
	}
	acc, err := meta.Accessor(a.Object)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	if err := managedfields.ValidateManagedFields(acc.GetManagedFields()); err != nil {
		before.restore(a.Object, acc)
		a.Warn(".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated mutating admission controller; please fix your requests: " + err.Error())
	}
	return nil
}

// record is the managedFields of an object, of a Go type or of decoded JSON.
type record struct {
	typed []metav1.ManagedFieldsEntry
	json  []any
}

func recordOf(obj runtime.Object) record {
	if u, ok := obj.(*unstructured.Unstructured); ok {
		m, _ := u.Object["metadata"].(map[string]any)
		list, _ := m["managedFields"].([]any)
		return record{json: list}
	}
	acc, err := meta.Accessor(obj)
	if err != nil {
		return record{}
	}
	return record{typed: acc.GetManagedFields()}
}

// same says that nobody has put another record in the place of r.
func (r record) same(o record) bool {
	return len(r.typed) == len(o.typed) && len(r.json) == len(o.json) &&
		(len(r.typed) == 0 || &r.typed[0] == &o.typed[0]) && (len(r.json) == 0 || &r.json[0] == &o.json[0])
}

func (r record) restore(obj runtime.Object, acc metav1.Object) {
	u, ok := obj.(*unstructured.Unstructured)
	if !ok {
		acc.SetManagedFields(r.typed)
		return
	}
	u.SetManagedFields(nil)
	if m, ok := u.Object["metadata"].(map[string]any); ok && r.json != nil {
		m["managedFields"] = r.json
	}
}

// ownCustom is own for custom resources, whose schemas come and go.
func (r *Registry) ownCustom(req Request, c *resource.Custom, live, obj *unstructured.Unstructured, manager string) runtime.Object {
	if c.Own(live, obj, manager, req.Subresource, r.Now()) {
		return obj
	}
	m, err := c.Manager(req.Subresource)
	if err != nil {
		return obj
	}
	return m.UpdateNoErrors(live.DeepCopy(), obj, manager)
}

// successor encodes obj as what follows current, which old is decoded from, and
// says whether it is the same. When obj differs from it in the times of its
// managedFields entries alone, it is given the old ones, so that a write that
// changes nothing stays one.
func successor(res *resource.Resource, key string, obj, old runtime.Object, current *cache.Object) (value []byte, same bool, err error) {
	if u, ok := obj.(*unstructured.Unstructured); ok && storedAs(res, current.Value) && changedContent(u.Object, old.(*unstructured.Unstructured).Object) {
		value, err = Encode(res, obj)
		return value, false, err
	}
	encode := func() error {
		if value, err = Encode(res, obj); err == nil {
			same, err = unchanged(res, key, value, current)
		}
		return err
	}
	acc, err := meta.Accessor(obj)
	if err != nil {
		return nil, false, err
	}
	oldAcc, err := meta.Accessor(old)
	if err != nil {
		return nil, false, err
	}
	entries, before := acc.GetManagedFields(), oldAcc.GetManagedFields()
	if onlyTimesDiffer(entries, before) {
		acc.SetManagedFields(before)
		if err = encode(); err != nil || same {
			return value, same, err
		}
		acc.SetManagedFields(entries)
	}
	err = encode()
	return value, same, err
}

// unchanged says that storing value would leave current as it is.
func unchanged(res *resource.Resource, key string, value []byte, current *cache.Object) (bool, error) {
	if !res.StoredJSON {
		return sameButVersion(value, current.Value)
	}
	next, err := indexAs(res, key, value, current.Revision, true)
	return err == nil && bytes.Equal(next.Value, current.Value), err
}

// changedContent says that two custom resources differ in more than what the
// server notes of a write.
func changedContent(a, b map[string]any) bool {
	return !sameFields(a, b, func(name string, a, b any) bool {
		if name != "metadata" {
			return jsonvalue.Equal(a, b)
		}
		am, aok := a.(map[string]any)
		bm, bok := b.(map[string]any)
		return aok && bok && sameFields(am, bm, func(name string, a, b any) bool {
			return name == "managedFields" || name == "resourceVersion" || jsonvalue.Equal(a, b)
		})
	})
}

// sameFields compares two objects field by field; nil stands for an absent one.
func sameFields(a, b map[string]any, same func(name string, a, b any) bool) bool {
	for name, v := range a {
		if !same(name, v, b[name]) {
			return false
		}
	}
	for name, v := range b {
		if _, ok := a[name]; !ok && !same(name, nil, v) {
			return false
		}
	}
	return true
}

func onlyTimesDiffer(a, b []metav1.ManagedFieldsEntry) bool {
	if len(a) != len(b) {
		return false
	}
	differ := false
	for i := range a {
		if !sameEntry(&a[i], &b[i]) {
			return false
		}
		differ = differ || !a[i].Time.Equal(b[i].Time)
	}
	return differ
}

func sameEntry(a, b *metav1.ManagedFieldsEntry) bool {
	if a.Manager != b.Manager || a.Operation != b.Operation || a.APIVersion != b.APIVersion ||
		a.FieldsType != b.FieldsType || a.Subresource != b.Subresource {
		return false
	}
	if a.FieldsV1 == nil || b.FieldsV1 == nil {
		return a.FieldsV1 == b.FieldsV1
	}
	return bytes.Equal(a.FieldsV1.GetRawBytes(), b.FieldsV1.GetRawBytes())
}
