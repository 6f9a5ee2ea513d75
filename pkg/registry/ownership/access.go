package ownership

import (
	"reflect"
	"time"
	"unsafe"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// Reading Go values by address is confined to this file and typed.go: a plan
// is compiled from the very type that it is used on, so that an offset or a
// form is right by construction. Through package reflect the walk of a pod
// costs several times as much.

// at returns the value of type T at p.
func at[T any](p unsafe.Pointer) T { return *(*T)(p) }

// sliceHeader is how a slice lies in memory.
type sliceHeader struct {
	data unsafe.Pointer
	len  int
	_    int // its capacity
}

// reflected returns the variable of type t at p.
func reflected(t reflect.Type, p unsafe.Pointer) reflect.Value { return reflect.NewAt(t, p).Elem() }

// either combines two reasons to omit a field.
func either(a, b func(unsafe.Pointer) bool) func(unsafe.Pointer) bool {
	if a == nil {
		return b
	}
	if b == nil {
		return a
	}
	return func(p unsafe.Pointer) bool { return a(p) || b(p) }
}

// omitEmpty says when JSON's omitempty leaves a field of type t out.
func omitEmpty(t reflect.Type) func(unsafe.Pointer) bool {
	switch t.Kind() {
	case reflect.String:
		return func(p unsafe.Pointer) bool { return at[string](p) == "" }
	case reflect.Slice:
		return func(p unsafe.Pointer) bool { return at[sliceHeader](p).len == 0 }
	case reflect.Pointer:
		return func(p unsafe.Pointer) bool { return at[unsafe.Pointer](p) == nil }
	case reflect.Bool:
		return func(p unsafe.Pointer) bool { return !at[bool](p) }
	case reflect.Int32:
		return func(p unsafe.Pointer) bool { return at[int32](p) == 0 }
	case reflect.Int64:
		return func(p unsafe.Pointer) bool { return at[int64](p) == 0 }
	case reflect.Map:
		return func(p unsafe.Pointer) bool {
			return at[unsafe.Pointer](p) == nil || reflected(t, p).Len() == 0
		}
	case reflect.Interface:
		return func(p unsafe.Pointer) bool { return reflected(t, p).IsNil() }
	case reflect.Struct, reflect.Array:
		return nil // never
	}
	return func(p unsafe.Pointer) bool { return reflected(t, p).IsZero() }
}

// omitZero says when JSON's omitzero leaves a field of type t out.
func omitZero(t reflect.Type) func(unsafe.Pointer) bool {
	if t == timeType {
		return func(p unsafe.Pointer) bool { return (*metav1.Time)(p).IsZero() }
	}
	zero := value.OmitZeroFunc(t)
	return func(p unsafe.Pointer) bool { return zero(reflected(t, p)) }
}

// mapAccess reads the maps of one type. Entries are copied, since they have no
// address.
type mapAccess struct {
	len  func(p unsafe.Pointer) int
	get  func(p unsafe.Pointer, key string) unsafe.Pointer // nil when there is none
	each func(p unsafe.Pointer, f func(key string, elem unsafe.Pointer))
}

func accessMap(t reflect.Type) mapAccess {
	if t == reflect.TypeFor[map[string][]byte]() {
		return accessMapOf[string, []byte]()
	}
	return mapAccess{
		len: func(p unsafe.Pointer) int { return reflected(t, p).Len() },
		get: func(p unsafe.Pointer, key string) unsafe.Pointer {
			v := reflected(t, p).MapIndex(reflect.ValueOf(key).Convert(t.Key()))
			if !v.IsValid() {
				return nil
			}
			return copied(v)
		},
		each: func(p unsafe.Pointer, f func(string, unsafe.Pointer)) {
			for it := reflected(t, p).MapRange(); it.Next(); {
				f(it.Key().String(), copied(it.Value()))
			}
		},
	}
}

func copied(v reflect.Value) unsafe.Pointer {
	c := reflect.New(v.Type())
	c.Elem().Set(v)
	return c.UnsafePointer()
}

// accessMapOf is accessMap for map[K]V.
func accessMapOf[K ~string, V any]() mapAccess {
	return mapAccess{
		len: func(p unsafe.Pointer) int { return len(at[map[K]V](p)) },
		get: func(p unsafe.Pointer, key string) unsafe.Pointer {
			if v, ok := at[map[K]V](p)[K(key)]; ok {
				return unsafe.Pointer(&v)
			}
			return nil
		},
		each: func(p unsafe.Pointer, f func(string, unsafe.Pointer)) {
			for k, v := range at[map[K]V](p) {
				f(string(k), unsafe.Pointer(&v))
			}
		},
	}
}

// sameTime says that two times are the same text in JSON, and null when zero.
func sameTime(a, b time.Time) bool {
	return a.IsZero() == b.IsZero() && (a.IsZero() || a.Unix() == b.Unix())
}

// sameQuantity says that two quantities are the same text in JSON. It takes
// copies, since comparing and printing note things in a quantity.
func sameQuantity(x, y resource.Quantity) bool {
	return x.Format == y.Format && x.Cmp(y) == 0 || x.String() == y.String()
}

// sameIntOrString says that a and b are the same number or text in JSON.
func sameIntOrString(a, b *intstr.IntOrString) bool {
	if a.Type != b.Type {
		return false
	}
	if a.Type == intstr.Int {
		return a.IntVal == b.IntVal
	}
	return a.StrVal == b.StrVal
}
