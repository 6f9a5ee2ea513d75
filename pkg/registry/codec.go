package registry

import (
	"encoding/json"
	"fmt"
	"strconv"

	"k8s.io/apimachinery/pkg/api/meta"
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
}

// Encode returns the stored form of obj: protobuf in the k8s\0 envelope,
// without a resourceVersion, which the store's revision gives.
func Encode(res *resource.Resource, obj runtime.Object) ([]byte, error) {
	acc, err := meta.Accessor(obj)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", res.Kind, err)
	}
	msg, ok := obj.(protoMessage)
	if !ok {
		return nil, fmt.Errorf("encode %s: type %T has no protobuf encoding", res.Kind, obj)
	}
	rv := acc.GetResourceVersion()
	acc.SetResourceVersion("")
	raw, err := msg.Marshal()
	acc.SetResourceVersion(rv)
	if err != nil {
		return nil, fmt.Errorf("encode %s %s: %w", res.Kind, acc.GetName(), err)
	}
	return sealEnvelope(res.GVK().GroupVersion().String(), res.Kind, raw), nil
}

// Decode returns a fresh object from a stored or served value. The caller may
// change it.
func Decode(res *resource.Resource, value []byte) (runtime.Object, error) {
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

// Shared returns the decoded form that all readers of o share. It must not be
// changed.
func Shared(res *resource.Resource, o *cache.Object) (runtime.Object, error) {
	v, err := o.Decoded(func() (any, error) { return Decode(res, o.Value) })
	if err != nil {
		return nil, err
	}
	return v.(runtime.Object), nil
}

// ItemJSON returns the JSON of o as an item of a typed list: an object without
// kind and apiVersion. It is made on first demand and kept.
func ItemJSON(res *resource.Resource, o *cache.Object) ([]byte, error) {
	return o.Encoding("json/"+res.Version, func() ([]byte, error) {
		obj, err := Decode(res, o.Value)
		if err != nil {
			return nil, err
		}
		return json.Marshal(obj)
	})
}

// KindOf describes res to the watch cache: where its objects are and how they
// are indexed.
func KindOf(res *resource.Resource) cache.Kind {
	return cache.Kind{
		Prefix: Prefix(res, ""),
		Index: func(key string, stored []byte, rev storage.Revision) (*cache.Object, error) {
			return index(res, key, stored, rev)
		},
	}
}

func index(res *resource.Resource, key string, stored []byte, rev storage.Revision) (*cache.Object, error) {
	env, err := openEnvelope(stored)
	if err != nil {
		return nil, fmt.Errorf("index %s: %w", key, err)
	}
	m, err := scanMeta(env.raw)
	if err != nil {
		return nil, fmt.Errorf("index %s: %w", key, err)
	}
	o := &cache.Object{
		Namespace: m.namespace,
		Name:      m.name,
		UID:       types.UID(m.uid),
		Labels:    m.labels,
		Deleting:  m.deleting,
		Value:     sealEnvelope(env.apiVersion, env.kind, spliceRevision(env.raw, m, strconv.FormatInt(int64(rev), 10))),
	}
	if res.Fields != nil {
		obj, err := Decode(res, stored)
		if err != nil {
			return nil, fmt.Errorf("index %s: %w", key, err)
		}
		o.Fields = res.Fields(obj)
	}
	return o, nil
}

// Envelope encodes an object that is not stored as protobuf in its envelope.
func Envelope(gvk schema.GroupVersionKind, obj runtime.Object) ([]byte, error) {
	msg, ok := obj.(protoMessage)
	if !ok {
		return nil, fmt.Errorf("type %T has no protobuf encoding", obj)
	}
	raw, err := msg.Marshal()
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", gvk.Kind, err)
	}
	return Seal(gvk, raw), nil
}

// Seal puts encoded bytes of a kind into the protobuf envelope.
func Seal(gvk schema.GroupVersionKind, raw []byte) []byte {
	return sealEnvelope(gvk.GroupVersion().String(), gvk.Kind, raw)
}
