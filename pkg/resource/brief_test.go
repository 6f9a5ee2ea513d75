package resource

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
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
