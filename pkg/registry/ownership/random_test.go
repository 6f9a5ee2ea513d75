package ownership_test

import (
	"math/rand/v2"
	"reflect"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// filler fills values of any API type at random, out of few values, so that
// lists share items, maps keys, and objects fields.
type filler struct {
	*rand.Rand
	// odd lets strings hold what JSON has to escape.
	odd bool
}

var (
	words    = []string{"", "a", "b", "c", "web", "web-1", "example.com/x", "10.0.0.1", "/var/lib", "TCP"}
	oddWords = []string{`q"uote`, `back\slash`, "<&>", "ümläut", "tab\t", "\u2028", "bad\xff"}
	amounts  = []string{"1", "1000m", "1Gi", "500m", "0", "0.5", "1e3", "1024Mi", "12345678901234567890"}
)

func pick[T any](f *filler, of []T) T { return of[f.IntN(len(of))] }

func (f *filler) word() string {
	if f.odd && f.IntN(12) == 0 {
		return pick(f, oddWords)
	}
	return pick(f, words)
}

func (f *filler) time() time.Time {
	switch f.IntN(4) {
	case 0:
		return time.Time{}
	case 1:
		return time.Unix(1700000000+int64(f.IntN(3)), int64(f.IntN(2))).UTC()
	}
	return time.Unix(1700000000+int64(f.IntN(3)), int64(f.IntN(3))*1000)
}

// special fills types that JSON shows otherwise than by their fields.
func (f *filler) special(v reflect.Value) bool {
	switch x := v.Addr().Interface().(type) {
	case *metav1.Time:
		x.Time = f.time()
	case *metav1.MicroTime:
		x.Time = f.time()
	case *resource.Quantity:
		*x = resource.MustParse(pick(f, amounts))
		if f.IntN(2) == 0 {
			_ = x.String() // which it remembers
		}
	case *intstr.IntOrString:
		*x = intstr.FromInt32(int32(f.IntN(3)))
		if f.IntN(2) == 0 {
			*x = intstr.FromString(f.word())
		}
	case *runtime.RawExtension:
		x.Raw = []byte(pick(f, []string{`{}`, `{"a":1,"b":{"c":[1,2]}}`, `{"a":2,"b":{"d":null}}`, `null`}))
	case *apiextensionsv1.JSON:
		x.Raw = []byte(pick(f, []string{`{}`, `{"a":1}`, `[1,"x"]`, `"s"`, `1.5`, `null`}))
	case *[]metav1.ManagedFieldsEntry:
		*x = nil
		if f.odd && f.IntN(12) == 0 {
			*x = []metav1.ManagedFieldsEntry{{Manager: "m"}}
		}
	case *metav1.TypeMeta:
	default:
		return false
	}
	return true
}

// fill sets v, which is of nested depth, to something.
func (f *filler) fill(v reflect.Value, depth int) {
	if f.special(v) {
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(f.word())
	case reflect.Bool:
		v.SetBool(f.IntN(2) == 0)
	case reflect.Int, reflect.Int32, reflect.Int64, reflect.Int16, reflect.Int8:
		v.SetInt(pick(f, []int64{0, 0, 1, 80, 8, 100}))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		v.SetUint(uint64(f.IntN(3)))
	case reflect.Float32, reflect.Float64:
		v.SetFloat(float64(f.IntN(4)) / 2)
	case reflect.Pointer:
		v.SetZero()
		if depth < 12 && f.IntN(5) < 2 {
			v.Set(reflect.New(v.Type().Elem()))
			f.fill(v.Elem(), depth+1)
		}
	case reflect.Slice:
		f.fillSlice(v, depth)
	case reflect.Map:
		f.fillMap(v, depth)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() && (depth < 3 || f.IntN(3) > 0) {
				f.fill(v.Field(i), depth+1)
			}
		}
	}
}

func (f *filler) fillSlice(v reflect.Value, depth int) {
	v.SetZero()
	n := f.IntN(6) - 2
	if depth > 10 || n < -1 {
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), max(n, 0), max(n, 0)))
	for i := range v.Len() {
		f.fill(v.Index(i), depth+1)
	}
}

func (f *filler) fillMap(v reflect.Value, depth int) {
	v.SetZero()
	n := f.IntN(6) - 2
	if depth > 10 || n < -1 {
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	for range n {
		e := reflect.New(v.Type().Elem()).Elem()
		f.fill(e, depth+1)
		v.SetMapIndex(reflect.ValueOf(f.word()).Convert(v.Type().Key()), e)
	}
}

// mutate changes something in v, or a part of it.
func (f *filler) mutate(v reflect.Value, depth int) {
	if f.IntN(8) == 0 || f.special(v) {
		f.fill(v, depth)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			f.fill(v, depth)
			return
		}
		f.mutate(v.Elem(), depth+1)
	case reflect.Slice:
		f.mutateSlice(v, depth)
	case reflect.Struct:
		for range min(20, 20*v.NumField()) {
			i := f.IntN(v.NumField())
			if v.Type().Field(i).IsExported() {
				f.mutate(v.Field(i), depth+1)
				return
			}
		}
	default:
		f.fill(v, depth)
	}
}

func (f *filler) mutateSlice(v reflect.Value, depth int) {
	n := v.Len()
	switch f.IntN(4) {
	case 0: // one more
		e := reflect.New(v.Type().Elem()).Elem()
		f.fill(e, depth+1)
		v.Set(reflect.Append(v, e))
	case 1: // one fewer
		if n > 0 {
			v.Set(v.Slice(0, n-1))
		}
	case 2: // another order
		if n > 1 {
			reflect.Swapper(v.Interface())(0, n-1)
		}
	default:
		if n > 0 {
			f.mutate(v.Index(f.IntN(n)), depth+1)
		}
	}
}
