package registry

import (
	"encoding/json"

	"coracle/pkg/registry/wirejson"
	"coracle/pkg/resource"
	"coracle/pkg/storage/cache"
)

func itemID(res *resource.Resource) string { return "json/" + res.Version }

// ItemJSON returns the JSON of o as an item of a list: of a typed one, an object
// without kind and apiVersion; a custom resource has both. It is made on first demand and kept for a while. A nil
// plan leaves the making to the library.
func ItemJSON(res *resource.Resource, plan *wirejson.Plan, o *cache.Object) ([]byte, error) {
	if res.StoredJSON {
		return itemJSON(res, o)
	}
	return o.Encoding(itemID(res), func() ([]byte, error) { return makeItem(nil, res, plan, o) })
}

// AppendItemJSON appends what ItemJSON returns. It keeps the JSON only where
// there is room for it.
func AppendItemJSON(dst []byte, res *resource.Resource, plan *wirejson.Plan, o *cache.Object) ([]byte, error) {
	if res.StoredJSON {
		b, err := itemJSON(res, o)
		return append(dst, b...), err
	}
	id := itemID(res)
	if b, ok := o.Encoded(id); ok {
		return append(dst, b...), nil
	}
	at := len(dst)
	dst, err := makeItem(dst, res, plan, o)
	if err == nil {
		o.Offer(id, dst[at:])
	}
	return dst, err
}

func makeItem(dst []byte, res *resource.Resource, plan *wirejson.Plan, o *cache.Object) ([]byte, error) {
	if raw, err := Raw(o.Value); err == nil && plan != nil {
		if dst, err = plan.Append(dst, raw); err == nil {
			return dst, nil
		}
	}
	obj, err := Decode(res, o.Value)
	if err != nil {
		return dst, err
	}
	doc, err := json.Marshal(obj)
	return append(dst, doc...), err
}
