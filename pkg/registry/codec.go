package registry

import (
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/resource"
	"coracle/pkg/storage"
	"coracle/pkg/storage/cache"
)

// protoMessage is what every type of k8s.io/api implements.
type protoMessage interface {
	Marshal() ([]byte, error)
	Unmarshal([]byte) error
	Reset()
	// Size is how long the message is, MarshalToSizedBuffer writes it at the end of
	// a buffer.
	Size() int
	MarshalToSizedBuffer(buf []byte) (int, error)
}

// Encode returns the stored form of obj: protobuf in the k8s\0 envelope, or
// JSON for the kinds that are stored as such, without a resourceVersion, which
// the store's revision gives.
func Encode(res *resource.Resource, obj runtime.Object) ([]byte, error) {
	value, err := withoutVersion(obj, func() ([]byte, error) {
		if res.StoredJSON {
			return encodeJSON(res, obj)
		}
		return Envelope(res.GVK(), obj)
	})
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", res.Kind, err)
	}
	return value, nil
}

// Decode returns a fresh object from a stored or served value. The caller may
// change it.
func Decode(res *resource.Resource, value []byte) (runtime.Object, error) {
	if res.StoredJSON {
		obj, err := decodeJSON(res, value)
		if err != nil {
			return nil, fmt.Errorf("decode %s: %w", res.Kind, err)
		}
		return obj, nil
	}
	env, err := openEnvelope(value)
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", res.Kind, err)
	}
	obj := res.New()
	msg, ok := obj.(protoMessage)
	if !ok {
		return nil, fmt.Errorf("decode %s: type %T has no protobuf encoding", res.Kind, obj)
	}
	if err := msg.Unmarshal(env.raw); err != nil {
		return nil, fmt.Errorf("decode %s: %w", res.Kind, err)
	}
	return obj, nil
}

// Fresh is Decode of a kept object, which may have been converted already.
func Fresh(res *resource.Resource, o *cache.Object) (runtime.Object, error) {
	if res.Custom == nil || storedAs(res, o.Value) {
		return Decode(res, o.Value)
	}
	doc, err := itemJSON(res, o)
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", res.Kind, err)
	}
	u, err := decodeValue(doc)
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", res.Kind, err)
	}
	return u, nil
}

// Shared returns the decoded form that all readers of o share. It must not be
// changed.
func Shared(res *resource.Resource, o *cache.Object) (runtime.Object, error) {
	if res.Compact {
		return Decode(res, o.Value)
	}
	id := "" // objects of one type have one decoded form
	if res.Custom != nil {
		id = "decoded/" + res.Version + "/" + res.Custom.ID
	}
	decode := func() (any, error) { return Fresh(res, o) }
	var v any
	var err error
	if res.Custom == nil {
		v, err = o.DecodedAs(id, decode)
	} else {
		v, err = unshared(func(make func() (any, error)) (any, error) { return o.DecodedAs(id, make) }, decode)
	}
	if err != nil {
		return nil, err
	}
	return v.(runtime.Object), nil
}

// KindOf describes res to the watch cache: where its objects are and how they
// are indexed.
func KindOf(res *resource.Resource) cache.Kind {
	fields := selectableOf(res)
	type indexer = func(key string, stored []byte, rev storage.Revision) (*cache.Object, error)
	reader := func(own bool) indexer {
		return func(key string, stored []byte, rev storage.Revision) (*cache.Object, error) {
			o, err := indexAs(res, key, stored, rev, own)
			if err != nil || res.Fields == nil || res.StoredJSON {
				return o, err
			}
			raw, err := Raw(o.Value)
			if err == nil {
				o.Fields, err = fields.fields(raw)
			}
			if err != nil {
				return nil, fmt.Errorf("index %s: %w", key, err)
			}
			return o, nil
		}
	}
	return cache.Kind{
		Prefix: Prefix(res, ""),
		Index:  reader(false),
		Own:    reader(true),
		Revise: func(value []byte, rev storage.Revision) ([]byte, error) { return revise(res, value, rev) },
	}
}

// revise returns a value of the cache with another resourceVersion.
func revise(res *resource.Resource, value []byte, rev storage.Revision) ([]byte, error) {
	if res.StoredJSON {
		return reviseJSON(res, value, rev)
	}
	env, err := openEnvelope(value)
	if err != nil {
		return nil, err
	}
	m, err := scanMeta(env.raw)
	if err != nil {
		return nil, err
	}
	return sealRevision(env, m, rev), nil
}

// index reads a stored value as an object of the cache, all but the selectable
// fields of kinds that are stored as protobuf: what has not been stored is not
// selected.
func index(res *resource.Resource, key string, stored []byte, rev storage.Revision) (*cache.Object, error) {
	return indexAs(res, key, stored, rev, false)
}

// indexAs is index; own says that this server has just encoded the value, so that
// it need not be checked.
func indexAs(res *resource.Resource, key string, stored []byte, rev storage.Revision, own bool) (*cache.Object, error) {
	if reason, unreadable := storage.UnreadableReason(stored); unreadable {
		return nil, fmt.Errorf("the stored value of %s cannot be read: %s", key, reason)
	}
	if res.StoredJSON {
		return indexJSON(res, key, stored, rev, own)
	}
	env, err := openEnvelope(stored)
	if err != nil {
		return nil, fmt.Errorf("index %s: %w", key, err)
	}
	m, err := scanMeta(env.raw)
	if err != nil {
		return nil, fmt.Errorf("index %s: %w", key, err)
	}
	return &cache.Object{
		Namespace: m.namespace,
		Name:      m.name,
		UID:       types.UID(m.uid),
		Labels:    m.labels,
		Deleting:  m.deleting,
		Value:     sealRevision(env, m, rev),
	}, nil
}

// ProtoValue returns o as protobuf in its envelope.
func ProtoValue(res *resource.Resource, o *cache.Object) ([]byte, error) {
	if !res.StoredJSON {
		return o.Value, nil
	}
	obj, err := Decode(res, o.Value)
	if err != nil {
		return nil, err
	}
	return Envelope(res.GVK(), obj)
}

// Envelope encodes an object as protobuf in its envelope.
func Envelope(gvk schema.GroupVersionKind, obj runtime.Object) ([]byte, error) {
	msg, ok := obj.(protoMessage)
	if !ok {
		return nil, fmt.Errorf("type %T has no protobuf encoding", obj)
	}
	version, size := gvk.GroupVersion().String(), msg.Size()
	out := make([]byte, 0, sealSize(version, gvk.Kind, size))
	out = appendSealHead(out, version, gvk.Kind, size)
	at := len(out)
	out = out[:at+size]
	n, err := msg.MarshalToSizedBuffer(out[at:])
	if err == nil && n != size {
		err = fmt.Errorf("%d bytes were written of a message of %d", n, size)
	}
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", gvk.Kind, err)
	}
	return append(out, envelopeTail...), nil
}

// Seal puts encoded bytes of a kind into the protobuf envelope.
func Seal(gvk schema.GroupVersionKind, raw []byte) []byte {
	return sealEnvelope(gvk.GroupVersion().String(), gvk.Kind, raw)
}
