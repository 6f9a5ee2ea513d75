package resource

import (
	"reflect"
	"testing"
	"unsafe"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

// TestSame changes every value of every kind's example in turn and compares the
// verdict with the library's.
func TestSame(t *testing.T) {
	eachResource(t, func(t *testing.T, r *Resource) {
		if r.Custom != nil {
			return
		}
		a := created(t, r)
		b := a.DeepCopyObject()
		x, y := reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem()
		check := func() {
			t.Helper()
			want := equality.Semantic.DeepEqual(x.Interface(), y.Interface())
			if got := sameValue(x, y); got != want {
				t.Fatalf("same is %v, the library says %v: %v and %v", got, want, a, b)
			}
			if got := sameValue(y, x); got != want {
				t.Fatalf("same is %v the other way round, the library says %v: %v and %v", got, want, a, b)
			}
		}
		check()
		eachChange(y, check)
	})
}

// eachChange calls f with every value below v changed, one at a time.
func eachChange(v reflect.Value, f func()) {
	if !v.CanSet() {
		return
	}
	was := reflect.New(v.Type()).Elem()
	was.Set(v)
	try := func(change reflect.Value) {
		v.Set(change)
		f()
		v.Set(was)
	}
	try(reflect.Zero(v.Type()))
	switch v.Kind() {
	case reflect.String:
		try(reflect.ValueOf(v.String() + "x").Convert(v.Type()))
	case reflect.Int32, reflect.Int64:
		try(reflect.ValueOf(v.Int() + 1).Convert(v.Type()))
	case reflect.Bool:
		try(reflect.ValueOf(!v.Bool()).Convert(v.Type()))
	case reflect.Pointer:
		try(reflect.New(v.Type().Elem()))
		if !v.IsNil() {
			eachChange(v.Elem(), f)
		}
	case reflect.Slice:
		try(reflect.MakeSlice(v.Type(), 0, 0))
		try(reflect.MakeSlice(v.Type(), v.Len(), v.Len()))
		try(reflect.Append(v, reflect.Zero(v.Type().Elem())))
		for i := range v.Len() {
			eachChange(v.Index(i), f)
		}
	case reflect.Map:
		try(reflect.MakeMap(v.Type()))
		more := reflect.MakeMap(v.Type())
		more.SetMapIndex(reflect.Zero(v.Type().Key()), reflect.Zero(v.Type().Elem()))
		try(more)
	case reflect.Struct:
		for i := range v.NumField() {
			eachChange(v.Field(i), f)
		}
	}
}

// FuzzSame: any two pods are the same exactly when the library says so.
func FuzzSame(f *testing.F) {
	const pod = "metadata: {labels: {a: b}, creationTimestamp: '2026-01-01T00:00:00Z'}\n" +
		"spec: {nodeSelector: {x: ''}, containers: [{name: a, image: b, resources: {limits: {cpu: 1, memory: 1Gi}}}]}"
	f.Add([]byte(pod), []byte(pod))
	f.Add([]byte(pod), []byte("spec: {nodeSelector: {y: ''}, containers: [{resources: {limits: {cpu: 1000m, memory: 1024Mi}}}], tolerations: []}"))
	f.Add([]byte("metadata: {managedFields: [{fieldsV1: {a: {}}}]}"), []byte("metadata: {managedFields: [{fieldsV1: {b: {}}}]}"))
	f.Fuzz(func(t *testing.T, one, other []byte) {
		var a, b corev1.Pod
		if yaml.Unmarshal(one, &a) != nil || yaml.Unmarshal(other, &b) != nil {
			return
		}
		if got, want := same(&a, &b), equality.Semantic.DeepEqual(a, b); got != want {
			t.Errorf("same is %v, the library says %v: %v and %v", got, want, a, b)
		}
		if !same(&a, a.DeepCopy()) {
			t.Errorf("not the same as its copy: %v", a)
		}
	})
}

// TestSameSpecial has what is equal although it does not look so.
func TestSameSpecial(t *testing.T) {
	quantity := func(s string) corev1.ResourceList {
		return corev1.ResourceList{"cpu": resource.MustParse(s)}
	}
	if a, b := quantity("1"), quantity("1000m"); !same(&a, &b) {
		t.Error("1 is not 1000m")
	}
	if a, b := quantity("1"), quantity("1001m"); same(&a, &b) {
		t.Error("1 is 1001m")
	}
	now := metav1.Now()
	if a, b := now, metav1.NewTime(now.UTC()); !same(&a, &b) {
		t.Error("a time is another in UTC")
	}
	if a, b := (runtime.RawExtension{Raw: []byte("x")}), (runtime.RawExtension{Object: &corev1.Pod{}}); same(&a, &b) {
		t.Error("raw bytes are a pod")
	}
}

func BenchmarkSame(b *testing.B) {
	var pod corev1.Pod
	const text = "spec: {containers: [{name: a, image: b, env: [{name: x, value: y}], resources: {limits: {cpu: 1, memory: 1Gi}}}, {name: b}], tolerations: [{key: a}]}"
	if err := yaml.Unmarshal([]byte(text), &pod); err != nil {
		b.Fatal(err)
	}
	other := pod.DeepCopy()
	b.Run("Ours", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			same(&pod.Spec, &other.Spec)
		}
	})
	b.Run("Compiled", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			podSpecsAlike()(unsafe.Pointer(&pod.Spec), unsafe.Pointer(&other.Spec))
		}
	})
	b.Run("Library", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			equality.Semantic.DeepEqual(pod.Spec, other.Spec)
		}
	})
}
