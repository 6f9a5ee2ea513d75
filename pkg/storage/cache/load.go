package cache

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"coracle/pkg/storage"
	"coracle/pkg/storage/ordered"
)

const (
	readPage    = 10_000
	readTimeout = time.Minute
	readAtOnce  = 4 // kinds read at the same time
)

// contents is what the store holds of one kind at a revision.
type contents struct {
	revision storage.Revision
	objects  ordered.Map[*Object]
	corrupt  ordered.Map[*CorruptError]
}

// read reads a kind from the store, in pages of one revision. When that
// revision is compacted meanwhile, everything is read in one piece, which
// cannot be.
func (c *Cache) read(ctx context.Context, k *kind) (*contents, error) {
	got, err := c.readPages(ctx, k, readPage)
	if errors.Is(err, storage.ErrCompacted) {
		return c.readPages(ctx, k, 0)
	}
	return got, err
}

func (c *Cache) readPages(ctx context.Context, k *kind, limit int) (*contents, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	known := k.state.Load()
	out := &contents{}
	objects, corrupt := out.objects.Edit(), out.corrupt.Edit()
	opts := storage.RangeOptions{Limit: limit}
	for {
		page, err := c.cfg.Backend.Range(ctx, k.Prefix, opts)
		if err != nil {
			return nil, err
		}
		if opts.Revision == 0 {
			opts.Revision = page.Revision
		}
		for _, ch := range k.indexAll(page.Items, known) {
			if ch.corrupt != nil {
				c.log.Error("A stored value cannot be read", "key", ch.key, "revision", ch.rev, "error", ch.corrupt.Err)
				corrupt.Set(ch.key, ch.corrupt)
				continue
			}
			ch.obj.memo.kept.Store(true)
			objects.Set(ch.key, ch.obj)
		}
		if !page.More {
			break
		}
		opts.StartAfter = page.Items[len(page.Items)-1].Key
	}
	out.revision, out.objects, out.corrupt = opts.Revision, objects.Map(), corrupt.Map()
	return out, nil
}

// indexAll reads stored keys on all processors. Objects that known has at the
// same revision are taken from there.
func (k *kind) indexAll(items []storage.KV, known *kindState) []change {
	out := make([]change, len(items))
	one := func(i int) {
		kv := &items[i]
		ch := change{key: kv.Key, rev: kv.ModRevision, kind: k, stored: kv.Value, created: kv.CreateRevision}
		if have, ok := known.objects.Get(kv.Key); ok && have.Revision == kv.ModRevision {
			ch.obj = have
		}
		ch.index()
		out[i] = ch
	}
	workers := min(runtime.GOMAXPROCS(0), len(items)/256+1)
	var wg sync.WaitGroup
	for w := 1; w < workers; w++ {
		wg.Go(func() {
			for i := w; i < len(items); i += workers {
				one(i)
			}
		})
	}
	for i := 0; i < len(items); i += workers {
		one(i)
	}
	wg.Wait()
	return out
}

// readAll reads all kinds, each at a revision of its own that is not less than
// from. The result is in the order of the table.
func (c *Cache) readAll(ctx context.Context, table kindTable) (from storage.Revision, all []*contents, err error) {
	if from, err = c.currentOnce(ctx); err != nil {
		return 0, nil, err
	}
	all = make([]*contents, len(table))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(readAtOnce)
	for i, k := range table {
		group.Go(func() (err error) {
			all[i], err = c.read(ctx, k)
			return err
		})
	}
	return from, all, group.Wait()
}

// install makes contents the state of a kind. c.mu is held.
func (c *Cache) install(k *kind, got *contents) {
	k.base = got.revision
	k.ring.reset(got.revision)
	k.state.Store(&kindState{objects: got.objects, corrupt: got.corrupt, revision: got.revision})
}

// load fills the cache for the first time.
func (c *Cache) load(ctx context.Context) error {
	c.mu.Lock()
	select {
	case <-c.loading:
	default:
		close(c.loading)
	}
	table := c.table()
	c.mu.Unlock()
	from, all, err := c.readAll(ctx, table)
	if err != nil {
		return err
	}
	c.exclusive(func() {
		for i, k := range table {
			c.install(k, all[i])
			raise(&c.floor, all[i].revision)
			close(k.loaded)
		}
		c.applied.Store(int64(from))
		c.shown.Store(int64(from))
	})
	c.log.Info("The watch cache has been filled", "revision", from, "kinds", len(table))
	return nil
}

// repair reads everything again after the history between what has been applied
// and now was compacted, or nobody told of it. Nobody knows the events in between, so the rings begin
// anew behind them. The own commits that go on meanwhile may close the gap;
// then nothing is to be done.
func (c *Cache) repair(ctx context.Context) error {
	table := c.table()
	from, all, err := c.readAll(ctx, table)
	if err != nil {
		return err
	}
	c.exclusive(func() { c.repairLocked(table, from, all) })
	return nil
}

// repairLocked takes over what has been read again. c.mu is held.
func (c *Cache) repairLocked(table kindTable, from storage.Revision, all []*contents) {
	silent := c.relist.Swap(false)
	applied := c.Revision()
	if applied >= from {
		return
	}
	c.log.Warn("The watch cache has not seen all of the history and has been read again",
		"seen", applied, "read", from, "silent", silent)
	for i, k := range table {
		switch {
		case k.loading != nil:
			k.spoiled = true
		case all[i].revision > k.base:
			c.repairKind(k, all[i])
			if silent {
				k.lost.Store(int64(applied))
			}
		}
	}
	c.applied.Store(int64(from))
	now := c.cfg.Clock.Now()
	for i, k := range table {
		k.show(k.state.Load().revision, now)
		raise(&c.floor, all[i].revision)
	}
	c.shown.Store(int64(from))
	c.notifyLocked()
	c.drainLocked()
}

// repairKind replaces the state of a kind and empties its rings: a watcher
// that has not passed them reads on from the store, as far as that remembers.
// c.mu is held.
func (c *Cache) repairKind(k *kind, got *contents) {
	old := k.state.Load()
	for key, prev := range old.objects.From("") {
		if now, ok := got.objects.Get(key); !ok || now != prev {
			prev.retire()
		}
	}
	for key, bad := range got.corrupt.From("") {
		if prev, ok := old.objects.Get(key); ok {
			bad.last = prev
		} else if was, ok := old.corrupt.Get(key); ok {
			bad.last = was.last
		}
	}
	k.base = got.revision
	k.state.Store(&kindState{objects: got.objects, corrupt: got.corrupt, revision: got.revision})
	k.forget(got.revision)
}

// backfill puts the store's history before the start of the rings, so that
// watches resume across a restart of this process. What cannot be had is not
// missed: such watches are told to list again.
func (c *Cache) backfill(ctx context.Context, table kindTable) {
	defer func() {
		for _, k := range table {
			close(k.filled)
		}
	}()
	var newest storage.Revision
	starts := make([]storage.Revision, len(table))
	for i, k := range table {
		starts[i] = k.ring.view.Load().start
		newest = max(newest, starts[i])
	}
	parts := map[*kind]*backlog{}
	start, err := c.history(ctx, c.cfg.Prefix, 0, newest, func(ev *storage.Event) error {
		k := table.find(ev.KV.Key)
		if k == nil {
			return nil
		}
		part := parts[k]
		if part == nil {
			part = &backlog{limit: c.cfg.RingBytes}
			parts[k] = part
		}
		return part.add(k, ev)
	})
	if err != nil {
		if ctx.Err() == nil {
			c.log.Warn("The history before the start cannot be read: clients with older watches will list again", "error", err)
		}
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, k := range table {
		part := parts[k]
		if part == nil {
			part = &backlog{}
		}
		// The history may have been compacted past the start of the ring, and
		// the ring may have moved on meanwhile: then there is nothing to add.
		from := max(start, part.dropped)
		if from < starts[i] && k.ring.view.Load().start == starts[i] {
			k.ring.prepend(from, part.events, c.cfg.Clock.Now())
		}
	}
}

// backlog collects the history of one kind, the newest that fits.
type backlog struct {
	limit, bytes int
	events       []*event
	dropped      storage.Revision // the newest event that did not fit
}

func (b *backlog) add(k *kind, ev *storage.Event) error {
	e, err := k.past(ev)
	if err != nil || e == nil {
		return err
	}
	b.events = append(b.events, e)
	b.bytes += e.bytes()
	for b.bytes > b.limit && len(b.events) > 1 {
		b.bytes -= b.events[0].bytes()
		b.dropped = b.events[0].rev
		b.events = b.events[1:]
	}
	return nil
}

// past makes an event out of one that the store remembers. The result is nil
// for values that cannot be read.
func (k *kind) past(ev *storage.Event) (*event, error) {
	e := &event{key: strings.Clone(ev.KV.Key), kind: k, rev: ev.KV.ModRevision}
	var err error
	if p := ev.Prev; p != nil {
		if e.prev, err = k.index(p.Key, p.Value, p.ModRevision, p.CreateRevision); err != nil {
			return nil, err
		}
	}
	if ev.Type == storage.Put {
		if e.obj, err = k.index(ev.KV.Key, ev.KV.Value, ev.KV.ModRevision, ev.KV.CreateRevision); err != nil {
			return nil, err
		}
	}
	if e.obj == nil && e.prev == nil {
		return nil, nil
	}
	return e, nil
}
