package custom

import (
	"context"
	"errors"
	"sync"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/resource"
)

// Webhooks converts objects by a definition's conversion webhook.
type Webhooks interface {
	// Convert returns objects as the webhook converts them to apiVersion, in
	// their order, by one call of it that ends with ctx. The objects given are
	// not changed. The error of a call that ctx ended is resource.ErrAbandoned.
	Convert(ctx context.Context, hook *apiextensionsv1.WebhookConversion, objects []*unstructured.Unstructured, apiVersion string) ([]*unstructured.Unstructured, error)
}

// callWebhook converts objects by the definition's webhook.
func (d *Definition) callWebhook(ctx context.Context, objects []*unstructured.Unstructured, target string) ([]*unstructured.Unstructured, error) {
	if d.src.Webhooks == nil {
		return nil, errors.New("this API server calls no conversion webhooks")
	}
	crd, err := d.src.Load()
	if err != nil {
		return nil, err
	}
	if crd.Spec.Conversion == nil || crd.Spec.Conversion.Webhook == nil {
		return nil, errors.New("the definition has no conversion webhook any more")
	}
	return d.src.Webhooks.Convert(ctx, crd.Spec.Conversion.Webhook, objects, target)
}

// forRequest implements resource.Custom.For: r with hooks that convert for one
// request.
func (o *objects) forRequest(ctx context.Context, r *resource.Resource) *resource.Resource {
	bound, calls := *o, &calls{ctx: ctx}
	bound.calls = calls
	out, custom := *r, *r.Custom
	custom.FromStored, custom.ToStored, custom.Manager = bound.fromStored, bound.toStored, bound.manager
	custom.For, custom.Expect = nil, calls.expect
	out.Custom = &custom
	return &out
}

// Bounds of what one call of a webhook is asked to convert.
const (
	maxBatch      = 1000
	maxBatchBytes = 4 << 20
)

// calls are the conversions of one request. A nil one is of no request, and
// remembers nothing.
type calls struct {
	// ctx is the request's: it lives as long as the hooks that were made for it.
	ctx context.Context

	mu    sync.Mutex
	ready map[objectKey]*unstructured.Unstructured // converted, not asked for yet; guarded by mu
	next  int                                      // of the expected objects; guarded by mu
	count int                                      // guarded by mu
	load  func(int) *unstructured.Unstructured     // guarded by mu
}

// objectKey tells states of objects apart.
type objectKey struct {
	uid     types.UID
	version string
}

func keyOf(u *unstructured.Unstructured) objectKey {
	return objectKey{u.GetUID(), u.GetResourceVersion()}
}

func keysOf(all []*unstructured.Unstructured) []objectKey {
	keys := make([]objectKey, len(all))
	for i, u := range all {
		keys[i] = keyOf(u)
	}
	return keys
}

func (c *calls) context() context.Context {
	if c == nil {
		return context.Background() // the webhook's own bound holds
	}
	return c.ctx
}

// expect implements resource.Custom.Expect.
func (c *calls) expect(n int, load func(int) *unstructured.Unstructured) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next, c.count, c.load, c.ready = 0, n, load, nil
}

// take returns the converted form of u if it is there, and forgets it.
func (c *calls) take(u *unstructured.Unstructured) *unstructured.Unstructured {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	key := keyOf(u)
	known := c.ready[key]
	delete(c.ready, key)
	return known
}

// more returns expected objects that are to be converted together with u.
func (c *calls) more(u *unstructured.Unstructured) (batch []*unstructured.Unstructured) {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	size := 0
	for ; c.next < c.count && len(batch) < maxBatch-1 && size < maxBatchBytes; c.next++ {
		other := c.load(c.next)
		if other == nil || keyOf(other) == keyOf(u) {
			continue
		}
		batch = append(batch, other)
		size += sizeOf(other.Object)
	}
	return batch
}

// keep remembers converted objects until they are asked for.
func (c *calls) keep(keys []objectKey, converted []*unstructured.Unstructured) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ready == nil {
		c.ready = make(map[objectKey]*unstructured.Unstructured, len(keys))
	}
	for i, key := range keys {
		c.ready[key] = converted[i]
	}
}

// sizeOf estimates the JSON of a value.
func sizeOf(v any) int {
	switch v := v.(type) {
	case map[string]any:
		n := 2
		for key, inner := range v {
			n += len(key) + 4 + sizeOf(inner)
		}
		return n
	case []any:
		n := 2
		for _, inner := range v {
			n += 1 + sizeOf(inner)
		}
		return n
	case string:
		return len(v) + 2
	}
	return 8
}
