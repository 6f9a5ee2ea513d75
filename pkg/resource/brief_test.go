package resource

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// TestBriefManagers: validation sees the names that the library reads.
func TestBriefManagers(t *testing.T) {
	entry := func(change string, v any) map[string]any {
		m := map[string]any{"manager": "m", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
			"time": "2024-02-03T04:05:06Z", "fieldsV1": map[string]any{"f:a": map[string]any{}}}
		m[change] = v
		return m
	}
	for name, list := range map[string]any{
		"good": []any{entry("subresource", "status"), entry("operation", "Apply")},
		"none": nil, "empty": []any{}, "no list": "x", "no map": []any{"x"}, "number": []any{entry("manager", int64(1))}, "unknown": []any{entry("x", "y")},
	} {
		u := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"managedFields": list}}}
		want, got := u.GetManagedFields(), briefly(u).GetManagedFields()
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.IgnoreFields(metav1.ManagedFieldsEntry{}, "Time", "FieldsV1")); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// TestUnmoved: of metadata that is fine by itself and that is said to be unmoved,
// the library finds nothing wrong with the update.
func TestUnmoved(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	values := map[string][]any{
		"name": {"a", "a", "a", "b"}, "namespace": {"n", "n", "n", nil, "m"}, "uid": {"u", "u", "u", "v", nil}, "resourceVersion": {"1", "1", "2", nil},
		"generation": {int64(1), int64(1), int64(2), nil, int64(-1)}, "creationTimestamp": {"2024-02-03T04:05:06Z", "2024-02-03T04:05:06Z", nil, "2025-02-03T04:05:06Z", "soon"},
		"deletionTimestamp": {nil, nil, nil, nil, "2024-02-03T04:05:06Z"}, "deletionGracePeriodSeconds": {nil, nil, nil, nil, int64(3)},
		"finalizers": {nil, []any{"x/y"}, []any{"x/z"}}, "labels": {nil, map[string]any{"a": "b"}, map[string]any{"a b": "c"}},
	}
	some := func() *unstructured.Unstructured {
		m := map[string]any{}
		for name, list := range values {
			if v := list[random.IntN(len(list))]; v != nil {
				m[name] = runtime.DeepCopyJSONValue(v)
			}
		}
		return &unstructured.Unstructured{Object: map[string]any{"metadata": m}}
	}
	typed := func(u *unstructured.Unstructured) *metav1.ObjectMeta {
		return &metav1.ObjectMeta{Name: u.GetName(), Namespace: u.GetNamespace(), UID: u.GetUID(), ResourceVersion: u.GetResourceVersion(),
			Generation: u.GetGeneration(), CreationTimestamp: u.GetCreationTimestamp(), DeletionTimestamp: u.GetDeletionTimestamp(),
			DeletionGracePeriodSeconds: u.GetDeletionGracePeriodSeconds(), Finalizers: u.GetFinalizers(), Labels: u.GetLabels()}
	}
	path, held := field.NewPath("metadata"), [2]int{}
	for range 200_000 {
		is, was := some(), some()
		for form, pair := range [2][2]metav1.Object{{is, was}, {typed(is), typed(was)}} {
			brief := briefly(pair[0])
			if !unmoved(pair[0], pair[1]) || len(validation.ValidateObjectMetaAccessor(brief, true, nameIsSubdomain, path)) > 0 {
				continue
			}
			held[form]++
			if errs := validation.ValidateObjectMetaAccessorUpdate(brief, pair[1], path); len(errs) > 0 {
				t.Fatalf("from %v to %v: %v", was.Object, is.Object, errs)
			}
		}
	}
	if held[0] < 100 || held[1] < 100 {
		t.Errorf("only %v updates were unmoved", held)
	}
}
