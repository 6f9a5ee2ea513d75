package registry

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"maps"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	kjson "sigs.k8s.io/json"

	"coracle/pkg/registry/jsonvalue"
	"coracle/pkg/resource"
	"coracle/pkg/storage"
	"coracle/pkg/storage/cache"
)

// Kinds that are stored as JSON. The cache holds a custom resource as the
// bytes that clients get, and a definition of one compressed.

// maxPlain bounds what a compressed value may hold; the store takes no more.
const maxPlain = 16 << 20

func encodeJSON(res *resource.Resource, obj runtime.Object) ([]byte, error) {
	u, ok := obj.(*unstructured.Unstructured)
	if !ok {
		obj.GetObjectKind().SetGroupVersionKind(res.GVK())
		defer obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
		return json.Marshal(obj)
	}
	// Nothing of the caller's object may change: the conversion gets a map of
	// its own, and webhooks make new objects anyway.
	stored, err := res.Custom.ToStored(&unstructured.Unstructured{Object: maps.Clone(u.Object)})
	if err != nil {
		return nil, err
	}
	return marshalCustom(stored)
}

// marshalCustom encodes an object with its type and metadata first, so that a
// reader of the bytes finds them at once.
func marshalCustom(u *unstructured.Unstructured) ([]byte, error) {
	out, err := jsonvalue.AppendFirst(make([]byte, 0, 2<<10), u.Object, "apiVersion", "kind", "metadata")
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", u.GetKind(), err)
	}
	return out, nil
}

func decodeJSON(res *resource.Resource, value []byte) (runtime.Object, error) {
	plain, err := plainJSON(value)
	if err != nil {
		return nil, err
	}
	if res.Custom == nil {
		obj := res.New()
		if err := kjson.UnmarshalCaseSensitivePreserveInts(plain, obj); err != nil {
			return nil, err
		}
		obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
		return obj, nil
	}
	u, err := decodeValue(plain)
	if err != nil {
		return nil, err
	}
	return res.Custom.FromStored(u)
}

// decodeValue decodes an object that is stored as JSON.
func decodeValue(plain []byte) (*unstructured.Unstructured, error) {
	if object, ok := jsonvalue.Read(plain); ok {
		return &unstructured.Unstructured{Object: object}, nil
	}
	u := &unstructured.Unstructured{}
	return u, kjson.UnmarshalCaseSensitivePreserveInts(plain, &u.Object)
}

// plainJSON undoes compact.
func plainJSON(value []byte) ([]byte, error) {
	if len(value) == 0 || value[0] != 0x1f {
		return value, nil
	}
	z, err := gzip.NewReader(bytes.NewReader(value))
	if err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	plain, err := io.ReadAll(io.LimitReader(z, maxPlain))
	if err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	return plain, nil
}

func compact(plain []byte) ([]byte, error) {
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	if _, err := z.Write(plain); err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	return bytes.Clone(buf.Bytes()), nil
}

// indexJSON is index for kinds that are stored as JSON. own says that this server
// has encoded the value, so that all of it is right.
func indexJSON(res *resource.Resource, key string, stored []byte, rev storage.Revision, own bool) (*cache.Object, error) {
	plain, err := plainJSON(stored)
	if err != nil {
		return nil, fmt.Errorf("index %s: %w", key, err)
	}
	var m jsonMeta
	if own {
		m, err = scanOwn(plain, "")
	} else {
		plain = bytes.TrimRight(plain, "\n") // other servers end it with one
		m, err = scanJSON(plain)
	}
	if err != nil {
		return nil, fmt.Errorf("index %s: %w", key, err)
	}
	o := &cache.Object{
		Namespace: m.namespace, Name: m.name, UID: types.UID(m.uid), Labels: m.labels, Deleting: m.deleting,
		Value: spliceJSON(plain, m, int64(rev)),
	}
	if res.Fields != nil {
		u, err := decodeValue(plain)
		if err != nil {
			return nil, fmt.Errorf("index %s: %w", key, err)
		}
		o.Fields = res.Fields(u)
	}
	if res.Compact {
		if o.Value, err = compact(o.Value); err != nil {
			return nil, fmt.Errorf("index %s: %w", key, err)
		}
	}
	return o, nil
}

// reviseJSON is revise for kinds that are stored as JSON.
func reviseJSON(res *resource.Resource, value []byte, rev storage.Revision) ([]byte, error) {
	plain, err := plainJSON(value)
	if err != nil {
		return nil, err
	}
	// Another server may have written the value, but it has been read since.
	m, err := scanOwn(plain, "resourceVersion")
	if err == nil && m.version.end == 0 {
		m, err = scanJSON(plain)
	}
	if err != nil {
		return nil, err
	}
	plain = spliceJSON(plain, m, int64(rev))
	if res.Compact {
		return compact(plain)
	}
	return plain, nil
}

// itemJSON is ItemJSON for kinds that are stored as JSON.
func itemJSON(res *resource.Resource, o *cache.Object) ([]byte, error) {
	encode := func() ([]byte, error) {
		obj, err := Decode(res, o.Value)
		if err != nil {
			return nil, err
		}
		if u, ok := obj.(*unstructured.Unstructured); ok {
			return marshalCustom(u)
		}
		return json.Marshal(obj)
	}
	switch {
	case res.Compact:
		return encode()
	case res.Custom == nil:
		return o.Encoding("json/"+res.Version, encode)
	case storedAs(res, o.Value) && res.Custom.Conforms(int64(o.Revision)):
		return o.Value, nil
	}
	return Kept(o, customID(res), encode)
}

// storedAs says that a value is in res's own version. It may say no where it
// is: then the value is decoded.
func storedAs(res *resource.Resource, value []byte) bool {
	rest, ok := bytes.CutPrefix(value, []byte(`{"apiVersion":"`))
	for _, part := range []string{res.Group, "/", res.Version, `"`} {
		if !ok || len(rest) < len(part) || string(rest[:len(part)]) != part {
			return false
		}
		rest = rest[len(part):]
	}
	return ok
}

// jsonMetadata is the metadata of a value that is stored as JSON.
func jsonMetadata(value []byte) (*metav1.ObjectMeta, error) {
	plain, err := plainJSON(value)
	if err != nil {
		return nil, err
	}
	m, err := scanJSON(plain)
	if err != nil {
		return nil, err
	}
	var meta metav1.ObjectMeta
	if err := json.Unmarshal(m.metadata.of(plain), &meta); err != nil {
		return nil, fmt.Errorf("decode metadata: %w", err)
	}
	return &meta, nil
}

// withoutVersion calls f while obj has no resourceVersion.
func withoutVersion(obj runtime.Object, f func() ([]byte, error)) ([]byte, error) {
	acc, err := meta.Accessor(obj)
	if err != nil {
		return nil, err
	}
	rv := acc.GetResourceVersion()
	acc.SetResourceVersion("")
	defer acc.SetResourceVersion(rv)
	return f()
}
