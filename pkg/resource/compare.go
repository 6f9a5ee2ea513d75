package resource

import (
	"reflect"
	"sync"
	"unsafe"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// comparison says whether two values of the type that it was compiled for, given
// by where they are, are the same.
type comparison func(a, b unsafe.Pointer) bool

// comparer compiles comparisons. The result of one that is not exact is that of
// equality.Semantic.DeepEqual, for values without cycles. An exact one tells nil
// from empty as well, and quantities of other forms: what it finds the same,
// every function that only reads finds the same.
type comparer struct {
	exact bool
	done  map[reflect.Type]*comparison
}

// podSpecs compare specs of pods, which every write of a pod does.
var (
	podSpecsEqual = sync.OnceValue(func() comparison {
		c := comparer{done: map[reflect.Type]*comparison{}}
		return *c.of(reflect.TypeFor[corev1.PodSpec]())
	})
	podSpecsAlike = sync.OnceValue(func() comparison { return CompareExactly(reflect.TypeFor[corev1.PodSpec]()) })
)

// CompareExactly returns the comparison of two variables of a type, given by where
// they are: whatever only reads them finds the same in both when it says so. It may
// say no where that is so.
func CompareExactly(t reflect.Type) func(a, b unsafe.Pointer) bool {
	c := comparer{exact: true, done: map[reflect.Type]*comparison{}}
	return *c.of(t)
}

// samePodSpec is equality.Semantic.DeepEqual.
func samePodSpec(a, b *corev1.PodSpec) bool {
	return podSpecsEqual()(unsafe.Pointer(a), unsafe.Pointer(b))
}

// of is the comparison of a type; it can be called when all are compiled, since a
// type may contain itself.
func (c *comparer) of(t reflect.Type) *comparison {
	if made, ok := c.done[t]; ok {
		return made
	}
	made := new(comparison)
	c.done[t] = made
	*made = c.make(t)
	return made
}

func (c *comparer) make(t reflect.Type) comparison {
	switch t {
	case reflect.TypeFor[resource.Quantity]():
		return c.quantities
	case reflect.TypeFor[corev1.ResourceList]():
		return mapsOf[corev1.ResourceName](c, func(a, b *resource.Quantity) bool { return c.quantities(unsafe.Pointer(a), unsafe.Pointer(b)) })
	case reflect.TypeFor[map[string]string]():
		return mapsOf[string](c, func(a, b *string) bool { return *a == *b })
	case reflect.TypeFor[metav1.Time](), reflect.TypeFor[metav1.MicroTime](), reflect.TypeFor[metav1.FieldsV1]():
		return c.library(t)
	}
	switch t.Kind() {
	case reflect.String:
		return equal[string]
	case reflect.Bool, reflect.Int8, reflect.Uint8:
		return equal[uint8]
	case reflect.Int16, reflect.Uint16:
		return equal[uint16]
	case reflect.Int32, reflect.Uint32:
		return equal[uint32]
	case reflect.Int64, reflect.Uint64:
		return equal[uint64]
	case reflect.Int, reflect.Uint:
		return equal[uint]
	case reflect.Pointer:
		return pointers(c.of(t.Elem()))
	case reflect.Slice:
		return c.lists(t)
	case reflect.Struct:
		return c.structs(t)
	}
	return c.library(t)
}

func equal[T comparable](a, b unsafe.Pointer) bool { return *(*T)(a) == *(*T)(b) }

func (c *comparer) quantities(a, b unsafe.Pointer) bool {
	x, y := (*resource.Quantity)(a), (*resource.Quantity)(b)
	return x.Cmp(*y) == 0 && (!c.exact || x.Format == y.Format)
}

// library leaves a type to apimachinery.
func (c *comparer) library(t reflect.Type) comparison {
	equal := equality.Semantic.DeepEqual
	if c.exact {
		equal = reflect.DeepEqual
	}
	return func(a, b unsafe.Pointer) bool {
		return equal(reflect.NewAt(t, a).Elem().Interface(), reflect.NewAt(t, b).Elem().Interface())
	}
}

func pointers(to *comparison) comparison {
	return func(a, b unsafe.Pointer) bool {
		x, y := *(*unsafe.Pointer)(a), *(*unsafe.Pointer)(b)
		if x == nil || y == nil {
			return x == y
		}
		return x == y || (*to)(x, y)
	}
}

// list is what a slice of any type is in memory.
type list struct {
	first    unsafe.Pointer
	len, cap int
}

func (c *comparer) lists(t reflect.Type) comparison {
	item, size, exact := c.of(t.Elem()), t.Elem().Size(), c.exact
	return func(a, b unsafe.Pointer) bool {
		x, y := (*list)(a), (*list)(b)
		if x.len != y.len || exact && (x.first == nil) != (y.first == nil) {
			return false
		}
		if x.first == y.first {
			return true
		}
		for i := range x.len {
			if at := uintptr(i) * size; !(*item)(unsafe.Add(x.first, at), unsafe.Add(y.first, at)) {
				return false
			}
		}
		return true
	}
}

func mapsOf[K ~string, V any](c *comparer, same func(a, b *V) bool) comparison {
	exact := c.exact
	return func(a, b unsafe.Pointer) bool {
		x, y := *(*map[K]V)(a), *(*map[K]V)(b)
		if len(x) != len(y) || exact && (x == nil) != (y == nil) {
			return false
		}
		for k, v := range x {
			if w, ok := y[k]; !ok || !same(&v, &w) {
				return false
			}
		}
		return true
	}
}

func (c *comparer) structs(t reflect.Type) comparison {
	type field struct {
		at   uintptr
		same *comparison
	}
	var fields []field
	for i := range t.NumField() {
		f := t.Field(i)
		fields = append(fields, field{f.Offset, c.of(f.Type)})
	}
	return func(a, b unsafe.Pointer) bool {
		for i := range fields {
			if f := &fields[i]; !(*f.same)(unsafe.Add(a, f.at), unsafe.Add(b, f.at)) {
				return false
			}
		}
		return true
	}
}
