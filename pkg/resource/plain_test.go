package resource

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

var plainCases = []string{"", "a", "A", "0", "-", ".", "_", "/", "a-b", "a.b", "a_b", "a..b", "a.-b", "a-.b", "-a", "a-", "a.", ".a", "a--b",
	"example.com/a", "Example.com/a", "example.com/", "/a", "a/b/c", "example.com/A_b.c-d", "ä", "a\n", "a\x00", "a b", "1.2.3.4",
	strings.Repeat("a", 63), strings.Repeat("a", 64), strings.Repeat("a", 253), strings.Repeat("a", 254),
	strings.Repeat("a", 253) + "/" + strings.Repeat("b", 63), strings.Repeat("a", 254) + "/b", "a/" + strings.Repeat("b", 64)}

// checkPlain compares each verdict on s with the library's.
func checkPlain(t *testing.T, s string) {
	t.Helper()
	for name, c := range map[string]struct {
		plain bool
		wrong []string
	}{
		"label key":   {plainLabelKey(s), utilvalidation.IsQualifiedName(s)},
		"label value": {s == "" || plainLabelName(s), utilvalidation.IsValidLabelValue(s)},
		"label":       {plainDNSLabel(s), utilvalidation.IsDNS1123Label(s)},
		"subdomain":   {plainSubdomain(s), utilvalidation.IsDNS1123Subdomain(s)},
		"name":        {plainSubdomain(s), validation.NameIsDNSSubdomain(s, false)},
	} {
		if c.plain != (len(c.wrong) == 0) {
			t.Errorf("%q as %s: %v, the library says %q", s, name, c.plain, c.wrong)
		}
	}
	if plainLabelKey(s) && len(utilvalidation.IsQualifiedName(strings.ToLower(s))) > 0 {
		t.Errorf("%q is no annotation's key", s)
	}
	for _, prefix := range []bool{false, true} {
		if diff := cmp.Diff(validation.NameIsDNSSubdomain(s, prefix), nameIsSubdomain(s, prefix)); diff != "" {
			t.Errorf("%q, %v: %s", s, prefix, diff)
		}
	}
}

func TestPlain(t *testing.T) {
	for _, s := range plainCases {
		checkPlain(t, s)
	}
}

func FuzzPlain(f *testing.F) {
	for _, s := range plainCases {
		f.Add(s)
	}
	f.Fuzz(checkPlain)
}

// TestBriefMetadata: the library finds in brief metadata what it finds in all.
func TestBriefMetadata(t *testing.T) {
	long := strings.Repeat("x", validation.TotalAnnotationSizeLimitB)
	for _, texts := range [][]string{{}, {"a", "b"}, {"a", ""}, {"example.com/a", "B"}, {"a b", "b"}, {"a", "b c"}, {"Example.com/a", "b"}, {"a", long}} {
		m := map[string]string{}
		object := map[string]any{}
		if len(texts) > 0 {
			m[texts[0]], object[texts[0]] = texts[1], texts[1]
		}
		typed := &metav1.ObjectMeta{Name: "a", Namespace: "b", ResourceVersion: "1", Labels: m, Annotations: m}
		dynamic := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{
			"name": "a", "namespace": "b", "resourceVersion": "1", "labels": object, "annotations": object}}}
		mixed := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{
			"name": "a", "namespace": "b", "resourceVersion": "1", "labels": map[string]any{"a": int64(1)}, "annotations": "x"}}}
		for _, acc := range []metav1.Object{typed, dynamic, mixed} {
			path := field.NewPath("metadata")
			want := validation.ValidateObjectMetaAccessor(acc, true, validation.NameIsDNSSubdomain, path)
			got := validation.ValidateObjectMetaAccessor(briefly(acc), true, nameIsSubdomain, path)
			if diff := cmp.Diff(texted(want), texted(got)); diff != "" {
				t.Errorf("%v: %s", texts, diff)
			}
			want = validation.ValidateObjectMetaAccessorUpdate(acc, acc, path)
			got = validation.ValidateObjectMetaAccessorUpdate(briefly(acc), briefly(acc), path)
			if diff := cmp.Diff(texted(want), texted(got)); diff != "" {
				t.Errorf("%v: an update: %s", texts, diff)
			}
		}
	}
}

func texted(errs field.ErrorList) (out []string) {
	for _, e := range errs {
		out = append(out, e.Error())
	}
	return out
}
