package cache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"coracle/pkg/storage"
)

const (
	// maxPending bounds the own commits that wait for their predecessors. One
	// more is not kept; the watch brings it.
	maxPending = 4096
	// ownWait is how long a writer waits to see its own commit in the cache. It
	// answers then nevertheless, since the write has happened.
	ownWait = 3 * time.Second
)

// Create writes a new key; when it returns, every read of this cache sees the
// object. A positive ttl lets the store delete the key after that time. Errors:
// *storage.ConflictError when the key exists, *storage.OutcomeUnknownError,
// storage.ErrTooLarge, storage.ErrNoSpace, *CorruptError when the kind's Index
// cannot read what has been written.
func (c *Cache) Create(ctx context.Context, key string, value []byte, ttl time.Duration) (*Object, error) {
	return c.put(ctx, key, value, 0, ttl)
}

// Update replaces the value of a key that is at revision expect. Otherwise it
// is like Create; a ttl of 0 removes an earlier one.
func (c *Cache) Update(ctx context.Context, key string, value []byte, expect storage.Revision, ttl time.Duration) (*Object, error) {
	if expect <= 0 {
		return nil, fmt.Errorf("key %s: an update must name the revision that it replaces", key)
	}
	return c.put(ctx, key, value, expect, ttl)
}

func (c *Cache) put(ctx context.Context, key string, value []byte, expect storage.Revision, ttl time.Duration) (*Object, error) {
	k, err := c.kindOf(ctx, key)
	if err != nil {
		return nil, err
	}
	rev, err := c.cfg.Backend.Put(ctx, key, value, expect, ttl)
	if err != nil {
		return nil, c.refused(err)
	}
	if seen, ok := k.at(key, rev); ok { // the watch was first
		c.settle(ctx, key, rev)
		return seen, nil
	}
	ch := change{key: key, rev: rev, kind: k, stored: value, own: true}
	if expect == 0 {
		ch.created = rev
	} else if prev, ok := k.state.Load().objects.Get(key); ok && prev.Revision == expect {
		ch.created = prev.CreateRevision
	}
	ch.index()
	c.commit(ctx, ch)
	if ch.corrupt != nil {
		return nil, ch.corrupt
	}
	// The watch may have been first; what readers share is what is remembered.
	if seen, ok := k.at(key, rev); ok {
		return seen, nil
	}
	return ch.obj, nil
}

// at returns the object of a key if it is at that revision now.
func (k *kind) at(key string, rev storage.Revision) (*Object, bool) {
	o, ok := k.state.Load().objects.Get(key)
	return o, ok && o.Revision == rev
}

// Delete removes a key that is at revision expect and returns its last state,
// at the revision of the deletion; when it returns, no read of this cache sees
// the object. The result has only Key and Revision when the stored value could
// not be read. Errors: *storage.ConflictError, *storage.OutcomeUnknownError.
func (c *Cache) Delete(ctx context.Context, key string, expect storage.Revision) (*Object, error) {
	k, err := c.kindOf(ctx, key)
	if err != nil {
		return nil, err
	}
	prev, known := k.state.Load().objects.Get(key)
	rev, err := c.cfg.Backend.Delete(ctx, key, expect)
	if err != nil {
		return nil, c.refused(err)
	}
	c.commit(ctx, change{key: key, rev: rev, kind: k})
	if ev := k.ring.find(key, rev); ev != nil {
		return ev.last()
	}
	if known && prev.Revision == expect {
		return k.revise(prev, rev)
	}
	return &Object{Key: key, Revision: rev}, nil
}

// refused takes note of what a transaction saw that did not happen, and returns
// its error. The caller tells of it, so that no consistent read afterwards may
// show less, although the commit that won may still be on its way into the
// cache.
func (c *Cache) refused(err error) error {
	if lost, ok := errors.AsType[*storage.ConflictError](err); ok {
		saw := lost.Revision
		if lost.Current != nil {
			saw = lost.Current.ModRevision
		}
		raise(&c.floor, saw)
	}
	return err
}

// commit brings an own write into the cache: at once when everything before it
// is there, else when the watch has brought what is missing. It returns when
// the write has been applied, or after a while without.
func (c *Cache) commit(ctx context.Context, ch change) {
	c.exclusive(func() {
		switch applied := c.Revision(); {
		case ch.rev == applied+1:
			c.applyLocked([]change{ch}, ch.rev)
			c.drainLocked()
		case ch.rev > applied && len(c.pending) < maxPending:
			c.pending[ch.rev] = ch
		}
	})
	c.settle(ctx, ch.key, ch.rev)
}

// settle waits until a write has been applied, or for a while.
func (c *Cache) settle(ctx context.Context, key string, rev storage.Revision) {
	if err := c.waitApplied(ctx, rev, ownWait); err != nil {
		// A consistent read of a sole writer asks nobody, so it must know.
		raise(&c.floor, rev)
		c.log.Warn("A write has happened and is not in the watch cache yet", "key", key, "revision", rev, "error", err)
	}
}
