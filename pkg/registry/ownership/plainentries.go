package ownership

import (
	"maps"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"coracle/pkg/registry/jsonvalue"
)

// Entries of unstructured objects are read and written as the maps that they
// are: by way of the Go type they cost more than all else. What is not as the
// library writes it takes that way still.

// plainEntries returns the entries that an object of decoded JSON has, with
// their maps and without FieldsV1. ok is false when there are none or they are
// not all as the library writes them.
func plainEntries(acc metav1.Object) (entries []entry, ok bool) {
	u, ok := acc.(*unstructured.Unstructured)
	if !ok {
		return nil, false
	}
	m, _ := u.Object["metadata"].(map[string]any)
	list, _ := m["managedFields"].([]any)
	if len(list) == 0 {
		return nil, false
	}
	entries = make([]entry, 0, len(list)+1)
	for _, v := range list {
		var e entry
		if e.item, ok = v.(map[string]any); !ok || !e.fromItem() {
			return nil, false
		}
		entries = append(entries, e)
	}
	return entries, true
}

// fromItem fills an entry out of its map.
func (e *entry) fromItem() bool {
	fields := false
	for name, v := range e.item {
		s, isText := v.(string)
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
		case "time":
			t, err := time.Parse(time.RFC3339, s)
			if err != nil || timeText(t) != s {
				return false
			}
			e.Time = &metav1.Time{Time: t}
		case "fieldsV1":
			_, fields = v.(map[string]any)
			isText, s = fields, "fields"
		default:
			return false
		}
		if !isText || s == "" {
			return false
		}
	}
	return fields
}

// timeText is a time as objects show it.
func timeText(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// raw is the JSON of the entry's set, in buf where it is not there yet.
func (e *entry) raw(buf []byte) []byte {
	if e.item == nil {
		return e.FieldsV1.GetRawBytes()
	}
	raw, err := jsonvalue.Append(buf[:0], e.item["fieldsV1"])
	if err != nil {
		return nil // what cannot be read cannot be followed
	}
	return raw
}

// setPlain puts entries into an object of decoded JSON, in the library's order.
// It reports false, and changes nothing, when it cannot.
func (w *walker) setPlain(u *unstructured.Unstructured, entries []entry) bool {
	m, ok := u.Object["metadata"].(map[string]any)
	if !ok || len(entries) == 0 {
		return false
	}
	sortEntries(entries)
	list := make([]any, 0, len(entries))
	for i := range entries {
		item, ok := w.item(&entries[i])
		if !ok {
			return false
		}
		list = append(list, item)
	}
	m["managedFields"] = list
	return true
}

// item is an entry as a map of its own.
func (w *walker) item(e *entry) (map[string]any, bool) {
	var fields any
	switch {
	case !e.same:
		w.text = appendSet(w.text[:0], e.set, false)
		read, ok := jsonvalue.Read(w.text)
		if !ok {
			return nil, false
		}
		fields = read
	case e.item != nil:
		fields = e.item["fieldsV1"]
	default:
		return nil, false
	}
	item := maps.Clone(e.item)
	if item == nil {
		item = make(map[string]any, 7)
		for name, v := range map[string]string{
			"manager": e.Manager, "operation": string(e.Operation), "apiVersion": e.APIVersion,
			"fieldsType": e.FieldsType, "subresource": e.Subresource,
		} {
			if v != "" {
				item[name] = v
			}
		}
	}
	if item["fieldsV1"] = fields; e.Time != nil {
		item["time"] = timeText(e.Time.Time)
	}
	return item, true
}
