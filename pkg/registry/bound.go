package registry

import (
	"context"
	"errors"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"coracle/pkg/resource"
	"coracle/pkg/storage/cache"
)

// ForRequest returns the resource as the request of ctx uses it: what it waits
// for ends with the request.
func ForRequest(ctx context.Context, res *resource.Resource) *resource.Resource {
	if res.Custom == nil || res.Custom.For == nil {
		return res
	}
	return res.Custom.For(ctx)
}

// Expect says which objects of a resource that ForRequest returned will be
// asked for, so that those to be converted are converted together.
func Expect(res *resource.Resource, items []*cache.Object) {
	if res.Custom == nil || res.Custom.Expect == nil {
		return
	}
	res.Custom.Expect(len(items), func(i int) *unstructured.Unstructured {
		o := items[i]
		if _, ok := o.Encoded(customID(res)); ok || storedAs(res, o.Value) {
			return nil
		}
		u, err := decodeValue(o.Value)
		if err != nil {
			return nil // whoever asks for it learns of it
		}
		return u
	})
}

// customID is the name under which an object keeps its JSON in a version of a
// custom resource that it is not stored in.
func customID(res *resource.Resource) string { return "json/" + res.Version + "/" + res.Custom.ID }

// Kept is o.Encoding for what a request may give up making.
func Kept(o *cache.Object, id string, make func() ([]byte, error)) ([]byte, error) {
	return unshared(func(make func() ([]byte, error)) ([]byte, error) { return o.Encoding(id, make) }, make)
}

// unshared makes what requests share. If the one that was making it has given
// up, the next one makes it.
func unshared[T any](share func(make func() (T, error)) (T, error), make func() (T, error)) (T, error) {
	for {
		own := false
		v, err := share(func() (T, error) {
			own = true
			return make()
		})
		if own || !errors.Is(err, resource.ErrAbandoned) {
			return v, err
		}
	}
}
