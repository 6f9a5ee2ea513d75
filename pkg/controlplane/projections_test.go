package controlplane

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/auth/node"
	"coracle/pkg/registry"
	"coracle/pkg/resource"
	"coracle/pkg/storage/cache"
)

// fillNames gives the strings of a value names, each its own, and makes about half
// of what may be left out.
func fillNames(rnd *rand.Rand, v reflect.Value, depth int) {
	if depth > 10 || v.Type() == reflect.TypeFor[metav1.Time]() {
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprint("name-", rnd.Uint32()))
	case reflect.Pointer:
		if rnd.IntN(2) == 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fillNames(rnd, v.Elem(), depth+1)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), rnd.IntN(3), 2))
		for i := range v.Len() {
			fillNames(rnd, v.Index(i), depth+1)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fillNames(rnd, v.Field(i), depth+1)
			}
		}
	}
}

// TestPodFields: what the node authorizer learns of a pod from the fields that it
// names is what it learns from the whole pod.
func TestPodFields(t *testing.T) {
	res, ok := resource.Builtin().ByGVR(corev1.SchemeGroupVersion.WithResource("pods"))
	if !ok {
		t.Fatal("there are no pods")
	}
	partial, err := registry.NewPartial(res, node.PodFields()...)
	if err != nil {
		t.Fatal(err)
	}
	rnd, read := rand.New(rand.NewPCG(5, 6)), &corev1.Pod{}
	for i := range 300 {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns"}}
		fillNames(rnd, reflect.ValueOf(&p.Spec).Elem(), 0)
		fillNames(rnd, reflect.ValueOf(&p.Status).Elem(), 0)
		if i%10 == 0 {
			p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
		}
		value, err := registry.Encode(res, p)
		if err != nil {
			t.Fatal(err)
		}
		if err := partial.Decode(&cache.Object{Value: value}, read); err != nil {
			t.Fatal(err)
		}
		var got, want node.Graph
		got.SetPod(read)
		want.SetPod(p)
		if !reflect.DeepEqual(&got, &want) {
			t.Fatalf("of pod %d: got\n%v, want\n%v", i, &got, &want)
		}
	}
}
