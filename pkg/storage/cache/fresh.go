package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"coracle/pkg/storage"
)

const (
	// tooLargeWait is how long a read waits for a revision ahead of the cache.
	tooLargeWait = 3 * time.Second
	// currentTimeout bounds one question for the store's revision.
	currentTimeout = 5 * time.Second
)

// flights lets concurrent callers share questions to the store: a caller takes
// part only in one that was sent after it came.
type flights struct {
	mu            sync.Mutex
	running, next *flight
}

type flight struct {
	done chan struct{}
	rev  storage.Revision
	err  error
}

// Current is the store's revision, linearizably: at least that of every write
// that anybody acknowledged before the call.
func (c *Cache) Current(ctx context.Context) (storage.Revision, error) {
	f := &c.freshest
	f.mu.Lock()
	var mine *flight
	switch {
	case f.running == nil:
		mine = &flight{done: make(chan struct{})}
		f.running = mine
		go c.fly(mine)
	case f.next == nil:
		f.next = &flight{done: make(chan struct{})}
		mine = f.next
	default:
		mine = f.next
	}
	f.mu.Unlock()
	select {
	case <-mine.done:
		return mine.rev, mine.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// fly asks the store once, and again as long as callers came meanwhile. It is
// bound to no caller's context, because it serves several.
func (c *Cache) fly(mine *flight) {
	f := &c.freshest
	for mine != nil {
		mine.rev, mine.err = c.currentOnce(context.Background())
		close(mine.done)
		f.mu.Lock()
		f.running, f.next = f.next, nil
		mine = f.running
		f.mu.Unlock()
	}
}

func (c *Cache) currentOnce(ctx context.Context) (storage.Revision, error) {
	ctx, cancel := context.WithTimeout(ctx, currentTimeout)
	defer cancel()
	rev, err := c.cfg.Backend.Current(ctx)
	if err != nil {
		return 0, fmt.Errorf("the store does not tell its revision: %w", err)
	}
	return rev, nil
}

// await blocks until the cache is as fresh as read asks. behind is true when a
// consistent read could not be had from the cache in time, so that the store
// itself must be read.
func (c *Cache) await(ctx context.Context, read Read) (behind bool, err error) {
	switch {
	case read.Any:
		return false, nil
	case read.AtLeast > 0:
		return false, c.reach(ctx, read.AtLeast)
	}
	rev := storage.Revision(c.floor.Load())
	if !c.cfg.SoleWriter {
		if rev, err = c.Current(ctx); err != nil {
			return false, err
		}
	}
	err = c.waitApplied(ctx, rev, tooLargeWait)
	if errors.Is(err, ErrNotReached) {
		return true, nil
	}
	return false, err
}

// reach waits until a revision that a client named has been applied.
func (c *Cache) reach(ctx context.Context, rev storage.Revision) error {
	err := c.waitApplied(ctx, rev, tooLargeWait)
	if errors.Is(err, ErrNotReached) {
		return &TooLargeError{Asked: rev, Current: c.Revision(), RetryAfter: time.Second}
	}
	return err
}

// settled returns the state of a kind and a revision at which it holds. Every
// change up to that revision, of all kinds, has been applied: who reads
// something else afterwards finds nothing older.
func (c *Cache) settled(ctx context.Context, k *kind) (*kindState, storage.Revision, error) {
	rev := c.Revision()
	st := k.state.Load()
	if st.revision > rev {
		rev = st.revision
		if err := c.waitApplied(ctx, rev, tooLargeWait); err != nil {
			return nil, 0, err
		}
	}
	return st, rev, nil
}

// present is the state of a kind that is as fresh as read asks, and a revision
// at which it holds; behind is as in await.
func (c *Cache) present(ctx context.Context, k *kind, read Read) (st *kindState, rev storage.Revision, behind bool, err error) {
	if behind, err = c.await(ctx, read); behind || err != nil {
		return nil, 0, behind, err
	}
	st, rev, err = c.settled(ctx, k)
	if !errors.Is(err, ErrNotReached) {
		return st, rev, false, err
	}
	// The kind was read anew, and the feed is silent since.
	if !read.Any && read.AtLeast == 0 {
		return nil, 0, true, nil
	}
	return nil, 0, false, &TooLargeError{Asked: k.state.Load().revision, Current: c.Revision(), RetryAfter: time.Second}
}
