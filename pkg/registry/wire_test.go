package registry

import (
	"bytes"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"

	"coracle/pkg/resource"
)

func configMaps(t testing.TB) *resource.Resource {
	t.Helper()
	res, ok := resource.Builtin().ByGVR(corev1.SchemeGroupVersion.WithResource("configmaps"))
	if !ok {
		t.Fatal("the table has no ConfigMaps")
	}
	return res
}

func sample() *corev1.ConfigMap {
	now := metav1.Unix(1700000000, 0)
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Name: "n", GenerateName: "g-", Namespace: "ns", UID: "u", ResourceVersion: "7", Generation: 3,
			CreationTimestamp: now, DeletionTimestamp: &now, Labels: map[string]string{"a": "b", "empty": ""},
			Annotations: map[string]string{"x": "y"}, Finalizers: []string{"f"},
		},
		Data: map[string]string{"k": "v"},
	}
}

// TestSpliceEqualsLibrary proves that a spliced value is byte for byte what
// the library encodes for the object with that resourceVersion.
func TestSpliceEqualsLibrary(t *testing.T) {
	res := configMaps(t)
	scheme := resource.Builtin().Scheme()
	library := protobuf.NewSerializer(scheme, scheme)
	for _, change := range []func(*corev1.ConfigMap){
		func(*corev1.ConfigMap) {},
		func(cm *corev1.ConfigMap) { *cm = corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "n"}} },
		func(cm *corev1.ConfigMap) { cm.Labels = nil; cm.DeletionTimestamp = nil },
		func(cm *corev1.ConfigMap) { cm.Data["k"] = string(make([]byte, 70000)) },
	} {
		cm := sample()
		change(cm)
		stored, err := Encode(res, cm)
		if err != nil {
			t.Fatal(err)
		}
		o, err := index(res, "/registry/configmaps/ns/n", stored, 123456)
		if err != nil {
			t.Fatal(err)
		}
		want := cm.DeepCopy()
		want.ResourceVersion = "123456"
		want.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"})
		var buf bytes.Buffer
		if err := library.Encode(want, &buf); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(o.Value, buf.Bytes()) {
			t.Errorf("spliced value differs from the library's:\n%x\n%x", o.Value, buf.Bytes())
		}
		if o.Name != cm.Name || o.Namespace != cm.Namespace || o.UID != cm.UID || len(o.Labels) != len(cm.Labels) || o.Deleting != (cm.DeletionTimestamp != nil) {
			t.Errorf("index %+v of %+v", o, cm.ObjectMeta)
		}
		again, err := index(res, o.Key, o.Value, 9)
		if err != nil {
			t.Fatal(err)
		}
		back, err := Decode(res, again.Value)
		if err != nil {
			t.Fatal(err)
		}
		if rv := back.(*corev1.ConfigMap).ResourceVersion; rv != "9" {
			t.Errorf("a spliced value spliced again has resourceVersion %q, want 9", rv)
		}
	}
}

// FuzzIndex feeds foreign bytes to what reads stored values: an error or an
// object that decodes, never a panic.
func FuzzIndex(f *testing.F) {
	res := configMaps(f)
	good, err := Encode(res, sample())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte("k8s\x00"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		var before corev1.ConfigMap
		env, err := openEnvelope(data)
		decodes := err == nil && before.Unmarshal(env.raw) == nil
		o, err := index(res, "/registry/configmaps/ns/n", data, 5)
		if err != nil {
			return
		}
		after, err := Decode(res, o.Value)
		if decodes && err != nil {
			t.Fatalf("a value that decoded no longer does with its revision: %v", err)
		}
		if err == nil && after.(*corev1.ConfigMap).ResourceVersion != "5" {
			t.Fatalf("resourceVersion is %q, want 5", after.(*corev1.ConfigMap).ResourceVersion)
		}
	})
}

func TestTokens(t *testing.T) {
	good := encodeToken(12, "ns/name\x00")
	if tok, err := parseToken(good); err != nil || tok.Revision != 12 {
		t.Fatalf("parse %q: %+v, %v", good, tok, err)
	}
	for _, start := range []string{"", "../secrets/x", "a/../b", "a/b/c", "a//b", "\x00", "a\x00b", "/a"} {
		if _, err := parseToken(encodeToken(12, start)); err == nil {
			t.Errorf("a token that starts at %q was accepted", start)
		}
	}
	for _, s := range []string{"%%%", "e30", encodeToken(0, "a"), encodeToken(-2, "a")} {
		if _, err := parseToken(s); err == nil {
			t.Errorf("token %q was accepted", s)
		}
	}
}

func TestKeysStayUnderTheirPrefix(t *testing.T) {
	res := configMaps(t)
	for _, c := range []struct{ namespace, name string }{
		{"ns", ".."}, {"..", "x"}, {"ns", "a/b"}, {"a/b", "x"}, {"ns", "%2e%2e"}, {"ns", "a\x00b"}, {"ns", ""}, {"", "x"}, {"ns", "."},
	} {
		if key, err := Key(res, c.namespace, c.name); err == nil {
			t.Errorf("namespace %q name %q make key %q, want an error", c.namespace, c.name, key)
		}
	}
}

// TestSameButVersion: two values are the same exactly when they are after both
// were given one resourceVersion.
func TestSameButVersion(t *testing.T) {
	pod := func(change func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "b", UID: "c", Labels: map[string]string{"x": "y"}},
			Spec: corev1.PodSpec{NodeName: "n"}}
		change(p)
		return p
	}
	pods := []*corev1.Pod{
		pod(func(*corev1.Pod) {}), pod(func(p *corev1.Pod) { p.ResourceVersion = "123" }), pod(func(p *corev1.Pod) { p.Name = "z" }),
		pod(func(p *corev1.Pod) { p.Generation = 3 }), pod(func(p *corev1.Pod) { p.Spec.NodeName = "m" }), pod(func(p *corev1.Pod) { p.UID, p.Namespace, p.Name = "", "", "" }),
		pod(func(p *corev1.Pod) { p.ResourceVersion, p.Labels = "9", nil }), pod(func(p *corev1.Pod) { p.Status.Phase = "x" }),
	}
	gvk := corev1.SchemeGroupVersion.WithKind("Pod")
	sealed := func(p *corev1.Pod) (value, at7 []byte) {
		value, err := Envelope(gvk, p)
		if err != nil {
			t.Fatal(err)
		}
		env, err := openEnvelope(value)
		if err != nil {
			t.Fatal(err)
		}
		m, err := scanMeta(env.raw)
		if err != nil {
			t.Fatal(err)
		}
		if place, err := placeOf(env.raw); err != nil || place.rvStart != m.rvStart || place.rvEnd != m.rvEnd || place.rest != m.rest {
			t.Fatalf("the places of %v are %+v, %v, and %+v", p, place, err, m)
		}
		return value, sealRevision(env, m, 7)
	}
	for i, a := range pods {
		for j, b := range pods {
			av, a7 := sealed(a)
			bv, b7 := sealed(b)
			same, err := sameButVersion(av, bv)
			if err != nil || same != bytes.Equal(a7, b7) {
				t.Errorf("%d and %d: %v, %v", i, j, same, err)
			}
		}
	}
	value, _ := sealed(pods[0])
	for _, bad := range [][]byte{nil, value[:3], value[:20], value[:len(value)/2]} {
		if same, err := sameButVersion(value, bad); err == nil && same {
			t.Errorf("%q is the same", bad)
		}
	}
}

func TestHasMetaField(t *testing.T) {
	gvk := corev1.SchemeGroupVersion.WithKind("Pod")
	for _, finalizers := range [][]string{nil, {"a.example/b"}, {"", "b"}} {
		value, err := Envelope(gvk, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"x": "y"}, Finalizers: finalizers}})
		if err != nil {
			t.Fatal(err)
		}
		raw, err := Raw(value)
		if err != nil {
			t.Fatal(err)
		}
		if has, err := hasMetaField(raw, metaFinalizers); err != nil || has != (len(finalizers) > 0) {
			t.Errorf("%q: %v, %v", finalizers, has, err)
		}
	}
	if _, err := hasMetaField([]byte{1}, metaFinalizers); err == nil {
		t.Error("no error for what is no object")
	}
}
