package resource

import (
	"math"

	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// brief is an object's metadata for validation, without what is seen to be fine
// before the library looks at it: labels and annotations, whose keys cost it
// regular expressions, and the sets of fields in managedFields, at whose names
// alone it looks.
type brief struct {
	metav1.Object
	labels, annotations map[string]string
	managers            []metav1.ManagedFieldsEntry
}

// GetLabels returns the labels when something may be wrong with them.
func (b *brief) GetLabels() map[string]string { return b.labels }

// GetAnnotations returns the annotations when something may be wrong with them.
func (b *brief) GetAnnotations() map[string]string { return b.annotations }

// GetManagedFields returns the entries; those of decoded JSON have no times and
// sets.
func (b *brief) GetManagedFields() []metav1.ManagedFieldsEntry { return b.managers }

// briefly is acc for validation.
func briefly(acc metav1.Object) metav1.Object {
	b := &brief{Object: acc}
	if u, ok := acc.(*unstructured.Unstructured); ok {
		b.read(u)
		return b
	}
	if labels := acc.GetLabels(); !plainTexts(labels, math.MaxInt, plainLabel) {
		b.labels = labels
	}
	if annotations := acc.GetAnnotations(); !plainTexts(annotations, validation.TotalAnnotationSizeLimitB, plainAnnotation) {
		b.annotations = annotations
	}
	b.managers = acc.GetManagedFields()
	return b
}

// read takes from an object of decoded JSON what the library would make Go types
// of.
func (b *brief) read(u *unstructured.Unstructured) {
	m, _ := u.Object["metadata"].(map[string]any)
	if !plainObject(m["labels"], math.MaxInt, plainLabel) {
		b.labels = u.GetLabels()
	}
	if !plainObject(m["annotations"], validation.TotalAnnotationSizeLimitB, plainAnnotation) {
		b.annotations = u.GetAnnotations()
	}
	var ok bool
	if b.managers, ok = managersOf(m["managedFields"]); !ok {
		b.managers = u.GetManagedFields()
	}
}

// plainTexts is plainObject of a Go map.
func plainTexts(m map[string]string, limit int, fine func(key, value string) bool) bool {
	size := 0
	for key, value := range m {
		if size += len(key) + len(value); size > limit || !fine(key, value) {
			return false
		}
	}
	return true
}

// plainObject says that v is absent or an object of strings that are together
// no longer than limit, each of which fine accepts.
func plainObject(v any, limit int, fine func(key, value string) bool) bool {
	m, ok := v.(map[string]any)
	size := 0
	for key, v := range m {
		value, isText := v.(string)
		if size += len(key) + len(value); !isText || size > limit || !fine(key, value) {
			return false
		}
	}
	return ok || v == nil
}

// managersOf reads the names of managedFields. ok is false for what is not as it
// should be.
func managersOf(v any) (out []metav1.ManagedFieldsEntry, ok bool) {
	list, _ := v.([]any)
	out = make([]metav1.ManagedFieldsEntry, 0, len(list))
	for _, v := range list {
		item, ok := v.(map[string]any)
		if !ok {
			return nil, false
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
				return nil, false
			}
		}
		out = append(out, e)
	}
	return out, true
}

// unmoved says that an update leaves alone what may not change in metadata: if
// is is fine by itself, the library finds nothing wrong with the change either.
// It may say no.
func unmoved(is, was metav1.Object) bool {
	u, custom := is.(*unstructured.Unstructured)
	if v, ok := was.(*unstructured.Unstructured); custom && ok {
		return unmovedJSON(u, v)
	}
	created, before := is.GetCreationTimestamp(), was.GetCreationTimestamp()
	return is.GetDeletionTimestamp() == nil && was.GetDeletionTimestamp() == nil &&
		is.GetDeletionGracePeriodSeconds() == nil && was.GetDeletionGracePeriodSeconds() == nil &&
		is.GetName() == was.GetName() && is.GetNamespace() == was.GetNamespace() && is.GetUID() == was.GetUID() &&
		created.Equal(&before) && is.GetResourceVersion() != "" && is.GetGeneration() >= max(0, was.GetGeneration())
}

// unmovedJSON is unmoved of decoded JSON, of which the library would make Go
// types.
func unmovedJSON(is, was *unstructured.Unstructured) bool {
	a, ok := is.Object["metadata"].(map[string]any)
	b, both := was.Object["metadata"].(map[string]any)
	if !ok || !both {
		return false
	}
	for _, name := range []string{"deletionTimestamp", "deletionGracePeriodSeconds"} {
		if a[name] != nil || b[name] != nil {
			return false
		}
	}
	for _, name := range []string{"name", "namespace", "uid", "creationTimestamp"} {
		x, isText := a[name].(string)
		y, wasText := b[name].(string)
		if x != y || isText != wasText || !isText && (a[name] != nil || b[name] != nil) {
			return false
		}
	}
	n, isNumber := a["generation"].(int64)
	m, wasNumber := b["generation"].(int64)
	version, _ := a["resourceVersion"].(string)
	return version != "" && isNumber && wasNumber && n >= max(0, m)
}
