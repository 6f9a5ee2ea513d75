package apiserver

import (
	"encoding/json"
	"fmt"
	"net/http"

	"google.golang.org/protobuf/encoding/protowire"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"coracle/pkg/registry"
	"coracle/pkg/resource"
	"coracle/pkg/storage"
	"coracle/pkg/storage/cache"
)

// served is a resource under one of its group versions: its own or a view's.
type served struct {
	res  *resource.Resource
	view *resource.View // nil for the resource's own version
}

func (s served) gvk() schema.GroupVersionKind {
	if s.view != nil {
		return schema.GroupVersionKind{Group: s.view.Group, Version: s.view.Version, Kind: s.view.Kind}
	}
	return s.res.GVK()
}

// jsonHead begins a JSON object of the kind.
func jsonHead(gvk schema.GroupVersionKind) []byte {
	return fmt.Appendf(nil, `{"kind":%q,"apiVersion":%q`, gvk.Kind, gvk.GroupVersion().String())
}

// withHead puts kind and apiVersion before the fields of a bare JSON object.
func withHead(dst, head, bare []byte) []byte {
	dst = append(dst, head...)
	if len(bare) > 2 {
		dst = append(dst, ',')
	}
	return append(dst, bare[1:]...)
}

// bareJSON is the object's JSON without kind and apiVersion.
func (s served) bareJSON(o *cache.Object) ([]byte, error) {
	if s.view == nil {
		return registry.ItemJSON(s.res, o)
	}
	return o.Encoding("json/"+s.view.Group+"/"+s.view.Version, func() ([]byte, error) {
		obj, err := s.viewed(o)
		if err != nil {
			return nil, err
		}
		return json.Marshal(obj)
	})
}

func (s served) viewed(o *cache.Object) (runtime.Object, error) {
	obj, err := registry.Decode(s.res, o.Value)
	if err != nil || s.view == nil {
		return obj, err
	}
	return s.view.To(obj)
}

// protobuf is the object in its envelope.
func (s served) protobuf(o *cache.Object) ([]byte, error) {
	if s.view == nil {
		return o.Value, nil
	}
	return o.Encoding("proto/"+s.view.Group+"/"+s.view.Version, func() ([]byte, error) {
		obj, err := s.viewed(o)
		if err != nil {
			return nil, err
		}
		return registry.Envelope(s.gvk(), obj)
	})
}

// single is one whole object in the encoding that was negotiated.
func (s served) single(o *cache.Object, media registry.MediaType) ([]byte, error) {
	if media == registry.Protobuf {
		return s.protobuf(o)
	}
	bare, err := s.bareJSON(o)
	if err != nil {
		return nil, err
	}
	doc := withHead(make([]byte, 0, len(bare)+96), jsonHead(s.gvk()), bare)
	if media == registry.YAML {
		return yaml.JSONToYAML(doc)
	}
	return append(doc, '\n'), nil
}

// list is a page of objects in the encoding that was negotiated.
func (s served) list(req registry.Request, page *cache.List, media registry.MediaType) ([]byte, error) {
	gvk := s.gvk()
	gvk.Kind += "List"
	token := registry.ContinueToken(req, page)
	if media == registry.Protobuf {
		return protoList(gvk, listMeta(page, token), page.Items, func(o *cache.Object) ([]byte, error) {
			value, err := s.protobuf(o)
			if err != nil {
				return nil, err
			}
			return registry.Raw(value)
		})
	}
	doc, err := jsonList(gvk, page, token, s.bareJSON)
	return asMedia(doc, media, err)
}

// asMedia turns a JSON document into YAML where that was asked for.
func asMedia(doc []byte, media registry.MediaType, err error) ([]byte, error) {
	if err != nil || media != registry.YAML {
		return doc, err
	}
	return yaml.JSONToYAML(doc)
}

func jsonList(gvk schema.GroupVersionKind, page *cache.List, token string, item func(*cache.Object) ([]byte, error)) ([]byte, error) {
	items := make([][]byte, len(page.Items))
	size := 256 + len(token)
	for i, o := range page.Items {
		b, err := item(o)
		if err != nil {
			return nil, err
		}
		items[i] = b
		size += len(b) + 1
	}
	out := append(make([]byte, 0, size), jsonHead(gvk)...)
	out = append(out, `,"metadata":{"resourceVersion":"`...)
	out = append(out, versionText(page.Revision)...)
	out = append(out, '"')
	if token != "" {
		out = fmt.Appendf(out, `,"continue":%q`, token)
		if page.Remaining > 0 {
			out = fmt.Appendf(out, `,"remainingItemCount":%d`, page.Remaining)
		}
	}
	out = append(out, `},"items":[`...)
	for i, b := range items {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, b...)
	}
	return append(out, "]}\n"...), nil
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

// protoList concatenates the items: a protobuf list is its items' bytes, each
// with a tag and a length.
func protoList(gvk schema.GroupVersionKind, meta []byte, items []*cache.Object, item func(*cache.Object) ([]byte, error)) ([]byte, error) {
	size := len(meta) + 8
	parts := make([][]byte, len(items))
	for i, o := range items {
		b, err := item(o)
		if err != nil {
			return nil, err
		}
		parts[i] = b
		size += len(b) + 1 + protowire.SizeVarint(uint64(len(b)))
	}
	raw := make([]byte, 0, size)
	raw = protowire.AppendTag(raw, 1, protowire.BytesType)
	raw = protowire.AppendBytes(raw, meta)
	for _, b := range parts {
		raw = protowire.AppendTag(raw, 2, protowire.BytesType)
		raw = protowire.AppendBytes(raw, b)
	}
	return registry.Seal(gvk, raw), nil
}

// sendObject answers with an object that is not in the cache (a review, a
// Scale, a Status).
func sendObject(w http.ResponseWriter, code int, rep representation, gvk schema.GroupVersionKind, obj runtime.Object) {
	body, err := encodeObject(rep.media, gvk, obj)
	if err != nil {
		WriteError(w, err)
		return
	}
	send(w, code, rep, body)
}

func encodeObject(media registry.MediaType, gvk schema.GroupVersionKind, obj runtime.Object) ([]byte, error) {
	if media == registry.Protobuf {
		return registry.Envelope(gvk, obj)
	}
	obj.GetObjectKind().SetGroupVersionKind(gvk)
	doc, err := json.Marshal(obj)
	if err != nil {
		return nil, err
	}
	if media == registry.YAML {
		return yaml.JSONToYAML(doc)
	}
	return append(doc, '\n'), nil
}
