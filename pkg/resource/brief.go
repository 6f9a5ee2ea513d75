package resource

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// brief is an unstructured object for the validation of its metadata, which
// looks at the names in managedFields: to read the sets of fields as well takes
// longer than all the rest.
type brief struct{ *unstructured.Unstructured }

// briefly is acc for validation.
func briefly(acc metav1.Object) metav1.Object {
	if u, ok := acc.(*unstructured.Unstructured); ok {
		return brief{u}
	}
	return acc
}

// GetManagedFields returns the entries without their times and sets.
func (b brief) GetManagedFields() []metav1.ManagedFieldsEntry {
	m, _ := b.Object["metadata"].(map[string]any)
	list, _ := m["managedFields"].([]any)
	out := make([]metav1.ManagedFieldsEntry, 0, len(list))
	for _, v := range list {
		item, ok := v.(map[string]any)
		if !ok {
			return b.Unstructured.GetManagedFields()
		}
		var e metav1.ManagedFieldsEntry
		for name, v := range item {
			s, ok := v.(string)
			switch name {
			case "manager":
				e.Manager = s
			case "operation":
				e.Operation = metav1.ManagedFieldsOperationType(s)
			case "apiVersion":
				e.APIVersion = s
			case "fieldsType":
				e.FieldsType = s
			case "subresource":
				e.Subresource = s
			default:
				ok = true
			}
			if !ok {
				return b.Unstructured.GetManagedFields()
			}
		}
		out = append(out, e)
	}
	return out
}
