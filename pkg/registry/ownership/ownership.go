// Package ownership keeps metadata.managedFields: who set which field of an
// object last. It does for create, update and patch what the field manager of
// k8s.io/apimachinery does, result for result and byte for byte, at a fraction
// of its cost: a plan made once per kind out of the schema and the Go type (or
// the schema alone, for objects that are decoded JSON) compares the old object
// with the new one in one walk.
//
// Contract: Kind.Update either leaves in the object exactly the entries that
// the library would, or reports that it cannot follow the write and leaves the
// object alone; the caller then asks the library. It cannot follow entries of
// another API version (they need a conversion), objects that their schema
// calls invalid, sets that were made under another schema, and names and keys
// that are not plain in JSON. Server-side apply is the library's.
package ownership

import (
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"
	"unsafe"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/structured-merge-diff/v6/typed"

	"coracle/pkg/resource"
)

// Kind follows the fields of one kind of object at one API version. It is safe
// for concurrent use.
type Kind struct {
	version string
	node    *node
	plan    *plan // of the Go type; nil for decoded JSON
	// alike compares the top-level fields that have parts, by their place in the
	// plan; nil for the others.
	alike   []func(a, b unsafe.Pointer) bool
	unowned set // what nobody owns: names, times and the like
	memo    memo
	walkers sync.Pool
}

// New compiles a kind. schema is any object of the kind as a type converter
// sees it; t is the struct that its objects are decoded into, or nil for
// *unstructured.Unstructured. version is the apiVersion of its objects.
// Errors: a schema or a type that cannot be followed.
func New(schema *typed.TypedValue, t reflect.Type, version string) (*Kind, error) {
	r := resolver{schema: schema.Schema(), named: map[string]*node{}}
	n, err := r.resolve(schema.TypeRef())
	if err != nil {
		return nil, fmt.Errorf("compile the schema of %s: %w", version, err)
	}
	k := &Kind{version: version, node: n, unowned: fields(
		[]string{"apiVersion"}, []string{"kind"}, []string{"metadata"},
		[]string{"metadata", "name"}, []string{"metadata", "namespace"}, []string{"metadata", "uid"},
		[]string{"metadata", "creationTimestamp"}, []string{"metadata", "selfLink"}, []string{"metadata", "clusterName"},
		[]string{"metadata", "generation"}, []string{"metadata", "managedFields"}, []string{"metadata", "resourceVersion"},
	)}
	k.walkers.New = func() any { return &walker{} }
	if t == nil {
		return k, nil
	}
	c := compiler{plans: map[planID]*plan{}}
	if k.plan, err = c.compile(t, n); err != nil {
		return nil, fmt.Errorf("compile %s of %s: %w", t, version, err)
	}
	c.finish()
	if k.plan.form != structForm || k.plan.atomic {
		return nil, fmt.Errorf("%s of %s is not an object by its schema", t, version)
	}
	k.alike = make([]func(a, b unsafe.Pointer) bool, len(k.plan.fields))
	for i := range k.plan.fields {
		if f := &k.plan.fields[i]; f.plan.form == structForm && f.name != "metadata" { // which always differs
			variable := f.plan.typ
			if f.plan.pointer {
				variable = reflect.PointerTo(variable)
			}
			k.alike[i] = resource.CompareExactly(variable)
		}
	}
	return k, nil
}

// Reset is what a write cannot set, so that nobody comes to own it by trying.
type Reset struct {
	top  []string // whole top-level fields
	deep set      // the others
}

// NewReset makes a Reset of fields, each given as the names that lead to it.
func NewReset(paths ...[]string) Reset {
	var r Reset
	var deep [][]string
	for _, p := range paths {
		if len(p) == 1 {
			r.top = append(r.top, p[0])
		} else {
			deep = append(deep, p)
		}
	}
	r.deep = fields(deep...)
	return r
}

// Write says who writes, and what.
type Write struct {
	Manager     string // "" stands for "unknown"
	Subresource string
	Reset       Reset
	Now         time.Time
}

// Update puts into obj the entries that follow from its being written over
// live, which is not changed; live is an empty object on create. It reports
// false, and changes nothing, when it cannot follow the write.
func (k *Kind) Update(live, obj runtime.Object, write Write) bool {
	liveMeta, err := meta.Accessor(live)
	if err != nil {
		return false
	}
	objMeta, err := meta.Accessor(obj)
	if err != nil {
		return false
	}
	entries, ok := k.before(liveMeta, objMeta, write.Subresource != "")
	if !ok {
		return false
	}
	if len(entries) == 0 && liveMeta.GetUID() != "" {
		// Ownership is followed from an object's creation on or not at all.
		objMeta.SetManagedFields(nil)
		return true
	}
	w := k.walkers.Get().(*walker)
	defer func() {
		if w.release() {
			k.walkers.Put(w)
		}
	}()
	restore := takeEntries(obj, objMeta)
	changed, removed, ok := k.compare(w, live, obj, write.Reset)
	if !ok {
		restore()
		return false
	}
	out, ok := k.after(w, entries, changed, removed, write)
	if !ok {
		restore()
		return false
	}
	if u, isDynamic := obj.(*unstructured.Unstructured); !isDynamic || !w.setPlain(u, out) {
		objMeta.SetManagedFields(w.encode(out))
	}
	return true
}

// takeEntries removes the entries from an object, so that they are no part of
// what is compared. restore puts them back.
func takeEntries(obj runtime.Object, acc metav1.Object) (restore func()) {
	u, ok := obj.(*unstructured.Unstructured)
	if !ok {
		entries := acc.GetManagedFields()
		acc.SetManagedFields(nil)
		return func() { acc.SetManagedFields(entries) }
	}
	m, _ := u.Object["metadata"].(map[string]any)
	entries, ok := m["managedFields"]
	delete(m, "managedFields")
	return func() {
		if ok {
			m["managedFields"] = entries
		}
	}
}

// compare returns what obj adds or changes, and what it no longer has.
func (k *Kind) compare(w *walker, live, obj runtime.Object, reset Reset) (changed, removed set, ok bool) {
	var d difference
	switch l := live.(type) {
	case *unstructured.Unstructured:
		r, isIt := obj.(*unstructured.Unstructured)
		if !isIt || k.plan != nil || k.node.fields == nil || k.node.fields.atomic {
			return nil, nil, false
		}
		d = k.dynamicRoot(w, l.Object, r.Object, reset)
	default:
		if k.plan == nil || reflect.TypeOf(live) != reflect.PointerTo(k.plan.typ) || reflect.TypeOf(obj) != reflect.TypeOf(live) {
			return nil, nil, false
		}
		d = k.typedRoot(w, reflect.ValueOf(live).UnsafePointer(), reflect.ValueOf(obj).UnsafePointer(), reset)
	}
	if w.failed {
		return nil, nil, false
	}
	return w.without(d.changedBelow, reset.deep), w.without(d.removedBelow, reset.deep), true
}

// typedRoot compares two objects field by field. Kind and apiVersion are the
// same in both, whether they say so or not.
func (k *Kind) typedRoot(w *walker, l, r unsafe.Pointer, reset Reset) (d difference) {
	for i := range k.plan.fields {
		f := &k.plan.fields[i]
		fl, fr := f.of(l), f.of(r)
		switch {
		case f.name == "apiVersion" || f.name == "kind" || fl == nil && fr == nil:
		case slices.Contains(reset.top, f.name):
			w.validateField(f, fl)
			w.validateField(f, fr)
		case fl != nil && fr != nil && k.alike[i] != nil && k.alike[i](fl, fr):
			w.validateField(f, fr) // and nothing is added, changed or removed
		default:
			sub := w.typed(f.plan, fl, fr)
			w.push(element{name: f.name}, &sub)
		}
	}
	w.pop(0, 0, &d)
	return d
}

func (k *Kind) dynamicRoot(w *walker, l, r map[string]any, reset Reset) (d difference) {
	if !valid(k.node, l) || !valid(k.node, r) {
		w.failed = true
		return d
	}
	step := func(name string, lv, rv any, lgone, rgone bool) {
		if name == "apiVersion" || name == "kind" || slices.Contains(reset.top, name) {
			return
		}
		sub := w.dynamic(k.node.fields.field(name), lv, rv, lgone, rgone)
		w.failed = w.failed || !plainName(name)
		w.push(element{name: name}, &sub)
	}
	for name, rv := range r {
		lv, ok := l[name]
		step(name, lv, rv, !ok, false)
	}
	for name, lv := range l {
		if _, ok := r[name]; !ok {
			step(name, lv, nil, false, true)
		}
	}
	sortByName(w.changed)
	sortByName(w.removed)
	w.pop(0, 0, &d)
	return d
}

// maxKept bounds the stacks of a walker that is used again.
const maxKept = 4096

// release empties the walker and says whether it is worth keeping. What it
// still points to, the pool drops at the next garbage collections.
func (w *walker) release() bool {
	w.builder.reset()
	w.changed, w.removed, w.items, w.scalars, w.failed = w.changed[:0], w.removed[:0], w.items[:0], w.scalars[:0], false
	return cap(w.changed) <= maxKept && cap(w.removed) <= maxKept && cap(w.items) <= maxKept && cap(w.scalars) <= maxKept
}
