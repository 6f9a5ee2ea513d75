package registry

import (
	"encoding/base64"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/resource"
	"coracle/pkg/storage/cache"
)

// FuzzToken: no continue token, however made, leads out of its list's prefix.
func FuzzToken(f *testing.F) {
	f.Add(encodeToken(5, "a\x00"))
	f.Add(encodeToken(-1, "ns/a\x00"))
	f.Add(encodeToken(5, "../secrets/x\x00"))
	f.Add(base64.RawURLEncoding.EncodeToString([]byte(`{"v":"meta.k8s.io/v1","rv":0,"start":"/"}`)))
	f.Fuzz(func(t *testing.T, text string) {
		token, err := parseToken(text)
		if err != nil {
			if !isStatus(err) {
				t.Fatalf("%q: %v is no Status", text, err)
			}
			return
		}
		start := strings.TrimSuffix(token.Start, "\x00")
		for part := range strings.SplitSeq(start, "/") {
			if part == "" || part == "." || part == ".." || strings.ContainsRune(part, 0) {
				t.Fatalf("token %q starts at %q", text, token.Start)
			}
		}
		again, err := parseToken(encodeToken(token.Revision, token.Start))
		if err == nil && again != token {
			t.Fatalf("%+v became %+v", token, again)
		}
	})
}

// FuzzPatch: any patch body of any type gives a pod or a Status, and leaves
// the object that it was given to its owner.
func FuzzPatch(f *testing.F) {
	kinds := []types.PatchType{types.JSONPatchType, types.MergePatchType, types.StrategicMergePatchType}
	for i, seed := range []string{
		`[{"op":"add","path":"/metadata/labels/x","value":"1"},{"op":"copy","from":"/metadata","path":"/spec"}]`,
		`{"metadata":{"labels":{"app":null}}}`,
		`{"spec":{"containers":[{"name":"c","image":"j"},{"name":"d","$patch":"delete"}],"$setElementOrder/containers":[{"name":"c"}]}}`,
	} {
		f.Add(uint8(i), []byte(seed))
	}
	table := resource.Builtin()
	decoder := NewDecoder(table.Scheme())
	gvk := corev1.SchemeGroupVersion.WithKind("Pod")
	f.Fuzz(func(t *testing.T, kind uint8, patch []byte) {
		if len(patch) > 64<<10 {
			return
		}
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Labels: map[string]string{"app": "x"}},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i", Ports: []corev1.ContainerPort{{ContainerPort: 80}}}, {Name: "d"}}}}
		out, err := PatchObject(decoder, gvk, pod, patch, PatchOptions{Type: kinds[int(kind)%len(kinds)], WriteOptions: WriteOptions{Warn: func(string) {}}})
		if err != nil {
			if !isStatus(err) {
				t.Fatalf("%s: %v is no Status", patch, err)
			}
			return
		}
		if _, ok := out.(*corev1.Pod); !ok {
			t.Fatalf("%s made a %T", patch, out)
		}
	})
}

// FuzzSelectors: any selector is refused or selects without a panic, and a
// field that is promised to the cache holds for all that is selected.
func FuzzSelectors(f *testing.F) {
	f.Add("app in (a,b),!x", "spec.nodeName=n,status.phase!=Failed")
	f.Add("a==b", "metadata.name=x")
	f.Add("", "spec.nodeName=a,spec.nodeName=b")
	table := resource.Builtin()
	pods, ok := table.ByGVR(corev1.SchemeGroupVersion.WithResource("pods"))
	if !ok {
		f.Fatal("no pods in the table")
	}
	objects := []*cache.Object{
		{Name: "x", Namespace: "n", Labels: map[string]string{"app": "a"}, Fields: map[string]string{"spec.nodeName": "n", "status.phase": "Running"}},
		{Name: "y", Namespace: "n", Fields: map[string]string{"spec.nodeName": "", "status.phase": "Failed"}},
	}
	f.Fuzz(func(t *testing.T, byLabel, byField string) {
		var opts ListOptions
		var err error
		if opts.Labels, err = labels.Parse(byLabel); err != nil {
			return
		}
		if opts.Fields, err = fields.ParseSelector(byField); err != nil {
			return
		}
		match, err := Selects(pods, opts)
		if err != nil || match == nil {
			return
		}
		name, value := hint(pods, opts.Fields)
		for _, o := range objects {
			if match(o) && name != "" && o.Fields[name] != value {
				t.Fatalf("%q selects %v, the cache is promised %s=%s", byField, o.Fields, name, value)
			}
		}
	})
}
