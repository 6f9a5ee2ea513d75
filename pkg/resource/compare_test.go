package resource

import (
	"reflect"
	"testing"
	"unsafe"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/yaml"
)

// comparedPod has something of everything that is compared in a way of its own.
const comparedPod = "{nodeSelector: {x: ''}, hostNetwork: true, terminationGracePeriodSeconds: 3, tolerations: [{key: a, tolerationSeconds: 5}]," +
	"overhead: {cpu: 1}, volumes: [{name: v, emptyDir: {sizeLimit: 1Gi}}, {name: c, configMap: {name: m, items: [{key: k, path: p, mode: 4}]}}]," +
	"affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: z, labelSelector: {matchLabels: {a: b}}}]}}," +
	"containers: [{name: a, image: b, args: [x], livenessProbe: {httpGet: {port: 80}}, resources: {limits: {cpu: 1, memory: 1Gi}}}]}"

// TestCompare changes every value of a spec in turn and compares the verdicts
// with those of the libraries.
func TestCompare(t *testing.T) {
	var a corev1.PodSpec
	if err := yaml.Unmarshal([]byte(comparedPod), &a); err != nil {
		t.Fatal(err)
	}
	b := a.DeepCopy()
	n := 0
	check := func() {
		t.Helper()
		n++
		x, y := unsafe.Pointer(&a), unsafe.Pointer(b)
		if got, want := podSpecsEqual()(x, y), equality.Semantic.DeepEqual(&a, b); got != want || got != podSpecsEqual()(y, x) {
			t.Fatalf("equal is %v, the library says %v: %v and %v", got, want, a, b)
		}
		if got, want := podSpecsAlike()(x, y), reflect.DeepEqual(&a, b); got && !want || got != podSpecsAlike()(y, x) {
			t.Fatalf("alike is %v, the library says %v: %v and %v", got, want, a, b)
		}
	}
	check()
	if !podSpecsAlike()(unsafe.Pointer(&a), unsafe.Pointer(b)) {
		t.Error("a spec is not like its copy")
	}
	eachChange(reflect.ValueOf(b).Elem(), check)
	if n < 300 {
		t.Errorf("only %d changes were compared", n)
	}
}

// TestCompareExactly has what is equal and yet not alike.
func TestCompareExactly(t *testing.T) {
	for name, pair := range map[string][2]corev1.PodSpec{
		"a list that is empty":  {{}, {Tolerations: []corev1.Toleration{}}},
		"a map that is empty":   {{}, {NodeSelector: map[string]string{}}},
		"a quantity's notation": {{Overhead: corev1.ResourceList{"memory": resource.MustParse("1Ki")}}, {Overhead: corev1.ResourceList{"memory": resource.MustParse("1024")}}},
	} {
		a, b := unsafe.Pointer(&pair[0]), unsafe.Pointer(&pair[1])
		if !podSpecsEqual()(a, b) || podSpecsAlike()(a, b) {
			t.Errorf("%s: equal is %v and alike is %v", name, podSpecsEqual()(a, b), podSpecsAlike()(a, b))
		}
	}
}

// FuzzCompare: any two specs are equal exactly when the library says so, and
// alike only when they are.
func FuzzCompare(f *testing.F) {
	f.Add([]byte(comparedPod), []byte(comparedPod))
	f.Add([]byte(comparedPod), []byte("{nodeSelector: {y: ''}, containers: [{resources: {limits: {cpu: 1000m, memory: 1024Mi}}}], tolerations: []}"))
	f.Fuzz(func(t *testing.T, one, other []byte) {
		var a, b corev1.PodSpec
		if yaml.Unmarshal(one, &a) != nil || yaml.Unmarshal(other, &b) != nil {
			return
		}
		x, y := unsafe.Pointer(&a), unsafe.Pointer(&b)
		if got, want := podSpecsEqual()(x, y), equality.Semantic.DeepEqual(a, b); got != want {
			t.Errorf("equal is %v, the library says %v: %v and %v", got, want, a, b)
		}
		if podSpecsAlike()(x, y) && !equality.Semantic.DeepEqual(a, b) {
			t.Errorf("alike and not equal: %v and %v", a, b)
		}
	})
}
