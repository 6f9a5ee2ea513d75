package apiserver

import (
	"encoding/json"
	"net/http"
	"slices"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"coracle/pkg/registry"
	"coracle/pkg/registry/wirejson"
	"coracle/pkg/resource"
	"coracle/pkg/storage/cache"
)

// served is a resource under one of its group versions: its own or a view's.
type served struct {
	res  *resource.Resource
	view *resource.View // nil for the resource's own version
	// plan is of its JSON, partial of its metadata's; nil leaves it to the
	// library.
	plan, partial *wirejson.Plan
}

func (s served) gvk() schema.GroupVersionKind {
	if s.view != nil {
		return schema.GroupVersionKind{Group: s.view.Group, Version: s.view.Version, Kind: s.view.Kind}
	}
	return s.res.GVK()
}

// appendHead begins a JSON object of the kind. Group, version and kind come
// from the table: nothing in them needs to be escaped.
func appendHead(dst []byte, gvk schema.GroupVersionKind) []byte {
	dst = append(dst, `{"kind":"`...)
	dst = append(dst, gvk.Kind...)
	dst = append(dst, `","apiVersion":"`...)
	if gvk.Group != "" {
		dst = append(dst, gvk.Group...)
		dst = append(dst, '/')
	}
	dst = append(dst, gvk.Version...)
	return append(dst, '"')
}

func (s served) listGVK() schema.GroupVersionKind {
	gvk := s.gvk()
	if s.res.Custom != nil {
		gvk.Kind = s.res.Custom.ListKind
	} else {
		gvk.Kind += "List"
	}
	return gvk
}

// typeBare puts kind and apiVersion before the fields of a bare JSON object,
// which stands in dst from the place at.
func typeBare(dst []byte, at int, gvk schema.GroupVersionKind) []byte {
	var room [128]byte
	head := appendHead(room[:0], gvk)
	if len(dst)-at > len("{}") {
		head = append(head, ',')
	}
	return slices.Replace(dst, at, at+1, head...)
}

// bareJSON is the object's JSON without kind and apiVersion, which all watchers
// of an event share.
func (s served) bareJSON(o *cache.Object) ([]byte, error) {
	if s.view == nil {
		return registry.ItemJSON(s.res, s.plan, o)
	}
	return o.Encoding("json/"+s.view.Group+"/"+s.view.Version, func() ([]byte, error) {
		obj, err := s.viewed(o)
		if err != nil {
			return nil, err
		}
		return json.Marshal(obj)
	})
}

// appendBare appends the object's JSON without kind and apiVersion.
func (s served) appendBare(dst []byte, o *cache.Object) ([]byte, error) {
	if s.view == nil {
		return registry.AppendItemJSON(dst, s.res, s.plan, o)
	}
	bare, err := s.bareJSON(o)
	return append(dst, bare...), err
}

func (s served) viewed(o *cache.Object) (runtime.Object, error) {
	obj, err := registry.Fresh(s.res, o)
	if err != nil || s.view == nil {
		return obj, err
	}
	return s.view.To(obj)
}

// protobuf is the object in its envelope.
func (s served) protobuf(o *cache.Object) ([]byte, error) {
	if s.view == nil {
		return registry.ProtoValue(s.res, o)
	}
	return o.Encoding("proto/"+s.view.Group+"/"+s.view.Version, func() ([]byte, error) {
		obj, err := s.viewed(o)
		if err != nil {
			return nil, err
		}
		return registry.Envelope(s.gvk(), obj)
	})
}

// appendSingle appends one whole object in the encoding that was negotiated.
func (s served) appendSingle(dst []byte, o *cache.Object, media registry.MediaType) ([]byte, error) {
	if media == registry.Protobuf {
		value, err := s.protobuf(o)
		return append(dst, value...), err
	}
	return appendTyped(dst, o, s.headGVK(), media, s.appendBare)
}

// headGVK is the type that a single object lacks: a custom resource has its own
// already.
func (s served) headGVK() schema.GroupVersionKind {
	if s.res.Custom != nil {
		return schema.GroupVersionKind{}
	}
	return s.gvk()
}

// appendTyped appends what bare appends with kind and apiVersion, unless those
// are empty.
func appendTyped(dst []byte, o *cache.Object, gvk schema.GroupVersionKind, media registry.MediaType, bare appendItem) ([]byte, error) {
	at := len(dst)
	dst, err := bare(dst, o)
	if err != nil {
		return dst, err
	}
	if !gvk.Empty() {
		dst = typeBare(dst, at, gvk)
	}
	if media != registry.YAML {
		return dst, nil
	}
	doc, err := yaml.JSONToYAML(dst[at:])
	return append(dst[:at], doc...), err
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
