package apiserver

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// fillAny gives a value and all in it something, or with luck nothing.
func fillAny(rnd *rand.Rand, v reflect.Value, depth int) {
	if depth > 7 || rnd.IntN(3) == 0 {
		return
	}
	switch at := v.Addr().Interface().(type) {
	case *metav1.Time:
		*at = metav1.Unix(rnd.Int64N(1<<31), 0)
		return
	case *resource.Quantity:
		*at = resource.MustParse(fmt.Sprint(rnd.IntN(1000), "Mi"))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprint("t", rnd.IntN(50)))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int32, reflect.Int64:
		v.SetInt(rnd.Int64N(1000))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fillAny(rnd, v.Elem(), depth+1)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				fillAny(rnd, v.Field(i), depth+1)
			}
		}
	case reflect.Slice:
		n := rnd.IntN(3)
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fillAny(rnd, v.Index(i), depth+1)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range rnd.IntN(4) {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fillAny(rnd, key, depth+1)
			fillAny(rnd, value, depth+1)
			if key.IsZero() {
				continue // no label has an empty key
			}
			v.SetMapIndex(key, value)
		}
	}
}

// unbound is a pod that may be bound, with anything else in it.
func unbound(rnd *rand.Rand) *corev1.Pod {
	p := &corev1.Pod{}
	for _, v := range []any{&p.ObjectMeta, &p.Spec, &p.Status} {
		fillAny(rnd, reflect.ValueOf(v).Elem(), 0)
	}
	p.DeletionTimestamp, p.Spec.NodeName, p.Spec.SchedulingGates = nil, "", nil
	if rnd.IntN(2) == 0 {
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.PodScheduled, Status: "False", Reason: "Unschedulable"})
	}
	if rnd.IntN(3) == 0 {
		p.Labels = map[string]string{"a": "1", corev1.LabelTopologyZone: "old", "zz": "2"}
	}
	return p
}

// TestBindSplice: writing a binding into the encoded pod gives the same bytes as
// encoding the pod that was bound.
func TestBindSplice(t *testing.T) {
	rnd, now := rand.New(rand.NewPCG(1, 2)), metav1.Time{Time: time.Unix(1700000000, 5)}
	for i := range 3000 {
		p := unbound(rnd)
		b := &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: fmt.Sprint("node-", i)}}
		if i%3 > 0 {
			b.Labels = map[string]string{corev1.LabelTopologyZone: "z1"}
		}
		if i%3 > 1 {
			b.Labels[corev1.LabelTopologyRegion] = "r"
		}
		raw, err := p.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		before := bytes.Clone(raw)
		got, ok := bindSplice(b, now)(raw)
		if !ok {
			t.Fatalf("pod %d is not bound: %v", i, p)
		}
		if err := assign(p, b, now); err != nil {
			t.Fatal(err)
		}
		want, err := p.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) || !bytes.Equal(raw, before) {
			t.Fatalf("pod %d: got\n%q, want\n%q", i, got, want)
		}
	}
}

// TestBindSpliceRefuses: what assign refuses, or must look at, is left to it.
func TestBindSpliceRefuses(t *testing.T) {
	now := metav1.Time{Time: time.Unix(1700000000, 0)}
	for name, change := range map[string]func(*corev1.Pod, *corev1.Binding){
		"being deleted": func(p *corev1.Pod, _ *corev1.Binding) { p.DeletionTimestamp = &now },
		"bound":         func(p *corev1.Pod, _ *corev1.Binding) { p.Spec.NodeName = "n" },
		"gated": func(p *corev1.Pod, _ *corev1.Binding) {
			p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "g"}}
		},
		"annotations":  func(_ *corev1.Pod, b *corev1.Binding) { b.Annotations = map[string]string{"a": "b"} },
		"other labels": func(_ *corev1.Pod, b *corev1.Binding) { b.Labels = map[string]string{"a": "b"} },
		"bad labels":   func(_ *corev1.Pod, b *corev1.Binding) { b.Labels = map[string]string{corev1.LabelTopologyZone: "-"} },
	} {
		p, b := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}}, &corev1.Binding{Target: corev1.ObjectReference{Name: "m"}}
		change(p, b)
		raw, err := p.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		splice := bindSplice(b, now)
		if splice == nil {
			continue
		}
		if _, ok := splice(raw); ok {
			t.Errorf("%s: the binding was written into the pod", name)
		}
	}
}

// FuzzBindSplice: bytes that are a pod, however encoded, become the pod that was
// bound, or are left alone.
func FuzzBindSplice(f *testing.F) {
	rnd, now := rand.New(rand.NewPCG(3, 4)), metav1.Time{Time: time.Unix(1700000000, 0)}
	for range 5 {
		raw, err := unbound(rnd).Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	b := &corev1.Binding{Target: corev1.ObjectReference{Name: "n"}}
	b.Labels = map[string]string{corev1.LabelTopologyZone: "z"}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var was, is corev1.Pod
		spliced, ok := bindSplice(b, now)(raw)
		if was.Unmarshal(raw) != nil || !ok {
			return
		}
		if err := is.Unmarshal(spliced); err != nil {
			t.Fatalf("the pod cannot be read any more: %v", err)
		}
		if err := assign(&was, b, now); err != nil {
			t.Fatalf("was bound, although %v", err)
		}
		if !apiequality.Semantic.DeepEqual(&was, &is) {
			t.Fatalf("got\n%v, want\n%v", &is, &was)
		}
	})
}
