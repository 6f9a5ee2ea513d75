package registry

import (
	"errors"
	"math"
	"reflect"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"coracle/pkg/resource"
)

// FuzzProtobuf: a protobuf body is decoded as the library decodes it, or
// refused; nothing that the library refuses is accepted.
func FuzzProtobuf(f *testing.F) {
	scheme := resource.Builtin().Scheme()
	ours, library := NewDecoder(scheme), protobuf.NewSerializer(scheme, scheme)
	kinds := []schema.GroupVersionKind{
		corev1.SchemeGroupVersion.WithKind("Pod"), corev1.SchemeGroupVersion.WithKind("ConfigMap"),
		{Group: "authorization.k8s.io", Version: "v1", Kind: "SubjectAccessReview"},
		apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition"),
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Labels: map[string]string{"a": "b"}, Finalizers: []string{"x/y"}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Env: []corev1.EnvVar{{Name: "e", Value: "v"}}}}}}
	for i, obj := range []protoMessage{pod, &corev1.ConfigMap{Data: map[string]string{"k": "v"}}} {
		raw, err := obj.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), sealEnvelope("v1", kinds[i].Kind, raw))
		f.Add(uint8(i), raw)
	}
	f.Add(uint8(0), []byte("k8s\x00"))
	f.Fuzz(func(t *testing.T, kind uint8, data []byte) {
		want := kinds[int(kind)%len(kinds)]
		obj, err := ours.Decode(data, Protobuf, want, Ignore, func(string) {})
		theirs, got, libraryErr := library.Decode(data, &want, nil)
		switch {
		case err == nil && libraryErr != nil:
			t.Fatalf("%q is accepted, the library says %v", data, libraryErr)
		case err == nil && !reflect.DeepEqual(obj, theirs):
			t.Fatalf("%q decodes to %v, by the library to %v", data, obj, theirs)
		case err != nil && !isStatus(err):
			t.Fatalf("%q: %v is no Status", data, err)
		case err != nil && libraryErr == nil && *got == want && !strings.Contains(err.Error(), "not valid protobuf") && !apierrors.IsRequestEntityTooLargeError(err):
			t.Fatalf("%q is refused with %v, the library takes it", data, err)
		}
	})
}

// FuzzVersion: a resourceVersion is what the library says it is. Ours ends
// where the store's numbers do.
func FuzzVersion(f *testing.F) {
	for _, seed := range []string{"", "0", "1", "01", "-1", "+1", "9223372036854775807", "9223372036854775808", "18446744073709551616", "1e3", "0x1", "1_0", " 1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		read, err := parseRead(text)
		if err != nil && !isStatus(err) {
			t.Fatalf("%q: %v is no Status", text, err)
		}
		n, parseErr := strconv.ParseUint(text, 10, 64)
		if accepted := text == "" || parseErr == nil && n <= math.MaxInt64; (err == nil) != accepted {
			t.Fatalf("%q: %v", text, err)
		}
		if err == nil && text != "" && uint64(read.AtLeast) != n {
			t.Fatalf("%q is read as %d", text, read.AtLeast)
		}
		// What the library compares is accepted, as far as the store goes.
		if _, libraryErr := resourceversion.CompareResourceVersion(text, text); libraryErr == nil && err != nil && (parseErr == nil && n <= math.MaxInt64) {
			t.Fatalf("%q is refused with %v, the library compares it", text, err)
		}
	})
}

// FuzzCustomBody: a body without a type is what the library makes of it.
func FuzzCustomBody(f *testing.F) {
	for _, seed := range []string{`{"kind":"A","apiVersion":"b/c","spec":{"n":1,"f":1.5,"l":[1,"2",null]}}`, "kind: A\nspec:\n  a: &x [1]\n  b: *x\n", `{"a":1,"a":2}`,
		"a: 1\na: 2\n", "a: 0x10\nb: 1e3\nc: .inf\n", "null", "[]", "- a", "<<: {a: b}", "? a\n: b", "a: !!binary aGk=", "{\"a\":\"\\ud800\"}"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, media := range []MediaType{JSON, YAML} {
			u, _, err := decodeMap(data, media)
			if err != nil && !isStatus(err) {
				t.Fatalf("%q: %v is no Status", data, err)
			}
			doc, libraryErr := data, error(nil)
			if media == YAML {
				doc, libraryErr = yaml.YAMLToJSON(data)
			}
			var object map[string]any
			libraryErr = errors.Join(libraryErr, kjson.UnmarshalCaseSensitivePreserveInts(doc, &object))
			if apierrors.IsRequestEntityTooLargeError(err) {
				continue
			}
			// With aliases, a second parser reads the document too.
			if err != nil && libraryErr == nil && strings.ContainsRune(string(data), '&') {
				continue
			}
			if (err == nil) != (libraryErr == nil) {
				t.Fatalf("%q as %s: %v, by the library %v", data, media, err, libraryErr)
			}
			if err == nil && !reflect.DeepEqual(u.Object, object) {
				t.Fatalf("%q as %s is %v, by the library %v", data, media, u.Object, object)
			}
		}
	})
}

// FuzzWidth: what passes the measure of YAML is within it, aliases and all.
func FuzzWidth(f *testing.F) {
	f.Add([]byte("a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n"))
	f.Add([]byte("a: &a {x: y}\nb: {<<: *a}\n"))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte(`{"a":"&*7777"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := checkWidth(data, YAML, maxObjects); err != nil {
			if !isStatus(err) {
				t.Fatalf("%q: %v is no Status", data, err)
			}
			return
		}
		var v any
		if err := yaml.Unmarshal(data, &v); err != nil {
			return
		}
		if n := valuesOf(v); n > 2*maxYAMLValues {
			t.Fatalf("a document of %d bytes that passes has %d values", len(data), n)
		}
	})
}

// valuesOf counts the values of a decoded document, names of fields included.
func valuesOf(v any) int {
	n := 1
	switch v := v.(type) {
	case map[string]any:
		for _, inner := range v {
			n += 1 + valuesOf(inner)
		}
	case []any:
		for _, inner := range v {
			n += valuesOf(inner)
		}
	}
	return n
}
