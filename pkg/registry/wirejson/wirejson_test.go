package wirejson_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"

	"coracle/pkg/registry/wirejson"
	table "coracle/pkg/resource"
)

// message is what generated types have.
type message interface {
	Marshal() ([]byte, error)
	Unmarshal([]byte) error
}

// compile makes the plan of a kind.
func compile(t testing.TB, obj any) *wirejson.Plan {
	t.Helper()
	p, err := wirejson.Compile(reflect.TypeOf(obj).Elem())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// check compares the plan with the library for one encoding. It says whether
// the plan could do it.
func check(t *testing.T, p *wirejson.Plan, fresh message, wire []byte) bool {
	t.Helper()
	got, err := p.Append([]byte("before"), wire)
	if err != nil {
		if string(got) != "before" {
			t.Fatalf("after an error the buffer holds %s", got)
		}
		return false
	}
	if err := fresh.Unmarshal(wire); err != nil {
		t.Fatalf("%T: the plan writes what the library does not decode (%v): %s", fresh, err, got)
	}
	want, err := json.Marshal(fresh)
	if err != nil {
		t.Fatalf("%T: the plan writes what the library does not encode (%v): %s", fresh, err, got)
	}
	if !bytes.Equal(got[len("before"):], want) {
		at := 0
		for at < len(want) && at < len(got)-6 && got[6+at] == want[at] {
			at++
		}
		from := max(0, at-60)
		t.Fatalf("%T at %d:\n got …%.200s\nwant …%.200s", fresh, at, got[6+from:], want[from:])
	}
	return true
}

// TestEqualsLibrary: every kind, empty and with random fields.
func TestEqualsLibrary(t *testing.T) {
	for _, res := range table.Builtin().All() {
		if _, ok := res.New().(message); !ok || res.StoredJSON {
			continue
		}
		t.Run(res.Plural+"."+res.Group, func(t *testing.T) {
			p := compile(t, res.New())
			check(t, p, res.New().(message), nil)
			for seed := range uint64(300) {
				obj := res.New()
				f := filler{rnd: rand.New(rand.NewPCG(seed, 7)), density: []float64{0.1, 0.5, 0.9}[seed%3]}
				f.fill(reflect.ValueOf(obj).Elem(), 0)
				clearKind(obj)
				wire, err := obj.(message).Marshal()
				if err != nil {
					t.Fatal(err)
				}
				if !check(t, p, res.New().(message), wire) {
					t.Fatalf("seed %d: the plan left it to the library", seed)
				}
			}
		})
	}
	check(t, compile(t, &metav1.PartialObjectMetadata{}), &metav1.PartialObjectMetadata{}, nil)
}

func clearKind(obj runtime.Object) {
	obj.GetObjectKind().SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(""))
	reflect.ValueOf(obj).Elem().FieldByName("TypeMeta").SetZero()
}

// FuzzAppend gives foreign bytes to the plan of a kind with every shape of
// field: what it writes is what the library would.
func FuzzAppend(f *testing.F) {
	p := compile(f, &corev1.Pod{})
	for seed := range uint64(20) {
		pod := &corev1.Pod{}
		fill := filler{rnd: rand.New(rand.NewPCG(seed, 9)), density: 0.3}
		fill.fill(reflect.ValueOf(pod).Elem(), 0)
		wire, err := pod.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
	}
	f.Fuzz(func(t *testing.T, wire []byte) { check(t, p, &corev1.Pod{}, wire) })
}

// TestDamaged changes bytes of encodings at random.
func TestDamaged(t *testing.T) {
	p := compile(t, &corev1.Pod{})
	rnd := rand.New(rand.NewPCG(1, 2))
	done := 0
	for seed := range uint64(100) {
		pod := &corev1.Pod{}
		f := filler{rnd: rnd, density: 0.3}
		f.fill(reflect.ValueOf(pod).Elem(), 0)
		wire, err := pod.Marshal()
		if err != nil {
			t.Fatal(seed, err)
		}
		for range 100 {
			bad := bytes.Clone(wire)
			for range 1 + rnd.IntN(3) {
				bad[rnd.IntN(len(bad))] = byte(rnd.IntN(256))
			}
			if check(t, p, &corev1.Pod{}, bad) {
				done++
			}
		}
	}
	if done < 1000 {
		t.Errorf("the plan wrote %d of 10000 damaged pods", done)
	}
}

// TestUnusual: what the library would merge, reorder or reject is left to it.
func TestUnusual(t *testing.T) {
	p := compile(t, &corev1.ConfigMap{})
	wire := func(cm *corev1.ConfigMap) []byte {
		b, err := cm.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	a := wire(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Data: map[string]string{"z": "1"}})
	b := wire(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "b"}, Data: map[string]string{"y": "2"}})
	for name, bad := range map[string][]byte{"twice": append(bytes.Clone(a), b...), "cut": a[:len(a)-1], "text": []byte("text")} {
		if _, err := p.Append(nil, bad); !errors.Is(err, wirejson.ErrUnusual) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Entries of a map in any order are one map.
	second := b[bytes.Index(b, []byte("\x12\x06")):]
	if !check(t, p, &corev1.ConfigMap{}, append(bytes.Clone(a), second...)) {
		t.Error("a map out of order was left to the library")
	}
}

// TestQuantities: canonical and other ways to write a quantity.
func TestQuantities(t *testing.T) {
	p := compile(t, &corev1.ResourceQuota{})
	for _, text := range []string{"0", "1", "999", "1000", "1001", "1024", "1500m", "1000m", "250m", "0.5", "1Ki", "1024Ki", "1000Ki", "1536Mi", "2048Gi",
		"1e3", "12E", "007", "-5", "+5", "", "5k", "5000k", "123456789012345678", "1n", "0m", "0Ki", "1Ti", "3.0", ".5", "1u"} {
		raw := append([]byte{0x0a, byte(len(text))}, text...)
		entry := append([]byte{0x0a, 1, 'x', 0x12, byte(len(raw))}, raw...)
		hard := append([]byte{0x0a, byte(len(entry))}, entry...)
		check(t, p, &corev1.ResourceQuota{}, append([]byte{0x12, byte(len(hard))}, hard...))
	}
}

// filler fills values at random, as their types allow.
type filler struct {
	rnd     *rand.Rand
	density float64
}

var texts = []string{"", "a", "some text", "\"quoted\" \\ / <b>&amp;", "tab\tline\nreturn\r\b\f\x00\x1f\x7f", "käse 世界 \u2028\u2029 \U0001f600", "bad \xff\xc3 utf8", strings.Repeat("long ", 100)}

func (f *filler) text() string { return texts[f.rnd.IntN(len(texts))] }

func (f *filler) fill(v reflect.Value, depth int) {
	if depth > 0 && f.rnd.Float64() > f.density || depth > 12 {
		return
	}
	switch p := v.Addr().Interface().(type) {
	case *metav1.Time:
		*p = metav1.Unix(f.rnd.Int64N(4e9)-1e9, 5)
		return
	case *metav1.MicroTime:
		*p = metav1.NewMicroTime(time.Unix(f.rnd.Int64N(4e9), f.rnd.Int64N(1e6)*1000))
		return
	case *resource.Quantity:
		units := []string{"", "m", "k", "M", "Ki", "Mi", "Gi", "n", "e2"}
		*p = resource.MustParse(fmt.Sprint(f.rnd.IntN(5000), units[f.rnd.IntN(len(units))]))
		return
	case *intstr.IntOrString:
		if *p = intstr.FromInt32(f.rnd.Int32()); f.rnd.IntN(2) == 0 {
			*p = intstr.FromString(f.text())
		}
		return
	case *metav1.FieldsV1:
		p.SetRawString([]string{`{}`, `{"f:metadata":{"f:labels":{".":{},"f:a<b":{}}}}`, `{"f:x": {}}`, `{"f:a":{},"f:b":{}}`, `{"v:\"ä\"":{}}`}[f.rnd.IntN(5)])
		return
	case *runtime.RawExtension:
		p.Raw = []byte(`{"kind":"X", "a":["<b>"]}`)
		return
	}
	f.fillKind(v, depth)
}

func (f *filler) fillKind(v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(f.text())
	case reflect.Bool:
		v.SetBool(f.rnd.IntN(2) == 0)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt([]int64{0, 1, -1, 42, 1 << 30, -1 << 31}[f.rnd.IntN(6)])
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		f.fill(v.Elem(), depth+1)
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes([]byte(f.text()))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), f.rnd.IntN(3), 3))
		for i := range v.Len() {
			f.fill(v.Index(i), depth+1)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for i := range f.rnd.IntN(4) {
			key, val := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			key.SetString(fmt.Sprint(f.text(), i))
			f.fill(val, depth+1)
			v.SetMapIndex(key, val)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() && v.Type().Field(i).Name != "TypeMeta" {
				f.fill(v.Field(i), depth+1)
			}
		}
	}
}

// BenchmarkAppend compares a plan with the library.
func BenchmarkAppend(b *testing.B) {
	pod := &corev1.Pod{}
	f := filler{rnd: rand.New(rand.NewPCG(3, 9)), density: 0.35}
	f.fill(reflect.ValueOf(pod).Elem(), 0)
	config := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "bench", Namespace: "default", UID: "1", ResourceVersion: "12", Labels: map[string]string{"app": "bench"}},
		Data: map[string]string{"text": strings.Repeat("some text \"quoted\" ", 55)}}
	usual := &corev1.Pod{}
	text, err := os.ReadFile("../ownership/testdata/pod.yaml")
	if err != nil {
		b.Fatal(err)
	}
	if err := yaml.Unmarshal(text, usual); err != nil {
		b.Fatal(err)
	}
	set := `"f:containers":{"k:{\"name\":\"web\"}":{".":{},"f:image":{},"f:ports":{".":{},"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{},"f:protocol":{}}}}}`
	usual.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl", Operation: "Update", APIVersion: "v1", FieldsType: "FieldsV1",
		FieldsV1: metav1.NewFieldsV1(`{"f:spec":{` + strings.Repeat(set+",", 7) + set + `}}`)}}
	for _, obj := range []message{pod, usual, config} {
		wire, err := obj.Marshal()
		if err != nil {
			b.Fatal(err)
		}
		p := compile(b, obj)
		b.Run(fmt.Sprintf("%T/plan", obj), func(b *testing.B) {
			b.ReportAllocs()
			var buf []byte
			for b.Loop() {
				if buf, err = p.Append(buf[:0], wire); err != nil {
					b.Fatal(err)
				}
			}
			b.SetBytes(int64(len(buf)))
		})
		b.Run(fmt.Sprintf("%T/library", obj), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				fresh := reflect.New(reflect.TypeOf(obj).Elem()).Interface().(message)
				if err := fresh.Unmarshal(wire); err != nil {
					b.Fatal(err)
				}
				doc, err := json.Marshal(fresh)
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(int64(len(doc)))
			}
		})
	}
}
