package registry

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"coracle/pkg/resource"
)

// managerKey names a field manager: ownership is tracked by subresource.
type managerKey struct {
	gvk         schema.GroupVersionKind
	subresource string
}

// manager returns the library's field manager for a resource.
func (r *Registry) manager(res *resource.Resource, subresource string) (*managedfields.FieldManager, error) {
	key := managerKey{res.GVK(), subresource}
	if m, ok := r.managers.Load(key); ok {
		return m.(*managedfields.FieldManager), nil
	}
	r.types.Do(func() { r.typeConv = r.cfg.Types() })
	scheme := r.cfg.Table.Scheme()
	m, err := managedfields.NewDefaultFieldManager(r.typeConv, scheme, defaulter{res}, scheme,
		res.GVK(), res.GVK().GroupVersion(), subresource, resetFields(res, subresource))
	if err != nil {
		return nil, fmt.Errorf("set up field management of %s: %w", res.Plural, err)
	}
	r.managers.Store(key, m)
	return m, nil
}

// resetFields are those that a write to the (sub)resource cannot set, so that
// nobody comes to own them by trying.
func resetFields(res *resource.Resource, subresource string) map[fieldpath.APIVersion]fieldpath.Filter {
	if !res.HasStatus {
		return nil
	}
	reset := "status"
	if subresource == "status" {
		reset = "spec"
	}
	return fieldpath.NewExcludeFilterSetMap(map[fieldpath.APIVersion]*fieldpath.Set{
		fieldpath.APIVersion(res.GVK().GroupVersion().String()): fieldpath.NewSet(fieldpath.MakePathOrDie(reset)),
	})
}

// defaulter gives the library the table's defaulting.
type defaulter struct{ res *resource.Resource }

func (d defaulter) Default(obj runtime.Object) {
	if d.res.Default != nil {
		d.res.Default(obj)
	}
}

// own records in managedFields that manager set what differs between live and
// obj. Ownership never fails a write: what the library cannot follow leaves
// the entries as they were.
func (r *Registry) own(req Request, live, obj runtime.Object, manager string) runtime.Object {
	m, err := r.manager(req.Resource, req.Subresource)
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

// keepTimes gives obj the old timestamps of managedFields entries when that
// is all that distinguishes its entries from old's, so that a write that
// changes nothing stays one that changes nothing.
func keepTimes(obj, old runtime.Object) {
	acc, err := meta.Accessor(obj)
	if err != nil {
		return
	}
	oldAcc, err := meta.Accessor(old)
	if err != nil {
		return
	}
	entries, before := acc.GetManagedFields(), oldAcc.GetManagedFields()
	if len(entries) != len(before) {
		return
	}
	for i := range entries {
		if !sameEntry(&entries[i], &before[i]) {
			return
		}
	}
	acc.SetManagedFields(before)
}

func sameEntry(a, b *metav1.ManagedFieldsEntry) bool {
	if a.Manager != b.Manager || a.Operation != b.Operation || a.APIVersion != b.APIVersion ||
		a.FieldsType != b.FieldsType || a.Subresource != b.Subresource {
		return false
	}
	if a.FieldsV1 == nil || b.FieldsV1 == nil {
		return a.FieldsV1 == b.FieldsV1
	}
	return a.FieldsV1.GetRawString() == b.FieldsV1.GetRawString()
}
