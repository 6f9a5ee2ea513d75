package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"k8s.io/utils/clock"

	"coracle/pkg/storage"
)

const (
	// batchEvents is how many events of the ring Next looks at before it
	// returns what it has.
	batchEvents = 500
	// batchBytes is how much of the ring Next goes through before it returns,
	// since whoever holds the events of a Next holds their objects.
	batchBytes = 256 << 10
	// bookmarkEvery leaves room for a bookmark to arrive within a minute.
	bookmarkEvery = 50 * time.Second
	// maxFailures is how often a watcher asks for the store's history in vain.
	maxFailures = 6
)

// Watcher is one open watch. Next is called by one goroutine at a time; Close
// may be called from any. A watcher that is not read costs nothing and delays
// nobody; it only falls behind.
type Watcher struct {
	cache  *Cache
	kind   *kind
	key    groupKey
	group  *group
	prefix string
	opts   WatchOptions
	once   sync.Once
	closed chan struct{}

	// The rest belongs to the goroutine that calls Next.

	// pos is the revision up to which the watcher has seen everything.
	pos storage.Revision
	// initial is the state still to be sent after the key after; nil when that
	// is done.
	initial *kindState
	after   string
	marked  time.Time // when the last bookmark was sent, or the watch opened
	// failures counts how often in a row the store's history could not be read.
	failures int
	// timer wakes Next when a bookmark is due; nil until it first waits.
	timer clock.Timer
	// found and out are used again by each Next.
	found []*event
	out   []WatchEvent
}

// Watch opens a watch of the objects under prefix, which is a kind's prefix or
// begins with one. A revision in the future is waited for, except that an
// initial state must be there within three seconds. Errors: *TooLargeError,
// ErrNotReached, *CorruptError (only with Initial), ErrNoKind. That the history is gone is
// told by the first Next.
func (c *Cache) Watch(ctx context.Context, prefix string, opts WatchOptions) (*Watcher, error) {
	k, err := c.kindOf(ctx, prefix)
	if err != nil {
		return nil, err
	}
	w := &Watcher{cache: c, kind: k, prefix: prefix, opts: opts, closed: make(chan struct{}), pos: opts.From, marked: c.cfg.Clock.Now()}
	if opts.Initial || opts.From == 0 {
		if err := w.start(ctx); err != nil {
			return nil, err
		}
	}
	w.key = k.groupOf(prefix, &opts)
	w.group = k.join(w.key)
	return w, nil
}

// start sets the watcher to the present state.
func (w *Watcher) start(ctx context.Context) error {
	read := Read{Any: true}
	switch {
	case w.opts.Consistent:
		read = Read{}
	case w.opts.From > 0:
		read = Read{AtLeast: w.opts.From}
	}
	behind, err := w.cache.await(ctx, read)
	if err == nil && behind {
		err = fmt.Errorf("the watch cache is behind the store, try again: %w", ErrNotReached)
	}
	if err == nil && w.opts.Consistent {
		err = w.cache.reach(ctx, w.opts.From)
	}
	if err != nil {
		return err
	}
	st, rev, err := w.cache.settled(ctx, w.kind)
	if err != nil {
		return err
	}
	w.pos = rev
	if w.opts.Initial {
		if err := st.corruptUnder(w.prefix); err != nil {
			return err
		}
		w.initial = st
	}
	return nil
}

// Close ends the watch; a Next that blocks returns storage.ErrClosed.
func (w *Watcher) Close() {
	w.once.Do(func() {
		w.kind.leave(w.key, w.group)
		close(w.closed)
	})
}

// Next blocks until there is something to send and returns it in order. The
// events of one revision are never split. They are valid until the next call.
// Errors: *ExpiredError when the
// history after the last event is gone, ErrKindRemoved, storage.ErrClosed, that
// of ctx; after any other than the last the watch is over.
func (w *Watcher) Next(ctx context.Context) ([]WatchEvent, error) {
	for {
		w.forget()
		select {
		case <-w.closed:
			return nil, storage.ErrClosed
		case <-w.kind.removed:
			return nil, ErrKindRemoved
		default:
		}
		if w.initial != nil {
			return w.nextInitial()
		}
		wake := *w.group.wake.Load()
		more, err := w.collect(ctx)
		if err != nil {
			return nil, err
		}
		if w.mark(); len(w.out) > 0 {
			return w.out, nil
		}
		if more {
			continue
		}
		if err := w.wait(ctx, wake); err != nil {
			return nil, err
		}
	}
}

// forget empties what is used again, so that a watcher that waits holds no
// object.
func (w *Watcher) forget() {
	clear(w.found)
	clear(w.out)
	w.found, w.out = w.found[:0], w.out[:0]
	if cap(w.out) > idleEvents {
		w.found, w.out = nil, nil
	}
}

// idleEvents is how many events a waiting watcher keeps room for.
const idleEvents = 32

// Bookmark is the bookmark that a server may send when it ends the watch: the
// revision up to which the watcher has been told everything.
func (w *Watcher) Bookmark() WatchEvent { return WatchEvent{Type: Bookmark, Revision: w.pos} }

// nextInitial returns the next part of the initial state.
func (w *Watcher) nextInitial() ([]WatchEvent, error) {
	size := 0
	for key, o := range w.initial.objects.Prefix(w.prefix, w.after) {
		if len(w.out) == batchEvents || size > batchBytes {
			return w.out, nil
		}
		w.after = key
		if w.opts.Match == nil || w.opts.Match(o) {
			size += len(o.Value)
			w.out = append(w.out, WatchEvent{Type: Added, Object: o, Revision: o.Revision})
		}
	}
	w.initial = nil
	w.marked = w.cache.cfg.Clock.Now()
	w.out = append(w.out, WatchEvent{Type: Bookmark, Revision: w.pos, InitialEnd: true})
	return w.out, nil
}

// collect moves the position on and puts into out what the watcher is to be
// told of it. more says that there is more to look at without waiting.
func (w *Watcher) collect(ctx context.Context) (more bool, err error) {
	upTo := storage.Revision(w.cache.shown.Load())
	var behind bool
	w.found, more, behind = w.group.ring.read(w.found, w.pos, batchEvents, batchBytes)
	if behind && w.group != w.kind.all {
		w.found, more, behind = w.kind.ring.read(w.found, w.pos, batchEvents, batchBytes)
	}
	if behind {
		if w.pos <= storage.Revision(w.kind.lost.Load()) {
			return false, &ExpiredError{Revision: w.pos}
		}
		if w.found, upTo, err = w.past(ctx); err != nil {
			return false, err
		}
		if n := len(w.found); n >= batchEvents {
			upTo = w.found[n-1].rev
		}
		more = true
	} else if n := len(w.found); more {
		upTo = w.found[n-1].rev
	} else if n > 0 {
		upTo = max(upTo, w.found[n-1].rev)
	}
	for _, e := range w.found {
		ev, send, err := w.filter(e)
		if err != nil {
			return false, err
		}
		if send {
			w.out = append(w.out, ev)
		}
	}
	w.pos = max(w.pos, upTo)
	return more, nil
}

// past reads the store's history where the ring does not reach back.
func (w *Watcher) past(ctx context.Context) ([]*event, storage.Revision, error) {
	select {
	case <-w.kind.filled:
	default:
		select {
		case <-w.kind.filled:
			return nil, w.pos, nil
		case <-w.closed:
			return nil, 0, storage.ErrClosed
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
	}
	to := w.kind.ring.view.Load().start
	var events []*event
	_, err := w.cache.history(ctx, w.prefix, w.pos, to, func(ev *storage.Event) error {
		if n := len(events); n >= batchEvents && ev.KV.ModRevision != events[n-1].rev {
			return errEnough
		}
		e, err := w.kind.past(ev)
		if e != nil {
			events = append(events, e)
		}
		return err
	})
	switch {
	case err == nil:
		w.failures = 0
		return events, to, nil
	case errors.Is(err, storage.ErrCompacted) && len(events) == 0:
		return nil, 0, &ExpiredError{Revision: w.pos}
	case len(events) > 0:
		// What has been read is complete up to its last revision; go on there.
		w.failures = 0
		return events, events[len(events)-1].rev, nil
	case ctx.Err() != nil:
		return nil, 0, ctx.Err() // the caller gave up, the store did not fail
	}
	if w.failures++; w.failures > maxFailures {
		return nil, 0, fmt.Errorf("the history after %d cannot be read: %w", w.pos, err)
	}
	return nil, w.pos, w.pause(ctx, firstBackoff<<w.failures)
}

// pause waits before the store is asked again.
func (w *Watcher) pause(ctx context.Context, d time.Duration) error {
	timer := w.cache.cfg.Clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C():
		return nil
	case <-w.closed:
		return storage.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// errEnough stops the reading of history.
var errEnough = errors.New("enough events")

// filter turns an event of the ring into the watcher's own.
func (w *Watcher) filter(e *event) (WatchEvent, bool, error) {
	if !strings.HasPrefix(e.key, w.prefix) {
		return WatchEvent{}, false, nil
	}
	now := e.obj != nil && (w.opts.Match == nil || w.opts.Match(e.obj))
	before := e.prev != nil && (w.opts.Match == nil || w.opts.Match(e.prev))
	switch {
	case now && before:
		return WatchEvent{Type: Modified, Object: e.obj, Revision: e.obj.Revision}, true, nil
	case now:
		return WatchEvent{Type: Added, Object: e.obj, Revision: e.obj.Revision}, true, nil
	case before:
		last, err := e.last()
		if err != nil {
			return WatchEvent{}, false, err
		}
		return WatchEvent{Type: Deleted, Object: last, Revision: last.Revision}, true, nil
	}
	return WatchEvent{}, false, nil
}

// mark adds a bookmark when one is due.
func (w *Watcher) mark() {
	if !w.opts.Bookmarks || w.cache.cfg.Clock.Since(w.marked) < bookmarkEvery {
		return
	}
	w.marked = w.cache.cfg.Clock.Now()
	w.out = append(w.out, w.Bookmark())
}

// wait blocks until there may be new events or a bookmark is due.
func (w *Watcher) wait(ctx context.Context, wake <-chan struct{}) error {
	var due <-chan time.Time
	if w.opts.Bookmarks {
		due = w.due()
	}
	select {
	case <-wake:
	case <-due:
		w.timer = nil
	case <-w.closed:
		return storage.ErrClosed
	case <-w.kind.removed:
		return ErrKindRemoved
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// due fires when the next bookmark is due, or earlier: one timer serves many
// waits, since bookmarks between them only put the time off.
func (w *Watcher) due() <-chan time.Time {
	if w.timer == nil {
		w.timer = w.cache.cfg.Clock.NewTimer(bookmarkEvery - w.cache.cfg.Clock.Since(w.marked))
	}
	return w.timer.C()
}
