package apiserver

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"coracle/pkg/registry"
	"coracle/pkg/storage"
	"coracle/pkg/storage/cache"
)

// listForm is how a list is put together: head, the items with sep between
// them, tail. So a list of any size needs memory for a piece of it only.
type listForm struct {
	head, sep, tail []byte
	// item appends an item.
	item func(dst []byte, o *cache.Object) ([]byte, error)
	// size is the length of the whole, -1 when it is not known.
	size int
}

// listForm is the form of a page in the transformation and encoding asked for.
func (s served) listForm(token string, page *cache.List, rep representation, now time.Time) (*listForm, error) {
	gvk, item, raw := s.listGVK(), s.appendBare, s.rawProto
	switch rep.as {
	case asTable:
		return s.tableForm(token, page, rep, now)
	case asPartial, asPartialList:
		gvk, item, raw = partialListGVK, s.appendPartial, partialProto
	}
	if rep.media == registry.Protobuf {
		return protoForm(gvk, listMeta(page, token), page.Items, raw)
	}
	head := appendHead(nil, gvk)
	head = append(head, `,"metadata":{"resourceVersion":"`...)
	head = append(head, versionText(page.Revision)...)
	head = append(head, '"')
	if token != "" {
		head = fmt.Appendf(head, `,"continue":%q`, token)
		if page.Remaining > 0 {
			head = fmt.Appendf(head, `,"remainingItemCount":%d`, page.Remaining)
		}
	}
	head = append(head, `},"items":[`...)
	return jsonForm(head, rep, len(page.Items) == 0, item)
}

// rawProto is the object's protobuf without envelope.
func (s served) rawProto(o *cache.Object) ([]byte, error) {
	value, err := s.protobuf(o)
	if err != nil {
		return nil, err
	}
	return registry.Raw(value)
}

// tableForm is the form of a Table: its rows are made one at a time.
func (s served) tableForm(token string, page *cache.List, rep representation, now time.Time) (*listForm, error) {
	t := &metav1.Table{ColumnDefinitions: s.columns(), Rows: []metav1.TableRow{}}
	t.SetGroupVersionKind(tableGVK)
	t.ResourceVersion, t.Continue = versionText(page.Revision), token
	if token != "" && page.Remaining > 0 {
		t.RemainingItemCount = &page.Remaining
	}
	head, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	head, ok := bytes.CutSuffix(head, []byte("]}"))
	if !ok {
		return nil, fmt.Errorf("a table does not end with its rows: %s", head)
	}
	return jsonForm(head, rep, len(page.Items) == 0, func(dst []byte, o *cache.Object) ([]byte, error) {
		row, err := s.row(o, rep.includeObject, now)
		if err != nil {
			return dst, err
		}
		return appendRow(dst, &row)
	})
}

// appendRow appends a row whose object is JSON already, which the library
// would parse once more.
func appendRow(dst []byte, row *metav1.TableRow) ([]byte, error) {
	cells, err := json.Marshal(row.Cells)
	if err != nil {
		return dst, err
	}
	dst = append(dst, `{"cells":`...)
	dst = append(dst, cells...)
	if len(row.Conditions) > 0 {
		conditions, err := json.Marshal(row.Conditions)
		if err != nil {
			return dst, err
		}
		dst = append(dst, `,"conditions":`...)
		dst = append(dst, conditions...)
	}
	dst = append(dst, `,"object":`...)
	if row.Object.Raw == nil {
		dst = append(dst, `null`...)
	}
	dst = append(dst, row.Object.Raw...)
	return append(dst, '}'), nil
}

type appendItem = func(dst []byte, o *cache.Object) ([]byte, error)

// jsonForm is the form of a document that begins with head and ends with a
// list: as JSON, as JSON for people, or as YAML.
func jsonForm(head []byte, rep representation, empty bool, item appendItem) (*listForm, error) {
	switch {
	case rep.media == registry.YAML && empty:
		doc, err := yaml.JSONToYAML(append(head, "]}"...))
		return &listForm{head: doc, size: len(doc)}, err
	case rep.media == registry.YAML:
		return yamlForm(head, item)
	case rep.pretty && !empty:
		return prettyForm(head, item)
	case rep.pretty:
		var doc bytes.Buffer
		err := json.Indent(&doc, append(head, "]}\n"...), "", "  ")
		return &listForm{head: doc.Bytes(), size: doc.Len()}, err
	}
	return &listForm{head: head, sep: []byte{','}, tail: []byte("]}\n"), item: item, size: -1}, nil
}

// prettyForm indents head and items each for itself.
func prettyForm(head []byte, item appendItem) (*listForm, error) {
	var doc bytes.Buffer
	if err := json.Indent(&doc, append(head, "0]}\n"...), "", "  "); err != nil {
		return nil, err
	}
	at := bytes.LastIndexByte(doc.Bytes(), '0')
	var one bytes.Buffer
	return &listForm{
		head: doc.Bytes()[:at], sep: []byte(",\n    "), tail: doc.Bytes()[at+1:], size: -1,
		item: func(dst []byte, o *cache.Object) ([]byte, error) {
			b, err := item(nil, o)
			if err != nil {
				return dst, err
			}
			one.Reset()
			err = json.Indent(&one, b, "    ", "  ")
			return append(dst, one.Bytes()...), err
		},
	}, nil
}

// yamlForm converts head and items each for itself: the items of a list stand
// at the margin of their key, and keys are in alphabetical order.
func yamlForm(head []byte, item appendItem) (*listForm, error) {
	doc, err := yaml.JSONToYAML(append(head, "0]}"...))
	if err != nil {
		return nil, err
	}
	begin, end, ok := bytes.Cut(doc, []byte("\n- 0\n"))
	if !ok {
		return nil, fmt.Errorf("a list in YAML has no items: %s", doc)
	}
	return &listForm{
		head: append(begin, '\n'), tail: end, size: -1,
		item: func(dst []byte, o *cache.Object) ([]byte, error) {
			b, err := item([]byte{'['}, o)
			if err != nil {
				return dst, err
			}
			doc, err := yaml.JSONToYAML(append(b, ']'))
			return append(dst, doc...), err
		},
	}, nil
}

// versionText is a resourceVersion; what is not stored has none.
func versionText(rev storage.Revision) string {
	if rev == 0 {
		return ""
	}
	return rev.String()
}

// listMeta is a protobuf ListMeta.
func listMeta(page *cache.List, token string) []byte {
	var b []byte
	b = protowire.AppendTag(b, 1, protowire.BytesType) // selfLink
	b = protowire.AppendString(b, "")
	b = protowire.AppendTag(b, 2, protowire.BytesType)
	b = protowire.AppendString(b, versionText(page.Revision))
	b = protowire.AppendTag(b, 3, protowire.BytesType)
	b = protowire.AppendString(b, token)
	if token != "" && page.Remaining > 0 {
		b = protowire.AppendTag(b, 4, protowire.VarintType)
		b = protowire.AppendVarint(b, uint64(page.Remaining))
	}
	return b
}

// protoForm is the form of a protobuf list: its items' bytes, each with a tag
// and a length. The lengths of all come before the first item.
func protoForm(gvk schema.GroupVersionKind, meta []byte, items []*cache.Object, raw func(*cache.Object) ([]byte, error)) (*listForm, error) {
	size := 1 + protowire.SizeBytes(len(meta))
	for _, o := range items {
		b, err := raw(o)
		if err != nil {
			return nil, err
		}
		size += 1 + protowire.SizeBytes(len(b))
	}
	head := registry.AppendSealHead(nil, gvk, size)
	tail := registry.AppendSealTail(nil)
	total := len(head) + size + len(tail)
	head = protowire.AppendTag(head, 1, protowire.BytesType)
	head = protowire.AppendBytes(head, meta)
	return &listForm{
		head: head, tail: tail, size: total,
		item: func(dst []byte, o *cache.Object) ([]byte, error) {
			b, err := raw(o)
			dst = protowire.AppendTag(dst, 2, protowire.BytesType)
			return protowire.AppendBytes(dst, b), err
		},
	}, nil
}
