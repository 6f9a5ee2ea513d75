package ownership_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/applyconfigurations"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/typed"

	"coracle/pkg/registry/ownership"
	"coracle/pkg/resource"
)

// subject is a kind as both sides follow it.
type subject struct {
	res     *resource.Resource
	kind    *ownership.Kind // of the Go type
	dynamic *ownership.Kind // of decoded JSON
	// library's managers, by subresource
	typed, untyped map[string]*managedfields.FieldManager
}

var resets = map[string][][]string{
	"":       {{"status"}},
	"status": {{"spec"}, {"metadata", "ownerReferences"}, {"metadata", "deletionTimestamp"}},
}

func (s *subject) reset(subresource string) ownership.Reset {
	if !s.res.HasStatus {
		return ownership.Reset{}
	}
	return ownership.NewReset(resets[subresource]...)
}

// as is an object converter that converts nothing.
type as struct{ runtime.ObjectConvertor }

func (as) ConvertToVersion(in runtime.Object, _ runtime.GroupVersioner) (runtime.Object, error) {
	return in, nil
}

type noDefaults struct{}

func (noDefaults) Default(runtime.Object) {}

type unstructuredCreater struct{}

func (unstructuredCreater) New(gvk schema.GroupVersionKind) (runtime.Object, error) {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(gvk)
	return u, nil
}

var subjects = sync.OnceValues(func() ([]*subject, error) {
	table := resource.Builtin()
	conv := applyconfigurations.NewTypeConverter(table.Scheme())
	var out []*subject
	for _, res := range table.All() {
		obj := res.New()
		obj.GetObjectKind().SetGroupVersionKind(res.GVK())
		if _, err := meta.Accessor(obj); err != nil {
			continue
		}
		tv, err := conv.ObjectToTyped(obj, typed.AllowDuplicates)
		if err != nil {
			continue // a review, which is not stored
		}
		s := &subject{res: res, typed: map[string]*managedfields.FieldManager{}, untyped: map[string]*managedfields.FieldManager{}}
		gv := res.GVK().GroupVersion()
		if s.kind, err = ownership.New(tv, reflect.TypeOf(obj).Elem(), gv.String()); err != nil {
			return nil, err
		}
		if s.dynamic, err = ownership.New(tv, nil, gv.String()); err != nil {
			return nil, err
		}
		for sub, paths := range resets {
			var filters map[fieldpath.APIVersion]fieldpath.Filter
			if res.HasStatus {
				reset := fieldpath.NewSet()
				for _, p := range paths {
					path := fieldpath.MakePathOrDie(p[0])
					if len(p) > 1 {
						path = fieldpath.MakePathOrDie(p[0], p[1])
					}
					reset.Insert(path)
				}
				filters = fieldpath.NewExcludeFilterSetMap(map[fieldpath.APIVersion]*fieldpath.Set{fieldpath.APIVersion(gv.String()): reset})
			}
			if s.typed[sub], err = managedfields.NewDefaultFieldManager(conv, table.Scheme(), noDefaults{}, table.Scheme(), res.GVK(), gv, sub, filters); err != nil {
				return nil, err
			}
			if s.untyped[sub], err = managedfields.NewDefaultCRDFieldManager(conv, as{}, noDefaults{}, unstructuredCreater{}, res.GVK(), gv, sub, filters); err != nil {
				return nil, err
			}
		}
		out = append(out, s)
	}
	return out, nil
})

func allSubjects(t testing.TB) []*subject {
	t.Helper()
	all, err := subjects()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 50 {
		t.Fatalf("only %d kinds of the table have a schema", len(all))
	}
	return all
}

func accessor(t testing.TB, obj runtime.Object) metav1.Object {
	t.Helper()
	acc, err := meta.Accessor(obj)
	if err != nil {
		t.Fatal(err)
	}
	return acc
}

// show renders entries with times that are now as "now".
func show(entries []metav1.ManagedFieldsEntry) string {
	var b strings.Builder
	for _, e := range entries {
		at := "never"
		if e.Time != nil {
			at = fmt.Sprint(e.Time.Unix())
			if time.Since(e.Time.Time).Abs() < time.Hour {
				at = "now"
			}
		}
		fmt.Fprintf(&b, "%q %s %s %q %s %s %s\n", e.Manager, e.Operation, e.APIVersion, e.Subresource, at, e.FieldsType, e.FieldsV1.GetRawString())
	}
	return b.String()
}

// history is a sequence of writes to one object.
type history struct {
	filler
	*subject
	t    testing.TB
	live runtime.Object
	// counts of what was compared
	writes, entries, unfollowed, undynamic int
}

func (h *history) gvk(obj runtime.Object) runtime.Object {
	obj.GetObjectKind().SetGroupVersionKind(h.res.GVK())
	return obj
}

var managers = []string{"kubectl", "kubelet", "controller", "", "a", "b", "c", "d", "e", "f", "g", "h", "i", "j"}

// write has both sides follow one write and compares what they say.
func (h *history) write(obj runtime.Object, manager, subresource string) {
	h.t.Helper()
	wantObj := h.typed[subresource].UpdateNoErrors(h.gvk(h.live.DeepCopyObject()), h.gvk(obj.DeepCopyObject()), manager)
	want := show(accessor(h.t, wantObj).GetManagedFields())
	live, got := h.live.DeepCopyObject(), obj.DeepCopyObject()
	w := ownership.Write{Manager: manager, Subresource: subresource, Reset: h.reset(subresource), Now: time.Now()}
	h.writes++
	h.entries += strings.Count(want, "\n")
	if h.kind.Update(live, got, w) {
		if diff := cmp.Diff(want, show(accessor(h.t, got).GetManagedFields())); diff != "" {
			h.t.Fatalf("%s %q written by %q: the entries differ from the library's (-want +got):\n%s\nlive entries:\n%s", h.res.Plural, subresource, manager, diff,
				show(accessor(h.t, h.live).GetManagedFields()))
		}
		if !reflect.DeepEqual(live, h.live) {
			h.t.Fatalf("%s: the live object was changed", h.res.Plural)
		}
	} else {
		h.unfollowed++
		if !reflect.DeepEqual(got, obj) {
			h.t.Fatalf("%s: an object that could not be followed was changed", h.res.Plural)
		}
	}
	h.writeDynamic(obj, w)
	h.settle(wantObj)
}

func unstruct(t testing.TB, obj runtime.Object) *unstructured.Unstructured {
	t.Helper()
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
	if err != nil {
		return nil
	}
	return &unstructured.Unstructured{Object: m}
}

// writeDynamic is the same for the objects as decoded JSON.
func (h *history) writeDynamic(obj runtime.Object, w ownership.Write) {
	h.t.Helper()
	live, got := unstruct(h.t, h.gvk(h.live.DeepCopyObject())), unstruct(h.t, h.gvk(obj.DeepCopyObject()))
	if live == nil || got == nil {
		return
	}
	wantObj := h.untyped[w.Subresource].UpdateNoErrors(live.DeepCopy(), got.DeepCopy(), w.Manager)
	want := show(accessor(h.t, wantObj).GetManagedFields())
	before := live.DeepCopy()
	if !h.dynamic.Update(live, got, w) {
		h.undynamic++
		return
	}
	if diff := cmp.Diff(want, show(got.GetManagedFields())); diff != "" {
		h.t.Fatalf("%s %q as decoded JSON, written by %q: the entries differ from the library's (-want +got):\n%s", h.res.Plural, w.Subresource, w.Manager, diff)
	}
	if !reflect.DeepEqual(live, before) {
		h.t.Fatalf("%s: the live object was changed", h.res.Plural)
	}
}

// settle makes obj the live object and gives fresh entries some past time.
func (h *history) settle(obj runtime.Object) {
	acc := accessor(h.t, obj)
	if acc.GetUID() == "" {
		acc.SetUID("uid")
	}
	entries := acc.GetManagedFields()
	for i := range entries {
		if e := &entries[i]; e.Time != nil && time.Since(e.Time.Time).Abs() < time.Hour {
			at := metav1.Unix(1600000000+int64(h.IntN(5)), 0)
			e.Time = &at
		}
	}
	acc.SetManagedFields(entries)
	obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	h.live = obj
}

// apply has the library apply a part of a random object.
func (h *history) apply() {
	part := h.res.New()
	h.fill(reflect.ValueOf(part).Elem(), 0)
	acc := accessor(h.t, part)
	acc.SetManagedFields(nil)
	u := unstruct(h.t, h.gvk(part))
	if u == nil {
		return
	}
	out, err := h.typed[""].Apply(h.gvk(h.live.DeepCopyObject()), u, pick(&h.filler, managers[:4]), true)
	if err == nil {
		h.settle(out)
	}
}

// meddle changes the entries that a client sends.
func (h *history) meddle(obj runtime.Object) {
	acc := accessor(h.t, obj)
	entries := acc.GetManagedFields()
	if len(entries) == 0 {
		return
	}
	e := &entries[h.IntN(len(entries))]
	switch h.IntN(12) {
	case 0:
		entries = nil
	case 1:
		entries = []metav1.ManagedFieldsEntry{}
	case 2:
		entries = []metav1.ManagedFieldsEntry{{}}
	case 3:
		entries = entries[1:]
	case 4:
		entries = append(entries, *e.DeepCopy())
	case 5:
		e.Operation = pick(&h.filler, []metav1.ManagedFieldsOperationType{"", "Other", "Apply", "Update"})
	case 6:
		e.APIVersion = pick(&h.filler, []string{"", "v9", "apps/v1", "v1"})
	case 7:
		e.FieldsV1 = metav1.NewFieldsV1(pick(&h.filler, rawSets))
	case 8:
		e.FieldsV1 = nil
	case 9:
		e.FieldsType = ""
	case 10:
		e.Time = nil
	case 11:
		e.Subresource, e.Manager = "status", "ancient-changes"
	}
	acc.SetManagedFields(entries)
}

var rawSets = []string{
	``, `{}`, `null`, `{"f:metadata":{}}`, `{ "f:metadata":{"f:name":{}}}`, `{"f:metadata":{"f:name":{},"f:labels":{".":{},"f:a":{}}}}`,
	`{"f:spec":{".":{},"f:x":{}},"f:metadata":{}}`, `{"x:y":{}}`, `{"f:a":{"x:y":{}}}`, `{"f:a":{".":{}}}`, `{"f:a":{},"f:a":{"f:b":{}}}`, `{"f:a"`,
	`{"f:metadata":{"f:finalizers":{".":{},"v:\"a\"":{},"v:1":{}}}}`, `{"f:metadata":{"f:ownerReferences":{"k:{\"uid\":\"a\"}":{"f:name":{}}}}}`,
	`{"f:spec":{"f:ports":{"k:{\"port\":443}":{},"k:{\"port\":80}":{}}}}`, `{"f:metadata":{"f:annotations":{"f:a\u0020b":{}}}}`,
	`{"f:metadata":{"f:annotations":{}}}{}`, `{"f:spec":{"i:0":{}}}`, `{"f:status":{"f:x":{}}}`, `{"f:metadata":{"f:labels":{"f:b":{},"f:a":{}}}}`,
}

// run plays a history of n writes.
func (h *history) run(n int) {
	h.live = h.res.New()
	obj := h.res.New()
	h.fill(reflect.ValueOf(obj).Elem(), 0)
	if h.IntN(8) > 0 {
		accessor(h.t, obj).SetManagedFields(nil)
	}
	h.write(obj, pick(&h.filler, managers), "")
	for range n {
		obj := h.live.DeepCopyObject()
		for range h.IntN(4) {
			h.mutate(reflect.ValueOf(obj).Elem(), 0)
		}
		acc := accessor(h.t, obj)
		acc.SetUID(accessor(h.t, h.live).GetUID())
		switch h.IntN(8) {
		case 0:
			h.apply()
			continue
		case 1:
			h.meddle(obj)
		case 2, 3:
			acc.SetManagedFields(nil)
		default:
			acc.SetManagedFields(accessor(h.t, h.live.DeepCopyObject()).GetManagedFields())
		}
		sub := ""
		if h.IntN(2) == 0 {
			sub = "status"
		}
		h.write(obj, pick(&h.filler, managers), sub)
	}
}

var histories = flag.Uint64("histories", 2, "how many random histories TestEqualsLibrary plays of every kind")

// TestEqualsLibrary plays random histories of every kind of the table.
func TestEqualsLibrary(t *testing.T) {
	var sum history
	for i, s := range allSubjects(t) {
		for seed := range *histories {
			h := &history{filler: filler{Rand: rand.New(rand.NewPCG(uint64(i), seed)), odd: seed%2 == 1}, subject: s, t: t}
			h.run(8)
			sum.writes, sum.entries = sum.writes+h.writes, sum.entries+h.entries
			sum.unfollowed, sum.undynamic = sum.unfollowed+h.unfollowed, sum.undynamic+h.undynamic
		}
	}
	t.Logf("%d writes with %d entries; not followed %d, %d as decoded JSON", sum.writes, sum.entries, sum.unfollowed, sum.undynamic)
}

// FuzzEqualsLibrary plays the history that its input seeds.
func FuzzEqualsLibrary(f *testing.F) {
	all := allSubjects(f)
	for i := range all {
		f.Add(uint64(i), uint64(7), uint8(6), i%2 == 0)
	}
	f.Fuzz(func(t *testing.T, kind, seed uint64, n uint8, odd bool) {
		h := &history{filler: filler{Rand: rand.New(rand.NewPCG(kind, seed)), odd: odd}, subject: all[kind%uint64(len(all))], t: t}
		h.run(int(n % 32))
	})
}
