package registry

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"coracle/pkg/storage/cache"
)

// Splice writes a small, known change into an encoded object (field 1 is its
// metadata) and returns the new bytes. It is false for an object that the change
// is not allowed for, or that is not encoded as expected: the update then decodes
// the object and runs its Change, which says what is wrong. Who passes a Splice
// vouches for it: the result is neither admitted nor validated, and managedFields
// stay as they are. It must not change raw.
type Splice func(raw []byte) (spliced []byte, ok bool)

// splice is updateOnce by the bytes that are kept. done says that it was written.
func (r *Registry) splice(ctx context.Context, req Request, key string, current *cache.Object, opts UpdateOptions) (o *cache.Object, done bool, err error) {
	if current.Deleting || r.hook(req.Resource).Update != nil || r.hook(req.Resource).Updated != nil {
		return nil, false, nil
	}
	if err := CheckPreconditions(req, current, opts.Preconditions); err != nil {
		return nil, false, err
	}
	env, err := openEnvelope(current.Value)
	if err != nil {
		return nil, false, nil // whoever decodes it says more
	}
	raw, ok := opts.Splice(env.raw)
	if !ok {
		return nil, false, nil
	}
	m, err := placeOf(raw)
	if err != nil {
		return nil, false, apierrors.NewInternalError(fmt.Errorf("splice %s: %w", key, err))
	}
	env.raw = raw
	o, err = r.cfg.Cache.Update(ctx, key, sealVersion(env, m, nil), current.Revision, req.Resource.TTL)
	return o, err == nil, err
}
