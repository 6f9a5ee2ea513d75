package memory

import (
	"context"
	"strings"
	"sync"

	"coracle/pkg/storage"
)

// maxBatch bounds the events of one batch, except that one revision is never
// split.
const maxBatch = 1000

// watch is a position in the history and a prefix.
type watch struct {
	store  *Store
	prefix string
	prev   bool // events carry the value before
	done   chan struct{}
	once   sync.Once

	// The rest belongs to the goroutine that calls Next.
	next     storage.Revision // first revision not yet looked at
	progress int              // Store.progress that has been answered
}

// Watch implements storage.Backend.
func (s *Store) Watch(ctx context.Context, prefix string, opts storage.WatchOptions) (storage.Watch, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, storage.ErrClosed
	}
	w := &watch{store: s, prefix: prefix, done: make(chan struct{}), prev: opts.Prev, next: opts.From, progress: s.progress}
	if opts.From == 0 {
		w.next = s.now.revision + 1
	}
	return w, nil
}

// Next implements storage.Watch.
func (w *watch) Next(ctx context.Context) (storage.Batch, error) {
	for {
		batch, changed, err := w.read()
		if err != nil || changed == nil {
			return batch, err
		}
		select {
		case <-changed:
		case <-w.done:
		case <-ctx.Done():
			return storage.Batch{}, ctx.Err()
		}
	}
}

// Close implements storage.Watch.
func (w *watch) Close() { w.once.Do(func() { close(w.done) }) }

// read returns a batch, or a channel to wait on when there is none.
func (w *watch) read() (storage.Batch, <-chan struct{}, error) {
	select {
	case <-w.done:
		return storage.Batch{}, nil, storage.ErrClosed
	default:
	}
	s := w.store
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return storage.Batch{}, nil, storage.ErrClosed
	}
	if w.next < s.compacted {
		return storage.Batch{}, nil, &storage.CompactedError{Compacted: s.compacted}
	}
	var batch storage.Batch
	for ; w.next <= s.now.revision && len(batch.Events) < maxBatch; w.next++ {
		for _, event := range s.past[w.next-s.compacted].events {
			if strings.HasPrefix(event.KV.Key, w.prefix) {
				if !w.prev {
					event.Prev = nil
				}
				batch.Events = append(batch.Events, event)
			}
		}
	}
	asked := w.progress != s.progress && w.next == s.now.revision+1
	if len(batch.Events) == 0 && !asked {
		return storage.Batch{}, s.changed, nil
	}
	if w.next == s.now.revision+1 {
		w.progress = s.progress
	}
	batch.Progress = w.next - 1
	return batch, nil, nil
}
