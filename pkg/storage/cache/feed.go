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
	firstBackoff = 50 * time.Millisecond
	maxBackoff   = 5 * time.Second
	// historyTimeout bounds one reading of the store's history.
	historyTimeout = 30 * time.Second
)

// Run fills the cache and keeps it current until ctx ends. It returns when all
// its goroutines have ended, always with nil: what goes wrong with the store is
// tried again, and Lag tells.
func (c *Cache) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { c.notifier(ctx) })
	wg.Go(func() { c.watchLag(ctx) })
	c.retry(ctx, "The watch cache could not be filled", c.load)
	table := c.table()
	wg.Go(func() {
		if c.waitApplied(ctx, storage.Revision(c.floor.Load()), forever) == nil {
			close(c.ready)
			c.backfill(ctx, table)
		}
	})
	for ctx.Err() == nil {
		c.retry(ctx, "The watch of the store broke", c.follow)
		c.retry(ctx, "The watch cache could not be read again", c.repair)
	}
	wg.Wait()
	return nil
}

const forever = 1 << 62 * time.Nanosecond

// retry calls f until it returns nil or ctx ends, waiting longer each time.
func (c *Cache) retry(ctx context.Context, failed string, f func(context.Context) error) {
	backoff := firstBackoff
	for ctx.Err() == nil {
		before := c.Revision()
		err := f(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		if c.Revision() > before {
			backoff = firstBackoff
		}
		c.log.Warn(failed, "error", err, "retry", backoff)
		timer := c.cfg.Clock.NewTimer(backoff)
		select {
		case <-timer.C():
		case <-ctx.Done():
		}
		timer.Stop()
		backoff = min(2*backoff, maxBackoff)
	}
}

// follow applies what the store's watch delivers. It returns nil when the
// history that it needs has been compacted, or the watch has been silent for
// too long: then everything is to be read again.
func (c *Cache) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.mu.Lock()
	c.unfollow = cancel
	c.mu.Unlock()
	err := c.followFrom(ctx, c.Revision()+1)
	if errors.Is(err, storage.ErrCompacted) || c.relist.Load() {
		return nil
	}
	return err
}

func (c *Cache) followFrom(ctx context.Context, from storage.Revision) error {
	w, err := c.cfg.Backend.Watch(ctx, c.cfg.Prefix, storage.WatchOptions{From: from})
	if err != nil {
		return err
	}
	defer w.Close()
	for {
		batch, err := w.Next(ctx)
		if err != nil {
			return err
		}
		c.take(&batch)
	}
}

// take applies one batch of the watch. What the cache wrote itself has been
// applied before most of the time and costs nothing here.
func (c *Cache) take(batch *storage.Batch) {
	if batch.Progress <= c.Revision() {
		return
	}
	table := c.table()
	changes := make([]change, 0, len(batch.Events))
	for i := range batch.Events {
		ev := &batch.Events[i]
		if ev.KV.ModRevision <= c.Revision() {
			continue // perhaps only since this batch was begun with
		}
		if own, ok := c.waits(ev.KV.ModRevision); ok {
			changes = append(changes, own)
			continue
		}
		ch := change{key: ev.KV.Key, rev: ev.KV.ModRevision, kind: table.find(ev.KV.Key)}
		if ev.Type == storage.Put {
			ch.stored, ch.created = ev.KV.Value, ev.KV.CreateRevision
		}
		ch.index()
		changes = append(changes, ch)
	}
	c.exclusive(func() {
		c.applyLocked(changes, batch.Progress)
		c.drainLocked()
	})
}

// waits returns the own commit of a revision if it waits for its predecessors: it
// has been indexed.
func (c *Cache) waits(rev storage.Revision) (change, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch, ok := c.pending[rev]
	return ch, ok
}

// history calls f for each event under prefix after a revision up to another
// one, out of the store's own history. A from of 0 means as far back as there
// is; the result is the revision it really began after.
func (c *Cache) history(ctx context.Context, prefix string, from, to storage.Revision, f func(*storage.Event) error) (storage.Revision, error) {
	ctx, cancel := context.WithTimeout(ctx, historyTimeout)
	defer cancel()
	oldest, delivered := from == 0, false
	for {
		err := c.historyOnce(ctx, prefix, from, to, func(ev *storage.Event) error {
			delivered = true
			return f(ev)
		})
		gone, compacted := errors.AsType[*storage.CompactedError](err)
		if compacted && oldest && !delivered && gone.Compacted > from {
			from = gone.Compacted
			continue
		}
		return from, err
	}
}

func (c *Cache) historyOnce(ctx context.Context, prefix string, from, to storage.Revision, f func(*storage.Event) error) error {
	if from >= to {
		return nil
	}
	w, err := c.cfg.Backend.Watch(ctx, prefix, storage.WatchOptions{From: from + 1, Prev: true})
	if err != nil {
		return err
	}
	defer w.Close()
	for {
		batch, err := c.nextOrNudge(ctx, w)
		if err != nil {
			return err
		}
		for i := range batch.Events {
			if batch.Events[i].KV.ModRevision > to {
				return nil
			}
			if err := f(&batch.Events[i]); err != nil {
				return err
			}
		}
		if batch.Progress >= to {
			return nil
		}
	}
}

// nextOrNudge is w.Next, asking for a progress mark while nothing comes: the
// end of a history that has no event shows itself only there.
func (c *Cache) nextOrNudge(ctx context.Context, w storage.Watch) (storage.Batch, error) {
	for {
		short, cancel := context.WithTimeout(ctx, nudgeEvery)
		batch, err := w.Next(short)
		expired := short.Err() != nil
		cancel()
		if err == nil || !expired || ctx.Err() != nil {
			return batch, err
		}
		if err := c.cfg.Backend.RequestProgress(ctx); err != nil {
			return batch, fmt.Errorf("the store does not tell how far its history goes: %w", err)
		}
	}
}
