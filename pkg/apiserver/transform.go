package apiserver

import (
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

// table makes a Table of objects. Its metadata is that of a list unless single.
func (s served) table(objs []*cache.Object, include metav1.IncludeObjectPolicy, now time.Time) (*metav1.Table, error) {
	t := &metav1.Table{ColumnDefinitions: s.columns(), Rows: make([]metav1.TableRow, 0, len(objs))}
	for _, o := range objs {
		row, err := s.row(o, include, now)
		if err != nil {
			return nil, err
		}
		t.Rows = append(t.Rows, row)
	}
	return t, nil
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
		row.Object.Raw, err = s.single(o, registry.JSON)
	default:
		row.Object.Raw, err = s.partialJSON(o, true)
	}
	return row, err
}

// partialJSON is the object's metadata as a PartialObjectMetadata.
func (s served) partialJSON(o *cache.Object, withType bool) ([]byte, error) {
	bare, err := o.Encoding("json/partial", func() ([]byte, error) {
		obj, err := registry.Shared(s.res, o)
		if err != nil {
			return nil, err
		}
		acc, err := meta.Accessor(obj)
		if err != nil {
			return nil, err
		}
		p := meta.AsPartialObjectMetadata(acc)
		return json.Marshal(p)
	})
	if err != nil || !withType {
		return bare, err
	}
	return withHead(nil, jsonHead(partialGVK), bare), nil
}

// partialProto is the object's metadata as protobuf, without envelope.
func partialProto(o *cache.Object) ([]byte, error) { return registry.RawMetadata(o.Value) }

// transformOne encodes one object in the transformation asked for. columns
// are left out of tables that continue a watch.
func (s served) transformOne(o *cache.Object, rep representation, now time.Time, columns bool) ([]byte, error) {
	switch rep.as {
	case asTable:
		t, err := s.table([]*cache.Object{o}, rep.includeObject, now)
		if err != nil {
			return nil, err
		}
		t.ResourceVersion = versionText(o.Revision)
		if !columns {
			t.ColumnDefinitions = nil
		}
		return encodeObject(rep.media, tableGVK, t)
	case asPartial, asPartialList:
		if rep.media == registry.Protobuf {
			raw, err := partialProto(o)
			return registry.Seal(partialGVK, raw), err
		}
		b, err := s.partialJSON(o, true)
		return asMedia(append(b, '\n'), rep.media, err)
	}
	return s.single(o, rep.media)
}

// transformList encodes a page in the transformation asked for.
func (s served) transformList(req registry.Request, page *cache.List, rep representation, now time.Time) ([]byte, error) {
	token := registry.ContinueToken(req, page)
	switch rep.as {
	case asTable:
		t, err := s.table(page.Items, rep.includeObject, now)
		if err != nil {
			return nil, err
		}
		t.ResourceVersion, t.Continue = versionText(page.Revision), token
		if token != "" && page.Remaining > 0 {
			t.RemainingItemCount = &page.Remaining
		}
		return encodeObject(rep.media, tableGVK, t)
	case asPartial, asPartialList:
		if rep.media == registry.Protobuf {
			return protoList(partialListGVK, listMeta(page, token), page.Items, partialProto)
		}
		gvk := partialListGVK
		doc, err := jsonList(gvk, page, token, func(o *cache.Object) ([]byte, error) { return s.partialJSON(o, false) })
		return asMedia(doc, rep.media, err)
	}
	return s.list(req, page, rep.media)
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
