package registry

import (
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	table "coracle/pkg/resource"
)

// fillStrings gives about half of the fields of a message a value. Every string
// is one that occurs once, so that none stands in for another.
func fillStrings(rnd *rand.Rand, v reflect.Value, depth int) {
	if depth > 5 || depth > 1 && rnd.IntN(2) == 0 {
		return
	}
	switch v.Addr().Interface().(type) {
	case *metav1.Time, *metav1.MicroTime, *resource.Quantity, *metav1.FieldsV1, *runtime.RawExtension, *metav1.TypeMeta:
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("text-" + string(rune('a'+rnd.IntN(26))) + string(rune('a'+rnd.IntN(26))))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(rnd.Int64N(1000))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fillStrings(rnd, v.Elem(), depth+1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fillStrings(rnd, v.Index(i), depth+1)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fillStrings(rnd, v.Field(i), depth+1)
			}
		}
	}
}

// TestSelectableFieldsOfAPart: what is read of a part of an object is what the
// whole object says.
func TestSelectableFieldsOfAPart(t *testing.T) {
	rnd, parts := rand.New(rand.NewPCG(7, 11)), 0
	for _, res := range table.Builtin().All() {
		if res.Fields == nil || res.StoredJSON {
			continue
		}
		s := selectableOf(res)
		if len(res.FieldsRead) > 0 && s.part == nil {
			t.Errorf("%s: FieldsRead names a field that its type does not have", res.Kind)
			continue
		}
		if s.part != nil {
			parts++
		}
		for range 200 {
			obj := res.New()
			fillStrings(rnd, reflect.ValueOf(obj).Elem(), 0)
			raw, err := obj.(protoMessage).Marshal()
			if err != nil {
				t.Fatal(err)
			}
			got, err := s.fields(raw)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(res.Fields(obj), got); d != "" {
				t.Fatalf("%s: of the whole object (-), of FieldsRead (+):\n%s", res.Kind, d)
			}
		}
	}
	if parts < 10 {
		t.Errorf("only %d kinds are read in part", parts)
	}
}

// FuzzSelectableFields: of damaged bytes that decode, a part says the same.
func FuzzSelectableFields(f *testing.F) {
	pod := corev1.Pod{Spec: corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "c"}}}, Status: corev1.PodStatus{PodIPs: []corev1.PodIP{{IP: "1"}}}}
	raw, err := pod.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add(append(raw, raw...)) // a field twice: the last one counts, messages are merged
	res, ok := table.Builtin().ByGVR(corev1.SchemeGroupVersion.WithResource("pods"))
	if !ok {
		f.Fatal("no pods")
	}
	s := selectableOf(res)
	f.Fuzz(func(t *testing.T, raw []byte) {
		var whole corev1.Pod
		got, err := s.fields(raw)
		if whole.Unmarshal(raw) != nil {
			return // it is found when it is decoded, if not here
		}
		if err != nil {
			t.Fatalf("the whole decodes, the part does not: %v", err)
		}
		if d := cmp.Diff(res.Fields(&whole), got); d != "" {
			t.Fatal(d)
		}
	})
}

// BenchmarkIndex is what every write and every event of the store costs.
func BenchmarkIndex(b *testing.B) {
	res, ok := table.Builtin().ByGVR(corev1.SchemeGroupVersion.WithResource("pods"))
	if !ok {
		b.Fatal("no pods")
	}
	obj, err := NewDecoder(table.Builtin().Scheme()).DecodeFor(res, bodies(b)["Pod"], JSON, Strict, func(string) {})
	if err != nil {
		b.Fatal(err)
	}
	value, err := Encode(res, obj)
	if err != nil {
		b.Fatal(err)
	}
	kind := KindOf(res)
	measure(b, "Pod", len(value), func() error {
		_, err := kind.Index("/registry/pods/default/web", value, 4711)
		return err
	})
}
