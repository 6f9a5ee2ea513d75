package apiserver

import (
	"bytes"
	"encoding/json"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"coracle/pkg/registry"
	"coracle/pkg/storage/cache"
)

var (
	tableGVK       = metav1.SchemeGroupVersion.WithKind("Table")
	partialGVK     = metav1.SchemeGroupVersion.WithKind("PartialObjectMetadata")
	partialListGVK = metav1.SchemeGroupVersion.WithKind("PartialObjectMetadataList")
)

var newline = []byte{'\n'}

// defaultColumns are those of a kind that names none.
func defaultColumns() []metav1.TableColumnDefinition {
	return []metav1.TableColumnDefinition{
		{Name: "Name", Type: "string", Format: "name"},
		{Name: "Created At", Type: "date"},
	}
}

func (s served) columns() []metav1.TableColumnDefinition {
	switch {
	case s.view != nil && s.view.Columns != nil:
		return s.view.Columns
	case s.res.Columns != nil:
		return s.res.Columns
	}
	return defaultColumns()
}

func (s served) row(o *cache.Object, include metav1.IncludeObjectPolicy, now time.Time) (metav1.TableRow, error) {
	var row metav1.TableRow
	obj, err := s.viewed(o)
	if err != nil {
		return row, err
	}
	switch {
	case s.view != nil && s.view.Row != nil:
		row.Cells = s.view.Row(obj, now)
	case s.view == nil && s.res.Row != nil:
		row.Cells = s.res.Row(obj, now)
	default:
		acc, err := meta.Accessor(obj)
		if err != nil {
			return row, err
		}
		row.Cells = []any{acc.GetName(), acc.GetCreationTimestamp().UTC().Format(time.RFC3339)}
	}
	switch include {
	case metav1.IncludeNone:
	case metav1.IncludeObject:
		row.Object.Raw, err = s.appendSingle(nil, o, registry.JSON)
	default:
		row.Object.Raw, err = appendTyped(make([]byte, 0, partialBytes), o, partialGVK, registry.JSON, s.appendPartial)
	}
	return row, err
}

// partialBytes is how large the metadata of an object usually is at most.
const partialBytes = 1 << 10

// appendPartial appends the object's metadata as a PartialObjectMetadata
// without kind and apiVersion.
func (s served) appendPartial(dst []byte, o *cache.Object) ([]byte, error) {
	if raw, err := registry.Raw(o.Value); err == nil && s.partial != nil {
		if dst, err = s.partial.Append(dst, raw); err == nil {
			return dst, nil
		}
	}
	// What is stored as JSON has to be decoded; that is kept.
	id := "json/partial"
	if s.res.Custom != nil {
		id += "/" + s.res.Version + "/" + s.res.Custom.ID // a conversion may change labels
	}
	bare, err := registry.Kept(o, id, func() ([]byte, error) {
		obj, err := registry.Fresh(s.res, o)
		if err != nil {
			return nil, err
		}
		acc, err := meta.Accessor(obj)
		if err != nil {
			return nil, err
		}
		return json.Marshal(meta.AsPartialObjectMetadata(acc))
	})
	return append(dst, bare...), err
}

// partialProto is the object's metadata as protobuf, without envelope.
func partialProto(o *cache.Object) ([]byte, error) { return registry.RawMetadata(o.Value) }

// appendOne appends one object in the transformation asked for; JSON does not
// end with a newline. columns are left out of tables that continue a watch.
func (s served) appendOne(dst []byte, o *cache.Object, rep representation, now time.Time, columns bool) ([]byte, error) {
	switch rep.as {
	case asTable:
		row, err := s.row(o, rep.includeObject, now)
		if err != nil {
			return dst, err
		}
		t := &metav1.Table{Rows: []metav1.TableRow{row}}
		t.ResourceVersion = versionText(o.Revision)
		if columns {
			t.ColumnDefinitions = s.columns()
		}
		doc, err := encodeObject(rep.media, tableGVK, t)
		return append(dst, bytes.TrimSuffix(doc, newline)...), err
	case asPartial, asPartialList:
		if rep.media == registry.Protobuf {
			raw, err := partialProto(o)
			dst = registry.AppendSealHead(dst, partialGVK, len(raw))
			return registry.AppendSealTail(append(dst, raw...)), err
		}
		return appendTyped(dst, o, partialGVK, rep.media, s.appendPartial)
	}
	return s.appendSingle(dst, o, rep.media)
}

// bookmark encodes an object that has nothing but a resourceVersion.
func (s served) bookmark(rep representation, version string, initialEnd bool) ([]byte, error) {
	var annotations map[string]string
	if initialEnd {
		annotations = map[string]string{metav1.InitialEventsAnnotationKey: "true"}
	}
	var obj runtime.Object
	var gvk schema.GroupVersionKind
	switch rep.as {
	case asTable:
		t := &metav1.Table{}
		t.ResourceVersion = version
		// A Table has no annotations of its own: the end mark is on the row's
		// object (KEP-3157).
		if initialEnd {
			p := &metav1.PartialObjectMetadata{}
			p.SetGroupVersionKind(partialGVK)
			p.ResourceVersion, p.Annotations = version, annotations
			raw, err := json.Marshal(p)
			if err != nil {
				return nil, err
			}
			t.Rows = []metav1.TableRow{{Cells: make([]any, 0), Object: runtime.RawExtension{Raw: raw}}}
		}
		obj, gvk = t, tableGVK
	case asPartial, asPartialList:
		p := &metav1.PartialObjectMetadata{}
		p.ResourceVersion, p.Annotations = version, annotations
		obj, gvk = p, partialGVK
	default:
		gvk = s.gvk()
		obj = s.res.New()
		if s.view != nil {
			obj = s.view.New()
		}
		acc, err := meta.Accessor(obj)
		if err != nil {
			return nil, err
		}
		acc.SetResourceVersion(version)
		acc.SetAnnotations(annotations)
	}
	return encodeObject(rep.media, gvk, obj)
}
