package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"coracle/pkg/storage"
)

// Get returns one object. Errors: storage.ErrNotFound, *TooLargeError when the
// revision asked for is ahead of the store, *CorruptError, ErrNoKind.
func (c *Cache) Get(ctx context.Context, key string, read Read) (*Object, error) {
	if read.Exact != 0 {
		return nil, fmt.Errorf("key %s: one object cannot be read at an exact revision", key)
	}
	k, err := c.kindOf(ctx, key)
	if err != nil {
		return nil, err
	}
	st, _, behind, err := c.present(ctx, k, read)
	if err != nil {
		return nil, err
	}
	if behind {
		kv, _, err := c.cfg.Backend.Get(ctx, key)
		if err != nil {
			return nil, err
		}
		return k.index(kv.Key, kv.Value, kv.ModRevision, kv.CreateRevision)
	}
	if o, ok := st.objects.Get(key); ok {
		return o, nil
	}
	if bad, ok := st.corrupt.Get(key); ok {
		return nil, bad
	}
	return nil, storage.ErrNotFound
}

// List returns the objects under prefix, which is a kind's prefix or begins
// with one, in key order and all as of one revision. Pages of one list are
// consistent when later ones have After and Read.Exact from the earlier.
// Errors: *ExpiredError when an exact revision is gone, *TooLargeError,
// *CorruptError when an object under prefix cannot be read, ErrNoKind,
// storage.ErrInvalidKey when After is not under prefix.
func (c *Cache) List(ctx context.Context, prefix string, opts ListOptions) (*List, error) {
	if opts.After != "" {
		if err := storage.CheckAfter(prefix, opts.After); err != nil {
			return nil, err
		}
	}
	k, err := c.kindOf(ctx, prefix)
	if err != nil {
		return nil, err
	}
	if opts.Read.Exact != 0 {
		return c.listExact(ctx, k, prefix, opts)
	}
	st, rev, behind, err := c.present(ctx, k, opts.Read)
	if err != nil {
		return nil, err
	}
	if behind {
		return c.listStore(ctx, k, prefix, 0, opts)
	}
	return k.list(st, rev, prefix, opts)
}

// listExact lists at one revision: from the present state when it still holds
// that, from a state kept for later pages, else from the store's history.
func (c *Cache) listExact(ctx context.Context, k *kind, prefix string, opts ListOptions) (*List, error) {
	rev := opts.Read.Exact
	if err := c.reach(ctx, rev); err != nil {
		return nil, err
	}
	if int64(rev) < c.compacted.Load() {
		return nil, &ExpiredError{Revision: rev}
	}
	st := k.state.Load()
	if st.revision > rev {
		st = k.kept(rev)
	}
	if st != nil {
		return k.list(st, rev, prefix, opts)
	}
	list, err := c.listStore(ctx, k, prefix, rev, opts)
	if errors.Is(err, storage.ErrCompacted) {
		return nil, &ExpiredError{Revision: rev}
	}
	return list, err
}

// list makes a page out of a state that holds at rev.
func (k *kind) list(st *kindState, rev storage.Revision, prefix string, opts ListOptions) (*List, error) {
	if opts.Key != "" {
		return k.listKey(st, rev, opts)
	}
	if err := st.corruptUnder(prefix); err != nil {
		return nil, err
	}
	out := &List{Revision: rev, Remaining: -1}
	if opts.Match == nil {
		n := st.objects.PrefixLen(prefix, opts.After)
		if opts.Limit > 0 {
			n = min(n, opts.Limit)
		}
		out.Items = make([]*Object, 0, n)
	}
	for _, o := range st.objects.Prefix(prefix, opts.After) {
		if opts.Match != nil && !opts.Match(o) {
			continue
		}
		if opts.Limit > 0 && len(out.Items) == opts.Limit {
			out.Next = out.Items[len(out.Items)-1].Key
			break
		}
		out.Items = append(out.Items, o)
	}
	if out.Next != "" {
		k.keep(st, rev)
	}
	if opts.Match == nil {
		out.Remaining = 0
		if out.Next != "" {
			out.Remaining = int64(st.objects.PrefixLen(prefix, out.Next))
		}
	}
	return out, nil
}

// listKey makes a list of one key out of a state that holds at rev.
func (k *kind) listKey(st *kindState, rev storage.Revision, opts ListOptions) (*List, error) {
	if bad, ok := st.corrupt.Get(opts.Key); ok {
		return nil, bad
	}
	out := &List{Revision: rev, Remaining: -1}
	if o, ok := st.objects.Get(opts.Key); ok && (opts.Match == nil || opts.Match(o)) {
		out.Items = []*Object{o}
	}
	return out, nil
}

// storePage is how many keys listStore reads at a time.
const storePage = 2000

// listStore lists from the store itself, at a revision or, with 0, now.
func (c *Cache) listStore(ctx context.Context, k *kind, prefix string, rev storage.Revision, opts ListOptions) (*List, error) {
	out := &List{Revision: rev, Remaining: -1}
	after := opts.After
	if opts.Key != "" {
		prefix = opts.Key
	}
	for {
		page, err := c.cfg.Backend.Range(ctx, prefix, storage.RangeOptions{StartAfter: after, Limit: storePage, Revision: out.Revision})
		if err != nil {
			return nil, err
		}
		if out.Revision == 0 {
			out.Revision = page.Revision
		}
		for i, kv := range page.Items {
			if opts.Key != "" && kv.Key != opts.Key {
				continue
			}
			o, err := k.index(strings.Clone(kv.Key), kv.Value, kv.ModRevision, kv.CreateRevision)
			if err != nil {
				return nil, err
			}
			if opts.Match != nil && !opts.Match(o) {
				continue
			}
			if opts.Limit > 0 && len(out.Items) == opts.Limit {
				out.Next = out.Items[len(out.Items)-1].Key
				if opts.Match == nil {
					out.Remaining = page.Count - int64(i)
				}
				return out, nil
			}
			out.Items = append(out.Items, o)
		}
		if !page.More {
			break
		}
		after = page.Items[len(page.Items)-1].Key
	}
	if opts.Match == nil && opts.Key == "" {
		out.Remaining = 0
	}
	return out, nil
}
